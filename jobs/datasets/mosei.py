"""CMU-MOSEI: utterances of opinion videos with a sentiment score, -3 to 3, and six emotions.

Reads the folder of MMSA: `label.csv` with `Raw/{video_id}/{clip_id}.mp4`; or, where the folder holds no such
table, the sequences of the CMU SDK: `CMU_MOSEI_Labels.csd` (which alone has the emotions; one is there where
its strength is above 0), `CMU_MOSEI_TimestampedWords.csd`, the SDK's `cmu_mosei_std_folds.py` and films
`{video_id}.mp4`; or a pickle of `Processed` (`aligned_50.pkl`), whose features `affuse features import` reads
from the same file.

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
    download="https://github.com/thuiar/MMSA (MOSEI: label.csv, Raw, Processed), or the CMU SDK "
    "https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK (.csd)",
    layout=(
        "MOSEI/",
        "  label.csv",
        "  Raw/{video_id}/{clip_id}.mp4 ...  (films), or",
        "  CMU_MOSEI_Labels.csd  CMU_MOSEI_TimestampedWords.csd  cmu_mosei_std_folds.py",
        "  {video_id}.mp4 ...  (emotions too; films), or",
        "  Processed/aligned_50.pkl  (features)",
    ),
    looked_for="label.csv, CMU_MOSEI_Labels.csd or a pickle such as aligned_50.pkl",
    groups="videos",
    splits="train, valid, test as published",
    command="affuse prepare mosei --source MOSEI/Processed/aligned_50.pkl --root data/mosei",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """CMU-MOSEI: about 23,000 utterances with sentiment scores and emotions."""

    source: Place
    """Folder or URI with label.csv or the SDK's .csd, and films; or a pickle."""

    def collect(self) -> Collected:
        """One clip an utterance; groups and dialogues are videos."""
        return mosi.of_corpus(self.source, "mosei", ABOUT)
