"""What a computation costs, measured: seconds, and the memory that it keeps for the backward pass."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from sft import plotting
from sft.transformer import EncoderLayer, TransformerConfig


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread meanwhile.

    Threads wait for one another: with matrices this small that costs more than they save, and on a busy machine the
    waiting is all that a clock measures.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def kept_bytes(
    f: Callable[..., Any], inputs: Sequence[torch.Tensor] = (), parameters: Iterable[torch.Tensor] = ()
) -> tuple[int, Any]:
    """Bytes that ``f(*inputs)`` keeps for the backward pass, ``parameters`` not counted, and its result.

    Memory that several tensors share is counted once. The result is held until the end: memory set free meanwhile
    would be lent to others and be missed.
    """
    kept = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = f(*inputs)
    for parameter in parameters:
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(kept.values()), result


def peak_bytes(f: Callable[[], Any], device: torch.device) -> int:
    """Most bytes that ``f()`` held at one time, on top of what was there before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        f()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler talks, past Python, into the notebook
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        f()
    found = [e for e in watched.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(found, key=lambda e: e.start_ns())]  # released: negative
    return int(max(np.cumsum(changes), default=0))


def fastest_seconds(f: Callable[[], Any], at_least: float = 0.05, times: int = 3) -> float:
    """Seconds of the fastest call of ``f``, which is repeated for ``at_least`` seconds and ``times`` times."""
    found: list[float] = []
    began = time.perf_counter()
    while len(found) < times or time.perf_counter() - began < at_least:
        start = time.perf_counter()
        f()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Slope in a log-log plot over the larger half of the sizes: 2 where twice the size costs four times as much."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(costs[half:]), 1)[0])


def measure_lengths(
    ways: dict[str, Callable[..., Any]], lengths: Sequence[int], device: torch.device
) -> tuple[dict[str, list[float]], dict[str, list[int]]]:
    """Seconds on one thread, and bytes kept for the backward pass, of each way at each length: 4 heads of 32."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    kept: dict[str, list[int]] = {name: [] for name in ways}
    with one_thread():
        for length in lengths:
            inputs = torch.randn(3, 1, 4, length, 32, device=device)
            for name, way in ways.items():
                with torch.no_grad():
                    seconds[name].append(fastest_seconds(lambda way=way, inputs=inputs: way(*inputs)))
                leaves = [each.clone().requires_grad_() for each in inputs]
                kept[name].append(kept_bytes(way, leaves)[0])
    return seconds, kept


def count_flops(f: Callable[..., Any], *inputs: torch.Tensor) -> int:
    """Floating-point operations of matrix products in ``f(*inputs)``, on any device, ``meta`` too."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        f(*inputs)
    return counter.get_total_flops()


def training_memory(
    config: TransformerConfig, batch: int, n: int, device: torch.device
) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes of a training step of the encoder's layers: by chapter 3's formula, and measured.

    The formula holds for float32, no dropout, d_ff = 4 d_model and an attention that stores no matrix of weights.
    """
    d, h, layers = config.d_model, config.num_heads, config.num_layers
    stack = nn.Sequential(*(EncoderLayer(config) for _ in range(layers))).to(device)
    x = torch.randn(batch, n, d, device=device, requires_grad=True)
    parameters = list(stack.parameters())
    activations, y = kept_bytes(stack, (x,), parameters)
    optimizer = torch.optim.AdamW(parameters)
    y.sum().backward()
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    count = layers * (12 * d * d + 13 * d)  # four projections, feed-forward; biases and norms
    predicted = {"参数": 4 * count, "梯度": 4 * count, "AdamW": 8 * count}
    predicted["激活"] = 4 * layers * batch * n * (12 * d + h + 4)
    measured = {
        "参数": sum(p.nbytes for p in parameters),
        "梯度": sum(p.grad.nbytes for p in parameters),
        "AdamW": sum(m.nbytes for m in moments),
        "激活": activations,
    }
    return predicted, measured


def plot_costs(lengths: Sequence[int], seconds: dict[str, list[float]], kept: dict[str, list[int]]) -> Figure:
    """Both costs against the length, log-log, the slope in the legend."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8))
    for ax, found, unit in zip(axes, (seconds, kept), ("秒", "字节"), strict=True):
        for (name, values), marker in zip(found.items(), plotting.MARKERS, strict=False):
            label = f"{name}：n 的 {exponent(lengths, values):.1f} 次方"
            ax.loglog(lengths, values, marker=marker, label=label)
        ax.set(xlabel="长度（词元）", ylabel=unit)
        ax.legend(fontsize=9)
    first, second, *_ = seconds
    axes[0].set_title(f"时间：长一倍，{first}慢 {2 ** exponent(lengths, seconds[first]):.1f} 倍")
    axes[1].set_title(f"训练要留的内存：最长时差 {kept[first][-1] / kept[second][-1]:.0f} 倍")
    return figure
