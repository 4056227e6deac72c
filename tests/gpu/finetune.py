"""Part `finetune`: a training step of a net that owns its encoders, on the card and on all cores.

Models of the sizes of MiniLM, Whisper tiny and CLIP ViT-B/32 with random weights, read as a run reads
them: from a folder, through `load_branch`. Each line is one way to train them.
"""

import torch

from fusion.batch import Batch, Steps
from fusion.nets import net_class, net_config
from tests.gpu import sizes
from tests.gpu.machine import seconds_of
from tests.gpu.nets import training_step

ROWS = 32
WAYS = {
    "all of it": {},
    "half frozen": {"freeze": None},
    "low-rank updates": {"lora": 8},
    "blocks run again": {"recompute": True},
}
"""Options of the net; `freeze` is filled in: half of the blocks."""

ENCODERS = {
    # input: (encoder, size in tests/gpu/sizes.py, width, blocks)
    "text": ("hub_text", "minilm", 384, 6),
    "sound": ("whisper_base", "whisper_tiny_en", 384, 4),
    "pictures": ("clip_vit", "clip_vit", 768, 12),
}
BOTH = ("text", "sound")
PICTURES = 4
"""Pictures a clip."""

SMALL_SIZE = {"dim": 32, "depth": 2}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def measure(task, say):
    """Each way for each encoder, then two encoders in one net."""
    lines = [((name,), way) for name in ENCODERS for way in WAYS]
    lines.append((BOTH, "all of it"))
    for number, (names, way) in enumerate(lines):
        title = f"{' and '.join(names)}, {way}"
        if task.left_s <= 1:
            say(title, error="no time was left")
            continue
        share_s = task.budget_s(task.left_s / (len(lines) - number) / len(task.devices) / 6)
        say.attempt(
            title, lambda names=names, way=way, share_s=share_s: steps(names, way, task, share_s)
        )


def steps(names, way, task, share_s):
    """Milliseconds of a step by device and precision, and the card's memory."""
    found = {}
    for device in task.devices:
        for title, dtype in DTYPES.items():
            if device == "cpu" and dtype is not torch.float32 and "cuda" in task.devices:
                continue  # nobody trains so; without a card it shows that the script works
            torch.manual_seed(0)
            step = training_step(*built(names, way, task, device), dtype)
            seconds = seconds_of(step, device, budget_s=share_s)
            found[f"{device}_{title}_ms"] = round(1e3 * seconds, 2)
            if device == "cuda":
                del step
                found[f"{title}_memory_gb"] = peak_gb()
    if "cuda_bfloat16_ms" in found:
        faster = found["cpu_float32_ms"] / found["cuda_bfloat16_ms"]
        found["times_faster"] = round(faster, 1)
    return {**found, "rows": rows_of(task), "trained_m": trained_m(names, way, task)}


def peak_gb():
    """Most memory of the card since the last call; what is free is given back."""
    gb = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return round(gb, 2)


def trained_m(names, way, task):
    """Parameters that are trained [millions]."""
    net, _ = built(names, way, task, "cpu")
    return round(sum(p.numel() for p in net.parameters() if p.requires_grad) / 1e6, 3)


def rows_of(task):
    return 4 if task.small else ROWS


def built(names, way, task, device):
    """The net and a batch of clips whose every step is real."""
    branches = {name: branch_of(name, task) for name in names}
    options = dict(WAYS[way])
    if "freeze" in options:
        options["freeze"] = min(branch.depth for branch in branches.values()) // 2
    config = net_config("finetune", options)
    given = {name: given_to(branch, rows_of(task)) for name, branch in branches.items()}
    dims = {name: one.values.shape[-1] for name, one in given.items()}
    net = net_class("finetune")(config, dims=dims, outputs={"y": 7}, branches=branches)
    batch = Batch(inputs=given, index=torch.arange(rows_of(task)))
    return net.to(device).train(), batch.to(device)


def branch_of(name, task):
    """An encoder as a run loads it, of a folder that the first call writes."""
    from encoders.registry import describe, load_branch
    from encoders.store import local_paths

    encoder, size, width, depth = ENCODERS[name]
    folder = task.work / "branches" / name
    if not folder.exists():
        _, whole = sizes.build(size, small=task.small, device="cpu")
        whole.save_pretrained(folder)
    facts = SMALL_SIZE if task.small else {"dim": width, "depth": depth}
    if name == "pictures" and task.small:
        facts = {**facts, "px": 32}
    shape = ",".join(f"{key}={value}" for key, value in facts.items())
    descriptor = describe(f"{encoder}:weights=file://{folder},{shape},publish=inputs")
    return load_branch(descriptor, local_paths(descriptor.weights, str(task.work)))


def given_to(branch, rows):
    """Published inputs of some clips of five seconds: tokens, two log-mel frames a step, or pictures."""
    config = branch.model.config
    if hasattr(config, "image_size"):
        values = torch.randint(256, (rows, PICTURES, 3 * config.image_size**2)).float()
        return Steps(values, torch.ones(values.shape[:2], dtype=torch.bool))
    if hasattr(config, "num_mel_bins"):
        values = torch.randn(rows, round(sizes.CLIP_S * 50), 2 * config.num_mel_bins)
    else:
        own = torch.ones(rows, sizes.TOKENS)
        values = torch.stack([torch.full_like(own, 5), own], -1)
    return Steps(values, torch.ones(values.shape[:2], dtype=torch.bool))
