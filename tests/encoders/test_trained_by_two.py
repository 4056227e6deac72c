"""Two workers train any encoder that publishes its inputs as one does with the same rows a step."""

import os
import socket

import pytest
import torch
from torch import multiprocessing

from encoders import ENCODERS
from encoders.registry import find, load, load_branch
from fusion.batch import Batch, Steps
from fusion.predictor import Card, build
from fusion.tasks import Task
from fusion.training.loop import Course, Group, RowSplit, fit
from fusion.training.recipe import Recipe

pytestmark = pytest.mark.slow

TASKS = {"mood": Task(kind="classification", classes=("low", "high"))}
OFFLINE = ("minilm", "whisper_tiny_en")
"""With their real weights, which are larger: tested by their kin `hub_text` and `whisper_base`."""

TRAINED = [n for n in sorted(ENCODERS) if find(n).inputs is not None and n not in OFFLINE]
NET = {
    "head_options.hidden": 8,
    "head_options.dropout": 0.0,
    "dropout_inside": False,
    "encoder_rate": 0.5,
}
RECIPE = Recipe(epochs=2, patience=0, batch_size=4, lr=0.02, optimiser="sgd", clip_norm=0.0)
"""Steps as large as their gradients: Adam would hide a factor, and scale up what is rounding."""


class Published:
    """Published inputs of some clips, as rows."""

    def __init__(self, inputs) -> None:
        self.values = [torch.from_numpy(each.values).float() for each in inputs]
        self.valid = [torch.from_numpy(each.valid) for each in inputs]
        self.lengths = torch.tensor([len(each) for each in self.values])

    def batch(self, rows):
        longest = int(self.lengths[rows].max())
        values = torch.zeros(len(rows), longest, self.values[0].shape[1])
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for at, row in enumerate(rows.tolist()):
            values[at, : len(self.values[row])] = self.values[row]
            mask[at, : len(self.valid[row])] = self.valid[row]
        targets, known = self.targets(rows)
        inputs = {"x": Steps(values, mask)}
        return Batch(inputs=inputs, clip_id=rows, index=rows, targets=targets, target_masks=known)

    def targets(self, rows):
        return {"mood": rows % 2}, {"mood": torch.ones(len(rows), dtype=torch.bool)}


@pytest.fixture(scope="module")
def cases(case_of, clips_for):
    """Encoder -> feed of its published inputs, its descriptor and its tiny weights."""
    found = {}
    for name in TRAINED:
        px = 48 if name.startswith("emotieffnet") else 32
        side = f",px={px}" if find(name).modality == "video" else ""
        descriptor, weights = case_of(name, f"publish=inputs{side}")
        clips = clips_for(descriptor, (0.7, 1.3, 1.1, 0.9, 0.8, 1.2))
        found[name] = Published(load(descriptor, weights).encode(clips)), descriptor, weights
    return found


def trained(case, group=None):
    """Weights after two epochs."""
    feed, descriptor, weights = case
    card = Card(net="finetune", config=NET, tasks=TASKS, dims={"x": descriptor.dim})
    torch.manual_seed(7)
    predictor = build(card, {"x": load_branch(descriptor, weights)})
    rows = RowSplit(train=torch.arange(6), valid=torch.arange(0))
    fit(predictor, feed, rows, RECIPE, tasks=TASKS, group=group, course=Course(seed=3))
    return predictor.state_dict()


def _worker(rank, port, folder, cases):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    for name, case in cases.items():
        torch.save(trained(case, Group.joined()), f"{folder}/{name}.{rank}")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def by_two(cases, tmp_path_factory):
    """Folder with the weights that two workers end with, of every encoder."""
    folder = tmp_path_factory.mktemp("by_two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_worker, args=(rank, port, str(folder), cases)) for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(200)
        assert worker.exitcode == 0
    return folder


def test_every_modality_is_among_them():
    assert {find(name).modality for name in TRAINED} == {"audio", "text", "video"}
    assert len(TRAINED) == 27


@pytest.mark.parametrize("name", TRAINED)
def test_two_workers_equal_one(name, cases, by_two):
    ours, theirs = (torch.load(by_two / f"{name}.{rank}", weights_only=True) for rank in (0, 1))
    alone, start = trained(cases[name]), load_branch(*cases[name][1:]).state_dict()
    for key, value in alone.items():
        assert torch.equal(ours[key], theirs[key])
        torch.testing.assert_close(ours[key], value, atol=1e-5, rtol=1e-3)
    inside = "net.branches.x."
    moved = [
        key
        for key, value in start.items()
        if inside + key in alone and not torch.equal(alone[inside + key], value)
    ]
    assert len(moved) > 10
