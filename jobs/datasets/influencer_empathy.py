"""Influencer empathy: videos of influencers as features of words, voice and face, with a score of empathy.

Reads the pickle `empathy_test_data.pkl`: by split, or without that level, `text` [clip, step, 768], `audio`
[clip, step, 74], `vision` [clip, step, 35] (624 steps, aligned), `labels` and `info`. The file names
no clips: they are called by split and place, by which `affuse features import` joins the same file's arrays.

    affuse prepare influencer_empathy --source empathy_test_data.pkl --root R
    affuse features import --root R --file empathy_test_data.pkl --array text --name bert --modality text
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.errors import LabelTableError
from cluster.settings import Place
from jobs.datasets import mmsa
from jobs.interop.arrays import open_arrays
from jobs.preparing.about import About
from jobs.preparing.adapter import Collected, Preparation

PICKLE = "empathy_test_data.pkl"
WIDTHS = {"text": 768, "audio": 74, "vision": 35}
"""Array -> numbers a step: BERT, COVAREP, OpenFace."""

ABOUT = About(
    name="influencer_empathy",
    licence="research use, by the authors' leave",
    citation="Multimodal Influencer Empathy, "
    "https://github.com/multimodal-influencer-empathy/Multimodal-Influencer-empathy",
    download="the link in that repository's README",
    layout=(f"{PICKLE}: {{test}} of text, audio, vision, labels, info",),
    looked_for=f"a pickle such as {PICKLE}",
    groups="the clip: the file does not say who speaks",
    splits="the levels train, valid, test of the file",
    command=f"affuse prepare influencer_empathy --source {PICKLE} --root data/influencers",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """Influencer empathy: features of 624 steps, 768 / 74 / 35 wide, with a score of empathy."""

    source: Place
    """File of the pickle, or a folder that holds one; only arrays and plain containers are read from it."""

    def collect(self) -> Collected:
        """One clip a row of each split.

        Raises:
            LabelTableError: an array of features of another width.
        """
        file = mmsa.pickle_of(self.source, ABOUT)
        family = mmsa.Config(
            root="", source=file, task="empathy", dataset_name=ABOUT.name, licence=ABOUT.licence
        )
        with open_arrays(file) as content:
            collected = family.read(content, file)
            wrong = _wrong_shapes(content)
        if wrong:
            raise LabelTableError(f"{file}: {'; '.join(wrong)}")
        return collected


def _wrong_shapes(content: Mapping[str, Any]) -> list[str]:
    wrong = []
    for path in content:
        width = WIDTHS.get(path.rpartition("/")[2])
        shape = mmsa.shape_of(content, path) if width is not None else ()
        if width is not None and (len(shape) != 3 or shape[2] != width):
            wrong.append(f"{path!r} is of shape {list(shape)}, expected [clip, step, {width}]")
    return wrong
