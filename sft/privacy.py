"""Who was in the training data? Attacks that find out, and training with differential privacy that makes them fail.

The attacks look at the confidence that a model has in the right label of a row: a threshold for all rows (Yeom et al.
2018, arXiv:1709.01604), or for each row its own, from models that were trained with and without it (LiRA: Carlini et
al. 2022, arXiv:2112.03570). DP-SGD (Abadi et al. 2016, arXiv:1607.00133) is Opacus'.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import norm, rankdata
from torch import nn
from torch.nn import functional as F


class PrivacyError(ValueError):
    """A privacy budget that cannot be kept. The message says which, and what to change."""


# --- attacks -------------------------------------------------------------------------------------------


@torch.no_grad()
def confidences(model: nn.Module, X: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """log p/(1 − p) of the right label of each row, (rows,): unlike p it is spread like a bell."""
    log_p = model(X).log_softmax(-1)
    right = log_p.gather(1, y[:, None])[:, 0]
    wrong = log_p.scatter(1, y[:, None], -torch.inf).logsumexp(-1)
    return (right - wrong).numpy()


def random_halves(models: int, rows: int, seed: int) -> np.ndarray:
    """Which half of the rows each model is trained on, bool, (models, rows); models 2i and 2i + 1 share no row."""
    if models % 2:
        raise ValueError(f"{models} models: each row is to be in half of them, so their number must be even")
    rng = np.random.default_rng(seed)
    members = np.empty((models, rows), dtype=bool)
    for k in range(0, models, 2):
        members[k] = rng.permutation(rows) < rows // 2
        members[k + 1] = ~members[k]
    return members


def shadow_scores(found: np.ndarray, members: np.ndarray) -> np.ndarray:
    """LiRA's log likelihood ratio of “trained on” for each model and row, the other models being the shadows.

    With few shadows one spread is shared by all rows, as section VI-B of the paper advises. The model that was trained
    on the other half is no shadow: without it each row stands in as many shadows as it is missing from, whether it is
    a member or not; else the numbers alone would tell.

    Args:
        found: :func:`confidences` of each model on all rows, (models, rows).
        members: what each was trained on, from :func:`random_halves`, (models, rows).

    Raises:
        ValueError: fewer than two shadows with, or without, each row.
    """
    if len(found) < 6:
        raise ValueError(f"{len(found)} models leave too few shadows; train at least 6")
    scores = np.empty_like(found, dtype=np.float64)
    for k in range(len(found)):
        others = np.arange(len(found)) // 2 != k // 2
        inside = np.where(members[others], found[others], np.nan)
        outside = np.where(members[others], np.nan, found[others])
        likelihood = []
        for part in (inside, outside):
            mean = np.nanmean(part, axis=0)
            spread = np.sqrt(np.nanmean(np.nanvar(part, axis=0, ddof=1)))
            likelihood.append(norm.logpdf(found[k], mean, spread + 1e-9))
        scores[k] = likelihood[0] - likelihood[1]
    return scores


@dataclass(frozen=True)
class Attack:
    """How well members are told from others: area under the ROC curve, mean of all models, and its interval."""

    auc: float
    interval: tuple[float, float]


def attack_auc(scores: np.ndarray, members: np.ndarray, *, num_resamples: int = 300, seed: int = 0) -> Attack:
    """Mean AUC over the models; the interval (95 %) draws rows anew, the same for all models.

    Args:
        scores: higher is “trained on”, (models, rows).
    """
    rng, n = np.random.default_rng(seed), members.shape[1]
    resamples = (rng.integers(n, size=n) for _ in range(num_resamples))
    drawn = [_mean_auc(scores[:, rows], members[:, rows]) for rows in resamples]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Attack(_mean_auc(scores, members), (float(low), float(high)))


def _mean_auc(scores: np.ndarray, members: np.ndarray) -> float:
    """By ranks (Mann and Whitney 1947): ten times as fast as a curve for each model."""
    inside, outside = members.sum(1), (~members).sum(1)
    ranks = np.where(members, rankdata(scores, axis=1), 0).sum(1)
    return float(np.mean((ranks - inside * (inside + 1) / 2) / (inside * outside)))


# --- training with differential privacy ----------------------------------------------------------------


def noise_for(epsilon: float, delta: float, *, rows: int, sample_rate: float, steps: int) -> float:
    """The noise, in units of the clipping length, that keeps ``steps`` steps within (ε, δ) (Opacus' accountant, RDP).

    Raises:
        PrivacyError: no noise is enough, or ``delta`` is so large that it promises nothing.
    """
    from opacus.accountants.utils import get_noise_multiplier

    if epsilon <= 0 or not 0 < sample_rate <= 1 or steps < 1:
        raise PrivacyError(
            f"ε={epsilon:g}、采样率 {sample_rate:g}、{steps} 步：ε 和步数要大于零，采样率在 0 与 1 之间"
        )
    if not 0 < delta < 1 / rows:
        raise PrivacyError(f"δ={delta:g} 太大：{rows} 行数据，δ 要小于 1/{rows}，否则随手公开一行也算“私密”")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the order of RDP that is best, of no use to a reader
            return get_noise_multiplier(
                target_epsilon=epsilon, target_delta=delta, sample_rate=sample_rate, steps=steps
            )
    except ValueError:
        raise PrivacyError(
            f"ε={epsilon:g}（δ={delta:g}）做不到：{steps} 步、采样率 {sample_rate:g}，加多大的噪声也不够；"
            "放宽 ε，或减少步数、降低采样率"
        ) from None


def train_private(
    model: nn.Module,
    X: torch.Tensor,
    y: torch.Tensor,
    *,
    noise: float,
    max_grad_norm: float,
    sample_rate: float,
    steps: int,
    lr: float,
    delta: float,
    seed: int = 0,
) -> float:
    """DP-SGD in place with Opacus: Poisson sampling, each row's gradient clipped, noise added; the ε that was spent.

    The noise comes from PyTorch's ordinary generator, so that a run can be repeated; where privacy is at stake, give
    Opacus ``secure_mode=True``.
    """
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(
        TensorDataset(X, y), batch_size=max(1, round(sample_rate * len(X))), generator=generator
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on secure random numbers, and on hooks of torch
        engine = PrivacyEngine(accountant="rdp")
        private, optimizer, loader = engine.make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
            data_loader=loader,
            noise_multiplier=noise,
            max_grad_norm=max_grad_norm,
            poisson_sampling=True,
            noise_generator=generator,
        )
        done = 0
        while done < steps:
            for rows, labels in loader:
                optimizer.zero_grad()
                F.cross_entropy(private(rows), labels).backward()
                optimizer.step()
                if (done := done + 1) == steps:
                    break
        spent = engine.get_epsilon(delta)
    private.remove_hooks()
    return float(spent)


def train_plain(model: nn.Module, X: torch.Tensor, y: torch.Tensor, *, steps: int, lr: float) -> None:
    """Adam on all rows at once, in place: as few rows as these need no batches."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(X), y).backward()
        optimizer.step()
