"""The GPU kit without a card: its arithmetic, its targets, its budget, its file and its section of the page 基准."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import __main__ as kit
from benchmarks.gpu import chapters, measure, page, results
from benchmarks.gpu.flops import PEAK_BF16, Shape, peak_of, shape_of, utilisation
from benchmarks.gpu.measure import Plan, Watch, Work, window_means
from benchmarks.gpu.models import BERTS, make_bert, make_decoder
from sft.costs import count_flops

CPU, META = torch.device("cpu"), torch.device("meta")
CARD = "NVIDIA H100 80GB HBM3"


# -- shapes and FLOPs -------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "weights"), [("bert-base", 84_934_656), ("mini-bert", 8_257_536)])
def test_the_weights_of_an_encoder_by_hand(name, weights):
    assert shape_of(BERTS[name]).weights == weights


def test_the_decoder_has_the_shape_of_qwen3_0_6b():
    """596 million with tied embeddings, as its card has it; all but the norms are multiplied."""
    model = make_decoder("qwen3-0.6b", META)
    norms = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    assert sum(p.numel() for p in model.parameters()) == 596_049_920
    assert shape_of(model.config).weights == 596_049_920 - norms


def test_training_flops_by_hand():
    shape = Shape(
        layers=2, hidden=4, intermediate=8, heads=2, key_value_heads=1, head_dim=3, up_projections=2, vocabulary=10
    )  # fmt: skip
    weights = 2 * (4 * (6 + 3 + 3 + 6) + 3 * 4 * 8) + 4 * 10
    assert shape.weights == weights
    assert shape.training_flops([5, 1]) == 6 * weights * 6 + 12 * 2 * 2 * 3 * (25 + 1)


def test_three_times_what_torch_counts_forward():
    model = make_decoder("tiny-qwen3", CPU).eval()
    ids = torch.zeros(3, 7, dtype=torch.long)
    assert 3 * count_flops(model, ids) == shape_of(model.config).training_flops([7] * 3)
    model = make_bert("tiny-bert", CPU).eval()
    hidden = model.config.hidden_size
    pooler_and_head = (
        2 * 3 * (hidden * hidden + hidden * 2)
    )  # one token of each of three texts: left out of the count
    assert 3 * (count_flops(model, ids) - pooler_and_head) == shape_of(model.config).training_flops([7] * 3)


def test_a_card_is_known_by_its_whole_name():
    assert peak_of(CARD) == 989.4e12
    assert peak_of(f"{CARD} MIG 1g.10gb") is None and peak_of(None) is None
    assert utilisation(PEAK_BF16[CARD] / 2, peak_of(CARD)) == 0.5
    assert utilisation(1e12, peak_of("a card of tomorrow")) is None


def test_a_model_of_another_kind_is_not_counted():
    with pytest.raises(ValueError, match="known: bert, qwen3"):
        shape_of(type("Config", (), {"model_type": "gpt2"}))


# -- windows ----------------------------------------------------------------------------------------


def test_windows_leave_the_warm_up_out(monkeypatch):
    ticks = itertools.count(100, 10)
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(ticks))
    plan = Plan(warmup=2, window=3, repeats=2)
    watch = Watch(plan, CPU)
    assert list(watch.over(range(plan.steps))) == list(range(8))
    assert watch.seconds == [10, 10] and next(ticks) == 130  # asked three times, not at every step
    work = Work([[5, 5]] * 2 + [[1, 2]] * 3 + [[4]] * 3, [9, 9, 1, 1, 1, 2, 2, 2], "tokens/s")
    assert work.in_windows(plan) == ([9, 12], [3, 6])
    assert Work(work.lengths, work.flops, "examples/s").in_windows(plan)[0] == [6, 3]
    assert window_means([9, 1, 1, 2, 3, 4, 4, 4], plan) == [5, 2, 4]


def test_a_training_that_is_too_short_has_no_figures():
    plan = Plan(1, 1, 2)
    work = Work([[2]] * 3, [1] * 3, "tokens/s")
    given = {"work": work, "plan": plan, "device": CPU, "peak": None}
    row = measure.measure("p", "m", "short", lambda watch: list(watch.over([1.0, 2.0])), **given)
    assert row.median is None and row.error.startswith("ValueError: 2 marks of 3")


def test_an_error_is_one_line_and_leaves_the_next_alone():
    work, plan = Work([[2]] * 2, [1] * 2, "tokens/s"), Plan(0, 1, 2)
    given = {"work": work, "plan": plan, "device": CPU, "peak": 10.0}

    def broken(watch):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    assert (
        measure.measure("p", "m", "broken", broken, **given).error == "OutOfMemoryError: CUDA out of memory."
    )
    row = measure.measure("p", "m", "well", lambda watch: list(watch.over([1.0, 2.0])), **given)
    assert row.error == "" and len(row.values) == 2 and row.mfu > 0 and row.losses == [1.0, 2.0]


# -- targets ----------------------------------------------------------------------------------------


def row_of(path: str, median: float | None, mfu: float | None = None, loss: float = 5.0) -> dict[str, Any]:
    part, model, name = path.split("/")
    unit = "examples/s" if part == "encoders" else "tokens/s"
    row = measure.Row(part, model, name, unit, [median or 0], median, 0.01, mfu, 2_000_000_000, [6.0, loss])
    return row.to_json()


def rows(loss: float = 5.0) -> list[dict[str, Any]]:
    return [
        row_of("encoders/bert-base/loop compiled", 5000, 0.51),
        row_of("encoders/bert-base/loop", 4000, 0.4),
        row_of("encoders/bert-base/trainer", 1000, 0.1),
        row_of("decoders/qwen3-0.6b/loop packed", 1400, 0.3, loss),
        row_of("decoders/qwen3-0.6b/trl", 1000, 0.2),
    ]


def test_targets_stand_beside_what_was_measured():
    found = results.judged(rows())
    assert [target["measured"] for target in found] == [0.51, 4.0, 1.4]
    assert [target["reached"] for target in found] == [True, True, True]
    assert {target["reached"] for target in results.judged([])} == {None}


def test_faster_at_another_loss_does_not_count():
    assert results.judged(rows(loss=5.04))[2]["reached"] is True
    found = results.judged(rows(loss=5.06))[2]
    assert (found["measured"], found["reached"]) == (1.4, False)
    assert found["loss_difference"] == pytest.approx(0.012)


def test_a_row_without_a_figure_leaves_its_target_open():
    broken = [row for row in rows() if row["name"] != "trl"] + [row_of("decoders/qwen3-0.6b/trl", None)]
    assert results.judged(broken)[2]["reached"] is None


# -- the command ------------------------------------------------------------------------------------


def child(tmp_path: Path, script: str, monkeypatch) -> None:
    """Let *script* stand for the process that measures a part."""
    path = tmp_path / "child"
    path.write_text(f"#!/bin/sh\necho $$ > '{tmp_path}/pid'\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setattr(kit.sys, "executable", str(path))


def run_kit(out: Path, *options: str) -> int:
    return kit.main(["--device", "cpu", "--tiny", "--out", str(out), *options])


def line_of(row: dict[str, Any]) -> str:
    return f"echo '{kit._MARK}{json.dumps(row)}'"


def test_a_run_that_is_cut_keeps_what_it_has(tmp_path, monkeypatch, capsys):
    child(
        tmp_path,
        f'if [ "$4" = encoders ]; then echo a library talks; {line_of(rows()[0])}; fi\nexec sleep 60',
        monkeypatch,
    )
    out = tmp_path / "gpu.json"
    assert run_kit(out, "--budget", "4", "--parts", "encoders,kernels") == 0
    report = results.read_results(out)
    assert [row["name"] for row in report["rows"]] == ["loop compiled"]
    assert {part: told["state"] for part, told in report["parts"].items()} == {
        "encoders": "cut",
        "kernels": "cut",
    }
    assert report["parts"]["encoders"]["reason"] == "the budget ended after 1 rows"
    assert report["targets"][0]["reached"] is True
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert "bert-base/loop compiled: 5,000 examples/s" in capsys.readouterr().out


def test_a_part_that_dies_is_told_and_the_next_one_runs(tmp_path, monkeypatch):
    dies = f'if [ "$4" = encoders ]; then echo "Segmentation fault" >&2; exit 139; fi\n{line_of(rows()[3])}'
    child(tmp_path, dies, monkeypatch)
    out = tmp_path / "gpu.json"
    assert run_kit(out, "--parts", "decoders,encoders") == 1
    report = results.read_results(out)
    assert report["parts"]["encoders"]["reason"] == "Segmentation fault"
    assert {part: told["state"] for part, told in report["parts"].items()} == {
        "encoders": "failed",
        "decoders": "completed",
    }
    assert report["tiny"] and report["card"] is None and report["versions"]["torch"]


def test_without_a_card_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert kit.main(["--out", str(tmp_path / "gpu.json")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "没有可用的 CUDA 显卡" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "words"), [('{"schema": 99}', "格式是 99"), ("[]", "格式是 None"), ("{", "读不了")]
)
def test_a_file_of_another_schema_is_left_alone(tmp_path, capsys, text, words):
    out = tmp_path / "gpu.json"
    out.write_text(text, encoding="utf-8")
    assert run_kit(out) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and words in told and str(out) in told
    assert out.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--device", "cpu"], "add --tiny"),
        (["--budget", "0"], "more than 0 seconds"),
        (["--parts", "encoders,none"], "--parts none"),
    ],
)
def test_what_cannot_be_asked_for(capsys, options, words):
    with pytest.raises(SystemExit) as ended:
        kit.main(options)
    assert ended.value.code == 2 and words in capsys.readouterr().err


def test_a_card_that_no_table_knows_is_told(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A card of tomorrow")
    head = kit._head(kit._options([]))
    assert (head["card"], head["peak_bf16_flops"]) == ("A card of tomorrow", None)
    assert "A card of tomorrow 的峰值不在" in capsys.readouterr().err


# -- chapters ---------------------------------------------------------------------------------------


def test_claims_are_counted_under_their_hardware_class():
    job = {"chapter": "05-1", "state": "completed", "seconds": 3.0, "reason": ""}
    verdicts = [
        {"chapter": "05-1", "claim": f"c{i}", "outcome": outcome}
        for i, outcome in enumerate(("pass", "fail", "pass"))
    ]
    run = {
        "profile": "offline",
        "seconds": 9.0,
        "environment": {"hardware": "cuda-NVIDIA-H100-PCIe"},
        "jobs": [job],
    }
    told = chapters.summary({**run, "verdicts": verdicts})
    assert told["claims"] == {"fail": 1, "pass": 2} and told["failed"] == ["05-1/c1"]
    assert told["hardware"] == "cuda-NVIDIA-H100-PCIe" and told["chapters"] == [job]


def test_a_harness_that_leaves_no_result_tells_its_last_line(tmp_path):
    with pytest.raises(RuntimeError, match=r"no harness\.yml"):
        chapters.run_chapters(tmp_path, tmp_path / "run", "cpu", "smoke", 60)


# -- the page ---------------------------------------------------------------------------------------


def report(**changed: Any) -> dict[str, Any]:
    run = {
        "profile": "offline",
        "hardware": "cuda-NVIDIA-H100",
        "seconds": 100,
        "claims": {"pass": 12, "fail": 1},
    }
    run |= {"failed": ["05-1/x"], "chapters": [{"state": "completed"}, {"state": "cancelled"}]}
    parts = {
        "encoders": {"state": "completed", "reason": ""},
        "chapters": {"state": "cut", "reason": "", "run": run},
    }
    broken = {**row_of("kernels/bert-base/flash_attention_2", None), "error": "ImportError: no <flash|attn>"}
    made = {
        "schema": 1, "card": CARD, "driver": "570.1", "tiny": False, "versions": {"torch": "2.13.0"}, "seconds": 512.3,
        "started": "2026-11-27T12:00:00+00:00", "peak_bf16_flops": peak_of(CARD), "parts": parts,
        "rows": [*rows(), broken], "targets": results.judged(rows()),
    }  # fmt: skip
    return {**made, **changed}


def test_the_page_holds_what_was_measured():
    """After a new measurement: python -m benchmarks.gpu.page."""
    found = results.read_results(results.RESULTS) if results.RESULTS.exists() else None
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.fill(text, found) == text
    assert (page.UNVERIFIED in text) is not bool(found and found["card"])


def test_a_card_fills_the_page():
    filled = page.fill(page.PAGE.read_text(encoding="utf-8"), report())
    assert "未在 GPU 上验证" not in filled and CARD in filled
    assert (
        "| 打包的微调循环 ÷ TRL 的默认设置，每秒词元 | 1.3 | 1.40 | 是（末段损失相差 0.00%，容许 1%） |"
        in filled
    )
    assert "| bert-base | loop compiled | 5,000 | 1.0% | 1 | 0.51 | 2.0 | 5.000 |" in filled
    assert "没有跑成：ImportError: no &lt;flash\\|attn>" in filled
    assert "跑完 1/2 章" in filled and "通过 12，未通过 1；未通过的：`05-1/x`" in filled
    assert "`chapters`：到点停下" in filled
    assert page.fill(filled, None) == page.fill(page.PAGE.read_text(encoding="utf-8"), None)


def test_tiny_shapes_fill_no_page():
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.fill(text, report(card=None, tiny=True)) == page.fill(text, None)
    assert "所以没有 MFU" in page.fill(text, report(peak_bf16_flops=None))
    with pytest.raises(results.ResultsError, match="gpu-kit"):
        page.fill("一页", None)
