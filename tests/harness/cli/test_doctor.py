"""The machine's state, and what to do about it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from notebooks import write_book

from harness.archive import environment
from harness.archive.speed import MOST, Speed
from harness.book.config import load_book
from harness.cli import doctor, reach
from harness.cli.app import main
from harness.errors import ExitCode
from harness.model import JobResult, JobState

ROOT = Path(__file__).parents[3]


def test_packages_against_their_pins(tmp_path, monkeypatch):
    installed = dict.fromkeys((*doctor.OWN_PACKAGES, "evaluate"), "1.0") | {"torch": "2.13.0+cpu"}
    monkeypatch.setattr(doctor, "installed_version", installed.get)
    pins = tmp_path / "constraints.txt"
    pins.write_text(
        "# 注释\ntorch==2.13.0\nnumpy==2.0  # x\nnothing==1\nwin==1; sys_platform == 'win32'\nrich==1.0\n"
        "?bad\n"
    )
    found = [(c.status, c.message) for c in doctor.check_packages(pins, ["torch", "evaluate"])]
    assert found == [
        ("warn", "numpy is 1.0, pinned ==2.0"),
        ("warn", "cannot read '?bad' in constraints.txt"),
        ("ok", "2 as pinned in constraints.txt, 1 not installed here"),
    ]
    del installed["papermill"], installed["evaluate"]
    found = {
        c.message: (c.status, c.remedy) for c in doctor.check_packages(tmp_path / "none.txt", ["evaluate"])
    }
    assert found["papermill is not installed"] == ("fail", "pip install papermill")
    assert found["evaluate is not installed"] == ("fail", "pip install evaluate")
    assert "evaluate is not installed" not in [c.message for c in doctor.check_packages(pins)]


def test_what_the_harness_needs_is_what_it_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert tuple(project["dependencies"]) == doctor.OWN_PACKAGES


def test_what_a_book_requires_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "check_kernel", lambda: doctor.Check("kernel", "ok", "started"))
    monkeypatch.setattr(doctor, "check_network", lambda book: iter(()))
    write_book(tmp_path, {"01-a": ["1"]}, requires=["no-such-package"])
    lacking = [c.message for c in doctor.examine(tmp_path) if c.status == "fail"]
    assert lacking == ["no-such-package is not installed"]


def test_pins_that_are_no_text(tmp_path):
    (tmp_path / "constraints.txt").write_bytes(b"\xff\xfe")
    found = list(doctor.check_packages(tmp_path / "constraints.txt"))
    assert ("warn", "constraints.txt is not UTF-8 text: versions are not checked") in [
        (c.status, c.message) for c in found
    ]


@pytest.mark.slow
def test_the_kernel_really_starts():
    assert doctor.check_kernel().status == "ok"


@pytest.mark.parametrize(
    ("load", "told", "advice", "not_told"),
    [
        (9.5, "the machine is busy: 9.5 processes at a time on 2 cores", "end what else runs", "ipykernel"),
        (0.5, "none answered in 60 s", "ipykernel_launcher --version", "end what else"),
    ],
)
def test_a_kernel_that_is_late_is_told_apart_from_a_broken_one(monkeypatch, load, told, advice, not_told):
    late = JobResult(
        "probe", "probe.ipynb", None, "offline", None, JobState.TIMED_OUT, reason="--notebook-timeout"
    )
    monkeypatch.setattr(doctor, "run_job", lambda folder: late)
    monkeypatch.setattr(doctor, "cores", lambda: 2)
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (load, 0, 0))
    check = doctor.check_kernel()
    assert check.status == "fail" and told in check.message and advice in check.remedy
    assert not_told not in check.remedy and "-timeout" not in f"{check.message} {check.remedy}"


def test_advice_names_the_command_that_has_the_option(monkeypatch):
    monkeypatch.setattr(doctor, "find_speed", lambda pinned: Speed(0.05, MOST))
    monkeypatch.setattr(doctor, "memory_bytes", lambda: 2**30)
    for check in (doctor.check_speed(None), doctor.check_memory()):
        assert "`harness run` --" in check.remedy or "`harness run --" in check.remedy


def test_a_network_that_is_missing_is_a_warning(monkeypatch, tmp_path):
    places = [reach.Answer("hub", False, "no", "do"), reach.Answer("ModelScope", True, "yes")]
    monkeypatch.setattr(reach, "ask_all", lambda book: list(places))
    assert [(c.name, c.status) for c in doctor.check_network(None)] == [
        ("hub", "warn"),
        ("ModelScope", "ok"),
    ]
    write_book(tmp_path, {"01-a": ["1"]}, profiles={"offline": {"network": False}, "full": {}})
    checks = doctor.check_network(load_book(tmp_path))
    found = [(c.status, c.message) for c in checks if c.name == "profiles"]
    assert found == [("ok", "offline: need no network"), ("warn", "full: no hub")]


@pytest.mark.parametrize(("status", "code"), [("warn", ExitCode.OK), ("fail", ExitCode.INFRASTRUCTURE)])
def test_only_a_fail_makes_the_exit_code(monkeypatch, capsys, status, code):
    checks = [doctor.Check("python", "ok", "3.11"), doctor.Check("disk", status, "little", "free some")]
    monkeypatch.setattr(doctor, "examine", lambda root: iter(checks))
    assert main(["doctor"]) == code
    assert f"{status}  disk: little → free some" in capsys.readouterr().out


def test_hardware_classes(monkeypatch):
    card = {"name": "NVIDIA H100 80GB HBM3", "memory.total": "81559", "compute_cap": "9.0"}
    monkeypatch.setattr(environment, "nvidia_gpus", lambda: (card,))
    monkeypatch.setattr(environment.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(environment, "_cpuinfo", lambda: "flags\t\t: fpu avx512_bf16\nmodel name\t: X\n")
    assert environment.hardware_class() == "cuda-NVIDIA-H100-80GB-HBM3"
    assert environment.hardware_class("cpu") == "cpu-x86_64-bf16"
    monkeypatch.setattr(environment, "nvidia_gpus", tuple)
    monkeypatch.setattr(environment, "_cpuinfo", lambda: "flags\t\t: fpu avx2\n")
    assert environment.hardware_class() == "cpu-x86_64"
    assert environment.cpu_has_bf16() is False


def test_nvidia_smi_is_read(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA T4, 15360, 7.5'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    environment.nvidia_gpus.cache_clear()
    assert environment.nvidia_gpus() == (
        {"name": "NVIDIA T4", "memory.total": "15360", "compute_cap": "7.5"},
    )
    environment.nvidia_gpus.cache_clear()


def test_a_chapter_asks_for_the_machine_where_the_command_line_is_not_installed(tmp_path):
    blocked = "import runpy, sys; sys.modules |= dict.fromkeys(('papermill', 'typer', 'rich'))"
    command = [
        sys.executable,
        "-c",
        f"{blocked}; runpy.run_module('harness.cli.doctor', run_name='__main__')",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    checks = [json.loads(line) for line in done.stdout.splitlines()]
    assert [check["name"] for check in checks] == ["python", "cpu", "memory", "disk", "gpu", "bfloat16"]
    assert {check["status"] for check in checks} <= {doctor.OK, doctor.WARN, doctor.FAIL}
