"""The rules by which a claim is judged: pure functions from numbers to verdicts.

Which rule applies depends on what a claim holds for the profile, and on the number of new runs (seeds):

blessed runs, one or two new runs: *prediction interval*
    The mean of the new runs must lie in the 95 % prediction interval of the blessed runs, which is never
    taken narrower than ±margin around their mean. Inside is ``pass``, outside is ``fail``.
blessed runs, three or more new runs: *TOST*
    The means must be equivalent within ±margin. The 90 % interval of the difference inside ±margin is
    ``pass``, wholly outside is ``fail``, anything else ``inconclusive`` with the number of seeds that would
    decide it. Values equal, seed by seed, to blessed runs of the same hardware class are ``pass`` without a
    test.
published value, three or more new runs: *published*
    Equivalence as above, with the published value taken as exact. An ``inconclusive`` verdict also says
    whether the one-sided floor, “not worse than the value by more than the margin”, is shown.
published value, one or two new runs: *published*
    So few runs cannot show equality, so the best verdict is ``inconclusive``. A value that is off by more
    than FAR times the margin is ``fail``: seed noise of that size would make the margin meaningless.
published value of a chapter without a seed: *published*
    There is no spread over seeds to know: within the margin is ``pass``, beyond it ``fail``.
bounds: *bounds*
    Every new value must be finite and inside.
nothing: *recorded*
    Nothing was compared, so nothing passed: ``inconclusive``, with the advice to bless.

A number that became much better is not reproduced either: it fails, with the advice to bless it if
intended. "Not significantly different" is never a pass. Blessed runs of the run's own hardware class are
used where there are any; otherwise all of them, and the message names both classes. Runs of several classes
(a run merged from shards) are judged class by class, each with a verdict of its own. A claim with several
kinds of reference for a profile gets a verdict for each.

How often the rules err is measured by ``benchmarks/verdicts.py``. Where they promise at most 5 % they keep it for
normal seeds, with two limits. The prediction interval's 5 % is a mean over references: one in ten sets of five
blessed runs fails more than 15 % of right runs. A single run against a published value knows no spread: 5 % of
right runs fail where the seeds spread as wide as the margin, a third where they spread twice as wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.judge.statistics import (
    mean,
    one_sided_floor,
    prediction_interval,
    rounding_of,
    runs_needed,
    tost,
)
from harness.model import Bounds, Claim, Outcome, Published, ReferenceRun, Verdict
from harness.wording import Interval, Rounding, Text, join, rounding

RUNS_FOR_TEST = 3
"""From this many new runs on, means are tested for equivalence."""
FAR = 2.0
"""So many margins off a published value is a failure even of a single run."""
CONFIDENCE = 0.95
ALPHA = 0.05


@dataclass(frozen=True)
class Case:
    """One claim and the new values to judge it by."""

    chapter: str
    claim: Claim
    profile: str
    values: tuple[float, ...] = ()
    seeds: tuple[int | None, ...] = ()
    hardware: str = ""
    takes_seed: bool = False
    held_to: Interval | None = None  # what the values are held to; with it goes how far numbers are rounded
    bounded: bool = False  # it is a range that was set, not an uncertainty

    def verdict(self, outcome: Outcome, rule: str, *texts: Text | None, **more: Any) -> Verdict:
        text = join(texts)
        claim = self.claim
        return Verdict(
            self.chapter, claim.name, claim.title, self.profile, outcome, rule, observed=self.values,
            unit=claim.unit, message=text.en, message_zh=text.zh, hardware=self.hardware,
            **{"margin": claim.margin, **more},
        )  # fmt: skip

    @property
    def rounded(self) -> Rounding:
        judged = self.held_to is not None and not self.bounded and self.values
        seen = (mean(self.values),) if judged else self.values
        return rounding(self.claim.unit, seen, self.held_to, uncertain=not self.bounded)

    def number(self, value: float, *, signed: bool = False) -> str:
        return self.rounded.number(value, signed=signed)

    def range(self, low: float | None, high: float | None, *, signed: bool = False) -> str:
        return self.rounded.range((low, high), signed=signed)

    @property
    def seedless(self) -> bool:
        """Whether the chapter takes no seed, so that no further run could tell more."""
        return bool(self.seeds) and set(self.seeds) == {None}

    @property
    def seen(self) -> Text:
        """The new runs and their mean, as the subject of a sentence."""
        value = self.number(mean(self.values))
        runs = len(self.values)
        return (
            Text(value, f"{value} ")
            if runs == 1
            else Text(f"the mean {value} of {runs} runs", f"{runs} 次运行的均值 {value} ")
        )


def judge_claim(
    claim: Claim,
    values: Sequence[float],
    profile: str,
    *,
    chapter: str = "",
    seeds: Sequence[int | None] = (),
    hardware: str = "",
) -> tuple[Verdict, ...]:
    """Judge one claim by the values of one or more runs: one verdict for each kind of reference.

    Args:
        claim: what is claimed.
        values: one per run, in the claim's unit; at least one.
        profile: the profile of the runs.
        chapter: stands in the verdict.
        seeds: of the runs, in the order of *values*, None where the chapter takes none; empty where unknown.
        hardware: class of the machine the runs ran on; empty where unknown.
    """
    if not values:
        raise ValueError("no values to judge")
    case = Case(chapter, claim, profile, tuple(values), tuple(seeds), hardware)
    if not all(math.isfinite(v) for v in values):
        return (case.verdict(Outcome.FAIL, "recorded", Text("not a finite number", "不是有限的数")),)
    verdicts = []
    if profile in claim.blessed:
        verdicts.append(_judge_blessed(case, claim.blessed[profile]))
    if profile in claim.published:
        verdicts.append(_judge_published(case, claim.published[profile]))
    if profile in claim.bounds:
        verdicts.append(_judge_bounds(case, claim.bounds[profile]))
    return tuple(verdicts) or (_judge_recorded(case),)


def _judge_blessed(case: Case, blessed: Sequence[ReferenceRun]) -> Verdict:
    runs, note = _comparable(blessed, case.hardware)
    verdict = _equivalence(case, runs) if len(case.values) >= RUNS_FOR_TEST else _prediction(case, runs)
    return replace(with_note(verdict, note), reference_hardware=_classes(runs))


def _classes(runs: Sequence[ReferenceRun]) -> str:
    return ", ".join(dict.fromkeys(run.hardware for run in runs))


def _comparable(blessed: Sequence[ReferenceRun], hardware: str) -> tuple[Sequence[ReferenceRun], Text | None]:
    """The blessed runs of this hardware class, or all of them with a note that they are not."""
    same = [run for run in blessed if run.hardware == hardware]
    if same:
        return same, None
    classes = _classes(blessed)
    return blessed, Text(
        f"reference from {classes}, this run on {hardware or 'unknown hardware'}",
        f"参考来自 {classes}，本次运行在{f' {hardware} ' if hardware else '未知硬件'}上",
    )


def with_note(verdict: Verdict, note: Text | None) -> Verdict:
    """*verdict* with one more sentence at the end of its message."""
    text = join((Text(verdict.message, verdict.message_zh), note))
    return replace(verdict, message=text.en, message_zh=text.zh)


def _prediction(case: Case, runs: Sequence[ReferenceRun]) -> Verdict:
    """One or two new runs against the prediction interval of the blessed runs."""
    values, margin, n = [run.value for run in runs], case.claim.margin, len(runs)
    centre, spread = mean(values), 0.0
    if n > 1:
        low, high = prediction_interval(values, CONFIDENCE, new=len(case.values))
        spread = (high - low) / 2
    half = max(spread, margin)
    delta = _beyond_kept(mean(case.values) - centre, values)
    inside = abs(delta) <= half + rounding_of(centre, *case.values)
    more: dict[str, Any] = {"reference": centre, "delta": delta, "interval": (centre - half, centre + half)}
    case = replace(case, held_to=more["interval"])
    text = _prediction_text(case, n, more["interval"], wide=spread > margin, inside=inside)
    outcome, side = (Outcome.PASS, None) if inside else (Outcome.FAIL, _side(case, delta))
    sharpness = None if case.seedless else _sharpness(n, spread, margin)
    return case.verdict(outcome, "prediction interval", text, side, sharpness, **more)


def _prediction_text(case: Case, n: int, interval: tuple[float, float], *, wide: bool, inside: bool) -> Text:
    seen, place = case.seen, Text("in", "之内") if inside else Text("outside", "之外")
    shown = case.range(*interval)
    margin = case.number(case.claim.margin)
    if wide:
        what = Text(f"the 95 % prediction interval of {n} blessed runs", f"{n} 次参考运行的 95% 预测区间")
    elif n == 1:
        what = Text(f"±{margin} around the only blessed run", f"唯一一次参考运行 ±{margin}")
    else:
        what = Text(f"±{margin} around the mean of {n} blessed runs", f"{n} 次参考运行的均值 ±{margin}")
    return Text(
        f"{seen.en} lies {place.en} {shown}, {what.en}", f"{seen.zh}在 {shown}（{what.zh}）{place.zh}"
    )


def _sharpness(n: int, spread: float, margin: float) -> Text | None:
    """What the reader should know about how much this interval can tell."""
    if n == 1:
        return Text(
            "the spread over seeds is unknown: bless more seeds", "种子间的波动未知：请记下更多种子的参考"
        )
    if margin > 0 and spread > FAR * margin:
        times = f"{spread / margin:.1f}"
        return Text(
            f"the interval is {times} times as wide as the margin asks: bless more seeds for a sharper test",
            f"区间宽度是容差的 {times} 倍：记下更多种子的参考，判定才会更严",
        )
    return None


def _side(case: Case, delta: float) -> Text:
    """Which side of the reference the new value is on, and what to do about it."""
    good = {"higher": delta > 0, "lower": delta < 0}.get(case.claim.direction)
    if good is None:
        return Text(
            "the value moved; if that is intended, bless it",
            "数值变了；若是有意为之，请用 harness bless 记为新参考",
        )
    if good:
        return Text(
            "better than the reference: not the same number; if that is intended, bless it",
            "比参考更好，但已不是同一个数；若是有意为之，请用 harness bless 记为新参考",
        )
    return Text("worse than the reference", "比参考差")


def _equivalence(case: Case, runs: Sequence[ReferenceRun]) -> Verdict:
    """Three or more new runs against the blessed runs by TOST."""
    values, margin = [run.value for run in runs], case.claim.margin
    result = tost(case.values, values, margin, ALPHA)
    centre = mean(values)
    more = {
        "reference": centre, "delta": _beyond_kept(result.delta, values), "delta_interval": result.interval,
        "interval": (centre - margin, centre + margin),
    }  # fmt: skip
    case = replace(case, held_to=more["interval"])
    if _identical(case, runs):
        same = Text("identical, seed by seed, to the blessed runs", "逐个种子与参考运行完全相同")
        return case.verdict(Outcome.PASS, "TOST", same, **more)
    against = Text(f"the mean of {len(runs)} blessed runs", f" {len(runs)} 次参考运行的均值")
    text = _difference_text(case, against, result.delta, result.interval, result.outcome)
    if result.outcome == "equivalent":
        return case.verdict(Outcome.PASS, "TOST", text, **more)
    if result.outcome == "different":
        return case.verdict(Outcome.FAIL, "TOST", text, _side(case, result.delta), **more)
    return case.verdict(Outcome.INCONCLUSIVE, "TOST", text, _needs(case, values), **more)


KEPT_DIGITS = 6
"""To so many significant digits a run repeats another. References were once kept with no more."""


def _beyond_kept(delta: float, references: Sequence[float]) -> float:
    """*delta* to the mean of *references*; 0 where their rounding as they were blessed may be all of it."""
    return delta if abs(delta) > mean([_unkept(value) for value in references]) else 0.0


def _unkept(value: float) -> float:
    """Half a unit of the last of KEPT_DIGITS where a reference has just so many, and so may have been rounded.

    One that ends two digits before, as 0.25 does, is what was measured, as good as always.
    """
    digits, _, power = f"{value:.{KEPT_DIGITS - 1}e}".partition("e")
    if float(f"{digits}e{power}") != value or digits.endswith("00"):
        return 0.0
    return 0.5 * 10.0 ** (int(power) - KEPT_DIGITS + 1)


def _identical(case: Case, runs: Sequence[ReferenceRun]) -> bool:
    """Whether each new run repeats the blessed run of its seed."""
    if len(case.seeds) != len(case.values) or None in case.seeds:
        return False
    known = {(run.seed, _kept(run.value)) for run in runs if run.hardware == case.hardware}
    return all((seed, _kept(value)) in known for seed, value in zip(case.seeds, case.values, strict=True))


def _kept(value: float) -> str:
    return f"{value:.{KEPT_DIGITS}g}"


def _difference_text(
    case: Case, against: Text, delta: float, interval: tuple[float, float], outcome: str
) -> Text:
    seen = case.seen
    difference, range_ = case.number(delta, signed=True), case.range(*interval, signed=True)
    margin = case.number(case.claim.margin)
    place = {
        "equivalent": Text("inside", f"落在 ±{margin} 之内"),
        "different": Text("wholly outside", f"完全在 ±{margin} 之外"),
        "inconclusive": Text("across the edge of", f"跨过了 ±{margin} 的边界"),
    }[outcome]
    return Text(
        f"{seen.en} differs from {against.en} by {difference}, 90 % interval {range_}, {place.en} ±{margin}",
        f"{seen.zh}与{against.zh}相差 {difference}，90% 置信区间 {range_}，{place.zh}",
    )


def _needs(case: Case, reference: Sequence[float] | float) -> Text:
    """How many seeds would decide the claim."""
    needed = runs_needed(case.values, reference, case.claim.margin, ALPHA)
    if needed is None:
        return Text(
            "more seeds alone will hardly decide it: bless more reference runs or widen the margin",
            "仅增加种子难以判定：请增加参考运行，或放宽容差",
        )
    return _needs_seeds(needed)


def _needs_seeds(count: int) -> Text:
    return Text(f"needs ≥ {count} seeds", f"需要至少 {count} 个种子")


def _judge_published(case: Case, published: Published) -> Verdict:
    if len(case.values) < RUNS_FOR_TEST:
        return _published_few(case, published)
    value, margin = published.value, case.claim.margin
    result = tost(case.values, value, margin, ALPHA)
    more = {
        "reference": value, "delta": result.delta, "delta_interval": result.interval,
        "interval": (value - margin, value + margin),
    }  # fmt: skip
    case = replace(case, held_to=more["interval"])
    text = _difference_text(case, _published_text(case, value), result.delta, result.interval, result.outcome)
    if result.outcome == "equivalent":
        return case.verdict(Outcome.PASS, "published", text, **more)
    if result.outcome == "different":
        return case.verdict(Outcome.FAIL, "published", text, _published_side(case, result.delta), **more)
    return case.verdict(
        Outcome.INCONCLUSIVE, "published", text, _floor_text(case, value), _needs(case, value), **more
    )


def _published_few(case: Case, published: Published) -> Verdict:
    """One or two runs can refute a published value, not confirm it."""
    value, margin = published.value, case.claim.margin
    delta = mean(case.values) - value
    slack = rounding_of(value, *case.values)
    more = {"reference": value, "delta": delta, "interval": (value - margin, value + margin)}
    case = replace(case, held_to=more["interval"])
    against, seen = _published_text(case, value), case.seen
    difference, limit = case.number(delta, signed=True), case.number(margin)
    text = Text(
        f"{seen.en} differs from {against.en} by {difference}", f"{seen.zh}与{against.zh}相差 {difference}"
    )
    if case.seedless:
        inside = abs(delta) <= margin + slack
        place = Text(
            f"{'within' if inside else 'beyond'} ±{limit}",
            f"{'在' if inside else '超出'} ±{limit}" + "之内" * inside,
        )
        side = None if inside else _published_side(case, delta)
        return case.verdict(Outcome.PASS if inside else Outcome.FAIL, "published", text, place, side, **more)
    if abs(delta) > FAR * margin + slack:
        far = Text(f"more than {FAR:g} times the margin {limit}", f"超过容差 {limit} 的 {FAR:g} 倍")
        return case.verdict(Outcome.FAIL, "published", text, far, _published_side(case, delta), **more)
    if abs(delta) <= margin + slack:
        place = Text(
            f"within ±{limit}, which so few runs cannot confirm",
            f"在 ±{limit} 之内，但运行次数太少，不足以确认",
        )
    else:
        place = Text(
            f"beyond ±{limit}, which seed noise may explain", f"超出 ±{limit}，但可能只是种子间的波动"
        )
    return case.verdict(Outcome.INCONCLUSIVE, "published", text, place, _needs_seeds(RUNS_FOR_TEST), **more)


def _published_text(case: Case, value: float) -> Text:
    return Text(f"the published {case.number(value)}", f"发表值 {case.number(value)} ")


def _published_side(case: Case, delta: float) -> Text:
    good = {"higher": delta > 0, "lower": delta < 0}.get(case.claim.direction)
    if good:
        return Text(
            "better than published: not the same number; compare split and protocol",
            "比发表值更好，但已不是同一个数；请核对数据划分与实验设置",
        )
    if good is None:
        return Text("compare split and protocol", "请核对数据划分与实验设置")
    return Text("worse than published", "比发表值差")


def _floor_text(case: Case, value: float) -> Text | None:
    """Whether “not worse than the value by more than the margin” is shown, if the claim has a direction."""
    if case.claim.direction == "none":
        return None
    sign = 1 if case.claim.direction == "higher" else -1
    limit = value - sign * case.claim.margin
    shown = one_sided_floor([sign * v for v in case.values], sign * limit, ALPHA).holds
    text = case.number(limit)
    if shown:
        return Text(f"not worse than {text} is shown (95 %)", f"可以确认不差于 {text}（95%）")
    return Text(f"not worse than {text} is not shown", f"尚不能确认不差于 {text}")


def _judge_bounds(case: Case, bounds: Bounds) -> Verdict:
    low = -math.inf if bounds.low is None else bounds.low
    high = math.inf if bounds.high is None else bounds.high
    # 0.59 - 0.60 is not below -0.01
    slack = rounding_of(*(b for b in (bounds.low, bounds.high) if b is not None), *case.values)
    outside = [v for v in case.values if not low - slack <= v <= high + slack]
    case = replace(case, held_to=(bounds.low, bounds.high), bounded=True)
    values, range_ = (
        ", ".join(case.number(v) for v in outside or case.values),
        case.range(bounds.low, bounds.high),
    )
    # an open side has no number that JSON could hold: the range stands in the message
    more = {"margin": None, "interval": (low, high) if math.isfinite(low) and math.isfinite(high) else None}
    if outside:
        delta, bound = max(
            ((v - low, low) if v < low else (v - high, high) for v in outside), key=lambda pair: abs(pair[0])
        )
        by = case.number(abs(delta))
        text = Text(
            f"{values} lies outside the bounds {range_}, by {by}" + (" at most" if len(outside) > 1 else ""),
            f"{values} 超出取值范围 {range_}，" + ("最多" if len(outside) > 1 else "") + f"超出 {by}",
        )
        return case.verdict(Outcome.FAIL, "bounds", text, reference=bound, delta=delta, **more)
    text = Text(f"{values} lies in the bounds {range_}", f"{values} 在取值范围 {range_} 之内")
    return case.verdict(Outcome.PASS, "bounds", text, **more)


def _judge_recorded(case: Case) -> Verdict:
    text = Text(
        f"recorded; the profile {case.profile} has no reference yet, so nothing was compared (bless a run)",
        f"已记录；{case.profile} 配置下还没有参考值，因此没有比较",
    )
    return case.verdict(Outcome.INCONCLUSIVE, "recorded", text, margin=None)
