"""A bundle that is made again and stopped on the way is the former one, or is named: never a mixture."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from cluster import storage
from jobs import __main__ as command

TRAIN = (
    "train --root {root} --inputs {run} --net linear --folds speaker --tasks emotion --refit --no-tracking "
    "--run {run}"
)
FIRST = "ensemble --root {root} --runs face --bundle b --resamples 100 --no-tracking"
AGAIN = (
    "ensemble --root {root} --runs voice face --rule mean --bundle b --resamples 100 --no-tracking"
)
READERS = {
    "report": "report --root {root} --bundle b --resamples 100 --out {out}",
    "compare": "compare --root {root} --bundles b --runs voice --task emotion --metrics nll --name c",
    "export": "bundle export --root {root} --bundle b --out {out}",
    "score": "score --root {root} --bundle b --source features --name s",
    "evaluate": "evaluate --root {root} --bundle b",
}
TIME = re.compile(rb'"timestamp": "[^"]*"')
NOT_WHOLE = "bundle b is not whole"


class Stopped(BaseException):
    """As Ctrl-C comes between two files."""


def stopping(monkeypatch, after):
    """Everything that is published beyond some number of files is not; the list of what was."""
    publish, seen = storage.publish_bytes, []

    def counted(content, uri):
        if len(seen) == after:
            raise Stopped(uri)
        seen.append(uri)
        publish(content, uri)

    monkeypatch.setattr(storage, "publish_bytes", counted)
    return seen


def files(folder):
    """Name -> content of what lies under a folder."""
    places = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in places}


def shown(reader, root, out, capsys):
    """The figures that a reader shows of the bundle; None where it names the fault."""
    for place in ("comparisons", "evaluations", "looks", "scores"):
        shutil.rmtree(f"{root}/{place}", ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    capsys.readouterr()
    code = command.run(READERS[reader].format(root=root, out=out).split())
    said = capsys.readouterr().err
    if code:
        assert NOT_WHOLE in said, said
        return None
    place, name = {
        "report": (out, "results.json"),
        "compare": (f"{root}/comparisons/c", "results.json"),
        "export": (out, "*"),
        "score": (f"{root}/scores/s", "*.parquet"),
        "evaluate": (f"{root}/evaluations/b", "predictions.parquet"),
    }[reader]
    found = sorted(path for path in Path(place).rglob(name) if path.is_file())
    assert found, reader
    return [TIME.sub(b"", path.read_bytes()) for path in found]


@pytest.fixture(scope="module")
def finished(write_root, tmp_path_factory):
    """A root with a bundle, whose one run has been trained anew since."""
    root = write_root(str(tmp_path_factory.mktemp("finished") / "root"))
    for words in (TRAIN.format(root=root, run="voice"), TRAIN.format(root=root, run="face"), FIRST):
        assert command.run(words.format(root=root).split()) == 0, words
    run = Path(root, "runs/face")
    shutil.copy(run / "fold=0/seed=0/model.safetensors", run / "refit/seed=0/model.safetensors")
    return root


@pytest.fixture
def root(finished, tmp_path):
    """The same place in every test: what is written names it."""
    kept = str(tmp_path / "kept")
    shutil.copytree(finished, kept)
    yield finished
    shutil.rmtree(finished)
    shutil.copytree(kept, finished)


def without_hashes(root):
    """The bundle as earlier versions wrote it."""
    path = Path(root, "bundles/b/bundle.json")
    facts = json.loads(path.read_text())
    del facts["judged"]
    path.write_text(json.dumps(facts))


@pytest.fixture
def stopped(root, monkeypatch):
    """Makes the bundle again from how it was, and stops before a file; the files of a whole making."""
    former = files(f"{root}/bundles/b")

    def again(number=-1):
        shutil.rmtree(f"{root}/bundles/b")
        for name, content in former.items():
            storage.publish_bytes(content, f"{root}/bundles/b/{name}")
        with monkeypatch.context() as patch:
            seen = stopping(patch, number)
            if number < 0:
                assert command.run(AGAIN.format(root=root).split()) == 0
            else:
                with pytest.raises(Stopped):
                    command.run(AGAIN.format(root=root).split())
        return seen

    return again


@pytest.mark.parametrize(
    ("is_old", "readers"),
    [(False, tuple(READERS)), (True, ("compare", "export"))],
    ids=["present", "of an earlier version"],
)
def test_whatever_a_stop_leaves_each_reader_shows_one_bundle_or_names_the_fault(
    is_old, readers, root, request, tmp_path, capsys
):
    out = str(tmp_path / "out")
    if is_old:
        without_hashes(root)
    again = request.getfixturevalue("stopped")
    before = {reader: shown(reader, root, out, capsys) for reader in readers}
    seen = again()
    after = {reader: shown(reader, root, out, capsys) for reader in readers}
    for reader in readers:
        assert before[reader] != after[reader], reader
    refused = set()
    for number in range(1, len(seen), 2):
        again(number)
        for reader in readers:
            found = shown(reader, root, out, capsys)
            if found is None:
                refused.add(reader)
            else:
                assert found in (before[reader], after[reader]), (reader, seen[number])
    assert refused == set(readers)


def test_verify_names_it_and_the_same_command_mends_it(root, stopped, capsys):
    seen = stopped()
    assert seen[-1].endswith("bundle.json")
    weights = next(number for number, uri in enumerate(seen) if "nets/face/" in uri)
    whole = files(f"{root}/bundles/b")
    for number in (weights + 1, len(seen) - 1):
        stopped(number)
        capsys.readouterr()
        assert command.run(["verify", "--root", root]) == 1
        assert f"affuse ensemble --config {root}/bundles/b/config.json" in capsys.readouterr().out
        assert command.run(AGAIN.format(root=root).split()) == 0
        assert files(f"{root}/bundles/b") == whole
        assert command.run(["verify", "--root", root]) == 0


def test_a_bundle_that_was_never_finished_is_compared_with_nothing(root, stopped, capsys):
    os.remove(f"{root}/bundles/b/bundle.json")
    assert command.run(READERS["compare"].format(root=root).split()) == 1
    assert "bundle b has no bundle.json: its making was stopped" in capsys.readouterr().err


def test_the_card_of_the_former_bundle_does_not_stand_beside_the_new_one(root):
    card = f"{root}/bundles/b/MODEL_CARD.md"
    storage.publish_bytes(b"of the former one", card)
    assert command.run(FIRST.format(root=root).split()) == 0
    command.run(AGAIN.format(root=root).split())
    assert not os.path.exists(card)
