"""The results as Markdown, with date and card."""


def markdown(found):
    """One heading, and a table a part."""
    parts = found["parts"]
    machine = {line["name"]: line for line in parts.get("matrix", {}).get("found", [])}
    facts = machine.get("machine", {})
    tiny = "tiny sizes, the figures say nothing"
    card = facts.get("gpu") or (f"no GPU: {tiny}" if facts else "machine not measured")
    lines = [f"### {card}, {facts.get('cores', '?')} cores, {found['date'][:10]}", ""]
    products = [
        f"{name} {machine[name]['tflops']:g}"
        for name in ("bfloat16", "float16", "float32")
        if "tflops" in machine.get(name, {})
    ]
    lines += [f"Matrix product [TFLOP/s]: {', '.join(products) or 'not measured'}", ""]
    for name, columns, cells in TABLES:
        rows = [line for line in parts.get(name, {}).get("found", []) if "error" not in line]
        if rows:
            lines += [row(["", *columns]), row(["---", *["--:"] * len(columns)])]
            lines += [row([line["name"], *cells(line)]) for line in rows]
            lines.append("")
    for name, part in parts.items():
        for line in part["found"]:
            if "error" in line:
                lines.append(f"- {name}, {line['name']}: {line['error']}")
    return "\n".join(lines).rstrip() + "\n"


def row(cells):
    """A line of a table; a bar inside a cell would end it."""
    return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"


def of_encoder(line):
    cells = [line["parameters_m"], line["gflop"]]
    for dtype in ("bfloat16", "float16"):
        each = line[dtype]
        if "error" in each:
            cells += [each["error"][:60], "", ""]
        else:
            cells += [each["clips_per_s"], each["batch"], f"{each['share_of_matrix_rate']:.0%}"]
    return cells


def of_encode(line):
    rates = [f"{stage}_clips_per_s" for stage in ("decode", "models", "whole")]
    keys = [*rates, "efficiency", "gpu_use", "gpu_memory_gb"]
    return [line.get(key, "") for key in keys]


def of_finetune(line):
    keys = ["trained_m", "cuda_bfloat16_ms", "cuda_float32_ms", "cpu_float32_ms", "times_faster"]
    best_ms = min(value for key, value in line.items() if key.endswith("_ms"))
    memory = [line.get(f"{name}_memory_gb", "") for name in ("bfloat16", "float32")]
    return [*(line.get(key, "") for key in keys), f"{1e3 / best_ms:.1f}", *memory]


TABLES = (
    (
        "encoders",
        ["M parameters", "GFLOP a clip", "bf16 clips/s", "batch", "of matrix rate",
         "fp16 clips/s", "batch", "of matrix rate"],
        of_encoder,
    ),
    (
        "decode",
        ["clips/s", "mean distance of a pixel's values from ours [0..255]"],
        lambda line: [line["clips_per_s"], line.get("mean_apart", "")],
    ),
    (
        "encode",
        ["decode clips/s", "models clips/s", "whole clips/s", "efficiency", "GPU %", "GPU GB"],
        of_encode,
    ),
    (
        "nets",
        ["GPU ms a step", "CPU ms a step", "times faster"],
        lambda line: [line.get(key, "") for key in ("cuda_ms", "cpu_ms", "times_faster")],
    ),
    (
        "finetune",
        ["M trained", "GPU bf16 ms", "GPU float32 ms", "CPU ms", "times faster", "steps/s",
         "bf16 GB", "float32 GB"],
        of_finetune,
    ),
)  # fmt: skip
"""Part, columns, and the cells of a line."""
