"""The rules of judgement, claim by claim, and what is said of jobs that recorded nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.errors import HarnessError
from harness.files import write_json
from harness.judge.check import judge, judge_run, with_cells
from harness.judge.rules import judge_claim
from harness.model import (
    METRIC_MIME,
    Bounds,
    CellResult,
    CellState,
    ChapterClaims,
    Claim,
    JobResult,
    JobState,
    Metric,
    Outcome,
    Published,
    ReferenceRun,
    Verdict,
)

CPU, GPU = "cpu-x86_64-bf16", "cuda-NVIDIA-H100"
VALUES = (0.812, 0.820, 0.801, 0.815, 0.809)  # mean 0.8114, 95 % prediction interval ± 0.0217


def runs(values=VALUES, hardware=CPU):
    return tuple(ReferenceRun(v, i, "abc1234", "2026-11-24", hardware) for i, v in enumerate(values))


def claim(direction="higher", margin=0.005, unit="fraction", **references) -> Claim:
    return Claim("accuracy", "准确率", unit, direction, margin, **references)


def one(made: Claim, *values: float, profile="offline", hardware=CPU, **more):
    (verdict,) = judge_claim(made, values, profile, hardware=hardware, **more)
    return verdict


def job(
    value: float | None = 0.81,
    seed=0,
    state=JobState.COMPLETED,
    reason="",
    chapter="05-a",
    unit="fraction",
    **more,
):
    metrics = () if value is None else (Metric("accuracy", value, unit),)
    fields = {
        "metrics": metrics,
        "profile": "offline",
        "seed": seed,
        "state": state,
        "reason": reason,
        **more,
    }
    return JobResult(
        id=f"{chapter}-seed{seed}", notebook=f"chapters/{chapter}.ipynb", chapter=chapter, **fields
    )


# -- blessed runs, one or two new runs --------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "value", "outcome", "words"),
    [
        ("higher", 0.805, Outcome.PASS, "95 % prediction interval of 5 blessed runs"),
        ("higher", 0.780, Outcome.FAIL, "worse than the reference"),
        ("higher", 0.840, Outcome.FAIL, "better than the reference"),
        ("lower", 0.840, Outcome.FAIL, "worse than the reference"),
        ("lower", 0.780, Outcome.FAIL, "better than the reference"),
        ("none", 0.780, Outcome.FAIL, "the value moved"),
    ],
)
def test_one_run_is_judged_by_the_prediction_interval(direction, value, outcome, words):
    verdict = one(claim(direction, blessed={"offline": runs()}), value)
    assert (verdict.outcome, verdict.rule) == (outcome, "prediction interval")
    assert words in verdict.message
    assert verdict.reference == pytest.approx(0.8114)
    assert verdict.delta == pytest.approx(value - 0.8114)
    assert verdict.interval == pytest.approx((0.8114 - 0.02167, 0.8114 + 0.02167), abs=1e-4)


def test_better_than_the_reference_says_to_bless_if_intended():
    verdict = one(claim(blessed={"offline": runs()}), 0.9)
    assert "if that is intended, bless it" in verdict.message
    assert "harness bless" in verdict.message_zh


def test_the_interval_is_never_narrower_than_the_margin():
    made = claim(margin=0.05, blessed={"offline": runs()})
    assert one(made, 0.765).outcome is Outcome.PASS
    assert one(made, 0.760).outcome is Outcome.FAIL
    assert "±0.050 around the mean of 5 blessed runs" in one(made, 0.765).message


def test_runs_without_spread_are_judged_by_the_margin():
    made = claim(margin=0.0, blessed={"offline": runs([0.1] * 7)})
    assert one(made, 0.1).outcome is Outcome.PASS
    assert one(made, 0.1 + 1e-9).outcome is Outcome.FAIL


def test_two_runs_are_judged_by_their_mean_and_a_narrower_interval():
    made = claim(blessed={"offline": runs()})
    single, pair = one(made, 0.792), one(made, 0.792, 0.792)
    assert single.outcome is Outcome.PASS and pair.outcome is Outcome.FAIL
    assert "the mean 0.792 of 2 runs" in pair.message
    assert one(made, 0.77, 0.85).outcome is Outcome.PASS


def test_a_single_blessed_run_leaves_only_the_margin():
    made = claim(margin=0.01, blessed={"offline": runs([0.8])})
    assert one(made, 0.81).outcome is Outcome.PASS
    assert one(made, 0.811).outcome is Outcome.FAIL
    assert "bless more seeds" in one(made, 0.81).message


def test_an_interval_far_wider_than_the_margin_is_named():
    assert "bless more seeds for a sharper test" in one(claim(blessed={"offline": runs()}), 0.805).message
    assert "sharper" not in one(claim(margin=0.02, blessed={"offline": runs()}), 0.805).message


def test_false_fails_of_a_single_run_stay_at_five_percent(record_property):
    """The whole rule by simulation; a margin can only lower the rate."""
    rng = np.random.default_rng(0)
    rates = []
    for margin in (0.0, 0.02):
        fails = 0
        for blessed, value in zip(rng.normal(0.8, 0.01, (2000, 5)), rng.normal(0.8, 0.01, 2000), strict=True):
            fails += (
                one(claim(margin=margin, blessed={"offline": runs(blessed.tolist())}), float(value)).outcome
                is Outcome.FAIL
            )
        rates.append(fails / 2000)
        record_property(f"false fails of one run, margin {margin}", rates[-1])
    assert rates[0] == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 2000))
    assert rates[1] <= rates[0]


# -- blessed runs, three or more new runs -----------------------------------------------------------


def test_three_runs_are_judged_by_equivalence():
    made = claim(margin=0.02, blessed={"offline": runs()})
    verdict = one(made, 0.810, 0.815, 0.805)
    assert (verdict.outcome, verdict.rule) == (Outcome.PASS, "TOST")
    assert (
        verdict.delta_interval is not None
        and -0.02 < verdict.delta_interval[0] < verdict.delta_interval[1] < 0.02
    )
    assert verdict.interval == pytest.approx((0.7914, 0.8314))


@pytest.mark.parametrize(
    ("values", "words"), [((0.75, 0.755, 0.76), "worse than"), ((0.9, 0.905, 0.91), "better than")]
)
def test_a_difference_beyond_the_margin_fails(values, words):
    verdict = one(claim(margin=0.02, blessed={"offline": runs()}), *values)
    assert verdict.outcome is Outcome.FAIL
    assert "wholly outside ±0.020" in verdict.message and words in verdict.message


def test_noise_is_inconclusive_and_says_how_many_seeds_it_needs():
    verdict = one(claim(margin=0.015, blessed={"offline": runs()}), 0.79, 0.81, 0.83)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    needed = int(verdict.message.split("needs ≥ ")[1].split()[0])
    assert needed > 3
    assert f"需要至少 {needed} 个种子" in verdict.message_zh


@pytest.mark.parametrize("reference", [(0.80,), (0.80, 0.81)])
def test_the_number_of_seeds_needed_is_always_more_than_there_are(reference):
    for spread in np.linspace(0.001, 0.02, 40):
        made = claim(margin=0.02, blessed={"offline": runs(reference)})
        verdict = one(made, 0.81 - spread, 0.81, 0.81 + spread)
        if "needs ≥ " in verdict.message:
            assert int(verdict.message.split("needs ≥ ")[1].split()[0]) > 3


def test_a_poor_reference_is_inconclusive_and_says_so():
    verdict = one(claim(margin=0.01, blessed={"offline": runs([0.78, 0.84])}), 0.80, 0.81, 0.82)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "bless more reference runs" in verdict.message


def test_values_that_repeat_the_blessed_runs_seed_by_seed_pass_without_a_test():
    made = claim(margin=0.0001, blessed={"offline": runs()})
    repeated = (0.8120001, 0.820, 0.801)
    assert one(made, *repeated).outcome is Outcome.INCONCLUSIVE  # seeds unknown
    assert one(made, *repeated, seeds=(1, 0, 2)).outcome is Outcome.INCONCLUSIVE
    assert one(made, *repeated, seeds=(0, 1, 2), hardware=GPU).outcome is Outcome.INCONCLUSIVE
    verdict = one(made, *repeated, seeds=(0, 1, 2))
    assert verdict.outcome is Outcome.PASS and "identical, seed by seed" in verdict.message


@pytest.mark.parametrize("seeds", [(0,), (None,), (0, 1), (0, 1, 2)])
@pytest.mark.parametrize("value", [0.81234567, 3.6212378, 0.0012345678, 123456.789, -12.3456789])
@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_a_run_differs_by_nothing_from_its_own_rounded_reference(seeds, value, margin):
    """References were once kept with six digits: what that took away is no difference, and no failure."""
    values = [value * (1 + 0.01 * i) for i in range(len(seeds))]
    made = claim(margin=margin, blessed={"offline": runs([float(f"{v:.6g}") for v in values])})
    verdict = one(made, *values, seeds=seeds)
    assert (verdict.outcome, verdict.delta) == (Outcome.PASS, 0.0)


def test_a_small_difference_from_a_reference_that_was_kept_whole_is_one():
    made = claim(margin=0.0, blessed={"offline": runs([0.81234567])})
    assert one(made, 0.81234567).outcome is Outcome.PASS
    moved = one(made, 0.81234569)
    assert moved.outcome is Outcome.FAIL and moved.delta == pytest.approx(2e-8)


# -- hardware ---------------------------------------------------------------------------------------


def test_another_hardware_class_is_named():
    verdict = one(claim(blessed={"offline": runs()}), 0.81, hardware=GPU)
    assert f"reference from {CPU}, this run on {GPU}" in verdict.message
    assert f"参考来自 {CPU}，本次运行在 {GPU} 上" in verdict.message_zh
    assert "reference from" not in one(claim(blessed={"offline": runs()}), 0.81).message
    assert "unknown hardware" in one(claim(blessed={"offline": runs()}), 0.81, hardware="").message


def test_references_of_the_same_hardware_class_are_preferred():
    made = claim(blessed={"offline": runs() + runs([0.9, 0.91, 0.905], GPU)})
    assert one(made, 0.905, hardware=GPU).outcome is Outcome.PASS
    assert one(made, 0.905).outcome is Outcome.FAIL
    assert one(made, 0.905, hardware=GPU).reference == pytest.approx(0.905)


def test_runs_on_several_classes_of_machine_are_judged_apart():
    made = claims_of(claim(margin=0.02, blessed={"offline": runs() + runs([0.9, 0.91, 0.905], GPU)}))
    jobs = [job(value, seed) for seed, value in enumerate((0.81, 0.905, 0.812, 0.808))]
    here, there = judge(made, jobs, profile="offline", hardware=f"{CPU} / {GPU}", by_job={
        "05-a-seed0": CPU, "05-a-seed1": GPU, "05-a-seed2": CPU, "05-a-seed3": CPU,
    })  # fmt: skip
    assert (here.rule, here.outcome, here.observed) == ("TOST", Outcome.PASS, (0.81, 0.812, 0.808))
    assert (there.rule, there.outcome, there.observed) == ("prediction interval", Outcome.PASS, (0.905,))
    assert (here.hardware, here.reference_hardware, there.hardware) == (CPU, CPU, GPU)
    assert f"the 3 of 4 runs on {CPU}, judged apart" in here.message and not here.foreign
    together = judge(made, jobs, profile="offline", hardware=CPU)
    assert len(together) == 1 and together[0].outcome is not Outcome.PASS


def test_a_reference_of_another_class_stands_in_the_verdict():
    verdict = one(claim(blessed={"offline": runs()}), 0.81, hardware=GPU)
    assert (verdict.hardware, verdict.reference_hardware, verdict.foreign) == (GPU, CPU, True)
    assert not one(claim(blessed={"offline": runs()}), 0.81).foreign
    assert not one(claim(bounds={"offline": Bounds(0, 1)}), 0.81, hardware=GPU).foreign


# -- published values -------------------------------------------------------------------------------


def published(direction="higher", margin=0.01):
    return claim(direction, margin, published={"offline": Published(0.947, "Somebody 2019", "test")})


@pytest.mark.parametrize(
    ("values", "outcome", "words"),
    [
        ((0.945,), Outcome.INCONCLUSIVE, "so few runs cannot confirm; needs ≥ 3 seeds"),
        ((0.945, 0.947), Outcome.INCONCLUSIVE, "so few runs cannot confirm"),
        ((0.930,), Outcome.INCONCLUSIVE, "seed noise may explain"),
        ((0.920,), Outcome.FAIL, "more than 2 times the margin 0.010; worse than published"),
        ((0.970,), Outcome.FAIL, "better than published: not the same number"),
        ((0.945, 0.946, 0.947), Outcome.PASS, "inside ±0.010"),
        ((0.920, 0.921, 0.922), Outcome.FAIL, "worse than published"),
        ((0.960, 0.961, 0.962), Outcome.FAIL, "better than published"),
        ((0.94, 0.95, 0.97), Outcome.INCONCLUSIVE, "not worse than 0.937 is not shown"),
        ((0.952, 0.956, 0.960), Outcome.INCONCLUSIVE, "not worse than 0.937 is shown (95 %)"),
    ],
)
def test_published_values(values, outcome, words):
    verdict = one(published(), *values)
    assert (verdict.outcome, verdict.rule, verdict.reference) == (outcome, "published", 0.947)
    assert words in verdict.message


def test_the_floor_turns_round_where_lower_is_better_and_is_silent_without_direction():
    values = (0.934, 0.938, 0.942)
    assert "not worse than 0.957 is shown" in one(published("lower"), *values).message
    assert "worse than" not in one(published("none"), *values).message
    assert "worse than published" in one(published("lower"), 0.98).message


def test_a_single_run_never_passes_a_published_value():
    for value in np.linspace(0.9, 1.0, 101):
        assert one(published(), float(value)).outcome is not Outcome.PASS


# -- bounds, recorded, several references -----------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "values", "outcome"),
    [
        (0.3, 1.0, (0.3,), Outcome.PASS),
        (0.3, 1.0, (0.29,), Outcome.FAIL),
        (0.3, None, (1e9,), Outcome.PASS),
        (None, 1.0, (-1e9, 1.1), Outcome.FAIL),
        (0.3, 1.0, (0.5, 0.6, 0.7, 0.2), Outcome.FAIL),
        (-0.01, 0.01, [0.59 - 0.6], Outcome.PASS),  # -0.010000000000000009
        (0.0, 0.3, [0.1 + 0.2], Outcome.PASS),
        (-0.01, 0.01, [-0.0101], Outcome.FAIL),
    ],
)
def test_bounds_hold_for_every_value(low, high, values, outcome):
    verdict = one(claim(bounds={"offline": Bounds(low, high)}), *values)
    assert (verdict.outcome, verdict.rule) == (outcome, "bounds")
    assert (verdict.interval is None) == (None in (low, high))


def test_without_a_reference_the_message_pretends_nothing():
    verdict = one(claim(blessed={"full": runs()}), 0.8)
    assert (verdict.outcome, verdict.rule, verdict.reference) == (Outcome.INCONCLUSIVE, "recorded", None)
    assert "offline has no reference yet, so nothing was compared" in verdict.message


@pytest.mark.parametrize(
    "references", [{}, {"bounds": {"offline": Bounds(0, 1)}}, {"blessed": {"offline": runs()}}]
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_fails(references, value):
    assert one(claim(**references), 0.8, value).outcome is Outcome.FAIL


def test_each_kind_of_reference_gives_a_verdict():
    made = claim(
        blessed={"offline": runs()},
        bounds={"offline": Bounds(0.9, 1)},
        published={"offline": Published(0.81, "x")},
    )
    verdicts = judge_claim(made, [0.81], "offline", hardware=CPU)
    assert [(v.rule, v.outcome) for v in verdicts] == [
        ("prediction interval", Outcome.PASS),
        ("published", Outcome.INCONCLUSIVE),
        ("bounds", Outcome.FAIL),
    ]


def test_nothing_to_judge_is_refused():
    with pytest.raises(ValueError, match="no values"):
        judge_claim(claim(), [], "offline")


@pytest.mark.parametrize(
    "made", [claim(unit=u, blessed={"offline": runs()}) for u in ("", "fraction", "s", "ratio", "MB")]
)
def test_every_message_is_one_line_in_both_languages(made):
    for values in ((0.81,), (0.5,), (0.81, 0.82), (0.8, 0.81, 0.82), (0.1, 0.5, 0.9)):
        verdict = one(made, *values)
        for text in (verdict.message, verdict.message_zh):
            assert text and "\n" not in text and "None" not in text and "nan" not in text
        assert any("\u4e00" <= c <= "\u9fff" for c in verdict.message_zh)
        assert not any("\u4e00" <= c <= "\u9fff" for c in verdict.message)


# -- jobs -------------------------------------------------------------------------------------------


def claims_of(*made: Claim) -> ChapterClaims:
    return ChapterClaims("05-a", made)


def test_all_seeds_of_a_chapter_are_judged_together():
    made = claims_of(claim(margin=0.02, blessed={"offline": runs()}))
    others = [job(0.1, chapter="06-b"), job(0.1, seed=9, profile="smoke")]
    (verdict,) = judge(
        made, [*(job(v, seed=s) for s, v in enumerate((0.80, 0.81, 0.82))), *others], profile="offline"
    )
    assert (verdict.rule, verdict.observed, verdict.chapter) == ("TOST", (0.80, 0.81, 0.82), "05-a")


def test_the_seeds_reach_the_rules():
    made = claims_of(claim(margin=0.0, blessed={"offline": runs()}))
    results = [job(v, seed=s) for s, v in enumerate(VALUES[:3])]
    (verdict,) = judge(made, results, profile="offline", hardware=CPU)
    assert verdict.outcome is Outcome.PASS and "identical" in verdict.message


def test_a_renamed_metric_is_missing_under_its_old_name():
    renamed = job(None, metrics=(Metric("acuracy", 0.8), Metric("seconds", 3.0)))
    missing, *new = judge(claims_of(claim()), [renamed], profile="offline")
    assert (missing.outcome, [v.claim for v in new]) == (Outcome.MISSING, ["acuracy", "seconds"])
    assert "did you rename it to acuracy?" in missing.message and "acuracy" in missing.message_zh
    assert "was reached" not in missing.message
    other = job(None, metrics=(Metric("seconds", 3.0),))
    assert "rename" not in judge(claims_of(claim()), [other], profile="offline")[0].message


@pytest.mark.parametrize(
    ("values", "reference", "delta"),
    [((0.2,), 0.3, -0.1), ((0.9,), 0.8, 0.1), ((0.5, 0.25, 0.1), 0.3, -0.2), ((0.5,), None, None)],
)
def test_bounds_say_how_far_outside_a_value_is(values, reference, delta):
    verdict = one(claim(bounds={"offline": Bounds(0.3, 0.8)}), *values)
    assert verdict.reference == reference
    assert verdict.delta == (delta if delta is None else pytest.approx(delta))
    if delta is not None:
        assert float(verdict.message.split(", by ")[1].split()[0]) == pytest.approx(abs(delta))


def test_a_completed_chapter_that_records_nothing_is_missing():
    (verdict,) = judge(claims_of(claim()), [job(None)], profile="offline")
    assert (verdict.outcome, verdict.observed) == (Outcome.MISSING, ())
    assert "no record('accuracy', …) was reached" in verdict.message


def test_a_dead_job_is_missing_with_its_state_and_reason():
    dead = job(None, state=JobState.DEAD, reason="the kernel was killed\nby SIGKILL")
    (verdict,) = judge(claims_of(claim()), [dead], profile="offline")
    assert verdict.outcome is Outcome.MISSING
    assert "05-a-seed0: dead (the kernel was killed by SIGKILL)" in verdict.message
    assert "内核中止" in verdict.message_zh


def test_what_was_recorded_before_the_death_is_judged_as_usual():
    late = Claim("late", "后来的", "", "none", 0.0)
    dead = job(0.81, state=JobState.DEAD, reason="killed")
    verdicts = judge(
        claims_of(claim(blessed={"offline": runs()}), late), [dead], profile="offline", hardware=CPU
    )
    assert [(v.claim, v.outcome) for v in verdicts] == [("accuracy", Outcome.PASS), ("late", Outcome.MISSING)]


def test_a_seed_without_a_value_is_not_hidden_by_the_others():
    results = [job(0.81), job(None, seed=1, state=JobState.TIMED_OUT, reason="cell 3 ran past 60 s")]
    verdicts = judge(claims_of(claim(blessed={"offline": runs()})), results, profile="offline", hardware=CPU)
    assert [v.outcome for v in verdicts] == [Outcome.PASS, Outcome.MISSING]
    assert (
        "seed1: timed out (cell 3 ran past 60 s)" in verdicts[1].message
        and "seed0" not in verdicts[1].message
    )


def test_a_chapter_that_did_not_run_is_missing():
    (verdict,) = judge(claims_of(claim()), [], profile="offline")
    assert verdict.outcome is Outcome.MISSING and "did not run" in verdict.message


def test_a_metric_that_nobody_claims_is_unexpected():
    (verdict,) = judge(claims_of(), [job(0.81), job(0.82, seed=1)], profile="offline")
    assert (verdict.outcome, verdict.claim, verdict.observed) == (
        Outcome.UNEXPECTED,
        "accuracy",
        (0.81, 0.82),
    )
    assert "05-a.yml" in verdict.message


def test_units_that_disagree_are_not_compared():
    (verdict,) = judge(
        claims_of(claim(blessed={"offline": runs()})), [job(81.0, unit="percent")], profile="offline"
    )
    assert verdict.outcome is Outcome.FAIL and "'percent'" in verdict.message
    (verdict,) = judge(claims_of(claim(blessed={"offline": runs()})), [job(0.81, unit="")], profile="offline")
    assert verdict.outcome is Outcome.PASS


class StandInBook:
    """The parts of a book that judging reads."""

    def __init__(self, root):
        self.claims_dir = root
        self.chapters = (root / "05-a.ipynb", root / "06-b.ipynb")
        self.profiles = {"offline": None}


def test_a_run_is_judged_chapter_by_chapter(tmp_path):
    entry = "{name: accuracy, title: t, direction: none, margin: 0, offline: {bounds: {low: 0}}}"
    text = f"chapter: 05-a\nclaims:\n  - {entry}\n"
    (tmp_path / "05-a.yml").write_text(text, encoding="utf-8")
    results = [job(0.5, chapter="06-b"), job(0.81), job(1, chapter=None)]
    verdicts = judge_run(StandInBook(tmp_path), results, profile="offline", hardware=CPU)
    assert [(v.chapter, v.outcome) for v in verdicts] == [
        ("06-b", Outcome.UNEXPECTED),
        ("05-a", Outcome.PASS),
    ]


def test_a_claim_file_of_no_chapter_stops_the_judgement(tmp_path):
    (tmp_path / "07-c.yml").write_text("chapter: 07-c\nclaims: []\n", encoding="utf-8")
    with pytest.raises(HarnessError, match="no chapter is called '07-c'"):
        judge_run(StandInBook(tmp_path), [job()], profile="offline")


# -- parameters that decide what is measured ----------------------------------------------------------

OWN = {"source": "packaged", "flip_fraction": 0.0, "lr": 1.0}


def covering(parameters) -> Claim:
    return claim(blessed={"offline": runs()}, parameters=parameters)


@pytest.mark.parametrize(
    ("parameters", "set_to", "outcome"),
    [
        ({"source": None}, {}, Outcome.PASS),
        ({"source": None}, {"source": "packaged"}, Outcome.PASS),
        ({"source": None}, {"source": "local"}, Outcome.NOT_APPLICABLE),
        ({"source": None}, {"flip_fraction": 0.1}, Outcome.PASS),
        ({"source": ("packaged", "hub")}, {"source": "hub"}, Outcome.PASS),
        ({"source": ("packaged", "hub")}, {}, Outcome.PASS),
        ({"source": ("packaged", "hub")}, {"source": "local"}, Outcome.NOT_APPLICABLE),
        ({"source": ("hub",)}, {}, Outcome.NOT_APPLICABLE),
        ({"source": None, "lr": None}, {"lr": 2.0}, Outcome.NOT_APPLICABLE),
        ({}, {"source": "local"}, Outcome.PASS),
    ],
)
def test_a_claim_is_judged_only_where_it_applies(parameters, set_to, outcome):
    made = claims_of(covering(parameters))
    (verdict,) = judge(made, [job(0.81, parameters=set_to)], profile="offline", hardware=CPU, own=OWN)
    assert verdict.outcome is outcome
    moved = judge(made, [job(0.2, parameters=set_to)], profile="offline", hardware=CPU, own=OWN)
    assert moved[0].outcome is (Outcome.FAIL if outcome is Outcome.PASS else outcome)


def test_what_does_not_apply_says_which_parameter_and_shows_the_value():
    made = claims_of(covering({"source": ("packaged", "hub")}))
    jobs = [job(v, seed=s, parameters={"source": "local"}) for s, v in enumerate((0.5, 0.6))]
    (verdict,) = judge(made, jobs, profile="offline", own=OWN)
    assert (verdict.rule, verdict.observed, verdict.reference) == ("parameters", (0.5, 0.6), None)
    assert verdict.message == "measured with source = 'local', claimed for source = 'packaged' or 'hub'"
    assert "声明只适用于 source = 'packaged'或 'hub'" in verdict.message_zh


def test_what_does_not_apply_is_not_missing_either():
    dead = job(None, state=JobState.DEAD, reason="killed", parameters={"source": "local"})
    (verdict,) = judge(claims_of(covering({"source": None})), [dead], profile="offline", own=OWN)
    assert (verdict.outcome, verdict.observed) == (Outcome.NOT_APPLICABLE, ())


def test_jobs_of_both_kinds_are_told_apart():
    made = claims_of(covering({"source": None}))
    jobs = [job(0.81), job(0.5, seed=1, parameters={"source": "local"})]
    verdicts = judge(made, jobs, profile="offline", hardware=CPU, own=OWN)
    assert {(v.outcome, v.observed) for v in verdicts} == {
        (Outcome.PASS, (0.81,)),
        (Outcome.NOT_APPLICABLE, (0.5,)),
    }


# -- a chapter without a seed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "outcome", "words"),
    [
        (0.81, Outcome.PASS, "within ±0.020"),
        (0.78, Outcome.PASS, "within ±0.020"),
        (0.83, Outcome.FAIL, "beyond ±0.020; better than published"),
        (0.77, Outcome.FAIL, "beyond ±0.020; worse than published"),
    ],
)
def test_a_published_value_of_a_chapter_without_seed_is_judged_by_its_margin(value, outcome, words):
    made = claim(margin=0.02, published={"offline": Published(0.80, "somebody")})
    (verdict,) = judge(claims_of(made), [job(value, seed=None)], profile="offline")
    assert (verdict.outcome, verdict.rule) == (outcome, "published")
    assert words in verdict.message and "seed" not in verdict.message and "种子" not in verdict.message_zh


def test_a_chapter_that_could_take_a_seed_still_needs_several():
    made = claim(margin=0.02, published={"offline": Published(0.80, "somebody")})
    (verdict,) = judge(claims_of(made), [job(0.81, seed=None)], profile="offline", own={"seed": None})
    assert verdict.outcome is Outcome.INCONCLUSIVE and "3 seeds" in verdict.message


def test_no_more_seeds_are_asked_of_a_chapter_without_one():
    made = claims_of(claim(blessed={"offline": runs([0.81])}))
    (verdict,) = judge(made, [job(0.81, seed=None)], profile="offline", hardware=CPU)
    assert verdict.outcome is Outcome.PASS and "seed" not in verdict.message


def test_a_claimed_name_that_was_glued_as_text_says_so():
    glued = job(None, passed_over={"accuracy": "'about 92 %'"})
    (verdict,) = judge(claims_of(claim()), [glued], profile="offline")
    assert verdict.outcome is Outcome.MISSING and "was reached" not in verdict.message
    assert verdict.message.startswith("glued but not a number: 'about 92 %'; glue the number itself")
    assert "glue 了，但不是数：'about 92 %'" in verdict.message_zh


def test_a_failure_names_the_cell_that_recorded_the_number(tmp_path):
    """By its number among all cells of the source, without papermill's; seeds of one chapter say it once."""
    record = {
        "output_type": "display_data",
        "metadata": {},
        "data": {METRIC_MIME: {"name": "accuracy", "value": 0.5}},
    }
    glue = {"output_type": "display_data", "metadata": {"scrapbook": {"name": "glued", "mime_prefix": "x"}},
            "data": {"application/papermill.record/text/plain": "0.5"}}  # fmt: skip
    cells = [
        {
            "cell_type": "code",
            "id": "injected-parameters",
            "metadata": {"tags": ["injected-parameters"]},
            "source": "",
        },
        {"cell_type": "markdown", "id": "t", "metadata": {}, "source": ""},
        {"cell_type": "code", "id": "b2", "metadata": {}, "source": "", "outputs": [record]},
        {"cell_type": "code", "id": "c3", "metadata": {}, "source": "", "outputs": [glue]},
    ]
    ended = (CellResult(1, "b2", CellState.COMPLETED), CellResult(2, "c3", CellState.COMPLETED))
    jobs = [job(0.5, seed=seed, cells=ended) for seed in (0, 1)]
    for one_job in jobs:
        (tmp_path / "jobs" / one_job.id).mkdir(parents=True)
        write_json(
            tmp_path / "jobs" / one_job.id / "out.ipynb", {"nbformat": 4, "nbformat_minor": 5, "cells": cells}
        )
    named = {"en": [], "zh": []}
    for outcome, name in ((Outcome.FAIL, "accuracy"), (Outcome.UNEXPECTED, "glued"), (Outcome.PASS, "accuracy"),
                          (Outcome.FAIL, "other")):  # fmt: skip
        plain = Verdict(
            "05-a", name, "t", "offline", outcome, "TOST", (0.5,), message="worse", message_zh="差"
        )
        (told,) = with_cells([plain], jobs, tmp_path)
        named["en"].append(told.message)
        named["zh"].append(told.message_zh)
    assert named["en"] == [
        "worse; recorded in cell 2 (id b2)",
        "worse; recorded in cell 3 (id c3)",
        "worse",
        "worse",
    ]
    assert named["zh"][0] == "差；记录于第 2 个单元格（id b2）"
    assert with_cells([plain], [job(0.5, chapter="05-a")], tmp_path / "none") == [plain]
