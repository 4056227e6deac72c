"""Behind `encoders.media`: tracks, clocks, jumps and pictures of files as FFmpeg opens them."""
