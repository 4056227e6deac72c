"""A real head with token authentication: who has no token gets nothing, a job runs as it does at home."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from jobs.catalog.features import read_features, resolve_features

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.ray]


def free_ports(count):
    """Ports that nobody listens on, outside the range that Ray gives to its workers."""
    found = []
    while len(found) < count:
        port = 20000 + secrets.randbelow(8000)
        with socket.socket() as probe:
            if port not in found and probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
    return found


def alone(home, **more):
    """An environment of its own: no token, no cluster, no settings of this machine's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return {**kept, "HOME": str(home), "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="module")
def head():
    """A head of two CPUs on loopback, with a token; gone at the end with everything it started."""
    folder = Path(tempfile.mkdtemp(prefix="af-", dir="/tmp"))
    token = folder / "token"
    token.write_text(secrets.token_hex(16))
    port, dashboard, client, agent, first = free_ports(5)
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2",
        "--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={folder / 'r'}",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}",
        f"--min-worker-port={30000 + first % 5000}", f"--max-worker-port={30200 + first % 5000}",
        f"--object-store-memory={200 * 2**20}", "--disable-usage-stats",
    ]  # fmt: skip
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = alone(folder, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), PATH=path)
    log = (folder / "head.log").open("w")
    process = subprocess.Popen(
        command, env=env, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        wait_for(dashboard, process, folder / "head.log")
        yield SimpleNamespace(
            address=f"http://127.0.0.1:{dashboard}",
            gcs=f"127.0.0.1:{port}",
            token=str(token),
            home=folder,
        )
    finally:
        # With --block, Ray ends its own processes when it is asked to; the group is for the stubborn.
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(port, process, log):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError(f"the head did not start:\n{log.read_text()}")


def submit(head, *argv, token=True, home=None, cwd=ROOT):
    flags = ["--token-path", head.token] if token is True else list(token)
    return subprocess.run(
        [sys.executable, "-m", "jobs", "submit", "--address", head.address, *flags, *argv],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=alone(home or head.home, PYTHONPATH=str(ROOT)),
        timeout=240,
    )


class TestToken:
    def test_without_a_token_nothing_is_accepted(self, head):
        out = submit(head, "--no-pip", "--", "encode", "--list", token=())
        assert out.returncode == 1
        assert "needs a token; type: ray get-auth-token" in out.stderr
        assert "Traceback" not in out.stderr

    def test_a_wrong_token_is_refused(self, head, tmp_path):
        (tmp_path / "wrong").write_text("not-the-token")
        out = submit(head, "--stop", "x", token=("--token-path", str(tmp_path / "wrong")))
        assert out.returncode == 1
        assert "refused the token" in out.stderr

    def test_the_token_of_the_home_folder_is_found(self, head, tmp_path):
        (tmp_path / ".ray").mkdir()
        shutil.copy(head.token, tmp_path / ".ray" / "auth_token")
        out = submit(head, "--stop", "nobody", token=(), home=tmp_path)
        assert out.returncode == 1
        assert "there is no job 'nobody'" in out.stderr


class TestJoining:
    LOOK = """
import os, pathlib, ray
from cluster.session import SessionConfig, ray_session

@ray.remote
def look():
    import jobs
    here = pathlib.Path.cwd()
    found = sorted(str(file.relative_to(here)) for file in here.rglob("*") if file.is_file())
    return found, str(pathlib.Path(jobs.__file__).parent.parent)

with ray_session(SessionConfig()):
    found, sources = ray.get(look.remote())
    print(*[name for name in found if "__pycache__" not in name], sep="\\n")
    assert "runtime_resources" in sources, sources
"""

    def look(self, head, checkout, **more):
        env = {"RAY_ADDRESS": head.gcs, "PYTHONPATH": str(checkout), **more}
        return subprocess.run(
            [sys.executable, "-c", self.LOOK],
            capture_output=True,
            text=True,
            cwd=checkout,
            env=alone(head.home, **env),
            timeout=240,
        )

    def test_the_nodes_get_the_sources_and_nothing_that_lies_beside_them(self, head, tmp_path):
        for name in ("cluster", "encoders", "fusion", "jobs"):
            shutil.copytree(ROOT / name, tmp_path / name)
        shutil.copy(ROOT / "pyproject.toml", tmp_path)
        for name in (
            ".env",
            "token",
            "data/mine/patients.csv",
            "runs/x",
            "jobs/.env",
            "jobs/t.csv",
        ):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("secret")
        out = self.look(head, tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=head.token)
        assert out.returncode == 0, out.stderr
        found = out.stdout.split()
        assert "jobs/encode.py" in found
        assert "fusion/nets/kernels/steps.c" in found
        assert {name.partition("/")[0] for name in found} == {
            "cluster", "encoders", "fusion", "jobs", "pyproject.toml"
        }  # fmt: skip
        assert all(name.endswith((".py", ".c", ".toml")) for name in found)

    @pytest.mark.parametrize("token", [{}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}])
    def test_who_has_no_token_or_a_wrong_one_is_told_what_to_set(self, head, token):
        out = self.look(head, ROOT, **token)
        assert out.returncode == 1
        assert f"RAY_ADDRESS={head.gcs} asks for its token; set RAY_AUTH_MODE=token" in out.stderr


class TestJobs:
    def test_the_log_comes_back_and_the_status_is_the_jobs(self, head):
        out = submit(head, "--no-pip", "--", "encode", "--list")
        assert out.returncode == 0, out.stderr
        assert "egemaps" in out.stdout
        assert out.stdout.rstrip().endswith("SUCCEEDED")
        assert Path(head.token).read_text() not in out.stdout + out.stderr

    def test_a_job_that_fails_there_fails_here_with_its_line(self, head, tmp_path):
        out = submit(
            head,
            "--no-pip",
            "--",
            "encode",
            "--root",
            str(tmp_path / "no"),
            "--encoders",
            "egemaps",
        )
        assert out.returncode == 1
        assert "holds no dataset.json; type: affuse prepare" in out.stdout
        assert "exit code 1" in out.stderr

    def test_a_typo_never_gets_there(self, head):
        out = submit(head, "--no-pip", "--", "encode", "--encodrs", "egemaps")
        assert out.returncode == 2
        assert "--encoders" in out.stderr

    def test_a_job_can_be_left_found_again_and_stopped(self, head, tmp_path):
        out = submit(
            head, "--no-pip", "--no-follow", "--submission-id", "mine", "--", "encode", "--list"
        )
        assert out.returncode == 0, out.stderr
        other = submit(
            head, "--no-pip", "--submission-id", "mine", "--",
            "encode", "--root", str(tmp_path / "no"), "--encoders", "egemaps",
        )  # fmt: skip
        assert other.returncode == 1
        assert "job mine was refused" in other.stderr
        stopped = submit(head, "--stop", "mine")
        assert stopped.stdout.startswith("mine: ")
        assert stopped.stdout.split()[1] in ("STOPPED", "SUCCEEDED")
        assert submit(head, "--attach", "mine").stdout.rstrip().endswith(stopped.stdout.split()[1])

    def test_a_job_that_is_stopped_says_so_in_one_line(self, head, tmp_path, write_root):
        root = write_root(str(tmp_path / "r"))
        words = [
            "train", "--root", root, "--inputs", "voice", "--tasks", "emotion", "--folds", "speaker",
            "--patience", "0", "--checkpoint-s", "0", "--no-tracking", "--run", "long",
        ]  # fmt: skip
        out = submit(
            head,
            "--no-pip",
            "--no-follow",
            "--submission-id",
            "long",
            "--",
            *words,
            "--epochs",
            "2000",
        )
        assert out.returncode == 0, out.stderr
        deadline = time.monotonic() + 120
        while not list(Path(root, "runs").rglob("checkpoint.pt")):
            assert time.monotonic() < deadline, submit(head, "--attach", "long").stdout
            time.sleep(0.2)
        assert submit(head, "--stop", "long").stdout == "long: STOPPED\n"
        log = submit(head, "--attach", "long").stdout
        assert "affuse train: stopped; the same command goes on from here\nlong: STOPPED\n" in log
        assert "Traceback" not in log
        assert "SIGTERM" not in log

    def test_the_commands_of_the_readme_run_to_their_end_and_again_to_nothing(self, head, tmp_path):
        (tmp_path / "clips").mkdir()
        times = np.arange(16000) / 16000
        for name, pitch in (("low", 110), ("high", 330)):
            soundfile.write(tmp_path / "clips" / f"{name}.wav", np.sin(pitch * 6.28 * times), 16000)
        done = submit(
            head, "--no-pip", "--", "prepare", "folder", "--source", "clips", "--root", "mine",
            cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        models, encode = of_the_readme(tmp_path)
        done = submit(head, "--no-pip", *models)
        assert done.returncode == 0, done.stdout + done.stderr
        done = submit(head, "--no-pip", *encode)
        assert done.returncode == 0, done.stdout + done.stderr
        root = str(tmp_path / "mine")
        rows = read_features(root, resolve_features(root, "egemaps")).to_pylist()
        assert [row["status"] for row in rows] == ["ok", "ok"]
        again = submit(head, "--no-pip", *encode)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "nothing to do" in again.stdout
        ids = [out.stdout.split(": accepted by")[0].splitlines()[-1] for out in (done, again)]
        assert ids[0].removesuffix("-1") == ids[1].removesuffix("-2")


def of_the_readme(folder):
    """What the README submits before its search, with a folder for the bucket and a small encoder."""
    section = (ROOT / "README.md").read_text().split("## On a cluster")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("$ affuse submit ")]
    commands = []
    for line in lines[:2]:
        typed = line.removeprefix("$ affuse submit --token-path token ")
        assert typed.startswith("-- ")
        here = typed.replace("s3://bucket", f"file://{folder}")
        commands.append(here.replace("wav2vec2_base bert_base clip_vit", "egemaps").split())
        assert commands[-1] != typed.split()
    return commands
