"""A finished root may be read-only: every job that finds its output there, equal, ends well."""

from pathlib import Path

import pytest

from jobs import __main__ as command

MAKE = {
    "train": "train --root {root} --inputs voice --net linear --folds speaker --no-tracking --run voice",
    "tune": "tune --root {root} --inputs voice face --folds speaker --trials 2 --no-tracking --run found",
    "ensemble": "ensemble --root {root} --runs voice --task emotion --bundle best",
    "compare": "compare --root {root} --runs voice found-00000 --task emotion",
    "explain": "explain --root {root} --bundle best",
    "score": "score --root {root} --bundle best --source features",
    "verify": "verify --root {root} --data",
    "export": "features export --root {root} --inputs audio=voice --task emotion --out {root}/out.npz",
    "benchmark": "benchmark encoders --root {root} --task emotion",
}
"""In this order; each reads what those above it made."""


@pytest.fixture(scope="module")
def finished(write_root, tmp_path_factory):
    root = write_root(str(tmp_path_factory.mktemp("finished") / "root"))
    for words in MAKE.values():
        assert command.run(words.format(root=root).split()) == 0, words
    return root


def stand(root: str) -> dict[str, bytes]:
    """What is under a root."""
    return {str(path): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


@pytest.mark.ray
def test_what_is_done_is_done_again_on_a_read_only_root(finished, sealed, capsys):
    before = stand(finished)
    sealed(finished)
    wrong = {}
    for name, words in MAKE.items():
        capsys.readouterr()
        if command.run(words.format(root=finished).split()):
            wrong[name] = capsys.readouterr().err
    assert not wrong
    assert stand(finished) == before


OTHERWISE = (
    "compare --root {root} --runs voice found-00000 --task emotion --resamples 500",
    "ensemble --root {root} --runs voice --task emotion --rule mean --bundle best",
    "train --root {root} --inputs face --net linear --no-tracking --run face",
    "features export --root {root} --inputs video=face --task emotion --out {root}/out.npz",
)


@pytest.mark.parametrize("words", OTHERWISE)
def test_what_would_differ_is_refused_by_name(words, finished, sealed, capsys):
    before = stand(finished)
    sealed(finished)
    capsys.readouterr()
    assert command.run(words.format(root=finished).split()) == 1
    assert f"nothing can be written at {finished}" in capsys.readouterr().err
    assert stand(finished) == before
