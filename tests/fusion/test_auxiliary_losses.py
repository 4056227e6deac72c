"""Losses that a paper brings: there in training, gone in eval, and about what they say."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fusion.batch import Batch, Steps
from fusion.nets import net_class, net_config
from fusion.nets._codes import moment_distance, orthogonality
from fusion.nets._label_table import LabelTable

DIMS = {"audio": 4, "text": 5}


def build(name, outputs, **options):
    torch.manual_seed(0)
    return net_class(name)(net_config(name, options), dims=DIMS, outputs=outputs)


def clips(targets, rows=8, index=None):
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(rows, 3, dtype=torch.bool)
    inputs = {
        n: Steps(torch.randn(rows, 3, d, generator=generator), mask.clone())
        for n, d in DIMS.items()
    }
    return Batch(inputs=inputs, targets=targets, index=index)


class TestMISA:
    def test_three_losses_in_training_none_in_eval(self):
        net = build("misa", {"y": 2}, hidden=8)
        losses = net(clips({})).losses
        assert set(losses) == {"difference", "similarity", "reconstruction"}
        assert all(loss > 0 and loss.isfinite() for loss in losses.values())
        assert net.eval()(clips({})).losses == {}

    def test_the_discriminator_learns_while_the_codes_unlearn(self):
        net = build("misa", {"y": 2}, hidden=8, adversarial=True, dropout=0.0).train()
        shared = net.codes(clips({}))["shared"]
        direct = torch.autograd.grad(
            net.discriminator(shared).sum(), net.shared.weight, retain_graph=True
        )
        turned = torch.autograd.grad(net.discriminate(shared).sum(), net.shared.weight)
        torch.testing.assert_close(turned[0], -0.8 * direct[0])

    def test_rows_without_a_modality_stay_out_of_its_losses(self):
        net = build("misa", {"y": 2}, hidden=8, dropout=0.0).train()
        batch = clips({})
        batch.inputs["audio"].mask[6:] = False
        before = net(batch).losses
        batch.inputs["audio"].values[6:] = 50.0
        after = net(batch).losses
        assert before == after

    def test_orthogonal_codes_have_no_difference_loss(self):
        x = torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 0]])
        y = torch.tensor([[0.0, 1], [0, 1], [0, -1], [0, -1]])
        assert orthogonality(x, y) < 1e-10
        assert orthogonality(x, x) > 0.1

    def test_equal_sets_have_no_moment_distance_and_a_finite_slope(self):
        x = torch.randn(6, 3, requires_grad=True)
        distance = moment_distance(x, x.detach().clone(), 5)
        distance.backward()
        assert distance == 0
        assert x.grad.isfinite().all()


class TestSelfMM:
    def test_generated_labels_leave_the_true_one_from_the_second_pass_on(self):
        net = build("self_mm", {"y": 1}).train()
        truth = torch.tensor([-2.0, -1, 0, 1, 2, 1, -1, 2])
        batch = clips({"y": truth}, index=torch.arange(8))
        net(batch)
        table = net.table["y"]
        assert (table.label_audio[:8] == truth).all()
        net(batch)
        assert (table.label_audio[:8] != truth).any()
        assert (table.label_fusion[:8] == truth).all()
        assert table.label_audio.abs().max() <= 3
        assert table.seen[:8].tolist() == [2] * 8

    def test_the_table_grows_and_a_saved_one_loads_at_its_size(self):
        net, other = build("self_mm", {"y": 1}).train(), build("self_mm", {"y": 1})
        net(clips({"y": torch.randn(8)}, index=torch.arange(8) + 100))
        other.load_state_dict(net.state_dict())
        assert (other.table["y"].label_text == net.table["y"].label_text).all()
        assert len(other.table["y"].seen) >= 108

    def test_labels_do_not_depend_on_how_the_rows_were_batched_within_the_first_pass(self):
        truth = torch.tensor([-2.0, -1, 1, 2])
        features = {n: torch.randn(4, 3) for n in ("fusion", "audio")}
        tables = [LabelTable({"fusion": 3, "audio": 3}, 3.0) for _ in range(2)]
        tables[0].update(torch.arange(4), truth, features, {})
        for rows in (torch.tensor([2, 0]), torch.tensor([3, 1])):
            tables[1].update(rows, truth[rows], {n: f[rows] for n, f in features.items()}, {})
        for side in (1, -1):
            torch.testing.assert_close(
                tables[0].centre("audio", side), tables[1].centre("audio", side)
            )

    def test_without_an_index_or_for_classes_the_heads_learn_the_true_label(self):
        net = build("self_mm", {"c": 3, "y": 1}).train()
        targets = {"c": torch.arange(8) % 3, "y": torch.randn(8)}
        losses = net(clips(targets)).losses
        assert set(losses) == {"c/audio", "c/text", "y/audio", "y/text"}
        assert net.table["y"].seen.sum() == 0


class TestSDT:
    def dialogue(self, targets):
        batch = clips(targets)
        steps = torch.ones(8, 3, dtype=torch.bool)
        return Batch(inputs=batch.inputs, axis="dialogue", steps=steps, targets=targets)

    def test_every_modality_has_a_label_loss_and_a_teacher(self):
        net = build("sdt", {"y": 3}, hidden=8).train()
        losses = net(self.dialogue({"y": torch.zeros(8, 3, dtype=torch.long)})).losses
        assert set(losses) == {"y/audio", "y/audio/teacher", "y/text", "y/text/teacher"}
        assert all(loss > 0 for loss in losses.values())

    @pytest.mark.parametrize("outputs", [1, 3])
    def test_the_teacher_is_held_fixed(self, outputs):
        net = build("sdt", {"y": outputs}, hidden=8, dropout=0.0).train()
        shape = (8, 3) if outputs == 1 else (8, 3, 3)
        losses = net(self.dialogue({"y": torch.zeros(shape)})).losses
        losses["y/audio/teacher"].backward()
        assert net.heads.task["y"].weight.grad is None
        assert net.student["audio"].task["y"].weight.grad.abs().sum() > 0


TWO_PROCESSES = """
import sys, torch
from torch import distributed
from fusion.nets._label_table import LabelTable
rank, store = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
rows = (torch.tensor([0, 1, 2]), torch.tensor([3]))[rank]
truth = torch.tensor([-2.0, -1.0, 1.0, 2.0])
features = torch.arange(12.0).view(4, 3)
table = LabelTable({"fusion": 3, "audio": 3}, 3.0)
for _ in range(2):
    table.update(rows, truth[rows], {n: features[rows] for n in ("fusion", "audio")}, {})
print(table.label_audio[:4].tolist(), table.seen[:4].tolist())
distributed.destroy_process_group()
"""


def test_processes_of_a_distributed_run_hold_the_same_label_table(tmp_path):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0].strip() for process in started]
    assert said[0] == said[1]
    assert said[0].endswith("[2, 2, 2, 2]")
