"""The share of failed clips: all starts count, small jobs end with status 1, the reasons are named."""

import pytest

from cluster.errors import TooManyFailuresError
from cluster.session import SessionConfig, ray_session
from jobs import encode as job
from jobs.__main__ import run
from jobs.stream.progress import Progress


@pytest.fixture(scope="module")
def corpus(toys):
    """A Ray whose workers know the toys."""
    with ray_session(SessionConfig(num_cpus=2, num_gpus=0)):
        yield toys.corpus


def encode(root, *flags):
    words = ["encode", "--root", str(root), "--encoders", "toy_text", "--no-tracking"]
    words += ["--session.num-cpus", "2", "--session.num-gpus", "0", "--workers.gpus-per-actor", "0"]
    return run([*words, *flags])


@pytest.mark.ray
def test_a_small_job_of_which_most_clips_failed_ends_with_status_1_and_says_why(
    corpus, tmp_path, capsys, monkeypatch
):
    texts = [f"clip {number}" if number % 5 < 2 else "RAISE" for number in range(10)]
    corpus.write_corpus(tmp_path, 10, texts=texts)
    line = "6 of 10 clips failed (60%): 6 x encoder: ValueError: asked to raise"
    assert encode(tmp_path) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith(f"affuse encode: {line}; that is more than")
    assert said.err.rstrip().endswith("`error` column; --retry-failed tries them again")
    assert "4 ok" in said.out  # all was written before
    monkeypatch.setattr(job, "ray_session", None)  # it would fail if it were started
    assert encode(tmp_path) == 1
    assert line in capsys.readouterr().err
    assert encode(tmp_path, "--max-failed-share", "0.6") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{line}; --retry-failed tries them again"


def test_failures_of_an_earlier_start_count():
    with Progress(200, label="x", max_failed_share=0.2, before=(90, 18)) as progress:
        progress.add(9, 3)  # 21 of 99: too few to judge by
        with pytest.raises(TooManyFailuresError, match=r"22 of 103 clips failed \(21%\): 1 x odd"):
            progress.add(4, 1, {"odd": 1})


def test_a_stream_that_is_stopped_says_what_to_type():
    with Progress(200, label="x", max_failed_share=0.2, advice="; type this") as progress:
        with pytest.raises(TooManyFailuresError, match=r"`error` column; type this$"):
            progress.add(100, 100)


def test_what_an_earlier_start_did_well_counts_too():
    with Progress(200, label="x", max_failed_share=0.2, before=(1000, 0)) as progress:
        progress.add(100, 100)
        assert progress.failed == 100
