"""`sft/transformer.py` against `nn.Transformer`'s layers and `transformers`' BertModel, and against itself."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer

from sft.attention import attention, causal_mask, pytorch_twin
from sft.hub import PRETRAINED
from sft.transformer import (
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderLayer,
    Transformer,
    TransformerConfig,
    beam_search,
    bert_encoder,
    cross_weights,
    encoder_weights,
    greedy,
    log_probability,
)

SMALL = {"vocab_size": 11, "d_model": 16, "num_heads": 2, "d_ff": 24, "max_length": 40}
POSITIONS = ("sinusoidal", "learned")


def variants(*positions):
    """One test for each kind of position, place of the norm, and activation."""
    return pytest.mark.parametrize(
        "variant",
        [
            {"positions": p, "norm_first": n, "activation": a}
            for p, n, a in itertools.product(positions, (False, True), ("relu", "gelu"))
        ],
        ids=lambda v: "-".join(map(str, v.values())),
    )


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def twins(kind, library_kind, norm_first, activation):
    """A layer of ours and PyTorch's with the same weights, norms that are not the identity, in float64."""
    config = TransformerConfig(**SMALL, norm_first=norm_first, activation=activation)
    ours = kind(config).double().eval()
    theirs = library_kind(
        16, 2, 24, activation=activation, batch_first=True, norm_first=norm_first, dtype=torch.float64
    ).eval()
    theirs.self_attn = pytorch_twin(ours.attention)
    theirs.linear1, theirs.linear2 = ours.feed_forward.W_1, ours.feed_forward.W_2
    for i, residual in enumerate(ours.residuals, 1):
        for p in residual.norm.parameters():
            nn.init.normal_(p)
        setattr(theirs, f"norm{i}", residual.norm)
    return ours, theirs


layer_variants = pytest.mark.parametrize(
    ("norm_first", "activation"), list(itertools.product((False, True), ("relu", "gelu")))
)


@layer_variants
def test_encoder_layer_equals_pytorch(norm_first, activation):
    ours, theirs = twins(EncoderLayer, nn.TransformerEncoderLayer, norm_first, activation)
    x, mask = torch.randn(3, 7, 16, dtype=torch.float64), causal_mask(7)
    torch.testing.assert_close(ours(x, mask), theirs(x, src_mask=~mask), rtol=0, atol=1e-12)


@layer_variants
def test_decoder_layer_equals_pytorch(norm_first, activation):
    ours, theirs = twins(DecoderLayer, nn.TransformerDecoderLayer, norm_first, activation)
    theirs.multihead_attn = pytorch_twin(ours.cross_attention)
    x, memory = torch.randn(3, 5, 16, dtype=torch.float64), torch.randn(3, 7, 16, dtype=torch.float64)
    mask, seen = causal_mask(5), torch.arange(7) < torch.tensor([7, 4, 1])[:, None]
    result = ours(x, memory, mask, seen[:, None, None])
    expected = theirs(x, memory, tgt_mask=~mask, memory_key_padding_mask=~seen)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


TEXTS = ["我喜欢吃苹果", "房间不大，但是很干净，服务员的态度也好，下次还会来住。", "1998年1月1日"]


def test_mini_bert_in_our_encoder_equals_transformers_in_every_layer():
    place = PRETRAINED / "mini-bert-zh"
    tokenizer = AutoTokenizer.from_pretrained(place)
    theirs = AutoModel.from_pretrained(place, dtype=torch.float32).eval()
    ours = bert_encoder(theirs).eval()
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    text = batch["attention_mask"].bool()
    with torch.no_grad():
        expected = theirs(**batch, output_hidden_states=True)
        x = ours.embeddings(batch["input_ids"])
        for i, layer in enumerate([None, *ours.layers]):
            x = x if layer is None else layer(x, text[:, None, None])
            assert (x - expected.hidden_states[i])[text].abs().max() <= 1e-5, f"layer {i}"
        whole = ours(batch["input_ids"], batch["attention_mask"])
    assert torch.equal(whole, x)


@variants(*POSITIONS)
def test_padding_changes_nothing(variant):
    encoder = Encoder(TransformerConfig(**SMALL, **variant)).double().eval()
    ids = torch.tensor([[3, 4, 5, 6]])
    padded = torch.tensor([[3, 4, 5, 6, 9, 9]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    torch.testing.assert_close(encoder(padded, mask)[:, :4], encoder(ids), rtol=0, atol=1e-12)


@variants(*POSITIONS)
def test_the_future_changes_nothing(variant):
    decoder = Decoder(TransformerConfig(**SMALL, **variant), cross=False).double().eval()
    a, b = torch.tensor([[3, 4, 5, 6]]), torch.tensor([[3, 4, 8, 9]])
    torch.testing.assert_close(decoder(a)[:, :2], decoder(b)[:, :2], rtol=0, atol=1e-12)
    assert not torch.allclose(decoder(a)[:, 2], decoder(b)[:, 2])


@pytest.mark.parametrize("positions", POSITIONS)
def test_order_matters_with_every_kind_of_position(positions):
    encoder = Encoder(TransformerConfig(**SMALL, positions=positions)).eval()
    a, b = encoder(torch.tensor([[3, 4, 5]])), encoder(torch.tensor([[5, 4, 3]]))
    assert not torch.allclose(a, b.flip(1), atol=1e-3)


@variants(*POSITIONS)
def test_cached_generation_equals_recomputation(variant):
    config = TransformerConfig(**SMALL, **variant)
    model = Transformer(config).double().eval()
    source, mask = torch.tensor([[3, 4, 5], [6, 7, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    memory, start = model.encoder(source, mask), torch.tensor([[1], [1]])
    fast = greedy(model.decoder, start, 12, memory=memory, memory_mask=mask)
    slow = greedy(model.decoder, start, 12, memory=memory, memory_mask=mask, use_cache=False)
    assert torch.equal(fast, slow) and fast.shape == (2, 13)
    alone = Decoder(config, cross=False).double().eval()
    assert torch.equal(greedy(alone, start, 12), greedy(alone, start, 12, use_cache=False))
    cache = alone.new_cache()
    logits = torch.cat([alone(fast[:, i : i + 1], cache=cache) for i in range(13)], dim=1)
    torch.testing.assert_close(logits, alone(fast), rtol=0, atol=1e-10)


def test_ended_texts_are_filled_with_the_end():
    class Counts(Decoder):
        """Says the last id plus one, up to 9; then 2."""

        def forward(self, input_ids, *_):
            following = torch.where(input_ids >= 9, 2, input_ids + 1)
            return nn.functional.one_hot(following, 11).float()

    decoder = Counts(TransformerConfig(**SMALL))
    assert greedy(decoder, torch.tensor([[7], [9]]), 9, eos_id=2).tolist() == [[7, 8, 9, 2], [9, 2, 2, 2]]


def brute_force(decoder, start, length, eos, penalty):
    """The best continuation of up to ``length`` tokens by trying all."""
    found = []
    for k in range(1, length + 1):
        for tail in itertools.product(range(5), repeat=k):
            if eos in tail[:-1] or (tail[-1] != eos and k < length):
                continue
            ids = torch.tensor([[*start, *tail]])
            log_p = decoder(ids)[0].log_softmax(-1)
            total = sum(log_p[len(start) - 1 + i, t].item() for i, t in enumerate(tail))
            found.append((total / k**penalty, list(tail)))
    return max(found)[1]


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_text(penalty):
    config = TransformerConfig(**SMALL | {"vocab_size": 5}, dropout=0.0)
    decoder = Decoder(config, cross=False).double().eval()
    with torch.no_grad():
        decoder.embeddings.tokens.weight *= 4  # sharper guesses
        starts = torch.tensor([[1, 3], [4, 0], [3, 3]])
        found = beam_search(decoder, starts, 4, eos_id=2, num_beams=150, length_penalty=penalty)
        for start, row in zip(starts.tolist(), found.tolist(), strict=True):
            tail = row[2:]
            best = brute_force(decoder, start, 4, 2, penalty)
            assert tail[: len(best)] == best and set(tail[len(best) :]) <= {2}


@variants(*POSITIONS)
def test_one_beam_is_greedy(variant):
    model = Transformer(TransformerConfig(**SMALL, **variant)).double().eval()
    source, mask = torch.tensor([[3, 4, 5], [6, 7, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    options = {"memory": model.encoder(source, mask), "memory_mask": mask}
    start = torch.tensor([[1], [5]])
    one = beam_search(model.decoder, start, 10, eos_id=2, num_beams=1, **options)
    assert torch.equal(one, greedy(model.decoder, start, 10, eos_id=2, **options))


def test_shared_token_vectors_and_gradients_everywhere():
    model = Transformer(TransformerConfig(**SMALL, positions="learned"))
    assert model.decoder.embeddings.tokens.weight is model.encoder.embeddings.tokens.weight
    model(torch.tensor([[3, 4]]), torch.tensor([[1, 5, 6]])).logsumexp(-1).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_log_probability_is_the_sum_of_the_steps_and_ends_with_the_text():
    decoder = Decoder(TransformerConfig(**SMALL), cross=False).double().eval()
    rows = torch.tensor([[1, 4, 5, 2, 7], [1, 4, 6, 7, 8]])
    with torch.no_grad():
        steps = [
            decoder(rows[:, :i])[:, -1].log_softmax(-1).gather(1, rows[:, i : i + 1]) for i in range(2, 5)
        ]
    a, b, c = torch.cat(steps, dim=1).unbind(1)
    torch.testing.assert_close(log_probability(decoder, rows, 2), a + b + c)
    ended = log_probability(decoder, rows, 2, eos_id=2)
    torch.testing.assert_close(ended, torch.stack(((a + b)[0], (a + b + c)[1])))


def test_cross_weights_are_those_that_the_last_layer_used():
    model = Transformer(TransformerConfig(**SMALL, norm_first=False)).double().eval()
    source, target, seen = torch.tensor([[3, 4, 5]]), torch.tensor([[1, 5, 6, 7]]), []
    last = model.decoder.layers[-1].cross_attention
    memory = model.encoder(source)
    last.register_forward_hook(
        lambda module, given, _: seen.append(attention(*module.project(*given[:2]))[1])
    )
    model.decoder(target, memory)
    A = cross_weights(model.decoder, target, memory)
    torch.testing.assert_close(A, seen[0].mean(1))
    torch.testing.assert_close(A.sum(-1), torch.ones(1, 4, dtype=torch.float64))


def test_encoder_weights_are_those_of_each_layer():
    encoder = Encoder(TransformerConfig(**SMALL)).double().eval()
    ids, seen = torch.tensor([[3, 4, 5]]), []
    for layer in encoder.layers:
        layer.attention.register_forward_hook(
            lambda module, given, _: seen.append(attention(*module.project(*given[:2]))[1][0])
        )
    encoder(ids)
    expected = torch.stack(seen)
    torch.testing.assert_close(encoder_weights(encoder, ids), expected)


@pytest.mark.parametrize("make", [Encoder, Decoder])
def test_positions_that_it_does_not_have_are_refused(make):
    with pytest.raises(ValueError, match="unknown positions 'rotary'"):
        make(TransformerConfig(**SMALL, positions="rotary"))
    assert make(TransformerConfig(**SMALL, positions="none")).embeddings.positions is None
