"""What a file is by its first bytes: sound, film and pictures of known containers, and nothing else.

FFmpeg opens playlists and scripts too, which name other files of the machine; such a file never reaches it.
"""

import re

HEAD_BYTES = 4096
"""How much of a file is looked at [bytes]."""

_SIGNATURES: tuple[tuple[str, bytes], ...] = (
    (".flac", rb"fLaC"),
    (".ogg", rb"OggS"),
    (".wav", rb"(RIFF|RF64|RIFX).{4}WAVE"),
    (".avi", rb"RIFF.{4}AVI "),
    (".aiff", rb"FORM.{4}AIF[FC]"),
    (".mp3", rb"ID3[\x02-\x04]|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]"),
    (".aac", rb"\xff[\xf0\xf1\xf8\xf9]"),
    (".amr", rb"#!AMR"),
    (".mp4", rb".{4}(ftyp|moov|mdat|free|skip|wide)"),
    (".mkv", rb"\x1a\x45\xdf\xa3"),
    (".flv", rb"FLV\x01"),
    (".wmv", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    (".mpg", rb"\x00\x00\x01[\xb3\xba]"),
    (".ts", rb"\x47.{187}\x47"),
    (".png", rb"\x89PNG\r\n\x1a\n"),
    (".jpg", rb"\xff\xd8\xff"),
    (".webp", rb"RIFF.{4}WEBP"),
    (".bmp", rb"BM.{4}\x00\x00\x00\x00"),
)
_PATTERNS = tuple((suffix, re.compile(head, re.DOTALL)) for suffix, head in _SIGNATURES)

PICTURES = frozenset({".png", ".jpg", ".webp", ".bmp"})


def suffix_of(head: bytes) -> str | None:
    """The ending of a file's name that its first bytes ask for; None: no media that is accepted.

    >>> suffix_of(b"OggS rest"), suffix_of(b"#EXTM3U file:///etc/passwd")
    ('.ogg', None)
    """
    return next((suffix for suffix, pattern in _PATTERNS if pattern.match(head)), None)
