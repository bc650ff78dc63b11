"""``pytest --harness``: each notebook and each claim is a test, in one process and in several."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from notebooks import RECORD, write_book, write_notebook

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[3]
INSTALLED = any(point.name == "harness" for point in entry_points(group="pytest11"))
COUNT = "from pathlib import Path\nwith Path('runs.txt').open('a') as file:\n    file.write('run\\n')"


def claim(name, **references):
    return {"name": name, "title": name, "direction": "higher", "margin": 0.01, **references}


def write_claims(root: Path, chapter: str, *claims: dict) -> None:
    folder = root / "chapters" / "claims"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"chapter": chapter, "claims": claims})
    (folder / f"{chapter}.yml").write_text(text, encoding="utf-8")


@pytest.fixture
def harness(pytester, monkeypatch):
    """Run pytest with the plugin in a process of its own; its result."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(*arguments: str):
        plugin = () if INSTALLED else ("-p", "harness.cli.pytest_plugin")
        return pytester.runpytest_subprocess(*plugin, "-p", "no:cacheprovider", *arguments)

    return run


@pytest.fixture
def book(pytester):
    """A book with claims of every kind, a failing chapter, a draft, and what must never be collected."""
    root = pytester.path / "我的 book"
    source = f"{COUNT}\n{RECORD}\nrecord('good', value)\nrecord('bad', value)\nrecord('open', value)"
    write_notebook(root / "chapters" / "01-a.ipynb", source, parameters="value = 0.5\nseed = 0")
    write_notebook(root / "chapters" / "02-b.ipynb", f"{RECORD}\nrecord('early', 1)", "x = 1\n1 / 0")
    write_book(root, {}, parameters={"01-a": {"smoke": {"value": 0.25}}})
    write_notebook(root / "drafts" / "plain.ipynb", "1")
    write_notebook(root / "chapters" / ".ipynb_checkpoints" / "01-a-checkpoint.ipynb", "1 / 0")
    write_notebook(root / "_build" / "runs" / "out.ipynb", "1 / 0")
    good, bad = {"bounds": {"low": 0.4, "high": 0.6}}, {"bounds": {"low": 0.9}}
    write_claims(root, "01-a", claim("good", offline=good, smoke={"bounds": {"high": 0.3}}),
                 claim("bad", offline=bad, smoke=good), claim("open"), claim("absent"))  # fmt: skip
    write_claims(root, "02-b", claim("early", offline=good))
    return root


def runs(root: Path) -> int:
    """How often the first chapter ran."""
    return len((root / "chapters" / "runs.txt").read_text().splitlines())


def outcomes(result) -> dict[str, str]:
    """Outcome by node id, from the lines of ``-v``."""
    found = re.findall(r"(\S*\.ipynb::\S+) (PASSED|FAILED|SKIPPED|ERROR)", result.stdout.str())
    return {name.rpartition("/")[2]: outcome for name, outcome in found}


EXPECTED = {
    "01-a.ipynb::run": "PASSED",
    "01-a.ipynb::claim[good]": "PASSED",
    "01-a.ipynb::claim[bad]": "FAILED",
    "01-a.ipynb::claim[open]": "SKIPPED",
    "01-a.ipynb::claim[absent]": "FAILED",
    "02-b.ipynb::run": "FAILED",
    "02-b.ipynb::claim[early]": "SKIPPED",
    "plain.ipynb::run": "PASSED",
}


def test_notebooks_and_claims_are_tests(harness, book, pytester):
    result = harness("--harness", "-v", "-rs", "--junitxml=junit.xml", str(book))
    assert outcomes(result) == EXPECTED
    text = result.stdout.str()
    assert re.search(
        r"chapters/02-b\.ipynb: failed: cell 2 .*line 2: ZeroDivisionError: division by zero", text
    )
    assert (
        "executed notebook: " in text
        and "bad [bounds]: fail: " in text
        and "absent [recorded]: missing: " in text
    )
    assert re.search(r"SKIPPED \[1\] .*02-b\.ipynb:1: .*did not complete: failed: cell 2", text)
    assert re.search(r"SKIPPED \[1\] .*01-a\.ipynb:1: open \[recorded\]: inconclusive", text)
    for noise in ("Traceback", "pytest_items.py", "raise ", "INTERNALERROR"):
        assert noise not in text
    assert runs(book) == 1

    suite = ET.parse(pytester.path / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("8", "3", "2")
    case = next(c for c in suite if c.get("name") == "run" and "01-a" in c.get("classname"))
    assert "01-a-offline-seed0: good" in [p.get("name") for p in case.iter("property")]
    failure = next(c for c in suite if c.get("name") == "run" and "02-b" in c.get("classname")).find(
        "failure"
    )
    assert "ZeroDivisionError" in failure.get("message")


@pytest.mark.parametrize("distribution", ["load", "loadgroup"])
def test_in_several_processes_a_notebook_runs_once(harness, book, distribution):
    result = harness("--harness", "--harness-no-cache", "-v", "-n", "2", "--dist", distribution, str(book))
    pairs = re.findall(r"(PASSED|FAILED|SKIPPED) .*?([^/]+\.ipynb::[^\s@]+)", result.stdout.str())
    found = {name: outcome for outcome, name in pairs}
    assert found == EXPECTED
    assert runs(book) == 1


def test_one_claim_alone_runs_its_notebook(harness, book):
    result = harness("--harness", "-v", f"{book / 'chapters' / '01-a.ipynb'}::claim[good]")
    assert outcomes(result) == {"01-a.ipynb::claim[good]": "PASSED"}
    assert runs(book) == 1


def test_nothing_that_changed_is_run_again_unless_asked(harness, book):
    chapter = str(book / "chapters" / "01-a.ipynb")
    for arguments, count in (((), 1), ((), 1), (("--harness-no-cache",), 2)):
        assert (
            outcomes(harness("--harness", "-v", *arguments, chapter))["01-a.ipynb::claim[good]"] == "PASSED"
        )
        assert runs(book) == count


def test_profile_seeds_and_strictness(harness, book):
    result = harness("--harness", "-v", "--harness-profile", "smoke", "--harness-seeds", "2", "--harness-strict",
                     str(book / "chapters"))  # fmt: skip
    assert outcomes(result) == {
        **{name: outcome for name, outcome in EXPECTED.items() if "plain" not in name},
        "01-a.ipynb::claim[open]": "FAILED",
    }
    assert runs(book) == 2 and "2-b.ipynb: failed" in result.stdout.str()  # 02-b has no seed and ran once
    assert "open [recorded]: inconclusive" in result.stdout.str()


def test_without_the_flag_nothing_is_collected_and_nothing_imported(harness, book, pytester):
    pytester.makepyfile(
        "import sys\ndef test_light():\n"
        "    loaded = {m for m in sys.modules if m.startswith('harness.')}\n"
        "    assert loaded <= {'harness.cli', 'harness.cli.pytest_plugin'}, loaded"
    )
    result = harness("-v", str(pytester.path))
    result.assert_outcomes(passed=1)
    assert "ipynb" not in result.stdout.str()


def test_notebooks_without_a_book(harness, pytester):
    write_notebook(
        pytester.path / "a" / "x.ipynb", f"{RECORD}\nrecord('acc', 1)\nprint(scale)", parameters="scale = 2"
    )
    write_notebook(pytester.path / "b" / "x.ipynb", "import os\nos._exit(3)")
    (pytester.path / "b" / "broken.ipynb").write_text("{")
    result = harness("--harness", "-v")
    text = result.stdout.str()
    result.assert_outcomes(passed=1, failed=2)
    assert "b/x.ipynb: dead: " in text and "broken.ipynb is not a notebook: broken JSON in line 1" in text
    assert len(list((pytester.path / "_build" / "pytest").iterdir())) == 3


def _broken_configuration(root):
    (root / "harness.yml").write_text("chapter: x")


def _broken_claims(root):
    (root / "chapters" / "claims" / "01-a.yml").write_text("chapter: 01-a\nclaims: [{name: x}]")


@pytest.mark.parametrize(
    ("prepare", "arguments", "words"),
    [
        (_broken_configuration, (), "harness.yml: unknown key 'chapter'"),
        (_broken_claims, (), "01-a.yml:2: .*lacks 'title'"),
        (None, ("--harness-profile", "gpu"), "unknown profile 'gpu'; profiles: smoke, offline"),
        (None, ("--harness-seeds", "x"), "--harness-seeds 'x': give a count"),
    ],
)
def test_mistakes_are_one_line(harness, book, prepare, arguments, words):
    if prepare:
        prepare(book)
    result = harness("--harness", *arguments, str(book / "chapters" / "01-a.ipynb"))
    text = result.stdout.str() + result.stderr.str()
    assert result.ret not in (0, 1) and re.search(words, text), text
    assert "Traceback" not in text and "pytest_items.py" not in text


def test_a_result_of_another_session_is_not_believed(harness, book):
    chapter = book / "chapters" / "01-a.ipynb"
    assert outcomes(harness("--harness", "-v", str(chapter)))["01-a.ipynb::claim[good]"] == "PASSED"
    write_claims(book, "01-a", claim("good", offline={"bounds": {"low": 0.9}}))
    assert outcomes(harness("--harness", "-v", str(chapter)))["01-a.ipynb::claim[good]"] == "FAILED"


def test_the_limits_of_the_profile_hold_not_those_of_pytest_timeout(harness, book):
    pytest.importorskip("pytest_timeout")
    write_notebook(book / "chapters" / "01-a.ipynb", "import time\ntime.sleep(3)", parameters="value = 1")
    (book / "chapters" / "claims" / "01-a.yml").unlink()
    result = harness("--harness", "-v", "--timeout", "1", str(book / "chapters" / "01-a.ipynb"))
    assert outcomes(result) == {"01-a.ipynb::run": "PASSED"}
