"""MLflow shows what a run's folder says, written by one process, and goes on in the same run."""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import mlflow_store, storage, tracking
from cluster.mlflow_store import taken
from cluster.tracking import run_tracker

HISTORY = [
    {"fold": fold, "seed": 0, "epoch": float(epoch), "train/loss": 1 / epoch, "lr": float("nan")}
    for fold in (0, None)
    for epoch in (1, 2)
]
SUMMARY = {
    "manifest": "abc",
    "roles": {"oof": {"emotion/accuracy": {"mean": 0.75, "spread": 0.01}}},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    """One store for all tests: making it costs seconds."""
    return str(tmp_path_factory.mktemp("tracked"))


@pytest.fixture
def made(root, tmp_path):
    """A database that is made already, for another root."""
    record(root, "made")

    def copy(folder):
        shutil.copy(f"{root}/mlflow.db", folder)
        return str(folder)

    return copy


def record(root: str, run: str, **kwargs):
    folder = f"{root}/runs/{run}"
    storage.publish_json({"lr": 0.1}, f"{folder}/config.json")
    with run_tracker(root, folder, **kwargs) as tracker:
        tracker.start(run, {"lr": 0.1, "session": {"address": None}}, kind="train")
        tracker.finish(SUMMARY, HISTORY)
    return tracker


def stored(root: str, run_id: str):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    return client, client.get_run(run_id)


class TestWhatIsShown:
    def test_params_metrics_tags_and_files_of_the_folder(self, root):
        client, run = stored(root, record(root, "shown").run_id)
        assert run.data.params == {"lr": "0.1", "session.address": "None"}
        assert run.data.metrics["oof/emotion/accuracy"] == 0.75
        assert run.data.tags["affuse.manifest"] == "abc"
        assert run.data.tags["affuse.torch"]
        epochs = client.get_metric_history(run.info.run_id, "fold0/seed0/train/loss")
        assert [(point.step, point.value) for point in epochs] == [(1, 1.0), (2, 0.5)]
        assert "refit/seed0/lr" not in run.data.metrics
        assert run.info.status == "FINISHED"

    def test_artefacts_lie_under_the_root(self, root):
        record(root, "files")
        assert list(Path(root, "mlflow").rglob("config.json"))
        assert not Path("mlflow.db").exists()
        assert not Path("mlruns").exists()

    @pytest.mark.parametrize("moved", [True, False])
    def test_those_of_a_root_that_was_moved_or_copied_lie_where_it_is(self, root, tmp_path, moved):
        record(root, "before")
        there = tmp_path / Path(root).name
        shutil.copytree(root, there)
        if moved:  # once more, with what it recorded as a copy
            record(str(there), "zero")
            (tmp_path / "below").mkdir()
            there = Path(shutil.move(there, tmp_path / "below" / there.name))
        before = {path: path.stat().st_mtime_ns for path in Path(root).rglob("*")}
        count = len(list((there / "mlflow").rglob("config.json")))
        for more, run in enumerate(("one", "two"), 1):
            record(str(there), run)
            assert len(list((there / "mlflow").rglob("config.json"))) == count + more
        assert {path: path.stat().st_mtime_ns for path in Path(root).rglob("*")} == before
        assert [path.name for path in tmp_path.iterdir()] == ["below" if moved else there.name]

    def test_a_nested_run_names_its_parent(self, root):
        with run_tracker(root, f"{root}/runs/parent") as parent:
            parent.start("parent", {}, kind="tune")
            child = record(root, "child", parent=parent)
        _, run = stored(root, child.run_id)
        assert run.data.tags["mlflow.parentRunId"] == parent.run_id


class TestGoingOn:
    def test_a_job_that_starts_again_goes_on_in_the_same_run(self, root):
        def die(tracker):
            tracker.start("k", {"lr": 0.1}, kind="train")
            raise RuntimeError("killed")

        tracker = run_tracker(root, f"{root}/runs/k")
        with pytest.raises(RuntimeError, match="killed"), tracker as one:
            die(one)
        assert stored(root, one.run_id)[1].info.status == "FAILED"
        again = record(root, "k")
        assert again.run_id == one.run_id
        assert stored(root, one.run_id)[1].info.status == "FINISHED"

    def test_a_run_that_was_deleted_is_opened_anew(self, root):
        first = record(root, "gone").run_id
        stored(root, first)[0].delete_run(first)
        assert record(root, "gone").run_id != first


class TestWhere:
    def test_a_remote_root_without_a_server_is_not_recorded_and_one_line_says_so(
        self, monkeypatch, capsys
    ):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with run_tracker("s3://bucket/x", "s3://bucket/x/runs/r") as tracker:
            tracker.start("r", {}, kind="train")
        assert tracker.run_id is None
        assert capsys.readouterr().out == (
            "MLflow: off; s3://bucket/x is remote and MLFLOW_TRACKING_URI names no server\n"
        )

    def test_nothing_is_said_where_it_was_switched_off(self, capsys):
        with run_tracker("s3://bucket/x", "s3://bucket/x/runs/r", enabled=False):
            pass
        assert capsys.readouterr().out == ""

    def test_the_environment_names_the_server(self, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
        assert tracking.tracking_uri("s3://bucket/x") == "http://localhost:5000"

    def test_a_tracker_that_is_off_imports_nothing(self, tmp_path):
        code = (
            "import sys; from cluster.tracking import run_tracker\n"
            f"with run_tracker({str(tmp_path)!r}, 'x', enabled=False) as t:\n"
            "    t.start('x', {}, kind='train'); t.finish({}, [])\n"
            "print('mlflow' in sys.modules)"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert out.stdout.strip() == "False", out.stderr


class TestNames:
    @given(st.text(max_size=300))
    def test_mlflow_takes_whatever_name_becomes_of_any_text(self, text):
        from mlflow.utils.validation import _validate_metric_name, _validate_param_name

        for name in (text, f"oof/{text}/accuracy", text * 3):
            _validate_metric_name(taken(name))
            _validate_param_name(taken(name))
            assert len(taken(name)) <= 250

    @pytest.mark.parametrize(
        "name", ["oof/emotion/accuracy", "fold0/seed0/train/loss", "lr", "ü 1.x"]
    )
    def test_a_plain_name_stays(self, name):
        assert taken(name) == name

    def test_two_names_stay_two(self):
        assert (
            len({taken(name) for name in ("a?", "a!", "a_", "a/?", "a/!", "../a", "/a", "a")}) == 8
        )

    @pytest.mark.parametrize("name", ["my%20data?v2", "a b ü", "x#y;z", "[1]"])
    def test_a_root_of_any_name_ends_no_job(self, made, tmp_path, name, capsys):
        root = tmp_path / name
        root.mkdir()
        made(root)
        with run_tracker(str(root), f"{root}/runs/r") as tracker:
            tracker.start("r", {"a": 1}, kind="train")
            tracker.metrics([{"step": 0, "how do you feel? (1)/f1": 0.5, "": 1.0, "x" * 400: 2.0}])
        warned = capsys.readouterr().err
        assert warned.count("warning") == ("?" in name)
        assert (tracker.run_id is None) == ("?" in name)
        assert sorted(path.name for path in tmp_path.iterdir()) == [name]


class TestWhoMayWrite:
    @pytest.mark.parametrize("mask", [0o002, 0o022, 0o077])
    def test_the_umask_says_who_shares_the_database_of_a_root(self, tmp_path, monkeypatch, mask):
        monkeypatch.setattr("mlflow.tracking.MlflowClient", lambda **_: MagicMock())
        before = os.umask(mask)
        try:
            mlflow_store.Experiment(str(tmp_path), f"sqlite:///{tmp_path}/mlflow.db")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "mlflow.db").stat().st_mode) == 0o666 & ~mask

    @pytest.mark.parametrize("closed", ["a folder stands there", "it is read-only"])
    def test_one_that_may_not_be_written_costs_one_line(self, made, tmp_path, capfd, closed):
        if closed == "it is read-only" and os.geteuid() == 0:
            pytest.skip("root may write everything")
        if closed == "it is read-only":
            made(tmp_path)
            (tmp_path / "mlflow.db").chmod(0o444)
        else:
            (tmp_path / "mlflow.db").mkdir()
        with run_tracker(str(tmp_path), f"{tmp_path}/runs/r") as tracker:
            tracker.start("r", {"a": 1}, kind="train")
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("warning: MLflow at sqlite:")


class _Answers(BaseHTTPRequestHandler):
    """A web server that is no MLflow."""

    status, body = 200, b"<html>hello</html>"

    def do_GET(self):
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments):
        pass


class TestServerThatFails:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch):
        monkeypatch.setattr(mlflow_store, "ANSWER_S", 3.0)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    @pytest.fixture
    def server(self):
        with HTTPServer(("127.0.0.1", 0), _Answers) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()

    @pytest.fixture
    def silent(self):
        with socket.socket() as waiting:
            waiting.bind(("127.0.0.1", 0))
            waiting.listen(50)
            yield f"http://ann:hunter2@127.0.0.1:{waiting.getsockname()[1]}"

    def job(self, tmp_path):
        """All that a job asks of a tracker; the seconds it took."""
        began = time.monotonic()
        root = str(tmp_path)
        with run_tracker(root, f"{root}/runs/r") as tracker:
            tracker.start("r", {"a": 1}, kind="train")
            tracker.metrics([{"step": 0, "x": 1.0}])
            tracker.child(f"{root}/runs/r/1", "c", {}, {"x": 1.0})
            tracker.finish(SUMMARY, HISTORY)
            tracker.artefacts(["config.json"])
        return time.monotonic() - began

    @pytest.mark.parametrize(
        "uri",
        [
            "http://127.0.0.1:9", "http://ann:hunter2@127.0.0.1:9", "nonsense://x?token=hunter2",
            "postgresql://ann:hunter2@127.0.0.1:9/runs", "sqlite:////dev/null/x.db?password=hunter2",
        ],
    )  # fmt: skip
    def test_one_that_is_away_costs_one_warning_without_the_secret(
        self, uri, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert self.job(tmp_path) < 20
        said = capsys.readouterr().err
        assert said.count("warning: MLflow at ") == 1
        assert "--no-tracking" in said
        assert "hunter2" not in said
        assert not list(tmp_path.rglob("mlflow.json"))

    def test_one_that_is_something_else_costs_one_warning(
        self, server, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        assert self.job(tmp_path) < 20
        assert capsys.readouterr().err.count("warning: MLflow at ") == 1

    def test_one_that_never_answers_costs_one_warning_in_all(
        self, silent, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", silent)
        assert self.job(tmp_path) < 20
        said = capsys.readouterr().err
        assert said.count("warning: MLflow at ") == 1
        assert "no answer in 3 s" in said
        assert "hunter2" not in said

    def test_one_that_dies_in_the_middle_costs_one_warning(
        self, made, tmp_path, monkeypatch, capsys
    ):
        root = made(tmp_path)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        with run_tracker(root, f"{root}/runs/r") as tracker:
            tracker.start("r", {"a": 1}, kind="train")
            for name in ("log_batch", "set_terminated", "create_run"):
                monkeypatch.setattr(tracker._projection.store.client, name, self.gone)
            for step in range(5):
                tracker.metrics([{"step": step, "x": 1.0}])
            tracker.child(f"{root}/runs/r/1", "c", {}, {"x": 1.0})
        assert capsys.readouterr().err.count("warning: MLflow at ") == 1

    def gone(self, *arguments, **more):
        raise ConnectionError("the server went away")


class TestSecrets:
    def test_nothing_that_is_recorded_holds_a_password(self, made, tmp_path, monkeypatch):
        root = made(tmp_path)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db?timeout=7")
        secret = "s3://KEY:hunter2@bucket/x"
        with run_tracker(root, f"{root}/runs/r") as tracker:
            storage.publish_json({"root": secret}, f"{root}/runs/r/config.json")
            tracker.start("r", {"root": secret}, kind="train", tags={"affuse.source": secret})
            tracker.artefacts(["config.json"])
        mark = json.loads(Path(root, "runs/r/mlflow.json").read_text())
        assert set(mark) == {"run_id", "store"}
        assert "timeout" not in json.dumps(mark)
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert len(files) >= 4
        assert not [file for file in files if b"hunter2" in file.read_bytes()]
