"""The section of a report on what the answers rest on: modalities shuffled, alone, and what each adds."""

from collections.abc import Mapping
from typing import Any

from fusion.number_format import figure_text
from fusion.statistics import Difference, Interval
from jobs.reporting import plots
from jobs.reporting.evidence import Evidence
from jobs.reporting.grid import Grid
from jobs.reporting.number_format import title
from jobs.reporting.page import Options, Section

TEXT = (
    "Shuffled: what is lost where a modality's features change hands among the clips; alone: how good some "
    "of the modalities are where the clips have no others. Both on rows that no net trained on, each "
    "answered by the nets that did not see its fold. What a modality or member adds is its Shapley value, "
    "the mean over clips, for the answer that is given; of a value it is how far it moves it, up or down."
)


def explained(_: Options, evidence: Evidence) -> Section | None:
    """What `affuse explain` measured of the bundle."""
    found = evidence.rests_on
    if found is None:
        return None
    main, values = title(found["metric"]), found["mean_values"]
    drawn = "" if found["num_clips"] == found["of_clips"] else f" of {found['of_clips']}"
    basis = f"{found['num_clips']}{drawn} held-out clips of {found['num_groups']} groups"
    grids = [_shuffled(found, main, basis), _alone(found, basis)]
    pictures = {
        "shuffled": plots.bars(
            {name: lost["value"] for name, lost in _falling(found["shuffled"])},
            f"{main} lost where shuffled",
        ),
        "alone": plots.intervals(_lines(found), main),
    }
    for kind, name in (("modalities", "modality"), ("members", "member")):
        if values[kind]:
            ordered = dict(sorted(values[kind].items(), key=lambda item: -item[1]))
            is_value = found.get("kind") == "regression"
            what = (
                f"how far a {name} moves the value"
                if is_value
                else f"what a {name} adds to the answer"
            )
            pictures[f"{name}_adds"] = plots.bars(ordered, what)
            grids.append(_adds(name, ordered, f"{basis}: {what}", is_size=is_value))
    return Section(
        title="What answers rest on", text=TEXT, pictures=pictures, tables=tuple(grids), basis=basis
    )


def _falling(shuffled: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(shuffled.items(), key=lambda item: -item[1]["value"])


def _combinations(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """From single modalities to all of them."""
    return sorted(found["alone"].items(), key=lambda item: (item[0].count(" + "), item[0]))


def _lines(found: Mapping[str, Any]) -> list[Any]:
    main = found["metric"]
    whole = max(name.count(" + ") for name in found["alone"])
    return [
        (name, "shipped" if name.count(" + ") == whole else "member",
         *(figures[main][key] for key in ("value", "low", "high")))
        for name, figures in _combinations(found)
    ]  # fmt: skip


def _shuffled(found: Mapping[str, Any], main: str, basis: str) -> Grid:
    return Grid(
        name="shuffled",
        caption=f"{basis}: {main} lost where a modality is shuffled, the mean of several times; 95 % "
        "intervals over groups.",
        header=["modality", f"{main} lost"],
        rows=[[name, _cell(lost)] for name, lost in _falling(found["shuffled"])],
    )


def _alone(found: Mapping[str, Any], basis: str) -> Grid:
    names = list(found["whole"])
    return Grid(
        name="alone",
        caption=f"{basis}: with some of the modalities. 95 % intervals over groups.",
        header=["modalities", *map(title, names)],
        rows=[
            [some, *(_cell(figures[name]) for name in names)]
            for some, figures in _combinations(found)
        ],
    )


def _adds(name: str, values: Mapping[str, float], what: str, *, is_size: bool) -> Grid:
    sign, size = "" if is_size else "+", [*values.values()]
    return Grid(
        name=f"{name}_adds",
        caption=f"{what}, the mean over clips.",
        header=[name, "moves" if is_size else "adds"],
        rows=[
            [each, figure_text(value, *size, digits=4, sign=sign)] for each, value in values.items()
        ],
    )


def _cell(figure: Mapping[str, Any]) -> str:
    kind = Difference if "p_value" in figure else Interval
    return str(kind.from_facts(figure))
