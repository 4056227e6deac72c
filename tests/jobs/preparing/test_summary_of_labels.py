"""What prepare says of the values of a regression, wherever they lie, and of labels that nobody has."""

import numpy as np
import pytest

from jobs.__main__ import run as affuse


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1e8, 1e8 + 3, 1e8 + 8], "100000000 to 100000008"),
        ([1e-6, 2e-6, 4e-6], "1e-06 to 4e-06"),
        ([-3.0, 1.0, 2.5], "-3 to 2.5"),
    ],
)
def test_the_ends_are_told_apart(tmp_path, values, said, capsys):
    np.savez(tmp_path / "l.npz", val=np.array(values), speaker=["a", "b", "c"])
    source, root = str(tmp_path / "l.npz"), str(tmp_path / "root")
    start = ["prepare", "arrays", "--source", source, "--root", root]
    assert affuse([*start, "--tasks", "val=regression"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


def test_a_task_of_several_labels_of_which_no_clip_has_any_is_said(tmp_path, capsys):
    (tmp_path / "l.csv").write_text("name,text,tags\na,so,|\nb,it,|\n")
    labels = ["--labels", str(tmp_path / "l.csv"), "--tasks", "tags=multilabel"]
    start = ["prepare", "folder", "--source", str(tmp_path), "--root", str(tmp_path / "root")]
    assert affuse([*start, *labels]) == 0
    assert "tags (multilabel): no clip has a label" in capsys.readouterr().out
