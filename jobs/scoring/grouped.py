"""Scores of clips gathered by dialogue, speaker or file, in a database on local disk: one row a group.

The clips' calibrated probabilities are averaged (`mean`), or their logarithms are and the result is scaled to
sum to 1 (`log`, which a sure clip moves more); values are averaged. The decision of the bundle makes the
label. A group's interval is that of an average over its clips: estimate -+ t * s / sqrt(n), where s is the
spread of what each clip adds (for `log` to first order) and t has n - 1 degrees of freedom. It takes clips
for independent, as those of one conversation are not quite.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from cluster.tables import Table
from fusion.tasks import Kind
from jobs.preparing.workplace import BATCH_ROWS, Workplace, quoted, workplace
from jobs.scoring.bundle import Bundle, modalities_of

Per = Literal["dialogue", "speaker", "file"]
Pooling = Literal["mean", "log"]

GROUP_OF = {
    "dialogue": "dialogue",
    "speaker": "speaker",
    # A member of a shard is a file too.
    "file": (
        "coalesce(video.uri || coalesce('@' || cast(video.offset as varchar), ''), "
        "audio.uri || coalesce('@' || cast(audio.offset as varchar), ''))"
    ),
}
"""What groups clips -> its expression over columns of the manifest."""

COLUMNS = ("clip_id", "dialogue", "speaker", "video", "audio")
"""Of the manifest, that the expressions read."""

SCORED = ("clip_id", "task", "bundle", "probabilities", "value", "modalities", "status")
"""Columns of SCORES that are read."""

LEAST = 1e-9
"""Probabilities are not taken for smaller: a single impossible clip would decide for all."""

GROUP_SCORES = Table(
    name="GROUP_SCORES",
    version=1,
    key=("per", "group", "task", "bundle"),
    schema=pa.schema(
        [
            # dialogue, speaker or file: what a row is of.
            ("per", pa.string()),
            ("group", pa.string()),
            ("task", pa.string()),
            ("bundle", pa.string()),
            ("clips", pa.int64()),
            ("answered", pa.int64()),
            ("failed", pa.int64()),
            # Answered without a modality that the bundle reads, or with a part of it.
            ("partial", pa.int64()),
            ("label", pa.list_(pa.string())),
            ("confidence", pa.float64()),
            ("probabilities", pa.map_(pa.string(), pa.float64())),
            ("low_probabilities", pa.map_(pa.string(), pa.float64())),
            ("high_probabilities", pa.map_(pa.string(), pa.float64())),
            ("value", pa.float64()),
            ("low", pa.float64()),
            ("high", pa.float64()),
        ]
    ),
)


@dataclass(frozen=True, kw_only=True)
class AnswerKind:
    """What a bundle answers with, and how its scores become labels."""

    kind: Kind
    classes: tuple[str, ...] = ()
    offsets: tuple[float, ...] = ()
    """Added to log p before the largest is taken; of labels, their thresholds."""

    modalities: int = 1
    """How many the bundle reads: an answer from fewer is partial."""


def answers_of(bundle: Bundle, root: str = "") -> AnswerKind:
    """What a bundle answers with; arguments as of `modalities_of`."""
    from fusion.late.calibration import Decision
    from jobs.scoring.member_nets import Fusion
    from jobs.scoring.scorer import untrained_task

    if not bundle.facts:
        _, task = untrained_task()
        offsets = Decision.plain(task.kind, task.outputs).offsets
    else:
        fusion = Fusion.from_facts(bundle.facts)
        task, offsets = fusion.kind, fusion.decision.offsets
    read = {*modalities_of(bundle, root).values()}
    kind, classes = task.kind, tuple(task.classes or ())
    return AnswerKind(kind=kind, classes=classes, offsets=offsets, modalities=len(read))


def grouped(
    clips: Iterable[pa.Table],
    scores: Iterable[pa.Table],
    per: Per,
    answers: AnswerKind,
    pooling: Pooling = "mean",
) -> Iterator[pa.Table]:
    """GROUP_SCORES, some groups at a time, in order of their names.

    Args:
        clips: columns of the manifest, in parts; one that names no such group is left out.
        scores: rows of SCORES of one task and bundle, in parts.
        per: what a row is of.
        answers: of the bundle.
        pooling: how probabilities are averaged.
    """
    with workplace() as place:
        for part in clips:
            place.add("clips", part.select(COLUMNS))
        for part in scores:
            place.add("scores", part.select(SCORED))
        _count(place, per, answers)
        _pool(place, answers.kind, pooling if answers.kind != "regression" else "mean")
        _bound(place, answers.kind)
        _decide(place, answers)
        for rows in place.stream(_result(per, answers.kind), rows=BATCH_ROWS):
            yield GROUP_SCORES.conform(rows)


def _count(place: Workplace, per: Per, answers: AnswerKind) -> None:
    """Make `member`, a row a clip with its group, and `counted`, a row a group."""
    place.run(
        f"""
        create table member as
        select scores.*, {GROUP_OF[per]} as "group",
            value is not null or probabilities is not null as answered
        from scores join clips using (clip_id) where ({GROUP_OF[per]}) is not null
        """
    )
    place.run(
        f"""
        create table counted as
        select "group", any_value(task) as task, any_value(bundle) as bundle, count(*) as clips,
            count(*) filter (answered) as answered, count(*) filter (status = 'failed') as failed,
            count(*) filter (answered and (status = 'partial' or len(modalities) < {answers.modalities}))
                as partial
        from member group by "group"
        """
    )
    names = pa.array(answers.classes or ("",), pa.string())
    offsets = pa.array(answers.offsets or (0.0,), pa.float64())
    table = {"class": names, "place": pa.array(range(len(names))), "cut": offsets}
    place.add("classes", pa.table(table))


def _pool(place: Workplace, kind: Kind, pooling: Pooling) -> None:
    """Make `said`, a row a clip and class, and `pooled`, a row a group and class."""
    p = "entry.value"
    scale = {
        "mean": p,
        "log": f"ln(greatest({p}, {LEAST}))"
        + (f" - ln(greatest(1 - {p}, {LEAST}))" if kind == "multilabel" else ""),
    }
    entries = (
        "[struct_pack(key := '', value := value)]"
        if kind == "regression"
        else "map_entries(probabilities)"
    )
    place.run(
        f"""
        create table said as select clip_id, "group", entry.key as class, {scale[pooling]} as x from (
            select clip_id, "group", unnest({entries}) as entry from member where answered)
        """
    )
    q, adds = "m", "x"
    if pooling == "log" and kind == "multilabel":
        q, adds = "1 / (1 + exp(-m))", "q * (1 - q) * x"
    elif pooling == "log":
        q = 'exp(m) / sum(exp(m)) over (partition by "group")'
        adds = "q * (x - sum(q * x) over (partition by clip_id))"
    place.run(
        f"""
        create table pooled as select *, {q} as q from (
            select "group", class, count(*) as n, avg(x) as m from said group by "group", class)
        """
    )
    # What each clip adds to the pooled figure; exactly, or to first order.
    place.run(
        f"""
        create table spread as select "group", class, stddev_samp(a) as s from (
            select "group", class, {adds} as a from said join pooled using ("group", class)
        ) group by "group", class
        """
    )


def _bound(place: Workplace, kind: Kind) -> None:
    """Make `figures`: what was pooled, with the ends of its interval; null for a single clip."""
    from scipy.special import (
        stdtrit,
    )  # for --per alone; importing scipy takes longer than small jobs

    counts = [n for (n,) in place.run("select distinct n from pooled where n > 1")]
    reach = stdtrit([n - 1 for n in counts], 0.975)
    table = {"n": pa.array(counts, pa.int64()), "t": pa.array(reach, pa.float64())}
    place.add("quantile", pa.table(table))
    within = "{}" if kind == "regression" else "greatest(0.0, least(1.0, {}))"
    low, high = (within.format(f"q {sign} t * s / sqrt(n)") for sign in "-+")
    place.run(
        f"""
        create table figures as select "group", class, place, cut, q,
            case when t is not null then {low} end as low,
            case when t is not null then {high} end as high
        from pooled join spread using ("group", class) join classes using (class)
            left join quantile using (n)
        """
    )


def _decide(place: Workplace, answers: AnswerKind) -> None:
    """Make `verdict`, a row a group: its figures in the order of the classes, and its label."""
    chosen = {
        "classification": f"[arg_max(class, ln(greatest(q, {LEAST})) + cut)]",
        "multilabel": "coalesce(list(class order by place) filter (q >= cut), [])",
        "regression": "cast(null as varchar[])",
    }
    sure = {
        "classification": f"arg_max(q, ln(greatest(q, {LEAST})) + cut)",
        "multilabel": "min(case when q >= cut then q else 1 - q end)",
        "regression": "cast(null as double)",
    }
    columns = ", ".join(
        f"list(struct_pack(key := class, value := {name}) order by place) as {name}"
        for name in ("q", "low", "high")
    )
    place.run(
        f"""
        create table verdict as
        select "group", {chosen[answers.kind]} as label, {sure[answers.kind]} as confidence, {columns}
        from figures group by "group"
        """
    )


def _result(per: Per, kind: Kind) -> str:
    """The query of the rows."""
    maps = ("probabilities", "low_probabilities", "high_probabilities")
    numbers = ("value", "low", "high")
    figures = ("q", "low", "high")
    shown = ", ".join(
        (
            f"null as {as_map}, v.{name}[1].value as {as_number}"
            if kind == "regression"
            else f"map_from_entries(v.{name}) as {as_map}, null as {as_number}"
        )
        for as_map, as_number, name in zip(maps, numbers, figures, strict=True)
    )
    return f"""
        select {quoted(per)} as per, "group", task, bundle, clips, answered, failed, partial,
            label, confidence, {shown}
        from counted left join verdict v using ("group") order by "group"
        """
