"""The training loop: batches, schedule, best weights, early stopping, resuming."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from sft import training
from sft.training import Encoded, TrainingConfig, fit

CPU = torch.device("cpu")


def toy(n: int, seed: int = 0) -> Encoded:
    """Texts whose label is whether token 7 occurs: learnable in a few steps."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(8, 30, size=rng.integers(3, 12)) for _ in range(n)]
    labels = rng.integers(0, 2, size=n)
    ids = [
        [2, *np.where(np.arange(len(r)) == 1, 7 if y else 8, r).tolist(), 3]
        for r, y in zip(rows, labels, strict=True)
    ]
    return Encoded(ids, labels.tolist())


def small_model(seed: int = 0) -> training.Classifier:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=32, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    return training.Classifier(BertModel(config))


@pytest.mark.parametrize(
    ("device", "installed", "said"),
    [
        ("cpu", True, "CUDA"),
        ("mps", True, "CUDA"),
        ("cuda", False, "pip install bitsandbytes"),
        ("cuda:1", True, ""),
    ],
)
def test_four_bits_want_a_card_and_a_package(device, installed, said, monkeypatch):
    monkeypatch.setattr(training, "find_spec", lambda name: object() if installed else None)
    reason = training.why_no_four_bits(torch.device(device))
    assert said in reason and bool(reason) == bool(said) and "\n" not in reason


def test_buckets_hold_every_index_once_and_pad_less():
    lengths = np.random.default_rng(1).integers(1, 200, size=1003)
    batches = training.length_buckets(lengths, 32, np.random.default_rng(0))
    assert sorted(np.concatenate(batches)) == list(range(1003))
    assert max(map(len, batches)) == 32
    padded = sum(len(b) * lengths[b].max() for b in batches)
    shuffled = np.array_split(np.random.default_rng(0).permutation(1003), len(batches))
    assert padded < 0.75 * sum(len(b) * lengths[b].max() for b in shuffled)


def test_buckets_differ_between_epochs_but_not_between_equal_seeds():
    lengths = np.arange(200)
    one, two = np.random.default_rng(5), np.random.default_rng(5)
    first = training.length_buckets(lengths, 8, one)
    assert all((a == b).all() for a, b in zip(first, training.length_buckets(lengths, 8, two), strict=True))
    assert any((a != b).any() for a, b in zip(first, training.length_buckets(lengths, 8, one), strict=True))


def test_collate_pads_to_its_own_longest():
    data = Encoded([[2, 5, 3], [2, 3], [2, 5, 5, 5, 3]], [0, 1, 1])
    ids, mask, labels = training.collate(data, [0, 1], pad_id=9, device=CPU, multiple=1)
    assert ids.tolist() == [[2, 5, 3], [2, 3, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert labels.tolist() == [0, 1]
    assert training.collate(data, [2], 9, CPU, multiple=4)[0].tolist() == [[2, 5, 5, 5, 3, 9, 9, 9]]


def test_padding_does_not_change_logits():
    model, data = small_model().eval(), toy(8)
    alone = torch.cat([model(*training.collate(data, [i], 0, CPU)[:2]) for i in range(8)])
    together = model(*training.collate(data, range(8), 0, CPU)[:2])
    assert torch.allclose(alone, together, atol=1e-5)


def test_predictions_come_back_in_order():
    model, data = small_model(), toy(50)
    logits = training.predict_logits(model, data, 0, CPU, batch_size=7, precision="fp32")
    for i in (0, 17, 49):
        one = training.predict_logits(model, Encoded([data.input_ids[i]], [0]), 0, CPU, precision="fp32")
        assert torch.allclose(logits[i], one[0], atol=1e-5)


def test_warmup_then_straight_down():
    factors = [training.warmup_linear(s, 100) for s in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == 1.0
    assert factors.index(1.0) == 9
    assert np.allclose(np.diff(factors[10:101]), -1 / 90)
    assert factors[100] == 0.0


def test_biases_and_norms_do_not_decay():
    groups = training.make_optimizer(small_model(), lr=1.0, weight_decay=0.5).param_groups
    assert [g["weight_decay"] for g in groups] == [0.5, 0.0]
    assert all(p.ndim >= 2 for p in groups[0]["params"]) and all(p.ndim < 2 for p in groups[1]["params"])


def test_frozen_parameters_are_left_out():
    model = small_model()
    model.encoder.requires_grad_(False)
    assert sum(p.numel() for g in training.make_optimizer(model, 1.0).param_groups for p in g["params"]) == 66
    assert training.count_parameters(model)[0] == 66


def test_learns_and_keeps_the_best_epoch():
    model, train, validation = small_model(), toy(400), toy(100, seed=1)
    config = TrainingConfig(lr=3e-3, num_epochs=4, batch_size=16)
    history = fit(model, train, validation, config, progress=False)
    logits = training.predict_logits(model, validation, 0, CPU)
    loss = nn.functional.cross_entropy(logits, torch.tensor(validation.labels)).item()
    assert history.validation_accuracy[history.best_epoch] > 0.95
    assert loss == pytest.approx(min(history.validation_loss), abs=1e-4)
    assert len(history.train_loss) == 4
    assert history.train_loss[0] > history.train_loss[-1]


def test_without_validation_the_last_epoch_stays(capsys):
    config = TrainingConfig(lr=3e-3, num_epochs=2, batch_size=16)
    model, judged = small_model(), small_model()
    history = fit(model, toy(64), None, config)
    assert (history.validation_loss, history.best_epoch, len(history.train_loss)) == ([], -1, 2)
    assert capsys.readouterr().out.rstrip().split("\r")[-1].startswith("2 epochs")
    reference = fit(judged, toy(64), toy(64), config, progress=False)
    assert history.train_loss == reference.train_loss
    with pytest.raises(ValueError, match="patience"):
        fit(model, toy(64), None, TrainingConfig(patience=1))


def test_same_seed_same_weights_other_seed_other_weights():
    def trained(seed: int) -> torch.Tensor:
        model = small_model()
        fit(model, toy(64), toy(16, 1), TrainingConfig(lr=1e-3, num_epochs=1, seed=seed), progress=False)
        return model.head.weight.detach().clone()

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_stops_early(monkeypatch):
    losses = iter([0.5, 0.4, 0.45, 0.46, 0.1])

    def fake(model, validation, config, pad_id, device, history, epoch, best):
        history.validation_loss.append(next(losses))
        history.validation_accuracy.append(0.5)
        if history.validation_loss[-1] <= min(history.validation_loss):
            history.best_epoch = epoch
        return best

    monkeypatch.setattr(training, "_validate", fake)
    config = TrainingConfig(lr=1e-3, num_epochs=5, patience=2)
    history = fit(small_model(), toy(32), toy(8, 1), config, progress=False)
    assert history.validation_loss == [0.5, 0.4, 0.45, 0.46]
    assert history.best_epoch == 1


def test_interrupted_training_resumes_to_the_same_weights(tmp_path, monkeypatch):
    config = TrainingConfig(lr=1e-3, num_epochs=3, batch_size=8, precision="fp32")
    whole = small_model()
    fit(whole, toy(64), toy(16, 1), config, progress=False)

    file = tmp_path / "run" / "checkpoint.pt"
    real, calls = training.train_step, iter(range(100))

    def interrupted(*arguments):
        if next(calls) == 19:  # in the third epoch
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(training, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(small_model(), toy(64), toy(16, 1), config, checkpoint=file, progress=False)
    monkeypatch.setattr(training, "train_step", real)
    resumed = small_model(seed=9)  # other initial weights: all must come from the file
    torch.manual_seed(123)
    history = fit(resumed, toy(64), toy(16, 1), config, checkpoint=file, progress=False)
    assert len(history.train_loss) == 3
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert [p.name for p in file.parent.iterdir()] == ["checkpoint.pt"]


def test_bad_checkpoints_are_named(tmp_path):
    file = tmp_path / "checkpoint.pt"
    config = TrainingConfig(lr=1e-3, num_epochs=1)
    fit(small_model(), toy(16), toy(8, 1), config, checkpoint=file, progress=False)
    with pytest.raises(ValueError, match="other settings"):
        fit(small_model(), toy(16), toy(8, 1), TrainingConfig(lr=1e-2), checkpoint=file, progress=False)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read"):
        fit(small_model(), toy(16), toy(8, 1), config, checkpoint=file, progress=False)


def test_diverging_run_says_so():
    model = small_model()
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="lower lr"):
        fit(model, toy(16), toy(8, 1), TrainingConfig(), progress=False)


def test_empty_training_set():
    with pytest.raises(ValueError, match="no training rows"):
        fit(small_model(), Encoded([], []), toy(8), TrainingConfig(), progress=False)


def test_pooling_falls_back_to_the_first_token():
    class Encoder(nn.Module):
        config = BertConfig(hidden_size=4)

        def forward(self, input_ids, attention_mask):
            return type("Output", (), {"last_hidden_state": input_ids[..., None].float().expand(-1, -1, 4)})()

    model = training.Classifier(Encoder(), dropout=0.0)
    ids = torch.tensor([[5, 1], [6, 2]])
    expected = model.head(torch.tensor([[5.0] * 4, [6.0] * 4]))
    assert torch.allclose(model(ids, torch.ones_like(ids)), expected)


def test_padding_has_no_part_in_the_mean():
    hidden = torch.tensor([[[1.0, 0.0], [3.0, 4.0], [9.0, 9.0]], [[5.0, 5.0], [9.0, 9.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert training.mean_pool(hidden, mask).tolist() == [[2.0, 2.0], [5.0, 5.0]]


def test_unknown_device_and_precision():
    with pytest.raises(ValueError, match="precision"):
        training.autocast(CPU, "fp8")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="not available"):
            training.find_device("cuda")


def test_progress_leaves_one_line(capsys):
    fit(small_model(), toy(64), toy(8, 1), TrainingConfig(num_epochs=2))
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert printed.rstrip().split("\r")[-1].startswith("2 epochs")
