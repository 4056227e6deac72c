"""Voting of three classifiers of film cuts, from the table of their answers: all of them, pairs, each alone.

The published verdict is positive only where all voters say so.
"""

from collections.abc import Sequence

from jobs.catalog import layout
from jobs.datasets import video_sentiment
from jobs.reproducing.preset import Fused, Model, Preset, ReproduceConfig, Step

PUBLISHED = {
    "image+text+audio": (0.81, 0.81),
    "image+text": (0.92, 0.92),
    "image+audio": (0.85, 0.85),
    "text+audio": (0.72, 0.72),
    "image": (0.97, 0.97),
    "text": (0.72, 0.68),
    "audio": (0.76, 0.76),
}
"""Voters -> accuracy and macro F1."""

METRICS = ("accuracy", "macro_f1")
NOTES = {
    "text+audio": "its own table of confusion gives a macro F1 of 0.714",
    "audio": "published on 814 of the 1,182 cuts, from an earlier state of the notebook",
}

WHY_VOTES_LOSE = (
    "A unanimous vote is worse than its best voter (0.81 against 0.97): each weak voter that is added "
    "can only take positives away.",
    "Its classifiers were split by sample: stills of one film, and cuts of one track of music, stand on "
    "both sides of their splits.",
    "The threshold that was chosen on validation (0.60) was not applied on test.",
)
"""Of this table and of the one whose voters are trained anew."""


def steps(config: ReproduceConfig) -> Sequence[Step]:
    """The cuts and labels of the table, and a file of answers a classifier."""
    prepared = video_sentiment.Config(
        root=config.root, source=config.data, predictions=_votes(config)
    )
    return [Step(command="prepare video_sentiment", config=prepared)]


def models(config: ReproduceConfig) -> Sequence[Model]:
    """Every set of voters that the notebook judges."""
    return [
        voting(
            name,
            [f"{_votes(config)}/{voter}.csv" for voter in name.split("+")],
            NOTES.get(name, ""),
        )
        for name in PUBLISHED
    ]


def voting(name: str, files: Sequence[str], note: str = "") -> Model:
    """A line of the table: the vote of the notebook, and the default fusion of the same voters."""
    return Model(
        name=name,
        published=dict(zip(METRICS, PUBLISHED[name], strict=True)),
        reproduced=Fused(imported=tuple(files), rule="vote", rule_options={"mode": "unanimous"}),
        clean=Fused(imported=tuple(files)) if len(files) > 1 else None,
        note=note,
    )


def _votes(config: ReproduceConfig) -> str:
    return layout.reproduce_uri(config.root, "votes")


PRESET = Preset(
    title="Video sentiment: voting of three classifiers",
    source="https://github.com/ystan98/multimodal_vsa",
    dataset="video_sentiment",
    data="the folder that holds final_result.csv; the cuts themselves are not needed",
    task="sentiment",
    metrics=METRICS,
    why=(
        *WHY_VOTES_LOSE,
        "An absent voter (a cut without speech) does not vote here; in the published table each cut has an "
        "answer of each.",
    ),
    columns={
        "reproduced": "the vote of the notebook: positive where every voter says positive.",
        "clean": "the default fusion of `affuse ensemble`, cross-fitted over films.",
    },
    steps=steps,
    models=models,
)
