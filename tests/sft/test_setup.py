"""What a chapter's set-up cell adds to a machine that lacks it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from sft import setup

ROOT = Path(__file__).parents[2]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))


def test_what_is_installed_is_pinned_and_leaves_colabs_own_stack_alone():
    wanted = {*setup.NEEDED, *setup.ALONE}
    assert wanted <= PINS.keys()
    assert not wanted & {"torch", "numpy", "datasets", "transformers"}


@pytest.mark.parametrize(
    "absent",
    [
        set(),
        {"jionlp"},
        {"trl"},
        {"peft"},
        {"evaluate", "snownlp", "peft", "jionlp", "trl"},
        set(setup.ALONE),
    ],
)
def test_what_is_missing_is_installed_and_some_without_their_dependencies(absent, monkeypatch):
    commands = []
    monkeypatch.setattr(setup, "distributions", lambda name: [] if name in absent else [Mock(version="1.0")])
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    setup.install_missing()
    installed = [{word for word in command if "==" in word} for command in commands]
    held = {"torch==1.0", "numpy==1.0"}  # as they are: pip would rather fail than replace them
    assert {word for words in installed for word in words - held} == {
        f"{name}=={PINS[name]}" for name in absent
    }
    for command, words in zip(commands, installed, strict=True):
        assert command[:4] == [sys.executable, "-m", "pip", "install"]
        alone = any(word.partition("==")[0] in setup.ALONE for word in words)
        assert ("--no-deps" in command) == (not held <= words) == alone


@pytest.mark.parametrize(
    "purpose, absent",
    [
        ("deploy", set()),
        ("deploy", {"onnxruntime"}),
        *((purpose, set(names)) for purpose, names in setup.LATER.items()),
    ],
)
def test_what_a_section_needs_is_installed_beside_the_protobuf_that_is_there(
    purpose, absent, monkeypatch, capsys
):
    commands = []
    monkeypatch.setattr(setup, "distributions", lambda name: [] if name in absent else [Mock(version="1.0")])
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    setup.install_later(purpose)
    assert [set(command[5:]) for command in commands] == (
        [{"torch==1.0", "numpy==1.0", "protobuf==1.0", *absent}] if absent else []
    )
    told = capsys.readouterr().out
    assert all(name in told for name in absent)


def test_what_is_not_installed_has_no_version():
    assert setup.installed("numpy") and setup.installed("no-such-package-anywhere") is None


def test_the_book_is_found_whatever_the_folder_is_afterwards(tmp_path):
    book = tmp_path / "有 空格"
    (book / "sft").mkdir(parents=True)
    (book / "chapters").mkdir()
    for name in ("constraints.txt", "sft/setup.py"):
        shutil.copy(ROOT / name, book / name)
    (book / "sft" / "only_here.py").touch()
    code = "import os, sys; sys.path[:0] = ['..']; import sft.setup; os.chdir('/'); import sft.only_here"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=book / "chapters", capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
