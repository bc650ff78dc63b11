"""The page 复现看板, and the boxes with verdicts on other pages of the site: MyST Markdown, no script."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from harness.archive.recorded import Manifest, RunResult
from harness.model import FINISHED, JobResult, Outcome
from harness.report.fill import fill, myst_text
from harness.report.history import Background
from harness.report.view import TEMPLATES, Count, JobView, VerdictView, View, count_verdicts
from harness.report.words import Words
from harness.wording import Language, one_line

MARKER = "<!-- harness:dashboard -->"
"""Stands in the page's source where the generated part goes."""

LAST_RUN = "<!-- harness:last-run -->"
"""Stands in any page where the last run's verdicts in a few lines go."""

TIME = re.compile(r"<!-- harness:time (\d+) -->")
"""Stands where the time goes that the chapter of this number takes."""

_HISTORY = 10
_READ_A_MINUTE: Mapping[Language, int] = {"zh": 250, "en": 120}
"""Characters, words of a text that one learns from."""


def mark(one: Count | JobView | VerdictView) -> str:
    """Symbol and word, coloured by class: colour alone never says it."""
    number = f" {one.number}" if isinstance(one, Count) else ""
    return mark_of(f"{one.words}{number}", one.kind)


def mark_of(words: str, kind: str) -> str:
    """*words* in the colour of a judgement."""
    return f"[{words}]{{.verdict .verdict-{kind}}}"


def counts_text(
    run: RunResult, words: Words, chapter: str | None = None, *, worst_first: bool = False
) -> str:
    """“✓ 通过 5 · ✗ 未通过 1”, of one *chapter* or of all: only what occurs, the good first if not *worst_first*."""
    mine = [verdict for verdict in run.verdicts if chapter in (None, verdict.chapter)]
    counts = count_verdicts(mine, words)
    if worst_first:
        counts.sort(key=Count.rank)
    return " · ".join(map(mark, counts)) or words.without_claims


def commit_text(manifest: Manifest, words: Words) -> str:
    """Short commit in code style, marked when the tree held more than the commit."""
    if not manifest.commit:
        return words.no_commit
    return f"`{manifest.commit[:10]}`" + (words.uncommitted if manifest.dirty else "")


def chapter_anchor(chapter: str) -> str:
    """Identifier of a chapter's section on the page."""
    return f"claims-{chapter}"


def card(lines: Sequence[str], *, good: bool = True) -> str:
    """A box of paragraphs; one that is not good warns."""
    warn = "" if good else " run-card-warn"
    return "\n".join([f":::{{container}} run-card{warn}", "\n\n".join(lines), ":::"])


def render(
    run: RunResult, titles: Mapping[str, str], known: Background | None = None, language: Language = "zh"
) -> str:
    """The generated part of the page.

    Args:
        titles: a chapter's name -> its heading.
        known: earlier runs of the same profile, and values of the reference runs.
    """
    view, manifest = View(run, language, known), run.manifest
    words = view.words
    facts = (
        words("of_profile", manifest.profile),
        words.moment_of(manifest.started),
        words.machine_of(manifest),
        words("took", view.seconds),
        words("of_commit", commit_text(manifest, words)),
        words("of_run", manifest.run),
    )
    return fill(
        TEMPLATES / "dashboard.md.j2",
        view=view,
        w=words,
        titles=titles,
        style=_style(),
        summary=card(
            [f"**{view.headline}**", counts_text(run, words), view.hardware_sentence, " · ".join(facts)],
            good=not view.broken and not view.needs_attention(view.verdicts),
        ),
        drawn=any(v.observed and v.outcome is not Outcome.NOT_APPLICABLE for v in run.verdicts),
        most_runs=_HISTORY,
        anchor=chapter_anchor,
        mark=mark,
        figures=_figures,
        kinds=view.worst_counts,
        counts_of=lambda chapter: counts_text(run, words, chapter, worst_first=True),
        html=lambda part, **values: _html(part, view=view, w=words, **values),
    )


def _html(part: str, **values: Any) -> str:
    """A *part* of the page as HTML on one line: a blank line would end it."""
    text = fill(TEMPLATES / "board.html.j2", part=part, **values)
    return "".join(line.strip() for line in text.splitlines())


def _style() -> str:
    """The style sheet of the page, in the page: any book has it."""
    rules = [(TEMPLATES / name).read_text(encoding="utf-8") for name in ("board.css", "filter.css")]
    return "<style>\n" + "\n".join(line for line in "".join(rules).splitlines() if line) + "\n</style>"


def _figures(view: View, verdicts: Sequence[VerdictView]) -> Iterator[tuple[str, str]]:
    """Caption and figures of each claim that has any, but for those that are told in full."""
    for verdict in verdicts:
        if view.needs_attention([verdict]):
            continue
        if figures := "".join(view.figures(verdict.verdict)):
            yield f"{verdict.words} {html.escape(one_line(verdict.verdict.title))}", figures


# --- on other pages ------------------------------------------------------------------------------------


def last_run(
    run: RunResult | None,
    titles: Mapping[str, str],
    link: str = "",
    copies: Mapping[str, str] = MappingProxyType({}),
    changed: Collection[str] = (),
    language: Language = "zh",
) -> str:
    """What a front page says: verdict counts, when, on what, and which chapters have no numbers to show, or old ones.

    Args:
        run: None where there is no run.
        titles: a chapter's name -> its heading, for all chapters of the book.
        link: target of the dashboard's page, where there is one.
        copies: of the book to take along, by kind: their addresses.
        changed: names of chapters whose code is no longer the code that ran.
    """
    words = Words(language)
    if run is None:
        return card([words.no_numbers], good=False)
    board = f" · [{words.dashboard}]({link})" if link else ""
    lines = [f"{words.numbers} {counts_text(run, words)}{board}"]
    jobs = [job for job in run.jobs if job.chapter]
    finished = {
        job.chapter: job.state in FINISHED for job in sorted(jobs, key=lambda job: job.state not in FINISHED)
    }
    broken = [title for name, title in titles.items() if not finished.get(name, True)]
    absent = [title for name, title in titles.items() if name not in finished]
    old = [title for name, title in titles.items() if name in changed]
    for what, chapters in ((words.not_finished, broken), (words.not_run, absent), (words.changed_since, old)):
        if chapters:
            lines.append(f"**{what}**{words.colon}{myst_text(words.list_comma.join(chapters))}")
    lines.append(" · ".join([*_made(run.manifest, jobs, words), *_kept(jobs, words)]))
    if copies:
        links = words.list_comma.join(f'<a href="{address}">{kind}</a>' for kind, address in copies.items())
        lines.append(words("take_along", links))
    return card(lines, good=not (absent or broken or old))


def _made(manifest: Manifest, jobs: Sequence[JobResult], words: Words) -> list[str]:
    """When and on what the numbers were made, and how long that took: of a chapter taken from the cache, then."""
    starts = sorted(job.started for job in jobs if job.started) or [manifest.started]
    first, last = words.day_of(starts[0]), words.day_of(starts[-1])
    return [
        words("made", first if first == last else words("from_to", first, last)),
        words.machine_of(manifest),
        words("of_profile", manifest.profile),
        words("all_took", words.took_time(sum(job.seconds for job in jobs))),
        words("of_commit", commit_text(manifest, words)),
    ]


def _kept(jobs: Sequence[JobResult], words: Words) -> list[str]:
    """How many chapters have their results of an earlier run, and since when."""
    cached = [job for job in jobs if job.cached_from]
    if not cached:
        return []
    chapters = len({job.chapter for job in cached})
    since = min((job.started for job in cached if job.started), default="")
    return [words("kept_since", chapters, words.moment_of(since)) if since else words("kept", chapters)]


def time_text(run: RunResult | None, chapters: Mapping[str, int], language: Language = "zh") -> str:
    """How long it takes to read *chapters* (name -> length of prose, see _READ_A_MINUTE) and how long they ran."""
    if not chapters:
        return "—"
    words = Words(language)
    minutes = max(10, round(sum(chapters.values()) / _READ_A_MINUTE[language] / 10) * 10)
    taken: dict[str, float] = {}
    for job in run.jobs if run else ():
        if job.chapter in chapters and job.state in FINISHED:
            taken.setdefault(job.chapter, job.seconds)  # the first seed, which the chapter shows
    if taken.keys() != chapters.keys():
        return words("reading", minutes)
    return words("reading_and_running", minutes, words.took_time(sum(taken.values())))
