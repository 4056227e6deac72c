"""Raters' votes in training, in evaluate and in the report."""

import pytest

from cluster import storage
from cluster.errors import ConfigError
from jobs import evaluate, report, train
from jobs.training.loading import Request, load
from tests.jobs.small_root import write_root


def fit(root, run, **options):
    train.main(
        train.Config(
            root=root,
            inputs=("voice",),
            tasks=("emotion",),
            net_options={"hidden": 8},
            epochs=8,
            lr=1e-2,
            pool="mean",
            run=run,
            tracking=False,
            **options,
        )
    )


def test_clips_carry_the_distribution_of_their_votes(tmp_path):
    root = write_root(str(tmp_path / "root"), votes=True)
    data = load(Request(root=root, inputs=("voice",), tasks=("emotion",)))
    soft, target = data.clips.soft["emotion"], data.clips.targets["emotion"]
    assert soft[0].tolist() == [0, 0, 0]
    voted = soft.sum(1) > 0
    assert voted.sum() == len(soft) - len(soft[::9])
    assert soft[voted].argmax(1).equal(target[voted])
    assert soft[voted].amax(1).tolist() == pytest.approx([2 / 3] * int(voted.sum()))
    batch = data.feed.batch(data.feed.rows_of(voted.numpy())[:4])
    assert batch.soft["emotion"].shape == (4, 3)


def test_a_net_of_the_votes_is_as_unsure_as_people_and_stands_below_their_ceiling(tmp_path, capsys):
    root = write_root(str(tmp_path / "root"), votes=True)
    fit(root, "soft", loss="kl")
    fit(root, "hard")
    evaluate.main(evaluate.Config(root=root, runs=("soft", "hard"), task="emotion", resamples=100))
    shown = capsys.readouterr().out
    assert "human ceiling (a rater judged by the others): accuracy 0.333" in shown
    facts = storage.read_json(f"{root}/evaluations/soft+hard/results.json")["raters"]
    # Two for the class meet it and the other vote, a tie; the third is never right.
    assert facts["ceiling"]["accuracy"] == pytest.approx(1 / 3)
    assert facts["votes_per_row"] == 3
    soft, hard = facts["agreement"]["soft"], facts["agreement"]["hard"]
    assert soft["kl_divergence"] < hard["kl_divergence"]
    assert soft["js_divergence"] < hard["js_divergence"]


@pytest.mark.slow
def test_a_report_has_a_section_on_raters(tmp_path):
    root = write_root(str(tmp_path / "root"), votes=True)
    fit(root, "soft", loss="kl")
    report.main(report.Config(root=root, runs=("soft",), task="emotion", resamples=100))
    page = storage.read_bytes(f"{root}/reports/soft/report.html").decode()
    assert "<h2>Raters</h2>" in page
    assert "human ceiling" in page


def test_votes_that_are_not_there_are_asked_for(tmp_path):
    root = write_root(str(tmp_path / "root"))
    with pytest.raises(ConfigError, match="takes raters' votes"):
        fit(root, "soft", loss="kl")


def test_nothing_is_said_of_raters_where_none_are_known(tmp_path, capsys):
    root = write_root(str(tmp_path / "root"))
    fit(root, "hard")
    evaluate.main(evaluate.Config(root=root, runs=("hard",), task="emotion", resamples=100))
    assert "human ceiling" not in capsys.readouterr().out
    assert "raters" not in storage.read_json(f"{root}/evaluations/hard/results.json")
