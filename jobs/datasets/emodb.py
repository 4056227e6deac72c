"""EmoDB: acted German speech of ten people in 7 emotions, by the codes of its file names.

A name is speaker, sentence, emotion and version, such as `03a01Fa.wav`; the emotion's letter is that of its
German word. Any layout below the source will do (`wav/*.wav`, one flat folder).

Burkhardt et al. 2005, https://doi.org/10.21437/Interspeech.2005-446.
"""

import re
from dataclasses import dataclass

from cluster.settings import Place
from encoders.media import Source
from fusion.tasks import Task
from jobs.preparing.about import About
from jobs.preparing.adapter import Collected, Preparation, Row, files_below
from jobs.preparing.named_takes import named_takes

EMOTIONS = {
    "W": "angry",
    "L": "bored",
    "E": "disgust",
    "A": "fearful",
    "F": "happy",
    "N": "neutral",
    "T": "sad",
}
"""Letters of Wut, Langeweile, Ekel, Angst, Freude, neutral, Trauer."""
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
SPEAKERS = {
    "03": "male", "08": "female", "09": "female", "10": "male", "11": "male",
    "12": "male", "13": "female", "14": "female", "15": "male", "16": "female",
}  # fmt: skip
TAKE = re.compile(rf"({'|'.join(SPEAKERS)})({'|'.join(SENTENCES)})([{''.join(EMOTIONS)}])[a-z]")
SHAPE = re.compile(rf"({'|'.join(SPEAKERS)})({'|'.join(SENTENCES)})[A-Z][a-z]")

ABOUT = About(
    name="emodb",
    licence="free for research, by the authors' leave; cite the paper",
    citation="Burkhardt et al. 2005, A Database of German Emotional Speech, Interspeech, "
    "https://doi.org/10.21437/Interspeech.2005-446",
    download="http://emodb.bilderbar.info (download.zip)",
    layout=("emodb/", "  wav/03a01Fa.wav", "  ..."),
    looked_for="files named such as 03a01Fa.wav",
    groups="speakers",
    splits="folds speaker: one speaker left out, ten folds",
    command="affuse prepare emodb --source emodb --root data/emodb",
)


@dataclass(frozen=True, kw_only=True)
class Config(Preparation):
    """EmoDB: 535 clips of acted German speech, 7 emotions, 10 speakers."""

    source: Place
    """Folder or URI that holds the files, at any depth."""

    def collect(self) -> Collected:
        """One clip a file, sorted by speaker."""
        named = named_takes(files_below(self.source), TAKE, SHAPE)
        rows = [
            _row(name, uri, *take.groups())
            for (name, kind), uri in named.files.items()
            if kind == "audio" and (take := TAKE.fullmatch(name))
        ]
        if not rows:
            raise ABOUT.absent(self.source)
        rows.sort(key=lambda row: row.name)
        fold_of = {speaker: fold for fold, speaker in enumerate(SPEAKERS)}
        return Collected(
            name="emodb",
            licence=ABOUT.licence,
            tasks={"emotion": Task(kind="classification", classes=tuple(EMOTIONS.values()))},
            rows=rows,
            faults=named.faults,
            notes=named.notes,
            folds={"speaker": {row.name: fold_of[row.name[:2]] for row in rows}},
        )


def _row(name: str, uri: str, speaker: str, sentence: str, letter: str) -> Row:
    return Row(
        name=name,
        audio=Source(uri),
        text=SENTENCES[sentence],
        speaker=f"speaker-{speaker}",
        labels={"emotion": EMOTIONS[letter]},
        profile={"gender": SPEAKERS[speaker]},
    )
