"""`sft/costs.py`: counts of bytes, operations and slopes against numbers known beforehand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sft import costs
from sft.attention import attention
from sft.transformer import TransformerConfig


def test_kept_bytes_counts_shared_memory_once_and_leaves_parameters_out():
    x = torch.randn(10, requires_grad=True)
    assert costs.kept_bytes(lambda x: x * x, (x,))[0] == 40  # both factors are the same memory
    layer = nn.Linear(10, 10)
    with_weight, y = costs.kept_bytes(layer, (x[None],))
    assert with_weight - costs.kept_bytes(layer, (x[None],), layer.parameters())[0] == 400
    torch.testing.assert_close(y, layer(x[None]))


def test_peak_counts_what_is_held_at_one_time():
    def work() -> None:
        a = torch.ones(250_000)  # 1 MB each
        b = a + 1
        del a
        c = b + 1  # two at a time, three in all
        del b, c

    assert costs.peak_bytes(work, torch.device("cpu")) == pytest.approx(2_000_000, rel=0.01)
    assert costs.peak_bytes(lambda: None, torch.device("cpu")) == 0
    x = torch.ones(250_000, requires_grad=True)
    assert costs.peak_bytes(lambda: x.view(10, -1)[0], torch.device("cpu")) == 0  # the same memory
    backward = costs.peak_bytes(lambda: x.exp().sum().backward(), torch.device("cpu"))
    assert backward >= 2_000_000  # the result, kept, and the gradient


def test_exponent_of_the_larger_half():
    sizes = [1, 2, 4, 8, 16, 32]
    assert costs.exponent(sizes, [9.0, 1.0, 4.0, 64.0, 256.0, 1024.0]) == pytest.approx(2)


def test_fastest_seconds_repeats():
    calls = []
    assert costs.fastest_seconds(lambda: calls.append(1), at_least=0, times=4) >= 0
    assert len(calls) == 4


def test_one_thread_meanwhile():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), costs.one_thread():
        assert torch.get_num_threads() == 1
        raise RuntimeError
    assert torch.get_num_threads() == before


def test_attention_keeps_a_matrix():
    ways = {"ours": lambda *x: attention(*x)[0]}
    seconds, kept = costs.measure_lengths(ways, [32, 64], torch.device("cpu"))
    assert len(seconds["ours"]) == 2 and min(seconds["ours"]) > 0
    assert 4 * 4 * 64 * 64 <= kept["ours"][1] <= 2 * 4 * 4 * 64 * 64 + 4 * 4 * 64 * 32 * 4 + 64


def test_flops_of_a_product():
    a, b = torch.empty(3, 5, device="meta"), torch.empty(5, 7, device="meta")
    assert costs.count_flops(torch.matmul, a, b) == 2 * 3 * 5 * 7


@pytest.mark.parametrize("layers", [1, 3])
def test_memory_of_training_is_what_the_formula_says(layers: int):
    config = TransformerConfig(10, 32, 4, 128, layers, dropout=0.0)
    predicted, measured = costs.training_memory(config, 2, 24, torch.device("cpu"))
    assert {k: v for k, v in predicted.items() if k != "激活"} == {
        k: v for k, v in measured.items() if k != "激活"
    }
    assert predicted["激活"] == pytest.approx(measured["激活"], rel=0.02)
