"""Who does what to whom, around 把 and 被: a pattern on words and parts of speech, and roles as BIO labels.

Chapter 6.5 writes out ``pattern_roles``; a test holds the sources equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sft.hand_labelled import ROLES, Span

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
    words, ends = sentence.words, [0]
    for word, _ in words:
        ends.append(ends[-1] + len(word))
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


def role_labels(text: str, roles: Mapping[str, Span]) -> list[str]:
    """BIO labels of the characters; where roles overlap the later one of agent, predicate, patient wins."""
    labels = ["O"] * len(text)
    for role in ROLES:
        if role in roles:
            start, stop = roles[role]
            labels[start:stop] = [f"B-{role}", *[f"I-{role}"] * (stop - start - 1)]
    return labels


def first_of_each(spans: Sequence[tuple[int, int, str]], marker: int) -> dict[str, Span]:
    """Of several spans of a role the one nearest to the marker."""
    near = sorted(spans, key=lambda span: -max(span[0] - marker, marker - span[1]))
    return {role: (start, stop) for start, stop, role in near}
