"""Shapes of the parameters of models that no library holds, by their published names and sizes."""

B0 = {
    "stem": 32,
    "widths": (16, 24, 40, 80, 112, 192, 320),
    "repeats": (1, 2, 2, 3, 3, 4, 1),
    "head": 1280,
}
B2 = {
    "stem": 32,
    "widths": (16, 24, 48, 88, 120, 208, 352),
    "repeats": (2, 3, 3, 4, 4, 5, 2),
    "head": 1408,
}
THIN = {"stem": 8, "widths": (8,) * 7, "repeats": (1,) * 7, "head": 32}
KERNELS = (3, 3, 5, 3, 5, 5, 3)
SMALL_SENSEVOICE = {"dim": 32, "hidden": 48, "kernel": 5, "blocks": (1, 1, 1), "vocabulary": 40}
SENSEVOICE = {"dim": 512, "hidden": 2048, "kernel": 11, "blocks": (1, 49, 20), "vocabulary": 25055}
FEATURE = 560


def efficientnet(*, stem, widths, repeats, head, outputs):
    """Of an EfficientNet: blocks of the first stage are not widened, those of the others sixfold."""
    found = {"conv_stem.weight": (stem, 3, 3, 3), "conv_head.weight": (head, widths[-1], 1, 1)}
    ins = stem
    for stage, (width, count, kernel) in enumerate(zip(widths, repeats, KERNELS, strict=True)):
        for index in range(count):
            block, inside = f"blocks.{stage}.{index}.", ins * 6 if stage else ins
            few = max(1, ins // 4)
            found |= {
                f"{block}conv_dw.weight": (inside, 1, kernel, kernel),
                f"{block}se.conv_reduce.weight": (few, inside, 1, 1),
                f"{block}se.conv_expand.weight": (inside, few, 1, 1),
            }
            if stage:
                found[f"{block}conv_pw.weight"] = (inside, ins, 1, 1)
                found[f"{block}conv_pwl.weight"] = (width, inside, 1, 1)
            else:
                found[f"{block}conv_pw.weight"] = (width, inside, 1, 1)
            ins = width
    return found | {"classifier.weight": (outputs, head), "classifier.bias": (outputs,)}


def sensevoice(*, dim, hidden, kernel, blocks, vocabulary):
    """Of SenseVoice: one block that widens, and two stacks."""
    found = {"embed.weight": (16, FEATURE), "ctc.ctc_lo.bias": (vocabulary,)}
    for part, count in zip(("encoders0", "encoders", "tp_encoders"), blocks, strict=True):
        for index in range(count):
            block = f"encoder.{part}.{index}."
            found |= {
                f"{block}self_attn.fsmn_block.weight": (dim, 1, kernel),
                f"{block}self_attn.linear_out.bias": (dim,),
                f"{block}feed_forward.w_1.bias": (hidden,),
                f"{block}norm1.weight": (dim,),
            }
    return found
