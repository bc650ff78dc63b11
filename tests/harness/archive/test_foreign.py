"""Numbers that other tools left in a notebook: read leniently, never wrongly."""

from __future__ import annotations

import json

import pytest
from notebooks import RECORD, write_notebook

from harness.archive.foreign import foreign_metrics, read_foreign
from harness.execute.kernel.job import JobFolder, run_job
from harness.files import read_json
from harness.model import Job, JobState, Limits, Metric, job_result_from_json


def notebook(*outputs):
    """An output notebook with one cell for each output."""
    return {"cells": [{"cell_type": "code", "outputs": [output]} for output in outputs]}


def glued(name, text, *, display=True):
    """What ``glue`` of MyST-NB 1.4.0 leaves."""
    prefix = "" if display else "application/papermill.record/"
    return {
        "output_type": "display_data",
        "data": {f"{prefix}text/plain": text},
        "metadata": {"scrapbook": {"name": name, "mime_prefix": prefix}},
    }


def scrap(name, data, encoder="json"):
    """What ``glue`` of scrapbook 0.5.0 leaves."""
    return {
        "output_type": "display_data",
        "data": {
            f"application/scrapbook.scrap.{encoder}+json": {
                "name": name,
                "data": data,
                "encoder": encoder,
                "version": 1,
            }
        },
        "metadata": {"scrapbook": {"name": name, "data": True, "display": False}},
    }


def values(document, recorded=()):
    metrics, warnings, _ = foreign_metrics(document, recorded)
    return {metric.name: metric.value for metric in metrics}, warnings


@pytest.mark.parametrize("display", [True, False])
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.912345678901234", 0.912345678901234),
        ("np.float64(0.9123)", 0.9123),
        ("np.float32(0.1)", 0.1),
        ("np.int64(-3)", -3.0),
        ("numpy.uint8(7)", 7.0),
        ("np.longdouble('0.5')", 0.5),
        ("np.float64(1e-07)", 1e-07),
        ("-2", -2.0),
        ("1_000", 1000.0),
        (["0.5"], 0.5),  # nbformat may split any text into lines
    ],
)
def test_numbers_of_glue(display, text, value):
    assert values(notebook(glued("准确率", text, display=display))) == ({"准确率": value}, ())


@pytest.mark.parametrize(
    "text",
    [
        '"nan"',
        "True",
        "np.True_",
        "None",
        "(1, 2)",
        "[0.5]",
        "{'a': 1}",
        "1+2j",
        "<Figure size 640x480 with 1 Axes>",
        "   a  b\n0  1  2",
        "0.5 %",
        "x" * 200,
        "9" * 5000,
        "(" * 90,
        "",
        None,
        5,
        [None],
        "np.float64(__import__('os').getcwd())",
    ],
)
def test_what_is_no_number_is_no_metric_and_no_complaint(text):
    assert values(notebook(glued("x", text))) == ({}, ())


@pytest.mark.parametrize("text", ["nan", "-inf", "inf", "np.float64(nan)", "np.float32(-inf)", "1e999"])
def test_what_is_not_finite_is_told(text):
    found, (warning,) = values(notebook(glued("x", text)))
    assert not found and "glue('x') left out: it is " in warning and "finite" in warning


@pytest.mark.parametrize("text", ["array(0.5)", "tensor(0.5000)", "tensor(0.5000, grad_fn=<MeanBackward0>)"])
def test_a_rounded_print_out_is_told_not_judged(text):
    found, (warning,) = values(notebook(glued("loss", text)))
    assert not found and "glue('loss') left out" in warning and "float(…)" in warning


@pytest.mark.parametrize("text", ["array([0.5, 0.6])", "tensor([0.5000])"])
def test_whole_arrays_are_no_number(text):
    assert values(notebook(glued("x", text))) == ({}, ())


def test_scrapbook_and_the_records_of_old_papermills():
    old = {
        "output_type": "display_data",
        "data": {"application/papermill.record+json": {"a": 1, "b": "text"}},
    }
    shown = {  # sb.glue(…, display=True) shows the value a second time
        "output_type": "display_data",
        "data": {"text/plain": "0.9123"},
        "metadata": {"scrapbook": {"name": "acc", "data": False, "display": True}},
    }
    document = notebook(
        old,
        scrap("acc", 0.9123),
        shown,
        scrap("n", 2400),
        scrap("flag", True),
        scrap("quoted", "0.5"),
        scrap("spelt", "0.75", "text"),
        scrap("words", "hello", "text"),
        scrap("table", {"a": [1]}),
        scrap("void", None),
    )
    assert values(document) == ({"a": 1.0, "acc": 0.9123, "n": 2400.0, "spelt": 0.75}, ())
    found, (warning,) = values(notebook(scrap("lost", "nan")))  # how scrapbook writes NaN
    assert not found and "scrapbook glue('lost') left out: it is nan" in warning
    found, (warning,) = values(notebook(scrap("huge", 10**400)))
    assert not found and "it is inf" in warning


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("test-acc", "test_acc"),
        ("F1 macro", "F1_macro"),
        ("a.b/c", "a_b_c"),
        ("5-shot", "_5_shot"),
        ("准确 率", "准确_率"),
    ],
)
def test_a_name_that_is_no_identifier_is_kept_and_told(given, kept):
    found, (warning,) = values(notebook(glued(given, "0.5")))
    assert found == {kept: 0.5} and f"glue({given!r}) is kept as {kept}" in warning


@pytest.mark.parametrize("given", ["", "--", "  ", "…"])
def test_a_name_of_nothing_is_told(given):
    found, (warning,) = values(notebook(glued(given, "0.5")))
    assert not found and "left out: its name has no letter or digit; give it one" in warning


def test_the_last_of_a_name_counts():
    found, (warning,) = values(notebook(glued("x", "0.1"), glued("x", "0.2")))
    assert found == {"x": 0.2} and "x stands there more than once, the last counts" in warning
    found, warnings = values(notebook(glued("a_b", "0.1"), glued("a-b", "0.2")))
    assert found == {"a_b": 0.2} and any("more than once" in w for w in warnings)


def test_what_record_recorded_wins():
    document = notebook(glued("acc", "np.float64(0.5)"), glued("loss", "2"))
    assert values(document, (Metric("acc", 0.5),)) == ({"loss": 2.0}, ())
    found, (warning,) = values(document, (Metric("acc", 0.75),))
    assert found == {"loss": 2.0} and "glue('acc') is 0.5 but recorded was 0.75, which counts" in warning


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"cells": 5},
        {"cells": [None, {"outputs": 1}, {"outputs": [3, {"data": []}, {"data": {}, "metadata": 5}]}]},
        notebook({"data": {"text/plain": "1"}, "metadata": {"scrapbook": {"name": 5, "mime_prefix": ""}}}),
        notebook({"data": {"text/plain": "1"}, "metadata": {"scrapbook": "acc"}}),
        notebook({"data": {"application/scrapbook.scrap.json+json": {"data": 1}}}),
        notebook({"data": {"application/papermill.record+json": [1]}}),
    ],
)
def test_anything_may_stand_in_a_notebook(document):
    assert foreign_metrics(document) == ((), (), {})


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{", b'{"scrapbook', b'"scrapbook" \xff', b"[" * 100_000 + b'"scrapbook"'],
    ids=["missing", "empty", "brace", "cut", "not UTF-8", "deep"],
)
def test_a_notebook_that_cannot_be_read_has_no_metric(tmp_path, content):
    path = tmp_path / "out.ipynb"
    if content is not None:
        path.write_bytes(content)
    assert read_foreign(path, ()) == ((), (), {})


@pytest.mark.slow
def test_glue_in_a_notebook_that_runs(tmp_path):
    """The real glue of MyST-NB, through the harness; up to where the notebook fails."""
    pytest.importorskip("myst_nb")
    path = write_notebook(
        tmp_path / "a.ipynb",
        "import numpy as np\nfrom myst_nb import glue\nglue('plain', 0.912345678901234, display=False)",
        "glue('准确率', np.float64(0.25))\nglue('narrow', np.float32(0.5), display=False)",
        f"{RECORD}\nrecord('both', 3)\nglue('both', 3)\nglue('with-dash', np.int64(2))",
        "glue('text', f'{0.914:.1%}')\nglue('words', 'about a half')",
        "glue('lost', float('nan'))\nglue('many', np.array([1.0, 2.0]))",
        "1 / 0",
        "glue('never', 1)",
    )
    stale = json.loads(path.read_text(encoding="utf-8"))
    stale["cells"][-1]["outputs"] = [
        glued("never", "1")
    ]  # of an earlier run, in a cell this one does not reach
    path.write_text(json.dumps(stale), encoding="utf-8")
    events = []
    job = Job("job", path, None, "offline", None, {}, Limits(60, 60), network=False)
    result = run_job(JobFolder(job, tmp_path / "job", events.append))
    assert result.state is JobState.FAILED and "ZeroDivisionError" in result.reason
    found = {metric.name: metric.value for metric in result.metrics}
    assert found == {
        "plain": 0.912345678901234, "准确率": 0.25, "narrow": 0.5, "both": 3.0, "with_dash": 2.0, "text": 0.914,
    }  # fmt: skip
    assert result.passed_over["words"] == "'about a half'" and {"lost", "many"} <= set(result.passed_over)
    assert job_result_from_json(read_json(tmp_path / "job" / "result.json")) == result
    told = [
        event["message"] for event in events if event["event"] == "warning" and "glue(" in event["message"]
    ]
    assert len(told) == 2 and "with_dash" in told[0] and "glue('lost') left out" in told[1]


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("0.91", 0.91, ""),
        (" +0.5 ", 0.5, ""),
        ("92.3%", 0.923, "fraction"),
        ("7 %", 0.07, "fraction"),
        ("12％", 0.12, "fraction"),
        ("1,234", 1234.0, ""),
        ("-1,234,567.5", -1234567.5, ""),
        ("−0.25", -0.25, ""),
        ("1.5e-3", 0.0015, ""),
        (".5", 0.5, ""),
        ("0.87 ± 0.01", 0.87, ""),
        ("0.87±0.01", 0.87, ""),
        ("0.87 +/- 0.01", 0.87, ""),
        ("92.3% ± 0.5%", 0.923, "fraction"),
        ("92.3 ± 0.5 %", 0.923, "fraction"),
    ],
)
def test_a_formatted_number_is_one(text, value, unit):
    assert foreign_metrics(notebook(glued("x", repr(text)))) == ((Metric("x", value, unit),), (), {})
    assert foreign_metrics(notebook(scrap("x", text, "text"))) == ((Metric("x", value, unit),), (), {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "about 0.9",
        "0,87",
        "12,34",
        "1.2.3",
        "3/4",
        "-",
        "%",
        "± 1",
        "2026-11-24",
        "5 epochs",
        "0.8–0.9",
        "nan",
        "x" * 999,
    ],
)
def test_a_text_that_is_not_plainly_a_number_is_passed_over_by_name(text):
    metrics, warnings, passed_over = foreign_metrics(notebook(glued("x-y", repr(text))))
    assert (metrics, warnings) == ((), ())
    assert list(passed_over) == ["x_y"] and len(passed_over["x_y"]) <= 40


def test_what_counts_in_the_end_is_not_passed_over():
    document = notebook(glued("x", "'soon'"), glued("x", "0.5"), glued("y", "'text'"))
    metrics, _, passed_over = foreign_metrics(document, (Metric("y", 1.0),))
    assert metrics == (Metric("x", 0.5),) and passed_over == {}
