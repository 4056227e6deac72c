"""Published tables as presets: each names the data, the nets and their settings; the jobs do the work."""

import importlib

from cluster.errors import ConfigError
from cluster.settings import nearest
from jobs.reproducing.preset import Preset

PRESETS: dict[str, str] = {
    "empathetic_detection": "empathetic_detection:PRESET",
    "influencer_empathy": "influencer_empathy:PRESET",
    "m2fnet_meld": "m2fnet:MELD",
    "m2fnet_meld_glued": "m2fnet:GLUED",
    "mmsa_mosei": "mmsa:MOSEI",
    "mmsa_mosi": "mmsa:MOSI",
    "mmsa_sims": "mmsa:SIMS",
    "vggish_bert": "vggish_bert:PRESET",
    "video_sentiment": "video_sentiment:PRESET",
    "video_sentiment_unpaired": "unpaired:PRESET",
}
"""Name of a preset -> `file:constant` in this folder."""


def preset(name: str) -> Preset:
    """A preset by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PRESETS:
        hint = nearest(name, list(PRESETS))
        raise ConfigError(f"there is no preset {name!r}; {hint}; all of them: --list")
    file, _, constant = PRESETS[name].partition(":")
    found = getattr(importlib.import_module(f"jobs.reproducing.{file}"), constant)
    assert isinstance(found, Preset)
    return found
