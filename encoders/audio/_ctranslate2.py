"""Read a Whisper model in CTranslate2's ``model.bin`` into the parameter names of transformers.

The file (version 6) is a header, then variables, each a name, a shape, a type and little-endian numbers, then
aliases. Names map one to one, but for stacked projections: self-attention holds query, key and value in
one matrix, cross-attention key and value; the key's bias is zero, and Whisper has none.
"""

import re
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cluster.errors import WeightsError

_VERSION = 6
_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_RENAMED = (
    (r"^(encoder|decoder)/layer_norm/", r"\1.layer_norm."),
    (r"^(encoder|decoder)/layer_(\d+)/", r"\1.layers.\2."),
    (r"self_attention/layer_norm/", "self_attn_layer_norm."),
    (r"attention/layer_norm/", "encoder_attn_layer_norm."),
    (r"self_attention/linear_1/", "self_attn.out_proj."),
    (r"attention/linear_0/", "encoder_attn.q_proj."),
    (r"attention/linear_2/", "encoder_attn.out_proj."),
    (r"ffn/layer_norm/", "final_layer_norm."),
    (r"ffn/linear_0/", "fc1."),
    (r"ffn/linear_1/", "fc2."),
    (r"^encoder/(conv\d)/", r"encoder.\1."),
    (r"position_encodings/encodings$", "embed_positions.weight"),
    (r"decoder/embeddings/", "decoder.embed_tokens."),
    (r"^(encoder|decoder)/embed_positions", r"\1.embed_positions"),
    (r"gamma$", "weight"),
    (r"beta$", "bias"),
)


def whisper_parameters(path: Path) -> dict[str, Tensor]:
    """Name in ``transformers.WhisperModel`` -> parameter, float32.

    Raises:
        WeightsError: the file is not of the version that is understood.
    """
    out: dict[str, Tensor] = {}
    for name, array in variables(path).items():
        if array.ndim == 0 or "/alignment" in name:
            continue
        tensor = torch.from_numpy(array.astype(np.float32))
        stem, _, leaf = name.rpartition("/")
        if stem.endswith("self_attention/linear_0"):
            _put(out, stem.replace("self_attention/linear_0", "self_attn"), "qkv", leaf, tensor)
        elif stem.endswith("attention/linear_1") and "self_attention" not in stem:
            _put(out, stem.replace("attention/linear_1", "encoder_attn"), "kv", leaf, tensor)
        else:
            out[_renamed(name)] = tensor
    return out


def variables(path: Path) -> dict[str, np.ndarray]:
    """All variables of a ``model.bin``, as they are stored."""
    content = path.read_bytes()
    offset = 0

    def number(code: str) -> int:
        nonlocal offset
        (value,) = struct.unpack_from("<" + code, content, offset)
        offset += struct.calcsize(code)
        return int(value)

    def text() -> str:
        nonlocal offset
        length = number("H")
        value = content[offset : offset + length - 1].decode()
        offset += length
        return value

    if (version := number("I")) != _VERSION:
        raise WeightsError(f"{path} is version {version} of CTranslate2's format, expected 6")
    text()  # the name of the model class
    number("I")  # its revision
    out = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = _TYPES[number("B")], number("I")
        out[name] = np.frombuffer(content, kind, size // np.dtype(kind).itemsize, offset)
        out[name] = out[name].reshape(shape)
        offset += size
    return out


def _put(out: dict[str, Tensor], stem: str, parts: str, leaf: str, tensor: Tensor) -> None:
    """Cut a stacked projection into its parts."""
    stem = _renamed(stem + "/").rstrip("/").rstrip(".")
    for part, rows in zip(parts, tensor.chunk(len(parts)), strict=True):
        if (part, leaf) != ("k", "bias"):
            out[f"{stem}.{part}_proj.{leaf}"] = rows


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
