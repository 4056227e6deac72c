"""Commands on a remote root run as they are typed: no flag is needed for the weights or for MLflow."""

import fsspec
import pytest

from cluster import storage
from jobs.__main__ import run

ROOT = "memory://bucket/mine"
BESIDE = "weights: memory://bucket/store, beside the remote root; --store names another\n"


@pytest.fixture
def remote(write_root, monkeypatch):
    """A prepared dataset in a bucket, and no MLflow server."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield write_root(ROOT)
    fsspec.filesystem("memory").store.clear()


class TestWeights:
    COMMANDS = (
        ["encode", "--root", ROOT, "--encoders", "minilm"],
        ["benchmark", "encode", "--root", ROOT, "--encoders", "minilm"],
    )

    @pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
    def test_they_are_looked_for_beside_the_root_and_the_error_says_how_they_get_there(
        self, remote, words, capsys
    ):
        assert run(words) == 1
        said = capsys.readouterr()
        assert said.out == BESIDE
        assert (
            "is not in the store memory://bucket/store; type: affuse models --encoders minilm "
            in said.err
        )
        assert "--store memory://bucket/store" in said.err

    @pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
    def test_a_store_that_is_named_wins_and_nothing_is_said(self, remote, words, tmp_path, capsys):
        assert run([*words, "--store", str(tmp_path)]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert f"is not in the store {tmp_path}" in said.err


def test_a_net_is_trained_in_a_bucket_without_a_server_and_one_line_says_so(remote, capsys):
    words = ["train", "--root", ROOT, "--inputs", "voice", "--tasks", "emotion", "--run", "r"]
    assert run([*words, "--epochs", "1", "--folds", "speaker"]) == 0
    said = capsys.readouterr().out
    assert said.count("MLflow") == 1
    assert f"MLflow: off; {ROOT} is remote and MLFLOW_TRACKING_URI names no server\n" in said
    assert storage.exists(f"{ROOT}/runs/r/summary.json")
    assert not storage.exists(f"{ROOT}/mlflow.db")
