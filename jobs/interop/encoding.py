"""Bytes of a table as text: the encoding is detected, and noted where it is not UTF-8."""

import codecs

from cluster.errors import TableError

OTHERS = {
    b"PK\x03\x04": "a spreadsheet or zip; save it as CSV (UTF-8), or as Parquet",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of old Excel; save it as CSV (UTF-8), or as Parquet",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"PAR1": "Parquet; call it .parquet",
    b"\x89HDF": "HDF5; call it .h5",
    b"\x93NUMPY": "an array of NumPy; call it .npy",
}
"""First bytes of files that are no text -> what they are and what to do."""

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks; that of UTF-32 begins like that of UTF-16."""

CONTROL_QUOTES = {
    code: bytes([code]).decode("cp1252")
    for code in range(0x80, 0xA0)
    if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)  # undefined there
}
"""Controls that Windows-1252 became on its way through Latin-1 -> the quotes and dashes they were."""

SAMPLE = 65_536


def decode_text(content: bytes, *, where: str) -> tuple[str, str | None]:
    """Text, and the name of its encoding where that is not UTF-8.

    UTF-16 and UTF-32 go by their mark or, without one, by where the zero bytes of their letters lie. Bytes
    that are not UTF-8 are Windows-1252, one by one, so that a stray one spoils no other; stray control codes
    are mended to the quotes that they were.

    Raises:
        TableError: not text, naming what it is where that can be seen.
    """
    for start, kind in OTHERS.items():
        if content.startswith(start):
            raise TableError(f"{where}: is {kind}")
    encoding = _encoding(content)
    try:
        text = content.decode(encoding)
        name = None if encoding.startswith("utf-8") else encoding.upper()
    except UnicodeDecodeError as error:
        if not encoding.startswith("utf-8"):
            raise TableError(f"{where}: not readable as {encoding.upper()}: {error}") from error
        text, name = _mixed(content, where), "Windows-1252"
    if "\0" in text:
        raise TableError(f"{where}: holds zero bytes, so it is not text")
    return text.translate(CONTROL_QUOTES), name


def _encoding(content: bytes) -> str:
    for mark, name in MARKS:
        if content.startswith(mark):
            return name
    sample = content[:SAMPLE]
    high, low = sample[0::2].count(0), sample[1::2].count(0)
    if not high and not low:
        return "utf-8"
    return "utf-16-be" if high > low else "utf-16-le"


def _mixed(content: bytes, where: str) -> str:
    """UTF-8, and Windows-1252 wherever it is not that."""

    def as_windows(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        try:
            return error.object[error.start : error.end].decode("cp1252"), error.end
        except UnicodeDecodeError:
            line = error.object[: error.start].count(b"\n") + 1
            raise TableError(
                f"{where}: neither UTF-8 nor Windows-1252 (first in line {line}); save it as UTF-8"
            ) from error

    codecs.register_error("affuse.cp1252", as_windows)
    return content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "affuse.cp1252")
