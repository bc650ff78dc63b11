"""Near repeats of many texts at once, and splits in proportion."""

from __future__ import annotations

import numpy as np
import pytest

from sft import repeats

ALPHABETS = (
    "甲乙",
    "甲乙丙丁！，",
    "甲𠮷乙😀_ ",
    "ab…½ﾞカ①Σsσ\u0301é한\u1100\u1161",  # of these some become several characters, or compose with their neighbours
)


def random_texts(rng: np.random.Generator, alphabet: str) -> list[str]:
    lengths = rng.integers(0, 30, rng.integers(1, 60))
    return ["".join(rng.choice(list(alphabet), length)) for length in lengths]


@pytest.mark.parametrize("alphabet", ALPHABETS)
@pytest.mark.parametrize("at_once", [(5_000, 1 << 23), (7, 50)])
def test_hashes_of_runs_give_the_groups_of_the_runs(monkeypatch, alphabet: str, at_once: tuple[int, int]):
    monkeypatch.setattr(repeats, "_TEXTS_AT_ONCE", at_once[0])
    monkeypatch.setattr(repeats, "_RUNS_AT_ONCE", at_once[1])
    rng = np.random.default_rng(0)
    for window in (3, 5, 8, 12, 24):
        texts = random_texts(rng, alphabet)
        expected = repeats.linked_groups(repeats.runs(text, window) for text in texts)
        assert repeats.near_duplicate_groups(iter(texts), window).tolist() == expected.tolist()


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_hashes_of_texts_are_equal_where_normalised_texts_are(monkeypatch, alphabet: str):
    monkeypatch.setattr(repeats, "_TEXTS_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    texts = [text for _ in range(20) for text in random_texts(rng, alphabet) if len(text) < 6]
    hashes = repeats.text_hashes(texts)
    keys = [repeats.normalise(text) or ("signs", text.strip()) for text in texts]
    assert len(set(keys)) == len(set(hashes.tolist())) == len(set(zip(keys, hashes.tolist(), strict=True)))
    assert len(set(keys)) < len(texts)


def test_no_texts_have_no_groups():
    assert len(repeats.near_duplicate_groups([])) == len(repeats.text_hashes([])) == 0


def test_parts_keep_the_strata_in_proportion_and_never_divide_a_group():
    rng = np.random.default_rng(0)
    groups = np.unique(rng.integers(0, 400, 600), return_inverse=True)[1]
    strata = rng.choice(3, size=groups.max() + 1, p=[0.1, 0.3, 0.6])[groups]
    part = repeats.stratified_split(groups, strata, [120, 60], seed=0)
    assert (part == repeats.stratified_split(groups, strata, [120, 60], seed=0)).all()
    assert (part != repeats.stratified_split(groups, strata, [120, 60], seed=1)).any()
    assert all(len(set(part[groups == group])) == 1 for group in range(groups.max() + 1))
    for number, size in ((1, 120), (2, 60)):
        assert (part == number).sum() == pytest.approx(size, abs=3)
        shares = np.bincount(strata[part == number], minlength=3) / size
        assert shares == pytest.approx(np.bincount(strata) / 600, abs=0.03)


def test_a_large_group_is_left_over_and_a_rare_stratum_is_in_every_part():
    groups = np.array([0] * 50 + list(range(1, 51)))
    strata = np.array([0] * 97 + [1] * 3)
    part = repeats.stratified_split(groups, strata, [20, 10], seed=0)
    assert set(part[:50]) == {0}
    assert sorted(part[97:]) == [0, 1, 2]
    assert np.bincount(part).tolist() == [70, 20, 10]


@pytest.mark.parametrize(
    ("groups", "strata", "expected"),
    [
        ([0, 0, 0], [0, 0, 0], [3]),  # one group cannot be divided
        ([0, 0, 1, 1], [0, 0, 0, 0], [2, 2]),  # larger than its part, yet the part must not be empty
    ],
)
def test_groups_that_are_larger_than_a_part(groups: list[int], strata: list[int], expected: list[int]):
    part = repeats.stratified_split(np.array(groups), np.array(strata), [1], seed=0)
    assert np.bincount(part).tolist() == expected
