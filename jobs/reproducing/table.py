"""The table of a preset: published, by the authors' protocol, by a clean one, and why they differ."""

import time
from collections.abc import Mapping
from typing import Any

from cluster import settings, storage
from fusion.statistics import FEW_GROUPS
from jobs.catalog import layout
from jobs.catalog.manifest import read_dataset
from jobs.evaluation.results_table import without_nan
from jobs.reproducing.preset import Model, Preset, Protocol, ReproduceConfig
from jobs.reproducing.running import CellFigures, facts_of

Cells = Mapping[str, Mapping[Protocol, CellFigures]]
"""Model -> protocol -> what it came to."""

TITLES: Mapping[Protocol, str] = {
    "reproduced": "reproduced protocol", "clean": "clean protocol",
}  # fmt: skip


def publish(
    config: ReproduceConfig, preset: Preset, models: Mapping[str, Model], cells: Cells
) -> str:
    """Write the page and its JSON; returns the page."""
    facts = facts_of_table(config, preset, models, cells)
    storage.publish_json(facts, layout.reproduce_uri(config.root, f"{config.preset}.json"))
    page = layout.reproduce_uri(config.root, f"{config.preset}.md")
    storage.publish_bytes(markdown(config, preset, models, cells).encode(), page)
    return page


def markdown(
    config: ReproduceConfig, preset: Preset, models: Mapping[str, Model], cells: Cells
) -> str:
    """The page."""
    dataset = read_dataset(config.root)
    lines = [
        f"# {preset.title}",
        "",
        f"Published in {preset.source}. Data: {preset.data}; licence: {dataset.licence or 'unknown'}.",
        f"Made by `affuse reproduce {config.preset}`; dataset `{dataset.name}`, manifest "
        f"`{dataset.manifest_hash}`.",
        *trial_notes(config),
        "",
        "| model | metric | published | " + " | ".join(TITLES[p] for p in config.protocols) + " |",
        "|---|---|---|" + "---|" * len(config.protocols),
    ]
    for name, of_model in cells.items():
        for metric in preset.metrics:
            published = models[name].published.get(metric)
            shown = [
                "-" if (judged := of_model.get(protocol)) is None else str(judged.figures[metric])
                for protocol in config.protocols
            ]
            first = "-" if published is None else f"{published:.3f}"
            lines.append(
                f"| {shown_name(models[name])} | `{metric}` | {first} | {' | '.join(shown)} |"
            )
    lines += ["", "## How each column is made", "", "- published: as its authors print it."]
    lines += [f"- {TITLES[p]}: {preset.columns[p]} {people(cells, p)}" for p in config.protocols]
    lines += ["", "## Why the published figures are not comparable", ""]
    lines += [f"- {reason}" for reason in preset.why]
    notes = [f"- {name}: {models[name].note}" for name in cells if models[name].note]
    return "\n".join([*lines, *(["", "## Single models", "", *notes] if notes else [])]) + "\n"


def shown_name(model: Model) -> str:
    """Name and title of a line."""
    return f"{model.name} {model.title}".strip()


def trial_notes(config: ReproduceConfig) -> list[str]:
    """What was given in place of the preset's settings."""
    given = {
        "epochs": config.epochs, "seeds": config.seeds, "encoders": config.encoders,
    }  # fmt: skip
    said = ", ".join(f"{name} {value}" for name, value in given.items() if value)
    return [f"**Not the preset's own settings: {said}.**"] if said else []


def people(cells: Cells, protocol: Protocol) -> str:
    """On what a column is judged, and over whom its intervals are."""
    found = {
        (judged.rows, judged.num_rows, judged.num_groups)
        for of_model in cells.values()
        if (judged := of_model.get(protocol)) is not None
    }
    said = [
        f"{rows} clips of role {role} in {groups} groups"
        + (f" (fewer than {FEW_GROUPS}: intervals say little)" if groups < FEW_GROUPS else "")
        for role, rows, groups in sorted(found)
    ]
    return f"Judged on {'; '.join(said)}; 95 % intervals over groups." if said else "Nothing made."


def facts_of_table(
    config: ReproduceConfig, preset: Preset, models: Mapping[str, Model], cells: Cells
) -> dict[str, Any]:
    """Everything on the page, and the config."""
    facts = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "config": settings.resolved(config),
        "title": preset.title,
        "source": preset.source,
        "task": preset.task,
        "why": list(preset.why),
        "columns": dict(preset.columns),
        "models": {
            name: {
                "title": models[name].title,
                "published": dict(models[name].published),
                "note": models[name].note,
                **{protocol: facts_of(judged) for protocol, judged in of_model.items()},
            }
            for name, of_model in cells.items()
        },
    }
    return dict(without_nan(facts))
