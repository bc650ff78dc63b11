"""How long reading a user's own file takes, and how much memory, for a million rows.

Run as ``python -m benchmarks.own_data [--rows 1000000] [--out FILE]``; a minute on one core.

Each measurement has a process of its own: the table alone (:func:`sft.tables.read_table`), and the whole
(:func:`sft.own_data.load_own_data`: columns, labels, repeats, near repeats, splits). Memory is the peak of the process
less what it holds once its modules are loaded, as a multiple of the file's size.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sft.machine import machine

TARGET_SECONDS, TARGET_RATIO = 20, 3


def write_reviews(path: Path, rows: int, *, characters: int, quoted: bool, seed: int = 0) -> Path:
    """Reviews of random common characters, 0.5 to 1.5 times ``characters`` long, one in fifty a near repeat."""
    rng = np.random.default_rng(seed)
    common = np.array(
        [bytes([high, low]).decode("gb2312") for high in range(0xB0, 0xC8) for low in range(0xA1, 0xFF)]
    )
    weights = 1 / np.arange(1, len(common) + 1)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
        writer.writerow(["label", "review"])
        before = ""
        for begin in range(0, rows, 10_000):
            lengths = rng.integers(characters // 2, characters * 3 // 2, min(10_000, rows - begin))
            text = "".join(rng.choice(common, lengths.sum(), p=weights / weights.sum()))
            ends = lengths.cumsum().tolist()
            for i, (end, length) in enumerate(zip(ends, lengths.tolist(), strict=True)):
                review = text[end - length : end - 3] + "，不错"
                writer.writerow([i % 2, f"转：{before}" if i % 50 == 0 and before else review])
                before = review
    return path


def measured(task: str, path: Path) -> dict[str, Any]:
    """Seconds and memory of one task in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.own_data", "--task", task, "--file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def perform(task: str, path: Path) -> dict[str, Any]:
    from sft.own_data import load_own_data
    from sft.tables import read_table

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    began, worked = time.perf_counter(), time.process_time()
    rows = read_table(path).rows if task == "table" else load_own_data(path).report.rows
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = path.stat().st_size
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "cpu seconds": round(cpu_seconds, 2),
        "megabytes": round(size / 1e6, 1),
        "memory / file": round((peak - before) / size, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--task", choices=["table", "whole"], help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        print(json.dumps(perform(arguments.task, arguments.file)))
        return
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, characters, quoted in (
            ("60 characters", 60, False),
            ("60 characters, quoted", 60, True),
            ("150 characters", 150, False),
        ):
            path = write_reviews(
                Path(folder) / "reviews.csv", arguments.rows, characters=characters, quoted=quoted
            )
            for task in ("table", "whole"):
                found = results[f"{name}: {task}"] = measured(task, path)
                good = found["seconds"] <= TARGET_SECONDS and found["memory / file"] <= TARGET_RATIO
                print(f"{name}: {task}", found, "" if good else "MISSED", flush=True)
    if arguments.out:
        report = {"machine": machine(), "results": results}
        arguments.out.write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
