"""`sft/spreadsheet.py`: a stranger's text never becomes a formula, and comes back as it was."""

from __future__ import annotations

import csv
import io

import pytest

from sft.spreadsheet import escape_formula, unescape_formula, write_csv

DANGEROUS = ('=cmd|"/c calc"!A1', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-", "=")
HARMLESS = ("", "好", "a=b", "-1", "+5", "-1.5e-3", "12%", "-12%", "'quoted'", "1-2")


@pytest.mark.parametrize("text", DANGEROUS)
def test_a_formula_gets_an_apostrophe(text):
    assert escape_formula(text) == "'" + text


@pytest.mark.parametrize("text", HARMLESS)
def test_words_and_numbers_stay(text):
    assert escape_formula(text) == text


@pytest.mark.parametrize("text", [*DANGEROUS, *HARMLESS, "'=1", "''=1", "'-5"])
def test_unescaping_gives_back_what_was_written(text):
    assert unescape_formula(escape_formula(text)) == text


def test_a_table_is_escaped_in_its_header_too():
    file = io.StringIO(newline="")
    write_csv(file, ["=a", "n"], [["一\n二,三", -1], [None, "@x"]])
    assert list(csv.reader(io.StringIO(file.getvalue(), newline=""))) == [
        ["'=a", "n"],
        ["一\n二,三", "-1"],
        ["", "'@x"],
    ]
