"""Which tables of units a root has, and what each should be by its descriptor."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from cluster import storage, tables
from cluster.errors import AbsentError, StorageError
from cluster.tables import Table
from cluster.unit_tables import Version
from encoders import ENCODERS
from fusion.tasks import Task
from jobs.catalog import layout
from jobs.catalog.manifest import UnitRef
from jobs.catalog.missing_rows import command_of
from jobs.verification.findings import UNREADABLE, Findings, anew, typing
from jobs.verification.rows import feature_rows, score_rows, transcript_rows
from jobs.verification.unit_files import UnitTable


class NotATableError(Exception):
    """A folder does not say what its rows are.

    Args:
        found: the fault.
    """

    def __init__(self, found: Findings) -> None:
        super().__init__(found.table)
        self.found = found


def stream_table(root: str, kind: str, folder: str, refs: Sequence[UnitRef]) -> UnitTable:
    """A table of features or transcripts.

    Raises:
        NotATableError: its descriptor is not there, or broken.
    """
    title = f"{kind}/{folder}"
    uri = storage.join(root, kind, folder)
    again = _made_again(root, kind, folder)
    facts = _described(storage.join(uri, layout.DESCRIPTOR), title, again)
    try:
        command = command_of(root, facts)
        reads = [str(part) for part in facts.get("reads", ())]
        side = {str(name): int(width) for name, width in dict(facts.get("side", {})).items()}
        contract = tables.TRANSCRIPTS if kind == "transcripts" else _features(facts, side)
    except UNREADABLE as error:
        raise _broken(title, error, again) from error
    return UnitTable(
        uri=uri,
        title=title,
        contract=contract,
        wanted=[ref.version(reads) for ref in refs],
        check=transcript_rows if kind == "transcripts" else feature_rows(side),
        command=command,
        # An import that another took the name of is kept as it was, for the runs that were trained on it.
        covers="superseded" not in facts,
    )


def _made_again(root: str, kind: str, folder: str) -> str:
    """What makes a table again whose descriptor cannot be read."""
    config = storage.join(root, kind, folder, layout.CONFIG)
    if storage.exists(config):
        return f"affuse encode --config {shlex.quote(config)}"
    name = folder.rpartition("-")[0]
    if kind == "transcripts":
        return f"affuse encode --root {shlex.quote(root)} --transcriber {shlex.quote(name)}"
    if name in ENCODERS:
        return f"affuse encode --root {shlex.quote(root)} --encoders {shlex.quote(name)}"
    return (
        f"affuse features import --root {shlex.quote(root)} --name {shlex.quote(name)} "
        "--file FILE --modality MODALITY"
    )


def score_table(root: str, name: str, refs: Sequence[UnitRef], manifest: str) -> UnitTable:
    """A table of scores.

    Raises:
        NotATableError: its descriptor or claim is not there, or broken.
    """
    title, uri = f"scores/{name}", layout.scores_uri(root, name)
    config = storage.join(uri, layout.CONFIG)
    command = f"affuse score --config {shlex.quote(config)}"
    if not storage.exists(config):  # a start that found no room for it
        command = f"affuse score --root {shlex.quote(root)} --bundle {shlex.quote(name)}"
    facts = _described(storage.join(uri, layout.DESCRIPTOR), title, command)
    claim = _described(storage.join(uri, layout.BUNDLE), title, command)
    try:
        made_with = claim.get("facts")
        task = None if made_with is None else Task.from_json(made_with)
        more = [manifest] if facts.get("linked") else []
        versions: list[Version] = [ref.version(facts["reads"], *more) for ref in refs]
    except UNREADABLE as error:
        raise _broken(title, error, command) from error
    return UnitTable(
        uri=uri,
        title=title,
        contract=tables.SCORES,
        wanted=versions,
        check=score_rows(task),
        command=command,
    )


def _features(facts: Mapping[str, Any], side: Mapping[str, int]) -> Table:
    """FEATURES with the side columns of the encoder."""
    table = tables.features(int(facts["dim"]), str(facts.get("dtype", "float16")))
    schema = table.schema
    for name, width in side.items():
        schema = schema.append(pa.field(name, pa.list_(pa.list_(pa.float32(), width))))
    return Table(
        name=table.name, version=table.version, schema=schema, key=table.key, open_ended=True
    )


def _described(uri: str, title: str, command: str) -> Mapping[str, Any]:
    try:
        facts = storage.read_json(uri)
        if not isinstance(facts, dict):
            raise ValueError("holds no JSON object")
    except (AbsentError, StorageError) as error:
        found = Findings(table=title)
        name = uri.rsplit("/", 1)[-1]
        found.add("absent", "tables without a file", examples=[name], mend=typing(command))
        raise NotATableError(found) from error
    except UNREADABLE as error:
        raise _broken(title, error, command) from error
    return facts


def _broken(title: str, error: Exception, command: str) -> NotATableError:
    found = Findings(table=title)
    found.unreadable(layout.DESCRIPTOR, error, anew(command))
    return NotATableError(found)
