"""Who does what to whom, around 把 and 被: a pattern on words and parts of speech, and roles as BIO labels of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sft.hand_labelled import ROLES, RoleSentence, Span

_MARKS = "，。；：！？"

ROLE_LABELS = ("O", *(f"{mark}-{role}" for role in ROLES for mark in "BI"))


def subject_before(words, marker):
    """Words of the subject of the clause that 把 or 被 stands in: from the last mark, without adverbs and the like."""
    start = stop = marker
    while start and words[start - 1][0] not in "，。；：！？“”（）":
        start -= 1
    while start < stop and words[stop - 1][1][0] in "dvpucat":
        stop -= 1
    while start < stop and words[start][1][0] in "cdp":
        start += 1
    return start, stop


def pattern_roles(sentence):
    """Roles by the shape of the clause: subject, 把, patient, verb; subject, 被, agent, verb."""
    words, ends = sentence.words, word_ends(sentence)
    marker = ends.index(sentence.marker)
    spans = {"agent": subject_before(words, marker)}
    is_ba = words[marker][0] == "把"
    for verb in range(marker + 1 + is_ba, len(words)):  # 把 wants a word between
        if words[verb][0] in "，。；！？":
            break
        if words[verb][1] in ("v", "v" if is_ba else "vn") and words[verb + 1 : verb + 2] != (("的", "u"),):
            end = verb
            while words[end - 1][1][0] in "dpcu" and end > marker + 1:
                end -= 1
            spans |= {"predicate": (verb, verb + 1), "patient": (marker + 1, end)}
            break
    if not is_ba:
        spans["agent"], spans["patient"] = spans.get("patient", (0, 0)), spans["agent"]
    return {role: (ends[a], ends[b]) for role, (a, b) in spans.items() if a < b}


def word_ends(sentence: RoleSentence) -> list[int]:
    """Where each word begins, in characters, and where the last one ends."""
    ends = [0]
    for word, _ in sentence.words:
        ends.append(ends[-1] + len(word))
    return ends


def role_labels(sentence: RoleSentence, roles: Mapping[str, Span]) -> list[str]:
    """BIO labels of the words; where roles overlap the later one of agent, predicate, patient wins."""
    ends = word_ends(sentence)
    labels = ["O"] * len(sentence.words)
    for role in ROLES:
        if role in roles:
            start, stop = (ends.index(place) for place in roles[role])
            labels[start:stop] = [f"B-{role}", *[f"I-{role}"] * (stop - start - 1)]
    return labels


def word_features(sentence: RoleSentence) -> list[dict[str, int]]:
    """Features of each word, a dict of name to 1: words, parts of speech and the pattern's answer near it, its place.

    Most stand three times: as they are, with 把 or 被, and with the side of it that the word stands on.
    """
    n, marker = len(sentence.words), word_ends(sentence).index(sentence.marker)
    words = [("^", "^")] * 2 + list(sentence.words) + [("$", "$")] * 2
    pattern = ["O"] * 2 + role_labels(sentence, pattern_roles(sentence)) + ["O"] * 2
    marks = [i for i, (word, _) in enumerate(sentence.words) if word in _MARKS]
    verb = next((i - 2 for i, label in enumerate(pattern) if label == "B-predicate"), None)
    features = []
    for i in range(n):
        pauses = min(3, sum(min(i, marker) < mark < max(i, marker) for mark in marks))
        tag, says = words[i + 2][1], pattern[i + 2]
        found = {f"tag{k} {words[i + 2 + k][1]}" for k in (-2, -1, 0, 1, 2)}
        found |= {f"pattern{k} {pattern[i + 2 + k]}" for k in (-2, -1, 0, 1, 2)}
        found |= {f"tags-1 {words[i + 1][1]} {tag}", f"tags+1 {tag} {words[i + 3][1]}"}
        found |= {f"pauses {pauses}", f"far {max(-6, min(6, i - marker))}", f"pauses {pauses} tag {tag}"}
        found |= {f"pauses {pauses} pattern {says}", f"begins {i == 0 or i - 1 in marks} {pauses}"}
        found |= {f"verb before {any(t == 'v' for _, t in sentence.words[marker + 1 : i])}"}
        found |= {f"的 ahead {('的', 'u') in sentence.words[i : i + 6]}"}
        if verb is not None:
            found |= {f"from verb {max(-4, min(4, i - verb))}", f"past verb {i > verb} tag {tag}"}
        side = words[marker + 2][0] + "LMR"[(i > marker) - (i < marker) + 1]
        every = [name for one in sorted(found) for name in (one, side[0] + one, side + one)]
        near = [f"{side} word{k} {words[i + 2 + k][0]}" for k in (-1, 0, 1)]
        features.append(dict.fromkeys(every + near, 1))
    return features


def to_roles(sentence: RoleSentence, spans: Sequence[tuple[int, int, str]]) -> dict[str, Span]:
    """Spans of words as roles in characters: of several spans of a role the one nearest to 把 or 被."""
    ends = word_ends(sentence)
    found = [(ends[start], ends[stop], role) for start, stop, role in spans]
    found.sort(key=lambda span: -max(span[0] - sentence.marker, sentence.marker - span[1]))
    return {role: (start, stop) for start, stop, role in found}
