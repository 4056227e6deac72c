"""What a search says while it runs: a line a trial, and a nested run in MLflow."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from cluster import console
from cluster.console import Table
from cluster.tracking import Tracker
from fusion.number_format import figure_text
from jobs.catalog import layout
from jobs.training.run import TrainConfig
from jobs.tuning.trial_records import Record


class Live:
    """Says what became of each trial, and projects it to MLflow."""

    def __init__(
        self,
        total: int,
        ledger: Sequence[Record],
        score: str,
        tracker: Tracker,
        base: TrainConfig,
    ) -> None:
        self.total, self.done, self.score = total, len(ledger), score
        self.tracker, self.base = tracker, base
        finished = [record for record in ledger if record.state == "finished"]
        self.best = min(finished, key=lambda record: record.score, default=None)
        self.began = time.monotonic()
        self.first = len(ledger)

    def __call__(self, record: Record) -> None:
        """One trial ended."""
        self.done += 1
        better = self.best is None or record.score < self.best.score
        if record.state == "finished" and better:
            self.best = record
        rate = (self.done - self.first) / (time.monotonic() - self.began)
        left = (self.total - self.done) / rate
        value = "-" if record.state == "failed" else figure_text(record.score, digits=4)
        best = (
            "-"
            if self.best is None
            else f"{figure_text(self.best.score, digits=4)} ({self.best.number})"
        )
        print(
            f"trial {record.number:5d} {record.state:8s} {self.score} {value}  best {best}  "
            f"{self.done}/{self.total}, {left:.0f} s left  {describe(record.values)}"
            + (f"  {record.error}" if record.error else ""),
            flush=True,
        )
        folder = layout.trials_uri(self.base.root, str(self.base.run), f"{record.number:05d}")
        self.tracker.child(
            folder,
            f"{self.base.run}-{record.number:05d}",
            record.values,
            {"score": record.score, "seconds": record.seconds, **record.figures},
            failed=record.state == "failed",
            tags={"affuse.state": record.state},
        )


def describe(values: Mapping[str, Any]) -> str:
    """A trial's net and inputs in a few words."""
    inputs = values.get("inputs")
    parts = [str(values.get("net", "")), "+".join(inputs) if inputs else ""]
    return " on ".join(part for part in parts if part)


def show(summary: Mapping[str, Any]) -> None:
    """Print the kept runs and what mattered."""
    table = Table(title=f"{summary['run']}: {summary['trials']}")
    for column in ("run", "score", "what"):
        table.add_column(column)
    for member in summary["members"]:
        table.add_row(
            member["run"], figure_text(member["score"], digits=4), describe(member["values"])
        )
    console.show(table)
    if baseline := summary["baseline"]:
        score, what = figure_text(baseline["score"], digits=4), describe(baseline["values"])
        console.show(f"{what}, of the same features: {score} (trial {baseline['number']})")
    if summary["left_out"]:
        console.show(f"left out: {'; '.join(summary['left_out'])}")
    shares = sorted(summary["importance"].items(), key=lambda item: -item[1])
    if shares:
        text = ", ".join(f"{name} {share:.0%}" for name, share in shares[:5])
        console.show(f"what mattered: {text}")
    if summary["procedure"]:
        figures = summary["procedure"]["figures"].items()
        text = ", ".join(f"{name} {figure_text(value)}" for name, value in figures)
        console.show(f"members and fusion chosen without the fold they are judged on: {text}")
