"""The project's own files agree with one another."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=~ ;]", name)[0]).lower()


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name]


def test_every_dependency_is_pinned():
    wanted = [
        *PROJECT["dependencies"],
        *(d for extra in PROJECT["optional-dependencies"].values() for d in extra),
    ]
    assert {canonical(d) for d in wanted} <= {canonical(name) for name in PINS}


def test_every_pin_is_exact_and_local_versions_are_left_out():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if line and not re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line)] == []


def test_readmes_name_the_two_commands_and_every_chapter():
    for name in ("README.md", "README.zh-CN.md"):
        text = (ROOT / name).read_text()
        assert "make book" in text and "make test" in text and "make quick" in text
        for chapter in (ROOT / "chapters").glob("*.ipynb"):
            assert f"chapters/{chapter.name}" in text


@pytest.mark.slow
def test_the_quick_tests_start_no_browser_no_cluster_no_chapter_and_no_site():
    makefile = (ROOT / "Makefile").read_text()
    expression = re.search(r"^quick:.*\n.* -m '(.+)'$", makefile, re.M)[1]
    heavy = [
        "tests/harness/site",
        "tests/chapters",
        "tests/harness/execute/ray/test_ray_executor.py",
        "tests/test_workflow_steps.py",
    ]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", *heavy]
    every, quick = (
        subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for more in ([], ["-m", expression])
    )
    for module in ("test_browser", "test_smoke", "test_full_profile"):
        assert f"{module}.py::" in every and f"{module}.py::" not in quick
    for test in (
        "test_every_state_is_as_in_a_local_run",
        "test_the_smoke_run_of_a_push_leaves_its_report",
        "test_the_front_page_offers_all_and_they_are_there",
    ):
        assert test in every and test not in quick
    assert "test_pages.py::" in quick and "test_notebooks.py::" in quick


def test_no_two_test_modules_share_a_name():
    """pytest imports each by its name alone and stops at the second."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_modules_keep_their_arrows():
    """As pyproject.toml says: the harness's wings, recipes on sft, and that the harness knows neither."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    done = subprocess.run([*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_chapters_import_of_the_harness_only_record_and_nothing_of_recipes():
    for chapter in (ROOT / "chapters").glob("*.ipynb"):
        used = set(re.findall(r"(?:from|import) ((?:harness|recipes)\b[\w.]*)", chapter.read_text()))
        assert used <= {"harness.record"}, chapter


def test_nothing_generated_large_or_private_is_committed():
    index_option = re.compile(r"--(?:extra-)?index[-]url[ =]+http|registr[y][ =]+http|signed[-]by=")
    for file in tracked():
        if not file.is_file():
            continue
        limit = 25_000_000 if file.parent.name == "mini-bert-zh" else 10_000_000
        assert file.stat().st_size < limit, file
        assert not {"_build", ".venv", "__pycache__"} & set(file.relative_to(ROOT).parts)
        if (
            file.suffix in {".py", ".md", ".yml", ".toml", ".txt", ".ipynb", ""}
            and "vendor" not in file.parts
        ):
            text = file.read_text(encoding="utf-8", errors="ignore")
            assert not re.search(r"/(?:home|root|Users)/\w+/", text), f"{file}: a machine's path"
            assert not index_option.search(text), f"{file}: a registry's address"
