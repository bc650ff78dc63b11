"""Pre-training: packing, the run and its resumption, what it says to bad input."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertForMaskedLM

from recipes import pretrain
from recipes.pretrain import (
    PretrainConfig,
    build_model,
    make_optimizers,
    pack,
    plan_blocks,
    start_embeddings,
)
from recipes.runs import RunFolder
from recipes.tokenizer import CHAT_TEMPLATE, build_char_tokenizer
from sft.language_modeling import bits_per_character, tokenise
from sft.training import set_seed

ROOT = Path(__file__).parents[2]


def test_packing_loses_only_the_rest():
    blocks = pack([[2, 5, 6, 3], [2, 7, 3], [2, 8, 9, 10, 3]], 5)
    assert blocks.tolist() == [[2, 5, 6, 3, 2], [7, 3, 2, 8, 9]]


# --- runs ----------------------------------------------------------------------------------------------

SMALL = PretrainConfig(
    hidden_size=32, num_layers=2, num_heads=2, intermediate_size=48, block_lengths=(16, 32), tokens_per_batch=128,
    epochs=(("a", 4), ("b", 2)), embeddings_from=None, lr=1e-2, min_count=1,
)  # fmt: skip
SENTENCES = ["房间很干净。", "早餐太难吃了", "我喜欢吃苹果", "他每天喝一杯牛奶。"] * 8


@pytest.fixture(scope="module")
def corpus():
    tokenizer = build_char_tokenizer(SENTENCES, min_count=1)
    documents = {"a": tokenise(SENTENCES, tokenizer), "b": tokenise(SENTENCES[:5], tokenizer)}
    return tokenizer, documents


def train(corpus, folder, config=SMALL, **options):
    tokenizer, documents = corpus
    set_seed(0)
    model = build_model(config, tokenizer)
    batches = plan_blocks(documents, config)
    run = RunFolder(folder, {})
    return pretrain.pretrain(model, batches, config, tokenizer, run, device=torch.device("cpu"), **options)


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_a_stopped_run_ends_with_the_same_weights_and_log(corpus, tmp_path, monkeypatch, objective):
    config = replace(SMALL, objective=objective)
    whole = train(corpus, tmp_path / "whole", config, log_every=3)
    calls, original = 0, pretrain.loss_of

    def stop_in_the_middle(*arguments):
        nonlocal calls
        calls += 1
        if calls > 10:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "loss_of", stop_in_the_middle)
        with pytest.raises(KeyboardInterrupt):
            train(corpus, tmp_path / "stopped", config, log_every=3, save_every=0.0)
    resumed = train(corpus, tmp_path / "stopped", config, log_every=3)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    losses = [
        [line["loss"] for line in RunFolder(tmp_path / name, {}).read_log()] for name in ("whole", "stopped")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 4


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_muon_updates_the_layers_matrices_and_nothing_else(corpus, objective):
    config = replace(SMALL, objective=objective)
    model = build_model(config, corpus[0])
    names = {id(weight): name for name, weight in model.named_parameters()}
    adamw, muon = (
        [names.pop(id(weight)) for group in optimizer.param_groups for weight in group["params"]]
        for optimizer in make_optimizers(model, config)
    )
    assert not names  # every weight once
    assert all("layer" in name or "transform" in name for name in muon) and len(muon) >= 12
    assert all("embed" in name or "norm" in name.lower() or name.endswith("bias") for name in adamw)
    (alone,) = make_optimizers(model, replace(config, matrix_lr=None))
    assert sum(len(group["params"]) for group in alone.param_groups) == len(adamw) + len(muon)


def test_the_causal_model_learns_and_cannot_look_ahead(corpus, tmp_path):
    tokenizer, _ = corpus
    set_seed(0)
    before = bits_per_character(build_model(SMALL, tokenizer), SENTENCES, tokenizer, context=32, stride=16)
    model = train(corpus, tmp_path, replace(SMALL, epochs=(("a", 40), ("b", 2)), dropout=0.0))
    after = bits_per_character(model, SENTENCES, tokenizer, context=32, stride=16)
    assert after < 0.2 * before
    ids = torch.tensor(tokenise(SENTENCES[:1], tokenizer))
    other = ids.clone()
    other[0, -1] = 7
    with torch.inference_mode():
        assert torch.allclose(model(ids).logits[0, :-1], model(other).logits[0, :-1], atol=1e-5)


def test_the_plan_reads_each_corpus_as_often_as_asked_and_short_blocks_first(corpus):
    _, documents = corpus
    batches = plan_blocks(documents, SMALL)
    lengths = [batch.shape[1] for batch in batches]
    assert lengths == sorted(lengths) and set(lengths) == {16, 32}
    tokens = {name: sum(map(len, rows)) for name, rows in documents.items()}
    read = sum(batch.numel() for batch in batches)
    assert read == pytest.approx(4 * tokens["a"] + 2 * tokens["b"], rel=0.1)
    with pytest.raises(ValueError, match="epochs names c"):
        plan_blocks(documents, replace(SMALL, epochs=(("c", 1),)))


def test_the_last_rounds_belong_to_the_corpus_that_is_read_most():
    documents = {"a": [[2] + [5] * 62 + [3]] * 8, "b": [[2] + [6] * 62 + [3]] * 8}
    config = replace(SMALL, epochs=(("a", 6), ("b", 2)), block_lengths=(32,), tokens_per_batch=10**6)
    rounds = plan_blocks(documents, config)
    assert [bool((batch == 6).any()) for batch in rounds] == [True, False, False, True, False, False]


def test_embeddings_start_from_another_models_geometry(corpus, tmp_path):
    tokenizer, _ = corpus
    bert = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=1,
                                      num_attention_heads=2, intermediate_size=64))  # fmt: skip
    bert.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = build_model(replace(SMALL, hidden_size=64), tokenizer)
    start_embeddings(model, tokenizer, tmp_path)
    ours = model.get_input_embeddings().weight.detach()
    theirs = bert.get_input_embeddings().weight.detach()
    theirs = theirs - theirs.mean(0)
    cosine = [F.cosine_similarity(t[:, None], t[None], dim=-1) for t in (ours, theirs)]
    assert torch.allclose(*cosine, atol=1e-4)  # all directions kept: only turned
    with pytest.raises(ValueError, match="no BERT in"):
        start_embeddings(model, tokenizer, tmp_path / "absent")
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ValueError, match="no BERT in"):
        start_embeddings(model, tokenizer, tmp_path)


def test_a_tokenizer_of_another_model_is_named(corpus, tmp_path):
    model = build_model(SMALL, build_char_tokenizer(["短"], min_count=1))
    with pytest.raises(ValueError, match="they do not match"):
        pretrain.pretrain(model, [], SMALL, corpus[0], RunFolder(tmp_path, {}))


def test_the_exported_model_loads_and_generates(corpus, tmp_path):
    tokenizer, _ = corpus
    model = train(corpus, tmp_path / "run", replace(SMALL, epochs=(("a", 30), ("b", 2)), dropout=0.0))
    pretrain.export(model, tokenizer, tmp_path / "model")
    loaded, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype="float32", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    again = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert again.eos_token_id == loaded.generation_config.eos_token_id == tokenizer.sep_token_id
    assert again.chat_template == CHAT_TEMPLATE
    prompt = torch.tensor([again("我喜欢", return_attention_mask=False)["input_ids"][:-1]])
    written = loaded.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False
    )
    assert again.decode(written[0], skip_special_tokens=True).replace(" ", "").startswith("我喜欢吃苹果")


def test_the_command_names_what_is_wrong(tmp_path):
    command = [sys.executable, "-m", "recipes.pretrain", "--out", tmp_path / "out", "--run", tmp_path / "run"]
    result = subprocess.run([*command, "--set", "rate=1"], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 3 and "no setting 'rate'" in result.stderr
    assert "Traceback" not in result.stderr


def test_what_is_no_objective_is_told_before_anything_is_read(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(pretrain, "load_pretraining_texts", lambda: pytest.fail("texts are read"))
    with pytest.raises(typer.Exit) as ended:
        pretrain.main(tmp_path / "out", tmp_path / "run", settings=['objective="sideways"'])
    told = capsys.readouterr().err
    assert (ended.value.exit_code, told.count("\n")) == (3, 1) and "objective 'sideways'" in told


def test_a_finished_model_is_gone_on_from_at_longer_blocks(corpus, tmp_path):
    tokenizer, documents = corpus
    first = train(corpus, tmp_path / "first")
    pretrain.export(first, tokenizer, tmp_path / "model")
    longer = replace(SMALL, start_from=str(tmp_path / "model"), block_lengths=(64,), lr=1e-3)
    model = pretrain.continued_model(longer)
    assert model.config.max_position_embeddings == 128
    for name, weight in first.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, rtol=1e-3, atol=1e-3)  # saved in 16 bits
    run = RunFolder(tmp_path / "run", {})
    batches = plan_blocks(documents, longer)
    pretrain.pretrain(model, batches, longer, tokenizer, run, device=torch.device("cpu"))
    texts = SENTENCES[:8]
    before, after = (bits_per_character(m, texts, tokenizer, context=32, stride=16) for m in (first, model))
    assert after < before
