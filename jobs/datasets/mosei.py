"""CMU-MOSEI: utterances of opinion videos with a sentiment score, -3 to 3.

Reads the folder of MMSA: `label.csv` with `Raw/{video_id}/{clip_id}.mp4`, or, where the folder holds no
such table or the source is a file, a pickle of `Processed` (`aligned_50.pkl`), whose features
`affuse features import` reads from the same file.

Zadeh et al. 2018, https://doi.org/10.18653/v1/P18-1208.
"""

from dataclasses import dataclass

from cluster.settings import Place
from jobs.datasets import mosi
from jobs.preparing.about import About
from jobs.preparing.adapter import Collected, Preparation

ABOUT = About(
    name="mosei",
    licence="research use",
    citation="Zadeh et al. 2018, Multimodal Language Analysis in the Wild: CMU-MOSEI Dataset and "
    "Interpretable Dynamic Fusion Graph, ACL, https://doi.org/10.18653/v1/P18-1208",
    download="https://github.com/thuiar/MMSA (MOSEI: label.csv, Raw, Processed)",
    layout=(
        "MOSEI/",
        "  label.csv",
        "  Raw/{video_id}/{clip_id}.mp4 ...  (films), or",
        "  Processed/aligned_50.pkl  (features)",
    ),
    looked_for="label.csv or a pickle such as aligned_50.pkl",
    groups="videos",
    splits="train, valid, test as published",
    command="affuse prepare mosei --source MOSEI/Processed/aligned_50.pkl --root data/mosei",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """CMU-MOSEI: about 23,000 utterances with sentiment scores."""

    source: Place
    """Folder or URI with label.csv and films, or a pickle."""

    def collect(self) -> Collected:
        """One clip an utterance; groups and dialogues are videos."""
        return mosi.of_corpus(self.source, "mosei", ABOUT)
