"""Two processes train one decoder: each reads half of every batch, and holds all of the model or half of it.

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m sft.parallel FOLDER

FOLDER comes from :func:`write_task`; each process writes there what it measured. Chapter 9.5 explains the few lines
that make a loop parallel, and compares the losses with those of one process that reads whole batches.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import typer
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from sft.commands import CommandError, one_line_errors
from sft.decoder import DecoderConfig, ModernDecoder, next_loss

WAYS = ("one", "ddp", "fsdp")
"""One process with whole batches; copies of the model whose gradients are averaged; a model in slices."""


class ParallelError(CommandError):
    """The processes did not come to the end; in one line which of them went first, and how."""


@dataclass(frozen=True)
class Measured:
    """What one process saw of one way to train."""

    losses: list[float]  # of each whole batch, before its step
    seconds: list[float]  # of each step
    held_bytes: int  # weights, gradients and the optimizer's averages that this process keeps between steps


def write_task(folder: Path, decoder: ModernDecoder, batches: torch.Tensor) -> None:
    """A folder for the processes: the model's weights, and ``batches`` (steps, batch, n) of token ids.

    Raises:
        ValueError: the rows of a batch cannot be dealt out evenly to two processes.
    """
    if batches.ndim != 3 or batches.shape[1] % 2:
        raise ValueError(
            f"batches of shape {tuple(batches.shape)}: must be (steps, an even number of rows, n)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    config = asdict(decoder.layers[0].attention.config)
    torch.save({"config": config, "weights": decoder.state_dict(), "batches": batches}, folder / "task.pt")


def read_task(folder: Path) -> tuple[ModernDecoder, torch.Tensor]:
    """What :func:`write_task` wrote.

    Raises:
        CommandError: there is no such file.
    """
    if not (folder / "task.pt").is_file():
        raise CommandError(f"{folder} 里没有 task.pt：先用 sft.parallel.write_task 写下模型和数据")
    task = torch.load(folder / "task.pt")
    decoder = ModernDecoder(DecoderConfig(**task["config"]))
    decoder.load_state_dict(task["weights"])
    return decoder, task["batches"]


def distribute(model: nn.Module, way: str) -> nn.Module:
    """The model, made to be trained by all processes together."""
    if way == "ddp":
        return DistributedDataParallel(model)
    if way == "fsdp":
        for layer in model.layers:
            fully_shard(layer)
        return fully_shard(model)
    return model


def train_steps(
    model: nn.Module, batches: torch.Tensor, lr: float
) -> Iterator[tuple[torch.Tensor, nn.Module]]:
    """A step for each batch: its loss and the optimizer; nothing here knows how many processes there are."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for ids in batches:
        loss = next_loss(model, ids)
        loss.backward()
        optimizer.step()
        yield loss.detach(), optimizer
        optimizer.zero_grad()


def held_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of weights, gradients and averages; of sharded ones the part that this process has."""
    averages = [x for state in optimizer.state.values() for x in state.values() if x.ndim]
    tensors = [*model.parameters(), *(p.grad for p in model.parameters()), *averages]
    return sum(getattr(x, "to_local", lambda x=x: x)().nbytes for x in tensors)


def measure(way: str, folder: Path, lr: float, die: tuple[int, int] | None = None) -> Measured:
    """Train in one way; with ``die`` (process, step) that process kills itself before that step."""
    rank, world = dist.get_rank(), dist.get_world_size()
    decoder, batches = read_task(folder)
    if way != "one":
        batches = batches.chunk(world, dim=1)[rank]
    model, losses, seconds, held = distribute(decoder, way), [], [], 0
    began = time.perf_counter()
    for step, (loss, optimizer) in enumerate(train_steps(model, batches, lr), 1):
        if step == 1:
            held = held_bytes(model, optimizer)
        if die == (rank, step + 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if way != "one":
            dist.all_reduce(loss)
            loss /= world
        losses.append(loss.item())
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return Measured(losses, seconds, held)


def run_parallel(
    folder: Path, ways: Sequence[str] = WAYS, *, rounds: int = 1, die: str = "", timeout: float = 60.0
) -> list[dict[str, list[Measured]]]:
    """Start two processes by torchrun; what each measured: way -> a measurement for each round.

    Raises:
        ParallelError: one of them ended before the last step.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "sft.parallel", str(folder), "--ways", ",".join(ways), "--rounds", str(rounds)]
    command += ["--timeout", str(timeout), *(["--die", die] if die else [])]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise ParallelError(what_happened(done.stderr))
    return [
        {way: [Measured(**one) for one in found] for way, found in json.loads(file.read_text()).items()}
        for file in sorted(folder.glob("measured-*.json"))
    ]


def what_happened(log: str) -> str:
    """The first failure in torchrun's log, in one line."""
    cause = log.rpartition("Root Cause")[2]
    rank, code = (re.search(rf"{key}\s*:\s*(-?\d+)", cause) for key in ("rank", "exitcode"))
    if not rank or not code:
        return f"torchrun 没有跑起来：{(log.strip().splitlines() or ['没有留下话'])[-1]}"
    how = f"退出码 {code[1]}"
    if int(code[1]) < 0:
        with suppress(ValueError):
            how = f"收到信号 {signal.Signals(-int(code[1])).name}"
    return f"进程 {rank[1]} 先死了（{how}），torchrun 停下了另一个：没有存过检查点的，从头再来"


def main(
    folder: Annotated[Path, typer.Argument(help="write_task 写的文件夹")],
    ways: Annotated[str, typer.Option(help="one、ddp、fsdp，用逗号隔开")] = "ddp",
    rounds: Annotated[int, typer.Option(min=1, help="各种办法轮流量几遍")] = 1,
    lr: Annotated[float, typer.Option(help="学习率")] = 3e-4,
    die: Annotated[str, typer.Option(help="试验：哪个进程在哪一步之前死，例如 1:3")] = "",
    timeout: Annotated[float, typer.Option(help="最多等另一个进程多少秒")] = 60.0,
) -> None:
    """一个进程的程序，由 torchrun 同时开两份。"""
    with one_line_errors("parallel"):
        if unknown := [way for way in ways.split(",") if way not in WAYS]:
            raise CommandError(f"--ways {unknown[0]}：只有 {'、'.join(WAYS)}")
        torch.set_num_threads(1)
        dist.init_process_group("gloo", timeout=timedelta(seconds=timeout))
        rank, found = dist.get_rank(), {way: [] for way in ways.split(",")}
        doomed = tuple(int(part) for part in die.split(":")) if die else None
        try:
            for _ in range(rounds):
                for way, measured in found.items():
                    if way != "one" or rank == 0:  # the other waits at the barrier
                        measured.append(asdict(measure(way, folder, lr, doomed)))
                    dist.barrier()
        except RuntimeError as error:
            if "gloo" not in str(error).lower() and "connection" not in str(error).lower():
                raise
            reason = " ".join(str(error).split())[-120:]
            raise ParallelError(
                f"进程 {rank}：另一个进程没有回音，它可能已经死了；训练停在这里，从检查点再来（{reason}）"
            ) from error
        (folder / f"measured-{rank}.json").write_text(json.dumps(found))
        dist.destroy_process_group()


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    app()
