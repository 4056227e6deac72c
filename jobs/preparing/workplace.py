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

MEMORY_MB = 500
"""Memory of the database; Python and the tables that go in and out come on top."""

MOST_THREADS = 4
BATCH_ROWS = 16_384
"""Rows of a table that goes in or out, and that are text in Python at one time."""

RANGE_ROWS = 262_144
"""Whole rows that are sorted at one time: the memory to sort all of them grows with their number, whatever
may be put on disk."""


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

    def in_order(self, sql: str, column: str, table: str) -> Iterator[pa.Table]:
        """The rows of a query by a column of numbers, a range of them after another.

        Args:
            sql: without conditions and order.
            column: of the query and the table; from 0, and not much larger than there are rows.
            table: that has the largest number.
        """
        for inside in self.ranges(column, table):
            yield from self.stream(f"{sql} where {inside} order by {column}")

    def ranges(self, column: str, table: str) -> Iterator[str]:
        """Conditions that hold for a range of a table's numbers after another; arguments as of `in_order`."""
        end = self.one(f"select coalesce(max({column}) + 1, 0) from {table}")
        for start in range(0, end, RANGE_ROWS):
            yield f"{column} >= {start} and {column} < {start + RANGE_ROWS}"

    def drop(self, *names: str) -> None:
        """Forget tables: what is on disk of them is free again."""
        for name in names:
            self.run(f"drop table {name}")


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
            "memory_limit": f"{MEMORY_MB}MB",
            "temp_directory": os.path.join(folder, "spilled"),
            "threads": min(MOST_THREADS, os.cpu_count() or 1),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            # Ids and hashes follow from the order of rows: never faster without it.
            "preserve_insertion_order": True,
            # It would write all tables anew at every 16 MB that come in: the square of the rows.
            "checkpoint_threshold": "1TB",
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
