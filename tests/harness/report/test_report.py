"""Reports: result.json against its schema, JUnit, Markdown in two languages, the terminal, exit codes."""

from __future__ import annotations

import io
import itertools
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from rich.cells import cell_len
from rich.console import Console

from harness.archive.environment import environment
from harness.archive.recorded import RunResult, manifest_from_json, read_result, result_from_json
from harness.errors import ExitCode
from harness.judge.rules import judge_claim
from harness.model import (
    CellResult,
    CellState,
    Claim,
    JobResult,
    JobState,
    Metric,
    Outcome,
    Published,
    ReferenceRun,
    Verdict,
)
from harness.report.junit import junit_xml
from harness.report.summary import print_summary, wrapped
from harness.report.view import markdown_report
from harness.report.write import SCHEMA_PATH, exit_code, write_reports
from harness.wording import (
    OUTCOMES,
    RULES,
    STATES,
    SYMBOLS,
    format_memory,
    format_seconds,
    one_line,
    rounding,
)

MANIFEST = {
    "schema": 1,
    "run": "20261124T013000-offline-ab12",
    "command": ["harness", "run"],
    "profile": "offline",
    "device": "auto",
    "started": "2026-11-24T01:30:00+00:00",
    "commit": "0123456789abcdef",
    "dirty": True,
    "environment": {
        "python": "3.11.7",
        "platform": "Linux",
        "hardware": "cpu-x86_64-bf16",
        "cpu": "A | B <C>",
        "cores": 2,
        "memory_gb": 7.7,
        "gpu": None,
        "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
    },
    "jobs": [],
}
NASTY = "ValueError: \x1b[31m坏\x1b[0m \x00\x08 <b> | `x` \ud800 ]]> & \n 第二行"

DONE = JobResult(
    "05-a-offline-seed0", "chapters/05-a.ipynb", "05-a", "offline", 0, JobState.COMPLETED,
    parameters={"seed": 0, "device": "auto"},
    cells=(CellResult(1, "a1", CellState.COMPLETED, 0.5), CellResult(3, "b2", CellState.SKIPPED)),
    metrics=(Metric("accuracy", 0.81, "fraction", 100, "test", (0.7, 0.9), (1.0, 0.0), "2026-11-24"),),
    seconds=232.04, peak_rss_mb=1945.6, started="2026-11-24T01:30:00+00:00", key="k",
)  # fmt: skip
BROKEN = JobResult(
    "06-b-offline", "chapters/06-b.ipynb", "06-b", "offline", None, JobState.FAILED, reason="cell 8 raised",
    cells=(CellResult(7, "c3", CellState.FAILED, 1.0, NASTY), CellResult(8, "d4", CellState.PENDING)),
    seconds=3.0,
)  # fmt: skip
CACHED = replace(
    DONE, id="04-c-offline", notebook="chapters/04-c.ipynb", chapter="04-c", state=JobState.SKIPPED,
    reason="unchanged since run r0", cached_from="r0",
)  # fmt: skip


def verdicts() -> list[Verdict]:
    blessed = tuple(
        ReferenceRun(v, i, "c", "2026-11-24", "cpu-x86_64-bf16") for i, v in enumerate((0.8, 0.81, 0.82))
    )
    reference = {"offline": blessed}
    made = Claim("accuracy", "从零训练的编码器：测试集准确率", "fraction", "higher", 0.02, reference)
    found = [*judge_claim(made, [0.81], "offline", chapter="05-a", hardware="cpu-x86_64-bf16")]
    found += judge_claim(replace(made, name="worse"), [0.5], "offline", chapter="05-a")
    published = Claim("sum", "表 | 1 <的> *数*", "", "none", 0.1, published={"offline": Published(3.0, "x")})
    found += judge_claim(published, [2.95], "offline", chapter="05-a")
    found.append(
        Verdict(
            "06-b", "gone", "没有了", "offline", Outcome.MISSING, "recorded", message=NASTY, message_zh=NASTY
        )
    )
    found.append(
        Verdict(
            "06-b",
            "new",
            "new",
            "offline",
            Outcome.UNEXPECTED,
            "recorded",
            (3.4,),
            unit="ratio",
            message="new",
        )
    )
    return found


def result(jobs=(DONE, BROKEN, CACHED), judged=None, code=2, folder=Path("r1")) -> RunResult:
    manifest = manifest_from_json(MANIFEST, folder / "manifest.json")
    judged = verdicts() if judged is None else judged
    return RunResult(folder, manifest, tuple(jobs), tuple(judged), 240.1234, code)


def document(*arguments, **changes) -> dict:
    return result(*arguments, **changes).to_json()


@pytest.fixture(scope="module")
def schema() -> dict:
    loaded = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(loaded)
    return loaded


# -- result.json ------------------------------------------------------------------------------------


def test_the_document_follows_the_schema(schema):
    jsonschema.validate(document(), schema)
    jsonschema.validate(document(jobs=(), judged=(), code=0), schema)


def test_the_schema_knows_every_field_and_every_value(schema):
    defs = schema["$defs"]
    for name, kind in (("job", JobResult), ("verdict", Verdict), ("metric", Metric), ("cell", CellResult)):
        assert set(defs[name]["properties"]) == set(kind.__dataclass_fields__)
    assert defs["job"]["properties"]["state"]["enum"] == [s.value for s in JobState]
    assert defs["cell"]["properties"]["state"]["enum"] == [s.value for s in CellState]
    assert defs["verdict"]["properties"]["outcome"]["enum"] == [o.value for o in Outcome]
    assert set(schema["properties"]["exit_code"]["enum"]) == {int(c) for c in ExitCode}
    assert set(schema["required"]) == set(document())
    assert set(schema["properties"]) == {
        *document(),
        "shard",
        "shards",
    }  # only of a part, and of a merged run
    measured = {"speed"}  # added by the run that measures it
    assert set(defs["environment"]["properties"]) == {*environment(), *measured}


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"exit_code": 9},
        {"colour": "red"},
        {"seconds": "long"},
        {"jobs": [{"id": "x"}]},
        {"run": None},
    ],
)
def test_the_schema_refuses_other_documents(schema, change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document(), **change}, schema)


def test_jobs_and_verdicts_survive_the_journey_through_json():
    text = json.dumps(document(), ensure_ascii=True, allow_nan=False)
    loaded = json.loads(text)
    read = result_from_json(loaded, Path("r1/result.json"))
    assert read.jobs == (DONE, BROKEN, CACHED) and read.verdicts == tuple(verdicts())
    assert read == replace(result(), seconds=240.123, manifest=replace(result().manifest, device=None))


def test_all_files_are_written(tmp_path):
    clean = replace(BROKEN, cells=())
    judged = [v for v in verdicts() if v.message != NASTY]
    write_reports(result((DONE, clean), judged, folder=tmp_path))
    pages = {"report.md", "report.en.md", "report.html", "report.en.html"}
    assert {p.name for p in tmp_path.iterdir()} == {"result.json", "junit.xml", *pages}
    stored = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert stored["exit_code"] == 2 and stored["dirty"] is True and stored["seconds"] == 240.123
    assert "从零训练" in (tmp_path / "result.json").read_text(encoding="utf-8")
    write_reports(read_result(tmp_path))  # `harness report` writes them again from the file


# -- JUnit ------------------------------------------------------------------------------------------


def test_junit_counts_what_it_holds():
    root = ET.fromstring(junit_xml(result()).encode())
    suites = {suite.get("name"): suite for suite in root}
    assert set(suites) == {"05-a-offline-seed0", "06-b-offline", "04-c-offline", "05-a claims", "06-b claims"}
    for element in (root, *root):
        cases = list(element.iter("testcase"))
        assert element.get("tests") == str(len(cases))
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert element.get(attribute) == str(sum(case.find(tag) is not None for case in cases))
    assert (root.get("tests"), root.get("failures"), root.get("errors"), root.get("skipped")) == (
        "8",
        "3",
        "0",
        "3",
    )


@pytest.mark.parametrize("state", list(JobState))
def test_junit_of_every_end_state(state):
    root = ET.fromstring(junit_xml(result([replace(BROKEN, state=state)], [])).encode())
    (case,) = root.iter("testcase")
    expected = {
        JobState.COMPLETED: None, JobState.SKIPPED: "skipped", JobState.FAILED: "failure",
        JobState.EXITED_EARLY: "failure", JobState.INVALID: "failure", JobState.TIMED_OUT: "error",
        JobState.DEAD: "error", JobState.CANCELLED: "error",
    }[state]  # fmt: skip
    assert [child.tag for child in case] == ([expected] if expected else [])
    if expected in ("failure", "error"):
        assert case[0].get("message") == f"{STATES[state].en}: cell 8 raised"
        assert "cell 8 (id c3): ValueError: 坏 <b>" in case[0].text


@pytest.mark.parametrize("outcome", list(Outcome))
def test_junit_of_every_verdict(outcome):
    verdict = replace(verdicts()[0], outcome=outcome)
    root = ET.fromstring(junit_xml(result([], [verdict])).encode())
    (case,) = root.iter("testcase")
    tag = {"pass": "system-out", "fail": "failure", "missing": "failure"}.get(outcome, "skipped")
    assert [child.tag for child in case] == [tag]
    assert case.get("name") == "accuracy [prediction interval]"


def test_junit_is_valid_xml_whatever_a_notebook_printed():
    everything = "".join(
        map(chr, itertools.chain(range(0x300), range(0xD7F0, 0xE010), (0xFFFE, 0xFFFF, 0x1F600)))
    )
    job = replace(
        BROKEN,
        id=everything,
        reason=everything,
        cells=(CellResult(0, everything, CellState.FAILED, 1, everything),),
    )
    text = junit_xml(result([job], [replace(verdicts()[1], title=everything, message=everything)]))
    root = ET.fromstring(text.encode("utf-8"))
    assert "坏" in junit_xml(result()) and root.get("tests") == "2"


# -- Markdown ---------------------------------------------------------------------------------------


def columns(line: str) -> int:
    return line.replace("\\|", "").count("|")


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_table_row_has_the_columns_of_its_head(language):
    jobs = (DONE, replace(BROKEN, notebook="a|`b`.ipynb"))
    blocks = markdown_report(result(jobs), language).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        assert len({columns(line) for line in table}) == 1, table
        assert set(table[1]) <= set("|:- ")


def test_the_chinese_report_says_what_a_reader_needs():
    text = markdown_report(result(), "zh")
    assert "# 运行 `20261124T013000-offline-ab12`" in text
    assert "- **提交**：`0123456789`（另有未提交的改动）" in text
    assert "- **硬件**：`cpu-x86_64-bf16` (A \\| B &lt;C>)" in text
    assert "- **开始于**：2026-11-24T01:30:00+00:00" in text
    assert "| ✓ 通过 | 从零训练的编码器：测试集准确率 `accuracy` | 0.810 | 0.810 | 0.000 |" in text
    assert "参考来自 cpu-x86\\_64-bf16，本次运行在未知硬件上" in text
    assert "表 \\| 1 &lt;的> \\*数\\*" in text
    assert "| ✗ 出错 | `chapters/06-b.ipynb` | — | 3.0 秒 | — | cell 8 raised |" in text
    assert "| ✓ 完成 | `chapters/05-a.ipynb` | 0 | 3 分 52 秒 | 1.9 GB | — |" in text
    assert "第 8 个单元格，id `c3`：`` ValueError: 坏 " in text


def test_the_english_report_is_english():
    text = markdown_report(result(), "en")
    assert "| ✗ fail |" in text and "worse than the reference" in text and "**✓ pass 1**" in text
    assert "cell 8, id `c3`" in text and "prediction interval" in text
    heads = [line for line in text.splitlines() if line.startswith(("#", "- **", "| verdict"))]
    assert not any("\u4e00" <= c <= "\u9fff" for line in heads for c in line)


def test_a_run_without_claims_or_notebooks_says_so():
    assert "没有声明，也没有记录。" in markdown_report(result((), ()), "zh")
    assert "No notebook was run." in markdown_report(result((), ()), "en")


def test_what_a_notebook_outside_the_book_recorded_is_shown():
    """No claim names it, so no verdict does."""
    outside = replace(DONE, chapter=None, notebook="/tmp/笔记 {a}.ipynb")
    text = markdown_report(result((outside,), ()), "zh")
    row = "| `/tmp/笔记 {a}.ipynb` | `accuracy` | 0.81 | 100 | test | \\[0.70, 0.90\\] |"
    assert "## 记录" in text and row in text and "也没有记录" not in text
    assert "Nothing is claimed of these notebooks." in markdown_report(result((outside,), ()), "en")
    assert "## Recorded" not in markdown_report(result((DONE,), ()), "en")
    shown = printed((outside,), ()).split("Recorded")[1]
    assert "accuracy" in shown and "0.81" in shown
    assert "Recorded" not in printed((DONE,), ())


# -- terminal ---------------------------------------------------------------------------------------


def printed(results, judged, width=80, **options) -> str:
    stream = io.StringIO()
    print_summary(Console(file=stream, width=width, **options), result(results, judged))
    return stream.getvalue()


def test_a_failed_cell_is_told_once():
    """The reason names the cell; where it does not, the cell has a line of its own."""
    error = "RuntimeError: broken"
    cells = (CellResult(7, "c3", CellState.FAILED, 1.0, error),)
    named = replace(BROKEN, cells=cells, reason=f"cell 8 (id c3), line 3: {error}")
    for text in (
        printed((named,), ()),
        *(markdown_report(result((named,), ()), to) for to in ("zh", "en")),
    ):
        told = text.split("RuntimeError: broken")
        assert len(told) == text.count("line 3: ") + 1 and "cell 9" not in text and "cell 7" not in text
    plain = replace(BROKEN, cells=cells, reason="a cell raised")
    assert f"cell 8 (id c3): {error}" in printed((plain,), ())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_summary_fits_the_terminal_in_any_script(width):
    long = replace(verdicts()[0], title="很长的标题" * 12)
    lines = printed((DONE, BROKEN, CACHED), [*verdicts(), long], width).splitlines()
    assert max(cell_len(line) for line in lines) <= width


def test_the_summary_says_everything_without_colour():
    text = printed((DONE, BROKEN, CACHED), verdicts())
    for words in (
        "✓ completed",
        "✗ failed",
        "✓ cached",
        "✓ pass",
        "✗ fail",
        "≈ inconclusive",
        "○ missing",
        "+ unexpected",
    ):
        assert words in text
    assert "3 min 52 s" in text and "1.9 GB" in text
    assert "cell 8 (id c3): ValueError: 坏" in text
    assert "worse than the reference" in text and "needs ≥ 3 seeds" in text
    assert "claims: 1 pass, 1 fail, 1 inconclusive, 1 missing, 1 unexpected" in text


def test_a_pass_against_a_reference_of_other_hardware_is_said():
    assert "≠" not in printed((DONE,), verdicts())
    foreign = replace(verdicts()[0], reference_hardware="cuda-A100")
    text = " ".join(printed((DONE,), [foreign]).split())
    assert "≠ accuracy pass against references from cuda-A100; this run is on cpu-x86_64-bf16" in text
    many = [replace(foreign, claim=f"claim_{number}") for number in range(200)]
    assert "claim_7 and 192 more pass against" in " ".join(printed((DONE,), many).split())
    assert "≠" not in printed((DONE,), [replace(foreign, outcome=Outcome.FAIL)])  # there the message says it


LONG = [
    replace(verdicts()[0], chapter=f"0{i}-语言理解-and-a-rather-long-name-of-a-chapter",
            claim=f"a_{'long_' * 6}name_{i}",
            title="微调后的BERT-base-chinese模型在MultiNLI测试集（matched）上的准确率，" * 2, outcome=outcome,
            message="the mean of five runs lies outside the prediction interval of five blessed-runs")
    for i, outcome in enumerate(Outcome)
]  # fmt: skip


def test_at_80_columns_no_word_is_broken_and_no_line_too_long():
    jobs = [replace(BROKEN, id=f"{v.chapter[:30]}-offline-seed0") for v in LONG]
    text = printed(jobs, LONG, 80)
    lines = text.splitlines()
    assert max(cell_len(line) for line in lines) <= 80
    for verdict in LONG[1:]:
        assert verdict.claim in text
        for word in ("BERT-base-chinese", "MultiNLI", "prediction", "blessed-runs"):
            assert text.count(word) >= len(LONG) - 2, word
    assert not any(line.lstrip().startswith(("，", "）", "。")) for line in lines)


def test_claims_that_pass_are_one_line_a_chapter_and_the_others_come_in_full():
    passed = [
        replace(verdicts()[0], claim=f"c{i}", title=f"title {i}", reference_hardware="") for i in range(9)
    ]
    failed = replace(passed[0], claim="off", title="精度", outcome=Outcome.FAIL, observed=(0.731,), reference=0.81,
                     delta=-0.079, interval=(0.79, 0.83), chapter="06-b",
                     message="worse than the reference")  # fmt: skip
    lines = printed((), [*passed, failed]).splitlines()
    assert [line for line in lines if line.startswith(("✓ 05", "✗ 06"))] == [
        "✗ 06-b  ✗ fail 1",
        "✓ 05-a  ✓ pass 9",
    ]
    start = lines.index("✗ fail: 精度 (off, 06-b)")
    assert lines[start + 1 : start + 4] == [
        "  observed 0.731; 0.059 outside [0.790, 0.830]; reference 0.810, difference",
        "  -0.079",
        "  worse than the reference",
    ]
    assert "title 3" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("a bc def", 4, ["a bc", "def"]),
        ("用BERT做分类。", 6, ["用BERT", "做分", "类。"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("", 5, [""]),
    ],
)
def test_lines_break_between_words_and_between_chinese_characters(text, width, lines):
    assert wrapped(text, width) == lines


def test_names_in_square_brackets_are_no_markup_and_escapes_never_reach_the_terminal():
    job = replace(BROKEN, id="[red]x[/red]", reason="[bold]y")
    text = printed([job], [replace(verdicts()[1], title="[link=x]z", message=NASTY.replace("\ud800", ""))])
    assert "[red]x[/red]" in text and "[bold]y" in text and "[link=x]z" in text
    assert "\x1b" not in text and "\x00" not in text


def test_colour_is_used_where_the_terminal_has_it():
    assert "\x1b[32m" in printed((DONE,), verdicts()[:1], force_terminal=True, color_system="standard")


# -- exit codes -------------------------------------------------------------------------------------

STATE_CODES = {
    JobState.COMPLETED: 0, JobState.SKIPPED: 0,
    JobState.FAILED: 2, JobState.EXITED_EARLY: 2, JobState.INVALID: 3,
    JobState.TIMED_OUT: 4, JobState.DEAD: 4, JobState.CANCELLED: 4,
}  # fmt: skip
OUTCOME_CODES = {
    Outcome.PASS: (0, 0), Outcome.FAIL: (1, 1), Outcome.MISSING: (1, 1), Outcome.INCONCLUSIVE: (0, 5),
    Outcome.UNEXPECTED: (0, 1), Outcome.NOT_APPLICABLE: (0, 0),
}  # fmt: skip


@pytest.mark.parametrize("state", list(JobState))
@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("strict", [False, True])
def test_the_execution_outranks_the_claim(state, outcome, strict):
    code = exit_code(
        [DONE, replace(DONE, state=state)], [replace(verdicts()[0], outcome=outcome)], strict=strict
    )
    assert code == (STATE_CODES[state] or OUTCOME_CODES[outcome][strict])


def test_a_failed_claim_outranks_an_inconclusive_one():
    judged = [replace(verdicts()[0], outcome=o) for o in (Outcome.INCONCLUSIVE, Outcome.FAIL)]
    assert exit_code([DONE], judged, strict=True) is ExitCode.CLAIM_FAILED
    assert exit_code([], [], strict=True) is ExitCode.OK


def test_time_out_outranks_a_failed_notebook():
    results = [replace(DONE, state=s) for s in (JobState.FAILED, JobState.TIMED_OUT)]
    assert exit_code(results, [], strict=False) is ExitCode.INFRASTRUCTURE


# -- wording ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "signed", "text"),
    [
        (0.81234, "fraction", False, "0.8123"),
        (0.00001, "fraction", True, "+1e-05"),
        (-0.00001, "fraction", True, "-1e-05"),
        (-0.0123, "fraction", True, "-0.0123"),
        (3.4123, "ratio", False, "3.412×"),
        (0.034123, "ratio", False, "0.03412×"),
        (12.346, "seconds", False, "12.35 s"),
        (0.0123, "s", True, "+0.0123 s"),
        (1234567.0, "", False, "1234567"),
        (1.2e-7, "1", False, "1.2e-07"),
        (512, "MB", False, "512 MB"),
        (0.0, "", True, "0"),
        (None, "fraction", False, "—"),
        (float("nan"), "fraction", False, "nan"),
    ],
)
def test_numbers(value, unit, signed, text):
    assert rounding(unit).number(value, signed=signed) == text


def test_ranges_times_and_sizes():
    assert rounding("fraction", (), (0.5, 1)).range((0.5, 1)) == "[0.50, 1.00]"
    assert rounding().range((None, 1)) == "[−∞, 1]" and rounding().range((0, float("inf"))) == "[0, ∞]"
    assert rounding().range(None) == "—"
    assert [format_seconds(s) for s in (None, 4.21, 59.96, 232, 3840)] == [
        "—",
        "4.2 s",
        "1 min 00 s",
        "3 min 52 s",
        "1 h 04 min",
    ]
    assert [format_seconds(s, "zh") for s in (4.21, 232, 7260)] == ["4.2 秒", "3 分 52 秒", "2 小时 01 分"]
    assert [format_memory(m) for m in (None, 512.4, 1945.6)] == ["—", "512 MB", "1.9 GB"]


def test_one_line_keeps_words_and_drops_escapes():
    assert one_line("\x1b[1;31mError\x1b[0m:\n\tx\x00y  z\x1b]8;;http://a\x07link") == "Error: x y zlink"


def test_every_state_outcome_and_rule_has_words_in_both_languages():
    assert set(STATES) == set(JobState) and set(OUTCOMES) == set(SYMBOLS) == set(Outcome)
    assert len(set(SYMBOLS.values())) == len(Outcome)
    for text in (*STATES.values(), *OUTCOMES.values(), *RULES.values()):
        assert text.into("en") and text.into("zh") and text.en != text.zh


def test_the_schema_lists_the_rules(schema):
    assert set(schema["$defs"]["verdict"]["properties"]["rule"]["enum"]) == set(RULES)
    assert verdicts()[0].rule in RULES
