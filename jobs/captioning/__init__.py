"""A film with what was read in it written on it: captions over time, subtitles, the painted film."""
