"""Questions about names in a newspaper and the spans that answer them, with questions that the text does not answer.

A holder is a place or an organisation, an office and a person in a row, as the newspaper's tags show them: 法国 外长
韦德里纳. It answers two questions, who holds the office and where; turned about, it makes questions that sound alike
and have no answer in the text (Rajpurkar et al. 2018, arXiv:1806.03822, SQuAD 2.0). A model sees the text alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from datasets import Dataset, load_dataset
from torch.utils.data import DataLoader
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from sft.corpora import character_labels, cut_places
from sft.fine_tuning import Collate
from sft.hub import locate
from sft.training import autocast

KINDS: Mapping[str, tuple[str, ...]] = {"谁": ("PER",), "哪里": ("LOC", "ORG")}
"""What a question asks for, and the names that can answer it."""

_OFFICES = (
    "长", "主席", "总理", "总统", "主任", "书记", "大使", "经理", "发言人", "首相", "大臣", "总裁", "国务卿", "委员",
    "领导人", "特使", "教练", "教授", "研究员", "司令", "司令员", "选手", "名将", "演员", "作家", "画家", "农民",
    "村民", "职工", "司机", "工程师", "总编辑",
)  # fmt: skip
_OFFICE_TAGS = {"n", "b", "vn", "j"}
_NAME_TAGS = {"ns", "nt"}


@dataclass(frozen=True)
class Name:
    """A name in a text: characters ``start`` to ``stop``, PER, LOC or ORG."""

    start: int
    stop: int
    type: str


@dataclass(frozen=True)
class Question:
    """A question about a text; ``answer`` is empty and ``start`` −1 where the text does not tell.

    ``words`` (what the question names) and ``names`` (the text's true names) are for rules; a model must find both.
    """

    context: str
    question: str
    answer: str = ""
    start: int = -1
    kind: str = ""
    words: tuple[str, ...] = ()
    names: tuple[Name, ...] = ()


@dataclass(frozen=True)
class Holder:
    """Place or organisation, office and person, and where in the paragraph they stand."""

    where: str
    office: str
    person: str
    start: int
    office_start: int
    person_start: int

    @property
    def stop(self) -> int:
        return self.person_start + len(self.person)


# --- making questions ----------------------------------------------------------------------------------


def find_holders(tokens: Sequence[str], tags: Sequence[str]) -> list[Holder]:
    """The holders of a paragraph.

    Several persons behind one office (部长 甲、乙) are left out: who is meant is open.
    """
    offsets = np.cumsum([0, *map(len, tokens)]).tolist()
    labels = character_labels(list(tokens), list(tags))
    holders = []
    for i, tag in enumerate(tags):
        if tag != "nr" or labels[offsets[i]] != "B-PER" or i == 0 or not tokens[i - 1].endswith(_OFFICES):
            continue
        first = i - 1
        while first > 0 and tags[first] in _OFFICE_TAGS and i - first <= 4:
            first -= 1
        stop = i + 1
        while stop < len(tags) and labels[offsets[stop]] == "I-PER":
            stop += 1
        listed = [tokens[stop] == "、" and tags[stop + 1] == "nr" for stop in [stop] if stop + 1 < len(tags)]
        if tags[first] in _NAME_TAGS and first < i - 1 and not any(listed):
            parts = (tokens[first], "".join(tokens[first + 1 : i]), "".join(tokens[i:stop]))
            holders.append(Holder(*parts, offsets[first], offsets[first + 1], offsets[i]))
    return holders


def ask(piece: Question, kind: str, named: str, office: str, answer: str = "", start: int = -1) -> Question:
    """The question for who holds an office at a place, or where a person holds it."""
    text = f"{named}的{office}是谁？" if kind == "谁" else f"{named}是哪里的{office}？"
    return replace(piece, question=text, kind=kind, words=(named, office), answer=answer, start=start)


def make_questions(
    rows: Mapping[str, Sequence], rng: np.random.Generator, *, max_chars: int = 64
) -> list[Question]:
    """Questions about pieces of at most ``max_chars`` characters.

    For each holder and kind one has an answer and up to two have none, as far as the piece has the words for it.

    A piece holds at least two different names of the kind that is asked for: else nobody need read the question. Both
    words of a question without an answer stand in the text.

    Args:
        rows: columns ``tokens`` and ``tags``, as :func:`sft.corpora.load_people_daily` gives them.
    """
    questions = []
    for tokens, tags in zip(rows["tokens"], rows["tags"], strict=True):
        if not (holders := find_holders(tokens, tags)):
            continue
        text, labels = "".join(tokens), character_labels(tokens, tags)
        for start, stop in cut_places(list(text), labels, max_chars):
            inside = [_moved(h, start) for h in holders if start <= h.start and h.stop <= stop]
            piece = Question(text[start:stop], "", names=tuple(find_names(labels[start:stop])))
            for holder in inside:
                questions += filter(has_choice, _questions_of(piece, holder, inside, rng))
    return list(dict.fromkeys(questions))


def _moved(holder: Holder, by: int) -> Holder:
    return replace(
        holder,
        start=holder.start - by,
        office_start=holder.office_start - by,
        person_start=holder.person_start - by,
    )


def find_names(labels: Sequence[str]) -> Iterable[Name]:
    """The names that BIO labels of characters mark."""
    for begin, label in enumerate(labels):
        if label[0] == "B":
            stop = next((i for i in range(begin + 1, len(labels)) if labels[i][0] != "I"), len(labels))
            yield Name(begin, stop, label[2:])


def _questions_of(
    piece: Question, holder: Holder, holders: list[Holder], rng: np.random.Generator
) -> Iterable[Question]:
    """Both questions that a holder answers, and up to four that sound alike and have no answer in the piece."""
    where, office, person = holder.where, holder.office, holder.person
    if len({other.person for other in holders if (other.where, other.office) == (where, office)}) == 1:
        yield ask(piece, "谁", where, office, person, holder.person_start)
    yield ask(piece, "哪里", person, office, where, holder.start)
    spoken = {piece.context[name.start : name.stop]: name for name in piece.names}
    places = [
        place
        for place, name in spoken.items()
        if name.type != "PER"
        and not any(h.where in place or place in h.where for h in holders if h.office == office)
        and not any(name.stop <= h.start <= name.stop + 2 for h in holders)  # 中国 国务院 总理: of both
    ]
    for i in rng.permutation(len(places))[:2]:
        yield ask(piece, "谁", places[i], office)
    persons = [
        other
        for other, name in spoken.items()
        if name.type == "PER"
        and len(other) > 1
        and other not in {h.person for h in holders if h.office == office}
    ]
    persons = [p for p in persons if any(h.person == p for h in holders) or not _is_placed(piece, spoken[p])]
    for i in rng.permutation(len(persons))[:2]:
        yield ask(piece, "哪里", persons[i], office)


def _is_placed(piece: Question, person: Name) -> bool:
    """Whether a place or an organisation stands shortly before a person, so that one may be said to be of it."""
    return any(n.type != "PER" and person.start - 10 < n.stop <= person.start for n in piece.names)


def has_choice(question: Question) -> bool:
    """Whether the text holds at least two different names of the kind that is asked for."""
    return (
        len({question.context[n.start : n.stop] for n in question.names if n.type in KINDS[question.kind]})
        > 1
    )


# --- the rule ------------------------------------------------------------------------------------------


def nearest_name(question: Question, anchor: int = 0, *, abstain: bool = True) -> str:
    """The name of the asked kind nearest to the question's words in the text.

    Args:
        anchor: which of the question's two words to start from.
        abstain: answer nothing when one of the words does not stand in the text.
    """
    context, words = question.context, question.words
    if abstain and not all(word in context for word in words):
        return ""
    at = [match.span() for match in re.finditer(re.escape(words[anchor]), context)]
    names = [
        n
        for n in question.names
        if n.type in KINDS[question.kind] and context[n.start : n.stop] != words[anchor]
    ]
    if not names:
        return ""
    gaps = [min((max(n.start - b, a - n.stop) for a, b in at), default=n.start) for n in names]
    best = names[int(np.argmin(gaps))]
    return context[best.start : best.stop]


# --- questions as the model takes them -----------------------------------------------------------------


def read_questions(rows: Iterable[Mapping]) -> list[Question]:
    """Questions of SQuAD's columns, as CMRC 2018 has them: ``context``, ``question``, ``answers``, the first of these.

    Raises:
        ValueError: with the row's number, a column that is missing, an answer that does not stand where it should.
    """
    return [_question(row, number) for number, row in enumerate(rows)]


def _question(row: Mapping, number: int) -> Question:
    if missing := [
        name for name in ("context", "question", "answers") if not isinstance(row.get(name), str | dict)
    ]:
        raise ValueError(
            f"row {number}: no column {', '.join(missing)}; wanted are context, question, answers"
        )
    texts, starts = (row["answers"].get(name) or [] for name in ("text", "answer_start"))
    if len(texts) != len(starts):
        raise ValueError(
            f"row {number}: {len(texts)} answers and {len(starts)} places; give each answer its place"
        )
    question = Question(row["context"], row["question"], *((texts[0], starts[0]) if texts else ()))
    check_span(question, number)
    return question


def load_questions(repository: str, n: int | None = None) -> tuple[list[Question], int]:
    """The first ``n`` training questions of a hub's data set in SQuAD's columns, and how many were passed over: their
    answer does not stand where they say.

    Raises:
        HubError: the hub does not answer or lacks the data set.
    """
    kept: list[Question] = []
    passed = 0
    for number, row in enumerate(load_dataset(locate(repository, "datasets"), split="train")):
        if len(kept) == n:
            break
        try:
            kept.append(_question(row, number))
        except ValueError:
            passed += 1
    return kept, passed


def load_exam(repository: str, n: int | None = None) -> tuple[list[Question], list[list[str]]]:
    """The first ``n`` validation questions and all answers that count as right; where these stand is not needed.

    Raises:
        HubError: the hub does not answer or lacks the data set.
    """
    rows = load_dataset(locate(repository, "datasets"), split="validation")
    rows = rows.select(range(min(len(rows), n or len(rows))))
    questions = [Question(row["context"], row["question"]) for row in rows]
    return questions, [list(row["answers"]["text"]) or [""] for row in rows]


def check_span(question: Question, row: int) -> None:
    """Raise a ValueError that names the row if the answer does not stand at ``start`` of its text."""
    if not question.answer:
        return
    stands = (
        question.context[question.start : question.start + len(question.answer)]
        if question.start >= 0
        else ""
    )
    if stands == question.answer:
        return
    found = question.context.find(question.answer)
    hint = f"it stands at {found}" if found >= 0 else "it stands nowhere in the text"
    raise ValueError(
        f"row {row}: the answer “{question.answer}” does not stand at character {question.start}, where the text has "
        f"“{stands}”; {hint}; mend answer_start, or leave the answer empty"
    )


def encode_question(
    question: Question,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    stride: int = 0,
    mark_matches: bool = False,
    row: int = 0,
) -> list[dict[str, list]]:
    """Question and text as ids with the tokens where the answer begins and ends, one dict a window of a long text.

    Both are 0, the place of ``[CLS]``, where a window does not hold the whole answer.

    Args:
        mark_matches: give tokens of the text that :func:`matches` finds in the question the segment of the question.

    Returns:
        ``input_ids`` and the like, ``start_positions``, ``end_positions``, ``offsets`` (a pair of characters for each
        token of the text, None for the others).

    Raises:
        ValueError: with the row's number, an answer that does not stand in its text, a question without room for text,
            a tokenizer without segments and matches to mark.
    """
    check_span(question, row)
    if len(tokenizer(question.question)["input_ids"]) + stride + 2 > max_length:
        raise ValueError(
            f"row {row}: the question leaves no room for its text in max_length={max_length}; shorten it"
        )
    encoded = tokenizer(
        question.question,
        question.context,
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    marked = matches(question.question, question.context)
    windows = []
    for i in range(len(encoded["input_ids"])):
        offsets = [
            pair if part == 1 else None
            for pair, part in zip(encoded["offset_mapping"][i], encoded.sequence_ids(i), strict=True)
        ]
        start, end = token_span(offsets, question.start, question.start + len(question.answer))
        names = [name for name in ("input_ids", "token_type_ids", "attention_mask") if name in encoded]
        window = {name: encoded[name][i] for name in names}
        if mark_matches and "token_type_ids" not in window:
            raise ValueError(
                f"row {row}: this tokenizer has no segments to mark matches with; use mark_matches=False"
            )
        if mark_matches:
            segments = zip(window["token_type_ids"], offsets, strict=True)
            window["token_type_ids"] = [
                0 if pair and all(marked[slice(*pair)]) else old for old, pair in segments
            ]
        windows.append(window | {"start_positions": start, "end_positions": end, "offsets": offsets})
    return windows


def matches(question, context):
    """For each character of the text whether it stands in the question together with one of its neighbours."""
    pairs = [context[i : i + 2] in question for i in range(len(context) - 1)]
    beside = zip([False, *pairs], [*pairs, False], strict=True)
    return [before or after for before, after in beside]


def token_span(offsets, start, stop):
    """First and last token of the characters ``start`` to ``stop``; (0, 0) if not all of them are there.

    Args:
        offsets: for each token the characters that it stands for, None outside the text.
    """
    inside = [i for i, pair in enumerate(offsets)
              if pair and start <= pair[0] and pair[1] <= stop]  # fmt: skip
    whole = inside and offsets[inside[0]][0] == start and offsets[inside[-1]][1] == stop
    return (inside[0], inside[-1]) if whole else (0, 0)


def best_span(start_logits, end_logits, offsets, max_tokens=16):
    """The best answer of a window: its score less that of no answer, and its characters.

    Args:
        start_logits, end_logits: (n,) arrays.
        max_tokens: no longer answer is looked for.
    """
    best = (-np.inf, 0, 0)
    for i, pair in enumerate(offsets):
        if not pair:  # no token of the text
            continue
        for j in range(i, min(i + max_tokens, len(offsets))):
            score = start_logits[i] + end_logits[j]
            if offsets[j] and score > best[0]:
                best = (score, pair[0], offsets[j][1])
    return best[0] - (start_logits[0] + end_logits[0]), best[1], best[2]


@torch.inference_mode()
def best_answers(
    model: PreTrainedModel,
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerBase,
    collate: Collate,
    max_length: int,
    *,
    stride: int = 0,
    mark_matches: bool = False,
    max_tokens: int = 16,
    batch_size: int = 32,
) -> list[tuple[float, str]]:
    """For each question the best answer out of its text, and its score less that of no answer.

    Args:
        max_tokens: of an answer.

    Raises:
        ValueError: as :func:`encode_question`.
    """
    model.eval()
    windows = [
        encode_question(q, tokenizer, max_length, stride=stride, mark_matches=mark_matches, row=i)
        for i, q in enumerate(questions)
    ]
    owner = [i for i, parts in enumerate(windows) for _ in parts]
    flat = [window for parts in windows for window in parts]
    best = [(-np.inf, 0, 0)] * len(questions)
    done = 0
    for batch in DataLoader(flat, batch_size, collate_fn=lambda part: collate([inputs(w) for w in part])):
        with autocast(model.device):
            out = model(**BatchEncoding(dict(batch)).to(model.device))
        logits = (table.float().cpu().numpy() for table in (out.start_logits, out.end_logits))
        for start, end in zip(*logits, strict=True):
            found = best_span(start, end, flat[done]["offsets"], max_tokens)
            best[owner[done]] = max(best[owner[done]], found)
            done += 1
    return [(score, q.context[start:stop]) for q, (score, start, stop) in zip(questions, best, strict=True)]


def answer_questions(
    model: PreTrainedModel,
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerBase,
    collate: Collate,
    max_length: int,
    *,
    threshold: float = 0.0,
    **options: int,
) -> list[str]:
    """An answer to each question out of its text; empty where none beats no answer by more than ``threshold``.

    Args:
        options: for :func:`best_answers`.
    """
    scored = best_answers(model, questions, tokenizer, collate, max_length, **options)
    return [text if score > threshold else "" for score, text in scored]


def training_rows(
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    stride: int = 0,
    mark_matches: bool = False,
) -> Dataset:
    """Every window of every question, with the tokens that answer it.

    Raises:
        ValueError: as :func:`encode_question`.
    """
    windows = [
        window
        for i, question in enumerate(questions)
        for window in encode_question(
            question, tokenizer, max_length, stride=stride, mark_matches=mark_matches, row=i
        )
    ]
    return Dataset.from_list([{k: v for k, v in window.items() if k != "offsets"} for window in windows])


def inputs(window: Mapping[str, list]) -> dict[str, list]:
    """What the model takes of a window, without the answer's place."""
    return {
        name: window[name] for name in ("input_ids", "token_type_ids", "attention_mask") if name in window
    }
