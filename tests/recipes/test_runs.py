"""A run folder: refuses another run's data, survives a stop, names damage."""

from __future__ import annotations

import json

import pytest
import torch

from recipes import runs
from recipes.runs import (
    RunError,
    RunFolder,
    measure_peak_flops,
    model_flops_utilisation,
    training_flops,
)


def test_state_random_numbers_and_log_come_back(tmp_path):
    torch.manual_seed(3)
    run = RunFolder(tmp_path / "run", {"lr": 0.1})
    run.log(1, loss=2.0)
    run.save(1, {"weight": torch.ones(2)})
    expected = torch.rand(3)
    run.log(2, loss=1.0)  # after the checkpoint: a resumed run will write it again

    torch.manual_seed(99)
    again = RunFolder(tmp_path / "run", {"lr": 0.1})
    step, state = again.load()
    assert step == 1 and torch.equal(state["weight"], torch.ones(2))
    assert torch.equal(torch.rand(3), expected)
    assert [line["step"] for line in again.read_log()] == [1]


def test_a_new_run_starts_with_an_empty_log(tmp_path):
    run = RunFolder(tmp_path, {})
    run.log(1, loss=2.0)
    assert RunFolder(tmp_path, {}).load() is None  # stopped before its first checkpoint
    assert run.read_log() == []


def test_other_settings_are_refused_by_name(tmp_path):
    RunFolder(tmp_path, {"lr": 0.1, "texts": "abc", "layers": (1, 2)})
    RunFolder(tmp_path, {"lr": 0.1, "texts": "abc", "layers": (1, 2)})
    with pytest.raises(RunError, match="other texts"):
        RunFolder(tmp_path, {"lr": 0.1, "texts": "xyz", "layers": (1, 2)})


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_checkpoint_cut_short_is_named(tmp_path, kept):
    run = RunFolder(tmp_path, {})
    run.save(1, {"weight": torch.ones(1000)})
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(RunError, match=r"cut short.*delete it"):
        run.load()


def test_a_damaged_config_is_named(tmp_path):
    RunFolder(tmp_path, {})
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="cannot be read"):
        RunFolder(tmp_path, {})


def test_what_is_not_a_number_never_enters_the_log(tmp_path):
    run = RunFolder(tmp_path, {})
    with pytest.raises(ValueError):
        run.log(1, loss=float("nan"))


def test_publish_lays_config_and_log_beside_the_model(tmp_path):
    (tmp_path / "model").mkdir()
    run = RunFolder(tmp_path / "run", {"seed": 1})
    run.log(1, loss=2.0)
    run.save(1, {})
    run.publish(tmp_path / "model")
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"training_config.json", "training_log.jsonl"}
    published = json.loads((tmp_path / "model" / "training_config.json").read_text(encoding="utf-8"))
    assert published["decides"] == {"seed": 1} and not (tmp_path / "run" / "checkpoint.pt").exists()


def test_utilisation_is_arithmetic_over_peak():
    assert training_flops(10, 3) == 180
    assert model_flops_utilisation(1_000_000, 2_000, 24e9) == pytest.approx(0.5)
    assert measure_peak_flops(torch.device("cpu"), seconds=0.05) > 1e8


@pytest.mark.parametrize(("has", "wanted"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_peak_is_measured_in_the_numbers_that_training_uses(monkeypatch, has, wanted):
    """A processor without bfloat16 took a minute for a product, and then showed a utilisation above one."""
    used = set()
    monkeypatch.setattr(runs, "has_bf16", lambda device: has)
    monkeypatch.setattr(torch, "randn", lambda *shape, **options: torch.ones(8, 8))
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: used.update((a.dtype, b.dtype)))
    assert measure_peak_flops(torch.device("cpu"), seconds=0.001) > 0
    assert used == {wanted}
