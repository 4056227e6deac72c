"""A store that stumbles: files of this machine behind `stumbling://`, which answer 503 for a while.

fsspec finds it by the entry point that `install` writes into a folder of PYTHONPATH, in Ray's workers too.
"""

import errno
import os
import random
import uuid
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

TROUBLE = "STUMBLING_TROUBLE"
"""Environment variable that names a file; while it exists, requests fail."""

SHARE = 0.2
"""Of the requests fail, half of the writes after they were done."""


def install(folder: Path) -> None:
    """Make the store known to every Python that has the folder on its path."""
    facts = folder / "stumbling-1.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: stumbling\nVersion: 1\n")
    entry = "[fsspec.specs]\nstumbling = stumbling:StumblingFileSystem\n"
    (facts / "entry_points.txt").write_text(entry)


def _stumble() -> None:
    if os.path.exists(os.environ.get(TROUBLE, "")) and random.random() < SHARE:
        raise OSError(errno.EBUSY, "503 Slow Down")


class StumblingFileSystem(LocalFileSystem):
    """One PUT a file, as of an object store."""

    protocol = "stumbling"
    cachable = False

    @classmethod
    def _strip_protocol(cls, path):
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return super()._strip_protocol(os.fspath(path).removeprefix("stumbling://"))

    def pipe_file(self, path, value, mode="overwrite", **options):
        _stumble()
        target = Path(self._strip_protocol(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{uuid.uuid4().hex}")
        temporary.write_bytes(value)
        temporary.rename(target)
        _stumble()

    def cat_file(self, path, *arguments, **options):
        _stumble()
        return super().cat_file(path, *arguments, **options)

    def ls(self, path, *arguments, **options):
        _stumble()
        return super().ls(path, *arguments, **options)

    def info(self, path, **options):
        _stumble()
        return super().info(path, **options)

    def open(self, path, *arguments, **options):
        _stumble()
        return super().open(path, *arguments, **options)
