"""How often the harness's verdicts err, by simulation: false passes, false fails, and how often neither is said.

Run as ``python -m benchmarks.verdicts [--draws 100000] [--paired-draws 10000] [--out FILE]``; a minute on one core.

The margin is the unit. Five blessed runs scatter about 0, the new runs about the true difference (0 to 2 margins),
with a spread of seeds of margin / ratio; published values are 0 and exact. The verdicts are computed for all draws at
once; for some of them each is asked of ``harness.judge.rules`` itself, and the script ends if the two disagree. All
ratios and differences look at the same draws, so that neighbours in a table differ by what they say and not by luck.

A paired comparison takes two sets of scores on the same examples: right or wrong (McNemar's test and the bootstrap,
margin 0.02, by the fraction of examples on which the two disagree), or numbers (the bootstrap, margin 0.1 standard
deviations of the differences).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy
from scipy.special import bdtr, gammaln, ndtr, stdtrit, xlog1py, xlogy

from harness.judge.rules import ALPHA, CONFIDENCE, FAR, judge_claim
from harness.judge.statistics import mcnemar, one_sided_floor, paired_bootstrap
from harness.model import Claim, Outcome, Published, ReferenceRun

BLESSED = 5
DELTAS = (0.0, 0.5, 1.0, 1.5, 2.0)  # true difference in margins
RATIOS = (0.5, 1.0, 2.0, 4.0, 8.0)  # margin / spread of the seeds
CHECKED = 20  # draws of each cell that harness.judge.rules judges, too

Array = np.ndarray
Outcomes = tuple[Array, Array]  # (pass, fail) for each draw; neither is inconclusive


# -- seeds ------------------------------------------------------------------------------------------


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape)


def _heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Student's t with 3 degrees of freedom, standard deviation 1."""
    return rng.standard_t(3, shape) / np.sqrt(3)


SEEDS: Mapping[str, tuple[Callable[[np.random.Generator, tuple[int, ...]], Array], float]] = {
    "normal": (_normal, 1.0),
    "heavy tails (t, 3 df)": (_heavy, 1.0),
    "new spread doubled": (_normal, 2.0),
    "new spread halved": (_normal, 0.5),
}
"""Shape of the scatter, and the spread of the new runs by that of the blessed ones."""


# -- rules, for all draws at once -------------------------------------------------------------------


def _t(degrees: Array | float, p: float) -> Array:
    return stdtrit(degrees, p)


def prediction(blessed: Array, new: Array) -> tuple[Array, Array]:
    """Difference of means and half width of the interval, before the margin is considered."""
    n, k = blessed.shape[1], new.shape[1]
    half = _t(n - 1, (1 + CONFIDENCE) / 2) * blessed.std(axis=1, ddof=1) * np.sqrt(1 / k + 1 / n)
    return new.mean(axis=1) - blessed.mean(axis=1), half


def welch(blessed: Array, new: Array) -> tuple[Array, Array]:
    """Difference of means and half width of its 90 % interval."""
    n, k = blessed.shape[1], new.shape[1]
    a, b = new.var(axis=1, ddof=1) / k, blessed.var(axis=1, ddof=1) / n
    degrees = (a + b) ** 2 / (a**2 / (k - 1) + b**2 / (n - 1))
    return new.mean(axis=1) - blessed.mean(axis=1), _t(degrees, 1 - ALPHA) * np.sqrt(a + b)


def one_sample(blessed: Array, new: Array) -> tuple[Array, Array]:
    """Mean and half width of its 90 % interval; nothing is blessed."""
    k = new.shape[1]
    return new.mean(axis=1), _t(k - 1, 1 - ALPHA) * new.std(axis=1, ddof=1) / np.sqrt(k)


def single(blessed: Array, new: Array) -> tuple[Array, Array]:
    """The one new value; nothing is known of its spread."""
    return new[:, 0], np.zeros(len(new))


def within_prediction(delta: Array, half: Array) -> Outcomes:
    inside = np.abs(delta) <= np.maximum(half, 1)
    return inside, ~inside


def equivalent(delta: Array, half: Array) -> Outcomes:
    return np.abs(delta) + half <= 1, np.abs(delta) - half > 1


def not_far(delta: Array, half: Array) -> Outcomes:
    return np.zeros(len(delta), bool), np.abs(delta) > FAR


def above_floor(delta: Array, half: Array) -> Outcomes:
    """“Not worse by more than the margin” is shown (as a pass) or not; the true difference is for the worse."""
    return delta + half <= 1, np.zeros(len(delta), bool)


class Rule(NamedTuple):
    """One row of the tables."""

    new: int  # runs
    statistic: Callable[[Array, Array], tuple[Array, Array]]
    decide: Callable[[Array, Array], Outcomes]
    kind: str  # what the claim holds: blessed, published, floor


RULES: Mapping[str, Rule] = {
    **{f"prediction interval, {k} new": Rule(k, prediction, within_prediction, "blessed") for k in (1, 2)},
    **{f"TOST, {k} new": Rule(k, welch, equivalent, "blessed") for k in (3, 5, 10)},
    "published, 1 new": Rule(1, single, not_far, "published"),
    **{f"published, {k} new": Rule(k, one_sample, equivalent, "published") for k in (3, 5, 10)},
    **{f"floor, {k} new": Rule(k, one_sample, above_floor, "floor") for k in (3, 5, 10)},
}


def simulate(draws: int, seed: int) -> Iterator[tuple[str, str, float, float, float, float]]:
    """(rule, seeds, ratio, true difference, rate of passes, rate of fails) for every cell."""
    for name, rule in RULES.items():
        for shape, (draw, factor) in SEEDS.items():
            if rule.kind != "blessed" and factor != 1:
                continue  # no other spread to differ from: the same as another ratio
            rng = np.random.default_rng([seed, list(RULES).index(name), list(SEEDS).index(shape)])
            blessed, new = draw(rng, (draws, BLESSED)), factor * draw(rng, (draws, rule.new))
            centre, half = rule.statistic(blessed, new)  # spread 1 about 0; both scale with the spread
            for ratio in RATIOS:
                for delta in DELTAS:
                    passed, failed = rule.decide(delta + centre / ratio, half / ratio)
                    some = slice(0, CHECKED)
                    runs, values = blessed[some] / ratio, delta + new[some] / ratio
                    _check(rule.kind, runs, values, passed[some], failed[some])
                    yield name, shape, ratio, delta, float(passed.mean()), float(failed.mean())


def _check(kind: str, blessed: Array, new: Array, passed: Array, failed: Array) -> None:
    """The same draws by the harness itself."""
    for runs, values, yes, no in zip(blessed.tolist(), new.tolist(), passed, failed, strict=True):
        expected = Outcome.PASS if yes else Outcome.FAIL if no else Outcome.INCONCLUSIVE
        if kind == "floor":
            found = (
                Outcome.PASS if one_sided_floor([-v for v in values], -1.0).holds else Outcome.INCONCLUSIVE
            )
        else:
            found = judge_claim(_claim(kind, runs), values, "p")[0].outcome
        if found is not expected:
            raise SystemExit(
                f"harness.judge.rules says {found}, the simulation {expected}: {kind}, {runs}, {values}"
            )


def _claim(kind: str, runs: Sequence[float]) -> Claim:
    if kind == "published":
        return Claim("x", "x", "", "higher", 1.0, published={"p": Published(0.0, "simulation")})
    blessed = tuple(ReferenceRun(value, seed, "c", "2026-01-01", "h") for seed, value in enumerate(runs))
    return Claim("x", "x", "", "higher", 1.0, blessed={"p": blessed})


def unlucky_reference(draws: int, seed: int) -> dict[str, float]:
    """False fails of one normal run, given the blessed runs: quantiles over sets of five, margin 0."""
    blessed = np.random.default_rng([seed, 99]).standard_normal((draws, BLESSED))
    centre, half = prediction(blessed, np.zeros((draws, 1)))
    rate = 1 - (ndtr(half - centre) - ndtr(-half - centre))  # centre is minus the blessed mean
    return {f"{q:.0%}": float(np.quantile(rate, q)) for q in (0.5, 0.9, 0.99)}


# -- paired comparisons -----------------------------------------------------------------------------

EXAMPLES = (100, 1000, 2400)
DISAGREE = (0.05, 0.1, 0.2)
MARGIN_RIGHT, MARGIN_NUMBERS = 0.02, 0.1
RESAMPLES = 10_000  # as paired_bootstrap's default
TAIL = int(np.ceil(ALPHA / 2 * (RESAMPLES - 1)))  # so many resamples may lie on the other side of 0
NUMBERS: Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": _normal,
    "heavy tails (t, 3 df)": _heavy,
    "skewed (exponential)": lambda rng, shape: rng.standard_exponential(shape) - 1,
}


def beyond_zero(n: int, for_: Array, against: Array) -> Array:
    """Chance that a bootstrap mean of *n* differences is <= 0, of which *for_* are +1, *against* -1, the rest 0.

    A resample holds D ~ B(n, (for + against) / n) non-zero differences, of which X ~ B(D, for / (for + against))
    are +1; the mean is <= 0 where X <= D / 2.
    """
    chances = np.ones(len(for_))
    d = np.arange(n + 1)
    for total in np.unique(for_ + against):
        if total == 0:
            continue
        p = total / n
        pmf = np.exp(gammaln(n + 1) - gammaln(d + 1) - gammaln(n - d + 1) + xlogy(d, p) + xlog1py(n - d, -p))
        likely = pmf > 1e-12
        mine = np.nonzero(for_ + against == total)[0]
        tail = bdtr(d[likely] // 2, d[likely], for_[mine, None] / total)
        chances[mine] = np.where(for_[mine] == total, pmf[0], (tail * pmf[likely]).sum(axis=1))
    return chances


def right_or_wrong(draws: int, seed: int) -> Iterator[tuple[str, int, str, float, float]]:
    """(test, examples, what is compared, true difference in margins, rate of “different”)."""
    for n in EXAMPLES:
        for disagree in DISAGREE:
            for delta in DELTAS:
                rng = np.random.default_rng([seed, n, int(100 * disagree), int(10 * delta)])
                better, worse = (disagree + delta * MARGIN_RIGHT) / 2, (disagree - delta * MARGIN_RIGHT) / 2
                only_b, only_a, _ = rng.multinomial(n, [better, worse, 1 - disagree], draws).T
                total = only_a + only_b
                p = np.minimum(1, 2 * bdtr(np.minimum(only_a, only_b), np.maximum(total, 1), 0.5))
                different = (p < ALPHA) & (total > 0)
                what = f"right or wrong, {disagree:.0%} disagree"
                yield "McNemar", n, what, delta, float(different.mean())
                pairs, index = np.unique(np.stack([only_b, only_a]), axis=1, return_inverse=True)
                chances = np.stack([beyond_zero(n, *pairs), beyond_zero(n, *pairs[::-1])])[:, index.ravel()]
                if delta == 1.0:
                    _check_pairs(n, only_b[:4], only_a[:4], different[:4], chances[:, :4])
                shown = (rng.binomial(RESAMPLES, np.minimum(chances, 1)) <= TAIL).any(axis=0)
                yield "bootstrap", n, what, delta, float(shown.mean())


def _check_pairs(n: int, only_b: Array, only_a: Array, different: Array, chances: Array) -> None:
    """The same tables by the harness itself; the bootstrap where its own chance cannot decide."""
    sure = 6 * np.sqrt(TAIL)
    for b, a, said, chance in zip(only_b, only_a, different, chances.T * RESAMPLES, strict=True):
        d = [1] * int(b) + [-1] * int(a) + [0] * int(n - a - b)
        if (mcnemar([v > 0 for v in d], [v < 0 for v in d]).p_value < ALPHA) != said:
            raise SystemExit(f"mcnemar disagrees with the simulation: {b} and {a} of {n}")
        low, high = paired_bootstrap(d, seed=0).interval
        if np.all(np.abs(chance - TAIL) > sure) and (low > 0 or high < 0) != bool((chance <= TAIL).any()):
            raise SystemExit(f"paired_bootstrap disagrees with the simulation: {b} and {a} of {n}")


def numbers(draws: int, seed: int) -> Iterator[tuple[str, int, str, float, float]]:
    """As :func:`right_or_wrong`, for differences that are numbers; every draw sees the same resamples."""
    for n in EXAMPLES:
        weights = resample_weights(n)
        for name, draw in NUMBERS.items():
            rng = np.random.default_rng([seed, n, 7, list(NUMBERS).index(name)])
            low, high = _intervals(weights, draw(rng, (draws, n)))
            for delta in DELTAS:
                shift = delta * MARGIN_NUMBERS
                rate = float(((low + shift > 0) | (high + shift < 0)).mean())
                yield "bootstrap", n, f"numbers, {name}", delta, rate


def resample_weights(n: int) -> Array:
    """How much each of *n* examples counts in each resample of ``paired_bootstrap(…, seed=0)``."""
    chosen = np.random.default_rng(0).integers(0, n, size=(RESAMPLES, n))
    weights = np.zeros((RESAMPLES, n), np.float32)
    for row, picks in zip(weights, chosen, strict=True):
        row += np.bincount(picks, minlength=n) / n
    return weights


def _intervals(weights: Array, values: Array, block: int = 500) -> tuple[Array, Array]:
    """Percentile interval of the mean of each row of *values*, a few rows at a time."""
    parts = []
    for start in range(0, len(values), block):
        means = values[start : start + block].astype(np.float32) @ weights.T  # (draws, resamples)
        parts.append(np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2], axis=1))
    low, high = np.concatenate(parts, axis=1)
    return low, high


# -- report -----------------------------------------------------------------------------------------


def tables(rates: Mapping[str, Any], paired: Mapping[str, Any]) -> str:
    """All rates, as Markdown; :mod:`benchmarks.verdict_tables` puts them into the book."""
    head = [f"{d:g}" for d in DELTAS]
    lines = ["One claim: pass / fail in %, by the true difference in margins.", ""]
    lines += _table(["rule", "margin / spread", *head], _rows(rates, "normal", (1.0, 2.0, 4.0)))
    lines += ["", "The same for seeds that are not normal or change their spread, margin / spread = 2.", ""]
    others = [_rows(rates, shape, (2.0,), shape) for shape in SEEDS if shape != "normal"]
    lines += _table(["rule", "seeds", *head], [row for rows in others for row in rows])
    lines += ["", "Two models on the same examples: “different” in %, by the true difference in margins.", ""]
    rows = [
        [f"{test}, {n} examples", what, *(_percent(rate) for rate in by_delta)]
        for test, by_what in paired.items()
        for what, by_n in by_what.items()
        for n, by_delta in by_n.items()
    ]
    return "\n".join(lines + _table(["test", "scores", *head], rows))


def _rows(rates: Mapping[str, Any], shape: str, ratios: Sequence[float], label: str = "") -> list[list[str]]:
    return [
        [rule, label or f"{ratio:g}", *(_cell(rule, *pair) for pair in rates[rule][shape][f"{ratio:g}"])]
        for rule in rates
        if shape in rates[rule]
        for ratio in ratios
    ]


def _cell(rule: str, passed: float, failed: float) -> str:
    return _percent(passed) if rule.startswith("floor") else f"{_percent(passed)} / {_percent(failed)}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruler = ["---"] * 2 + ["--:"] * (len(head) - 2)
    return ["| " + " | ".join(row) + " |" for row in (head, ruler, *rows)]


def above_nominal(
    rates: Mapping[str, Any], paired: Mapping[str, Any], draws: int, paired_draws: int
) -> list[str]:
    """Errors that are meant to be 5 % at most and are more by over three standard errors; the worst of a row."""
    zero, edge = DELTAS.index(0.0), DELTAS.index(1.0)
    found: list[tuple[str, float, int]] = []
    for rule, by_shape in rates.items():
        for shape, by_ratio in by_shape.items():
            where = f"{rule}, {shape}: at the worst margin / spread, "
            pairs = list(by_ratio.values())
            if RULES[rule].new < 3:
                found.append(
                    (f"{where}false fails without a difference", max(p[zero][1] for p in pairs), draws)
                )
            else:
                found.append((f"{where}false passes on the margin", max(p[edge][0] for p in pairs), draws))
                found.append((f"{where}false fails on the margin", max(p[edge][1] for p in pairs), draws))
    for test, by_what in paired.items():
        for what, by_n in by_what.items():
            for n, by_delta in by_n.items():
                found.append((f"{test}, {what}, {n} examples: false alarms", by_delta[zero], paired_draws))
    limit = {count: ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / count) for count in (draws, paired_draws)}
    return [f"{what} {_percent(rate)} %" for what, rate, count in found if rate > limit[count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=100_000, help="for each rule and kind of seeds")
    parser.add_argument("--paired-draws", type=int, default=10_000, help="for each paired comparison")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the rates as JSON")
    options = parser.parse_args()
    began = time.perf_counter()
    rates: dict[str, Any] = {}
    for rule, shape, ratio, _, passed, failed in simulate(options.draws, options.seed):
        by_ratio = rates.setdefault(rule, {}).setdefault(shape, {})
        by_ratio.setdefault(f"{ratio:g}", []).append([round(passed, 5), round(failed, 5)])
    paired: dict[str, Any] = {}
    for source in (right_or_wrong, numbers):
        for test, n, what, _, rate in source(options.paired_draws, options.seed):
            paired.setdefault(test, {}).setdefault(what, {}).setdefault(str(n), []).append(round(rate, 4))
    report = {
        "draws": options.draws, "paired_draws": options.paired_draws, "seed": options.seed,
        "blessed_runs": BLESSED, "true_difference_in_margins": DELTAS,
        "pass_and_fail": rates, "different": paired,
        "false_fails_given_the_blessed_runs": unlucky_reference(options.draws, options.seed),
        "above_nominal": above_nominal(rates, paired, options.draws, options.paired_draws),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "seconds": round(time.perf_counter() - began),
        "numpy": np.__version__, "scipy": scipy.__version__,
    }  # fmt: skip
    print(tables(rates, paired))
    unlucky = ", ".join(
        f"{q}: {_percent(r)} %" for q, r in report["false_fails_given_the_blessed_runs"].items()
    )
    print(f"\nFalse fails of one run given the five blessed runs, quantiles over sets of five: {unlucky}")
    print(f"\nMore than the nominal {ALPHA:.0%}:", *(report["above_nominal"] or ["nothing"]), sep="\n- ")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(_compact(report) + "\n", encoding="utf-8")


def _compact(value: Any, indent: str = "") -> str:
    """JSON with one line for each list."""
    if not isinstance(value, dict):
        return json.dumps(value)
    inner = indent + " "
    lines = [f"{inner}{json.dumps(key)}: {_compact(one, inner)}" for key, one in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


if __name__ == "__main__":
    main()
