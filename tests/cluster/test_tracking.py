"""MLflow shows what a run's folder says, written by one process, and goes on in the same run."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster import storage, tracking
from cluster.errors import ConfigError
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
    def test_a_remote_root_without_a_server_is_refused(self, monkeypatch):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with pytest.raises(ConfigError, match="s3://bucket/x is remote: set MLFLOW_TRACKING_URI"):
            tracking.tracking_uri("s3://bucket/x")

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
