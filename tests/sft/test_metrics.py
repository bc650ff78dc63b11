"""The metrics against scikit-learn, against plain Python, on bad input, and without a network."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from sft import metrics
from sft.metrics.significance import (
    bleu_of_counts,
    bootstrap_interval,
    bootstrap_macro_f1_interval,
    chrf_of_counts,
    compare_f1,
    compare_runs,
    mcnemar,
    paired_bootstrap,
    share_interval,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def accuracy():
    return metrics.load("accuracy")


@pytest.fixture(scope="module")
def f1():
    return metrics.load("f1")


@pytest.fixture(scope="module")
def calibration_error():
    return metrics.load("calibration_error")


@pytest.fixture(scope="module")
def entity_f1():
    return metrics.load("entity_f1")


@pytest.fixture(scope="module")
def span_answers():
    return metrics.load("span_answers")


def some_labels(classes: int, n: int = 300, seed: int = 0) -> tuple[list[int], list[int]]:
    """References and predictions of a classifier that is right about 7 times in 10."""
    rng = np.random.default_rng(seed)
    references = rng.integers(classes, size=n)
    guesses = rng.integers(classes, size=n)
    return references.tolist(), np.where(rng.random(n) < 0.6, references, guesses).tolist()


def plain_f1(references: list[int], predictions: list[int], label: int) -> float:
    """F1 of one class by counting, with no library."""
    pairs = Counter(zip(references, predictions, strict=True))
    hits = pairs[label, label]
    wrong = sum(
        count for (true, predicted), count in pairs.items() if (true == label) != (predicted == label)
    )
    return 2 * hits / (2 * hits + wrong)


def plain_ece(probabilities: list[list[float]], references: list[int], num_bins: int) -> float:
    """ECE with equal-width bins, one example after the other."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, reference in zip(probabilities, references, strict=True):
        confidence = max(row)
        index = max(0, math.ceil(confidence * num_bins) - 1)
        bins.setdefault(index, []).append((confidence, row.index(confidence) == reference))
    total = 0.0
    for members in bins.values():
        gap = sum(right for _, right in members) - sum(confidence for confidence, _ in members)
        total += abs(gap)
    return total / len(references)


# --- accuracy and F1 -----------------------------------------------------------------------------------


def test_accuracy_equals_scikit_learn_and_plain_counting(accuracy):
    references, predictions = some_labels(classes=3)
    value = accuracy.compute(references=references, predictions=predictions)["accuracy"]
    assert type(value) is float
    assert value == accuracy_score(references, predictions)
    assert value == sum(a == b for a, b in zip(references, predictions, strict=True)) / len(references)


def test_accuracy_takes_batches_arrays_and_weights(accuracy):
    references, predictions = some_labels(classes=2)
    for start in range(0, 300, 100):
        part = slice(start, start + 100)
        accuracy.add_batch(references=np.array(references[part]), predictions=np.array(predictions[part]))
    weights = np.linspace(0, 1, 300)
    value = accuracy.compute(sample_weight=weights)["accuracy"]
    assert value == pytest.approx(accuracy_score(references, predictions, sample_weight=weights))


@pytest.mark.parametrize("average", ["macro", "micro", None])
@pytest.mark.parametrize("classes", [2, 5])
def test_f1_equals_scikit_learn(f1, average, classes):
    references, predictions = some_labels(classes)
    value = f1.compute(references=references, predictions=predictions, average=average)["f1"]
    assert value == pytest.approx(f1_score(references, predictions, average=average))


def test_f1_equals_plain_counting(f1):
    references, predictions = some_labels(classes=3)
    each = f1.compute(references=references, predictions=predictions, average=None)["f1"]
    assert each == pytest.approx([plain_f1(references, predictions, label) for label in range(3)])
    macro = f1.compute(references=references, predictions=predictions, average="macro")["f1"]
    assert macro == pytest.approx(sum(each) / 3)


@pytest.mark.parametrize("pos_label", [0, 1])
def test_binary_f1_is_that_of_the_positive_class(f1, pos_label):
    references, predictions = some_labels(classes=2)
    value = f1.compute(references=references, predictions=predictions, pos_label=pos_label)["f1"]
    assert value == pytest.approx(plain_f1(references, predictions, pos_label))


def test_a_class_that_is_predicted_but_never_true_scores_zero(f1):
    each = f1.compute(references=[0, 0, 0], predictions=[0, 0, 1], average=None)["f1"]
    assert each == pytest.approx([0.8, 0.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "class 1 is 0/0"),
        ({"average": "macro", "labels": [0, 1]}, "class 1 is 0/0"),
        ({"average": "weighted"}, "average must be one of"),
    ],
)
def test_f1_of_a_class_that_never_occurs_is_refused(f1, options, message):
    with pytest.raises(ValueError, match=message):
        f1.compute(references=[0, 0], predictions=[0, 0], **options)


def test_binary_f1_refuses_three_classes(f1):
    with pytest.raises(ValueError, match=r"two classes, found \[0, 1, 2\]"):
        f1.compute(references=[0, 1, 2], predictions=[0, 1, 1])


@pytest.mark.parametrize("name", ["accuracy", "f1"])
@pytest.mark.parametrize(
    ("references", "predictions", "message"),
    [
        ([], [], "at least one example"),
        ([0, 1, 1], [0, 1], "Mismatch"),
        ([0, 1], [0, math.nan], r"predictions\[1\] is nan"),
        ([0, None], [0, 1], r"references\[1\] is nan"),
        ([0, 1], [0, 0.7], r"predictions\[1\] is 0.7, not a class"),  # else cut to 0 without a word
        ([0, 1], [0, math.inf], r"predictions\[1\] is inf"),
    ],
)
def test_bad_labels_are_one_clear_error(name, references, predictions, message):
    with pytest.raises(ValueError, match=message):
        metrics.load(name).compute(references=references, predictions=predictions)


def test_a_metric_works_on_after_an_error(accuracy):
    with pytest.raises(ValueError, match="Mismatch"):
        accuracy.compute(references=[0, 1], predictions=[1])
    assert accuracy.compute(references=[1, 1], predictions=[1, 0]) == {"accuracy": 0.5}


# --- calibration ---------------------------------------------------------------------------------------


def some_probabilities(n: int = 500, classes: int = 3) -> tuple[list[list[float]], list[int]]:
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.full(classes, 0.4), size=n).tolist(), rng.integers(classes, size=n).tolist()


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_calibration_error_equals_plain_counting(calibration_error, num_bins):
    probabilities, references = some_probabilities()
    result = calibration_error.compute(predictions=probabilities, references=references, num_bins=num_bins)
    assert result["calibration_error"] == pytest.approx(plain_ece(probabilities, references, num_bins))
    assert sum(one["count"] for one in result["bins"]) == 500
    gaps = [abs(one["accuracy"] - one["confidence"]) for one in result["bins"]]
    assert result["max_calibration_error"] == pytest.approx(max(gaps))


def test_equal_mass_bins_hold_equally_many_examples_in_order(calibration_error):
    probabilities, references = some_probabilities(n=503)
    bins = calibration_error.compute(
        predictions=probabilities, references=references, num_bins=10, scheme="equal_mass"
    )["bins"]
    assert sorted(one["count"] for one in bins) == [50] * 7 + [51] * 3
    assert all(a["confidence"] <= b["confidence"] for a, b in pairwise(bins))


def test_a_calibrated_classifier_has_a_small_error_and_an_overconfident_one_its_gap(calibration_error):
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, size=20_000)
    probabilities = np.stack([1 - confidence, confidence], axis=1)
    honest = (rng.random(20_000) < confidence).astype(int)
    braggart = (rng.random(20_000) < confidence - 0.2).astype(int)
    for scheme in ("equal_width", "equal_mass"):
        compute = calibration_error.compute
        fair = compute(predictions=probabilities, references=honest, scheme=scheme)["calibration_error"]
        proud = compute(predictions=probabilities, references=braggart, scheme=scheme)["calibration_error"]
        assert fair < 0.02
        assert proud == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(
    ("predictions", "references", "options", "message"),
    [
        ([], [], {}, "at least one example"),
        ([[0.5, 0.5]], [0, 1], {}, "Mismatch"),
        ([[0.5, 0.5], [1.0]], [0, 0], {}, "same number of class probabilities"),
        ([[0.5, 0.5], [math.nan, 1.0]], [0, 0], {}, "row 1 is no probability distribution"),
        ([[2.0, -1.0]], [0], {}, "softmax"),
        ([[0.5, 0.4]], [0], {}, "row 0 is no probability distribution"),
        ([[0.5, 0.5]], [2], {}, r"is not in 0 \.\. 1"),
        ([[0.5, 0.5]], [math.nan], {}, r"is not in 0 \.\. 1"),
        ([[0.5, 0.5]], [0], {"num_bins": 0}, "num_bins"),
        ([[0.5, 0.5]], [0], {"scheme": "equal"}, "scheme must be one of"),
    ],
)
def test_bad_probabilities_are_one_clear_error(calibration_error, predictions, references, options, message):
    with pytest.raises(ValueError, match=message):
        calibration_error.compute(predictions=predictions, references=references, **options)


# --- entity F1 -----------------------------------------------------------------------------------------


def labels_of(text: str) -> list[str]:
    """P, L, O begin a person, place, organisation; lower case continues; a dot is outside."""
    kinds = {"P": "PER", "L": "LOC", "O": "ORG"}
    return ["O" if c == "." else f"{'B' if c.isupper() else 'I'}-{kinds[c.upper()]}" for c in text]


@pytest.mark.parametrize(
    ("references", "predictions", "precision", "recall"),
    [
        (["Pp.L"], ["Pp.L"], 1, 1),
        (["Pp.L"], ["Pp.."], 1, 1 / 2),
        (["Pp.L"], ["P..L"], 1 / 2, 1 / 2),  # a span too short is wrong
        (["Pp.L"], ["Ll.L"], 1 / 2, 1 / 2),  # so is a wrong type
        (["PpPp"], ["Pppp"], 0, 0),  # two persons are not one
        (["PpPp"], ["PpPp"], 1, 1),
        (["Ppll"], ["PpLl"], 1, 1),  # I- of another type begins an entity
        ([".pp."], [".Pp."], 1, 1),  # and so does I- after O
        (["..", "P."], ["P.", ".."], 0, 0),  # the sequence counts
        (["Pp"], [".."], 0, 0),
        ([".."], ["Pp"], 0, 0),
    ],
)
def test_entity_f1_of_hand_made_cases(entity_f1, references, predictions, precision, recall):
    result = entity_f1.compute(
        references=[labels_of(text) for text in references],
        predictions=[labels_of(text) for text in predictions],
    )
    assert (result["precision"], result["recall"]) == (precision, recall)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert result["f1"] == pytest.approx(f1)


def test_entity_f1_by_type(entity_f1):
    result = entity_f1.compute(references=[labels_of("Pp.L.P")], predictions=[labels_of("Pp.O.L")])
    assert result["per_type"] == {
        "LOC": {"precision": 0, "recall": 0, "f1": 0, "support": 1},
        "ORG": {"precision": 0, "recall": 0, "f1": 0, "support": 0},
        "PER": {"precision": 1, "recall": 1 / 2, "f1": 2 / 3, "support": 2},
    }
    assert result["f1"] == 2 * 1 / (3 + 3)


def plain_entities(labels: list[str]) -> set[tuple[int, int, str]]:
    """Every span tried: one type throughout, no B- inside, and neither end could be moved outwards."""
    n = len(labels)

    def inside(i: int, kind: str) -> bool:
        return i < n and labels[i] == f"I-{kind}"

    found = set()
    for start in range(n):
        kind = labels[start][2:]
        before = labels[start - 1][2:] if start else ""
        if kind and (labels[start][0] == "B" or before != kind):
            for stop in range(start + 1, n + 1):
                if all(inside(i, kind) for i in range(start + 1, stop)) and not inside(stop, kind):
                    found.add((start, stop, kind))
    return found


def test_entity_f1_equals_trying_every_span_on_random_labels(entity_f1):
    rng = np.random.default_rng(0)
    kinds = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]
    references, predictions = [], []
    for _ in range(200):
        truth = rng.choice(kinds, size=rng.integers(1, 15))
        guess = np.where(rng.random(len(truth)) < 0.8, truth, rng.choice(kinds, size=len(truth)))
        references.append(truth.tolist())
        predictions.append(guess.tolist())
    result = entity_f1.compute(references=references, predictions=predictions)
    pairs = [(plain_entities(g), plain_entities(t)) for g, t in zip(predictions, references, strict=True)]
    hits, guessed, true = (
        sum(map(len, sets)) for sets in zip(*((g & t, g, t) for g, t in pairs), strict=True)
    )
    assert 0 < hits < min(guessed, true)
    assert (result["precision"], result["recall"]) == (hits / guessed, hits / true)
    assert result["f1"] == pytest.approx(2 * hits / (guessed + true))
    assert sum(one["support"] for one in result["per_type"].values()) == true


@pytest.mark.parametrize(
    ("references", "predictions", "message"),
    [
        ([], [], "at least one sequence"),
        ([["O"]], [["O"]], "0/0"),
        ([["O", "O"]], [["O"]], "sequence 0 has 1 predicted and 2 true labels"),
        ([["B-PER"]], [["PER"]], "sequence 0: 'PER' is not a BIO label"),
        ([["B-PER"]], [["B-"]], "'B-' is not a BIO label"),
    ],
)
def test_bad_entity_labels_are_one_clear_error(entity_f1, references, predictions, message):
    with pytest.raises(ValueError, match=message):
        entity_f1.compute(references=references, predictions=predictions)


# --- translations --------------------------------------------------------------------------------------

REFERENCES = ["打开文件 ⟨0⟩ 时出错", "保存", "无法连接到服务器，请重试。", "是 URL"] * 10
TRANSLATIONS = ["打开文件夹 ⟨0⟩ 出错", "保 存", "不能连接到服务器。", "URL"] * 10


@pytest.mark.parametrize(("name", "score"), [("bleu", bleu_of_counts), ("chrf", chrf_of_counts)])
def test_a_score_is_made_of_the_counts_of_its_examples(name, score):
    result = metrics.load(name).compute(predictions=TRANSLATIONS, references=REFERENCES, per_example=True)
    counts = np.array(result["counts"], dtype=float)
    assert len(counts) == len(REFERENCES)
    assert float(score(counts.sum(axis=0))) == pytest.approx(result[name], abs=1e-9)
    assert 10 < result[name] < 90
    perfect = metrics.load(name).compute(predictions=REFERENCES, references=REFERENCES)
    assert perfect[name] == pytest.approx(100)


def test_bleu_of_one_sentence_by_hand():
    result = metrics.load("bleu").compute(predictions=["打开文件夹"], references=["打开新的文件夹"])
    assert result["precisions"] == pytest.approx([100, 75, 100 / 3, 25])  # the last one smoothed
    assert result["brevity_penalty"] == pytest.approx(math.exp(1 - 7 / 5))
    assert "tok:zh" in result["signature"] and "version:" in result["signature"]


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge_l"])
@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], [], "^predictions are empty"),
        (["a"], ["a", "b"], "^1 predictions against 2 references: row 1 of 2 stands alone"),
        (["a", "b"], ["a", "  "], "^reference 1 is empty"),
    ],
)
def test_bad_translations_are_one_clear_error(name, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        metrics.load(name).compute(predictions=predictions, references=references)


def plain_lcs(a: str, b: str) -> int:
    """Length of the longest common subsequence, by its definition on prefixes."""
    rows = [[0] * (len(b) + 1)]
    for x in a:
        row = [0]
        for j, y in enumerate(b, 1):
            row.append(rows[-1][j - 1] + 1 if x == y else max(rows[-1][j], row[-1]))
        rows.append(row)
    return rows[-1][-1]


def test_rouge_l_equals_plain_counting_whatever_the_punctuation():
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("水果的。？！…“”a1"), size=rng.integers(1, 30))) for _ in range(120)]
    said, right = texts[:60], texts[60:]
    got = metrics.load("rouge_l").compute(predictions=said, references=right, per_example=True)
    common = np.array([plain_lcs(a, b) for a, b in zip(said, right, strict=True)])
    lengths = np.array([[len(a), len(b)] for a, b in zip(said, right, strict=True)])
    assert got["per_example"] == pytest.approx(2 * common / lengths.sum(axis=1))
    assert got["rouge_l"] == pytest.approx(np.mean(got["per_example"]))
    assert got["precision"] == pytest.approx(np.mean(common / lengths[:, 0]))
    assert got["recall"] == pytest.approx(np.mean(common / lengths[:, 1]))


@pytest.mark.parametrize(
    ("said", "right", "score"),
    [
        ("一种水果。", "一种水果。", 1.0),
        ("一 种\n水果。", "一种水果。", 1.0),  # blanks do not count
        ("果水", "水果", 0.5),  # the order does
        ("", "水果", 0.0),  # a model may say nothing
        (" ", "水果", 0.0),
        ("甜的水果", "水果", 2 / 3),
    ],
)
def test_rouge_l_of_one_answer(said, right, score):
    got = metrics.load("rouge_l").compute(predictions=[said], references=[right])
    assert got["rouge_l"] == pytest.approx(score, abs=1e-12)


def test_paired_bootstrap_of_a_mean_is_the_usual_interval():
    """Counts of one column and a score that is their sum: the interval of a difference of means."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, size=(200, 1)), rng.normal(0.0, 1, size=(200, 1))
    found = paired_bootstrap(a, b, lambda counts: counts[:, 0] / 200)
    low, high = bootstrap_interval((a - b)[:, 0])
    assert found.difference == pytest.approx(float((a - b).mean()))
    assert found.interval == pytest.approx((low, high), abs=0.02)
    assert found.p_value < 0.05
    same = paired_bootstrap(a, a, lambda counts: counts[:, 0])
    assert (same.difference, same.interval, same.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_paired_bootstrap_seldom_finds_a_difference_where_none_is():
    rng = np.random.default_rng(1)
    found = [
        paired_bootstrap(
            rng.random((60, 1)), rng.random((60, 1)), lambda c: c[:, 0], num_resamples=400
        ).p_value
        < 0.05
        for _ in range(200)
    ]
    assert 0.02 <= np.mean(found) <= 0.10


def test_paired_bootstrap_refuses_different_examples():
    with pytest.raises(ValueError, match="same examples"):
        paired_bootstrap([[1.0]], [[1.0], [2.0]], bleu_of_counts)


# --- two extractors ------------------------------------------------------------------------------------


def extractors(
    n: int, miss_a: float, miss_b: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Counts of two extractors that miss whole sentences of three findings, independently of one another."""
    return tuple(
        np.column_stack([3 * kept, 3 * kept, np.full(n, 3)])
        for kept in (rng.random(n) > miss_a, rng.random(n) > miss_b)
    )


def test_the_difference_of_two_f1_is_that_of_the_sums():
    compared = compare_f1([[2, 2, 2], [1, 2, 3]], [[1, 4, 2], [0, 0, 3]])
    assert (compared.n, compared.f1_a, compared.f1_b) == (2, 2 * 3 / 9, 2 * 1 / 9)
    assert compared.difference == pytest.approx(compared.f1_a - compared.f1_b)
    assert compared.interval[0] <= compared.difference <= compared.interval[1]
    same = compare_f1([[1, 1, 2]] * 5, [[1, 1, 2]] * 5)
    assert (same.difference, same.interval, same.p_value) == (0, (0, 0), 1)


def test_two_extractors_that_are_equally_good_seldom_look_different():
    rng = np.random.default_rng(0)
    p_values = [
        compare_f1(*extractors(150, 0.2, 0.2, rng), num_resamples=300, seed=i).p_value for i in range(150)
    ]
    assert 0.01 < np.mean(np.array(p_values) < 0.05) < 0.11  # 5 % is meant
    assert compare_f1(*extractors(150, 0.1, 0.3, rng)).p_value < 0.01


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], [], "one row of three"),
        ([[1, 1, 1]], [[1, 1, 1]] * 2, "one row of three"),
        ([[1, 1, 2]], [[1, 1, 3]], "sentence 0: A was judged on 2 things to find and B on 3"),
        ([[0, 1, 0]], [[0, 0, 0]], "nothing to find"),
    ],
)
def test_counts_that_cannot_be_compared_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        compare_f1(a, b)


# --- loading -------------------------------------------------------------------------------------------

LOAD_ALL = """
from sft import metrics
for name in metrics.available():
    module = metrics.load(name)
    assert module.keep_in_memory
print(metrics.load("accuracy").compute(predictions=[1, 0], references=[1, 1])["accuracy"])
"""


def start_offline(folder: Path, **variables: str) -> subprocess.Popen:
    """A process that loads every metric with the network switched off."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | offline | variables
    return subprocess.Popen(
        [sys.executable, "-c", LOAD_ALL],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_metrics_load_offline_in_two_processes_at_once(tmp_path):
    processes = [start_offline(tmp_path) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out.strip()) == (0, "0.5"), err


@pytest.mark.slow
def test_metrics_load_where_the_modules_cache_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()  # nobody, not even root, makes a folder below a file
    process = start_offline(tmp_path, HF_MODULES_CACHE=str(blocked / "modules"))
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out.strip()) == (0, "0.5"), err


def test_an_unknown_metric_names_the_known_ones():
    with pytest.raises(
        ValueError, match=r"no metric called 'meteor'.*accuracy, bleu, calibration_error, chrf, entity_f1, f1"
    ):
        metrics.load("meteor")


# --- bootstrap -----------------------------------------------------------------------------------------


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    values = np.random.default_rng(0).normal(3, 2, size=2000)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_bootstrap_is_seeded_narrows_with_confidence_and_takes_other_statistics():
    values = np.random.default_rng(0).exponential(size=400)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    narrow, wide = bootstrap_interval(values, confidence=0.5), bootstrap_interval(values)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    low, high = bootstrap_interval(values, np.median)
    assert low < np.median(values) < high
    assert bootstrap_interval([1, 1, 1]) == (1, 1)


def test_bootstrap_in_parts_covers_every_resample(monkeypatch):
    values = np.random.default_rng(0).normal(size=50)
    whole = bootstrap_interval(values, num_resamples=4001)
    monkeypatch.setattr("sft.metrics.significance._CHUNK", 50 * 100)
    seen = []

    def mean(samples, axis):
        seen.append(len(samples))
        return samples.mean(axis=axis)

    assert bootstrap_interval(values, mean, num_resamples=4001) == pytest.approx(whole)
    assert sum(seen) == 4001
    assert max(seen) == 100


def test_bootstrap_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    runs = (rng.random((400, 200)) < 0.8).astype(float)
    intervals = [bootstrap_interval(run, num_resamples=1000, seed=i) for i, run in enumerate(runs)]
    covered = np.mean([low <= 0.8 <= high for low, high in intervals])
    assert 0.91 <= covered <= 0.98


def test_macro_f1_bootstrap_equals_a_bootstrap_with_scikit_learn():
    references, predictions = some_labels(classes=3, n=120)
    low, high = bootstrap_macro_f1_interval(predictions, references)
    rng = np.random.default_rng(1)
    true, predicted = np.array(references), np.array(predictions)
    scores = []
    for _ in range(600):
        chosen = rng.integers(120, size=120)
        scores.append(f1_score(true[chosen], predicted[chosen], average="macro"))
    assert (low, high) == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])), abs=0.02)


def test_macro_f1_bootstrap_covers_the_truth_as_often_as_it_says():
    cells = np.array([[0.55, 0.10], [0.10, 0.25]])  # rows: references
    truth = np.mean([2 * cells[k, k] / (cells[k].sum() + cells[:, k].sum()) for k in range(2)])
    rng = np.random.default_rng(0)
    covered = 0
    for run in range(400):
        drawn = rng.choice(4, p=cells.ravel(), size=300)
        low, high = bootstrap_macro_f1_interval(drawn % 2, drawn // 2, num_resamples=1000, seed=run)
        covered += low <= truth <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_macro_f1_bootstrap_of_a_rare_class_and_of_a_single_one():
    low, high = bootstrap_macro_f1_interval([0] * 50 + [1], [0] * 50 + [1])
    assert (low, high) == (1, 1)  # a resample without the rare class does not count it as zero
    assert bootstrap_macro_f1_interval([7, 7], [7, 7]) == (1, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), "at least one example"),
        (lambda: share_interval([0.5]), "expected 1"),
        (lambda: compare_runs([[1, 0]], [[1, 0, 1]]), "same examples"),
        (lambda: compare_runs([[1, 0.5]], [[1, 0]]), "expected 1"),
        (lambda: bootstrap_interval([[1, 2]]), "shape"),
        (lambda: bootstrap_interval([1, math.nan]), r"per_example\[1\] is nan"),
        (lambda: bootstrap_interval([1, 2], confidence=95), "between 0 and 1"),
        (lambda: bootstrap_interval([1, 2], num_resamples=0), "num_resamples"),
        (lambda: bootstrap_interval([1, 2], lambda x, axis: 1.0), "one value a resample"),
        (lambda: bootstrap_macro_f1_interval([], []), "at least one example"),
        (lambda: bootstrap_macro_f1_interval([1], [1, 0]), "they must be pairs"),
        (lambda: bootstrap_macro_f1_interval([0.5], [1]), "whole numbers; found 0.5"),
        (lambda: bootstrap_macro_f1_interval([1], [math.nan]), r"references\[0\] is nan"),
        (lambda: mcnemar([], []), "at least one example"),
        (lambda: mcnemar([1, 0], [1]), "must be the same ones"),
        (lambda: mcnemar([1, 2], [1, 0]), r"correct_a\[1\] is 2.0"),
        (lambda: mcnemar([1, 0], [math.nan, 0]), r"correct_b\[0\] is nan"),
        (lambda: mcnemar([1, 0], [1, 0], confidence=1), "between 0 and 1"),
    ],
)
def test_bad_input_to_the_statistics_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- an exact interval, and two ways of training --------------------------------------------------------


def test_the_interval_of_a_share_is_exact_where_all_or_none_are_right():
    # all of n right: the true share p with p**n = 0.025
    assert share_interval([1] * 48) == pytest.approx((0.025 ** (1 / 48), 1))
    assert share_interval([0] * 48) == pytest.approx((0, 1 - 0.025 ** (1 / 48)))
    low, high = share_interval([1] * 30 + [0] * 10)
    assert sum(math.comb(40, k) * low**k * (1 - low) ** (40 - k) for k in range(30, 41)) == pytest.approx(
        0.025
    )
    assert sum(math.comb(40, k) * high**k * (1 - high) ** (40 - k) for k in range(31)) == pytest.approx(0.025)


def test_the_interval_of_a_share_covers_the_truth_at_least_as_often_as_it_says():
    runs = np.random.default_rng(0).random((400, 30)) < 0.97
    intervals = [share_interval(run) for run in runs]
    assert np.mean([low <= 0.97 <= high for low, high in intervals]) >= 0.95


def test_two_ways_run_once_differ_as_a_bootstrap_of_their_difference_says():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 1, 300)) < [[[0.8]], [[0.7]]]
    gap, interval = compare_runs(a, b)
    assert gap == pytest.approx(a.mean() - b.mean())
    assert interval == pytest.approx(bootstrap_interval(a[0].astype(float) - b[0]), abs=0.01)


def test_seeds_that_disagree_widen_the_interval():
    def way(*shares):
        return [np.arange(300) < 300 * share for share in shares]

    steady, other = way(0.75, 0.75, 0.75), way(0.70)
    _, narrow = compare_runs(steady, other)
    _, wide = compare_runs(way(0.65, 0.75, 0.85), other)
    assert narrow[0] > 0 > wide[0]  # the same mean; only one of the two may be called higher
    assert compare_runs(steady, other, seed=1) == compare_runs(steady, other, seed=1)


# --- McNemar -------------------------------------------------------------------------------------------


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return a, b


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 0), (3, 9), (12, 12), (40, 22)])
def test_mcnemar_equals_the_binomial_formula(only_a, only_b):
    result = mcnemar(*outcomes(30, only_a, only_b, 10))
    m = only_a + only_b
    tail = sum(math.comb(m, k) for k in range(min(only_a, only_b) + 1)) / 2**m
    assert result.p_value == pytest.approx(min(1.0, 2 * tail))
    assert (result.n, result.only_a, result.only_b) == (40 + m, only_a, only_b)
    assert result.difference == pytest.approx((only_a - only_b) / (40 + m))
    assert result.interval[0] <= result.difference <= result.interval[1]


def test_mcnemar_changes_sign_with_the_order_and_ignores_what_both_get():
    a, b = outcomes(70, 20, 5, 5)
    forth, back = mcnemar(a, b), mcnemar(b, a)
    assert forth.p_value == back.p_value
    assert forth.difference == -back.difference
    assert forth.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert mcnemar(*outcomes(5, 20, 5, 70)).p_value == forth.p_value


def test_mcnemar_keeps_its_level_and_its_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    false_alarms, covered = 0, 0
    for table in rng.multinomial(200, [0.7, 0.1, 0.1, 0.1], size=600):
        false_alarms += mcnemar(*outcomes(*table)).p_value < 0.05
    for table in rng.multinomial(200, [0.7, 0.14, 0.06, 0.1], size=600):
        low, high = mcnemar(*outcomes(*table)).interval
        covered += low <= 0.08 <= high
    assert false_alarms / 600 <= 0.06  # the exact test is conservative
    assert 0.93 <= covered / 600 <= 0.98


# --- answers to questions ------------------------------------------------------------------------------


def plain_answer_f1(guess: str, truth: str) -> float:
    """F1 over characters by crossing them out one after the other."""
    left, common = list(truth), 0
    for character in guess:
        if character in left:
            left.remove(character)
            common += 1
    return 2 * common / (len(guess) + len(truth))


def test_span_answers_equal_plain_counting(span_answers):
    rng = np.random.default_rng(0)
    guesses, truths = (
        ["".join(rng.choice(list("法国外长"), size=rng.integers(1, 5))) for _ in range(100)] for _ in "ab"
    )
    got = span_answers.compute(predictions=guesses, references=[[truth] for truth in truths])
    assert got["exact_match"] == np.mean([a == b for a, b in zip(guesses, truths, strict=True)])
    assert got["f1"] == pytest.approx(np.mean(list(map(plain_answer_f1, guesses, truths))))
    assert got["answered"]["n"] == 100 and got["unanswerable"] is None


@pytest.mark.parametrize(
    ("guess", "truths", "exact", "f1"),
    [
        ("", [""], 1, 1),
        ("", [], 1, 1),
        ("法国", [""], 0, 0),
        ("", ["法国"], 0, 0),
        ("ＷＴＯ 总部。", ["wto总部"], 1, 1),
        ("外长韦德里纳", ["希拉克", "韦德里纳"], 0, 0.8),
    ],
)
def test_span_answers_of_one_question(span_answers, guess, truths, exact, f1):
    got = span_answers.compute(predictions=[guess], references=[truths])
    assert (got["exact_match"], got["f1"]) == (exact, pytest.approx(f1))
    assert (got["unanswerable"] is None) == bool(truths and truths[0])


def test_span_answers_want_a_question(span_answers):
    with pytest.raises(ValueError, match="at least one question"):
        span_answers.compute(predictions=[], references=[])
