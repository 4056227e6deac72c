"""Small copies of the datasets, laid out as they are handed out, with empty media."""

import csv
import io
import json
import pickle
import tarfile

import numpy as np
import pyarrow as pa

MELD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
ESSAYS = [
    "message_id",
    "response_id",
    "article_id",
    "empathy",
    "distress",
    "empathy_bin",
    "distress_bin",
    "essay",
]


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def write_csv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([header, *rows])


def arrays(folder):
    np.savez(folder / "toy.npz", name=["a", "b", "c"], mood=["low", "high", "low"])
    return {"source": str(folder / "toy.npz"), "tasks": {"mood": "classification"}}


def avamerg(folder):
    person = {"age": "young", "gender": "male", "timbre": "mid", "ID": 7}
    said = [{"index": k, "role": r, "utterance": r} for k, r in enumerate(("speaker", "listener"))]
    chain = {"speaker_emotion": "anxious"}
    turn = {"turn_id": "1", "dialogue_history": said, "response": "Oh", "chain_of_empathy": chain}
    talk = {"conversation_id": "00012", "turns": [turn]}
    talk |= {"speaker_profile": person, "listener_profile": {**person, "ID": 9}}
    (folder / "train.json").write_text(json.dumps([talk]))
    touch(folder / "video" / "dia00012utt0_7.mp4")


def cremad(folder):
    for name in ("1001_DFA_ANG_XX", "1001_IEO_HAP_HI", "1002_IEO_SAD_LO"):
        touch(folder / "AudioWAV" / f"{name}.wav")


def emobox_line(name, emo):
    wav = f"downloads/emodb/wav/{name}.wav"
    return {"key": f"emodb-{name}", "dataset": "emodb", "wav": wav, "task": "category", "emo": emo}


def emobox(folder):
    """Two folds by speaker; beside a list, an older form of it under another spelling, as emodb has it."""
    clips = {"03a01Fa": "happy", "03a01Nc": "Neutral", "08a01Wa": "anger"}
    lines = [emobox_line(name, emo) for name, emo in clips.items()]
    parts = [(lines[2:], lines[:2]), (lines[:2], lines[2:])]
    data = folder / "data" / "emodb"
    for k, (train, test) in enumerate(parts, 1):
        fold = data / f"fold_{k}"
        fold.mkdir(parents=True, exist_ok=True)
        for part, of_part in (("train", train), ("test", test)):
            text = "".join(json.dumps(line) + "\n" for line in of_part)
            (fold / f"emodb_{part}_fold_{k}.jsonl").write_text(text)
        (fold / f"emodb_train_fold{k}.jsonl").write_text('{"path": "an older form"}\n')
    words = {"anger": "Angry", "happy": "Happy", "Neutral": "Neutral"}
    (data / "label_map.json").write_text(json.dumps(words))
    for line in lines[:2]:
        touch(folder / line["wav"])
    return {"corpus": "emodb"}


def emodb(folder):
    for name in ("03a01Fa", "08b03Wd", "16b10Eb"):
        touch(folder / "wav" / f"{name}.wav")


def empathic_reactions(folder):
    rows = [
        ["R_1_1", "R_1", "67", "5.667", "4.375", "1", "1", "it is, really, sad"],
        ["R_1_2", "R_1", "86", "4.833", "1.000", "1", "0", "über “alles”"],
        ["R_2_1", "R_2", "67", "1.0", "7.0", "0", "1", "another"],
    ]
    write_csv(folder / "empathic_reactions_messages.csv", ESSAYS, rows)


def folder(folder):
    for name in ("a.wav", "b.mp4", "c.flac"):
        touch(folder / name)


def hub_features(classes=("low", "high")):
    """Features as `datasets` writes them."""
    return {
        "audio": {"sampling_rate": 16000, "_type": "Audio"},
        "mood": {"names": list(classes), "_type": "ClassLabel"},
        "text": {"dtype": "string", "_type": "Value"},
        "speaker": {"dtype": "string", "_type": "Value"},
    }


def hub_table(names, *, features=None, moods=None):
    """Rows of a dataset with sounds inside, described as `datasets` does."""
    sound = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    sounds = [{"bytes": b"RIFF" + name.encode() * 20, "path": f"{name}.wav"} for name in names]
    table = pa.table(
        {
            "audio": pa.array(sounds, sound),
            "mood": pa.array(moods or [k % 2 for k in range(len(names))], pa.int64()),
            "text": [f"said {name}" for name in names],
            "speaker": [f"s{name}" for name in names],
        }
    )
    said = {"info": {"features": features or hub_features()}}
    return table.replace_schema_metadata({"huggingface": json.dumps(said)})


def saved_to_disk(folder, table, split, *, features=None):
    """One split as `Dataset.save_to_disk` writes it: an Arrow stream and two descriptions."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "data-00000-of-00001.arrow"
    with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
        out.write_table(table, max_chunksize=2)
    state = {
        "_data_files": [{"filename": name}],
        "_fingerprint": "0123456789abcdef",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    (folder / "state.json").write_text(json.dumps(state))
    info = {"citation": "", "features": features or hub_features(), "license": ""}
    (folder / "dataset_info.json").write_text(json.dumps(info))


def huggingface(folder):
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    for split, names in (("train", "abc"), ("validation", "d")):
        saved_to_disk(folder / split, hub_table(names), split)


def iemocap(folder):
    label = folder / "Session2" / "dialog" / "EmoEvaluation" / "Ses02F_impro01.txt"
    touch(label)
    lines = [
        f"[{k}.5000 - {k}.9000]\tSes02F_impro01_{turn}\t{code}\t[4.0000, 3.5000, 2.5000]"
        for k, (turn, code) in enumerate((("F000", "exc"), ("M000", "neu"), ("F001", "xxx")))
    ]
    label.write_text("\n".join(["% header", *lines]) + "\n")
    for turn in ("F000", "M000", "F001"):
        name = f"Ses02F_impro01_{turn}.wav"
        touch(folder / "Session2" / "sentences" / "wav" / "Ses02F_impro01" / name)


def meld(folder):
    for part, feeling in (
        ("train", "surprise,positive"),
        ("dev", "joy,positive"),
        ("test", "fear,negative"),
    ):
        line = f'1,“Hi”,Ross,{feeling},0,0,1,1,"00:00:01,000","00:00:02,000"'
        (folder / f"{part}_sent_emo.csv").write_bytes(f"{MELD}\n{line}\n".encode("cp1252"))
    touch(folder / "train_splits" / "dia0_utt0.mp4")


def influencer_empathy(folder):
    shapes = {"text": 768, "audio": 74, "vision": 35}
    part = {name: np.zeros((3, 2, width), np.float32) for name, width in shapes.items()}
    part |= {"labels": np.array([1.5, 2.0, 4.25]), "info": [{"video": k} for k in range(3)]}
    (folder / "empathy_test_data.pkl").write_bytes(pickle.dumps({"test": part}))


def pickled(path, labels=()):
    """A pickle of the MMSA family: three splits of two clips and one."""
    content = {}
    for split, ids in (("train", ["v$_$1", "v$_$2"]), ("valid", ["w$_$1"]), ("test", ["x$_$3"])):
        count = len(ids)
        content[split] = {
            "id": ids,
            "raw_text": np.array([f"said {k}" for k in range(count)]),
            "text": np.zeros((count, 3, 4), np.float32),
            "audio": np.zeros((count, 3, 2), np.float32),
            "vision": np.zeros((count, 3, 2), np.float32),
            "regression_labels": np.linspace(-1, 1, count),
            **{key: np.linspace(1, -1, count) for key in labels},
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


def mmsa(folder):
    pickled(folder / "aligned_50.pkl")
    return {"source": str(folder / "aligned_50.pkl"), "range": [-3, 3]}


def mosei(folder):
    pickled(folder / "Processed" / "aligned_50.pkl")


def sims(folder):
    labels = [f"regression_labels_{letter}" for letter in "TAV"]
    pickled(folder / "Processed" / "unaligned_39.pkl", labels)


def mosi(folder):
    header = ["video_id", "clip_id", "text", "label", "annotation", "mode"]
    rows = [["v", k, "so", k - 1.5, "x", mode] for k, mode in enumerate(("train", "valid", "test"))]
    rows = [[f"{video}{k}", *rest] for k, (video, *rest) in enumerate(rows)]
    write_csv(folder / "label.csv", header, rows)
    touch(folder / "Raw" / "v0" / "0.mp4")


def ravdess(folder):
    for name in ("03-01-03-01-01-01-02", "03-01-05-02-02-01-11", "03-01-08-02-02-01-24"):
        touch(folder / f"Actor_{name[-2:]}" / f"{name}.wav")


VOTES = ["file", "label", "text", "text_pred", "audio_pred", "predicted_mean_pool"]


def video_sentiment(folder):
    rows = [
        ["Conjuring2_91.5-92.0_0.mp4", 0, "No!", 0, 1, 0],
        ["The_Conjuring_73.0-73.5_1_0.mp4", 0, "", 1, "", 0],
        ["pos_hero1801.mp4", 1, "Yes, “yes”", 1, 1, 1],
    ]
    write_csv(folder / "final_result.csv", VOTES, rows)
    for name, *_ in rows[:2]:
        touch(folder / name)


def tarred(path, members):
    """members: {name: bytes, or what becomes JSON}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))


def webdataset(folder):
    for part, keys in (("train", "ab"), ("val", "c")):
        members = {}
        for key in keys:
            members[f"{key}.wav"] = b"RIFF" + key.encode() * 20
            members[f"{key}.json"] = {"mood": "low", "speaker": f"s{key}"}
            members[f"{key}.txt"] = f"said {key}".encode()
        tarred(folder / f"{part}-000000.tar", members)
    return {"tasks": {"mood": "classification"}}


LAYOUTS = {
    "arrays": arrays,
    "avamerg": avamerg,
    "cremad": cremad,
    "emobox": emobox,
    "emodb": emodb,
    "empathic_reactions": empathic_reactions,
    "folder": folder,
    "huggingface": huggingface,
    "iemocap": iemocap,
    "influencer_empathy": influencer_empathy,
    "meld": meld,
    "mmsa": mmsa,
    "mosei": mosei,
    "mosi": mosi,
    "ravdess": ravdess,
    "sims": sims,
    "video_sentiment": video_sentiment,
    "webdataset": webdataset,
}
"""Adapter -> what writes a small copy into a folder, and gives the options beside `source=folder`."""
