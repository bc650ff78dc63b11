"""What a chapter records, and what it may not."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import harness.record
from harness.archive.folder import load_metrics
from harness.record import METRICS_VARIABLE, record


@pytest.fixture
def metrics_file(tmp_path, monkeypatch):
    path = tmp_path / "指标 metrics.jsonl"
    monkeypatch.setenv(METRICS_VARIABLE, str(path))
    return path


def test_one_strict_line_per_metric(metrics_file):
    returned = record(
        "acc", np.float32(0.5), unit="fraction", split="test", interval=(0.4, 0.6), per_example=[True, 0]
    )
    assert returned == 0.5 and type(returned) is float
    record("准确率", 1)
    lines = [json.loads(line) for line in metrics_file.read_text(encoding="utf-8").splitlines()]
    time = lines[0].pop("time")
    assert time.endswith("+00:00")
    assert lines[0] == {
        "schema": 1, "name": "acc", "value": 0.5, "unit": "fraction", "n": 2, "split": "test",
        "interval": [0.4, 0.6], "per_example": [1.0, 0.0],
    }  # fmt: skip
    assert "准确率" in metrics_file.read_text(encoding="utf-8")
    metrics, broken = load_metrics(metrics_file)
    assert [m.name for m in metrics] == ["acc", "准确率"] and broken == ()
    assert metrics[0].interval == (0.4, 0.6) and metrics[0].per_example == (1.0, 0.0)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (True, "must be a number"),
        (np.bool_(True), "must be a number"),
        (float("nan"), "only finite"),
        (np.float64("inf"), "only finite"),
        ("0.9", "must be a number"),
        (None, "must be one number"),
        (np.array([0.1, 0.2]), "must be one number"),
        (10**400, "must be one number"),
        (np.complex64(1 + 2j), "must be a number"),
    ],
)
def test_values_that_cannot_be_checked(metrics_file, value, complaint):
    with pytest.raises(ValueError, match=complaint):
        record("acc", value)
    assert not metrics_file.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "test accuracy"},
        {"name": "acc", "n": -1},
        {"name": "acc", "n": 2.5},
        {"name": "acc", "n": 3, "per_example": [1, 0]},
        {"name": "acc", "interval": (0.6, 0.4)},
        {"name": "acc", "interval": (0.6, 0.7, 0.8)},
        {"name": "acc", "per_example": [1, float("nan")]},
        {"name": "acc", "per_example": 5},
        {"name": "acc", "interval": 0.6},
        {"name": "acc", "n": [5]},
        {"name": "acc", "n": float("nan")},
        {"name": "acc", "n": float("inf")},
        {"name": "acc", "n": np.True_},
        {"name": "acc", "unit": None},
        {"name": "acc", "unit": 3},
        {"name": "acc", "unit": "\ud800"},
        {"name": "acc", "split": "\ud800"},
    ],
)
def test_bad_details(metrics_file, arguments):
    with pytest.raises(ValueError, match=r"record\('"):
        record(value=0.5, **arguments)
    assert not metrics_file.exists()


def test_same_name_twice_is_an_error_in_a_run(metrics_file):
    record("acc", 0.5)
    with pytest.raises(ValueError, match="recorded before"):
        record("acc", 0.6)
    assert len(metrics_file.read_text().splitlines()) == 1


def test_without_a_harness_it_only_prints_and_may_be_repeated(monkeypatch, capsys):
    monkeypatch.delenv(METRICS_VARIABLE, raising=False)
    record("acc", 0.25, unit="fraction")
    record("acc", 0.25, unit="fraction")
    assert capsys.readouterr().out == "acc = 0.25 fraction\n" * 2


def test_a_tensor_scalar_is_a_number(metrics_file):
    class Scalar:
        def __float__(self):
            return 0.125

    assert record("acc", Scalar()) == 0.125


def test_a_loss_is_recorded_without_a_warning(metrics_file, recwarn):
    import torch

    assert record("loss", torch.tensor(0.25, requires_grad=True)) == 0.25
    assert list(recwarn) == []


def test_half_a_line_does_not_lose_the_others(metrics_file):
    record("acc", 0.5)
    with metrics_file.open("a") as file:
        file.write('{"schema": 1, "name": "los')
    metrics, broken = load_metrics(metrics_file)
    assert [m.name for m in metrics] == ["acc"]
    assert broken == (f"1 unreadable line(s) in {metrics_file.name} left out",)


@pytest.mark.parametrize(
    "line",
    [
        '"abc"',
        "5",
        "[" * 100_000,
        '{"value": 1}',
        '{"name": 5, "value": 1}',
        '{"name": "a b", "value": 1}',
        '{"name": "x"}',
        '{"name": "x", "value": NaN}',
        '{"name": "x", "value": null}',
        '{"name": "x", "value": true}',
        '{"name": "x", "value": "1"}',
        '{"name": "x", "value": 1e999}',
        '{"name": "x", "value": 1' + "0" * 400 + "}",
        '{"name": "x", "value": 1, "unit": 7}',
        '{"name": "x", "value": 1, "unit": "\\ud800"}',
        '{"name": "x", "value": 1, "n": 1.5}',
        '{"name": "x", "value": 1, "n": true}',
        '{"name": "x", "value": 1, "interval": [1]}',
        '{"name": "x", "value": 1, "interval": 3}',
        '{"name": "x", "value": 1, "interval": [1, null]}',
        '{"name": "x", "value": 1, "per_example": "abc"}',
        '{"name": "x", "value": 1, "per_example": [1, null]}',
        '{"name": "x", "value": 1, "split": []}',
    ],
)
def test_a_line_that_is_no_metric_is_left_out_and_told(metrics_file, line):
    metrics_file.write_text(line + "\n")
    record("acc", 0.5)
    metrics, warnings = load_metrics(metrics_file)
    assert [m.name for m in metrics] == ["acc"]
    assert warnings == (f"1 unreadable line(s) in {metrics_file.name} left out",)


def test_of_a_repeated_name_the_first_counts(metrics_file):
    metrics_file.write_text('{"name": "acc", "value": 1}\n{"name": "acc", "value": 2}\n')
    metrics, (warning,) = load_metrics(metrics_file)
    assert [m.value for m in metrics] == [1.0] and warning.endswith("the first counts: acc")


def test_a_folder_in_place_of_the_file(metrics_file):
    metrics_file.mkdir()
    with pytest.raises(OSError, match="directory"):
        record("acc", 1)
    metrics, (warning,) = load_metrics(metrics_file)
    assert metrics == () and "cannot be read" in warning


def test_names_that_another_process_recorded_are_seen(metrics_file):
    record("mine", 1)
    code = "from harness.record import record; record('theirs', 1)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ValueError, match="recorded before"):
        record("theirs", 2)
    with pytest.raises(ValueError, match="recorded before"):
        record("mine", 2)
    metrics_file.unlink()
    record("mine", 3)


def test_the_file_is_read_once_not_at_every_call(metrics_file):
    for i in range(50):
        record(f"m{i}", i)
    position, names = harness.record._names[str(metrics_file)]
    last = metrics_file.read_bytes().splitlines(keepends=True)[-1]
    assert position == metrics_file.stat().st_size - len(last)
    assert len(names) == 49


def test_importing_it_loads_the_standard_library_only():
    code = "import sys; import harness.record; print(sorted({m.split('.')[0] for m in sys.modules}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(eval(out))
    assert not loaded & {"IPython", "yaml", "numpy", "torch", "papermill", "nbformat", "typer", "rich"}
