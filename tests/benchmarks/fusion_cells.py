"""What a study of late fusion found, a line a rule and cell: kept in a file, and shown as tables."""

import csv
from pathlib import Path

import numpy as np

Line = dict[str, str | float]
TEXTS = ("cell", "kind", "rule")
MARK = 2.0
"""Regret against `inside` [%] that no cell should pass by more than its standard error."""


def finished(out: Path | None, draws: int, with_shipped: bool) -> list[Line]:
    """The lines of cells that were judged before, with as many draws and with what ships if asked."""
    if out is None or not out.exists():
        return []
    with out.open(newline="") as file:
        lines: list[Line] = [
            {key: text if key in TEXTS else float(text) for key, text in row.items()}
            for row in csv.DictReader(file)
        ]
    lines = [line for line in lines if line["draws"] == draws]
    shipped = {line["cell"] for line in lines if line["rule"] == "shipped"}
    return [line for line in lines if not with_shipped or line["cell"] in shipped]


def append(out: Path | None, lines: list[Line]) -> None:
    """Keep the lines of a cell."""
    if out is None:
        return
    new = not out.exists()
    with out.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        if new:
            writer.writeheader()
        writer.writerows(lines)


def show_cell(line: Line) -> None:
    """Where the default stands in one cell."""
    print(
        f"{line['cell']:45s} {line['nll']:.3f} {line['accuracy']:.3f}  inside "
        f"{line['inside_nll']:+6.2f} % +- {line['inside_error']:.2f} {line['inside_accuracy']:+5.2f} p  "
        f"hindsight {line['hindsight_nll']:+6.2f} %",
        flush=True,
    )


def show_table(kind: str, lines: list[Line]) -> None:
    """All rules over all cells of a kind of task."""
    if not lines:
        return
    print(f"\n{kind}: {len({line['cell'] for line in lines})} cells")
    print(
        "rule           | inside: mean NLL%  worst  over the mark  mean acc  worst | "
        "hindsight: mean NLL%  worst"
    )
    for rule in sorted({str(line["rule"]) for line in lines}):
        mine = [line for line in lines if line["rule"] == rule]
        column = {
            key: np.array([float(line[key]) for line in mine]) for key in mine[0] if "_" in key
        }
        over = (column["inside_nll"] - column["inside_error"] > MARK).sum()
        print(
            f"{rule:14s} | {column['inside_nll'].mean():17.2f} {column['inside_nll'].max():6.2f} "
            f"{over:14d} {column['inside_accuracy'].mean():9.2f} {column['inside_accuracy'].min():6.2f} | "
            f"{column['hindsight_nll'].mean():20.2f} {column['hindsight_nll'].max():6.2f}"
        )
    bounds = oracle(lines)
    print(
        f"oracle         | {bounds.mean():17.2f} {bounds.max():6.2f}   (picks rule or part in hindsight)"
    )


def oracle(lines: list[Line]) -> np.ndarray:
    """Regret against `inside` [%] of who picks the best rule or part of each cell in hindsight [cell]."""
    found = []
    for name in {line["cell"] for line in lines}:
        mine = [line for line in lines if line["cell"] == name]
        one = mine[0]
        reference = float(one["nll"]) / (1 + float(one["inside_nll"]) / 100)
        part = float(one["nll"]) / (1 + float(one["hindsight_nll"]) / 100)
        best = min(part, *(float(line["nll"]) for line in mine))
        found.append(100 * (best / reference - 1))
    return np.array(found)
