"""Part `nets`: one training step of each net (forward, backward, Adam) on the card and on all cores."""

import torch

from fusion.batch import Batch, Steps
from fusion.nets import NETS, net_class, net_config
from fusion.training.optimiser import optimiser_of
from fusion.training.recipe import Recipe
from tests.fusion.small_nets import SMALL
from tests.gpu.machine import seconds_of

DIMS = {"text": 768, "audio": 1024, "video": 768}
ROWS, STEPS = 32, 50


def measure(task, say):
    """Every net, each for its share of the time."""
    chosen = [name for name in NETS if not task.nets or name in task.nets]
    for number, name in enumerate(chosen):
        if task.left_s <= 1:
            say(name, error="no time was left")
            continue
        share_s = task.budget_s(task.left_s / (len(chosen) - number) / len(task.devices) / 3)
        say.attempt(name, lambda name=name, share_s=share_s: steps(name, task, share_s))


def steps(name, task, share_s):
    """Milliseconds of a step on each device."""
    found = {}
    for device in task.devices:
        net, batch = built(name, small=task.small, device=device)
        step = training_step(net, batch)
        found[f"{device}_ms"] = round(1e3 * seconds_of(step, device, budget_s=share_s), 2)
    if "cuda_ms" in found:
        found["times_faster"] = round(found["cpu_ms"] / found["cuda_ms"], 1)
    return {**found, "rows": ROWS, "steps": STEPS}


def training_step(net, batch, dtype=torch.float32):
    """A function that trains a net on a batch once: forward by autocast, backward, Adam."""
    optimiser = optimiser_of(net, Recipe(lr=1e-4))
    device = next(net.parameters()).device.type

    def step():
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=dtype, enabled=dtype is not torch.float32):
            output = net(batch)
        loss = sum(logits.float().square().mean() for logits in output.logits.values())
        (loss + sum(output.losses.values(), torch.zeros(()).to(loss))).backward()
        optimiser.step()

    return step


def built(name, *, small, device):
    """A net and a batch whose every step is real."""
    torch.manual_seed(0)
    kind = net_class(name)
    dims = {"text": DIMS["text"]} if name == "lstm" else DIMS
    if small:
        dims = dict.fromkeys(dims, 8)
    net = kind(net_config(name, SMALL.get(name, {}) if small else {}), dims=dims, outputs={"y": 7})
    rows, length = (4, 6) if small else (ROWS, STEPS)
    mask = torch.ones(rows, length, dtype=torch.bool)
    given = {key: Steps(torch.randn(rows, length, dim), mask) for key, dim in dims.items()}
    extra = {}
    if kind.axis == "dialogue":
        extra = {"steps": mask, "speaker": torch.zeros(rows, length, dtype=torch.long)}
    batch = Batch(inputs=given, axis=kind.axis, index=torch.arange(rows), **extra)
    return net.to(device).train(), batch.to(device)
