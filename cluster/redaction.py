"""One function that takes passwords, tokens and signatures out of what is written down or shown."""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_URI = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]*:/*[^\s\"'<>]+")
# A password may hold slashes; what begins as a port and a path is none.
_PASSWORD = re.compile(r"^([^:/?#]+:/*[^:@/?#]*:)(?!\d+(?:/|$))[^@]+(?=@)")
_TOKEN = re.compile(r"^(https?://)[^:@/?#]+(?=@)")
_QUERY = re.compile(
    r"([?&;#][\w.-]*(?:pass|pwd|token|secret|sig|credential|key|auth)[\w.-]*=)[^&;#]+",
    re.IGNORECASE,
)


def redacted(value: Any) -> Any:
    """Text, or whatever holds text, in which each URI has lost its secrets; the rest stays as it is.

    >>> redacted("no server at postgresql://ann:hunter2@db/runs")
    'no server at postgresql://ann:***@db/runs'
    >>> redacted({"root": ["s3://bucket/x", "https://h/a?sig=2f&v=1"]})
    {'root': ['s3://bucket/x', 'https://h/a?sig=***&v=1']}
    """
    if isinstance(value, str):
        return _URI.sub(lambda match: _bare(match[0]), value) if ":" in value else value
    if isinstance(value, Mapping):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return value


def _bare(uri: str) -> str:
    uri = _PASSWORD.sub(rf"\g<1>{HIDDEN}", uri)
    uri = _TOKEN.sub(rf"\g<1>{HIDDEN}", uri)
    return _QUERY.sub(rf"\g<1>{HIDDEN}", uri)
