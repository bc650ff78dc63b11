"""The folder of a long training run: what it was, how it went, and all that it needs to go on after a stop.

::

    FOLDER/config.json      settings, fingerprints of the data, hardware, versions
    FOLDER/log.jsonl        one strict JSON object a line, the progress of the losses
    FOLDER/checkpoint.pt    everything a resumed run needs; written to a neighbour and renamed

A run resumed from its checkpoint ends with the same weights and the same log as one that was never stopped, on the
same machine with the same number of threads.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sft.machine import machine
from sft.training import has_bf16


class RunError(Exception):
    """A run folder cannot be used as it is. The message says what to do."""


class RunFolder:
    """One run on disk.

    Args:
        path: the folder; made if absent.
        config: JSON values that decide the result (settings, data fingerprints). A folder that holds a run with other
            values is refused, so that no checkpoint is ever continued with other data.

    Raises:
        RunError: the folder belongs to another run, or its config cannot be read.
    """

    def __init__(self, path: str | Path, config: dict[str, Any]) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._checkpoint = self.path / "checkpoint.pt"
        self._log = self.path / "log.jsonl"
        described = self.path / "config.json"
        config = json.loads(json.dumps(config))  # tuples become lists, as they will be read back
        if described.is_file():
            _refuse_other(described, config)
        else:
            _write(
                described, json.dumps({"decides": config, "machine": machine()}, ensure_ascii=False, indent=1)
            )

    def log(self, step: int, **values: float | int | str) -> None:
        """Append one line; numbers must be finite."""
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}, ensure_ascii=False, allow_nan=False) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """Every line so far, in order."""
        if not self._log.is_file():
            return []
        return [json.loads(line) for line in self._log.read_text(encoding="utf-8").splitlines()]

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the checkpoint; ``torch``'s random state goes in by itself."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        whole = {"step": step, "state": state, "torch": torch.get_rng_state(), "cuda": cuda}
        partial = self._checkpoint.with_name("checkpoint.pt.partial")
        torch.save(whole, partial)
        partial.replace(self._checkpoint)

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """(step, state) of the checkpoint, random state restored, later log lines dropped; None for a new run.

        Raises:
            RunError: the checkpoint is cut short.
        """
        if not self._checkpoint.is_file():
            self._log.unlink(missing_ok=True)
            return None
        try:
            whole = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises half a dozen kinds for a damaged file
            raise RunError(
                f"checkpoint {self._checkpoint} cannot be read ({type(error).__name__}: it may be cut short); "
                "delete it to start the run again from its beginning"
            ) from error
        torch.set_rng_state(whole["torch"])
        if whole["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(whole["cuda"])
        kept = [line for line in self.read_log() if line["step"] <= whole["step"]]
        _write(self._log, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))
        return whole["step"], whole["state"]

    def publish(self, folder: Path) -> None:
        """Lay config and log beside the finished model; the checkpoint has served."""
        shutil.copyfile(self.path / "config.json", folder / "training_config.json")
        shutil.copyfile(self._log, folder / "training_log.jsonl")
        self._checkpoint.unlink(missing_ok=True)


class Progress:
    """What a training loop needs to go on after a stop: model, optimizers, generator, kept in the run's checkpoint.

    Args:
        optimizers: always in the same order.
        generator: of the CPU, for what the loop draws besides ``torch``'s own random numbers.
        save_every: seconds between checkpoints.
    """

    def __init__(
        self,
        run: RunFolder,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        generator: torch.Generator,
        save_every: float = 300.0,
    ) -> None:
        self._run, self._model, self._optimizers, self._generator = run, model, optimizers, generator
        self._every, self._saved = save_every, time.perf_counter()

    def restore(self) -> int:
        """The number of steps already taken, everything set back to that point; 0 for a new run."""
        if (found := self._run.load()) is None:
            return 0
        step, state = found
        self._model.load_state_dict(state["model"])
        for optimizer, kept in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self._generator.set_state(state["generator"])
        return step

    def save_if_due(self, step: int) -> None:
        """Write a checkpoint when the last one is old enough. Only where a log line has just ended: see `Meter`."""
        if time.perf_counter() - self._saved <= self._every:
            return
        state = {
            "model": self._model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "generator": self._generator.get_state(),
        }
        self._run.save(step, state)
        self._saved = time.perf_counter()


class Meter:
    """Means of the losses over the last steps, printed and logged with time, throughput and utilisation.

    Args:
        steps: of the whole run.
        weights: those that multiply every token, see :func:`training_flops`.
        every: steps between lines.
    """

    def __init__(
        self, run: RunFolder, steps: int, weights: int, device: torch.device, every: int = 50
    ) -> None:
        self._run, self._steps, self._weights, self._every = run, steps, weights, every
        self._peak = measure_peak_flops(device)
        self._restart()

    def _restart(self) -> None:
        self._sums: dict[str, float] = {}
        self._count, self._tokens, self._began = 0, 0, time.perf_counter()

    def add(self, step: int, losses: Mapping[str, float], tokens: int) -> bool:
        """Take in one step, counted from 1; true when it closed a line, the only places for a checkpoint.

        Raises:
            FloatingPointError: the mean of a loss over the last steps is no longer finite.
        """
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + loss
        self._count += 1
        self._tokens += tokens
        if step % self._every and step != self._steps:
            return False
        seconds = time.perf_counter() - self._began
        means = {name: round(total / self._count, 4) for name, total in self._sums.items()}
        if not all(map(math.isfinite, means.values())):
            raise FloatingPointError(f"a loss is no longer finite at step {step}: {means}; lower lr")
        speed = self._tokens / seconds
        utilisation = model_flops_utilisation(self._weights, speed, self._peak)
        self._run.log(
            step,
            **means,
            seconds=round(seconds, 1),
            tokens_per_second=round(speed),
            mfu=round(utilisation, 3),
        )
        text = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        print(f"{step:,}/{self._steps:,}  {text}  {speed:,.0f} tokens/s  MFU {utilisation:.0%}", flush=True)
        self._restart()
        return True


def measure_peak_flops(device: torch.device, seconds: float = 1.0) -> float:
    """Floating-point operations a second of a large matrix product: the machine's practical peak.

    The denominator of :func:`model_flops_utilisation`. Measured rather than looked up, because it also holds for a
    CPU, a shared machine or a card that is capped; in the numbers that `sft.training.autocast` trains in: a processor
    without bfloat16 takes a minute for a product that it has in a seventh of a second in float32.
    """
    dtype = torch.bfloat16 if has_bf16(device) else torch.float32
    n = 8192 if device.type == "cuda" else 2048
    generator = torch.Generator(device).manual_seed(0)  # the run's own random state is not touched
    a, b = (torch.randn(n, n, device=device, generator=generator).to(dtype) for _ in range(2))
    a @ b
    _synchronise(device)
    began, products = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds:
        a @ b
        _synchronise(device)
        products += 1
    return 2 * n**3 * products / spent


def training_flops(parameters: int, tokens: int) -> float:
    """Forward and backward passes, 6 operations a weight and token (Kaplan et al. 2020, arXiv:2001.08361).

    Args:
        parameters: those that multiply every token: no embedding tables.
    """
    return 6.0 * parameters * tokens


def model_flops_utilisation(parameters: int, tokens_per_second: float, peak_flops: float) -> float:
    """Fraction of the peak that the model's own arithmetic uses (Chowdhery et al. 2022, arXiv:2204.02311, app. B)."""
    return training_flops(parameters, 1) * tokens_per_second / peak_flops


def _refuse_other(described: Path, config: dict[str, Any]) -> None:
    try:
        found = json.loads(described.read_text(encoding="utf-8"))["decides"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{described} cannot be read ({error}); delete the folder or name another") from None
    different = sorted(key for key in {*found, *config} if found.get(key) != config.get(key))
    if different:
        raise RunError(
            f"{described.parent} holds a run with other {', '.join(different)}; name another folder, or restore "
            "these values to go on with it"
        )


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + ("" if text.endswith("\n") or not text else "\n"), encoding="utf-8")
    partial.replace(path)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
