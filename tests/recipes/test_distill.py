"""Distillation: alignment, the student's start, a run that is stopped and goes on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from recipes import distill
from recipes.distill import DistillConfig
from recipes.runs import RunError, RunFolder
from recipes.settings import parse_settings
from recipes.teacher import load_teacher
from recipes.tokenizer import build_char_tokenizer
from tests.recipes import tiny_teacher

CPU = torch.device("cpu")
TEXTS = ["房间干净，服务很好。", "电脑坏了", "我喜欢吃苹果", "书不太好", "房间太坏了，我不喜欢"] * 6
CONFIG = DistillConfig(
    layers=(1, 3), intermediate_size=None, epochs=(("reviews", 2),), tokens_per_batch=256, max_length=32
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "tiny.bin"
    tiny_teacher.write(path)
    return load_teacher(path)


@pytest.fixture(scope="module")
def tokenizer():
    return build_char_tokenizer(TEXTS, min_count=1)


@pytest.fixture(scope="module")
def corpus(teacher, tokenizer, tmp_path_factory):
    targets = distill.compute_targets(
        teacher, TEXTS, tmp_path_factory.mktemp("run") / "targets", CPU, tokens_per_batch=100
    )
    return distill.Corpus(TEXTS, ["reviews"] * len(TEXTS), targets, tokenizer, CONFIG.max_length)


@pytest.mark.parametrize(
    ("text", "limit", "pieces"),
    [
        ("好。坏！", 10, ["好。坏！"]),
        ("好的。坏的！", 3, ["好的。", "坏的！"]),
        ("没有句号的长句子", 3, ["没有句", "号的长", "句子"]),
        ("", 5, []),
        ("！！！好", 2, ["！！", "！好"]),
    ],
)
def test_split_text_loses_nothing_and_keeps_the_limit(text, limit, pieces):
    assert distill.split_text(text, limit) == pieces


def test_split_text_on_random_texts():
    rng = np.random.default_rng(0)
    for _ in range(300):
        text = "".join(rng.choice(list("好坏。！a "), rng.integers(0, 60)))
        limit = int(rng.integers(1, 20))
        pieces = distill.split_text(text, limit)
        assert "".join(pieces) == text and all(0 < len(piece) <= limit for piece in pieces)


def test_align_by_hand():
    # prefix (negative), 房间 (0–2), 好 (2–3), </s> (empty); tokens [CLS] 房 间 好 [SEP]
    pieces = np.array([(0, 0), (-7, -1), (0, 2), (2, 3), (0, 0)])
    tokens = np.array([(0, 0), (0, 1), (1, 2), (2, 3), (0, 0)])
    assert distill.align(pieces, tokens).tolist() == [-1, 2, 2, 3, -1]


def test_targets_are_what_the_teacher_says_of_each_text_alone(teacher, corpus):
    targets = corpus.targets
    for i in (0, 1, 4):
        encoded = teacher.tokenizer("query: " + TEXTS[i], return_tensors="pt")
        with torch.inference_mode():
            alone = teacher.model.float()(**{k: encoded[k] for k in ("input_ids", "attention_mask")})
        alone = alone.last_hidden_state[0].numpy()
        stored = targets.hidden[targets.starts[i] : targets.starts[i + 1]]
        np.testing.assert_allclose(stored, alone, atol=0.1)  # bfloat16 where the machine has it
        np.testing.assert_allclose(targets.vectors[i], alone.mean(0), atol=0.05)


def test_every_character_lies_in_the_piece_that_holds_it(corpus):
    i = 0
    spans = corpus.targets.spans[corpus.targets.starts[i] : corpus.targets.starts[i + 1]]
    assert corpus.piece_of[i][0] == -1 == corpus.piece_of[i][-1]
    for place, piece in enumerate(corpus.piece_of[i][1:-1]):
        first, end = spans[piece]
        assert max(first, 0) <= place < end


def test_targets_of_other_texts_are_refused(teacher, corpus, tmp_path):
    distill.compute_targets(teacher, TEXTS[:3], tmp_path / "targets", CPU)
    with pytest.raises(RunError, match="other texts"):
        distill.compute_targets(teacher, TEXTS[:4], tmp_path / "targets", CPU)


def test_a_student_with_all_layers_is_the_teacher(teacher, tokenizer):
    """Where every piece is one character the two read the same ids, so the vectors must agree."""
    student = distill.build_student(teacher, tokenizer, (1, 2, 3)).eval()
    text = "我喜欢吃苹果"
    theirs = teacher.tokenizer(text, return_tensors="pt")["input_ids"]
    pieces = teacher.tokenizer.convert_ids_to_tokens(theirs[0])
    assert pieces[1] == "▁" and len(pieces) == len(text) + 3
    theirs = torch.cat([theirs[:, :1], theirs[:, 2:]], dim=1)  # without the mark before the word
    ours = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        a = student.bert(input_ids=ours).last_hidden_state
        b = teacher.model.float()(input_ids=theirs).last_hidden_state
    assert torch.allclose(a, b, atol=1e-5)
    with pytest.raises(ValueError, match="layers 1 to 3"):
        distill.build_student(teacher, tokenizer, (1, 4))


def test_piece_means_by_hand():
    hidden = torch.tensor([[[1.0], [3.0], [5.0]], [[7.0], [9.0], [11.0]]])
    means, met = distill.piece_means(hidden, torch.tensor([[0, 0, -1], [3, 2, 3]]), 4)
    assert met.tolist() == [True, False, True, True]
    assert means.flatten().tolist() == [2.0, 9.0, 9.0]


def test_a_batch_masks_its_first_half_only(corpus):
    batch = corpus.batch(np.arange(6), 0.5, torch.Generator().manual_seed(0), CPU)
    assert batch.chosen[:3].any() and not batch.chosen[3:].any()
    assert torch.equal(batch.masked_ids[~batch.chosen], batch.input_ids[~batch.chosen])
    assert batch.input_ids.shape[1] % 16 == 0
    assert int(batch.piece_of.max()) < len(batch.hidden)


def test_batch_plan_takes_every_text_once_within_the_budget():
    lengths = np.random.default_rng(1).integers(3, 120, 500)
    plan = distill.batch_plan(lengths, 512, np.random.default_rng(0), pool=100)
    assert sorted(np.concatenate(plan)) == list(range(500))
    for rows in plan:
        width = -(-lengths[rows].max() // 16) * 16
        assert len(rows) * width <= 512


def test_a_corpus_read_half_as_often_takes_part_in_every_second_round(teacher, tokenizer, corpus):
    mixed = distill.Corpus(TEXTS, ["reviews"] * 20 + ["dictionary"] * 10, corpus.targets, tokenizer, 32)
    config = replace(CONFIG, epochs=(("reviews", 4), ("dictionary", 2)))
    counts = np.bincount(np.concatenate(distill.whole_plan(mixed, config)), minlength=30)
    assert counts.tolist() == [4] * 20 + [2] * 10
    with pytest.raises(ValueError, match="dictionary"):
        distill.whole_plan(mixed, CONFIG)


def run(teacher, tokenizer, corpus, folder, **options):
    torch.manual_seed(0)
    student = distill.build_student(teacher, tokenizer, CONFIG.layers)
    return distill.distill(student, corpus, CONFIG, RunFolder(folder, {}), device=CPU, **options)


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_same_weights(teacher, tokenizer, corpus, tmp_path, monkeypatch):
    whole = run(teacher, tokenizer, corpus, tmp_path / "whole")
    steps = len(distill.whole_plan(corpus, CONFIG))
    calls = 0
    original = distill.losses

    def stop_in_the_middle(*arguments):
        nonlocal calls
        calls += 1
        if calls > steps // 2:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(distill, "losses", stop_in_the_middle)
        with pytest.raises(KeyboardInterrupt):
            run(teacher, tokenizer, corpus, tmp_path / "stopped", save_every=0.0, log_every=1)
    assert (tmp_path / "stopped" / "checkpoint.pt").is_file()
    resumed = run(teacher, tokenizer, corpus, tmp_path / "stopped")
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.slow
def test_training_brings_the_student_nearer(teacher, tokenizer, corpus, tmp_path):
    torch.manual_seed(0)
    student = distill.build_student(teacher, tokenizer, CONFIG.layers)
    scales = distill.Scales.of(corpus.targets, 0)
    batch = corpus.batch(np.arange(30), 0.3, torch.Generator().manual_seed(0), CPU)
    with torch.inference_mode():
        before = distill.losses(student.eval(), batch, scales)
    config = replace(CONFIG, epochs=(("reviews", 40),), lr=3e-3, masked_lm_weight=2.0)
    student = distill.distill(student, corpus, config, RunFolder(tmp_path, {}), device=CPU)
    with torch.inference_mode():
        after = distill.losses(student, batch, scales)
    for name in ("hidden", "sentence", "pooler", "masked_lm"):
        assert after[name] < 0.8 * before[name], name


def test_the_exported_model_loads_whole(teacher, tokenizer, tmp_path):
    student = distill.build_student(teacher, tokenizer, (1, 2)).eval()
    distill.export(student, tokenizer, tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path)("服务很好", return_tensors="pt")
    assert ids["input_ids"].tolist() == tokenizer("服务很好", return_tensors="pt")["input_ids"].tolist()
    encoder, info = AutoModel.from_pretrained(tmp_path, dtype="float32", output_loading_info=True)
    assert not info["missing_keys"]
    masked, info = AutoModelForMaskedLM.from_pretrained(tmp_path, dtype="float32", output_loading_info=True)
    assert not info["missing_keys"]
    assert encoder.config.hidden_dropout_prob == 0.1
    with torch.inference_mode():
        expected = student(**ids).logits
        assert torch.allclose(masked.eval()(**ids).logits, expected, atol=0.05)
        pooled = student.bert(**ids).pooler_output
        assert torch.allclose(encoder.eval()(**ids).pooler_output, pooled, atol=0.01)


@pytest.mark.parametrize(
    ("settings", "words"),
    [(["rate=1"], "no setting 'rate'"), (["lr=fast"], "is not JSON")],
)
def test_a_wrong_setting_is_named(settings, words):
    with pytest.raises(ValueError, match=words):
        parse_settings(DistillConfig, settings)


def test_settings_become_the_configuration():
    values = parse_settings(DistillConfig, ['epochs={"reviews": 1}', "layers=[1, 12]", "lr=2e-4"])
    assert replace(DistillConfig(), **values) == DistillConfig(
        epochs=(("reviews", 1),), layers=(1, 12), lr=2e-4
    )
