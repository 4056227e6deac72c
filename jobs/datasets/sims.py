"""CH-SIMS: Chinese utterances with a sentiment score, -1 to 1, also of each modality by itself.

Reads the folder of MMSA: `label.csv` with `Raw/{video_id}/{clip_id}.mp4`, or, where the folder holds no
such table or the source is a file, a pickle of `Processed` (`unaligned_39.pkl`), whose features
`affuse features import` reads from the same file. Scores of words, voice and
pictures by themselves are the tasks `sentiment_text`, `sentiment_audio` and `sentiment_video`.

Yu et al. 2020, https://doi.org/10.18653/v1/2020.acl-main.343.
"""

from dataclasses import dataclass

from cluster.settings import Place
from jobs.datasets import mosi
from jobs.preparing.about import About
from jobs.preparing.adapter import Collected, Preparation

ABOUT = About(
    name="sims",
    licence="research use",
    citation="Yu et al. 2020, CH-SIMS: A Chinese Multimodal Sentiment Analysis Dataset with Fine-grained "
    "Annotation of Modality, ACL, https://doi.org/10.18653/v1/2020.acl-main.343",
    download="https://github.com/thuiar/MMSA (SIMS: label.csv, Raw, Processed)",
    layout=(
        "SIMS/",
        "  label.csv",
        "  Raw/{video_id}/{clip_id}.mp4 ...  (films), or",
        "  Processed/unaligned_39.pkl  (features)",
    ),
    looked_for="label.csv or a pickle such as unaligned_39.pkl",
    groups="videos",
    splits="train, valid, test as published",
    command="affuse prepare sims --source SIMS/Processed/unaligned_39.pkl --root data/sims",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """CH-SIMS: 2,281 Chinese utterances with sentiment scores, also of each modality."""

    source: Place
    """Folder or URI with label.csv and films, or a pickle."""

    def collect(self) -> Collected:
        """One clip an utterance; groups and dialogues are videos."""
        return mosi.of_corpus(self.source, "sims", ABOUT)
