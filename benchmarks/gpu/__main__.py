"""The GPU kit's command; see the package."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import chapters, results
from benchmarks.gpu.flops import peak_of
from benchmarks.gpu.results import RESULTS, SCHEMA, ResultsError, judged, read_results, write_results
from harness.archive.environment import nvidia_gpus, versions

ROOT = Path(__file__).resolve().parents[2]
SHARES = {"encoders": 0.4, "decoders": 0.35, "kernels": 0.35, "chapters": 1.0}
"""Parts by worth, and the share of the budget that one may take at most: a compiler that hangs costs little."""
PARTS = tuple(SHARES)
BUDGET, TINY_BUDGET = 570, 2000  # tiny shapes measure nothing, on whatever busy machine
PACKAGES = ("torch", "triton", "transformers", "datasets", "accelerate", "trl", "peft", "flash-attn")
TINY_CHAPTER = "08-3"  # the quickest of the smoke profile
USAGE = 2


def main(arguments: list[str] | None = None) -> int:
    """0: all parts ended or the budget did; 1: a part left nothing; 2: it could not start."""
    options = _options(arguments)
    if options.part:  # a child of this very command
        return _measure_part(options)
    try:
        return _run_kit(options)
    except ResultsError as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("benchmarks.gpu: 停下了；测到的都留着", file=sys.stderr)
        return 128 + signal.SIGINT


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--tiny", action="store_true", help="tiny shapes: does everything run; measures nothing"
    )
    parser.add_argument(
        "--budget", type=float, help=f"seconds for everything; default {BUDGET}, with --tiny {TINY_BUDGET}"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="which, with commas")
    parser.add_argument(
        "--out", type=Path, help=f"default: {RESULTS.relative_to(ROOT)}, with --tiny _build/gpu.json"
    )
    parser.add_argument("--book", type=Path, default=Path.cwd(), help="where the chapters lie")
    parser.add_argument("--only", default="", help="chapters by the beginning of their names, with commas")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = set(options.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"--parts {','.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    if options.budget is None:
        options.budget = TINY_BUDGET if options.tiny else BUDGET
    if options.budget <= 0:
        parser.error(f"--budget {options.budget:g}: more than 0 seconds are needed")
    if options.device == "cpu" and not options.tiny:
        parser.error("--device cpu would take hours; add --tiny")
    return options


def _run_kit(options: argparse.Namespace) -> int:
    began = time.monotonic()
    out = options.out or (options.book / "_build" / "gpu.json" if options.tiny else RESULTS)
    if out.exists():  # another's file is not overwritten
        read_results(out)
    report = _head(options)
    status = 0
    for part in [name for name in PARTS if name in options.parts.split(",")]:
        left = min(options.budget - (time.monotonic() - began), SHARES[part] * options.budget)
        started = time.monotonic()
        record = partial(_record, out, report)
        told = (
            _run_part(part, options, left, record) if left > 0 else {"state": "cut", "reason": "no time left"}
        )
        report["parts"][part] = {**told, "seconds": round(time.monotonic() - started, 1)}
        report["seconds"] = round(time.monotonic() - began, 1)
        write_results(out, report)
        print(f"{part}: {told['state']} {told['reason']}".rstrip(), flush=True)
        status = max(status, told["state"] == "failed")
    for target in report["targets"]:
        value = "–" if target["measured"] is None else f"{target['measured']:.2f}"
        print(f"{target['title']}: {value} (≥ {target['at_least']:g})")
    return int(status)


def _head(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures were measured on.

    Raises:
        ResultsError: a card was asked for, and there is none that torch can use.
    """
    card, driver = None, None
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ResultsError(
                f"没有可用的 CUDA 显卡（torch {torch.__version__}）；换一台有显卡的机器，或用 --device cpu --tiny 试跑"
            )
        card, driver = torch.cuda.get_device_name(), _driver()
        if peak_of(card) is None:
            print(f"{card} 的峰值不在 benchmarks/gpu/flops.py 的表里：不算 MFU", file=sys.stderr)
    return {
        "schema": SCHEMA, "device": options.device, "tiny": options.tiny, "card": card, "driver": driver,
        "peak_bf16_flops": peak_of(card), "versions": versions(PACKAGES),
        "started": datetime.now(UTC).isoformat(timespec="seconds"), "budget": options.budget, "seconds": 0.0,
        "parts": {}, "rows": [], "targets": judged([]),
    }  # fmt: skip


def _driver() -> str | None:
    """As nvidia-smi tells it."""
    if not nvidia_gpus():
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return (
        subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")[0].strip()
        or None
    )


def _record(out: Path, report: dict[str, Any], row: Mapping[str, Any]) -> None:
    """A row is kept as soon as it is there."""
    report["rows"].append(dict(row))
    report["targets"] = judged(report["rows"])
    write_results(out, report)
    value = row["error"] or f"{row['median']:,.0f} {row['unit']}"
    print(f"{row['part']}/{row['model']}/{row['name']}: {value}", flush=True)


def _run_part(
    part: str, options: argparse.Namespace, left: float, record: Callable[[Mapping[str, Any]], None]
) -> dict[str, Any]:
    """Run a part in a process of its own for at most *left* seconds; its state, and why it is not better."""
    if part == "chapters":
        return _run_chapters(options, left)
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", part, "--device", options.device]
    command += ["--tiny"] if options.tiny else []
    one = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]  # of several, a Trainer takes all
    environment = {
        **os.environ, "CUDA_VISIBLE_DEVICES": one, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    rows, deadline = 0, time.monotonic() + left
    with tempfile.TemporaryFile("w+", encoding="utf-8") as complaints:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=complaints, text=True,
            start_new_session=True,
        )  # fmt: skip
        cut = _Alarm(process, deadline)
        assert process.stdout is not None
        with process, cut:
            for line in process.stdout:
                if line.startswith(_MARK):
                    record(json.loads(line.removeprefix(_MARK)))
                    rows += 1
            process.wait()  # under the alarm: one that hangs in its last breath is killed, too
        complaints.seek(0)
        said = [line.strip() for line in complaints if line.strip()]
    if cut.rang:
        return {"state": "cut", "reason": f"the budget ended after {rows} rows"}
    if process.returncode or not rows:
        return {"state": "failed", "reason": (said[-1] if said else f"exit code {process.returncode}")[:300]}
    return {"state": "completed", "reason": ""}


class _Alarm:
    """Kills a process and what it started once the time is up, or whoever waits for it is interrupted."""

    def __init__(self, process: subprocess.Popen, deadline: float) -> None:
        self.process, self.rang = process, False
        self.timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._ring)

    def _ring(self) -> None:
        self.rang = True
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self.rang = False  # it was quicker

    def __enter__(self) -> _Alarm:
        self.timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.timer.cancel()
        if kind is not None:
            self._ring()


def _run_chapters(options: argparse.Namespace, left: float) -> dict[str, Any]:
    profile = "smoke" if options.tiny else "offline"
    only = options.only or (TINY_CHAPTER if options.tiny else "")
    with tempfile.TemporaryDirectory() as folder:
        try:
            told = chapters.run_chapters(
                options.book, Path(folder) / "run", options.device, profile, left - chapters.GRACE, only
            )
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            return {"state": "failed", "reason": f"{type(error).__name__}: {error}"[:300]}
    cut = sum(chapter["state"] == "cancelled" for chapter in told["chapters"])
    state = "cut" if cut else "completed"
    return {
        "state": state,
        "reason": f"the budget ended before {cut} chapters did" if cut else "",
        "run": told,
    }


_MARK = "row: "
"""How a line of a child's output that holds a row begins; libraries print others."""


def _measure_part(options: argparse.Namespace) -> int:
    """The child: print each row as soon as it is measured."""
    from importlib import import_module

    import torch

    from sft.prelude import prepare

    prepare(0)
    device = torch.device(options.device)
    peak = peak_of(torch.cuda.get_device_name()) if device.type == "cuda" else None
    for row in import_module(f"benchmarks.gpu.{options.part}").rows_of(device, peak, options.tiny):
        print(_MARK + json.dumps(row.to_json()), flush=True)
    return 0


__all__ = ["main", "results"]

if __name__ == "__main__":
    sys.exit(main())
