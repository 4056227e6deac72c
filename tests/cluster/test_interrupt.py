"""Ctrl-C reaches the job wherever Python is when it comes."""

import signal
import subprocess
import sys
import time

import pytest

CHILD = """
import sys, time, weakref
from cluster import interrupt

class Key: pass

class Finaliser:
    def __del__(self):
        wait()

def wait():
    print("there", flush=True)
    time.sleep(0.5)

interrupt.obey(lambda: print("said by the watchman"))
try:
    {swallows}
    time.sleep(30)
except KeyboardInterrupt:
    print("obeyed", flush=True)
    interrupt.leave()
"""

SWALLOWS = {
    "a finaliser": "Finaliser()",
    "a callback of a weak reference": "k = Key(); r = weakref.ref(k, lambda _: wait()); del k",
    "nothing": "print('there', flush=True)",
}


@pytest.mark.parametrize("swallows", SWALLOWS.values(), ids=SWALLOWS)
def test_ctrl_c_that_falls_into_a_callback_is_raised_again_behind_it(swallows):
    with subprocess.Popen(
        [sys.executable, "-c", CHILD.format(swallows=swallows)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=20)
    assert said == "obeyed\n"
    assert complained == ""
    assert process.returncode == 130
