"""Part `encoders`: the rate of each model of the hub by itself, and its share of what the card multiplies."""

import itertools
import logging

import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.gpu import sizes
from tests.gpu.machine import matrix_rate, seconds_of

WORTH = 1.05
"""A larger batch has to be this much faster, twice, or it was the last."""


def measure(task, say):
    """Every model in both half precisions, each for its share of the time."""
    logging.disable(logging.WARNING)
    chosen = [name for name in sizes.SIZES if not task.encoders or name in task.encoders]
    from encoders import ENCODERS, registry

    of_the_hub = [name for name in ENCODERS if is_of_the_hub(registry.find(name))]
    for name in sizes.without_size(of_the_hub) if not task.encoders else ():
        say(name, error="no size is written down in tests/gpu/sizes.py")
    products = {dtype: matrix_rate(task.device, dtype) for dtype in (torch.bfloat16, torch.float16)}
    for number, name in enumerate(chosen):
        if task.left_s <= 1:
            say(name, error="no time was left")
            continue
        share_s = task.left_s / (len(chosen) - number)
        say.attempt(name, lambda name=name, share_s=share_s: rates(name, task, products, share_s))


def is_of_the_hub(spec):
    """Whether its weights are a model of the hub."""
    return spec.own_weights or any(each.uri.startswith("hf://") for each in spec.weights)


def rates(name, task, products, share_s):
    """Clips a second in each precision, and what one clip takes."""
    model, _ = sizes.build(name, small=task.small, device=task.device)
    facts = {"parameters_m": round(sum(p.numel() for p in model.parameters()) / 1e6, 1)}
    # Not in inference mode, where the counter does not see weights that are made of two parts.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(model, sizes.inputs(name, model, 1, task.device, torch.float32))
    flops = counter.get_total_flops()
    with torch.inference_mode():
        facts["gflop"] = round(flops / 1e9, 2)
        for dtype, product in products.items():
            short = str(dtype).removeprefix("torch.")
            try:
                best = best_batch(name, model.to(dtype), task, dtype, share_s / 3)
            except (RuntimeError, TypeError) as error:
                facts[short] = {"error": str(error).splitlines()[0][:200]}
                continue
            share = best["clips_per_s"] * flops / 1e12 / product
            facts[short] = {**best, "share_of_matrix_rate": round(share, 3)}
    return facts


def best_batch(name, model, task, dtype, budget_s):
    """Rate at the best of the batches 1, 2, 4, ..., and that batch."""
    found, poor = [], 0
    for power in itertools.count():
        batch = 2**power
        try:
            given = sizes.inputs(name, model, batch, task.device, dtype)
            each_s = seconds_of(lambda given=given: call(model, given), task.device, budget_s=0.05)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        best = max((rate for rate, _ in found), default=0.0)
        found.append((batch / each_s, batch))
        poor = poor + 1 if batch / each_s < WORTH * best else 0
        # The next one takes about twice as long, four times over.
        budget_s -= 4 * each_s
        if poor == 2 or 8 * each_s > budget_s or (task.small and batch == 4):
            break
    rate, batch = max(found)
    facts = {"clips_per_s": round(rate, 1), "batch": batch}
    if task.device == "cuda":
        facts["memory_gb"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        torch.cuda.reset_peak_memory_stats()
    return facts


def call(model, given):
    """What a model says of some clips; VGGish names its input otherwise than the hub does."""
    return model(*given.values()) if sizes.PATCHES in given else model(**given)
