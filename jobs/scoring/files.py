"""Files without a manifest: find them, and show or write their scores."""

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster import console, storage
from cluster.console import Table
from cluster.errors import NotPreparedError
from fusion.number_format import figure_text
from jobs.catalog.outputs import check_outputs, publish_outputs, record_of
from jobs.interop.cells import is_text
from jobs.preparing.adapter import (
    AUDIO_SUFFIXES,
    VIDEO_SUFFIXES,
    Collected,
    Preparation,
    Row,
    files_below,
    media,
)
from jobs.scoring.plain_scores import csv_bytes, jsonl_bytes


@dataclass(frozen=True, kw_only=True)
class Files(Preparation):
    """Media files without labels, as a dataset."""

    files: tuple[str, ...]

    def collect(self) -> Collected:
        """One row a file."""
        names = names_of(self.files)
        rows = [Row(name=names[file], **media(file)) for file in self.files]
        return Collected(name="files", licence="not stated", tasks={}, rows=rows)


def names_of(files: Sequence[str]) -> dict[str, str]:
    """File -> name of its clip: the file's name without the ending, with as many folders as make it unique.

    Files of one folder that differ in their endings alone keep them; what they are called without is then
    nobody's name.

    >>> names_of(["/a/x.mp4", "/b/x.mp4", "/b/y.mp4"])
    {'/b/y.mp4': 'y', '/a/x.mp4': 'a/x', '/b/x.mp4': 'b/x'}
    >>> names_of(["/a/x.mp4", "/a/x.mov", "/a/b/x.mp4"])
    {'/a/x.mp4': 'x.mp4', '/a/x.mov': 'x.mov', '/a/b/x.mp4': 'b/x'}
    """
    stems = {file: _stem(file) for file in files}
    shared = Counter(stems.values())
    shared.update(file for file in stems if file != stems[file])  # the stem of another, `x.mov.mp4`
    parts = {file: (stem if shared[stem] == 1 else file).split("/") for file, stem in stems.items()}
    names: dict[str, str] = {}
    count = 0
    while len(names) < len(parts):
        count += 1
        left = {f: "/".join(p[-count:]) for f, p in parts.items() if f not in names}
        often = Counter(left.values())
        meant = Counter(
            tail
            for file, stem in stems.items()
            for tail in {"/".join(form.split("/")[-count:]) for form in (stem, file)}
        )
        for file, name in left.items():
            others = often[name] if shared[stems[file]] > 1 else meant[name]
            if others == 1 or name == "/".join(parts[file]):
                names[file] = name
    return names


def _stem(file: str) -> str:
    folder, slash, name = file.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"


def found_files(texts: Sequence[str]) -> list[str]:
    """Absolute paths or URIs of the media files that are meant, each once.

    Files of a folder whose names are no text, which no table could hold, are left out with a word.

    Raises:
        NotPreparedError: a file, folder or pattern that holds nothing that has a name.
    """
    found: list[str] = []
    for text in texts:
        uri = storage.absolute(text)
        fs, path = storage.filesystem(uri)
        if fs.isdir(path):
            suffixes = (*AUDIO_SUFFIXES, *VIDEO_SUFFIXES)
            matched = [file for file in files_below(uri) if file.lower().endswith(suffixes)]
        elif fs.exists(path):
            # A file is meant by its name, also where that looks like a pattern: `Talk [x].mp4`.
            matched = [uri]
        else:
            scheme = uri.split("://")[0] + "://" if "://" in uri else ""
            matched = [scheme + found for found in fs.glob(_pattern(fs, path)) if fs.isfile(found)]
        if not matched:
            raise NotPreparedError(f"{text}: there is no such file, or no media in it")
        if broken := [file for file in matched if not is_text(file)]:
            _refuse_or_say(broken, of=len(matched))
        found += sorted(set(matched).difference(broken))
    return list(dict.fromkeys(found))


def _refuse_or_say(broken: Sequence[str], *, of: int) -> None:
    """Say which names are no text, as an error where there is no other file."""
    reason = "the name holds bytes that are no text; rename it"
    first = console.readable(min(broken))
    if len(broken) == of:
        raise NotPreparedError(f"{first}: {reason}")
    console.show(f"left out, {len(broken)} of {of} files, such as {first}: {reason}")


def _pattern(fs: Any, path: str) -> str:
    """A path as a pattern; folders that are there are meant by their names: `calls [2024]/*.mp4`."""
    folder, _, rest = path.rpartition("/")
    while folder and not fs.isdir(folder):
        folder, _, last = folder.rpartition("/")
        rest = f"{last}/{rest}"
    return "/".join([re.sub(r"([*?[])", r"[\1]", folder), rest])


def in_order(table: pa.Table) -> pa.Table:
    """Scores in natural order of their names: folder by folder, `clip2` before `clip10`."""
    key = pc.utf8_lower(table["name"])
    # Every number gets 20 digits, by its zeros in front; a folder's end sorts before every letter.
    key = pc.replace_substring_regex(key, r"([0-9]+)", "0" * 19 + r"\1")
    key = pc.replace_substring_regex(key, r"[0-9]*([0-9]{20})", r"\1")
    keyed = table.append_column("key", pc.replace_substring(key, "/", "\x01"))
    order = pc.sort_indices(
        keyed, [(name, "ascending") for name in ("key", "name", "start_s", "task", "bundle")]
    )
    return table.take(order)


def check_out(out: str | None, files: Sequence[str], *, overwrite: bool) -> None:
    """Refuse an --out that is one of the files, or was not made by an earlier run."""
    if out is not None:
        out = storage.absolute(out)
        check_outputs([out], record_of(out), sources=files, overwrite=overwrite)


def write_out(config: Any, out: str, files: Sequence[str], table: pa.Table) -> None:
    """Write the scores of files to --out, and the config of the job beside them."""
    check_out(out, files, overwrite=config.overwrite)
    out = storage.absolute(out)
    publish_outputs(config, {out: file_bytes(table, out)}, record_of(out))
    is_one_each = pc.count_distinct(table["clip_id"]).as_py() == table.num_rows
    print(f"wrote {out}: {table.num_rows} {'clips' if is_one_each else 'rows'}")


def file_bytes(table: pa.Table, out: str) -> bytes:
    """Scores as the content of a file; in CSV a class is a column, and no cell is a formula."""
    rows = table.to_pylist()
    for row in rows:
        row["probabilities"] = None if row["probabilities"] is None else dict(row["probabilities"])
    if out.endswith(".jsonl"):
        return jsonl_bytes(rows)
    if out.endswith(".csv"):
        return csv_bytes(rows)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def show(table: pa.Table) -> None:
    """Print the scores of a few clips."""
    grid = Table()
    rows = table.to_pylist()
    promised = any(_possible(row) for row in rows)
    other = "possible" if promised else "next"
    several = len({row["bundle"] for row in rows}) > 1
    for column in (
        "clip",
        *(["bundle"] if several else []),
        "verdict",
        "confidence",
        other,
        "from",
        "remark",
    ):
        grid.add_column(column)
    for row in rows:
        shares = sorted(row["probabilities"] or (), key=lambda pair: -pair[1])
        verdict = "+".join(row["label"] or ()) or (
            "-" if row["value"] is None else figure_text(row["value"])
        )
        grid.add_row(
            row["name"] if row["start_s"] is None else f"{row['name']} {_span(row)}",
            *([row["bundle"]] if several else []),
            verdict,
            "-" if row["confidence"] is None else f"{row['confidence']:.0%}",
            _possible(row)
            if promised
            else ", ".join(f"{name} {share:.0%}" for name, share in shares[1:3]),
            ", ".join(row["modalities"]),
            row["error"] or ("" if row["status"] == "ok" else row["status"]),
        )
    console.show(grid)


def _span(row: Mapping[str, Any]) -> str:
    """Where a piece lies [s]."""
    return f"{row['start_s']:.1f}-{row['end_s']:.1f}"


def _possible(row: Mapping[str, Any]) -> str:
    """The set or interval of a clip."""
    if row["possible"] is not None:
        return ", ".join(row["possible"])
    if row["low"] is None and row["high"] is None:
        return ""
    ends = [end for end in (row["low"], row["high"]) if end is not None]
    low, high = (
        "?" if end is None else figure_text(end, *ends) for end in (row["low"], row["high"])
    )
    return f"{low} to {high}"
