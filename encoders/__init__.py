"""Pretrained encoders, one file each.

`ENCODERS` maps a name to the module that holds its `SPEC` and its wrapper class. The modules import
torch and other heavy libraries only when a wrapper is constructed, so that the table can be listed in
milliseconds.
"""

ENCODERS: dict[str, str] = {
    "egemaps": "encoders.audio.egemaps",
    "face_expression": "encoders.video.face_expression",
    "minilm": "encoders.text.minilm",
    "whisper_tiny_en": "encoders.audio.whisper_tiny_en",
}
"""Encoder name (= file name) -> module with `SPEC`."""

TRANSCRIBERS: dict[str, str] = {
    "whisper_tiny_en_asr": "encoders.audio.whisper_tiny_en_asr",
}
"""Transcriber name -> module with `SPEC`."""
