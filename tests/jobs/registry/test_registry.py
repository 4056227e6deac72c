"""Bundles in MLflow's registry: a fresh process and a server say the same; a worse one is not promoted."""

import importlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pytest

from cluster import settings, storage
from cluster.errors import ConfigError, NotPreparedError
from cluster.model_registry import ModelRegistry
from encoders import store as weights
from jobs import bundle, compare, ensemble, evaluate, report, score, train
from jobs.catalog import bundles, layout
from jobs.catalog.manifest import read_dataset
from jobs.catalog.predictions import predictions_uri
from jobs.library.loaded_bundle import load
from jobs.registry import registering
from jobs.registry.promotion import compared
from jobs.scoring.opening import name_under

FRAME = {"voice": [[[0.5] * 6], None], "face": [[[0.1] * 4] * 3, [[1.0] * 4]]}

CALL = """
import json, sys, mlflow, pandas
model = mlflow.pyfunc.load_model("models:/best@champion")
frame = model.predict(pandas.DataFrame(json.load(sys.stdin)))
print(frame[[name for name in frame if name.startswith("p_")]].to_json(orient="values"))
"""


@pytest.fixture(scope="module")
def root(write_root, tmp_path_factory):
    """A good bundle `best`, and `poor` of a net that is told nothing of use."""
    root = write_root(str(tmp_path_factory.mktemp("registry") / "root"))
    for name in ("voice", "face"):
        fit(root, name, name)
    fit(root, "poor", "face")
    shuffle(root, "poor")
    fuse(root, "best", "voice", "face")
    fuse(root, "poor", "poor")
    return root


def fit(root, run, name):
    train.main(
        train.Config(
            root=root, run=run, inputs=(name,), net="linear", folds="speaker", refit=True,
            tasks=("emotion",), tracking=False,
        )
    )  # fmt: skip


def fuse(root, name, *runs):
    ensemble.main(
        ensemble.Config(
            root=root, bundle=name, runs=runs, task="emotion", rule="mean", resamples=100
        )
    )


def shuffle(root, run):
    """The held-out predictions of a run change hands."""
    for fold in range(3):
        uri = predictions_uri(root, run, fold, 0)
        table = storage.read_table(uri)
        order = np.random.default_rng(fold).permutation(len(table))
        place = table.column_names.index("scores")
        storage.publish_table(table.set_column(place, "scores", table["scores"].take(order)), uri)


def shares(frame):
    return frame[[name for name in frame if name.startswith("p_")]].to_numpy()


class TestTheTest:
    def judge(self, root, new, old):
        task = read_dataset(root).tasks["emotion"]
        return compared(root, new, old, "emotion", task, resamples=200, seed=0)

    def test_a_worse_bundle_does_not_pass(self, root):
        verdict = self.judge(root, "poor", "best")
        assert not verdict.passes
        assert "accuracy" in verdict.worse
        assert verdict.said.endswith("clips of 6 groups")

    def test_a_better_one_does(self, root):
        verdict = self.judge(root, "best", "poor")
        assert verdict.passes
        assert "accuracy" in verdict.better
        assert verdict.worse == ()

    def test_an_equal_one_is_not_better(self, root):
        fuse(root, "twin", "voice", "face")
        verdict = self.judge(root, "twin", "best")
        assert not verdict.passes
        assert (verdict.better, verdict.worse) == ((), ())


class TestWithoutARegistry:
    def test_a_remote_root_without_a_server_costs_one_line(self, root, monkeypatch, capsys):
        monkeypatch.setattr(registering, "tracking_uri", lambda _: None)
        registering.record_bundle(root, "best")
        assert capsys.readouterr().out.count("\n") == 1

    def test_a_server_that_is_away_costs_a_warning_and_says_how_to_do_it_later(
        self, root, monkeypatch, capsys
    ):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        registering.record_bundle(root, "best")
        said = capsys.readouterr()
        assert said.err.count("warning: MLflow") == 1
        assert (
            said.out
            == f"not registered; later: affuse bundle register --root {root} --bundle best\n"
        )

    def test_nothing_is_imported_where_it_is_switched_off(self, root, monkeypatch, capsys):
        monkeypatch.setattr(registering, "tracking_uri", lambda _: pytest.fail("asked"))
        registering.record_bundle(root, "best", tracking=False)
        assert capsys.readouterr().out == ""

    def test_a_registered_name_without_a_registry_says_what_to_set(self, monkeypatch):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with pytest.raises(NotPreparedError, match="set MLFLOW_TRACKING_URI"):
            load("models:/best@champion")


def test_mlflow_has_nothing_to_say_of_the_code_that_opens_a_bundle():
    file = Path(registering.__file__).with_name("pyfunc_script.py")
    command = [sys.executable, "-W", "always", "-c", f"import runpy; runpy.run_path({str(file)!r})"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "type hint" not in said.stderr
    assert "signature" not in said.stderr


@pytest.mark.slow
class TestTheRegistry:
    @pytest.fixture(scope="class")
    def promoted(self, root):
        """The good bundle has the alias."""
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            bundle.main(bundle.PromoteConfig(root=root, bundle="best"))
            assert "MLFLOW_TRACKING_URI" not in os.environ
            # MLflow starts its server by name.
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            store = f"sqlite:///{root}/mlflow.db"
            yield {**os.environ, "MLFLOW_TRACKING_URI": store, "PATH": path}

    def test_registering_again_makes_no_other_version(self, root, promoted):
        registering.record_bundle(root, "best")
        assert ModelRegistry(root).version("models:/best@champion").version == "1"
        with pytest.raises(NotPreparedError, match="no such model; type: affuse bundle register"):
            ModelRegistry(root).version("models:/best/2")
        with pytest.raises(ConfigError, match="expected models:/NAME@ALIAS"):
            ModelRegistry(root).version("models:/best")

    def test_a_worse_bundle_is_refused_and_the_alias_stays(self, root, promoted):
        with pytest.raises(ConfigError, match="poor is worse in accuracy"):
            bundle.main(bundle.PromoteConfig(root=root, bundle="poor", model="best", resamples=200))
        assert ModelRegistry(root).version("models:/best@champion").tags["affuse.bundle"] == "best"

    def test_a_better_one_takes_the_alias(self, root, promoted):
        for name in ("poor", "best"):
            bundle.main(bundle.PromoteConfig(root=root, bundle=name, model="other", resamples=200))
        assert ModelRegistry(root).version("models:/other@champion").tags["affuse.bundle"] == "best"

    def test_the_model_holds_no_pickle_and_all_that_scoring_needs(self, root, promoted):
        registry = ModelRegistry(root)
        folder = registry.folder(registry.version("models:/best@champion"))
        files = [name for _, _, names in os.walk(folder) for name in names]
        assert not [name for name in files if name.endswith((".pkl", ".pyc"))]
        assert {"MLmodel", "input_example.json", "requirements.txt", "MODEL_CARD.md"} <= {*files}

    def test_compare_report_and_evaluate_take_it_for_the_bundle_that_was_registered(
        self, root, promoted, capsys
    ):
        compare.main(
            compare.Config(
                root=root, bundles=("models:/best@champion", "poor"), task="emotion", resamples=100
            )
        )
        assert "best-against-poor" in capsys.readouterr().out
        written = report.main(report.Config(root=root, bundle="models:/best/1", resamples=100))
        assert written == layout.report_uri(root, "best", layout.REPORT)
        capsys.readouterr()
        for look, name in enumerate(("best", "models:/best@champion"), 1):
            evaluate.main(evaluate.Config(root=root, bundle=name))
            assert f"this is look {look} at the test split" in capsys.readouterr().out

    @pytest.mark.parametrize("kind", [compare.Config, report.Config, evaluate.Config])
    def test_a_model_that_is_none_is_refused(self, root, promoted, kind):
        field = "bundles" if kind is compare.Config else "bundle"
        main = importlib.import_module(kind.__module__).main
        for wrong, said in [
            ("models:/best", "expected models:/NAME@ALIAS"),
            ("models:/../../x", "expected models:/NAME@ALIAS"),
            ("models:/best@nobody", "no such model"),
        ]:
            given = ("poor", wrong) if field == "bundles" else wrong
            with pytest.raises((ConfigError, NotPreparedError), match=said):
                main(kind(root=root, **{field: given}))
        with pytest.raises(ConfigError, match="holds a slash"):
            kind(root=root, **{field: ("poor", "a/b") if field == "bundles" else "a/b"})

    def test_a_model_whose_bundle_is_another_now_is_refused(self, root, promoted, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(bundles, "digest", lambda _: "another")
            with pytest.raises(ConfigError, match="made anew since; type: --bundle best"):
                name_under(root, "models:/best@champion")
        with monkeypatch.context() as patch:
            patch.setattr(layout, "bundles_there", lambda _: ["poor"])
            with pytest.raises(ConfigError, match="not under"):
                name_under(root, "models:/best@champion")

    def test_it_stands_wherever_a_bundle_does(self, root, promoted):
        named = load("models:/best@champion", root=root).predict(FRAME)
        assert shares(named) == pytest.approx(
            shares(load("best", root=root).predict(FRAME)), abs=1e-9
        )
        score.main(score.Config(root=root, bundle="models:/best/1", name="registered"))
        score.main(score.Config(root=root, bundle="best"))
        rows = [
            score.read_scores(root, name)["probabilities"].to_pylist()
            for name in ("registered", "best")
        ]
        assert rows[0] == rows[1]

    def test_a_fresh_process_says_the_same(self, root, promoted, tmp_path):
        done = subprocess.run(
            [sys.executable, "-c", CALL], input=json.dumps(FRAME), capture_output=True, text=True,
            env=promoted, cwd=tmp_path, check=True,
        )  # fmt: skip
        there = np.array(json.loads(done.stdout.splitlines()[-1]))
        assert there == pytest.approx(shares(load("best", root=root).predict(FRAME)), abs=1e-6)

    def test_a_server_of_mlflow_says_the_same(self, root, promoted, tmp_path):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        command = [
            sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "models:/best@champion",
            "--env-manager", "local", "--port", str(port), "--workers", "1",
        ]  # fmt: skip
        log = (tmp_path / "log").open("w")
        server = subprocess.Popen(
            command, env=promoted, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
            rows = [{name: values[at] for name, values in FRAME.items()} for at in range(2)]
            said = asked(f"http://127.0.0.1:{port}/invocations", {"dataframe_records": rows})
            there = [
                [row[name] for name in row if name.startswith("p_")] for row in said["predictions"]
            ]
            assert np.array(there) == pytest.approx(
                shares(load("best", root=root).predict(FRAME)), abs=1e-6
            )
        finally:
            os.killpg(server.pid, 15)
            server.wait(30)
            log.close()

    def test_the_commands_that_make_a_bundle_register_it(self, root, promoted, tmp_path):
        command = [
            sys.executable, "-m", "jobs", "ensemble", "--root", root, "--runs", "voice", "--task", "emotion",
            "--bundle", "typed", "--resamples", "100",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, env=promoted, check=True)
        assert done.stdout.splitlines()[-1] == "registered as models:/typed/1"


def wait_for(url, server, log):
    """Until a server answers; generous, it loads torch."""
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())


def asked(url, body):
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def test_the_store_of_the_process_is_as_before():
    assert not mlflow.get_tracking_uri().startswith("sqlite:////tmp/pytest")


def test_the_name_of_a_registered_model_is_no_place():
    config = score.Config(clips=("a.mp4",), bundle="models:/best@champion")
    assert settings.resolved(config)["bundle"] == "models:/best@champion"
    assert score.store_of(config) == weights.DEFAULT_STORE
