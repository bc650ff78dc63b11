"""Statistics: against scipy or a second, plain implementation, and by simulation.

The rates of wrong verdicts are printed by ``pytest -s`` and recorded in the JUnit report of the test run.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from harness.judge.statistics import (
    holm,
    mcnemar,
    mean,
    one_sided_floor,
    paired_bootstrap,
    paired_t,
    prediction_interval,
    randomization,
    runs_needed,
    tost,
    variance,
    welch_t,
)

DRAWS = 4000
RUNS = [0.812, 0.820, 0.801, 0.815, 0.809]


def tolerance(rate: float) -> float:
    """Three standard errors of a rate found in DRAWS simulations."""
    return 3 * math.sqrt(rate * (1 - rate) / DRAWS)


@pytest.fixture
def report_rate(record_property):
    def report(name: str, rate: float) -> float:
        record_property(name, rate)
        print(f"\n{name}: {rate:.4f}")
        return rate

    return report


def draw(seed: int, n: int, centre: float = 0.0, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(centre, spread, size=(DRAWS, n))


# -- prediction interval ----------------------------------------------------------------------------


@pytest.mark.parametrize("new", [1, 2, 5])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_prediction_interval_is_the_textbook_formula(new, confidence):
    n = len(RUNS)
    t = stats.t.ppf(0.5 + confidence / 2, n - 1)
    half = t * np.std(RUNS, ddof=1) * math.sqrt(1 / new + 1 / n)
    assert prediction_interval(RUNS, confidence, new) == pytest.approx(
        (np.mean(RUNS) - half, np.mean(RUNS) + half)
    )


def test_equal_runs_give_an_interval_of_width_zero():
    assert prediction_interval([0.1] * 7) == pytest.approx((0.1, 0.1), abs=1e-15)


@pytest.mark.parametrize("runs", [[], [0.8], [0.8, math.nan], [0.8, math.inf]])
def test_prediction_interval_refuses_what_has_no_spread(runs):
    with pytest.raises(ValueError, match="runs"):
        prediction_interval(runs)


@pytest.mark.parametrize(("confidence", "new"), [(0, 1), (1, 1), (0.95, 0)])
def test_prediction_interval_refuses_a_senseless_question(confidence, new):
    with pytest.raises(ValueError, match="new"):
        prediction_interval(RUNS, confidence, new)


@pytest.mark.parametrize(("n", "new"), [(2, 1), (5, 1), (5, 2), (10, 1)])
def test_false_fail_rate_of_the_prediction_interval_is_five_percent(report_rate, n, new):
    blessed, fresh = draw(1, n), draw(2, new).mean(axis=1)
    intervals = np.array([prediction_interval(runs, new=new) for runs in blessed.tolist()])
    rate = float(np.mean((fresh < intervals[:, 0]) | (fresh > intervals[:, 1])))
    report_rate(f"false fails of the prediction interval, {n} blessed, {new} new", rate)
    assert rate == pytest.approx(0.05, abs=tolerance(0.05))


def test_the_prediction_interval_notices_a_large_shift(report_rate):
    intervals = np.array([prediction_interval(runs) for runs in draw(3, 5).tolist()])
    fresh = draw(4, 1, centre=-6.0)[:, 0]
    power = float(np.mean(fresh < intervals[:, 0]))
    assert report_rate("power of the prediction interval, 5 blessed, shift 6 sigma", power) > 0.9


# -- equivalence ------------------------------------------------------------------------------------


def two_one_sided_tests(new, reference, margin, alpha):
    """Schuirmann's procedure written out with scipy: both null hypotheses rejected?"""
    shifted_up, shifted_down = np.add(new, margin), np.subtract(new, margin)
    above = stats.ttest_ind(shifted_up, reference, equal_var=False, alternative="greater").pvalue
    below = stats.ttest_ind(shifted_down, reference, equal_var=False, alternative="less").pvalue
    return max(above, below), max(above, below) <= alpha


def test_tost_agrees_with_two_welch_tests():
    rng = np.random.default_rng(5)
    seen = set()
    for _ in range(200):
        new = rng.normal(rng.uniform(-1, 1), rng.uniform(0.1, 1), size=rng.integers(2, 9)).tolist()
        reference = rng.normal(0, rng.uniform(0.1, 1), size=rng.integers(2, 9)).tolist()
        p, equivalent = two_one_sided_tests(new, reference, 0.8, 0.05)
        result = tost(new, reference, 0.8)
        assert result.p_value == pytest.approx(p, abs=1e-12)
        assert (result.outcome == "equivalent") == equivalent
        interval = stats.ttest_ind(new, reference, equal_var=False).confidence_interval(0.9)
        assert result.interval == pytest.approx((interval.low, interval.high))
        seen.add(result.outcome)
    assert seen == {"equivalent", "different", "inconclusive"}


def test_tost_against_a_known_value_is_a_one_sample_test():
    result = tost(RUNS, 0.8, 0.05)
    interval = stats.ttest_1samp(RUNS, 0.8).confidence_interval(0.9)
    assert result.interval == pytest.approx((interval.low - 0.8, interval.high - 0.8))
    above = stats.ttest_1samp(RUNS, 0.75, alternative="greater").pvalue
    below = stats.ttest_1samp(RUNS, 0.85, alternative="less").pvalue
    assert result.p_value == pytest.approx(max(above, below))


def test_tost_against_one_run_takes_the_spread_of_the_new_runs():
    pooled = stats.ttest_ind(RUNS, [0.8], equal_var=True).confidence_interval(0.9)
    assert tost(RUNS, [0.8], 0.05).interval == pytest.approx((pooled.low, pooled.high))


@pytest.mark.parametrize(
    ("new", "reference", "margin", "outcome"),
    [
        ([0.1] * 3, [0.1], 0.0, "equivalent"),
        ([0.1] * 3, [0.1] * 7, 0.0, "equivalent"),
        ([0.3] * 3, [0.1, 0.1], 0.2, "equivalent"),  # on the margin, whatever 0.3 - 0.1 is in floating point
        ([0.3] * 3, [0.1, 0.1], 0.19, "different"),
        ([0.3] * 3, 0.1, 0.19, "different"),
        ([1e-200, 2e-200, 3e-200], [1e-200, 1e-200], 1e-190, "equivalent"),
    ],
)
def test_runs_without_spread_are_judged_by_the_margin_alone(new, reference, margin, outcome):
    assert tost(new, reference, margin).outcome == outcome


@pytest.mark.parametrize(
    ("new", "reference", "margin"),
    [([0.1], [0.1, 0.2], 0.1), ([0.1, 0.2], [], 0.1), ([0.1, 0.2], [0.1], -1), ([0.1, 0.2], [0.1], math.nan)],
)
def test_tost_refuses_what_it_cannot_judge(new, reference, margin):
    with pytest.raises(ValueError):
        tost(new, reference, margin)


@pytest.mark.parametrize(("k", "n", "spread"), [(3, 5, 0.3), (3, 5, 0.1), (5, 5, 0.3), (5, 10, 0.5)])
def test_false_pass_rate_of_tost_on_the_margin_is_at_most_alpha(report_rate, k, n, spread):
    """The worst case: the true difference is exactly the margin."""
    new, reference = draw(6, k, 1.0, spread).tolist(), draw(7, n, 0.0, spread).tolist()
    rate = np.mean([tost(a, b, 1.0).outcome == "equivalent" for a, b in zip(new, reference, strict=True)])
    report_rate(
        f"false passes of TOST, difference = margin, sigma = {spread} margin, {k} new, {n} blessed",
        float(rate),
    )
    assert rate <= 0.05 + tolerance(0.05)


@pytest.mark.parametrize(("k", "n", "spread"), [(3, 5, 0.3), (5, 5, 0.5)])
def test_false_fail_rate_of_tost_on_the_margin_is_at_most_alpha(report_rate, k, n, spread):
    new, reference = draw(8, k, 1.0, spread).tolist(), draw(9, n, 0.0, spread).tolist()
    rate = np.mean([tost(a, b, 1.0).outcome == "different" for a, b in zip(new, reference, strict=True)])
    report_rate(
        f"false fails of TOST, difference = margin, sigma = {spread} margin, {k} new, {n} blessed",
        float(rate),
    )
    assert rate <= 0.05 + tolerance(0.05)


def test_noisy_runs_do_not_pass(report_rate):
    """What is wrong with “not significantly different”: noise alone would pass it."""
    new, reference = draw(10, 3, spread=3.0).tolist(), draw(11, 5, spread=3.0).tolist()
    rate = np.mean([tost(a, b, 1.0).outcome == "equivalent" for a, b in zip(new, reference, strict=True)])
    assert (
        report_rate("passes of TOST, no difference, sigma = 3 margin, 3 new, 5 blessed", float(rate)) < 0.05
    )


def test_tost_has_power_where_the_spread_is_small(report_rate):
    new, reference = draw(12, 3, spread=0.25).tolist(), draw(13, 5, spread=0.25).tolist()
    rate = np.mean([tost(a, b, 1.0).outcome == "equivalent" for a, b in zip(new, reference, strict=True)])
    assert (
        report_rate("power of TOST, no difference, sigma = margin / 4, 3 new, 5 blessed", float(rate)) > 0.9
    )


# -- floor, McNemar, bootstrap ----------------------------------------------------------------------


@pytest.mark.parametrize("floor", [0.79, 0.8, 0.8084, 0.81, 0.82, 0.83])
def test_one_sided_floor_agrees_with_scipy(floor):
    result = one_sided_floor(RUNS, floor)
    assert result.holds == (stats.ttest_1samp(RUNS, floor, alternative="greater").pvalue <= 0.05)
    assert result.broken == (stats.ttest_1samp(RUNS, floor, alternative="less").pvalue < 0.05)
    low = stats.ttest_1samp(RUNS, 0, alternative="greater").confidence_interval(0.95).low
    assert result.bound == pytest.approx(low)
    assert result.mean == pytest.approx(np.mean(RUNS))


def test_equal_runs_on_the_floor_hold_it():
    assert one_sided_floor([0.1] * 3, 0.1).holds
    assert one_sided_floor([0.1] * 3, 0.1001).broken


def test_false_holds_of_the_floor_are_five_percent(report_rate):
    rate = np.mean([one_sided_floor(values, 0.0).holds for values in draw(14, 5).tolist()])
    report_rate("false holds of the floor, mean = floor, 5 runs", float(rate))
    assert rate == pytest.approx(0.05, abs=tolerance(0.05))


def test_mcnemar_agrees_with_the_binomial_test_and_by_counting():
    rng = np.random.default_rng(15)
    for _ in range(50):
        a, b = rng.random(40) < 0.7, rng.random(40) < 0.8
        result = mcnemar(b.tolist(), a.tolist())
        assert (result.only_a, result.only_b) == (int((a & ~b).sum()), int((b & ~a).sum()))
        discordant = result.only_a + result.only_b
        assert result.p_value == pytest.approx(stats.binomtest(result.only_b, discordant, 0.5).pvalue)


def test_mcnemar_by_listing_every_coin_flip():
    b, a = [1, 1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 0, 1, 1]
    extreme = sum(abs(sum(flips) - 3) >= 2 for flips in itertools.product((0, 1), repeat=6))
    assert mcnemar(b, a).p_value == pytest.approx(extreme / 2**6)


def test_mcnemar_without_disagreement_sees_no_difference():
    assert mcnemar([1, 0, 1], [1, 0, 1]).p_value == 1.0
    with pytest.raises(ValueError, match="same examples"):
        mcnemar([1], [1, 0])


def test_paired_bootstrap_agrees_with_scipy():
    d = np.random.default_rng(16).normal(0.3, 1, size=200)
    result = paired_bootstrap(d.tolist(), seed=0, n=20_000)
    expected = stats.bootstrap(
        (d,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    assert result.interval == pytest.approx((expected.low, expected.high), abs=0.01)
    assert result.mean == pytest.approx(d.mean())


def test_paired_bootstrap_is_repeatable_and_bounded_in_memory():
    d = [1.0, 0.0, -1.0, 1.0] * 500
    assert paired_bootstrap(d, seed=3, n=3000) == paired_bootstrap(d, seed=3, n=3000)
    assert paired_bootstrap(d, seed=3, n=3000) != paired_bootstrap(d, seed=4, n=3000)
    assert paired_bootstrap([0.5], seed=0, n=10).interval == (0.5, 0.5)


def test_paired_bootstrap_covers_the_truth(report_rate):
    d = np.random.default_rng(17).normal(0.2, 1, size=(400, 60))
    intervals = [paired_bootstrap(row, seed=i, n=400).interval for i, row in enumerate(d.tolist())]
    covered = float(np.mean([low <= 0.2 <= high for low, high in intervals]))
    assert 0.90 <= report_rate("coverage of the 95 % bootstrap interval, 60 examples", covered) <= 0.98


# -- two runs against each other --------------------------------------------------------------------

OTHERS = [0.805, 0.811, 0.803, 0.806, 0.807]


def test_paired_and_welch_t_agree_with_scipy():
    paired, unpaired = paired_t(OTHERS, RUNS), welch_t(OTHERS[:3], RUNS)
    for found, expected in (
        (paired, stats.ttest_rel(OTHERS, RUNS)),
        (unpaired, stats.ttest_ind(OTHERS[:3], RUNS, equal_var=False)),
    ):
        interval = expected.confidence_interval(0.95)
        assert found.p_value == pytest.approx(expected.pvalue)
        assert found.interval == pytest.approx((interval.low, interval.high))
    assert paired.delta == pytest.approx(np.mean(OTHERS) - np.mean(RUNS))


def test_without_spread_a_difference_is_certain_and_no_difference_is_none():
    assert paired_t([0.5, 0.75], [0.25, 0.5]).p_value == 0.0
    assert paired_t([0.5, 0.75], [0.5, 0.75]) == welch_t([0.5, 0.5], [0.5, 0.5])
    assert welch_t([0.5, 0.5], [0.5, 0.5]).p_value == 1.0


@pytest.mark.parametrize("test", [paired_t, welch_t])
def test_a_t_test_needs_two_finite_values_a_side(test):
    for b, a in (([1.0], [2.0]), ([1.0, math.nan], [1.0, 2.0])):
        with pytest.raises(ValueError, match=r"at least|finite"):
            test(b, a)
    with pytest.raises(ValueError, match="pairs"):
        paired_t([1.0, 2.0], [1.0, 2.0, 3.0])


def test_randomization_by_listing_every_choice_of_signs():
    d = [0.3, 0.1, -0.05, 0.2, 0.0, 0.15]
    sums = [
        sum(s * v for s, v in zip(signs, d, strict=True)) for signs in itertools.product((1, -1), repeat=6)
    ]
    expected = np.mean([abs(total) >= abs(sum(d)) - 1e-12 for total in sums])
    assert randomization(d, seed=0) == pytest.approx(expected)
    assert randomization(d * 4, seed=0, n=20_000) == pytest.approx(
        stats.permutation_test(
            (d * 4,), np.sum, permutation_type="samples", n_resamples=20_000, rng=1
        ).pvalue,
        abs=0.01,
    )


def test_randomization_of_right_and_wrong_is_mcnemar():
    rng = np.random.default_rng(20)
    for examples, exact in ((14, True), (300, False)):
        a, b = rng.random(examples) < 0.6, rng.random(examples) < 0.7
        d = (b.astype(float) - a).tolist()
        assert randomization(d, seed=0, n=20_000) == pytest.approx(
            mcnemar(b.tolist(), a.tolist()).p_value, abs=1e-12 if exact else 0.015
        )


def test_randomization_is_repeatable_never_zero_and_one_without_difference():
    d = [1.0] * 100
    assert randomization(d, seed=3, n=500) == randomization(d, seed=3, n=500) == 1 / 501
    assert randomization([0.0, 0.0], seed=0) == 1.0
    assert randomization([0.1] * 5, seed=0) == 2 / 32


@pytest.mark.parametrize(("examples", "n"), [(8, 300), (60, 300)])
def test_false_alarms_of_randomization_are_five_percent(report_rate, examples, n):
    """Also with scores as skewed as losses are: only which run gave which is exchanged."""
    rng = np.random.default_rng(21)
    d = rng.exponential(size=(1500, examples)) - rng.exponential(size=(1500, examples))
    rate = float(np.mean([randomization(row, seed=i, n=n) <= 0.05 for i, row in enumerate(d.tolist())]))
    assert report_rate(f"false alarms of randomization, {examples} examples", rate) == pytest.approx(
        0.05, abs=0.017
    )


def test_false_alarms_of_the_paired_t_test_are_five_percent(report_rate):
    pairs = zip(draw(22, 5).tolist(), draw(23, 5).tolist(), strict=True)
    rate = float(np.mean([paired_t(b, a).p_value < 0.05 for b, a in pairs]))
    assert report_rate("false alarms of the paired t-test, 5 seeds", rate) == pytest.approx(
        0.05, abs=tolerance(0.05)
    )


def test_holm_is_the_textbook_procedure():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.5]) == [0.5] and holm([0.9, 0.8]) == [1.0, 1.0]
    for p_values in np.random.default_rng(24).random((200, 6)) ** 3:
        adjusted, order = holm(p_values.tolist()), np.argsort(p_values)
        rejected = set()
        for rank, i in enumerate(order):  # step down until one stands
            if p_values[i] > 0.05 / (6 - rank):
                break
            rejected.add(int(i))
        assert {i for i, p in enumerate(adjusted) if p <= 0.05} == rejected


def test_any_false_alarm_among_twenty_tests_has_five_percent(report_rate):
    draws = np.random.default_rng(25).random((DRAWS, 20))
    rate = float(np.mean([min(holm(p_values)) < 0.05 for p_values in draws.tolist()]))
    assert report_rate("any false alarm among 20 tests, Holm", rate) == pytest.approx(
        0.05, abs=tolerance(0.05)
    )


# -- seeds needed -----------------------------------------------------------------------------------


def with_spread(n: int, centre: float, spread: float) -> list[float]:
    """*n* values with exactly this mean and standard deviation."""
    values = np.linspace(-1, 1, n)
    return (centre + spread * values / values.std(ddof=1)).tolist()


@pytest.mark.parametrize(("delta", "spread"), [(0.0, 0.8), (0.3, 0.5), (-0.3, 0.5), (1.6, 0.5)])
def test_the_number_of_seeds_named_reaches_the_power(report_rate, delta, spread):
    """With so many seeds the test decides in about four of five runs, and with half as many it does not."""
    reference = with_spread(20, 0.0, spread)
    k = runs_needed(with_spread(3, delta, spread), reference, 1.0)
    assert k is not None and k > 3

    def decided(runs: int) -> float:
        new = draw(18, runs, delta, spread).tolist()
        old = draw(19, 20, 0.0, spread).tolist()
        right = "equivalent" if abs(delta) < 1 else "different"
        return float(np.mean([tost(a, b, 1.0).outcome == right for a, b in zip(new, old, strict=True)]))

    assert (
        report_rate(f"power with the {k} seeds named, difference {delta}, sigma {spread}", decided(k)) > 0.72
    )
    assert decided(max(2, k // 2)) < 0.72


def test_no_number_of_seeds_helps_a_poor_reference_or_a_difference_on_the_margin():
    assert runs_needed([0.0, 0.1, 0.2], [0.0, 2.0], 0.5) is None
    assert runs_needed(with_spread(3, 1.0, 0.5), 0.0, 1.0) is None
    assert runs_needed([0.1] * 3, [0.1] * 3, 0.0) == 3


# -- small parts ------------------------------------------------------------------------------------


def test_mean_and_variance_agree_with_numpy():
    assert mean(RUNS) == pytest.approx(np.mean(RUNS))
    assert variance(RUNS) == pytest.approx(np.var(RUNS, ddof=1))
    assert variance([0.1, 0.1, 0.1]) == 0.0


def test_importing_the_module_loads_neither_numpy_nor_scipy():
    code = "import sys, harness.judge.rules; print(sorted({'numpy', 'scipy', 'yaml'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
