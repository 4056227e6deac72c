"""Errors about rows that a table lacks: how many clips, and the command that makes them."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from cluster import storage
from cluster.errors import NotPreparedError
from cluster.nearest import nearest_of
from cluster.settings import nearest
from encoders.spec import Modality
from jobs.catalog import layout

MODALITIES = get_args(Modality)


def rows_missing(
    root: str, table_uri: str, lacking: int, total: int, note: str = ""
) -> NotPreparedError:
    """The refusal to read a table that has no row for some clips of the manifest.

    Args:
        root: the dataset.
        table_uri: folder of the table.
        lacking: clips of the manifest without a row.
        total: clips of the manifest.
        note: what else is known, put in parentheses.
    """
    uri = storage.join(table_uri, layout.DESCRIPTOR)
    folder = table_uri.rsplit("/", 1)[-1]
    facts = storage.read_json(uri) if storage.exists(uri) else {"name": folder.rpartition("-")[0]}
    said = f" ({note})" if note else ""
    return NotPreparedError(
        f"{lacking} of {total} clips have no row in {table_uri}{said}; type: {command_of(root, facts)}"
    )


def table_missing(
    root: str, kind: layout.TableKind, name: str, tables: Iterable[Mapping[str, Any]]
) -> NotPreparedError:
    """The refusal of a name that no table has.

    Args:
        root: the dataset.
        kind: of the table.
        name: as it was typed.
        tables: descriptors of the tables that are there.
    """
    there = sorted({typed(each) for each in tables if "name" in each})
    return NotPreparedError(
        f"no {kind} {name!r} under {root} (there: {', '.join(there) or 'none'}); "
        f"{_mended(root, kind, name, there)}"
    )


def _mended(root: str, kind: layout.TableKind, name: str, there: Sequence[str]) -> str:
    """What to type in place of the name of a table that is not there."""
    from encoders import ENCODERS, TRANSCRIBERS

    plain = name.partition(":")[0]
    if kind == "features" and plain in ENCODERS:
        return f"type: affuse encode --root {shlex.quote(root)} --encoders {shlex.quote(name)}"
    if kind == "transcripts" and plain in TRANSCRIBERS:
        return f"type: affuse encode --root {shlex.quote(root)} --transcriber {shlex.quote(name)}"
    before, equals, alone = name.partition("=")
    if equals and before in MODALITIES:
        return f"a name stands alone, without {before!r} and '='; " + (
            f"type: {alone}" if alone in there else _mended(root, kind, alone, there)
        )
    if kind == "transcripts":
        return f"no transcriber has that name; {nearest(plain, list(TRANSCRIBERS))}"
    near = nearest_of(plain, [*there, *ENCODERS])
    return f"no encoder is called {plain!r}" + (
        f"; did you mean {near!r}?"
        if near
        else f"; features of your own: affuse features import --root {shlex.quote(root)} "
        f"--name {shlex.quote(plain)} --file FILE --modality MODALITY"
    )


def command_of(root: str, facts: Mapping[str, Any]) -> str:
    """The command that fills the table of a `descriptor.json`, or of an input on the card of a net."""
    from encoders import TRANSCRIBERS

    if facts["name"] in TRANSCRIBERS:
        return f"affuse encode --root {shlex.quote(root)} --transcriber {typed(facts)}"
    if "imported" in facts:
        source = facts["imported"]
        array = f" --array {shlex.quote(source['array'])}" if source.get("array") else ""
        return (
            f"affuse features import --root {shlex.quote(root)} --file {shlex.quote(source['file'])}{array} "
            f"--name {facts['name']} --modality {facts['modality']}"
        )
    views = f" --views {facts['view']['number']}" if "view" in facts else ""
    heard = facts.get("transcriber") or heard_by(root, facts)
    ear = f" --transcriber {typed(heard)}" if heard else ""
    return f"affuse encode --root {shlex.quote(root)} --encoders {typed(facts)}{ear}{views}"


def typed(facts: Mapping[str, Any]) -> str:
    """An encoder with its options as it is typed into a shell, those that are as by default left out.

    >>> typed({"name": "minilm", "options": {"pool": "mean", "layers": "last"}})
    'minilm:pool=mean'
    >>> print(typed({"name": "hub_embedding", "options": {"prompt": "A mood: "}}))
    'hub_embedding:prompt=A mood: '
    """
    from encoders import ENCODERS, TRANSCRIBERS
    from encoders.options import typed as written
    from encoders.registry import defaults, find
    from encoders.spec import GENERAL_OPTIONS

    name = str(facts["name"])
    known = name in ENCODERS or name in TRANSCRIBERS
    options = dict(facts.get("options", {}))
    default = defaults(find(name), options.get("publish")) if known else GENERAL_OPTIONS
    return written(name, options, default)


def heard_by(root: str, facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The `descriptor.json` of the transcripts that a feature table was made of; None: none is here."""
    upstream = facts.get("upstream", ())
    for folder in storage.names(layout.transcripts_uri(root)):
        uri = layout.transcripts_uri(root, folder, layout.DESCRIPTOR)
        if folder.rpartition("-")[2] in upstream and storage.exists(uri):
            found: Mapping[str, Any] = storage.read_json(uri)
            return found
    return None
