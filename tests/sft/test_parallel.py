"""`sft/parallel.py`: two processes lose what one does, hold half each when sliced, and do not wait for the dead."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sft.commands import CommandError
from sft.decoder import DecoderConfig, ModernDecoder
from sft.parallel import ParallelError, distribute, read_task, run_parallel, what_happened, write_task

ROOT = Path(__file__).parents[2]
needs_fork = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals of Unix")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = DecoderConfig(50, d_model=32, num_heads=2, num_kv_heads=2, d_k=16, d_ff=48, num_layers=2)
    write_task(tmp_path / "task", ModernDecoder(config), torch.randint(50, (1, 8, 12)).repeat(4, 1, 1))
    return tmp_path / "task"


def test_the_task_comes_back_as_it_was_written(folder: Path):
    decoder, batches = read_task(folder)
    assert batches.shape == (4, 8, 12)
    assert decoder(batches[0]).shape == (8, 12, 50)


def test_an_odd_batch_is_refused(tmp_path: Path):
    config = DecoderConfig(50, d_model=32, num_heads=2, num_kv_heads=2, d_k=16, d_ff=48, num_layers=1)
    with pytest.raises(ValueError, match="even number of rows"):
        write_task(tmp_path, ModernDecoder(config), torch.zeros(4, 7, 12, dtype=torch.long))


def test_an_empty_folder_is_named(tmp_path: Path):
    with pytest.raises(CommandError, match=r"没有 task\.pt"):
        read_task(tmp_path)


@pytest.mark.slow
@needs_fork
def test_two_processes_lose_what_one_does_and_slices_are_half_as_large(folder: Path):
    first, second = run_parallel(folder)
    alone = first["one"][0]
    for way in ("ddp", "fsdp"):
        assert first[way][0].losses == pytest.approx(alone.losses, abs=1e-5)
        assert first[way][0].losses == second[way][0].losses
    assert alone.losses[-1] < alone.losses[0]
    assert first["ddp"][0].held_bytes == alone.held_bytes
    together = first["fsdp"][0].held_bytes + second["fsdp"][0].held_bytes
    assert together == pytest.approx(alone.held_bytes, rel=0.05)
    assert second["one"] == []


@pytest.mark.slow
@needs_fork
def test_when_one_process_dies_torchrun_stops_the_other_and_we_say_which(folder: Path):
    began = time.monotonic()
    with pytest.raises(ParallelError, match="进程 1 先死了（收到信号 SIGKILL）") as caught:
        run_parallel(folder, ["ddp"], die="1:3")
    assert time.monotonic() - began < 60  # it would wait ten times as long for an answer
    assert "\n" not in str(caught.value)


def start(folder: Path, rank: int, port: int, *options: str) -> subprocess.Popen[str]:
    """A process as torchrun starts it, with nobody who would end it when the other dies."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
    command = [sys.executable, "-m", "sft.parallel", str(folder), *options]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **address}, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@needs_fork
def test_the_one_that_is_left_alone_ends_by_itself_with_one_line(folder: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pair = [start(folder, rank, port, "--die", "1:3", "--timeout", "300") for rank in (0, 1)]
    told = pair[0].communicate(timeout=120)[1]
    pair[1].communicate(timeout=120)
    assert pair[1].returncode == -signal.SIGKILL
    assert pair[0].returncode == 3
    lines = [line for line in told.splitlines() if line.startswith("parallel:")]
    assert len(lines) == 1
    assert "没有回音" in lines[0]


def test_the_chapter_shows_the_lines_that_run():
    cells = json.loads((ROOT / "chapters" / "09-2-speed-and-privacy.ipynb").read_text())["cells"]
    shown = re.findall(
        r"^```python\n(def distribute.*?)^```",
        "".join("".join(c["source"]) + "\n" for c in cells),
        re.M | re.S,
    )
    assert shown == [inspect.getsource(distribute)]


def test_the_first_failure_of_torchruns_log_is_told():
    log = "Root Cause (first observed failure):\n[0]:\n  rank      : 1 (local_rank: 1)\n  exitcode  : 1 (pid: 7)\n"
    assert what_happened(log).startswith("进程 1 先死了（退出码 1）")
    assert what_happened("ModuleNotFoundError: torch\n").endswith("ModuleNotFoundError: torch")
