"""Small copies of published datasets in their official layouts, with something to learn in them."""

import json
import pickle

import numpy as np
import soundfile
from PIL import Image

from jobs.datasets.corpus.face import EXPRESSIONS, Look, paint, photograph
from jobs.datasets.corpus.film import mux
from tests.jobs.datasets.official_layouts import MELD, VOTES, write_csv

WIDTHS = {"text": 768, "audio": 74, "vision": 35}


def arrays_of(value, steps, widths, draws, *, signal=1.0):
    """Features [clip step width] whose first numbers hold the value."""
    arrays = {}
    for name, width in widths.items():
        noise = draws.standard_normal((len(value), steps, width)).astype(np.float32)
        noise[:, :, :3] += signal * np.asarray(value, np.float32)[:, None, None]
        arrays[name] = noise
    return arrays


def influencers(file, *, parts=("train", "valid", "test"), clips=20, steps=4):
    """`empathy_test_data.pkl`."""
    draws = np.random.default_rng(0)
    content = {}
    for part in parts:
        score = draws.uniform(-3, 3, clips)
        content[part] = arrays_of(score, steps, WIDTHS, draws) | {
            "labels": score, "info": [{"video": k} for k in range(clips)],
        }  # fmt: skip
    file.write_bytes(pickle.dumps(content))
    return file


def mmsa(folder, *, kinds=("aligned_50",), bound=3.0, clips=18):
    """`Processed/*.pkl`: videos of three clips each; the features of each kind have lengths of their own."""
    draws = np.random.default_rng(1)
    parts = {"train": clips, "valid": clips, "test": clips}
    value = {part: draws.uniform(-bound, bound, count) for part, count in parts.items()}
    for kind in kinds:
        content = {}
        for part, count in parts.items():
            widths = {"text": 12, "audio": 5, "vision": 6}
            content[part] = arrays_of(value[part] / bound, 5, widths, draws, signal=2.0) | {
                "id": [f"{part}{k // 3}$_${k % 3}" for k in range(count)],
                "raw_text": np.array(["so"] * count),
                "regression_labels": value[part],
            }
        path = folder / "Processed" / f"{kind}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(content))
    return folder


def votes(folder, counts):
    """`final_result.csv`: counts of (label, text, audio, image) -> cuts, dealt out over films of ten cuts."""
    rows = []
    for (label, text, audio, image), count in counts.items():
        for _ in range(count):
            k = len(rows)
            name = f"film{k // 10}_{k}.0-{k}.5_{label}.mp4"
            rows.append([name, label, "said", text, audio, image])
    write_csv(folder / "final_result.csv", VOTES, rows)
    return folder


WORDS = {
    "anger": "I hate this, go away!", "joy": "This is wonderful, I love it!",
    "neutral": "The bus leaves at ten.", "sadness": "I miss her so much.",
}  # fmt: skip
SENTIMENT = {"anger": "negative", "joy": "positive", "neutral": "neutral", "sadness": "negative"}


FILMS = ("train_splits", "dev_splits_complete", "output_repeated_splits_test")


def meld_films(folder):
    """MELD with a film a line."""
    draws = np.random.default_rng(3)
    for below in FILMS:
        for dialogue in range(2):
            for turn in range(4):
                mood = ("angry", "happy")[turn % 2]
                cut(folder / below / f"dia{dialogue}_utt{turn}.mp4", mood, 300, draws)
    return meld(folder, dialogues=2)


def meld(folder, *, dialogues=4):
    """`{train,dev,test}_sent_emo.csv`: dialogues of four lines, one an emotion, without films."""
    header = MELD.split(",")
    for part in ("train", "dev", "test"):
        rows = []
        for dialogue in range(dialogues):
            for turn, (emotion, text) in enumerate(WORDS.items()):
                who = ("Ross", "Rachel")[turn % 2]
                said = [len(rows) + 1, text, who, emotion, SENTIMENT[emotion]]
                rows.append([*said, dialogue, turn, 1, 1, "00:00:01,000", "00:00:02,000"])
        write_csv(folder / f"{part}_sent_emo.csv", header, rows)
    return folder


def tone(path, pitch, seconds=0.6):
    """A sound whose pitch tells its class."""
    time = np.arange(int(16000 * seconds)) / 16000
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, (0.3 * np.sin(2 * np.pi * pitch * time)).astype(np.float32), 16000)


def portrait(mood, draws):
    """Pixels of a face [height width 3]: bright-walled and happy, or dark and angry."""
    look = Look(wall=(0.6, 0.6, 0.6) if mood == "happy" else (0.2, 0.2, 0.25))
    dx, dy = draws.uniform(-4, 4, 2)
    return photograph(paint(look, EXPRESSIONS[mood]), dx=dx, dy=dy, light=1.0, rng=draws)


def cut(path, mood, pitch, draws, *, seconds=0.6):
    """A film of a face with a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(16000 * seconds)) / 16000
    sound = (9000 * np.sin(2 * np.pi * pitch * time)).astype(np.int16)
    mux([portrait(mood, draws)] * 6, sound, 16000, str(path))


def unpaired(folder, *, items=15, cuts=10):
    """Pictures, songs and texts with a table each, and cuts of films with `final_result.csv`."""
    draws = np.random.default_rng(2)
    pictures, songs, texts = [], [], []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for k in range(items):
        label = k % 2
        Image.fromarray(portrait(("angry", "happy")[label], draws)).save(
            folder / f"images/i {k}.jpg"
        )
        pictures.append([f"C:\\posters\\i {k}.jpg", 0.7, ("negative", "positive")[label]])
        tone(folder / "music" / f"song{k // 2}_{k}.wav", (200, 900)[k // 2 % 2])
        songs.append([f"song{k // 2}", f"/content/music/song{k // 2}_{k}.wav", k // 2 % 2])
        texts.append([f"{WORDS[('anger', 'joy')[label]]} {k}", float(label)])
    write_csv(folder / "image_new.csv", ["image", "temp", "label"], pictures)
    write_csv(folder / "final_v2_dataframe.csv", ["track_name", "file_path", "sentiment"], songs)
    write_csv(folder / "text.csv", ["text", "label"], [*texts, texts[0]])
    rows = []
    for k in range(cuts):
        label = k % 2
        name = f"film{k // 2}_{k}.0-{k}.5_{label}.mp4"
        cut(folder / "cuts" / name, ("angry", "happy")[label], (200, 900)[label], draws)
        rows.append([name, label, WORDS[("anger", "joy")[label]], label, label, label])
    write_csv(folder / "final_result.csv", VOTES, rows)
    return folder


def iemocap(folder, *, sessions=3):
    """Labels, words and sounds of turns; each session has every class twice."""
    codes = {"ang": WORDS["anger"], "exc": WORDS["joy"], "neu": WORDS["neutral"]}
    codes |= {"sad": WORDS["sadness"], "fru": "This never works."}
    for session in range(1, sessions + 1):
        dialogue = f"Ses0{session}F_impro01"
        base = folder / f"Session{session}"
        labels, words = ["% header"], []
        for k, code in enumerate([*codes, *codes]):
            turn = f"{dialogue}_{'FM'[k % 2]}00{k}"
            labels.append(f"[{k}.5000 - {k}.9000]\t{turn}\t{code}\t[4.0000, 3.5000, 2.5000]")
            words.append(f"{turn} [{k:03d}.5000-{k:03d}.9000]: {codes[code]}")
            tone(base / "sentences" / "wav" / dialogue / f"{turn}.wav", 200 + 150 * (k % 5))
        for kind, lines in (("EmoEvaluation", labels), ("transcriptions", words)):
            path = base / "dialog" / kind / f"{dialogue}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")
    return folder


def avamerg(folder, *, conversations=10):
    """`train.json`, `valid.json`, `test.json`, and sounds of the utterances."""
    words = {"joyful": WORDS["joy"], "furious": WORDS["anger"], "lonely": WORDS["sadness"]}
    person = {"age": "young", "gender": "male", "timbre": "mid", "ID": 7}
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for part in ("train", "valid", "test"):
        talks = []
        for _ in range(conversations):
            word = list(words)[number % 3]
            said = [
                {"index": 0, "role": "speaker", "utterance": words[word]},
                {"index": 1, "role": "listener", "utterance": "Tell me more."},
                {"index": 2, "role": "speaker", "utterance": words[word]},
            ]
            turn = {"turn_id": "1", "dialogue_history": said, "response": "I see."}
            turn |= {"chain_of_empathy": {"speaker_emotion": word}}
            talks.append(
                {
                    "conversation_id": f"{number:05d}",
                    "turns": [turn],
                    "speaker_profile": person,
                    "listener_profile": {**person, "ID": 9},
                }
            )
            for index in range(3):
                tone(
                    folder / "audio" / f"dia{number:05d}utt{index}_7.wav", 200 + 200 * (number % 3)
                )
            number += 1
        (folder / f"{part}.json").write_text(json.dumps(talks))
    return folder
