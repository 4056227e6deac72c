"""The steps in C compute what the library calls do, and do without where they cannot be compiled."""

import stat
from pathlib import Path

import pytest
import torch

from fusion.nets.kernels import compiled as building
from fusion.nets.kernels import lstm as lstm_kernel
from fusion.nets.kernels import memory as memory_kernel
from fusion.nets.kernels.compiled import arrays, compiled, library, steps_for
from fusion.nets.kernels.lstm import lstm_states
from fusion.nets.kernels.memory import gated_memory, scan


@pytest.fixture(autouse=True)
def blocks_of_two_steps(monkeypatch):
    monkeypatch.setattr("fusion.nets.kernels.blocks.ROWS", 6)


def needs_compiler():
    if library() is None:
        pytest.skip("no C compiler on this machine")


def outputs_and_gradients(function, *leaves):
    """Of a function of float32 tensors: what it gives, and the gradients of a sum that tells all apart."""
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(y.shape, generator=generator) for y in outputs]
    sum((y * w).sum() for y, w in zip(outputs, weights, strict=True)).backward()
    return [*outputs, *(leaf.grad for leaf in leaves)]


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


KEPT = (torch.rand(7, 3, 12) < 0.7) / 0.7


def lstm(*leaves):
    return lstm_states(*leaves)


def memory(inputs, of_memory, *pairs):
    return gated_memory(inputs, None, of_memory, pairs[:2], pairs[2:4], pairs[4:])


def memory_with_dropout(inputs, of_memory, *pairs):
    return gated_memory(inputs, KEPT, of_memory, pairs[:2], pairs[2:4], pairs[4:])


OF_LSTM = (draw(7, 3, 4), draw(76, 4), draw(76, 19), draw(76))
OF_MEMORY = (
    draw(7, 3, 12),
    draw(9, 19),
    *(part for n in (3, 4, 5) for part in (draw(19, n), draw(19))),
)
OF_SCAN = (draw(7, 3, 19).sigmoid(), draw(7, 3, 19))


@pytest.mark.parametrize(
    ("function", "leaves"),
    [(lstm, OF_LSTM), (memory, OF_MEMORY), (memory_with_dropout, OF_MEMORY), (scan, OF_SCAN)],
    ids=["lstm", "memory", "memory with dropout", "scan"],
)
def test_compiled_steps_give_the_values_and_gradients_of_the_library_calls(
    function, leaves, monkeypatch
):
    needs_compiler()
    ours = outputs_and_gradients(function, *leaves)
    for module in (lstm_kernel, memory_kernel):
        monkeypatch.setattr(module, "steps_for", lambda _: None)
    for mine, right in zip(ours, outputs_and_gradients(function, *leaves), strict=True):
        torch.testing.assert_close(mine, right, atol=2e-5, rtol=2e-5)


def test_large_sums_saturate_and_nan_stays_nan():
    needs_compiler()
    x = torch.tensor([[[-1e30], [-40.0], [0.0], [40.0], [float("inf")], [float("nan")]]])
    zero = torch.zeros(4, 1)
    h, c = lstm_states(x, torch.ones(4, 1), zero, zero[:, 0])
    gate = torch.sigmoid(x[0].double())
    right = gate * torch.tanh(x[0].double())
    torch.testing.assert_close(c[1].double(), right, atol=1e-6, rtol=0, equal_nan=True)
    torch.testing.assert_close(
        h[1].double(), gate * torch.tanh(right), atol=1e-6, rtol=0, equal_nan=True
    )


def test_only_single_precision_on_a_cpu_is_compiled():
    assert steps_for(torch.zeros(1, dtype=torch.float64)) is None
    assert steps_for(torch.zeros(1, device="meta")) is None


@pytest.mark.parametrize("strange", [torch.zeros(4, 3).t(), torch.zeros(3, dtype=torch.float16)])
def test_tensors_that_the_steps_would_misread_are_refused(strange):
    with pytest.raises(ValueError, match="float32 tensors without gaps"):
        arrays(torch.zeros(3), strange)


class TestBuilding:
    """One shared library a source, compiler and processor, in a folder that only its user writes."""

    def compiler(self, folder: Path, body: str) -> str:
        script = folder / "cc"
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        return str(script)

    def test_it_is_compiled_once(self, tmp_path):
        script = self.compiler(
            tmp_path, f'echo x >> {tmp_path}/runs; while [ "$1" != -o ]; do shift; done; : > "$2"'
        )
        first = compiled(script, tmp_path / "cache")
        assert compiled(script, tmp_path / "cache") == first
        assert (tmp_path / "runs").read_text() == "x\n"
        assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
        assert list((tmp_path / "cache").iterdir()) == [first]

    def test_a_cache_that_others_write_is_not_used(self, tmp_path):
        cache = tmp_path / "cache"
        cache.mkdir()
        cache.chmod(0o777)
        with pytest.raises(PermissionError, match="nobody else"):
            compiled(self.compiler(tmp_path, "exit 0"), cache)

    @pytest.mark.parametrize("body", ["echo no such flag >&2; exit 1", "exit 0"])
    def test_without_a_compiler_that_works_the_library_calls_go_on(
        self, tmp_path, monkeypatch, caplog, body
    ):
        script = self.compiler(tmp_path, body)
        monkeypatch.setattr(building.shutil, "which", lambda _: script)
        monkeypatch.setattr(building, "CACHE", tmp_path / "cache")
        assert library.__wrapped__() is None
        assert "slower" in caplog.text

    def test_without_any_compiler_too(self, monkeypatch):
        monkeypatch.setattr(building.shutil, "which", lambda _: None)
        assert library.__wrapped__() is None
