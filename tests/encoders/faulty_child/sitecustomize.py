"""Imported by Python at its start where this folder is on PYTHONPATH: decoding children then misbehave.

`FAULTS_BY_NAME` in the environment is JSON: part of a URI -> crash, hang or leak, done by a child of
`encoders.media` when such a source is opened. Other processes are left alone.
"""

import contextlib
import ctypes
import json
import os
import sys
import time

CHILD = "encoders.decoding.child"


def misbehave(uri):
    for part, fault in json.loads(os.environ.get("FAULTS_BY_NAME", "{}")).items():
        if part not in uri:
            continue
        if fault == "crash":
            ctypes.string_at(0)
        while fault == "hang":
            time.sleep(60)
        hoard = []
        while fault == "leak":
            hoard.append(bytearray(os.urandom(1 << 20) * 16))


if CHILD in sys.orig_argv:
    sys.path.insert(0, os.environ["PYTHONPATH"].split(os.pathsep)[0])
    from encoders.decoding import sources

    staged = sources.staged

    @contextlib.contextmanager
    def faulty(source):
        misbehave(source.uri)
        with staged(source) as local:
            yield local

    sources.staged = faulty
