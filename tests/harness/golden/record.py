"""Write the recorded run folders of this book (``python tests/harness/golden/record.py``); nothing here is run.

They stand in git as a harness of before left them: who changes what is read or shown sees it in the golden test.
Run this only where the format on disk changes on purpose.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.model import (
    METRIC_MIME,
    CellResult,
    CellState,
    JobResult,
    JobState,
    Metric,
    Outcome,
    Verdict,
    to_json,
)

RUNS = Path(__file__).with_name("runs")
CPU = "cpu-x86_64-bf16"
MAIN = "20261124T013000-offline-ab12"
ENVIRONMENT = {
    "python": "3.11.7", "platform": "Linux-6.1-x86_64", "hardware": CPU, "cpu": "A | B <C>", "cores": 2,
    "memory_gb": 7.7, "gpu": None, "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
}  # fmt: skip
GPU = {**ENVIRONMENT, "hardware": "cuda-H100", "gpu": "NVIDIA H100", "cpu": ""}

A0 = JobResult(
    "01-a-offline-seed0", "chapters/01-a.ipynb", "01-a", "offline", 0, JobState.COMPLETED,
    parameters={"seed": 0, "num_epochs": 3, "device": "auto"},
    cells=(
        CellResult(1, "a1", CellState.COMPLETED, 0.5, code="a = 3"),
        CellResult(2, "b2", CellState.COMPLETED, 230.25, code="# 训练"),
        CellResult(3, "c3", CellState.SKIPPED, code="print('fold')"),
    ),
    metrics=(
        Metric("accuracy", 0.81, "fraction", 100, "test", (0.7, 0.9), (1.0, 0.0, 1.0), "2026-11-24T01:31:00+00:00"),
        Metric("loss", 1.25),
    ),
    seconds=232.04, peak_rss_mb=1945.6, started="2026-11-24T01:30:00+00:00", key="k1",
)  # fmt: skip
A1 = replace(
    A0, id="01-a-offline-seed1", seed=1, parameters={"seed": 1, "num_epochs": 3, "device": "auto"}, seconds=61.5,
    metrics=(Metric("accuracy", 0.83, "fraction", 100, "test"), Metric("loss", 1.5)), peak_rss_mb=900.0,
)  # fmt: skip
CACHED = JobResult(
    "02-b-offline", "chapters/02-b.ipynb", "02-b", "offline", None, JobState.SKIPPED,
    reason="unchanged since run r0 | 2026-11-20", cells=(CellResult(0, "x", CellState.COMPLETED, 1.5),),
    seconds=4.0, peak_rss_mb=210.0, started="2026-11-20T08:00:00+00:00", key="k2", cached_from="r0",
)  # fmt: skip
ERROR = "ValueError: \x1b[31m坏\x1b[0m <b> | `x` ]]> & \n 第二行"
BROKEN = JobResult(
    "03-c-offline-seed0", "chapters/03-c.ipynb", "03-c", "offline", 0, JobState.FAILED,
    reason="cell 2 (id r1), line 2: ValueError: 坏",
    cells=(
        CellResult(0, "r0", CellState.COMPLETED, 0.25, code="a = 1"),
        CellResult(1, "r1", CellState.FAILED, 1.0, "ValueError: 坏", 2, "raise ValueError"),
        CellResult(2, "r2", CellState.PENDING),
    ),
    seconds=3.0, peak_rss_mb=120.0, started="2026-11-24T01:34:00+00:00",
)  # fmt: skip
SLOW = replace(
    BROKEN, id="03-c-offline-seed1", seed=1, state=JobState.TIMED_OUT, reason="the cell's limit of 600 s",
    cells=(CellResult(1, "r1", CellState.FAILED, 600.0, ERROR, code="raise ValueError"),), seconds=4210.0,
)  # fmt: skip
DEAD = replace(
    BROKEN, id="03-c-offline-seed2", seed=2, state=JobState.DEAD, reason="the kernel was killed (SIGKILL)", cells=(),
    seconds=0.0, peak_rss_mb=None,
)  # fmt: skip
OUTSIDE = JobResult(
    "notes-offline", "笔记 {a}|b.ipynb", None, "offline", None, JobState.COMPLETED,
    cells=(CellResult(0, "o", CellState.COMPLETED, 0.1),), seconds=1.0,
    metrics=(Metric("speedup", 3.4, "ratio", interval=(2.9, 4.1)), Metric("wall", 12.25, "s", 5, "dev")),
)  # fmt: skip
EARLY = replace(OUTSIDE, id="b-offline", notebook="b.ipynb", state=JobState.EXITED_EARLY, metrics=())
INVALID = replace(
    EARLY, id="c-offline", notebook="c.ipynb", state=JobState.INVALID, reason="no kernel", cells=()
)
CANCELLED = replace(
    INVALID, id="d-offline", notebook="d.ipynb", state=JobState.CANCELLED, reason="interrupted"
)

GOOD = Verdict(
    "01-a", "accuracy", "从零训练的编码器：测试集 *准确率*", "offline", Outcome.PASS, "prediction interval",
    (0.81, 0.83), 0.81, 0.01, (0.79, 0.83), 0.02, "fraction", "0.8200 is inside the interval", "0.8200 在预测区间之内",
    None, CPU, CPU,
)  # fmt: skip
VERDICTS = (
    GOOD,
    replace(GOOD, claim="moved", title="Measured elsewhere", reference_hardware="cuda-H100"),
    replace(
        GOOD, claim="loss", title="损失 | <b>", outcome=Outcome.FAIL, rule="TOST", observed=(1.25,), reference=1.0,
        delta=0.25, interval=(None, 1.1), margin=0.1, unit="", message="worse than the reference",
        message_zh="比参考差", delta_interval=(0.2, 0.3),
    ),
    replace(
        GOOD, claim="speed", title="Speed-up", outcome=Outcome.INCONCLUSIVE, rule="published", unit="ratio",
        observed=(3.4,), reference=3.0, delta=0.4, interval=(2.5, 3.5), message="too few runs", message_zh="",
    ),
    replace(
        GOOD, claim="rows", title="Rows", outcome=Outcome.NOT_APPLICABLE, rule="parameters", observed=(12.0,),
        reference=None, delta=None, interval=None, margin=None, unit="rows", message="measured with n = 12",
        message_zh="测量时 n = 12",
    ),
    Verdict(
        "03-c", "gone", "没有了", "offline", Outcome.MISSING, "recorded", message=f"not reached: {ERROR}",
        message_zh=f"没有执行到：{ERROR}",
    ),
    Verdict(
        "03-c", "new", "new", "offline", Outcome.UNEXPECTED, "a rule of tomorrow", (12.5, 13.0), unit="s",
        message="nobody claims it", message_zh="没有声明",
    ),
)  # fmt: skip


def notebook(*cells: dict[str, Any]) -> dict[str, Any]:
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def code(name: str, source: str, *outputs: Any, tags: tuple[str, ...] = ()) -> dict[str, Any]:
    metadata = {"tags": list(tags)} if tags else {}
    return {"cell_type": "code", "id": name, "metadata": metadata, "source": source, "outputs": list(outputs),
            "execution_count": 1 if outputs else None}  # fmt: skip


def text(name: str, source: str, *tags: str) -> dict[str, Any]:
    return {
        "cell_type": "markdown",
        "id": name,
        "metadata": {"tags": list(tags)} if tags else {},
        "source": source,
    }


def recorded(name: str, value: float, unit: str = "", **more: Any) -> dict[str, Any]:
    data = {
        METRIC_MIME: {"name": name, "value": value, "unit": unit, **more},
        "text/plain": f"{name} = {value}",
    }
    return {"output_type": "display_data", "data": data, "metadata": {}}


CHAPTER_A = notebook(
    text("t", "# 第 1 章 训练\n\n一段话。"),
    code("a1", "a = 3", tags=("setup",)),
    code("b2", "# 训练\nprint(a)", recorded("accuracy", 0.81, "fraction", n=100, split="test", interval=[0.7, 0.9]),
         recorded("loss", 1.25), recorded("other", 3.0)),
    code("c3", "print('fold')", tags=("solution",)),
    text("s", "答案", "solution"),
)  # fmt: skip
CHAPTER_B = notebook(text("t", "# 第 2 章 推断"), code("x", "b = 2"))
CHAPTER_C = notebook(
    text("t", "# 第 3 章 出错"), code("r0", "a = 1"), code("r1", "b = 2\nraise ValueError"), code("r2", "")
)


def run(name: str, jobs: tuple[JobResult, ...], verdicts: tuple[Verdict, ...], **changes: Any) -> None:
    """A run folder: manifest, jobs, result.json."""
    facts: dict[str, Any] = {
        "schema": 1, "run": name, "profile": "offline", "started": "2026-11-24T01:30:00+00:00",
        "commit": "0123456789abcdef0123456789abcdef01234567", "dirty": True, "environment": ENVIRONMENT,
    }  # fmt: skip
    own = {key: changes.pop(key) for key in ("seconds", "exit_code", "shard_of", "parts") if key in changes}
    facts |= changes
    manifest = {**facts, "command": ["harness", "run"], "device": "auto", "jobs": [job.id for job in jobs]}
    result = {
        "schema": 1, "run": name, "profile": facts["profile"], "started": facts["started"],
        "seconds": own.get("seconds", 4512.125), "commit": facts["commit"], "dirty": facts["dirty"],
        "environment": facts["environment"], "exit_code": own.get("exit_code", 4),
    }  # fmt: skip
    if "shard_of" in own:
        index, of, plan = own["shard_of"]
        manifest["shard"] = {"index": index, "of": of, "plan": plan, "digest": "d"}
        result["shard"] = {"index": index, "of": of}
    if "parts" in own:
        manifest["shards"] = own["parts"]
        result["shards"] = [
            {
                "index": p["index"],
                "run": p["run"],
                "hardware": p["environment"]["hardware"],
                "jobs": p["jobs"],
            }
            for p in own["parts"]
        ]
    write(RUNS / name / "manifest.json", manifest)
    for job in jobs:
        write(RUNS / name / "jobs" / job.id / "result.json", to_json(job))
    write(RUNS / name / "result.json", {**result, "jobs": to_json(jobs), "verdicts": to_json(verdicts)})


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    run(
        MAIN,
        (A0, A1, CACHED, BROKEN, SLOW, DEAD, OUTSIDE, EARLY, INVALID, CANCELLED),
        VERDICTS,
        dirty=False,
        commit="",
    )
    executed = {
        A0.id: CHAPTER_A,
        BROKEN.id: CHAPTER_C,
        CACHED.id: notebook(text("t", "# 旧"), code("x", "b = 1")),
    }
    for name, content in executed.items():
        write(RUNS / MAIN / "jobs" / name / "out.ipynb", content)
    for number, (outcome, value) in enumerate(
        ((Outcome.PASS, 0.8), (Outcome.FAIL, 0.7), (Outcome.PASS, 0.82))
    ):
        verdict = replace(GOOD, outcome=outcome, observed=(value, value + 0.01))
        started = f"2026-11-{20 + number}T08:00:00+00:00"
        run(f"2026112{number}T080000-offline-0000", (A0,), (verdict,), started=started, seconds=60.0 + number)
    run("20261122T080000-offline-gggg", (A0,), (GOOD,), started="2026-11-22T09:00:00+00:00", environment=GPU)
    parts = [
        {"index": 1, "run": "s1", "environment": ENVIRONMENT, "jobs": [A0.id]},
        {"index": 2, "run": "s2", "environment": GPU, "jobs": [A1.id, CACHED.id]},
    ]
    both = (GOOD, replace(GOOD, hardware="cuda-H100", observed=(0.83,)))
    run(
        "merged",
        (A0, A1, CACHED),
        both,
        parts=parts,
        environment=GPU,
        exit_code=0,
        started="2026-11-24T02:00:00+00:00",
        profile="full",
    )
    run(
        "shard",
        (A1,),
        (),
        shard_of=(2, 3, ["x", A1.id, "y"]),
        exit_code=0,
        started="2026-11-24T03:00:00+00:00",
    )
    run("nothing", (), (), exit_code=0, started="2026-11-24T04:00:00+00:00", environment={})
    run(
        "outside",
        (OUTSIDE,),
        (),
        exit_code=0,
        started="2026-11-24T05:00:00+00:00",
        environment={"hardware": CPU, "memory_gb": 8},
    )
    chapters = Path(__file__).with_name("book") / "chapters"
    for name, content in (("01-a", CHAPTER_A), ("02-b", CHAPTER_B), ("03-c", CHAPTER_C)):
        for cell in content["cells"]:
            if cell["cell_type"] == "code":
                cell.update(outputs=[], execution_count=None)
        write(chapters / f"{name}.ipynb", content)
    write(chapters / "04-d.ipynb", notebook(text("t", "# 第 4 章 没有运行")))


if __name__ == "__main__":
    main()
