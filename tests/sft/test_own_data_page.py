"""The appendix `chapters/own-data.md` says what the commands do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer

from sft import export, finetune, predict, serve
from sft.classifiers import choose_recipe

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "chapters" / "own-data.md").read_text(encoding="utf-8")
COMMANDS = {"finetune": finetune, "predict": predict, "export": export, "serve": serve}


def options(name: str) -> set[str]:
    app = typer.Typer()
    app.command()(COMMANDS[name].main)
    return {option for parameter in typer.main.get_command(app).params for option in parameter.opts}


def test_every_option_of_the_page_exists():
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", PAGE)) - {"--depth"}
    assert named <= set().union(*map(options, COMMANDS))
    for name, rest in re.findall(r"python -m sft\.(\w+)([^\n`]*)", PAGE):
        assert set(re.findall(r"--[a-z][a-z0-9-]*", rest)) <= options(name)


def test_the_epochs_of_the_table_are_those_of_the_recipe():
    rows = re.findall(r"^\| (\d+) \| (\d+) \|$", PAGE, re.M)
    assert len(rows) >= 5
    for train, epochs in rows:
        assert choose_recipe(int(train), 2, [60]).num_epochs == int(epochs), train


def test_the_cell_for_colab_is_the_set_up_cell_of_the_chapters():
    notebook = json.loads((ROOT / "chapters" / "05-1-fine-tuning.ipynb").read_text(encoding="utf-8"))
    setup = next(c for c in notebook["cells"] if "setup" in c["metadata"].get("tags", ()))
    lines = "".join(setup["source"]).splitlines()
    packed = re.sub(r"\n+", "\n", PAGE)  # ruff sets the page's code, too, with blank lines of its own
    assert "\n".join(line for line in lines if not line.startswith("#")) in packed


def test_the_page_holds_no_measured_number():
    from harness.book.lint import _prose

    assert [found for found in _prose(PAGE) if "measured" in found] == []


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxscript"])
def test_the_packages_of_the_page_are_those_of_the_project(name):
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert name in project["optional-dependencies"]["book"]
    assert re.search(rf"^pip install .*\b{name}\b", PAGE, re.M)
