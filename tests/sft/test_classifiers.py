"""Settings by the number of rows, fine-tuning on anyone's rows, baselines, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    pipeline,
)

from recipes.tokenizer import build_char_tokenizer
from sft import classifiers
from sft.classifiers import Recipe, choose_recipe, compare, fit_tfidf, predict_probabilities, tune

NAMES = ["差", "好", "中"]
WORDS = ["坏又脏", "好房间", "还可以"]
RECIPE = Recipe(num_epochs=3, lr=3e-3, head_lr=3e-3, batch_size=8, max_length=16)
FAST = {"device": "cpu", "precision": "fp32", "progress": False}


def rows(n: int, seed: int = 0, classes: int = 3) -> Dataset:
    """Texts with a word that tells their class, among characters that do not."""
    rng = np.random.default_rng(seed)
    labels = [i % classes for i in range(n)]
    noise = ["".join(rng.choice(list("的了在是我有和"), size=rng.integers(1, 6))) for _ in labels]
    return Dataset.from_dict(
        {"text": [a + WORDS[y] for a, y in zip(noise, labels, strict=True)], "label": labels}
    )


def several(n: int, seed: int = 0) -> Dataset:
    """Texts with any of three words, and a label for each word that is there."""
    chosen = np.random.default_rng(seed).random((n, 3)) < 0.5
    texts = ["的" + "".join(word for word, there in zip(WORDS, row, strict=True) if there) for row in chosen]
    return Dataset.from_dict({"text": texts, "label": chosen.astype(float).tolist()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small encoder on disk with its tokenizer, as `from_pretrained` reads them."""
    torch.manual_seed(7)
    tokenizer = build_char_tokenizer(["".join(WORDS) + "的了在是我有和"] * 2)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("encoder")
    BertForSequenceClassification(config).bert.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def splits() -> DatasetDict:
    return DatasetDict(train=rows(48), validation=rows(12, seed=1))


# --- recipe ----------------------------------------------------------------------------------------------


def test_more_rows_never_mean_more_epochs_and_never_fewer_steps():
    chosen = [choose_recipe(n, 10, [60]) for n in (1, 30, 100, 200, 500, 1000, 2000, 5000, 20_000, 1_000_000)]
    epochs = [recipe.num_epochs for recipe in chosen]
    assert epochs == sorted(epochs, reverse=True)
    assert 1 <= min(epochs) <= max(epochs) <= 20
    sizes = (1, 30, 100, 200, 500, 1000, 2000, 5000, 20_000, 1_000_000)
    seen = [n * epochs for n, epochs in zip(sizes, epochs, strict=True)]
    assert seen == sorted(seen)
    assert all(1e-5 <= recipe.lr <= recipe.head_lr <= 1e-2 for recipe in chosen)


def test_longer_texts_mean_a_longer_window_within_bounds():
    windows = [choose_recipe(100, 2, [n]).max_length for n in (0, 5, 30, 31, 60, 200, 100_000)]
    assert windows == [32, 32, 32, 40, 64, 208, 256]
    mostly_short = [20] * 96 + [5000] * 4
    assert choose_recipe(100, 2, mostly_short).max_length == 32


def test_few_rows_are_learnt_with_caution():
    few, enough = (
        choose_recipe(classifiers.FEW_ROWS - 1, 2, [20]),
        choose_recipe(classifiers.FEW_ROWS, 2, [20]),
    )
    assert (few.keep, enough.keep) == ("midway", "last") and few.lr < enough.lr
    assert choose_recipe(100, 2, [20], "lora").keep == "last"


def test_the_method_decides_what_is_trained():
    assert choose_recipe(100, 2, [20], "frozen").num_epochs == 0
    assert choose_recipe(100, 2, [20], "lora").lr > choose_recipe(100, 2, [20]).lr
    with pytest.raises(ValueError, match="method 'half': use full, frozen, lora"):
        choose_recipe(100, 2, [20], "half")
    with pytest.raises(ValueError, match="0 training rows"):
        choose_recipe(0, 2, [20])


def test_cost_grows_with_rows_and_epochs(folder):
    recipe = replace(RECIPE, max_length=32, head_start="random")
    cost = classifiers.estimate_cost(recipe, 1000, [30], "cpu", model=str(folder))
    assert cost > 0
    longer = replace(recipe, num_epochs=300)
    assert classifiers.estimate_cost(longer, 1000, [30], "cpu", model=str(folder)) > 5 * cost
    assert classifiers.estimate_cost(recipe, 100_000, [30], "cpu", model=str(folder)) > 5 * cost


# --- tuning ----------------------------------------------------------------------------------------------


def test_training_starts_at_the_frozen_solution_and_gets_better(folder, splits):
    texts = splits["validation"]["text"]
    frozen = tune(
        {"train": splits["train"]},
        NAMES,
        model=str(folder),
        recipe=replace(RECIPE, method="frozen", num_epochs=0),
        **FAST,
    )
    start = tune(splits, NAMES, model=str(folder), recipe=replace(RECIPE, num_epochs=0), **FAST)
    at_start = predict_probabilities(start.model, start.tokenizer, texts, max_length=16)
    assert np.array_equal(
        at_start, predict_probabilities(frozen.model, frozen.tokenizer, texts, max_length=16)
    )
    truth = np.array(splits["validation"]["label"])
    assert start.start.validation_loss == pytest.approx(-np.log(at_start[range(12), truth]).mean(), abs=1e-5)
    assert (start.history, start.kept_epoch, start.stopped_early) == ((), 0, False)

    tuned = tune(splits, NAMES, model=str(folder), recipe=RECIPE, **FAST)
    assert tuned.start == replace(start.start, seconds=tuned.start.seconds)
    assert tuned.history[-1].validation_loss < 0.7 * start.start.validation_loss
    assert [epoch.number for epoch in tuned.history] == [1, 2, 3]
    assert all(epoch.seconds > 0 and epoch.train_loss > 0 for epoch in tuned.history)
    assert (
        classifiers.is_right(predict_probabilities(tuned.model, tuned.tokenizer, texts, max_length=16), truth)
    ).all()


def test_the_output_layer_is_the_logistic_regression():
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(60, 5)).astype(np.float32)
    features = 3 + 0.01 * spread  # as of an encoder whose vectors lie close
    labels = (features[:, 0] > 3).astype(int) + (features[:, 1] > 3)
    weight, bias = classifiers.fit_output_layer(features, labels, 4, "single_label")
    logits = features @ weight.T + bias
    assert (logits.argmax(-1) == labels).mean() > 0.8
    assert (logits.argmax(-1) != 3).all()  # a class without rows
    weight, bias = classifiers.fit_output_layer(features, labels // 2, 2, "single_label")
    assert np.allclose(weight[0], -weight[1])
    assert (((features @ weight.T + bias).argmax(-1) == labels // 2).mean()) > 0.8


def test_a_resumed_run_ends_as_an_uninterrupted_one(folder, splits, tmp_path, monkeypatch):
    recipe = replace(RECIPE, dropout=0.1)
    run = lambda **more: tune(splits, NAMES, model=str(folder), recipe=recipe, **FAST, **more)  # noqa: E731
    whole = run()
    kept = tmp_path / "run.pt"
    train_step, steps = classifiers.train_step, []

    def interrupted(*arguments):
        steps.append(1)
        if len(steps) > 8:  # six steps an epoch: in the second
            raise KeyboardInterrupt
        return train_step(*arguments)

    monkeypatch.setattr("sft.training.train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=kept)
    monkeypatch.undo()
    again = run(checkpoint=kept)
    ours, theirs = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [e.train_loss for e in whole.history] == [e.train_loss for e in again.history]
    changed = splits["train"].select(range(1, 48)).map(lambda row: row)
    with pytest.raises(ValueError, match="belongs to other settings or data"):
        tune({"train": changed}, NAMES, model=str(folder), recipe=recipe, checkpoint=kept, **FAST)


def test_the_best_epoch_may_be_none_at_all(folder, splits):
    wrong = splits["train"].map(
        lambda row: {"label": (row["label"] + 1) % 3}
    )  # the more is learnt, the worse
    data = {"train": splits["train"], "validation": wrong}
    recipe = replace(RECIPE, num_epochs=5, keep="best", patience=1)
    tuned = tune(data, NAMES, model=str(folder), recipe=recipe, **FAST)
    assert (tuned.kept_epoch, tuned.stopped_early, len(tuned.history)) == (0, True, 2)
    start = tune(splits, NAMES, model=str(folder), recipe=replace(RECIPE, num_epochs=0), **FAST)
    ours, theirs = tuned.model.state_dict(), start.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_midway_is_the_mean_of_start_and_last_epoch_unless_the_last_is_better(folder, splits):
    def run(data, **change):
        tuned = tune(data, NAMES, model=str(folder), recipe=replace(RECIPE, **change), **FAST)
        return tuned.model.state_dict(), tuned.midway

    train = {"train": splits["train"]}
    wrong = splits["train"].map(
        lambda row: {"label": (row["label"] + 1) % 3}
    )  # the more is learnt, the worse
    start, _ = run(train, num_epochs=0)
    last, _ = run(train)
    assert any(not torch.equal(start[name], last[name]) for name in last)
    for data in (train, train | {"validation": wrong}):
        mean, midway = run(data, keep="midway")
        assert midway
        assert all(torch.allclose(mean[name], (start[name] + last[name]) / 2, atol=1e-6) for name in last)
    kept, midway = run(train | {"validation": splits["train"]}, keep="midway")
    assert not midway and all(torch.equal(kept[name], last[name]) for name in last)


def test_lora_leaves_a_plain_model(folder, splits, tmp_path):
    recipe = replace(RECIPE, method="lora", lr=2e-2, head_lr=2e-2)
    tuned = tune(splits, NAMES, model=str(folder), recipe=recipe, **FAST)
    assert type(tuned.model) is BertForSequenceClassification
    before = tune(splits, NAMES, model=str(folder), recipe=replace(RECIPE, num_epochs=0), **FAST).model
    changed = {
        name
        for name, value in tuned.model.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    }
    assert changed == {
        *(
            f"bert.encoder.layer.{i}.attention.self.{part}.weight"
            for i in (0, 1)
            for part in ("query", "value")
        ),
        "classifier.weight",
        "classifier.bias",
    }


def test_any_loader_gives_the_same_predictions(folder, splits, tmp_path):
    tuned = tune(splits, NAMES, model=str(folder), recipe=RECIPE, **FAST)
    tuned.model.save_pretrained(tmp_path)
    tuned.tokenizer.save_pretrained(tmp_path)
    texts = splits["validation"]["text"][:]
    here = predict_probabilities(tuned.model, tuned.tokenizer, texts, max_length=16, batch_size=5)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    there = predict_probabilities(loaded, AutoTokenizer.from_pretrained(tmp_path), texts, max_length=16)
    assert np.allclose(here, there, atol=1e-6)
    answers = pipeline("text-classification", str(tmp_path), device="cpu", top_k=None)(texts)
    scores = [[{one["label"]: one["score"] for one in answer}[name] for name in NAMES] for answer in answers]
    assert np.allclose(here, scores, atol=1e-5)
    assert loaded.config.hidden_dropout_prob == 0.1  # training went without, the next one shall not unasked


def test_no_window_is_longer_than_the_model(folder):
    train = rows(12).map(lambda row: {"text": row["text"] * 60})
    recipe = replace(RECIPE, num_epochs=1, max_length=200)
    tuned = tune({"train": train}, NAMES, model=str(folder), recipe=recipe, **FAST)
    assert tuned.recipe == replace(recipe, max_length=64)


def test_several_labels_to_a_text(folder, tmp_path):
    data = DatasetDict(train=several(48), validation=several(24, seed=1))
    recipe = replace(RECIPE, num_epochs=8)
    tuned = tune(data, NAMES, kind="multi_label", model=str(folder), recipe=recipe, **FAST)
    truth = np.array(data["validation"]["label"])
    probabilities = predict_probabilities(
        tuned.model, tuned.tokenizer, data["validation"]["text"], max_length=16
    )
    assert not np.allclose(probabilities.sum(axis=1), 1)
    assert ((probabilities > 0.5) == truth).mean() > 0.9
    assert tuned.history[-1].validation_accuracy == classifiers.is_right(probabilities, truth).mean()
    tuned.model.save_pretrained(tmp_path)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path).config.problem_type == (
        "multi_label_classification"
    )
    baseline = fit_tfidf(data["train"], 3, kind="multi_label")(data["validation"]["text"])
    assert ((baseline > 0.5) == truth).mean() > 0.9


def test_class_weights_raise_the_rare_class(folder):
    train = rows(60).filter(lambda row, i: row["label"] == 0 or i < 12, with_indices=True)
    texts = ["的在是"] * 1  # says nothing of its class
    recipe = replace(RECIPE, num_epochs=1)
    plain, weighted = (
        predict_probabilities(one.model, one.tokenizer, texts, max_length=16)[0]
        for one in (
            tune({"train": train}, NAMES, model=str(folder), recipe=recipe, class_weights=on, **FAST)
            for on in (False, True)
        )
    )
    assert weighted[1:].sum() > plain[1:].sum() + 0.1
    plain, weighted = (fit_tfidf(train, 3, class_weights=on)(texts)[0] for on in (False, True))
    assert weighted[1:].sum() > plain[1:].sum() + 0.05


def test_a_head_of_several_layers(tmp_path, folder, splits):
    torch.manual_seed(3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=66, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    RobertaForSequenceClassification(config).roberta.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    tuned = tune(splits, NAMES, model=str(tmp_path), recipe=RECIPE, **FAST)
    assert tuned.start.validation_loss < np.log(3) > tuned.history[-1].validation_loss


def test_rows_that_make_no_classifier_end_in_one_line(folder):
    def said(data: Dataset, names=NAMES, kind="single_label") -> str:
        with pytest.raises(ValueError) as caught:
            tune({"train": data}, names, kind=kind, model=str(folder), recipe=RECIPE, **FAST)
        with pytest.raises(ValueError) as same:
            fit_tfidf(data, len(names), kind=kind)
        assert "\n" not in str(caught.value) + str(same.value)
        return str(caught.value)

    assert "no rows" in said(rows(0))
    assert "all 8 rows of split train are labelled 差" in said(rows(8, classes=1))
    assert "numbers from 0 to 1" in said(rows(9), names=NAMES[:2])
    same = several(8).map(lambda row: {"label": [1.0, 0.0, 1.0]})
    assert "every row of split train has the same labels" in said(same, kind="multi_label")
    assert "do not fit 2 label names" in said(several(8), names=NAMES[:2], kind="multi_label")
    with pytest.raises(ValueError, match="every text of split train is empty"):
        fit_tfidf(Dataset.from_dict({"text": ["", ""], "label": [0, 1]}), 2)


# --- baselines and what is said --------------------------------------------------------------------------


def test_tfidf_is_chapter_fives_for_two_classes():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    train, test = rows(40, classes=2), rows(20, seed=1, classes=2)["text"]
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True)
    model = LogisticRegression(C=10, solver="liblinear").fit(
        vectorizer.fit_transform(train["text"]), train["label"]
    )
    expected = model.predict_proba(vectorizer.transform(test))
    assert np.allclose(fit_tfidf(train, 2)(test), expected, atol=1e-4)


def test_tfidf_of_many_classes_and_of_few_rows():
    train = rows(30)
    probabilities = fit_tfidf(train, 4)(train["text"])  # one class has no row
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(-1) == train["label"]).all()
    assert fit_tfidf(Dataset.from_dict({"text": ["好", "坏"], "label": [1, 0]}), 2)(["好"]).argmax() == 1


def test_no_texts_no_probabilities(folder, splits):
    start = tune(splits, NAMES, model=str(folder), recipe=replace(RECIPE, num_epochs=0), **FAST)
    assert predict_probabilities(start.model, start.tokenizer, [], max_length=16).shape == (0, 3)


def test_the_verdict_names_the_winner_only_where_chance_does_not_explain_it():
    right = np.ones(100, dtype=bool)
    worse = right.copy()
    worse[:20] = False
    assert compare(right, worse).winner == "tuned"
    assert compare(worse, right).winner == "tfidf"
    assert compare(right, right).winner is None
    few = right.copy()
    few[:3] = False
    told = compare(few, right)
    assert told.winner is None
    assert "100 题里，只有微调答对 0 题，只有 TF-IDF 答对 3 题" in told.words
    assert "-3.0 个百分点" in told.words
    assert "已经答对 100%" in told.words and "考题只有 100 条" in told.words
    hard = np.arange(400) < 200
    assert "已经答对" not in compare(hard, hard).words and "考题只有" not in compare(hard, hard).words
