"""A manifest is the same to the bit, whatever way it is made: its hash covers every row, unit and key.

The values were computed a row of Python after another. They change with the meaning of a column alone: a way
that is faster, or holds less in memory, changes none of them.
"""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest

from cluster import stamps, storage
from cluster.errors import Fault, MediaError
from encoders.media import Decoder, Probe
from jobs import prepare
from jobs.catalog import layout, manifest
from jobs.preparing import workplace


class Corner:
    """A source in memory, whose files have the same URIs on every machine."""

    def __init__(self, name):
        self.uri = f"memory://same-manifest/{name}"

    def write(self, path, content=b"x"):
        fs, target = storage.filesystem(f"{self.uri}/{path}")
        fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        fs.pipe_file(target, content.encode() if isinstance(content, str) else content)

    def tar(self, path, names):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = 3
                tar.addfile(member, io.BytesIO(b"xyz"))
        self.write(path, buffer.getvalue())


def facts_of(uri):
    """A stamp that no clock changes; some files are not there."""
    if "absent" in uri or not storage.exists(uri):
        raise FileNotFoundError(uri)
    return {"size": len(uri), "mtime": str(int.from_bytes(uri.encode()[-6:]) % 997)}


def probe_each(_, sources):
    for source in sources:
        try:
            yield probe(source)
        except MediaError as error:
            yield error


def probe(source):
    """Headers that follow from the name of a file alone."""
    if "broken" in source.uri or "absent" in source.uri:
        raise MediaError(Fault.UNREADABLE, "no media")
    number = int.from_bytes(hashlib.sha256(repr(source).encode()).digest()[:2])
    film = not source.uri.endswith(".wav")
    return Probe(
        duration_s=None if number % 11 == 0 else 0.1 + number / 7000,
        has_video=film, has_audio=number % 5 != 0, fps=25.0 if film else None,
        width=320 + number % 700 if film else None, height=240 if film else None, rotation=0,
        video_codec="h264" if film else None, audio_codec="aac", rate_hz=8000, channels=1,
    )  # fmt: skip


@pytest.fixture
def corner(request, monkeypatch):
    monkeypatch.setattr(stamps, "source_facts", facts_of)
    monkeypatch.setattr(Decoder, "probe_each", probe_each)
    # The URIs are part of the hash.
    scene = request.node.callspec.params["scene"].__name__
    place = Corner(f"test_the_manifest_and_its_folds_are_the_same_to_the_bit-{scene}")
    yield place
    storage.remove_tree(place.uri)


def made(corner, root, dataset, *flags):
    """Hash of the manifest and of every set of folds, and number of units."""
    given = ["--source", corner.uri, "--root", str(root), "--workers", "2", *flags]
    prepare.main(prepare.configure([dataset, *given]))
    folds = {
        name: hashlib.sha256(
            json.dumps(sorted(manifest.read_folds(str(root), name).items())).encode()
        ).hexdigest()[:12]
        for name in layout.folds_there(str(root))
    }
    refs = manifest.units(str(root))
    storage.remove(layout.units_uri(str(root), manifest.read_dataset(str(root)).manifest_hash))
    manifest._units.cache_clear()
    assert refs == manifest.units(str(root))  # as read off the manifest itself
    return manifest.read_dataset(str(root)).manifest_hash, folds, len(refs)


def ravdess(corner, root):
    for actor in range(1, 7):
        for take in ("03-01-01-01", "05-02-02-01"):
            corner.write(f"Actor_{actor:02}/01-01-{take}-{actor:02}.mp4")
            corner.write(f"Actor_{actor:02}/03-01-{take}-{actor:02}.wav")
            corner.write(f"Actor_{actor:02}/03-02-{take}-{actor:02}.wav")
    yield made(corner, root, "ravdess", "--split", "60/20/20", "--seed", "3", "--folds", "2")


def cremad(corner, root):
    for actor in range(1001, 1009):
        corner.write(f"VideoFlash/{actor}_DFA_ANG_XX.flv")
        corner.write(f"AudioWAV/{actor}_DFA_ANG_XX.wav")
        corner.write(f"VideoFlash/{actor}_IEO_HAP_HI.flv")
    yield made(corner, root, "cremad", "--folds", "3", "--unit-s", "4")


def meld(corner, root):
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season\n"
    for part, folder in (("train", "train_splits"), ("dev", "dev_splits_complete")):
        lines = [
            f'{k},"You\u2019re {k}, {part}",Ross{k % 3},anger,negative,{k // 7},{40 - k},1'
            for k in range(40)
        ]
        corner.write(f"{part}_sent_emo.csv", (header + "\n".join(lines)).encode("cp1252"))
        for k in range(0, 40, 2):
            corner.write(f"{folder}/dia{k // 7}_utt{40 - k}.mp4")
    yield made(corner, root, "meld", "--unit-clips", "10", "--folds", "2")
    yield made(corner, root, "meld", "--unit-clips", "10", "--folds", "2", "--part", "train")


def mosi(corner, root):
    lines = [f"film{k // 4},{k},said {k},{k % 9 / 4 - 1},0.5,,0.25,Weak,train" for k in range(30)]
    header = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
    corner.write("label.csv", header + "\n".join(lines))
    for k in range(20):
        corner.write(f"Raw/film{k // 4}/{k}.mp4")
    yield made(corner, root, "mosi", "--corpus", "sims", "--split", "1/1/1")


def mmsa(corner, root):
    file = root.parent / "toy.npz"
    np.savez(
        file,
        **{
            f"{split}/{key}": values
            for split in ("train", "valid", "test")
            for key, values in {
                "id": np.array([f"{split}{k // 3}$_${k}" for k in range(9)]),
                "raw_text": np.array([f"said {k}" for k in range(9)]),
                "regression_labels": np.linspace(-1, 1, 9),
                "annotations": np.array(["Weak", "Strong", "Weak"] * 3),
            }.items()
        },
    )
    yield made(corner, root, "mmsa", "--source", str(file), "--unit-clips", "4")


def arrays(corner, root):
    file = root.parent / "toy.npz"
    np.savez(
        file,
        id=np.array([f"c{k}" for k in range(50)]),
        mood=np.arange(50) % 4 - 1,
        score=np.where(np.arange(50) % 7 == 0, np.nan, np.arange(50) / 25),
        both=np.arange(100).reshape(50, 2) % 3 % 2,
        speaker=np.array([f"s{k % 8}" for k in range(50)]),
        fold=np.arange(50) % 8 % 2,
        text=np.array([f"said {k}" * (k % 3) for k in range(50)]),
    )
    tasks = ["mood=classification", "score=regression", "both=multilabel"]
    flags = ["--tasks", *tasks, "--classes", "both=p,q", "--folds", "4", "--split", "80/10/10"]
    yield made(corner, root, "arrays", "--source", str(file), *flags)


def iemocap(corner, root):
    for session in (1, 2):
        talk = f"Ses0{session}F_impro01"
        dialog = f"Session{session}/dialog"
        turns = [f"{talk}_{'FM'[k % 2]}{k:03}" for k in range(12)]
        labels = "".join(
            f"[{2 * k + 0.25:.4f} - {2 * k + 1.5:.4f}]\t{turn}\tneu\t[2.5000, 2.5000, 2.5000]\n"
            for k, turn in enumerate(turns)
        )
        corner.write(f"{dialog}/EmoEvaluation/{talk}.txt", f"% TURN_NAME\n\n{labels}")
        said = "".join(f"{turn} [000.0000-001.0000]: Said {turn}.\n" for turn in turns)
        corner.write(f"{dialog}/transcriptions/{talk}.txt", said)
        corner.write(f"{dialog}/avi/DivX/{talk}.avi")
    yield made(corner, root, "iemocap", "--media", "films", "--unit-s", "3")
    yield made(corner, root, "iemocap", "--media", "films", "--unit-s", "3", "--max-clip-s", "0.5")


def avamerg(corner, root):
    person = {"age": "young", "gender": "male", "timbre": "mid", "ID": 7}
    said = [{"index": k, "role": "speaker", "utterance": f"I said {k}."} for k in range(5)]
    talks = [
        {
            "conversation_id": f"{k:05}",
            "speaker_profile": person,
            "listener_profile": {**person, "ID": 9, "gender": "female"},
            "topic": "Education",
            "turns": [
                {
                    "turn_id": "2", "context": "", "dialogue_history": said,
                    "response": "Courage!", "chain_of_empathy": {"speaker_emotion": "anxious"},
                }
            ],
        }
        for k in range(6)
    ]  # fmt: skip
    corner.write("train.json", json.dumps(talks))
    for k in range(6):
        corner.write(f"video/dia{k:05}utt{k % 3}_7.mp4")
    yield made(corner, root, "avamerg", "--unit-clips", "13")


def files_that_are_added(corner, root):
    """No table: members of tars with loose files between them, twice, then cut and packed."""
    corner.tar("a/shard0.tar", [f"t{k}.mp4" for k in range(30)])
    corner.tar("a/shard1.tar", [f"u{k}.wav" for k in range(9)])
    for k in range(40):
        corner.write(f"b/loose{k % 7}/\u00e4{k}.{('mp4', 'wav', 'txt', 'broken.mkv')[k % 4]}")
    yield made(corner, root, "folder", "--unit-clips", "6", "--unit-s", "20")
    for k in range(10):
        corner.write(f"a/early{k}.mp4")
    yield made(corner, root, "folder", "--unit-clips", "6", "--unit-s", "20")
    corner.write("c/absent.mp4")
    yield made(corner, root, "folder", "--max-clip-s", "2.5", "--split", "8/1/1")


def table(count, dialogue, turn, more=""):
    header = "name,text,speaker,dialogue,turn,mood,score,both,age,extra,fold\n"
    lines = [
        f'c{k},"said {k}, \u201c{chr(0x1F600 + k % 9)}\u201d",s{k % 11},{dialogue(k)},{turn(k)},'
        f"{('low', 'high', 'NA')[k % 3]},{k % 13 / 3:.3f},{('x|y', 'y', '')[k % 3]},"
        f"{('old', '')[k % 2]},{k},{sum(dialogue(k).encode()) % 3 if dialogue(k) else k % 11 % 3}"
        for k in range(count)
    ]
    return header + "\n".join(lines) + more


TASKS = (
    "--tasks",
    "mood=classification",
    "score=regression",
    "both=multilabel",
    "--profile",
    "age",
)


def texts_with_long_dialogues(corner, root):
    """Dialogues of a few turns, some beyond the bound, some turns out of order; splits and folds are cut."""
    flags = [*TASKS, "--labels", f"{corner.uri}/t.csv", "--split", "60/20/20", "--unit-clips", "3"]
    columns = ["--columns", "group=dialogue"]

    def dialogue(k):
        return "" if k % 10 == 3 else f"d{k // 5}" if k < 60 else f"long{k // 70}"

    corner.write("t.csv", table(200, dialogue, lambda k: (k * 37) % 101))
    yield made(corner, root, "folder", *flags, *columns, "--folds", "3")
    corner.write("t.csv", table(260, dialogue, lambda k: (k * 37) % 101))
    yield made(corner, root, "folder", *flags, *columns, "--folds", "3")
    yield made(corner, root, "folder", *flags, *columns, "--folds", "3", "--seed", "1")
    corner.write("t.csv", table(190, dialogue, lambda k: (k * 37) % 103 if k < 30 else ""))
    yield made(corner, root, "folder", *flags, *columns, "--folds", "3")


def segments_of_films(corner, root):
    """Films and sounds that segments share, some beyond their ends, members of tars among them."""
    corner.tar("shard.tar", [f"film{k}.mp4" for k in range(6)])
    for k in range(6, 12):
        corner.write(f"film{k}.mp4")
        corner.write(f"sound{k}.wav")

    def said(k):
        return f"words {k % 5}" if k % 4 else ""

    lines = [
        f"film{k % 12}.mp4,sound{k % 13}.wav,{k * 0.37:.2f},{'' if k % 5 == 0 else k * 0.37 + 1.5},"
        f"{f'words {k % 5}' if k % 4 else ''},{'ab'[k % 2]},d{k % 12 // 4}"
        for k in range(150)
    ]
    header = "video,audio,start_s,end_s,text,mood,dialogue\n"
    corner.write("t.csv", header + "\n".join(lines))
    flags = ["--labels", f"{corner.uri}/t.csv", "--tasks", "mood=classification"]
    yield made(corner, root, "folder", *flags, "--unit-s", "5")
    yield made(corner, root, "folder", *flags, "--unit-s", "5", "--max-clip-s", "0.7")
    flags += ["--columns", "dialogue=text", "--split", "50/25/25"]
    yield made(corner, root, "folder", *flags, "--as-is", "dialogue")


SCENES = [
    arrays, avamerg, cremad, files_that_are_added, iemocap, meld, mmsa, mosi, ravdess,
    segments_of_films, texts_with_long_dialogues,
]  # fmt: skip

SAME: dict[str, list[tuple[str, dict[str, str], int]]] = {
    "arrays": [("7f58e135c8e3", {"group4": "6b3d6a283d11", "table": "c28e44bbddcb"}, 1)],
    "avamerg": [("d1e93fafed33", {}, 3)],
    "cremad": [("51ee2ed4e160", {"group3": "71b09a2a23b2"}, 16)],
    "files_that_are_added": [
        ("d6a362426d93", {}, 28),
        ("fbb7643ed094", {}, 31),
        ("266305ca1d58", {}, 18),
    ],
    "iemocap": [
        ("c53dd991a634", {"session": "80c24039d876"}, 22),
        ("d81ac2377caf", {"session": "7dae036d3c12"}, 22),
    ],
    "meld": [
        ("4442b1b78082", {"group2": "e3432880d9dc"}, 12),
        ("eadb12924d86", {"group2": "6a859b3ceae0"}, 6),
    ],
    "mmsa": [("e960e2b9860a", {}, 9)],
    "mosi": [("fbdff6da3e6c", {}, 3)],
    "ravdess": [("2e5b2ae18787", {"group2": "bb06338ad29e", "subject": "57aa89d7e211"}, 2)],
    "segments_of_films": [
        ("5540b9f7e64f", {}, 150),
        ("3edf51f63001", {}, 150),
        ("b58e0bb7c558", {}, 40),
    ],
    "texts_with_long_dialogues": [
        ("93f74276faf6", {"group3": "5fd8bf771a91", "table": "f175587df3e7"}, 64),
        ("2c366b16ac5e", {"group3": "7491649675cc", "table": "a26bc2ee767c"}, 85),
        ("849f8356d227", {"group3": "ace5c8983d1c", "table": "a26bc2ee767c"}, 85),
        ("88ed63990bf7", {"group3": "b7f20e52c8ad", "table": "f7881aee332d"}, 61),
    ],
}


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_the_manifest_and_its_folds_are_the_same_to_the_bit(scene, corner, tmp_path):
    assert list(scene(corner, tmp_path / "root")) == SAME[scene.__name__]


@pytest.mark.parametrize(
    "scene",
    [arrays, files_that_are_added, segments_of_films, texts_with_long_dialogues],
    ids=lambda scene: scene.__name__,
)
def test_it_is_the_same_however_many_rows_are_sorted_at_one_time(
    scene, corner, tmp_path, monkeypatch
):
    monkeypatch.setattr(workplace, "RANGE_ROWS", 7)
    assert list(scene(corner, tmp_path / "root")) == SAME[scene.__name__]
