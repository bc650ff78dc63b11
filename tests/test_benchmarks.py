"""The measures that the benchmarks compute themselves, by hand."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset

from benchmarks import classifiers, mini_bert, replacement, soak, verdict_tables, verdicts
from harness.judge.statistics import paired_bootstrap
from recipes.teacher import PREFIX, load_teacher
from tests.recipes import tiny_teacher


def test_nearer_counts_a_tie_as_half():
    first, near, far = [1.0, 0.0], [0.8, 0.6], [0.0, 1.0]
    triples = np.array([first, near, far, first, far, near, first, near, near])
    assert mini_bert._nearer(triples) == pytest.approx(0.5)  # right, wrong, tie


def test_recall_shares_places_among_ties():
    scores = np.array([[3.0, 1.0, 2.0], [5.0, 4.0, 4.0], [0.0, 0.0, 0.0]])
    # row 0: first; row 1: second or third; row 2: one of three
    assert mini_bert._recall(scores, 1) == pytest.approx((1 + 0 + 1 / 3) / 3)
    assert mini_bert._recall(scores, 2) == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)


def test_bm25_by_hand():
    scores = mini_bert._bm25(["甲", "丙"], ["甲乙", "乙乙"])
    idf = np.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    assert scores[0] == pytest.approx([idf * 2.2 / 2.2, 0.0])
    assert scores[1] == pytest.approx([0.0, 0.0])


def test_gain_counts_significant_seeds():
    def run(bits):
        return {"accuracy": float(np.mean(bits)), "correct": np.packbits(bits).tobytes().hex()}

    good, bad = run([1] * 16), run([0] * 16)
    assert mini_bert._gain({0: good, 1: good}, {0: bad, 1: bad}) == "+100.0 ± 0.0（2/2）"
    assert mini_bert._gain({0: good}, {0: good}) == "+0.0（0/1）"
    assert mini_bert._gain({0: good, 3: bad, 4: good}, {3: bad}) == "+0.0（0/1）"  # only seeds of both
    assert mini_bert._gain({0: good}, {1: good}) == "–"


def test_the_card_keeps_what_is_outside_its_marks(tmp_path):
    card = tmp_path / "README.md"
    card.write_text(f"前\n{mini_bert.MARKS[0]}\n旧\n{mini_bert.MARKS[1]}\n后\n", encoding="utf-8")
    mini_bert.write_card(card, "新")
    text = card.read_text(encoding="utf-8")
    assert "旧" not in text and text.startswith("前\n") and text.endswith("后\n") and "\n新\n" in text
    card.write_text("没有记号", encoding="utf-8")
    with pytest.raises(SystemExit, match="lacks the marks"):
        mini_bert.write_card(card, "新")


# -- verdicts ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_simulated_verdicts_are_those_of_the_harness(monkeypatch):
    """`simulate` asks harness.judge.rules about every cell and ends if it disagrees; so it does here, by intent."""
    cells = list(verdicts.simulate(verdicts.CHECKED, seed=1))
    assert {name for name, *_ in cells} == set(verdicts.RULES)
    monkeypatch.setattr(verdicts, "_t", lambda degrees, p: 1.0)
    with pytest.raises(SystemExit, match=r"harness.judge.rules says"):
        list(verdicts.simulate(verdicts.CHECKED, seed=1))


def test_the_chance_of_a_bootstrap_mean_by_listing_every_resample():
    values = [1, 1, -1, 0]
    means = [sum(chosen) for chosen in itertools.product(values, repeat=4)]
    worse, better = np.mean([m <= 0 for m in means]), np.mean([m >= 0 for m in means])
    found = verdicts.beyond_zero(4, np.array([2, 1, 0, 4]), np.array([1, 2, 0, 0]))
    assert found == pytest.approx([worse, better, 1.0, 0.0])


def test_bootstrap_intervals_of_many_draws_are_those_of_the_harness():
    values = np.random.default_rng(3).normal(0.1, 1, size=(3, 100))
    low, high = verdicts._intervals(verdicts.resample_weights(100), values)
    for row, a, b in zip(values, low, high, strict=True):
        assert paired_bootstrap(row.tolist(), seed=0).interval == pytest.approx((a, b), abs=1e-5)


def test_only_errors_beyond_chance_are_named():
    def rates(fail):
        return {"prediction interval, 1 new": {"normal": {"1": [[0.9, fail]] * 5}}}

    assert verdicts.above_nominal(rates(0.056), {}, 10_000, 10_000) == []
    (line,) = verdicts.above_nominal(rates(0.058), {}, 10_000, 10_000)
    assert line.endswith("false fails without a difference 5.8 %")


def test_the_page_on_verdicts_holds_what_was_measured():
    """After a new measurement: python -m benchmarks.verdict_tables."""
    report = json.loads(verdict_tables.RESULTS.read_text(encoding="utf-8"))
    page = verdict_tables.PAGE.read_text(encoding="utf-8")
    assert verdict_tables.fill(page, report) == page
    prediction = report["pass_and_fail"]["prediction interval, 1 new"]["normal"]["2"]
    passed, failed = prediction[0]
    assert f"| 1 次 | 2 | {100 * passed:.1f} / {100 * failed:.1f} |" in page
    assert verdicts.MARGIN_RIGHT == 0.02 and "容差是两个百分点的准确率" in page
    assert verdicts.MARGIN_NUMBERS == 0.1 and "十分之一个标准差" in page


def test_a_new_number_reaches_the_page():
    report = json.loads(verdict_tables.RESULTS.read_text(encoding="utf-8"))
    page = verdict_tables.PAGE.read_text(encoding="utf-8")
    report["false_fails_given_the_blessed_runs"]["50%"] = 0.123
    changed = verdict_tables.fill(page, report)
    assert "中位数 12.3%" in changed and "中位数 12.3%" not in page
    with pytest.raises(SystemExit, match="the page has the blocks"):
        verdict_tables.fill(page.replace("<!-- rates: tost -->", ""), report)


def test_every_label_of_the_results_has_chinese_words():
    report = json.loads(verdict_tables.RESULTS.read_text(encoding="utf-8"))
    text = "".join(line for block in verdict_tables.BLOCKS.values() for line in block(report))
    names = re.findall(r"[A-Za-z]{2,}", text)
    assert set(names) <= {"TOST", "McNemar", "NumPy", "SciPy"}


# -- soak -------------------------------------------------------------------------------------------


def test_a_trial_is_drawn_again_by_its_number_and_kinds_take_turns():
    numbers = range(4 * len(soak.KINDS))
    trials = [soak.draw(number, 0, 60) for number in numbers]
    assert trials == [soak.draw(number, 0, 60) for number in numbers]
    assert Counter(trial.kind for trial in trials) == dict.fromkeys(soak.KINDS, 4)
    assert trials != [soak.draw(number, 1, 60) for number in numbers]


def _soaked(tmp_path, kind="kernel", job="a", state="completed", witness="", kept="", told=()):
    """What the soak test says of one job."""
    trial = soak.Trial(0, kind, 1, 0.0, job)
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "witness.jsonl").write_text(witness)
    (folder / "metrics.jsonl").write_text(kept)
    cells = [{"index": i, "id": str(i), "state": "completed"} for i in range(4)]
    outputs = [{"text": ["done 0\n"]}]
    document = {"cells": [{"id": str(i), "outputs": outputs if i == 2 else []} for i in range(4)]}
    (folder / "out.ipynb").write_text(json.dumps(document))
    result = {"state": state, "reason": "", "metrics": list(told), "cells": cells}
    soak.look_at_job(trial, folder, result)
    return trial.violations


METRIC, END = '{"name": "x", "value": 1}\n', '{"end": true}\n'


def test_the_soak_test_is_content_with_the_truth(tmp_path):
    assert _soaked(tmp_path, witness=METRIC + END, kept=METRIC, told=[{"name": "x", "value": 1}]) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"witness": METRIC + END}, "not in metrics.jsonl"),
        ({"witness": METRIC + END, "kept": METRIC}, "not in result.json"),
        ({"witness": METRIC, "kept": METRIC, "told": [{"name": "x", "value": 1}]}, "did not end"),
        ({"witness": "", "state": "invalid"}, "a: invalid"),
        ({"witness": "", "state": "dead", "job": "b"}, "a: dead"),
        ({"witness": END, "state": "cancelled"}, "a: cancelled"),
        ({"witness": END, "kept": '{"name'}, "not JSON"),
    ],
)
def test_the_soak_test_notices(tmp_path, facts, words):
    assert any(words in violation for violation in _soaked(tmp_path, **facts))


# -- classifiers ----------------------------------------------------------------------------------------


def test_no_training_row_nearly_repeats_a_test_row():
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("甲乙丙丁戊己庚辛"), size=40)) for _ in range(300)]
    texts += [text + "！" for text in texts] + ["完" + text[:30] for text in texts]  # equal, and nearly so
    file = classifiers.File(texts, [i % 2 for i in range(900)], ["a", "b"])
    small, large = (classifiers.draw(file, size, seed=1, test_rows=100) for size in (20, 60))
    assert (len(small.train), len(large.train), len(large.test)) == (20, 60, 100)
    assert small.test["text"][:] == large.test["text"][:]
    assert small.train["text"][:] == large.train["text"][:20]
    runs = {text[i : i + 24] for text in large.test["text"] for i in range(len(text) - 23)}
    assert not any(text[i : i + 24] in runs for text in large.train["text"] for i in range(len(text) - 23))


def test_targets_of_the_recipes_count_cells():
    def run(right: int) -> dict:
        bits = np.arange(200) < right
        return {"accuracy": right / 200, "test": 200, "correct": np.packbits(bits).tobytes().hex()}

    results = {
        "x/200/0/tfidf": run(150), "x/200/0/frozen": run(160), "x/200/0/chosen": run(159),
        "x/500/0/tfidf": run(170), "x/500/0/frozen": run(160), "x/500/0/chosen": run(167),
    }  # fmt: skip
    told = classifiers.summarise(results).splitlines()
    assert told[-1] == (
        "chosen: of 2 cells, 1 no more than a point below the better of TF-IDF and frozen; against TF-IDF 1 better "
        "and 0 worse with p < 0.05"
    )
    assert told[2] == "| x | 200 | 0.750 | 0.800 | 0.795 (+0.004) |"


def test_a_recipe_is_named_by_what_it_changes():
    train = Dataset.from_dict({"text": ["一二三"] * 50, "label": [0, 1] * 25})
    plain = classifiers.recipe_of("plain", train, 2, seed=3)
    assert (plain.head_start, plain.lr, plain.seed) == ("random", 1e-4, 3)
    assert classifiers.recipe_of("plain:lr=1e-3,num_epochs=9", train, 2, seed=3) == replace(
        plain, lr=1e-3, num_epochs=9
    )


# -- replacement ------------------------------------------------------------------------------------


def test_all_layers_with_fewer_pieces_say_what_the_teacher_says(tmp_path):
    tiny_teacher.write(tmp_path / "tiny.bin")
    teacher = load_teacher(tmp_path / "tiny.bin")
    kept = replacement.chinese_pieces(teacher.tokenizer, ["房间很好，房间干净", "很好"])
    assert 10 < len(kept) < len(tiny_teacher.PIECES)
    tokenizer = replacement.cut_tokenizer(teacher.tokenizer, kept)
    model = replacement.take_layers(teacher.model, kept, (1, 2, 3))
    text = "房间很好"
    with torch.inference_mode():
        ours = model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False))
        theirs = teacher.model(
            **teacher.tokenizer(PREFIX + text, return_tensors="pt", return_token_type_ids=False)
        )
        fewer = replacement.take_layers(teacher.model, kept, (1, 3))(**tokenizer(text, return_tensors="pt"))
    torch.testing.assert_close(ours.last_hidden_state, theirs.last_hidden_state)
    assert not torch.allclose(ours.last_hidden_state, fewer.last_hidden_state)


def _replacement(gains, seconds=1.0, megabytes=20.0):
    """Results in which the candidate is right where mini-bert is wrong, or the other way round."""
    right, wrong = np.ones(800, bool), np.arange(800) < 400
    results = {
        "six/megabytes": megabytes,
        "seconds": {"mini-bert": {"read": [2.0]}, "six": {"read": [2.0 * seconds]}},
    }
    for task in ("reviews-100", "news-300", "similarity", "dictionary"):
        better = right if task in gains else wrong
        for name, rows in (("six", better), ("mini-bert", wrong)):
            results[f"{name}/{task}/0"] = replacement._outcome([rows], 0.0)
    found = np.tile(np.array([[1, 1, 1], [0, 1, 1]], np.uint8), (50, 1))
    for name, rows in (("mini-bert", found), ("six", np.ones_like(found) if "entities" in gains else found)):
        results[f"{name}/entities/0"] = {"score": 0.5, "counts": rows.tobytes().hex()}
    return results


@pytest.mark.slow
def test_the_rule_wants_four_of_five_in_time_and_size():
    four = ("reviews-100", "news-300", "entities", "dictionary")
    assert replacement.verdict(_replacement(four), "six").endswith("replace mini-bert")
    for results in (
        _replacement(four[1:]),
        _replacement(four, seconds=1.6),
        _replacement(four, megabytes=26.0),
    ):
        assert replacement.verdict(results, "six").endswith("keep mini-bert")
    partly = _replacement(four)
    del partly["six/entities/0"]
    assert replacement.verdict(partly, "six").endswith("undecided")
    del partly["six/similarity/0"], partly["six/dictionary/0"], partly["six/reviews-100/0"]
    assert replacement.verdict(partly, "six").endswith("undecided")
    worse = _replacement(four)
    worse["six/reviews-1000/0"] = replacement._outcome([np.arange(800) < 300], 0.0)
    worse["mini-bert/reviews-1000/0"] = replacement._outcome([np.arange(800) < 400], 0.0)
    assert "loses reviews;" in replacement.verdict(worse, "six")
