"""Predictions of others: joined to runs by their targets, and said of when they are too good to be true."""

import numpy as np
import pandas as pd
import pytest
import torch

from cluster import storage
from cluster.errors import SchemaError
from fusion.late.members import Members
from fusion.tasks import Task
from jobs.catalog.predictions import HeldOut
from jobs.interop.import_predictions import add_members, warn_of_perfect
from tests.jobs.small_root import write_root

VALUES = Task(kind="regression")


def small(tmp_path):
    """A root, its clips by id, and a run's held-out rows as single precision kept them."""
    root = write_root(str(tmp_path / "root"))
    parts = storage.names(f"{root}/manifest/abc", ".parquet")
    manifest = pd.concat(
        [storage.read_table(f"{root}/manifest/abc/{part}").to_pandas() for part in parts]
    ).sort_values("clip_id")
    kept = manifest["arousal"].to_numpy(np.float32).astype(np.float64)
    held = HeldOut(
        clip_id=manifest["clip_id"].to_numpy(),
        fold=np.arange(len(manifest)) % 3,
        target=torch.from_numpy(kept),
        members=Members.from_logits(
            ["la"], "regression", torch.from_numpy(kept / 2).reshape(1, -1, 1)
        ),
    )
    return root, manifest, held


def write(folder, manifest, values):
    file = str(folder / "theirs.csv")
    frame = {"clip_id": manifest["clip_id"], "fold": np.arange(len(manifest)) % 3, "role": "oof"}
    pd.DataFrame({**frame, "value": values}).to_csv(file, index=False)
    return file


def test_imported_values_stand_beside_those_of_runs_which_keep_targets_in_single_precision(
    tmp_path,
):
    root, manifest, held = small(tmp_path)
    assert not np.array_equal(held.target.numpy(), manifest["arousal"])
    file = write(tmp_path, manifest, manifest["arousal"] + 1)
    joined = add_members(root, held, [file], "arousal", VALUES)
    assert joined.members.names == ("la", "theirs")
    assert torch.equal(joined.target, held.target)


def test_a_run_of_former_values_is_refused_beside_an_import_with_what_can_be_done(tmp_path):
    root, manifest, held = small(tmp_path)
    held.target[4] += 1e-3
    file = write(tmp_path, manifest, manifest["arousal"])
    with pytest.raises(SchemaError, match=r"'theirs' has other .*'la' for 1 of 72 clips: .*again"):
        add_members(root, held, [file], "arousal", VALUES)


def members_of(kind, qualities):
    """Members whose answers are the truth but for so many of a hundred."""
    draws = np.random.default_rng(0)
    truth = {
        "classification": torch.arange(300) % 3,
        "multilabel": torch.from_numpy(draws.integers(0, 2, (300, 4))).double(),
        "regression": torch.from_numpy(draws.normal(size=300)),
    }[kind]
    scores = []
    for wrong in qualities.values():
        noise = torch.from_numpy(draws.random(300) < wrong)
        if kind == "classification":
            said = 4.0 * torch.nn.functional.one_hot((truth + noise) % 3, 3).double()
        elif kind == "multilabel":
            said = 8 * (truth - 0.5) * (1 - 2 * noise.double().unsqueeze(1))
        else:
            said = (truth + 10 * wrong * torch.from_numpy(draws.normal(size=300))).unsqueeze(1)
        scores.append(said)
    members = Members.from_logits(list(qualities), kind, torch.stack(scores))
    return HeldOut(clip_id=np.arange(300), fold=np.arange(300) % 3, target=truth, members=members)


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
class TestAMemberThatIsNearlyTheTruth:
    def test_is_warned_of_where_the_others_are_far_below(self, kind, capsys):
        warn_of_perfect(members_of(kind, {"voice": 0.4, "theirs": 0.0}), ["in/theirs.csv"])
        said = capsys.readouterr().out
        assert said.startswith("warning: imported member theirs has ")
        assert "1.000, the best other one 0." in said
        assert said.count("\n") == 1

    def test_is_warned_of_where_it_is_alone(self, kind, capsys):
        warn_of_perfect(members_of(kind, {"theirs": 0.0}), ["theirs.npz"])
        assert "theirs" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "others", [{"voice": 0.0, "theirs": 0.0}, {"voice": 0.0, "theirs": 0.4}, {"theirs": 0.1}]
    )
    def test_is_not_found_among_good_members_and_middling_ones(self, kind, others, capsys):
        warn_of_perfect(members_of(kind, others), ["theirs.csv"])
        assert capsys.readouterr().out == ""
