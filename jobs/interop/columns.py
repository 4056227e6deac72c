"""Which column is meant: probable typing errors become faults, unread columns are listed."""

import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from cluster.settings import nearest

MOST_NAMED = 20
NUMBER = re.compile(r"[0-9]{1,15}(\.0*)?")

ALIASES: Mapping[str, str] = {
    "name": "clip clipid clipname file filename filepath id path utterance utteranceid utt uttid videoid",
    "video": "film movie videofile videoname videopath",
    "audio": "audiofile audioname audiopath sound wav wavfile",
    "text": "rawtext sentence transcript transcription utterance",
    "start_s": "begin onset start starttime startsec startseconds",
    "end_s": "end endsec endseconds endtime stop",
    "dialogue": "conversation conversationid dialog dialogid dialogueid",
    "turn": "turnid turnno turnnumber uttno utteranceid utteranceno",
    "speaker": "actor actorid participant participantid person personid respondent speakerid speakername spk "
    "subject subjectid who",
    "group": "filmid groupid videoid",
    "split": "partition subset",
    "fold": "foldid",
}
"""Other names of the columns that are read here, spelt as `plain` spells."""


def plain(text: str) -> str:
    """A word without typing errors: case, spaces, marks, width, invisible letters."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(letter for letter in folded if letter.isalnum())


def alike(word: str) -> str:
    """A class or speaker without typing errors: case, spaces, invisible letters, leading zeros."""
    normal = unicodedata.normalize("NFKC", word)
    seen = "".join(letter for letter in normal if unicodedata.category(letter) != "Cf")
    return str(float(seen)) if NUMBER.fullmatch(seen) else " ".join(seen.casefold().split())


def meant(wanted: str, header: Iterable[str]) -> str:
    """Hint for a column that is not there: the nearest columns."""
    header = list(header)
    same = same_but_case(wanted, header)
    return f"did you mean {same!r}?" if same is not None else nearest(wanted, header[:MOST_NAMED])


def same_but_case(wanted: str, header: Iterable[str]) -> str | None:
    """The first column that has the letters of one that is not there, whatever their case and signs."""
    return next((name for name in header if plain(name) == plain(wanted)), None)


def near_roles(unread: Sequence[str], roles: Iterable[str]) -> dict[str, list[str]]:
    """Role that no column has -> the unread columns that may be meant by it."""
    found: dict[str, list[str]] = {}
    for role in roles:
        word = plain(role)
        others = {word, f"{word}s", *ALIASES.get(role, "").split()}
        columns = [name for name in unread if plain(name) in others]
        if columns:
            found[role] = columns
    return found


def asked_back(near: Mapping[str, Sequence[str]], noun: str = "column") -> list[str]:
    """A fault for every unread column that may be one of the roles."""
    return [
        f"{noun} {name!r} is not read; did you mean {role!r}? type: --columns "
        f"{shlex.quote(f'{role}={name}')} (or --as-is {shlex.quote(name)}, if it is something else)"
        for role, names in near.items()
        for name in names
    ]


def unread_note(names: Sequence[str]) -> str | None:
    """Note that lists the unread columns."""
    if not names:
        return None
    some = ", ".join(names[:MOST_NAMED])
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"not read: {some}{more}"


def spelt_differently(column: str, values: Iterable[str | None] | Counter[str]) -> list[str]:
    """A fault for words of one column, or their counts, that differ by a typing error alone."""
    if isinstance(values, Counter):
        counts = values
    else:
        counts = Counter(value for value in values if value is not None)
    families: dict[str, list[str]] = defaultdict(list)
    for word in counts:
        families[alike(word)].append(word)
    return [
        f"{column}: {', '.join(f'{word!r} ({counts[word]})' for word in sorted(family))} differ only "
        f"in case, spaces or zeros; spell them alike (or type: --as-is {column}, if they are different)"
        for family in families.values()
        if len(family) > 1
    ]
