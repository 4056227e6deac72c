"""Ctrl-C and its like reach the job wherever Python is when they come."""

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


@pytest.fixture(autouse=True)
def terminal():
    """Signals as a shell leaves them to what it starts: under nohup a lost terminal is switched off."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("swallows", SWALLOWS.values(), ids=SWALLOWS)
def test_a_signal_that_falls_into_a_callback_is_raised_again_behind_it(swallows, stop):
    with subprocess.Popen(
        [sys.executable, "-c", CHILD.format(swallows=swallows)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        time.sleep(0.1)
        process.send_signal(stop)
        said, complained = process.communicate(timeout=20)
    assert said == "obeyed\n"
    assert complained == ""
    assert process.returncode == 128 + stop


def begun(program, **more):
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


TAKEN = """
import signal, time
from cluster import interrupt

interrupt.obey(lambda: None)
signal.signal(signal.SIGTERM, lambda *_: print("taken", flush=True))
interrupt.obey_again()
try:
    print("there", flush=True)
    time.sleep(30)
except KeyboardInterrupt:
    interrupt.leave()
"""


def test_a_signal_that_a_library_took_is_taken_back():
    with begun(TAKEN) as process:
        assert process.stdout.readline() == "there\n"
        process.terminate()
        said, complained = process.communicate(timeout=20)
    assert (said, complained, process.returncode) == ("", "", 143)


FORKED = """
import os, signal, time
from cluster import interrupt

interrupt.obey(lambda: print("said by the watchman"))
ready, copied = os.pipe()
if (child := os.fork()) == 0:
    os.write(copied, b"1")
    time.sleep(30)
os.read(ready, 1)
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), interrupt.was_stopped())
"""


def test_a_copy_of_the_process_is_ended_at_once_and_its_parent_goes_on():
    with begun(FORKED) as process:
        said, complained = process.communicate(timeout=20)
    assert (said, complained, process.returncode) == ("-15 False\n", "", 0)


def test_a_lost_terminal_that_nohup_switched_off_stays_off():
    program = TAKEN.replace('print("there", flush=True)', 'os.kill(os.getpid(), 1); print("on")')
    program = "import os; " + program.strip().replace("time.sleep(30)", "time.sleep(1)")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with begun(program) as process:
            said, complained = process.communicate(timeout=20)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (said, complained, process.returncode) == ("on\n", "", 0)
