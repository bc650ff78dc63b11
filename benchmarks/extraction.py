"""What chapter 6.5 was set by: settings and features of relations and roles, on sentences that are in no exam.

Run as ``python -m benchmarks.extraction [--out FILE]``. No test set is read here.

- Relations: sentences of 23 and 24 January, picked as the exam's were, labelled by distant supervision with the facts
  of 1 to 24 January. Such labels are guesses: they rank settings, they measure nothing. Lowest log loss wins.
- Roles: the 280 labelled training sentences, four folds, each of pages that the others do not hold. Highest F1 wins.
- Groups of features are left out one at a time under the settings that won.

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
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

from sft.crf import CRF, viterbi
from sft.hand_labelled import load_role_sentences
from sft.names import spans
from sft.relations import distant_labels, find_office_sentences, name_pair, pair_features, pattern_pairs
from sft.roles import ROLE_LABELS, pattern_roles, role_labels, to_roles, word_features
from sft.runs import machine

Features = Mapping[str, int]
PAIR_GROUPS = {  # what a feature's name looks like
    "pattern": r".. (shown|taken)",
    "counts": r".. [PT、，] \d",
    "distance": r".. (far|alone) ",
    "characters": r".. .$",
    "two characters": r".. ..$",
    "whole": r".. [^ ]{3,}$",
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


def fit(rows: Iterable[Features], labels: Sequence[Any], C: float):
    """A function from rows to log probabilities, shape (rows, classes), and the classes."""
    vectorizer = DictVectorizer()
    model = LogisticRegression(C=C, max_iter=300).fit(vectorizer.fit_transform(rows), labels)
    return lambda rows: model.predict_log_proba(vectorizer.transform(rows)), list(model.classes_)


def without(group: str | None) -> Callable[[Features], Features]:
    """Leaves out the features whose names match."""
    return lambda row: row if group is None else {k: v for k, v in row.items() if not re.match(group, k)}


def relations() -> Callable[..., float]:
    """Log loss of pairs on the validation sentences, by settings."""
    train = find_office_sentences("train")
    dev = find_office_sentences("validation", max_chars=110, min_pairs=2, max_pairs=16)  # as the exam's
    facts = Counter(name_pair(s, pair) for s in train for pair in pattern_pairs(s))
    more = facts + Counter(name_pair(s, pair) for s in dev for pair in pattern_pairs(s))
    table = [(pair_features(s), s) for s in train]
    exam = [(pair_features(s), distant_labels(s, more, _famous(more, 8))) for s in dev]
    truth = [label for _, labels in exam for label in labels.values()]
    print(f"relations: {len(dev)} sentences, {len(truth)} pairs with a label, {sum(truth)} of them true")

    def loss(famous_times: int, C: float, group: str | None = None) -> float:
        keep, famous = without(group), _famous(facts, famous_times)
        learn = [(features, distant_labels(s, facts, famous)) for features, s in table]
        rows = [keep(features[pair]) for features, labels in learn for pair in labels]
        predict, _ = fit(rows, [label for _, labels in learn for label in labels.values()], C)
        logs = predict([keep(features[pair]) for features, labels in exam for pair in labels])
        return float(-logs[np.arange(len(truth)), truth].mean())

    return loss


def _famous(facts: Counter, times: int) -> set[str]:
    seen: Counter[str] = Counter()
    for (person, _), n in facts.items():
        seen[person] += n
    return {person for person, n in seen.items() if n >= times}


def roles(folds: int = 4) -> Callable[..., float]:
    """F1 of roles over the folds, by settings; None gives the pattern's."""
    sentences = sorted(load_role_sentences("train"), key=lambda s: s.paragraph)
    tables = [word_features(s) for s in sentences]
    labels = [role_labels(s, s.roles) for s in sentences]
    truth = [set(s.roles.items()) for s in sentences]
    paragraphs = np.array([s.paragraph for s in sentences])
    fold = np.searchsorted(np.quantile(paragraphs, np.arange(1, folds) / folds), paragraphs)

    def f1(found: Sequence[set]) -> float:
        hits = sum(len(a & b) for a, b in zip(found, truth, strict=True))
        return 2 * hits / sum(len(a) + len(b) for a, b in zip(found, truth, strict=True))

    def score(C: float | None, group: str | None = None) -> float:
        if C is None:
            return f1([set(pattern_roles(s).items()) for s in sentences])
        rows = [list(map(without(group), table)) for table in tables]
        found: list[set] = [set()] * len(sentences)
        for k in range(folds):
            inside, outside = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
            predict, classes = fit(
                [row for i in outside for row in rows[i]], [label for i in outside for label in labels[i]], C
            )
            kept = [label for label in ROLE_LABELS if label in classes]
            columns = [classes.index(label) for label in kept]
            for i in inside:
                logs = torch.tensor(predict(rows[i])[:, columns], dtype=torch.float32)[None]
                path = viterbi(_bio_rules(kept), logs, torch.ones(logs.shape[:2], dtype=torch.bool))[0]
                found[i] = set(to_roles(sentences[i], spans([kept[label] for label in path])).items())
        return f1(found)

    return score


def _bio_rules(labels: Sequence[str]) -> CRF:
    """As the chapter has them: I- only after the same type."""
    rules = CRF(len(labels)).requires_grad_(False)
    for j, now in enumerate(labels):
        wrong = [now[0] == "I" and last[2:] != now[2:] for last in labels]
        rules.step[:, j] = -1e4 * torch.tensor(wrong, dtype=torch.float32)
        rules.first[j] = -1e4 * (now[0] == "I")
    return rules


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
        "roles": compare(by_role, product((0.03, 0.1, 0.3, 1.0)), WORD_GROUPS, max),
        "pattern": by_role(None),
        "machine": machine(),
    }
    arguments.out.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
