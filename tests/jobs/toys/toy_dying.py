"""A judge without models, whose process dies while it loads, or soon after, as often as it is told to."""

import os
import signal
import threading
import time
from pathlib import Path


class Echo:
    """Answers with the words that it was given."""

    def answer(self, order, report):
        return {"text": order.text}


def start(folder, deaths, lives_s=0.0):
    """The judge of a process.

    Args:
        folder: where each start leaves a file named by the process.
        deaths: so many of the first starts are killed.
        lives_s: that long after they have loaded [s]; 0: while they load.
    """
    before = len(list(Path(folder).iterdir()))
    Path(folder, str(os.getpid())).touch()
    if before < deaths and not lives_s:
        os.kill(os.getpid(), signal.SIGKILL)
    if before < deaths:
        threading.Thread(target=_die, args=(lives_s,), daemon=True).start()
    return Echo()


def _die(after_s):
    time.sleep(after_s)
    os.kill(os.getpid(), signal.SIGKILL)
