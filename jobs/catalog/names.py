"""Names that become files below a root: of runs, bundles, scores, folds, tasks and the like."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from cluster.errors import ConfigError
from cluster.settings import REGISTERED

LONGEST = 150
"""Of a name [bytes]; a file's name has room for 255, with its ending and a temporary mark."""


def checked_name(name: str, what: str) -> str:
    """A name that is safe as the name of a file or folder.

    Args:
        name: the name.
        what: what it names, for the message: a flag, or the file that it was read from.

    Raises:
        ConfigError: it would leave its folder, hide, be taken for a flag, or not fit.
    """
    if fault := _fault(name):
        shown = name if len(name) <= 60 else f"{name[:60]}..."
        raise ConfigError(
            f"{what} {shown!r} {fault}; expected a plain name such as ensemble or voice-2"
        )
    return name


def check_names(**flags: str | Iterable[str] | None) -> None:
    """Check the names that a job was given: field of its config -> name, names, or nothing.

    Raises:
        ConfigError: one of them is no name.
    """
    for flag, names in flags.items():
        for name in [names] if isinstance(names, str) else names or ():
            checked_name(name, f"--{flag.replace('_', '-')}")


def check_bundle_names(**flags: str | Iterable[str] | None) -> None:
    """Check names of bundles; a registered model (models:/NAME@ALIAS) may stand for one.

    Raises:
        ConfigError: one of them is no name.
    """
    for flag, names in flags.items():
        given = [names] if isinstance(names, str) else names or ()
        check_names(**{flag: [name for name in given if not name.startswith(REGISTERED)]})


def check_once(**flags: Sequence[str]) -> None:
    """Refuse a name that was given twice: compared with itself, anything gains nothing.

    Raises:
        ConfigError: naming it.
    """
    for flag, names in flags.items():
        for name, count in Counter(names).items():
            if count > 1:
                raise ConfigError(
                    f"--{flag.replace('_', '-')}: {name!r} is named {count} times; type it once"
                )


def joined_name(names: Sequence[str], between: str) -> str:
    """One name made of several; a long one is cut, and a hash makes it unique."""
    whole = between.join(names)
    if len(whole.encode()) <= LONGEST:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{whole.encode()[: LONGEST - 9].decode(errors='ignore')}-{digest}"


def _fault(name: str) -> str | None:
    if not name.strip():
        return "is empty"
    if "/" in name or "\\" in name:
        return "holds a slash, and would lie elsewhere"
    if name[0] in ".-":
        return f"begins with {name[0]!r}"
    if name != name.strip():
        return "begins or ends with a space"
    if not name.isprintable():
        return "holds characters that cannot be shown"
    if len(name.encode()) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    return None
