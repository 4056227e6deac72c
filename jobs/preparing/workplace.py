"""A database on local disk in which `prepare` plans: no number of clips has to fit into memory.

What goes in and out are Arrow tables of some thousand rows. Its memory is bounded; above that it sorts, joins
and groups on disk.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cluster.errors import MachineError
from cluster.scratch import scratch_folder

if TYPE_CHECKING:
    import duckdb

LEAST_MB, MOST_MB = 500, 2000
"""Memory of the database; Python and the tables that go in and out come on top."""

ROW_BYTES = 250
"""Memory of the database for each row: with much less it fails to sort them, whatever it may put on disk."""

MOST_THREADS = 4
BATCH_ROWS = 16_384
"""Rows of a table that goes in or out, and that are text in Python at one time."""


class Workplace:
    """Tables by name; see `workplace`.

    Args:
        connection: to the database.
        folder: on local disk, gone with the workplace.
    """

    def __init__(self, connection: "duckdb.DuckDBPyConnection", folder: str) -> None:
        self._connection, self.folder = connection, folder

    def run(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Execute a statement, and fetch all of its few rows."""
        return self._connection.execute(sql, list(values)).fetchall()

    def one(self, sql: str, values: Sequence[object] = ()) -> Any:
        """The single value that a query gives."""
        return self.run(sql, values)[0][0]

    def make_room(self, rows: int) -> None:
        """Let the database hold as much as so many rows need."""
        limit = min(MOST_MB, max(LEAST_MB, rows * ROW_BYTES // 10**6))
        self._connection.execute(f"set memory_limit = '{limit}MB'")

    def add(self, name: str, rows: pa.Table) -> None:
        """Append rows to a table, which is made of the first ones."""
        self._connection.register("incoming", rows)
        try:
            if self.has(name):
                self._connection.execute(f"insert into {name} by name select * from incoming")
            else:
                self._connection.execute(f"create table {name} as select * from incoming")
        finally:
            self._connection.unregister("incoming")

    def has(self, name: str) -> bool:
        """Whether there is such a table."""
        sql = "select count(*) from information_schema.tables where table_name = ?"
        return bool(self.one(sql, [name]))

    def stream(self, sql: str, *, rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
        """The rows of a query, some at a time; others may be executed meanwhile."""
        with self._connection.cursor() as cursor:
            for batch in cursor.sql(sql).to_arrow_reader(rows):
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])


@contextmanager
def workplace() -> Iterator[Workplace]:
    """A new one, which is gone afterwards.

    Raises:
        MachineError: the rows are too many for the memory of the database.
    """
    # Here, since its package writes of leaks to the screen where a process ends by --help.
    import duckdb

    with scratch_folder() as folder:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{LEAST_MB}MB",
            "temp_directory": os.path.join(folder, "spilled"),
            "threads": min(MOST_THREADS, os.cpu_count() or 1),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            # Ids and hashes follow from the order of rows: never faster without it.
            "preserve_insertion_order": True,
        }
        # In memory, it waits for no disk at every statement; what is too large is put on disk all the same.
        with duckdb.connect(":memory:", config=config) as connection:
            try:
                yield Workplace(connection, folder)
            except duckdb.OutOfMemoryException as error:
                held = connection.execute("select current_setting('memory_limit')").fetchall()[0][0]
                raise MachineError(
                    f"the rows are too many to be planned in {held}, the most that the database of prepare "
                    "holds; prepare them as several datasets, each under a --root of its own"
                ) from error


def quoted(text: str) -> str:
    """Text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"
