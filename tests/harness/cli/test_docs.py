"""The book's appendix on the harness: its examples run, and it forgets nothing that the code has."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from unittest.mock import Mock

import jsonschema
import pytest
import yaml
from notebooks import write_notebook

from harness.archive import folder as store
from harness.archive.remote import JOB_FILES
from harness.book import claims, config, matrix, references
from harness.cli.app import GENERATED, command_tree, main
from harness.errors import ExitCode, HarnessError
from harness.execute.kernel import outputs, patience, variables
from harness.execute.kernel.job import CANCEL_GRACE, HEARTBEAT_EVERY
from harness.execute.ray.executor import PACK_LIMIT
from harness.execute.schedule import UNKNOWN_MB
from harness.judge import rules
from harness.judge.statistics import MOST_RUNS
from harness.model import CellState, JobState, Outcome, ReferenceRun, metric_from_json
from harness.report.write import SCHEMA_PATH
from harness.site.build import build, fill_markers
from harness.wording import OUTCOMES, RULES, STATES, SYMBOLS

ROOT = Path(__file__).resolve().parents[3]
PAGES = ROOT / "chapters" / "harness"
NAMES = ("usage", "formats", "verdicts", "faq", "commands")
SITE_EXAMPLES = ("_toc.yml", "_config.yml")
READMES = ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "Makefile")

_FENCE = re.compile(
    r"(?:^<!-- example: (?P<example>\S+) -->\n)?^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.M | re.S
)
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[tuple[str, str]]:
    """(name of the example, content) of the fenced blocks in this language."""
    return [(m["example"] or "", m["body"]) for m in _FENCE.finditer(page(name)) if m["language"] == language]


def codes(text: str) -> set[str]:
    """Everything that stands in backticks outside fences."""
    return set(re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)))


# -- examples that run ------------------------------------------------------------------------------


def console_steps(text: str) -> Iterator[tuple[str, list[str]]]:
    """(command, the lines that are shown of its output), in order."""
    command, shown = "", []
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line[2:], []
        else:
            assert command, f"output before any command: {line!r}"
            shown.append(line)
    if command:
        yield command, shown


_VARYING = (
    (re.compile(r"\d{8}T\d{6}-(\w+)-[0-9a-f]{4}"), r"RUN-\1"),
    (re.compile(r"\b\d+(?:\.\d+)? s\b|\b\d+\.\d+s\b"), "TIME"),
    (re.compile(r"\b\d+ MB\b"), "MEMORY"),
    (re.compile(r"\s+"), " "),
)


_BUSY = re.compile(r"^speed |: cell \d+/\d+.*, \d+\.\d s, \d+ MB$")  # what only a busy machine prints


def normal(line: str) -> str:
    """*line* without what differs from one machine and minute to the next."""
    for pattern, word in _VARYING:
        line = pattern.sub(word, line)
    return line.strip()


def check_shown(shown: list[str], actual: list[str]) -> str:
    """What is wrong, empty if nothing: the shown lines are there in order, with gaps only where … stands."""
    wanted = [normal(line) for line in shown if line.strip()]
    there = [normal(line) for line in actual if line.strip()]
    at, free = 0, False
    for line in wanted:
        if line == "…":
            free = True
            continue
        found = next((i for i in range(at, len(there)) if there[i] == line), None)
        if found is None or (found != at and not free):
            return f"{line!r} does not come next after {there[at - 1] if at else 'the command'!r}"
        at, free = found + 1, False
    return "" if free or at == len(there) else f"{there[at]!r} is not shown"


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A home folder with harness and pytest on the path, as a reader has them."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("harness", "pytest"):
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {name} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    environment = {
        **kept,
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
        "COLUMNS": "88",
    }
    return home, environment


@pytest.mark.timeout(600)
def test_the_commands_of_the_usage_page_do_what_it_shows(shell):
    home, environment = shell
    folder, code = home, 0
    steps = [step for _, body in blocks("usage", "console") for step in console_steps(body)]
    assert len(steps) > 30
    for number, (command, shown) in enumerate(steps):
        if command == "echo $?":
            assert shown == [str(code)], f"after {steps[number - 1][0]!r}"
            continue
        if command.startswith("cd "):
            folder = (folder / command[3:]).resolve()
            assert folder.is_dir() and not shown
            continue
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command}"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        output = done.stdout.replace(str(home), "/books")
        lines = [line for line in output.splitlines() if not _BUSY.search(line)]
        problem = check_shown(shown, lines)
        assert not problem, f"$ {command}\n{output}\n{problem}"
        code = done.returncode
        told = number + 1 < len(steps) and steps[number + 1][0] == "echo $?"
        assert code == 0 or told, f"$ {command} ends with {code}, which the page does not say\n{output}"


def test_a_line_that_is_not_there_is_noticed():
    there = ["a", "b", "took 1.2 s", "c"]
    assert check_shown(["a", "…", "took 9.9 s", "c"], there) == ""
    assert check_shown(["…", "b", "…"], there) == ""
    assert "does not come next" in check_shown(["a", "c"], there)
    assert "does not come next" in check_shown(["…", "d"], there)
    assert "is not shown" in check_shown(["a", "b"], there)


def test_yaml_examples_are_read_by_the_readers(tmp_path):
    seen = set()
    for name in NAMES:
        for example, body in blocks(name, "yaml"):
            seen.add(example)
            if example == "harness.yml":
                book = tmp_path / name
                write_notebook(
                    book / "chapters" / "01-first-measurement.ipynb", "1", parameters="num_points = 9"
                )
                (book / "harness.yml").write_text(body, encoding="utf-8")
                read = config.load_book(book)
                assert read.environment == ("MY_DATA", "MY_SERVICE_*", *([read.hub] if read.hub else ()))
            elif example.startswith("claims/"):
                path = tmp_path / Path(example).name
                path.write_text(body, encoding="utf-8")
                claim, *more = claims.load_claims(tmp_path, path.stem, ["smoke", "full"]).claims
                assert (claim.published and claim.bounds) or claim.parameters
                assert [list(one.parameters) for one in more] in ([], [["source"], ["source"], []])
            elif example == "benchmarks.yml":
                path = tmp_path / example
                path.write_text(body, encoding="utf-8")
                (task,) = matrix.read_matrix(path, config.load_book(ROOT)).tasks
                assert task.scores[0].published.keys() == set(task.models)
            elif example in SITE_EXAMPLES:  # see test_the_site_of_the_usage_page_is_built
                assert isinstance(yaml.safe_load(body), dict)
            else:
                assert example == "workflow.yml", f"{name}.md: a YAML block that no test reads"
                steps = [s for job in yaml.safe_load(body)["jobs"].values() for s in job["steps"]]
                assert all(s["run"].startswith("harness ") for s in steps)
    assert len(seen) == 5 + len(SITE_EXAMPLES)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("flat", [False, True])
def test_the_site_of_the_usage_page_is_built(tmp_path, monkeypatch, capsys, flat):
    """With warnings as errors, from the page's own files; nothing of the book has run yet."""
    pytest.importorskip("jupyter_book", reason="the site extra is not installed")
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == ExitCode.OK
    examples = {name: body for language in ("yaml", "markdown") for name, body in blocks("usage", language)}
    for name in (*SITE_EXAMPLES, "intro.md"):
        Path(name).write_text(examples[name], encoding="utf-8")
    if flat:
        Path("chapters", "01-first-measurement.ipynb").rename("01-first-measurement.ipynb")
        for name in ("_toc.yml", "harness.yml"):
            text = Path(name).read_text(encoding="utf-8")
            text = text.replace("chapters/01", "01").replace("chapters: chapters", "chapters: .")
            Path(name).write_text(text, encoding="utf-8")
    index = build(config.load_book(), None, GENERATED)
    page = index.parent / ("" if flat else "chapters") / "01-first-measurement.html"
    shown, (sheet,) = page.read_text(encoding="utf-8"), index.parent.rglob("harness.css")
    assert "run-card" in shown and "_static/harness.css" in shown and ".run-card" in sheet.read_text()
    assert "本章还没有运行过" in shown and "这里写前言" in (index.parent / "intro.html").read_text(
        encoding="utf-8"
    )
    assert "intro.html" in index.read_text(encoding="utf-8")


def test_json_examples_are_what_the_harness_writes():
    by_name = dict(blocks("formats", "json"))
    file = "claims/blessed/01-first-measurement.jsonl"
    assert set(by_name) == {"result.json", "metrics.jsonl", "events.jsonl", file}
    blessed = references.parse_references(by_name[file], Path(file))
    assert [run.seed for run in blessed["pi_estimate"]["full"]] == [0, 1]
    assert references.references_text(blessed) == by_name[file]
    jsonschema.validate(json.loads(by_name["result.json"]), schema())
    for line in by_name["metrics.jsonl"].splitlines():
        assert metric_from_json(json.loads(line)).name == "pi_estimate"
    for line in by_name["events.jsonl"].splitlines():
        assert json.loads(line)["event"] in event_names()


def test_python_examples_run(monkeypatch, capsys):
    monkeypatch.delenv("HARNESS_METRICS", raising=False)
    for _, body in blocks("formats", "python"):
        exec(compile(body, "formats.md", "exec"), {})
    assert "test_accuracy" in capsys.readouterr().out


# -- nothing is named that does not exist -----------------------------------------------------------


def all_options() -> set[str]:
    from harness.cli.pytest_plugin import pytest_addoption

    parser = Mock()
    pytest_addoption(parser)
    of_pytest = {call.args[0] for call in parser.getgroup.return_value.addoption.call_args_list}
    typed = {
        option
        for command in command_tree().commands.values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--")
    }
    return typed | of_pytest | {"--help"}


@pytest.mark.parametrize("name", NAMES)
def test_every_option_that_a_page_names_exists(name):
    assert set(_OPTION.findall(page(name))) <= all_options()


def test_every_command_that_is_shown_exists():
    known = set(command_tree().commands)
    texts = [page(name) for name in NAMES] + [(ROOT / name).read_text(encoding="utf-8") for name in READMES]
    for text in texts:
        shown = re.findall(
            r"(?:^\$ |^|`|run: |bin/)(?:\w+=\S+ )*(?:python -m )?harness ([a-z]\w*)", text, re.M
        )
        assert set(shown) <= known
    assert known <= set(re.findall(r"^## harness (\w+)$", GENERATED["commands"](), re.M))


def test_links_between_the_pages_lead_somewhere():
    for name in NAMES:
        for target in re.findall(r"\]\(([^)#\s]+)", page(name)):
            assert (PAGES / target).exists(), f"{name}.md: {target}"
    for name in ("README.md", "README.zh-CN.md"):
        for target in re.findall(r"\]\((chapters/[^)#\s]+)\)", (ROOT / name).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{name}: {target}"


# -- nothing that exists is forgotten ---------------------------------------------------------------


def schema() -> dict:
    return json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))


def event_names() -> set[str]:
    """Every event that some module of the harness emits for events.jsonl."""
    found = set()
    for path in (ROOT / "harness").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r'(?:"event": |\b_?tell\()"([a-z_]+)"', text))
    return found - {"end"}  # from the worker to its watch only


def missing(name: str, wanted) -> set[str]:
    """Which of the *wanted* names stand nowhere on the page as code."""
    found = codes(page(name))
    words = found | {word for code in found for word in re.split(r"[\s=]+", code)}
    return {str(one) for one in wanted} - words


def keys_of(lines: str) -> set[str]:
    return {key for line in lines.splitlines() for key in json.loads(line)}


def test_the_formats_page_has_every_key():
    defs = schema()["$defs"]
    reference = [f.name for f in fields(ReferenceRun)]
    run = {
        key
        for line in dict(blocks("formats", "json")).values()
        if "written_by" in line
        for key in keys_of(line)
    }
    assert {*reference} - {"value"} <= run
    for wanted in (
        config.KEYS,
        config.PROFILE_KEYS,
        (*claims._FIELDS, *claims._REFERENCES, "low", "high", "citation", "split", "protocol", *reference),
        run,
        schema()["properties"],
        *(defs[kind]["properties"] for kind in ("job", "verdict", "metric", "environment")),
        list(JobState),
        list(CellState),
        list(Outcome),
        event_names(),
    ):
        assert not missing("formats", wanted)


def test_the_formats_page_says_where_the_schema_lies():
    assert f"`{SCHEMA_PATH.relative_to(ROOT).as_posix()}`" in page("formats")


def test_the_formats_page_has_every_file_of_a_run():
    assert not missing("formats", [*store.OWN_FILES, *JOB_FILES, "jobs/"])


def test_the_formats_page_has_every_key_of_a_manifest():
    text = (ROOT / "harness" / "execute" / "run.py").read_text(encoding="utf-8")
    body = text[text.index("def make_manifest") : text.index("class _Runner")]
    keys = set(re.findall(r'^ +"(\w+)": ', body, re.M)) | set(re.findall(r'\*\*manifest, "(\w+)"', body))
    assert len(keys) > 10 and not missing("formats", keys - {"time", "kept"})


def test_the_usage_page_has_every_state_and_exit_code():
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in page("usage").splitlines()]
    by_first = {row[0].strip("`"): row for row in rows if row}
    for state in JobState:
        assert by_first[state.value][1] == STATES[state].en
    for code in ExitCode:
        assert str(int(code)) in by_first
    assert "4、3、2、1、5" in page("usage")


def test_the_usage_page_tells_the_exit_code_of_each_state():
    from harness.model import JobResult
    from harness.report.write import exit_code

    for state in JobState:
        result = JobResult("a", "a.ipynb", None, "smoke", None, state)
        code = int(exit_code([result], [], strict=False))
        assert re.search(rf"^\| `{state.value}` \|.*\| {code} \|$", page("usage"), re.M), state


def test_every_option_of_run_is_explained_on_the_usage_page():
    options = {o for p in command_tree().commands["run"].params for o in p.opts if o.startswith("--")}
    assert options <= set(_OPTION.findall(page("usage")))


def test_every_command_is_explained_on_the_usage_page():
    shown = set(re.findall(r"harness (\w+)", page("usage"))) | codes(page("usage"))
    assert set(command_tree().commands) <= shown


def test_the_verdicts_page_has_every_rule_and_outcome():
    assert not {rule for rule in RULES if f"`{rule}`" not in page("verdicts")}
    assert not {text.zh for text in OUTCOMES.values() if text.zh not in page("verdicts")}
    for outcome in Outcome:
        assert f"| `{outcome.value}` | {SYMBOLS[outcome]} {OUTCOMES[outcome].zh} |" in page("formats")


def test_constants_that_the_pages_tell_are_those_of_the_code():
    assert rules.RUNS_FOR_TEST == 3 and "| 3 次起 |" in page("verdicts")
    assert rules.FAR == 2 and r"$|d|>2\Delta$" in page("verdicts") and "2 倍" in page("verdicts")
    assert rules.ALPHA == 0.05 and rules.CONFIDENCE == 0.95
    assert outputs.MAX_TEXT == 10_000_000 and "一千万字符" in page("faq")
    assert HEARTBEAT_EVERY == 15 and "每 15 秒" in page("formats")
    assert CANCEL_GRACE == 8 and "8 秒收尾" in page("usage")
    assert PACK_LIMIT == 500 * 2**20 and "超过 500 MB" in page("usage")
    assert UNKNOWN_MB == 1024 and "按 1 GB 算" in page("usage")
    assert variables._SHORTEST_SECRET == 8 and "短于 8 个字符" in page("usage")
    assert MOST_RUNS == 1000 and "一千次" in page("verdicts")
    assert rules.KEPT_DIGITS == 6 and "六位有效数字" in page("formats")
    grace = f"最多等 {patience.GRACE:g} 秒", f"最多 {patience.STRETCH * patience.GRACE:g} 秒"
    assert all(words in page("usage") for words in grace)


# -- what is generated ------------------------------------------------------------------------------


def test_the_reference_has_every_option_with_its_help():
    text = GENERATED["commands"]()
    for name, command in command_tree().commands.items():
        section = text[text.index(f"## harness {name}\n") :].split("\n## ")[0]
        for parameter in command.params:
            for option in (*parameter.opts, *parameter.secondary_opts):
                if option.startswith("--"):
                    assert option in section, f"{name}: {option}"
            assert parameter.help, f"harness {name}: {parameter.name} has no help"
    assert r"\[default: latest\]" in text and "Exit codes: 0 all claims hold" in text


def test_markers_are_filled_and_unknown_ones_refused():
    assert "`PATH`" in fill_markers("a.md", "甲\n\n<!-- harness:variables -->\n\n乙\n", GENERATED)
    assert fill_markers("a.md", "<!-- harness:dashboard -->\n", GENERATED) == "<!-- harness:dashboard -->\n"
    with pytest.raises(HarnessError, match=r"a\.md: nothing is called harness:comands; names: commands, "):
        fill_markers("a.md", "<!-- harness:comands -->\n", GENERATED)
    text = fill_markers("a.md", "".join(f"<!-- harness:{name} -->\n\n" for name in GENERATED), GENERATED)
    assert "<!--" not in text and all(f"`{name}`" in text for name in variables.PASSED)


def test_help_leaves_the_parts_of_the_pages_as_they_are(capsys):
    assert main(["run", "--help"]) == ExitCode.OK
    assert set(GENERATED) == {"commands", "variables"}


def test_every_marker_stands_on_a_page():
    found = {
        name
        for page_name in NAMES
        for name in re.findall(r"^<!-- harness:([\w-]+) -->$", page(page_name), re.M)
    }
    assert found == set(GENERATED)


def test_the_pages_are_part_of_the_site():
    named = re.findall(r"file: chapters/harness/(\w+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(NAMES) == sorted(path.stem for path in PAGES.glob("*.md"))
