"""Write one HTML file of the results, with baselines, intervals, robustness checks and the worst errors.

Reads:  <root>/runs/<run>/ and <root>/bundles/<name>/ (held-out rows only, never the test split)
Writes: <root>/reports/<name>/  report.html (self-contained), its pictures as PNG, its tables and
        what pictures show as CSV, its tables as LaTeX, results.json with every answer

Laptop:   affuse report --root data/ravdess --bundle ensemble
Runs:     affuse report --root data/ravdess --runs voice face both --out figures
Films:    affuse report --root data/ravdess --bundle ensemble --moments moments.parquet
Cluster:  affuse submit --address URL -- report --root s3://bucket/mosei --bundle ensemble
"""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from cluster import console, storage
from cluster.console import Table
from cluster.errors import ConfigError
from cluster.settings import Place
from fusion.metrics import FIGURES
from fusion.number_format import figure_text
from jobs.catalog import layout
from jobs.catalog.names import check_bundle_names, check_names, check_once, joined_name
from jobs.catalog.outputs import check_outputs, publish_outputs
from jobs.evaluation.judging import check_resamples
from jobs.evaluation.results_table import SILENT
from jobs.reporting.evidence import Evidence, gather
from jobs.reporting.page import CAUTION, PAGE, STYLE_SHEET, Options, Section
from jobs.reporting.results_document import results_document
from jobs.reporting.sections import SECTIONS
from jobs.scoring.opening import name_under
from jobs.scoring.scores_at import scores_at


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is reported, and where it is written."""

    root: Place
    """Folder or URI of the dataset."""

    runs: tuple[str, ...] = ()
    """Runs to compare; by default the members of the bundle. Others beside a bundle are not fused."""

    bundle: str | None = None
    """Bundle to show beside the runs: a name under --root, or models:/NAME@ALIAS."""

    task: str | None = None
    """Task to show; by default the first that the runs have in common. A bundle has its own."""

    out: Place | None = None
    """Folder of the report; by default reports/<bundle, or the runs> under the root."""

    overwrite: bool = False
    """Replace files of --out that no earlier run made; an input is never replaced."""

    title: str | None = None
    """Heading of the report."""

    worst: int = 15
    """Number of the worst errors to list."""

    resamples: int = 2000
    """Number of bootstrap resamples of the groups."""

    seed: int = 0
    """Seed of the bootstrap."""

    moments: Place | None = None
    """Scores of windows or sentences of films (`affuse score --by`) to draw over time: what --out wrote."""

    limit: tuple[str, float] | None = None
    """Reference line in the picture of the results, such as the best possible figure: its name and value."""

    def __post_init__(self) -> None:
        check_names(runs=self.runs)
        check_bundle_names(bundle=self.bundle)
        check_once(runs=self.runs)
        if not self.runs and self.bundle is None:
            raise ConfigError("nothing to report on: name --runs, a --bundle, or both")
        check_resamples(self.resamples)
        if self.worst < 0:
            raise ConfigError(f"--worst {self.worst}: expected 0 or more")


def main(config: Config) -> str:
    """Gather, draw, write; returns where the HTML file is."""
    if config.bundle is not None:
        config = replace(config, bundle=name_under(config.root, config.bundle))
    check_folder(config, [layout.REPORT])
    evidence = gather(
        config.root,
        runs=config.runs,
        bundle=config.bundle,
        task=config.task,
        resamples=config.resamples,
        seed=config.seed,
    )
    if evidence.other_tasks and config.task is None:
        others = ", ".join(evidence.other_tasks)
        console.show(f"task {evidence.task_name}; type --task NAME for another one: {others}")
    films = None if config.moments is None else scores_at(config.moments)
    options = Options(worst=config.worst, limit=config.limit, moments=films)
    sections = [section for make in SECTIONS if (section := make(options, evidence)) is not None]
    where = publish(config, evidence, sections)
    show(evidence)
    print(f"wrote {where}: {sum(len(section.pictures) for section in sections)} pictures")
    return where


def show(evidence: Evidence) -> None:
    """Print what fits a terminal of the results: intervals of the first figure and of the gain."""
    first, *others = FIGURES[evidence.task.kind]
    table = Table("", "n", first, *others, f"gain over {evidence.best_single.name}")
    for line in evidence.lines:
        cells = [
            "" if np.isnan(x := line.figures[name].value) else figure_text(x) for name in others
        ]
        gain = "" if line.gain is None else str(line.gain)
        style = "bold" if line is evidence.focus else None
        shown = str(line.figures[first])
        table.add_row(line.name, str(line.n), shown, *cells, gain, style=style)
    console.show(table)
    evidence.judged.linear.show()
    if any(line.n < len(evidence.clips) for line in evidence.lines):
        console.show(f"{len(evidence.clips)} clips; {SILENT}")


def publish(config: Config, evidence: Evidence, sections: Sequence[Section]) -> str:
    """Pictures and tables first, the page last."""
    files: dict[str, bytes] = {}
    for section in sections:
        files |= {f"{title}.png": png for title, png in section.pictures.items()}
        for grid in section.tables:
            files[f"{grid.name}.csv"] = grid.csv().encode()
            files[f"{grid.name}.tex"] = grid.latex().encode()
        files |= {f"{grid.name}.csv": grid.csv().encode() for grid in section.data}
    files[layout.RESULTS] = storage.json_bytes(results_document(evidence))
    files[layout.REPORT] = page(config, evidence, sections).encode()
    folder = folder_of(config)
    check_folder(config, list(files))
    contents = {storage.join(folder, name): content for name, content in files.items()}
    publish_outputs(config, contents, storage.join(folder, layout.CONFIG), whole=True)
    return storage.join(folder, layout.REPORT)


def folder_of(config: Config) -> str:
    """Where the report goes."""
    name = config.bundle or joined_name(config.runs, "-")
    return storage.absolute(config.out or layout.report_uri(config.root, name))


def check_folder(config: Config, names: Sequence[str]) -> None:
    """Refuse to replace files of a folder that was named; those under the root are the project's own.

    Raises:
        ConfigError: a file there was not made by an earlier report.
    """
    folder = folder_of(config)
    files = [storage.join(folder, name) for name in names]
    overwrite = config.overwrite or config.out is None
    check_outputs(files, storage.join(folder, layout.CONFIG), overwrite=overwrite)


def page(config: Config, evidence: Evidence, sections: Sequence[Section]) -> str:
    """The whole HTML file: no script, nothing from elsewhere."""
    title = config.title or f"{evidence.dataset}: {config.bundle or ', '.join(config.runs)}"
    facts = {
        "dataset": f"{evidence.dataset} ({evidence.licence or 'no licence given'})",
        "root": PurePosixPath(config.root).name,
        "manifest": evidence.manifest[:12],
        "task": f"{evidence.task_name} ({evidence.task.kind})"
        + (f"; others: {', '.join(evidence.other_tasks)}" if evidence.other_tasks else ""),
        "protocol": evidence.protocol,
        "groups": str(evidence.groups.count),
    }
    listed = "".join(
        f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in facts.items()
    )
    basis = f"{len(evidence.clips)} held-out clips of {evidence.groups.count} groups"
    body = "\n".join(_section(section, section.basis or basis) for section in sections)
    return PAGE.format(
        title=html.escape(title),
        style=STYLE_SHEET,
        facts=listed,
        body=body,
        caution=html.escape(CAUTION),
    )


def _section(section: Section, basis: str) -> str:
    text = f"<p>{html.escape(section.text)}</p>" if section.text else ""
    pictures = "".join(
        f'<figure><img alt="{html.escape(name.replace("_", " "))}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<figcaption>{html.escape(basis)}</figcaption></figure>"
        for name, png in section.pictures.items()
    )
    tables = "".join(grid.html() for grid in section.tables)
    title = html.escape(section.title)
    return f"<section><h2>{title}</h2>{text}{pictures}{tables}</section>"
