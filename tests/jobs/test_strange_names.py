"""Names that look like markup pass every job that prints, and are shown letter by letter."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jobs.__main__ import main, run
from jobs.scoring.files import found_files

CLASSES = ("[happy]", "[/b]", ":smile:")
RUNS = ("[red]a", "[]b :smile:")
COUNT = 24
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Clips `Talk [x] 0` and so on of six people, a table of their labels, and features of them."""
    base = tmp_path_factory.mktemp("strange")
    (base / "clips").mkdir()
    names = [f"Talk [x] {k}" for k in range(COUNT)]
    for name in names:
        soundfile.write(base / "clips" / f"{name}.wav", np.zeros(800, np.float32), 8000)
    with (base / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "mood", "speaker"])
        writer.writerows([n, CLASSES[k % 3], f"[s{k % 6}]"] for k, n in enumerate(names))
    values = np.random.default_rng(0).normal(size=(COUNT, 5)) + np.arange(COUNT)[:, None] % 3
    np.savez(base / "au.npz", x=values.astype("f4"), name=np.array(names))
    return base


class Said:
    """Runs one job at the command line and keeps what it printed."""

    def __init__(self, capsys):
        self.capsys = capsys

    def __call__(self, *words):
        assert run([str(word) for word in words]) == 0, self.capsys.readouterr().err
        return self.capsys.readouterr().out


def test_every_job_from_the_label_table_to_the_comparison(corpus, capsys):
    said, root = Said(capsys), corpus / "root"
    out = said(
        "prepare", "folder", "--source", corpus / "clips", "--labels", corpus / "labels.csv",
        "--root", root, "--tasks", "mood=classification", "--licence", "[/b]", "--folds", 3,
        "--workers", 1,
    )  # fmt: skip
    assert "clips ([/b])" in out
    assert ":smile: 8, [/b] 8, [happy] 8" in out
    said(
        "features", "import", "--root", root, "--file", corpus / "au.npz", "--array", "x",
        "--name", "au", "--modality", "video",
    )  # fmt: skip
    for name in RUNS:
        out = said(
            "train", "--root", root, "--inputs", "au", "--folds", "group3", "--run", name,
            "--epochs", 2, "--no-tracking", "--net-options", "hidden=8",
        )  # fmt: skip
        assert f"{name}: concat_mlp" in out
    for words in (
        ("ensemble", "--runs", *RUNS, "--resamples", 100),
        ("compare", "--runs", *RUNS, "--resamples", 100),
        ("report", "--runs", *RUNS, "--resamples", 100),
    ):
        out = said(words[0], "--root", root, *words[1:])
        assert "[red]a" in out, words[0]


def test_a_file_whose_name_is_no_text_is_refused_before_it_is_scored(tmp_path, capsys):
    path = os.fsencode(tmp_path) + b"/a\xff.wav"
    with open(path, "wb") as file:
        file.write(b"RIFF")
    assert run(["score", str(tmp_path)]) == 1
    assert (
        r"a\udcff.wav: the name holds bytes that are no text; rename it" in capsys.readouterr().err
    )


@pytest.mark.parametrize("pattern", ["", "/*.wav"])
def test_the_other_files_of_a_folder_are_found_and_the_one_without_a_name_is_told(
    tmp_path, capsys, pattern
):
    for name in (b"b.wav", b"a\xff.wav", b"c\xfe.wav"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(b"RIFF")
    assert found_files([f"{tmp_path}{pattern}"]) == [f"{tmp_path}/b.wav"]
    told = capsys.readouterr().out
    assert "left out, 2 of 3 files, such as" in told
    assert r"a\udcff.wav: the name holds bytes that are no text; rename it" in told


def test_a_files_name_that_is_no_text_is_spelt_out_in_the_message(tmp_path, capfd):
    with pytest.raises(SystemExit):
        main(["score", f"{tmp_path}/a\udcff\x1b[2J.mp4"])
    assert r"a\udcff\x1b[2J.mp4: there is no such file" in capfd.readouterr().err


@pytest.mark.parametrize("where", ["typed", "current"])
@pytest.mark.parametrize("job", ["verify", "prepare", "train"])
def test_there_a_root_of_another_name_is_refused_and_not_called_damaged(tmp_path, job, where):
    (root := tmp_path / "\u00e9\u6f22").mkdir()
    (root / "dataset.json").write_text("{}")
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    env["PYTHONPATH"] = str(ROOT)
    words = [sys.executable, "-m", "jobs", job, "--root", str(root) if where == "typed" else "."]
    said = subprocess.run(
        words,
        env=env,
        cwd=root if where == "current" else ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    assert said.stderr.endswith("type: unset PYTHONUTF8, then the same command\n")
    assert "damaged" not in said.stderr + said.stdout
    assert "remove" not in said.stderr + said.stdout


@pytest.mark.parametrize("utf8", ["0", "1"])
def test_an_environment_that_reads_names_as_ascii_is_told_with_what_mends_it(tmp_path, utf8):
    (tmp_path / "\u00e4.wav").write_bytes(b"RIFF")
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": utf8, "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-m", "jobs", "score", str(tmp_path)]
    said = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ("type: unset PYTHONUTF8" in said.stderr) == (utf8 == "0")
    assert ("bytes that are no text" in said.stderr) == (utf8 == "0")
    assert "Traceback" not in said.stderr
