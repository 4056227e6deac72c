"""The scores that a file or a folder holds, by its name alone."""

import os

import pyarrow as pa

from cluster import storage
from cluster.errors import NotPreparedError
from cluster.tables import SCORES
from jobs.scoring.plain_scores import from_csv, from_jsonl

READERS = {".csv": from_csv, ".jsonl": from_jsonl}
"""Ending of a file, as text -> what reads it."""

AGAIN = "affuse score CLIP --bundle B --by window --out moments.parquet"


def scores_at(uri: str) -> pa.Table:
    """The rows of a scores table: a file that `--out` wrote, or a folder of them.

    Raises:
        NotPreparedError: there is none.
        SchemaError: the files are another table.
    """
    fs, path = storage.filesystem(uri)
    ending = os.path.splitext(path)[1].lower()
    files = [uri]
    if fs.isfile(path) and ending != ".parquet":
        if ending not in READERS:
            raise NotPreparedError(
                f"{uri}: came a file in {ending or 'no ending'}, expected scores in .parquet, .csv or "
                f".jsonl, or a folder of them; type: {AGAIN}"
            )
        return READERS[ending](storage.read_bytes(uri), uri)
    if not uri.endswith(".parquet"):
        scores, name = os.path.split(uri.rstrip("/"))
        root = os.path.dirname(scores)
        if storage.exists(f"{root}/dataset.json") and storage.exists(f"{uri}/descriptor.json"):
            from jobs.scoring import versions  # heavy: it knows bundles

            return versions.read_scores(root, name)  # only the current ones, each once
        files = [storage.join(uri, name) for name in storage.names(uri, ".parquet")]
    if not files:
        raise NotPreparedError(f"{uri} holds no scores; type: {AGAIN}")
    parts = []
    for file in files:
        parquet = storage.open_parquet(file)
        SCORES.check(parquet.schema_arrow, where=file, renew="affuse score")
        parts.append(parquet.read())
    return pa.concat_tables(parts)
