"""The whole book in the smoke profile, through the harness as a maintainer would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 840  # seconds, for a machine that is busy with other tests; a minute and a half where it is quiet

pytestmark = pytest.mark.timeout(LIMIT + 60)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("smoke") / "带空格 的文件夹"
    command = [sys.executable, "-m", "harness", "run", "--profile", "smoke", "--no-cache", "--out", str(out)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def run(run_dir: Path) -> dict:
    return json.loads((run_dir / "result.json").read_text())


def test_every_chapter_completed(run: dict):
    assert {job["state"] for job in run["jobs"]} == {"completed"}
    assert len(run["jobs"]) == len(list((ROOT / "chapters").glob("*.ipynb")))


def test_every_claim_has_a_metric_and_every_metric_a_claim(run: dict):
    outcomes = {v["claim"]: v["outcome"] for v in run["verdicts"]}
    elsewhere = {claim for claim, outcome in outcomes.items() if outcome == "not_applicable"}
    assert elsewhere == {c for c in elsewhere if "opus" in c}, "only 6.4's model from the hub is not there"
    assert {outcomes[claim] for claim in outcomes.keys() - elsewhere} == {"pass"}, outcomes


def test_no_cell_leaves_a_warning(run_dir: Path):
    noise = [
        (notebook.parent.name, cell["id"], "".join(output["text"])[:200])
        for notebook in run_dir.glob("jobs/*/out.ipynb")
        for cell in json.loads(notebook.read_text())["cells"]
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr"
    ]
    assert noise == []
