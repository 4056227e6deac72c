"""Tiny random checkpoints of models that no library holds, as their authors publish them."""

import numpy as np
import torch

DIM = 32


def efficientnet(outputs):
    """Parameters of a narrow EfficientNet, one block a stage and two in the third, by their names."""
    torch.manual_seed(0)
    states = {"conv_stem.weight": (8, 3, 3, 3), "conv_head.weight": (DIM, 8, 1, 1)}
    norms = {"bn1": 8, "bn2": DIM}
    for stage in range(7):
        for index in range(2 if stage == 2 else 1):
            block = f"blocks.{stage}.{index}."
            inside = 24 if stage else 8
            states[block + "conv_dw.weight"] = (inside, 1, 5 if stage % 2 else 3, 0)
            states[block + "se.conv_reduce.weight"] = (4, inside, 1, 1)
            states[block + "se.conv_expand.weight"] = (inside, 4, 1, 1)
            states[block + "se.conv_reduce.bias"] = (4,)
            states[block + "se.conv_expand.bias"] = (inside,)
            states[block + "conv_pw.weight"] = (inside, 8, 1, 1)
            norms |= {block + "bn1": inside, block + "bn2": inside if stage else 8}
            if stage:
                states[block + "conv_pwl.weight"] = (8, inside, 1, 1)
                norms[block + "bn3"] = 8
    shapes = {n: (*s[:3], s[2]) if s[-1] == 0 else s for n, s in states.items()}
    made = {name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}
    for name, width in norms.items():
        for part in ("weight", "bias", "running_mean", "running_var"):
            made[f"{name}.{part}"] = torch.rand(width) * 0.5 + 0.5
    made["classifier.weight"] = torch.randn(outputs, DIM)
    made["classifier.bias"] = torch.randn(outputs)
    return made


def emotieffnet(folder, outputs=8):
    from safetensors.torch import save_file

    save_file(efficientnet(outputs), folder / "model.safetensors")


def emotieffnet_va(folder):
    emotieffnet(folder, outputs=10)


def sensevoice_shapes(feature, dim, hidden, kernel, blocks, vocabulary):
    """Parameters of SenseVoice small by their names; `blocks` of its three parts."""
    found = {"embed.weight": (16, feature)}
    for part, count in zip(("encoders0", "encoders", "tp_encoders"), blocks, strict=True):
        for index in range(count):
            block, ins = f"encoder.{part}.{index}.", feature if part == "encoders0" else dim
            found[block + "self_attn.fsmn_block.weight"] = (dim, 1, kernel)
            for name, outs, width in (
                ("self_attn.linear_q_k_v", 3 * dim, ins),
                ("self_attn.linear_out", dim, dim),
                ("feed_forward.w_1", hidden, dim),
                ("feed_forward.w_2", dim, hidden),
            ):
                found |= {f"{block}{name}.weight": (outs, width), f"{block}{name}.bias": (outs,)}
            for name, width in (("norm1", ins), ("norm2", dim)):
                found |= {f"{block}{name}.{part_}": (width,) for part_ in ("weight", "bias")}
    for name in ("after_norm", "tp_norm"):
        found |= {f"encoder.{name}.{part}": (dim,) for part in ("weight", "bias")}
    return found | {"ctc.ctc_lo.weight": (vocabulary, dim), "ctc.ctc_lo.bias": (vocabulary,)}


def sensevoice_pieces():
    from encoders.audio.sensevoice import TOKENS_OF

    languages = [f"<|{code}|>" for code in ("zh", "en", "yue", "ja", "ko")]
    words = ["\u2581so", "\u2581fun", "ny", "\u2581what", "a", "\u6b4c", "."]
    return ["<unk>", "<s>", "</s>", *words, *languages, *TOKENS_OF.values()]


def sensevoice(folder):
    torch.manual_seed(0)
    pieces = sensevoice_pieces()
    shapes = sensevoice_shapes(560, DIM, 48, 5, (1, 1, 1), len(pieces))
    states = {
        name: torch.rand(shape) + 0.5 if "norm" in name else torch.randn(shape) * 0.2
        for name, shape in shapes.items()
    }
    torch.save(states, folder / "model.pt")
    numbers = np.random.default_rng(0).uniform(0.05, 0.15, (2, 560)) - [[10], [0]]
    blocks = [f"<LearnRateCoef> 0 [ {' '.join(map(str, row))} ]" for row in numbers]
    kinds = ("<AddShift> 560 560", "<Rescale> 560 560")
    lines = [line for pair in zip(kinds, blocks, strict=True) for line in pair]
    (folder / "am.mvn").write_text("\n".join(["<Nnet>", *lines, "</Nnet>", ""]))
    texts = [piece.encode() for piece in pieces]
    score = b"\x15\x00\x00\x80\xbf"  # a float, which readers of pieces pass over
    each = [b"\x0a" + bytes([len(text)]) + text + score + b"\x18\x01" for text in texts]
    content = b"".join(b"\x0a" + bytes([len(piece)]) + piece for piece in each)
    (folder / "chn.bpe.model").write_bytes(content + b"\x12\x02\x20\x07")
