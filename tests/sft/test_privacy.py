"""`sft/privacy.py`: attacks on numbers whose answer is known, budgets against Opacus' accountant."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from sft import privacy
from sft.privacy import PrivacyError


def test_confidence_is_the_log_odds_of_the_right_label():
    logits = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    found = privacy.confidences(nn.Identity(), logits, torch.tensor([0, 1, 1]))
    np.testing.assert_allclose(found, [2.0, 3.0, -1.0], rtol=1e-6)
    three = privacy.confidences(nn.Identity(), torch.zeros(1, 3), torch.tensor([0]))
    np.testing.assert_allclose(three, [np.log(1 / 2)], rtol=1e-6)  # p = 1/3


def test_each_row_is_in_half_of_the_models_and_half_of_the_rows_in_each_model():
    members = privacy.random_halves(6, 20, seed=1)
    assert (members.sum(0) == 3).all() and (members.sum(1) == 10).all()
    with pytest.raises(ValueError, match="5 models"):
        privacy.random_halves(5, 20, seed=1)


def planted(gap: float, spread: float, models: int = 8, rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Confidences that are higher by ``gap`` where trained on; rows differ among themselves by ``spread``."""
    rng = np.random.default_rng(0)
    members = privacy.random_halves(models, rows, seed=0)
    noise = rng.normal(size=(models, rows))
    return rng.normal(scale=spread, size=rows) + noise + gap * members, members


def test_shadows_see_what_one_threshold_cannot():
    found, members = planted(gap=2.0, spread=10.0)
    one = privacy.attack_auc(found, members, num_resamples=20)
    own = privacy.attack_auc(privacy.shadow_scores(found, members), members, num_resamples=20)
    assert one.auc < 0.6
    assert own.auc > 0.85  # 0.92 were the mean of each row known
    assert own.interval[0] <= own.auc <= own.interval[1]


def test_nothing_to_find_is_not_found():
    found, members = planted(gap=0.0, spread=1.0)
    attack = privacy.attack_auc(privacy.shadow_scores(found, members), members, num_resamples=100)
    assert abs(attack.auc - 0.5) < 0.03


def test_the_auc_is_scikit_learns():
    found, members = planted(gap=0.5, spread=1.0)
    found = found.round(1)  # with ties
    each = [roc_auc_score(inside, score) for inside, score in zip(members, found, strict=True)]
    assert privacy.attack_auc(found, members, num_resamples=2).auc == pytest.approx(np.mean(each))


def test_too_few_shadows_are_refused():
    with pytest.raises(ValueError, match="train at least 6"):
        privacy.shadow_scores(*planted(1.0, 1.0, models=4))


def test_noise_keeps_the_budget_and_less_noise_would_not():
    from opacus.accountants import RDPAccountant

    noise = privacy.noise_for(8, 1e-3, rows=400, sample_rate=0.25, steps=40)

    def spent(sigma: float) -> float:
        accountant = RDPAccountant()
        accountant.history = [(sigma, 0.25, 40)]
        return accountant.get_epsilon(1e-3)

    assert spent(noise) <= 8 < spent(0.97 * noise)


@pytest.mark.parametrize(
    ("epsilon", "delta", "rate", "what"),
    [
        pytest.param(1e-9, 1e-5, 0.5, "做不到", marks=pytest.mark.slow),  # noise is doubled up to a million
        (8, 0.1, 0.5, "δ=0.1 太大"),
        (-1, 1e-5, 0.5, "ε=-1"),
        (8, 1e-5, 1.5, "采样率 1.5"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_one_line(epsilon: float, delta: float, rate: float, what: str):
    with pytest.raises(PrivacyError, match=what) as told:
        privacy.noise_for(epsilon, delta, rows=100, sample_rate=rate, steps=1000)
    assert "\n" not in str(told.value)


def test_private_training_learns_within_its_budget_and_repeats():
    torch.manual_seed(0)
    y = torch.arange(200) % 2
    X = torch.randn(200, 4) + 3 * y[:, None]
    settings = {"sample_rate": 0.5, "steps": 20}
    noise = privacy.noise_for(8, 1e-3, rows=200, **settings)

    def run() -> tuple[nn.Linear, float]:
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        spent = privacy.train_private(
            model, X, y, noise=noise, max_grad_norm=1.0, lr=0.3, delta=1e-3, seed=3, **settings
        )
        return model, spent

    (model, spent), (again, _) = run(), run()
    assert 7.5 < spent <= 8
    assert (model(X).argmax(-1) == y).float().mean() > 0.9
    torch.testing.assert_close(model.weight, again.weight)


def test_plain_training_fits():
    torch.manual_seed(0)
    X, y = torch.randn(20, 30), torch.arange(20) % 2
    model = nn.Linear(30, 2)
    privacy.train_plain(model, X, y, steps=200, lr=0.05)
    assert (model(X).argmax(-1) == y).all()
