"""AvaMERG: conversations of avatars with an empathic listener, 7 emotions.

Reads one JSON list of conversations a split (`train.json`, `valid.json`, `test.json`; any other name: no
split) and media `dia{conversation}utt{index}_{profile ID}.mp4` or `.wav` anywhere below the source. The last
turn of a conversation holds its whole history; the listener's reply is added as one more utterance. The
emotion is the speaker's, named once a turn: the speaker's utterances carry it, the listener's do not.

The 32 emotions of EmpatheticDialogues are brought down to 7; `--aliases worried=anxious` maps further words.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from cluster import storage
from cluster.errors import LabelTableError
from cluster.settings import Place
from encoders.media import Source
from fusion.tasks import Task
from jobs.preparing.about import About
from jobs.preparing.adapter import (
    AUDIO_SUFFIXES,
    Collected,
    Preparation,
    Row,
    decoded,
    files_below,
    is_media,
)

FAMILIES = {
    "happy": "excited proud grateful hopeful confident anticipating joyful prepared content caring "
    "trusting faithful happy",
    "surprised": "surprised impressed devastated",
    "angry": "angry annoyed furious",
    "fear": "afraid terrified apprehensive fear",
    "sad": "sad lonely guilty anxious nostalgic embarrassed sentimental ashamed disappointed",
    "disgusted": "disgusted",
    "contempt": "jealous contempt",
}
CLASSES = tuple(FAMILIES)
CLASS_OF = {word: name for name, words in FAMILIES.items() for word in words.split()}
SPLIT_OF = {"train": "train", "valid": "valid", "val": "valid", "dev": "valid", "test": "test"}
FILE = re.compile(r"dia0*(\d+)utt(\d+)(?:_\d+)?")
PROFILE = ("age", "gender", "timbre")

Key = tuple[int, int]
"""Conversation and utterance."""

ABOUT = About(
    name="avamerg",
    licence="research use",
    citation="Zhang et al. 2025, Towards Multimodal Empathetic Response Generation: A Rich Text-Speech-"
    "Vision Avatar-based Benchmark, WWW, https://arxiv.org/abs/2502.04976",
    download="https://avamerg.github.io, by the terms of its authors",
    layout=(
        "AvaMERG/",
        "  train.json  valid.json  test.json",
        "  video/dia00000utt0_12.mp4 ...  audio/dia00000utt0_12.wav ...  (optional)",
    ),
    looked_for="a JSON list of conversations such as train.json",
    groups="conversations",
    splits="by the names of the JSON files",
    command="affuse prepare avamerg --source AvaMERG --root data/avamerg",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """AvaMERG: conversations with an empathic listener, 7 emotions, speaker profiles."""

    source: Place
    """Folder or URI with the JSON lists and, below it, the media."""

    aliases: Mapping[str, str] = field(default_factory=dict)
    """Further emotion words, each with the known word that it stands for: `worried=anxious`."""

    def collect(self) -> Collected:
        """One clip an utterance; groups and dialogues are conversations."""
        files = files_below(self.source)
        found: dict[Key, dict[str, str]] = defaultdict(dict)
        for uri in files:
            match = FILE.fullmatch(PurePosixPath(uri).stem)
            if match is not None and is_media(uri):
                sound = PurePosixPath(uri).suffix.lower() in AUDIO_SUFFIXES
                found[int(match[1]), int(match[2])]["audio" if sound else "video"] = uri
        rows: list[Row] = []
        faults: list[str] = []
        for uri in (uri for uri in files if uri.endswith(".json")):
            for number, conversation in enumerate(_conversations(uri), 1):
                try:
                    rows += self._rows(conversation, PurePosixPath(uri).stem, found)
                except (KeyError, IndexError, TypeError, ValueError) as error:
                    faults.append(f"{uri}, conversation {number}: {error!r}")
        if not rows and not faults:
            raise ABOUT.absent(self.source)
        return Collected(
            name="avamerg",
            licence=ABOUT.licence,
            tasks={"emotion": Task(kind="classification", classes=CLASSES)},
            rows=rows,
            faults=faults,
        )

    def _rows(
        self, conversation: Mapping[str, Any], stem: str, found: Mapping[Key, Mapping[str, str]]
    ) -> list[Row]:
        number = int(conversation["conversation_id"])
        turn = conversation["turns"][-1]
        word = str(turn["chain_of_empathy"]["speaker_emotion"]).strip().lower()
        emotion = CLASS_OF.get(self.aliases.get(word, word), word)
        said = [
            (int(item["index"]), str(item["role"]), str(item["utterance"]))
            for item in turn["dialogue_history"]
        ]
        if turn.get("response"):
            said.append((said[-1][0] + 1, "listener", str(turn["response"])))
        rows = []
        for index, role, text in said:
            speaks = role.startswith("speaker")
            person = conversation["speaker_profile" if speaks else "listener_profile"]
            files = found.get((number, index), {})
            film, sound = files.get("video"), files.get("audio") or files.get("video")
            rows.append(
                Row(
                    name=f"dia{number:05d}utt{index}",
                    video=None if film is None else Source(film),
                    audio=None if sound is None else Source(sound),
                    text=text.strip() or None,
                    dialogue=f"dia{number:05d}",
                    turn=index,
                    speaker=f"avatar-{person['ID']}",
                    group=f"dia{number:05d}",
                    split=SPLIT_OF.get(stem.lower()),
                    labels={"emotion": emotion if speaks else None},
                    profile={name: str(person[name]) for name in PROFILE},
                )
            )
        return rows


def _conversations(uri: str) -> list[Mapping[str, Any]]:
    try:
        value = json.loads(decoded(storage.read_bytes(uri)))
    except json.JSONDecodeError as error:
        raise LabelTableError(f"{uri}: not JSON: {error}") from error
    return value if isinstance(value, list) else []
