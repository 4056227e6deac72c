"""A local session hears who has its token; it leaves the machine and the user's settings as they were."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.errors import ConfigError, MachineError
from cluster.session import SessionConfig, ray_session
from cluster.session_token import SETTINGS

STRANGER = """
import sys
import urllib.error, urllib.request
import ray
from ray._raylet import GcsClient
from ray.job_submission import JobSubmissionClient

def attempt(what, act):
    try:
        said = act()
    except urllib.error.HTTPError as error:
        print(what, "refused", error.code)
    except Exception as error:
        print(what, "refused", type(error).__name__)
    else:
        gauges = isinstance(said, bytes) and (not said or said.startswith(b"# HELP"))
        print(what, "gauges" if gauges else f"HEARD {said}")

gcs, dashboard, join, *web = sys.argv[1:]
attempt("gcs", lambda: GcsClient(address=gcs).internal_kv_keys(b"", None))
attempt("jobs", lambda: JobSubmissionClient(dashboard).list_jobs())
for url in web:
    attempt(url, lambda: urllib.request.urlopen(url, timeout=20).read())
if join:
    attempt("init", lambda: ray.init(address=gcs, log_to_driver=False))
"""


def processes():
    """This process and all that it started."""
    import psutil

    return [psutil.Process(), *psutil.Process().children(recursive=True)]


def listening(processes):
    """(process, address, port) of every socket that waits for somebody."""
    return {
        (process.name(), *connection.laddr)
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == "LISTEN"
    }


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """What a local session looks like from outside, while it runs."""
    import ray

    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("RAY_AUTH_MODE", "disabled")  # as somebody may have it in a profile
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
            patch.delenv(name, raising=False)
        before = {name: os.environ.get(name) for name in SETTINGS}
        with ray_session(SessionConfig(num_cpus=1, num_gpus=0, dashboard=True)):
            node = ray._private.worker.global_worker.node
            yield SimpleNamespace(
                gcs=node.gcs_address,
                dashboard=f"http://{node.webui_url}",
                token=os.environ["RAY_AUTH_TOKEN"],
                of_worker=ray.get(ray.remote(lambda: os.environ["RAY_AUTH_TOKEN"]).remote()),
                home=home,
                temp=Path(node.get_temp_dir_path()),
                processes=processes(),
            )
        assert {name: os.environ.get(name) for name in SETTINGS} == before
        assert not list(home.iterdir())


def visit(session, *pages, join=False, **more):
    """What another process of this machine gets to hear, without a token unless it is given one."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    home = session.home.parent / "elsewhere"
    home.mkdir(exist_ok=True)
    out = subprocess.run(
        [sys.executable, "-c", STRANGER, session.gcs, session.dashboard, "join" * join, *pages],
        capture_output=True,
        text=True,
        env={**kept, "HOME": str(home), **more},
        timeout=240,
    )
    said = {line.split()[0]: line.split()[1] for line in out.stdout.splitlines()}
    assert len(said) >= 2 + len(pages), out.stderr
    return said


@pytest.mark.ray
class TestAMachineWithoutRoom:
    @pytest.mark.parametrize(
        "error",
        [
            Exception("The current node timed out during startup."),
            RuntimeError("Failed to start GCS."),
            ConnectionError("GCS did not answer."),
        ],
    )
    def test_a_session_that_does_not_start_says_how_busy_the_machine_is(self, monkeypatch, error):
        import ray

        def fail(**options):
            raise error

        monkeypatch.setattr(ray, "init", fail)
        with (
            pytest.raises(MachineError, match=f"{error}.*cores.*GB of memory are free$"),
            ray_session(SessionConfig()),
        ):
            pass

    def test_a_session_whose_processes_came_too_late_is_begun_again(self, monkeypatch):
        import ray
        from ray._private import services

        wait, late = services.get_node, []

        def too_late(*details):
            if not late:
                late.append(details)
                raise Exception("The current node timed out during startup.")
            return wait(*details)

        monkeypatch.setattr(services, "get_node", too_late)
        with tempfile.TemporaryDirectory(dir="/tmp") as place:  # Ray's sockets want it short
            with ray_session(SessionConfig(num_cpus=1, temp_dir=place)):
                assert ray.get(ray.remote(lambda: 7).remote()) == 7
                assert len(os.listdir(place)) == 1  # what the first one left is gone
            assert late
            assert not os.listdir(place)

    def test_a_fault_of_the_settings_is_no_lack_of_room(self, monkeypatch):
        import ray

        def fail(**options):
            raise ValueError("Attempting to cap object store memory usage at 1 byte")

        monkeypatch.setattr(ray, "init", fail)
        with (
            pytest.raises(ConfigError, match=r"cap.*--session.object-store-gb"),
            ray_session(SessionConfig()),
        ):
            pass

    @pytest.mark.parametrize("place", ["/dev/shm", "/elsewhere"])
    def test_a_machine_without_shared_memory_is_told_what_to_mount(self, monkeypatch, place):
        import ray

        def fail(**options):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", place)

        monkeypatch.setattr(ray, "init", fail)
        kind = MachineError if place == "/dev/shm" else FileNotFoundError
        with pytest.raises(kind, match=place), ray_session(SessionConfig()):
            pass


class TestToken:
    def test_who_has_no_token_is_refused_on_every_port(self, session):
        ports = listening(session.processes)
        assert {name for name, *_ in ports} >= {"gcs_server", "raylet"}
        pages = [
            f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}{path}"
            for _, host, port in ports
            for path in ("/api/jobs/", "/get_or_create_runtime_env", "/api/job_agent/jobs/")
            if host != "::"  # gRPC, which answers no page
        ]
        said = visit(session, *pages)
        assert said["gcs"] == said["jobs"] == "refused"
        # Ray shows its gauges to everybody; nothing there acts on what it is sent.
        assert "HEARD" not in said.values()

    @pytest.mark.slow  # Ray asks again for many seconds
    def test_who_has_no_token_cannot_join(self, session):
        assert set(visit(session, join=True).values()) == {"refused"}

    def test_a_wrong_token_is_refused_and_the_right_one_is_heard(self, session):
        said = visit(session, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
        assert set(said.values()) == {"refused"}
        said = visit(session, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=session.token)
        assert set(said.values()) == {"HEARD"}

    def test_the_token_is_long_and_stands_in_no_command_line_and_no_file(self, session):
        assert len(session.token) == 64
        assert session.of_worker == session.token
        words = " ".join(" ".join(process.cmdline()) for process in session.processes)
        assert session.token not in words
        files = [file for file in session.temp.rglob("*") if file.is_file()]
        assert files
        assert not [file for file in files if session.token.encode() in file.read_bytes()]


@pytest.mark.ray
@pytest.mark.slow
class TestSessionsOfOneProcess:
    CODE = """
import os, ray, time
from cluster.session import SessionConfig, ray_session
seen = []
for dashboard in (False, True, False):
    with ray_session(SessionConfig(num_cpus=1, num_gpus=0, dashboard=dashboard)):
        seen.append(os.environ["RAY_AUTH_TOKEN"])
        assert ray.get(ray.remote(lambda: os.environ["RAY_AUTH_TOKEN"]).remote()) == seen[-1]
        unread = ray.remote(lambda: 1 / 0).remote()
        time.sleep(2)
        del unread
        time.sleep(2)
    assert os.environ["RAY_AUTH_TOKEN"] == "mine"
print(len(set(seen)), seen[1])
"""

    def test_each_has_a_token_of_its_own_but_for_a_dashboard_that_was_asked_for(self, tmp_path):
        env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        out = subprocess.run(
            [sys.executable, "-c", self.CODE],
            capture_output=True,
            text=True,
            env={**env, "HOME": str(tmp_path), "RAY_AUTH_TOKEN": "mine"},
            timeout=280,
        )
        assert out.stdout.split() == ["3", "mine"], out.stderr
        # A task that failed while nobody waited for it is no line on the screen.
        assert out.stderr == ""
