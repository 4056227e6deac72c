"""The scores that a file or a folder holds, by its name alone."""

import os

import pyarrow as pa

from cluster import storage
from cluster.errors import NotPreparedError
from cluster.tables import SCORES


def scores_at(uri: str) -> pa.Table:
    """The rows of a scores table.

    Raises:
        NotPreparedError: there is none.
        SchemaError: the files are another table.
    """
    files = [uri]
    if not uri.endswith(".parquet"):
        scores, name = os.path.split(uri.rstrip("/"))
        root = os.path.dirname(scores)
        if storage.exists(f"{root}/dataset.json") and storage.exists(f"{uri}/descriptor.json"):
            from jobs.scoring import versions  # heavy: it knows bundles

            return versions.read_scores(root, name)  # only the current ones, each once
        files = [storage.join(uri, name) for name in storage.names(uri, ".parquet")]
    if not files:
        raise NotPreparedError(f"{uri} holds no scores; type: affuse score ... first")
    parts = []
    for file in files:
        parquet = storage.open_parquet(file)
        SCORES.check(parquet.schema_arrow, where=file, renew="affuse score")
        parts.append(parquet.read())
    return pa.concat_tables(parts)
