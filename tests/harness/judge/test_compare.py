"""Two runs side by side: real runs of tiny notebooks, and run folders made by hand for the rest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
from notebooks import RECORD, write_book, write_notebook

from harness.archive.folder import find_run
from harness.archive.recorded import RunResult, read_manifest
from harness.cli.app import main
from harness.errors import ExitCode, HarnessError
from harness.files import write_json
from harness.judge.compare import diff_runs, previous_run
from harness.judge.differences import Change, changed_cells, compare_metric, judge_together
from harness.model import CellResult, CellState, JobResult, JobState, Metric, Outcome, Verdict, to_json
from harness.report.comparison import markdown_diff, write_diff

ROOT = Path(__file__).parents[3]
CLAIM = {"name": "acc", "title": "准确率", "unit": "fraction", "direction": "higher", "margin": 0.01}


# -- folders made by hand ---------------------------------------------------------------------------


def job(seed: int | None = 0, *metrics: Metric, chapter: str = "01-a", profile: str = "offline", **more):
    identity = f"{chapter}-{profile}" + ("" if seed is None else f"-seed{seed}")
    known = {
        "state": JobState.COMPLETED,
        "seconds": 10.0,
        "peak_rss_mb": 100.0,
        "cells": (CellResult(0, "one", CellState.COMPLETED, 1.0),),
    }
    path = f"chapters/{chapter}.ipynb"
    return JobResult(identity, path, chapter, profile, seed, metrics=metrics, **{**known, **more})


def make_run(folder: Path, *jobs: JobResult, cells=("x = 1",), outputs=((),), **manifest) -> Path:
    """A run folder with *jobs*, each with the same executed notebook."""
    notebook = nbformat.v4.new_notebook()
    for i, source in enumerate(cells):
        cell = nbformat.v4.new_code_cell(source, id=["one", "two", "three"][i], execution_count=i + 1)
        cell.outputs = [nbformat.from_dict(output) for output in outputs[i]]
        notebook.cells.append(cell)
    for one in jobs:
        place = folder / "jobs" / one.id
        place.mkdir(parents=True)
        nbformat.write(notebook, place / "out.ipynb")
        write_json(place / "result.json", {"schema": 1, **to_json(one)})
    known = {
        "schema": 1,
        "run": folder.name,
        "profile": jobs[0].profile,
        "started": "2026-01-01T00:00:00+00:00",
        "commit": "0123456789abcdef",
        "dirty": False,
        "environment": {"python": "3.11.7", "hardware": "cpu-x86_64", "versions": {"numpy": "2.0"}},
        "jobs": [one.id for one in jobs],
    }
    folder.mkdir(exist_ok=True)
    write_json(folder / "manifest.json", {**known, **manifest})
    return folder


def stream(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": text}


def accuracy(*values: float, **more) -> dict[int | None, Metric]:
    return {seed: Metric("acc", value, "fraction", **more) for seed, value in enumerate(values)}


def compare(a, b, direction="higher"):
    return judge_together([compare_metric("01-a", "acc", a, b, direction)])[0]


# -- metrics ----------------------------------------------------------------------------------------


def test_several_common_seeds_are_compared_in_pairs():
    a, b = accuracy(0.80, 0.85, 0.90, 0.70), accuracy(0.701, 0.749, 0.802)
    found = compare(a, b)
    assert found.change is Change.WORSE and found.test == "paired t" and found.seeds == (0, 1, 2)
    assert (found.a, found.b) == (pytest.approx(0.85), pytest.approx(0.7506667))  # of common seeds
    assert found.p_value < 0.01 and found.interval[1] < 0
    assert (found.runs_a, found.runs_b) == (4, 3)
    assert compare(a, b, "lower").change is Change.BETTER
    assert compare(a, b, "none").change is Change.DIFFERENT
    assert compare(a, b, "").change is Change.DIFFERENT
    assert compare(accuracy(0.8, 0.7, 0.9), accuracy(0.7, 0.8, 0.91)).change is Change.NOT_SIGNIFICANT


def test_identical_values_need_no_test():
    assert compare(accuracy(0.8, 0.9), accuracy(0.8, 0.9)).change is Change.IDENTICAL
    assert compare(accuracy(0.8), accuracy(0.8)).change is Change.IDENTICAL


def test_a_metric_that_no_seed_changes_differs_for_certain():
    found = compare(accuracy(*[0.8] * 3), accuracy(*[0.7] * 3))
    assert (found.change, found.test, found.p_value) == (Change.WORSE, "exact", None)


def test_two_equal_differences_prove_nothing():
    """On 100 examples, two seeds easily lose one answer each; a t-test without spread would call it certain."""
    found = compare(accuracy(0.8, 0.9), accuracy(0.79, 0.89))
    assert (found.change, found.test, found.p_value) == (Change.UNDECIDED, "signs", 0.5)


def test_too_few_seeds_are_not_called_no_difference():
    """With n seeds that all moved by the same, the test of signs gives 2 / 2**n, whatever the values."""

    def moved(seeds: int):
        old = [0.5 + 0.01 * seed for seed in range(seeds)]
        return compare(accuracy(*old), accuracy(*(value - 0.1 for value in old)))

    found = moved(3)
    assert (found.change, found.p_value) == (Change.UNDECIDED, 0.25)
    assert found.too_few == "3 seeds cannot show p < 0.05: at least 6 are needed"
    assert moved(5).change is Change.UNDECIDED and moved(6).change is Change.WORSE
    assert moved(6).too_few == ""
    few, other = ({0: Metric("acc", v, per_example=s)} for v, s in ((1.0, (1.0,) * 3), (0.0, (0.0,) * 3)))
    assert compare(few, other).too_few.startswith("3 examples cannot show")


def scores(right: int, of: int = 40) -> tuple[float, ...]:
    return (1.0,) * right + (0.0,) * (of - right)


def test_one_seed_is_compared_example_by_example():
    a = accuracy(0.75, per_example=scores(30), split="test")
    b = accuracy(0.5, per_example=scores(20), split="test")
    found = compare(a, b)
    assert (found.change, found.test) == (Change.WORSE, "McNemar") and found.p_value == pytest.approx(2**-9)
    assert compare(a, accuracy(0.725, per_example=scores(29), split="test")).p_value == 1.0

    rng = np.random.default_rng(1)
    loss = rng.random(50)
    better = loss - 0.1 + rng.normal(0, 0.05, 50)
    a, b = ({0: Metric("loss", float(v.mean()), per_example=tuple(v.tolist()))} for v in (loss, better))
    found = compare(a, b, "lower")
    assert (found.change, found.test) == (Change.BETTER, "paired bootstrap")
    assert found.interval[0] < found.delta < found.interval[1] < 0 and found.p_value < 0.001


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ({}, {}, "one run each"),
        ({"per_example": scores(32)}, {}, "one run each"),
        ({"per_example": scores(32)}, {"per_example": scores(14, 20)}, "on 40 and 20 examples"),
        ({"per_example": scores(32), "split": "test"}, {"per_example": scores(28)}, "splits test and None"),
        ({"per_example": scores(32)}, {"per_example": scores(29)}, "not the mean of its per_example"),
        ({"per_example": (1e308, -1e308)}, {"per_example": (1e308, 1e308)}, "a score beyond 1e+100"),
    ],
)
def test_one_run_each_has_no_significance(a, b, words):
    found = compare(accuracy(0.8, **a), accuracy(0.7, **b))
    assert (found.change, found.test, found.p_value) == (Change.UNTESTED, "", None)
    assert words in found.note and "no significance" in found.note


def test_seeds_that_only_one_run_has():
    found = compare(accuracy(0.8, 0.81), {7: Metric("acc", 0.5), 8: Metric("acc", 0.52)})
    assert (found.change, found.test, found.seeds) == (Change.WORSE, "Welch", ())
    found = compare(accuracy(0.8, 0.81), {7: Metric("acc", 0.8)})
    assert found.change is Change.UNTESTED and "no common seed" in found.note
    found = compare(accuracy(0.8, 0.8), {7: Metric("acc", 0.7), 8: Metric("acc", 0.7)})
    assert found.change is Change.UNTESTED and "no spread" in found.note


def test_other_units_and_metrics_of_one_run_are_named():
    found = compare({0: Metric("acc", 80, "%")}, {0: Metric("acc", 0.8, "fraction")})
    assert found.change is Change.UNTESTED and found.delta is None and "'%' in A" in found.note
    assert compare({}, accuracy(0.8)).change is Change.ONLY_B
    assert compare(accuracy(0.8), {}).change is Change.ONLY_A


def test_a_value_too_large_to_square_is_not_compared():
    found = compare(accuracy(1e308, 1e308), accuracy(-1e308, 0.5))
    assert found.change is Change.UNTESTED and found.delta is None and "beyond 1e+100" in found.note


def test_many_tests_are_adjusted_together():
    a = accuracy(0.75, per_example=scores(30))
    one = compare_metric("01-a", "acc", a, accuracy(0.55, per_example=scores(22)), "higher")
    assert one.p_value == pytest.approx(2**-7)
    alone, *_ = judge_together([one])
    among, *_ = judge_together([one] * 7)
    assert (alone.change, among.change) == (Change.WORSE, Change.NOT_SIGNIFICANT)
    assert among.p_adjusted == pytest.approx(7 * 2**-7)


# -- jobs and cells ---------------------------------------------------------------------------------


def test_states_times_memory_and_parameters(tmp_path):
    a = make_run(tmp_path / "a", job(0), job(1), job(2), job(0, chapter="02-b"))
    slow = job(0, seconds=15.0, peak_rss_mb=50.0, parameters={"seed": 0, "lr": 0.1})
    kept = job(1, state=JobState.SKIPPED, cached_from="older")
    lost = job(2, state=JobState.DEAD, reason="cell 1 (id one): the kernel died")
    b = make_run(tmp_path / "b", slow, kept, lost)
    diff = diff_runs(a, b)
    assert [(j.notebook, j.seed, j.time_ratio, j.memory_ratio) for j in diff.jobs] == [
        ("01-a", 0, 1.5, 0.5),
        ("01-a", 1, 1.0, 1.0),
        ("01-a", 2, None, None),
        ("02-b", 0, None, None),
    ]
    assert diff.jobs[0].parameters == {"lr": (None, 0.1)}
    assert diff.regressions == ("01-a-offline-seed2: completed in A, dead in B",)
    text = markdown_diff(diff)
    assert "cached in B, times are those of run older: 01-a seed 1" in text
    assert (
        "not planned" in text
        and "the kernel died" in text
        and "parameter lr: its default in A, 0.1 in B" in text
    )


def test_a_job_that_left_no_result_or_could_not_be_read_does_not_complete(tmp_path):
    a = make_run(tmp_path / "a", job(0), job(1), job(0, chapter="02-b"))
    unreadable = job(None, state=JobState.INVALID, reason="not a notebook", cells=())
    names = [unreadable.id, "02-b-offline-seed0"]
    diff = diff_runs(a, make_run(tmp_path / "b", unreadable, jobs=names))
    assert {line.split(":")[0] for line in diff.regressions} == {"01-a-offline", "02-b-offline-seed0"}
    assert len(diff.regressions) == 3
    assert "B is unfinished: 1 of 2 planned jobs have no result" in diff.notes
    (tmp_path / "b" / "jobs" / unreadable.id / "out.ipynb").unlink()
    assert len(diff_runs(a, tmp_path / "b").jobs) == 3


def test_cells_that_got_slower_the_worst_first(tmp_path):
    names, sources = ("one", "two", "three"), ("train()  # 训练", "evaluate()", "plot()")

    def cells(*seconds):
        return tuple(
            CellResult(i, name, CellState.COMPLETED, s, code=code)
            for i, (name, s, code) in enumerate(zip(names, seconds, sources, strict=True))
        )

    old, new = [cells(2, 10, 0.1), cells(4, 10, 0.1)], [cells(4, 11.5, 0.55), cells(6, 13.5, 0.55)]
    kwargs = {"cells": sources, "outputs": ((), (), ())}
    a = make_run(tmp_path / "a", *(job(i, cells=c) for i, c in enumerate(old)), **kwargs)
    b = make_run(tmp_path / "b", *(job(i, cells=c) for i, c in enumerate(new)), **kwargs)
    diff = diff_runs(a, b)
    assert [(c.id, c.index, c.code, c.seconds_a, c.seconds_b, c.ratio, c.jobs) for c in diff.slower] == [
        ("two", 1, "evaluate()", 10, 12.5, 1.25, 2),
        ("one", 0, "train()  # 训练", 3, 5, 1.6667, 2),
    ]
    assert "| 01-a cell 2 (id two) | 10.0 s | 12.5 s | 1.25× | evaluate() |" in markdown_diff(diff)
    assert diff_runs(b, a).slower == ()


# -- outputs ----------------------------------------------------------------------------------------


def changes(tmp_path, old, new, source="x = 1"):
    result = (CellResult(0, "one", CellState.COMPLETED, 1.0),)
    a = make_run(tmp_path / "a", job(), outputs=(old,))
    b = make_run(tmp_path / "b", job(), outputs=(new,), cells=(source,))
    places = (folder / "jobs" / job().id / "out.ipynb" for folder in (a, b))
    return changed_cells(*places, result, result)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<object at 0x7f12ab34cd56>", "<object at 0x7f99ab34cd00>"),
        ("took 3.2 s, then 12 ms", "took 13 s, then 7.25 ms"),
        ("本节约 40 秒，共 3 分 2 秒", "本节约 7.5 秒，共 12 分 30 秒"),
        ("Wall time: 3 s\nCPU times: user 1 s", "Wall time: 1min 3s\nCPU times: user 2 s"),
        ("10/10 [00:03<00:00,  3.33it/s]", "10/10 [01:02<00:00, 12.1it/s]"),
        ("2026-01-01T10:00:00+00:00 start", "2027-11-21 11:12:13.456 start"),
        ("/tmp/hk-0a1b2c3d/tmp/tmpab12cd34/x", "/tmp/hk-ffffffff/tmp/tmpzz99zz99/x"),
        ("/tmp/tmpab12cd34/x /tmp/ipykernel_12/345.py:3", "/tmp/tmpzz99zz99/x /tmp/ipykernel_9/1.py:3"),
        ("\x1b[31mred\x1b[0m", "red"),
    ],
)
def test_what_varies_anyway_is_no_change(tmp_path, old, new):
    assert changes(tmp_path, [stream(old)], [stream(new)]) == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [("loss 0.50", "loss 0.51"), ("3 steps", "4 steps"), ("12 sets", "13 sets"), ("epoch 1", "epoch 2")],
)
def test_what_a_chapter_measured_is_a_change(tmp_path, old, new):
    (change,) = changes(tmp_path, [stream(f"same\n{old}\nend")], [stream(f"same\n{new}\nend")])
    assert (change.what, change.excerpt, change.index) == (("text",), (f"-{old}", f"+{new}"), 0)
    assert not change.code_changed


def test_the_time_for_blotting_out_grows_with_the_text(tmp_path):
    """A pattern that starts anew at each digit would need hours for these."""
    digits, letters = "1" * 500_000, "3 " + "s" * 500_000
    (change,) = changes(tmp_path, [stream(digits), stream(letters)], [stream(digits + "2"), stream(letters)])
    assert max(map(len, change.excerpt)) <= 160


def image(data: str, kind: str = "image/png") -> dict:
    plain = "<Figure size 640x480 with 1 Axes>"
    return {"output_type": "display_data", "metadata": {}, "data": {kind: data, "text/plain": plain}}


def test_images_are_compared_by_their_bytes(tmp_path):
    (change,) = changes(tmp_path, [image("AAAA")], [image("AAAB")], source="x = 2")
    assert (change.what, change.excerpt, change.code_changed) == (("image",), (), True)


def test_line_breaks_in_an_image_are_no_change(tmp_path):
    assert changes(tmp_path, [image("AAAA\nBBBB\n")], [image("AAAABBBB")]) == ()


def test_markdown_errors_and_results_are_compared(tmp_path):
    def shown(value):
        data = {"text/markdown": f"**{value}**", "text/plain": "<IPython.core.display.Markdown object>"}
        error = {"output_type": "error", "ename": "ValueError", "evalue": str(value), "traceback": ["…"]}
        result = {"output_type": "execute_result", "execution_count": value, "metadata": {}}
        return [
            {"output_type": "display_data", "metadata": {}, "data": data},
            {**result, "data": {"text/plain": f"row {value}"}},
            error,
        ]

    (change,) = changes(tmp_path, shown(1), shown(2))
    assert change.excerpt == ("-**1**", "-row 1", "-ValueError: 1", "+**2**", "+row 2", "+ValueError: 2")


def test_a_long_difference_is_cut(tmp_path):
    many = ["".join(f"{kind}{i}\n" for i in range(20_000)) for kind in "ab"]
    (change,) = changes(tmp_path, [stream(many[0])], [stream(many[1])])
    assert len(change.excerpt) == 8 and change.excerpt[0] == "-a0"


def test_cells_of_one_run_only_and_cells_not_reached(tmp_path):
    done = [CellResult(i, n, CellState.COMPLETED, 1.0) for i, n in enumerate(("one", "two", "three"))]
    outputs = ([stream("1")], [stream("2")], [stream("3")])
    a = make_run(tmp_path / "a", job(cells=tuple(done[:2])), cells=("a", "b"), outputs=outputs)
    pending = replace(done[1], state=CellState.PENDING)
    failed = job(cells=(done[0], pending, done[2]), state=JobState.FAILED)
    b = make_run(tmp_path / "b", failed, cells=("a", "b", "c"), outputs=([stream("1")], [], [stream("3")]))
    assert [(o.cell.id, o.cell.what) for o in diff_runs(a, b).outputs] == [("three", ("only in B",))]
    assert [(o.cell.id, o.cell.what) for o in diff_runs(b, a).outputs] == [("three", ("only in A",))]


def test_the_same_change_under_several_seeds_is_one_line(tmp_path):
    a = make_run(tmp_path / "a", job(0), job(3), outputs=([stream("old")],))
    b = make_run(tmp_path / "b", job(0), job(3), outputs=([stream("new\n```\n# no fence")],))
    diff = diff_runs(a, b)
    assert [o.seeds for o in diff.outputs] == [(0, 3)]
    text = markdown_diff(diff)
    assert "01-a cell 1 (id one), seeds 0, 3: text changed" in text
    assert "```diff\n-old\n+new\n+```\n+# no fence\n```" in text


# -- the runs themselves ----------------------------------------------------------------------------


def test_where_the_runs_come_from(tmp_path):
    a = make_run(tmp_path / "a", job(0, Metric("acc", 0.8, "fraction")), dirty=True)
    other = {"python": "3.12.1", "hardware": "cuda-H100", "versions": {"numpy": "2.0", "torch": "2.9"}}
    diff = diff_runs(a, make_run(tmp_path / "b", job(0, Metric("acc", 0.7)), environment=other))
    assert diff.versions == {"Python": ("3.11.7", "3.12.1"), "torch": ("", "2.9")}
    assert any("different hardware classes, cpu-x86_64 and cuda-H100" in note for note in diff.notes)
    assert "0123456789 (with uncommitted changes)" in markdown_diff(diff)


def test_different_profiles_are_told(tmp_path):
    a = make_run(tmp_path / "a", job(0, Metric("acc", 0.8), profile="smoke"))
    b = make_run(tmp_path / "b", job(0, Metric("acc", 0.7)))
    diff = diff_runs(a, b)
    assert diff.notes == ("different profiles, smoke and offline: values differ by their settings, too",)
    assert [(m.name, m.change) for m in diff.metrics] == [("acc", Change.UNTESTED)]
    c = make_run(tmp_path / "c", job(0, Metric("loss", 0.7)))
    diff = diff_runs(a, c)
    assert "no metric in common, no value compared" in diff.notes[0]
    assert all(m.delta is None for m in diff.metrics)


def test_nothing_in_common(tmp_path):
    a = make_run(tmp_path / "a", job(0, Metric("acc", 0.8)))
    b = make_run(tmp_path / "b", job(0, Metric("acc", 0.7), chapter="02-b"))
    diff = diff_runs(a, b)
    assert "no notebook in common" in diff.notes and diff.regressions == ()
    assert {m.change for m in diff.metrics} == {Change.ONLY_A, Change.ONLY_B}


def test_notebooks_of_one_name_are_told_apart(tmp_path):
    first = job(None, Metric("acc", 0.1), chapter="nb-2")
    second = replace(job(None, Metric("acc", 0.2), chapter="nb"), id="nb-offline-2")
    a, b = (make_run(tmp_path / name, first, second) for name in "ab")
    assert [(j.notebook, j.id_a, j.id_b) for j in diff_runs(a, b).jobs] == [
        ("nb-2", "nb-2-offline", "nb-2-offline"),
        ("nb (2)", "nb-offline-2", "nb-offline-2"),
    ]


def test_the_run_before_of_the_same_profile(tmp_path):
    for day, name in enumerate(("old", "newer", "smoke", "unfinished", "damaged", "now", "later"), 1):
        profile = "smoke" if name == "smoke" else "offline"
        run = make_run(
            tmp_path / name, job(profile=profile), started=f"2026-01-0{day}T00:00:00+00:00", profile=profile
        )
        if name != "unfinished":
            write_json(run / "result.json", {})
    (tmp_path / "damaged" / "manifest.json").write_text("{", encoding="utf-8")
    (tmp_path / "latest").symlink_to("now")
    assert previous_run(tmp_path / "now").name == "newer"
    with pytest.raises(HarnessError, match="no finished run of the profile 'smoke' before smoke"):
        previous_run(tmp_path / "smoke")


def test_json_is_strict_and_stable(tmp_path):
    a = make_run(tmp_path / "a", job(0, *accuracy(0.8).values()), outputs=([stream("甲")],))
    b = make_run(tmp_path / "b", job(0, *accuracy(0.7).values()), outputs=([stream("乙")],))
    text = write_diff(diff_runs(a, b), "json")
    assert text == write_diff(diff_runs(a, b), "json") and "甲" in text

    def refuse(constant):
        raise AssertionError(constant)

    document = json.loads(text, parse_constant=refuse)
    assert list(document) == [
        "schema", "a", "b", "versions", "notes", "metrics", "tests", "verdicts", "jobs", "slower", "outputs",
        "regressions",
    ]  # fmt: skip
    assert document["schema"] == 1 and document["metrics"][0]["change"] == "untested"
    assert document["jobs"][0]["state_a"] == "completed"
    assert document["outputs"][0]["cell"]["excerpt"] == ["-甲", "+乙"]


def judged(folder: Path, *jobs: JobResult, verdicts: tuple[Verdict, ...], **manifest) -> Path:
    """A run folder that was judged, too."""
    make_run(folder, *jobs, **manifest)
    run = RunResult(folder, read_manifest(folder), jobs, verdicts, 1.0, 0)
    write_json(folder / "result.json", run.to_json())
    return folder


def verdict(outcome: Outcome, claim: str = "acc", message: str = "worse than the reference") -> Verdict:
    return Verdict("01-a", claim, "准确率", "offline", outcome, "TOST", (0.7,), message=message)


def test_a_claim_that_no_longer_holds_counts_where_seeds_are_too_few(tmp_path):
    """Three seeds that moved by the same: no test can call that significant, but the verdict is a failure."""

    def run(name: str, change: float, *verdicts: Verdict, state=JobState.COMPLETED) -> Path:
        jobs = [job(s, Metric("acc", 0.8 + s / 100 + change, "fraction"), state=state) for s in range(3)]
        return judged(tmp_path / name, *jobs, verdicts=verdicts)

    good = [verdict(Outcome.PASS, name) for name in ("acc", "gone", "new", "same")]
    a = run("a", 0.0, *good[:2], verdict(Outcome.INCONCLUSIVE, "new"), good[3])
    changed = (verdict(Outcome.FAIL), verdict(Outcome.MISSING, "gone"), verdict(Outcome.FAIL, "new"))
    diff = diff_runs(a, run("b", -0.1, verdict(Outcome.PASS), *changed, good[3]))
    assert diff.metrics[0].change is Change.UNDECIDED
    assert [(v.claim, v.a.value, v.b.value) for v in diff.verdicts] == [
        ("acc", "pass", "fail"), ("gone", "pass", "missing"), ("new", "inconclusive", "fail"),
    ]  # fmt: skip
    assert diff.regressions == (
        "01-a: the claim acc is a pass in A, fail in B (worse than the reference)",
        "01-a: the claim gone is a pass in A, missing in B (worse than the reference)",
    )
    text = markdown_diff(diff)
    assert "| acc | 0.8100 | 0.7100 | -0.1000 | ? too few to tell |" in text
    assert "3 seeds cannot show p &lt; 0.05: at least 6 are needed" in text
    assert "## Verdicts that changed" in text and "| 01-a: acc | ✓ pass | ✗ fail |" in text

    broken = diff_runs(a, run("c", 0.0, verdict(Outcome.MISSING), state=JobState.FAILED))
    assert all("completed in A, failed in B" in line for line in broken.regressions)
    better = diff_runs(run("d", 0.0, *changed), run("e", 0.0, *good))
    assert better.regressions == () and len(better.verdicts) == 3
    unjudged = make_run(tmp_path / "f", job(0, Metric("acc", 0.8)))
    assert "B was not judged: no verdict is compared" in diff_runs(a, unjudged).notes


def test_numbers_end_where_the_interval_of_their_difference_does():
    found = compare(accuracy(0.80123456, 0.852, 0.90), accuracy(0.7011, 0.749, 0.802))
    assert [found.rounded.number(v) for v in (found.a, found.b)] == ["0.8511", "0.7507"]
    assert found.rounded.range(found.interval, signed=True) == "[-0.1066, -0.0941]"


# -- the command ------------------------------------------------------------------------------------


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book with one chapter whose parameter says how good and how slow it is, and a claim."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "80")
    root = tmp_path / "我的 书"
    write_notebook(
        root / "chapters" / "01-a.ipynb",
        f"{RECORD}\nimport time",
        "# 慢\ntime.sleep(wait)\nprint(object())",
        "right = [1.0] * int(40 * accuracy)\n"
        "record('acc', accuracy, unit='fraction', per_example=right + [0.0] * (40 - len(right)))",
        "from IPython.display import Markdown, display\ndisplay(Markdown(f'准确率 **{accuracy}**'))\n"
        "assert accuracy > 0.3",
        parameters="accuracy = 0.75\nwait = 0.0\nseed = 0",
    )
    write_book(root, {})
    (root / "chapters" / "claims").mkdir()
    claims = {"chapter": "01-a", "claims": [CLAIM]}
    (root / "chapters" / "claims" / "01-a.yml").write_text(json.dumps(claims), encoding="utf-8")
    monkeypatch.chdir(root)
    return root


def test_two_real_runs(book, capsys):
    assert main(["run", "--quiet"]) == ExitCode.OK
    first = find_run(book).name
    assert main(["diff"]) == ExitCode.USAGE
    assert main(["diff", "latest"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "no finished run of the profile 'offline' before" in err and f"both are the run {first}" in err

    assert main(["run", "--quiet"]) == ExitCode.OK
    assert main(["diff", first, "--fail-on-worse"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "identical: 01-a: acc" in out and f"times are those of run {first}" in " ".join(out.split())
    assert "Changed outputs\nnone" in out

    assert main(["run", "--quiet", "--param", "accuracy=0.5", "--param", "wait=0.8"]) == ExitCode.OK
    assert main(["diff", first, "latest", "--format", "json"]) == ExitCode.OK
    found = json.loads(capsys.readouterr().out)
    (metric,) = found["metrics"]
    assert (metric["change"], metric["test"], metric["direction"]) == ("worse", "McNemar", "higher")
    assert [(c["index"], c["code"]) for c in found["slower"]] == [(2, "time.sleep(wait)")]
    assert [o["cell"]["index"] for o in found["outputs"]] == [3, 4]
    assert "+准确率 **0.5**" in found["outputs"][1]["cell"]["excerpt"]
    assert found["jobs"][0]["parameters"] == {"accuracy": [None, 0.5], "wait": [None, 0.8]}

    assert main(["diff", "--fail-on-worse", "--format", "markdown"]) == ExitCode.CLAIM_FAILED
    captured = capsys.readouterr()
    assert "| acc | 0.7500 | 0.5000 | -0.2500 | ✗ worse |" in captured.out
    assert captured.err == "error: 01-a: acc is significantly worse (0.7500 → 0.5000)\n"

    assert main(["run", "--quiet", "--param", "accuracy=0.2"]) == ExitCode.NOTEBOOK_FAILED
    capsys.readouterr()
    assert main(["diff", "--fail-on-worse"]) == ExitCode.CLAIM_FAILED
    captured = capsys.readouterr()
    assert "01-a-offline-seed0: completed in A, failed in B" in captured.err
    assert max(map(len, captured.out.splitlines())) <= 80 and "AssertionError" in captured.out
    assert main(["diff"]) == ExitCode.OK

    assert main(["run", "--quiet", "--profile", "smoke"]) == ExitCode.OK
    capsys.readouterr()
    assert main(["diff", first, "--fail-on-worse"]) == ExitCode.USAGE
    assert "needs two runs of one profile, not of offline and smoke" in capsys.readouterr().err


def test_notebooks_without_cell_ids_and_without_a_book(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    runs = []
    for value in (1, 2):
        path = write_notebook(tmp_path / "nb.ipynb", "1", f"print({value})", parameters="p = 1")
        document = json.loads(path.read_text(encoding="utf-8"))
        for cell in document["cells"]:
            del cell["id"]
        path.write_text(json.dumps({**document, "nbformat_minor": 4}), encoding="utf-8")
        runs.append(str(tmp_path / f"run{value}"))
        assert main(["run", str(path), "--out", runs[-1], "--quiet", "--param", "p=3"]) == ExitCode.OK
    assert main(["diff", *runs, "--format", "json"]) == ExitCode.OK
    (change,) = json.loads(capsys.readouterr().out)["outputs"]
    assert (change["cell"]["index"], change["cell"]["excerpt"]) == (2, ["-1", "+2"])


def _no_result(run: Path) -> None:
    (run / "jobs" / job().id / "result.json").write_text('{"id": 3}', encoding="utf-8")


def _field(name: str, value: str):
    def damage(run: Path) -> None:
        path = run / "jobs" / job().id / "result.json"
        text = json.dumps({**json.loads(path.read_text(encoding="utf-8")), name: 0})
        path.write_text(text.replace(f'"{name}": 0', f'"{name}": {value}'), encoding="utf-8")

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: (run / "manifest.json").write_text("[]"), "manifest.json is not what the harness"),
        (lambda run: (run / "manifest.json").unlink(), "no run "),
        (lambda run: (run / "jobs" / job().id / "out.ipynb").unlink(), "out.ipynb"),
        (lambda run: (run / "jobs" / job().id / "out.ipynb").write_text("{"), "out.ipynb"),
        (_no_result, "result.json is not what the harness writes"),
        (_field("seconds", "NaN"), "is not valid JSON (NaN is not JSON)"),
        (_field("seconds", "1e999"), "no usable 'seconds'"),
        (_field("seconds", '"fast"'), "no usable 'seconds'"),
        (_field("peak_rss_mb", '""'), "no usable 'peak_rss_mb'"),
        (_field("parameters", "[1]"), "no usable 'parameters'"),
        (_field("cells", '[{"index": "x", "id": "y", "state": "completed"}]'), 'no usable "a cell'),
    ],
)
def test_a_damaged_run_is_one_line(tmp_path, monkeypatch, capsys, damage, words):
    monkeypatch.chdir(tmp_path)
    runs = [str(make_run(tmp_path / name, job(), outputs=([stream(name)],))) for name in "ab"]
    damage(tmp_path / "b")
    assert main(["diff", *runs]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and "Traceback" not in err and "internal" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "no run"),
        (["", "b"], "the run's name is empty"),
        (["a", ""], "the run's name is empty"),
        (["a", "b", "--format", "html"], "--format"),
        (["a", "a"], "both are the run a"),
        (["a", "b", "c"], "c"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        make_run(tmp_path / name, job())
    assert main(["diff", *arguments]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and "Traceback" not in err


def test_a_broken_claim_file_is_told(book, capsys):
    a, b = (make_run(book / name, job(0, *accuracy(v).values())) for name, v in (("a", 0.8), ("b", 0.7)))
    (book / "chapters" / "claims" / "01-a.yml").write_text("chapter: [", encoding="utf-8")
    assert main(["diff", str(a), str(b)]) == ExitCode.USAGE
    assert "01-a.yml:" in capsys.readouterr().err


def test_hostile_names_and_texts_stay_text(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = "[red]x[/red] \x1b[2J\x07 <script>|`"
    a = make_run(tmp_path / "a", job(cells=(CellResult(0, "one", CellState.COMPLETED, 1.0),)))
    slow = job(cells=(CellResult(0, "one", CellState.COMPLETED, 3.0, code=lines),), state=JobState.COMPLETED)
    b = make_run(tmp_path / "b", slow, cells=(f"{lines}",), outputs=([stream(lines)],))
    for form in ("text", "markdown"):
        assert main(["diff", str(a), str(b), "--format", form]) == ExitCode.OK
        out = capsys.readouterr().out
        assert "\x1b" not in out and "\x07" not in out and "red" in out
    assert "\\[red\\]x\\[/red\\] &lt;script>\\|\\`" in out


def test_runs_that_measured_different_things_are_not_compared(book, capsys):
    claim = {**CLAIM, "parameters": ["accuracy"]}
    path = book / "chapters" / "claims" / "01-a.yml"
    path.write_text(json.dumps({"chapter": "01-a", "claims": [claim]}), encoding="utf-8")
    for value in ("0.75", "0.5", "0.5"):
        assert main(["run", "--quiet", "--no-cache", "--param", f"accuracy={value}"]) == ExitCode.OK
    newest = sorted(p.name for p in (book / "_build" / "runs").iterdir() if not p.is_symlink())
    capsys.readouterr()
    assert main(["diff", newest[0], newest[1], "--fail-on-worse", "--format", "markdown"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "– not applicable" in out and "accuracy = 0.75 in A, 0.5 in B" in out
    assert main(["diff", newest[1], newest[2], "--format", "json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["metrics"][0]["change"] == "identical"


def test_cells_of_one_id_are_told_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, third in (("a", "1/0"), ("b", "1/0"), ("c", "print('third')")):  # nbformat draws ids for twins
        path = write_notebook(tmp_path / "nb.ipynb", "print('first')", "print('second')", third)
        document = json.loads(path.read_text(encoding="utf-8"))
        text = {"cell_type": "markdown", "metadata": {}, "source": "text"}
        document["cells"] = [
            {**cell, "id": "same"} for cell in (*document["cells"][:1], text, *document["cells"][1:])
        ]
        path.write_text(json.dumps(document), encoding="utf-8")
        main(["run", "nb.ipynb", "--out", name, "--quiet"])
    capsys.readouterr()
    assert main(["diff", "a", "b", "--format", "json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["outputs"] == []
    assert main(["diff", "a", "c", "--format", "json"]) == ExitCode.OK
    (change,) = json.loads(capsys.readouterr().out)["outputs"]
    assert change["cell"]["index"] == 3 and change["cell"]["code_changed"]
