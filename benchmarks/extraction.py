"""What chapter 6.5 was set by: settings and features of relations and roles, on sentences that are in no exam.

Run as ``python -m benchmarks.extraction [--out FILE]``. No test set is read here.

- Relations: sentences of 23 and 24 January, picked as the exam's were, labelled by distant supervision with the facts
  of 1 to 24 January. Such labels are guesses: they rank settings, they measure nothing. Lowest log loss wins.
- Roles: the 280 labelled training sentences, four folds, each of pages that the others do not hold. Highest F1 wins.
- Groups of features are left out one at a time under the settings that won. One goes for good if that lowers the log
  loss by more than 0.005 or raises F1: of pairs the characters between person and office went, then each two of them.
  The results keep those two rounds, which this script can no longer run.

Names are set by the chapter itself: ``harness run --chapters 06-5 --param names_split=validation --param lr=…``.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

from sft.crf import bio_rules, viterbi
from sft.hand_labelled import OfficeSentence, Pair, load_role_sentences
from sft.machine import machine
from sft.names import spans
from sft.relations import distant_labels, find_office_sentences, name_pair, pair_features, pattern_pairs
from sft.roles import ROLE_LABELS, pattern_roles, role_labels, to_roles, word_features

PAIR_GROUPS = {  # what a feature's name looks like
    "pattern": r".. (shown|taken)",
    "counts": r".. [PT、，] \d",
    "distance": r".. (far|alone) ",
    "whole": r".. [^ ]{0,6}$",
    "beside": r"[PT] ",
}
WORD_GROUPS = {  # after 把 or 被 and the side of it, which most names have as well
    "pattern": r".*(pattern|verb -?\d|past verb)",
    "words": r".*word-?\d",
    "two tags": r".*tags",
    "tags two away": r".*tag-?2",
    "pauses": r".*(pauses|begins)",
    "distance": r".*(far|verb before)",
    "的 ahead": r".*的 ahead",
    "by side": r"[把被][LMR](?! word)",
    "by 把 or 被": r"[把被](?![LMR])",
}


class Table:
    """Rows of features as a matrix; a group of columns can be left out by the look of their names."""

    def __init__(self, rows: Iterable[Mapping[str, int]]) -> None:
        vectorizer = DictVectorizer()
        self.matrix = vectorizer.fit_transform(rows).tocsc()
        self.names = vectorizer.get_feature_names_out()

    def without(self, group: str | None) -> csr_matrix:
        kept = [i for i, name in enumerate(self.names) if group is None or not re.match(group, name)]
        return self.matrix[:, kept].tocsr()


def fit(X: csr_matrix, y: Sequence[Any], C: float) -> LogisticRegression:
    """The chapter's model. A column that is zero in all of these rows gets the weight zero."""
    return LogisticRegression(C=C, max_iter=300).fit(X, y)


def relations() -> Callable[..., float]:
    """Log loss of pairs on the validation sentences, by settings."""
    train = find_office_sentences("train")
    dev = find_office_sentences("validation", max_chars=110, min_pairs=2, max_pairs=16)  # as the exam's
    facts = Counter(name_pair(s, pair) for s in train for pair in pattern_pairs(s))
    more = facts + Counter(name_pair(s, pair) for s in dev for pair in pattern_pairs(s))
    features = [pair_features(s) for s in train + dev]
    table = Table(row for pairs in features for row in pairs.values())
    numbers = {
        key: i for i, key in enumerate((i, pair) for i, pairs in enumerate(features) for pair in pairs)
    }
    exam = _labels(dev, more, famous_times=8, first=len(train))
    truth = np.array(list(exam.values()))
    print(f"relations: {len(dev)} sentences, {len(truth)} pairs with a label, {truth.sum()} of them true")

    def loss(famous_times: int, C: float, group: str | None = None) -> float:
        X, learn = table.without(group), _labels(train, facts, famous_times)
        model = fit(X[[numbers[key] for key in learn]], list(learn.values()), C)
        logs = model.predict_log_proba(X[[numbers[key] for key in exam]])
        return float(-logs[np.arange(len(truth)), truth].mean())

    return loss


def _labels(
    sentences: Sequence[OfficeSentence], facts: Counter, famous_times: int, first: int = 0
) -> dict[tuple[int, Pair], int]:
    """Distant labels by number of the sentence and pair."""
    seen: Counter[str] = Counter()
    for (person, _), n in facts.items():
        seen[person] += n
    famous = {person for person, n in seen.items() if n >= famous_times}
    return {
        (i, pair): label
        for i, sentence in enumerate(sentences, first)
        for pair, label in distant_labels(sentence, facts, famous).items()
    }


def roles(folds: int = 4) -> Callable[..., float]:
    """F1 of roles over the folds, by settings; None gives the pattern's."""
    sentences = sorted(load_role_sentences("train"), key=lambda s: s.paragraph)
    table = Table(row for s in sentences for row in word_features(s))
    labels = np.array([label for s in sentences for label in role_labels(s, s.roles)])
    sentence_of = np.repeat(np.arange(len(sentences)), [len(s.words) for s in sentences])
    paragraphs = np.array([s.paragraph for s in sentences])
    fold = np.searchsorted(np.quantile(paragraphs, np.arange(1, folds) / folds), paragraphs)
    truth = [set(s.roles.items()) for s in sentences]

    def f1(found: Sequence[set]) -> float:
        hits = sum(len(a & b) for a, b in zip(found, truth, strict=True))
        return 2 * hits / sum(len(a) + len(b) for a, b in zip(found, truth, strict=True))

    def score(C: float | None, group: str | None = None) -> float:
        if C is None:
            return f1([set(pattern_roles(s).items()) for s in sentences])
        X = table.without(group)
        found: list[set] = [set()] * len(sentences)
        for k in range(folds):
            inside = fold[sentence_of] == k
            model = fit(X[~inside], labels[~inside], C)
            kept = [label for label in ROLE_LABELS if label in model.classes_]
            logs = model.predict_log_proba(X[inside])[:, [list(model.classes_).index(x) for x in kept]]
            rules, words = bio_rules(kept), sentence_of[inside]
            for i in np.flatnonzero(fold == k):
                scores = torch.tensor(logs[words == i], dtype=torch.float32)[None]
                path = viterbi(rules, scores, torch.ones(scores.shape[:2], dtype=torch.bool))[0]
                found[i] = set(to_roles(sentences[i], spans([kept[label] for label in path])).items())
        return f1(found)

    return score


def compare(score: Callable[..., float], grid: Iterable[tuple], groups: Mapping[str, str], best) -> dict:
    """The score of every setting of ``grid``, and of the best one without each group of features."""
    found = {}
    for setting in grid:
        found[setting] = score(*setting)
        print(setting, f"{found[setting]:.4f}", flush=True)
    chosen = best(found, key=found.get)
    left_out = {}
    for name, group in groups.items():
        left_out[name] = score(*chosen, group)
        print(chosen, f"without {name}: {left_out[name]:.4f}", flush=True)
    settings = {", ".join(map(str, setting)): value for setting, value in found.items()}
    return {"settings": settings, "chosen": list(chosen), "without": left_out}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/extraction.json"))
    arguments = parser.parse_args()
    by_role = roles()
    print(f"roles, the pattern alone: {by_role(None):.4f}", flush=True)
    report = {
        "relations": compare(relations(), product((4, 8, 16), (0.03, 0.1, 0.3, 1.0)), PAIR_GROUPS, min),
        "roles": compare(by_role, product((0.01, 0.03, 0.1, 0.3)), WORD_GROUPS, max),
        "roles, the pattern alone": by_role(None),
        "machine": machine(),
    }
    arguments.out.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
