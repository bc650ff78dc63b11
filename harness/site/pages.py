"""Make the notebook that the site shows: the chapter's text, the run's outputs, a box that says so.

Pure functions on notebooks as plain JSON. Nothing is shown as newer than it is: outputs go under the
chapter's present text only where the code is the code that ran; otherwise the whole executed notebook
is shown and the box says that the source has changed since.
"""

from __future__ import annotations

import copy
import hashlib
import html
import re
from binascii import a2b_base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.archive.recorded import Manifest, RunResult
from harness.book.notebook import COLAB_TAG, PAPERMILL_TAGS, text_of
from harness.book.parameters import SET_BY_HARNESS
from harness.model import FINISHED, METRIC_MIME, JobResult, Outcome, Verdict, worst_of
from harness.report import dashboard
from harness.report.view import verdict_rounding
from harness.report.words import Words
from harness.wording import Language, format_memory, rounding

Notebook = dict[str, Any]

_KEPT_METADATA = ("tags", "mystnb")
_LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/svg+xml")
_HEADING = re.compile(r"^# .+$", re.MULTILINE)
_FENCE = re.compile(r"^\s*(```|~~~)")
_CITATION = re.compile(r"\[([^\]]+)\]\((?:\./)?bibliography\.md#([\w:.-]+)\)")
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")

_REST = "-rest"  # after the id of a cell, for what follows its title


@dataclass(frozen=True)
class Evidence:
    """What a run knows of one chapter."""

    run: RunResult
    job: JobResult  # the first of the chapter's
    dashboard: str | None = "reproduction.html"  # from the chapter's page, where the book has such a page

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """On the chapter's claims."""
        return tuple(v for v in self.run.verdicts if v.chapter == self.job.chapter)


def stage(
    source: Notebook, executed: Notebook | None, evidence: Evidence | None, language: Language = "zh"
) -> Notebook:
    """The notebook to publish for *source*, with what *executed* produced if there is a run."""
    words = Words(language)
    shown, stale = combine(source, executed)
    written_in = {**_LANGUAGE, **shown.get("metadata", {}).get("language_info", {})}
    kernel = shown.get("metadata", {}).get("kernelspec")
    metadata = {"language_info": written_in, **({"kernelspec": kernel} if kernel else {})}
    box = banner(evidence, executed is not None, stale, words)
    cells = [_dress(cell, evidence, words) for cell in shown["cells"] if COLAB_TAG not in _tags(cell)]
    return {"cells": insert_after_title(cells, box), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def combine(source: Notebook, executed: Notebook | None) -> tuple[Notebook, bool]:
    """The present text with the run's outputs; the executed notebook and True where code differs."""
    result = copy.deepcopy(source)
    if executed is None:
        for cell in _code_cells(result):
            cell["outputs"], cell["execution_count"] = [], None
        return result, False
    if is_stale(source, executed):
        executed = copy.deepcopy(executed)
        executed["cells"] = [cell for cell in executed["cells"] if not _injected(cell)]
        return executed, True
    for here, there in zip(_code_cells(result), copy.deepcopy(_code_cells(executed)), strict=True):
        here["outputs"], here["execution_count"] = there["outputs"], there["execution_count"]
    return result, False


def is_stale(source: Notebook, executed: Notebook | None) -> bool:
    """Whether the chapter's code is another than the code that ran."""
    if executed is None:
        return False
    return [text_of(cell) for cell in _code_cells(executed)] != [
        text_of(cell) for cell in _code_cells(source)
    ]


def _code_cells(notebook: Notebook) -> list[dict[str, Any]]:
    """The author's, without those that papermill adds."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and not _injected(cell)]


def _injected(cell: Mapping[str, Any]) -> bool:
    return bool(PAPERMILL_TAGS & set(_tags(cell)))


def _tags(cell: Mapping[str, Any]) -> list[str]:
    return list(cell.get("metadata", {}).get("tags", ()))


def insert_after_title(cells: Sequence[dict[str, Any]], box: str) -> list[dict[str, Any]]:
    """Put the box between the first heading and what follows; at the top where there is none."""
    box_cell = {"cell_type": "markdown", "id": "run-card", "metadata": {}, "source": box}
    for index, cell in enumerate(cells):
        heading = _HEADING.search(text_of(cell)) if cell["cell_type"] == "markdown" else None
        if heading:
            text = text_of(cell)
            rest = text[heading.end() :].strip()
            after = [{**cell, "id": f"{cell.get('id', 'title')}{_REST}", "source": rest}] if rest else []
            title = {**cell, "source": text[: heading.end()]}
            return [*cells[:index], title, box_cell, *after, *cells[index + 1 :]]
    return [box_cell, *cells]


def place_in(source: Notebook, staged: Mapping[str, Any], line: int) -> str:
    """Where line *line* of a staged cell stands in the chapter, as ``, cell maths, line 3``.

    Raises:
        LookupError: no cell of the chapter became this one.
    """
    name = str(staged.get("id", "")).removesuffix(_REST)
    cell = next((cell for cell in source["cells"] if cell.get("id") == name), None)
    if cell is None:
        raise LookupError(name)
    longer = len(text_of(cell).splitlines()) - len(text_of(staged).splitlines())
    line += max(longer, -1)  # staged without the title, or with a fold around it
    return _place(name, max(line, 1))


def find_citation(source: Notebook, key: str) -> str:
    """Where a chapter first cites *key*, as :func:`place_in` writes it; empty where it does not."""
    for number, cell in enumerate(source["cells"], 1):
        for line, text in enumerate(text_of(cell).splitlines(), 1):
            if any(found[2] == key for found in _CITATION.finditer(text)):
                return _place(cell.get("id") or str(number), line)
    return ""


def _place(cell: str, line: int) -> str:
    return f", cell {cell}, line {line}"


def banner(evidence: Evidence | None, has_outputs: bool, stale: bool, words: Words) -> str:
    """The box under a chapter's title, as MyST."""
    if evidence is None:
        return dashboard.card([words.never_ran], good=False)
    run, job, lines = evidence.run, evidence.job, []
    good = job.state in FINISHED
    if not good:
        reason = words("because", job.reason.replace("`", " ")) if job.reason else ""
        shown = words.shown_until if has_outputs else words.shown_none
        state = dashboard.mark_of(words.state_words(job.state), Outcome.FAIL)
        lines.append(words("did_not_finish", state, shown, reason))
    elif not has_outputs:
        lines.append(words.left_nothing)
    if stale:
        lines.append(words.stale)
    counts = dashboard.counts_text(run, words, job.chapter)
    if evidence.dashboard and job.chapter:
        counts += f" · [{words.dashboard}](#{dashboard.chapter_anchor(job.chapter)})"
    lines += [counts, _run_line(job, run.manifest, words)]
    return dashboard.card(lines, good=good and not stale and has_outputs)


def _run_line(job: JobResult, manifest: Manifest, words: Words) -> str:
    changed = [f"`{k} = {v!r}`" for k, v in job.parameters.items() if k not in SET_BY_HARNESS]
    parts = [
        words("of_profile", job.profile),
        *changed,
        *([] if job.seed is None else [words("of_seed", job.seed)]),
        words.machine_of(manifest),
        words("took", words.took_time(job.seconds)),
        words("of_memory", format_memory(job.peak_rss_mb)),
        words.moment_of(job.started or manifest.started),
        words("of_commit", dashboard.commit_text(manifest, words)),
        *([words("kept_from", job.cached_from)] if job.cached_from else []),
    ]
    return " · ".join(parts)


_FOLDED = {
    "solution": ("solution", "hide_solution"),
    "setup": ("setup", "hide"),
    "parameters": ("parameters", "parameters"),
}
"""Tag of a cell that the site folds -> the words for what the fold says closed and open."""


def _dress(cell: dict[str, Any], evidence: Evidence | None, words: Words) -> dict[str, Any]:
    """One cell as the site wants it: machinery and solutions folded, described figures, readable metrics."""
    metadata = {k: v for k, v in cell.get("metadata", {}).items() if k in _KEPT_METADATA}
    source, fold = text_of(cell), next((tag for tag in _tags(cell) if tag in _FOLDED), None)
    dressed = {**cell, "metadata": metadata, "source": source}
    if cell["cell_type"] == "markdown":
        if fold:
            dressed["source"] = f"::::::{{dropdown}} {words(_FOLDED[fold][0])}\n{source}\n::::::"
        return dressed
    if cell["cell_type"] != "code":
        return dressed
    if fold:
        metadata["tags"] = [*metadata.get("tags", ()), "hide-cell"]
        prompts = dict(zip(("code_prompt_show", "code_prompt_hide"), map(words, _FOLDED[fold]), strict=True))
        metadata["mystnb"] = {**prompts, **metadata.get("mystnb", {})}
    outputs = cell.get("outputs", [])
    texts = {digest: text for output in outputs for digest, text in figure_texts(output).items()}
    if texts:
        metadata["figure_alt"] = texts
    dressed["outputs"] = [_show_metric(output, evidence, words) for output in outputs]
    return dressed


def figure_texts(output: Mapping[str, Any]) -> dict[str, str]:
    """Alternative text by SHA-256 of the image, from ``display(fig, metadata={"image/png": {"alt": …}})``."""
    texts = {}
    for mime in _IMAGES:
        content = text_of(output.get("data", {}), mime)
        metadata = output.get("metadata", {})
        alt = metadata.get(mime, {}).get("alt") or metadata.get("alt")
        if content and alt:
            lines = "\n".join(content.splitlines()).encode()
            data = lines if mime == "image/svg+xml" else a2b_base64(content)
            texts[hashlib.sha256(data).hexdigest()] = str(alt)
    return texts


def _show_metric(output: dict[str, Any], evidence: Evidence | None, words: Words) -> dict[str, Any]:
    """Turn the private MIME type of ``record`` into a line with the claim's verdict."""
    metric = output.get("data", {}).get(METRIC_MIME)
    if metric is None:
        return output
    interval = tuple(metric["interval"]) if metric.get("interval") else None
    mine = [v for v in evidence.verdicts if v.claim == metric["name"]] if evidence else []
    rounded = rounding(metric.get("unit", ""), (metric["value"],), interval)
    if interval is None:  # to the place where its verdict has it
        rounded = next((verdict_rounding(v) for v in mine if v.interval and v.unit == rounded.unit), rounded)
    shown = rounded.number(metric["value"])
    facts = [f"n = {metric['n']}"] if metric.get("n") is not None else []
    facts += [str(metric["split"])] if metric.get("split") else []
    if interval:
        facts.append(words("interval_of", rounded.range(interval)))
    aside = words("aside", html.escape(words.comma.join(facts)))
    name, small = html.escape(metric["name"]), f" <small>{aside.strip()}</small>" if facts else ""
    line = f'<p class="recorded">{words.recorded} <code>{name}</code> = {html.escape(shown)}{small}'
    line += _verdict_link(metric["name"], evidence, words) + "</p>"
    return {"output_type": "display_data", "data": {"text/html": line}, "metadata": {}}


def _verdict_link(name: str, evidence: Evidence | None, words: Words) -> str:
    """The worst of what was judged of a claim: one reference may hold where another, or a seed, does not."""
    mine = [v for v in evidence.verdicts if v.claim == name] if evidence else []
    worst = worst_of(mine)
    if worst is None or worst is Outcome.UNEXPECTED:
        return ""
    said = words.outcome_words(worst)
    mark = f"verdict verdict-{worst.value}"
    if evidence is None or not evidence.dashboard:
        return f' <span class="{mark}">{said}</span>'
    anchor = dashboard.chapter_anchor(mine[0].chapter)
    return f' <a class="{mark}" href="{html.escape(evidence.dashboard)}#{anchor}">{said}</a>'


def cite(markdown: str, keys: frozenset[str]) -> str:
    """Make ``[Devlin 等，2019](bibliography.md#devlin2019bert)`` lead to that very entry.

    Raises:
        KeyError: no such entry.
    """

    def link(found: re.Match[str]) -> str:
        text, key = found.groups()
        if key not in keys:
            raise KeyError(key)
        return f'<a class="cite" href="bibliography.html#ref-{key}">{html.escape(text)}</a>'

    return _outside_fences(markdown, lambda line: _CITATION.sub(link, line))


def rewrite_links(markdown: str, target: Callable[[str], str]) -> str:
    """Apply *target* to every inline link outside code fences."""
    return _outside_fences(markdown, lambda line: _LINK.sub(lambda link: target(link[1]), line))


def _outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    lines, fence = [], ""
    for line in markdown.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if mark:
            fence = "" if fence == mark[1] else (fence or mark[1])
        lines.append(line if fence else change(line))
    return "".join(lines)
