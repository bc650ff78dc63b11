"""Make the numbers of a finished run references: the only way in which a claim's blessed values change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.archive.environment import changes
from harness.archive.folder import find_run
from harness.archive.recorded import Manifest, read_manifest, read_run, refuse_shard
from harness.book.claims import claim_path, load_claims
from harness.book.parameters import SET_BY_HARNESS, same_value
from harness.book.references import (
    FOLDER,
    parse_references,
    read_references,
    references_path,
    references_text,
)
from harness.errors import HarnessError
from harness.files import explain_os_error, write_text
from harness.judge.check import not_covered, own_values
from harness.model import FINISHED, Claim, JobResult, Metric, ReferenceRun

if TYPE_CHECKING:
    from harness.book.config import Book

_COMMIT_LENGTH = 10
DIRTY = "-dirty"
"""The end of a commit with changes that were not committed."""


@dataclass(frozen=True)
class Origin:
    """Where a blessed value comes from."""

    commit: str
    date: str
    hardware: str
    versions: Mapping[str, str]


def bless(
    book: Book,
    run_dir: Path,
    *,
    chapters: Sequence[str] | None,
    replace: bool,
    allow_dirty: bool = False,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Make the values of *run_dir* (all seeds) references of its chapters' claims; the files that changed.

    Args:
        book: the book whose claims are changed.
        run_dir: a finished run, judged or not.
        chapters: stems of the chapters to bless; None for all of the run.
        replace: drop the blessed runs of the profile first, on whatever hardware.
        allow_dirty: take what no commit holds, too; the references say so.
        say: told one line for each metric or claim that was left out, and why.

    Raises:
        HarnessError: a job did not complete, ran with other parameters than the book's, or is blessed
            already; changes are not committed; or a file cannot be read. Nothing is written then.
    """
    manifest = read_manifest(run_dir)
    refuse_shard(manifest, "blessing")
    jobs = _chosen_jobs(book, run_dir, chapters)
    for job in jobs:
        _check_job(job, run_dir, book)
    origins = {job.id: _origin(job, manifest, book.root) for job in jobs}
    origins = _committed(book, run_dir, origins, allow_dirty=allow_dirty)
    texts: dict[Path, str] = {}
    notes: list[str] = []
    for chapter in dict.fromkeys(job.chapter for job in jobs if job.chapter):
        mine = [job for job in jobs if job.chapter == chapter]
        text, said = _blessed_text(book, chapter, mine, origins, replace=replace)
        notes += [f"{chapter}: {note}" for note in said]
        if text is not None:
            texts[references_path(book.claims_dir, chapter)] = text
    for path, text in texts.items():
        write_references(path, text)
    for note in notes:
        say(note)
    return list(texts)


def drop(book: Book, claims: Sequence[str], *, chapters: Sequence[str] | None) -> list[Path]:
    """Take the blessed values of *claims* away, for instance where bounds are to judge; the files that changed."""
    texts: dict[Path, str] = {}
    left = dict.fromkeys(claims)
    for chapter in chapters or [path.stem for path in book.chapters]:
        path = references_path(book.claims_dir, chapter)
        found = read_references(path)
        if gone := found.keys() & set(claims):
            kept = {name: runs for name, runs in found.items() if name not in gone}
            texts[path] = references_text(kept) if kept else ""
            left = {name: None for name in left if name not in gone}
    if left:
        raise HarnessError(f"no blessed value of {', '.join(left)} there; see {book.claims_dir / FOLDER}")
    for path, text in texts.items():
        write_references(path, text) if text else path.unlink()
    return list(texts)


def write_references(path: Path, text: str) -> None:
    """Write one file of references, whole or not at all."""
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, f"cannot create {path.parent}") from None
    write_text(path, text)


def _chosen_jobs(book: Book, run_dir: Path, chapters: Sequence[str] | None) -> list[JobResult]:
    if not (run_dir / "result.json").is_file():
        raise HarnessError(f"{run_dir} is not a finished run (no result.json); let it finish or run it again")
    results = [job for job in read_run(run_dir, book.chapters).results if job.chapter is not None]
    ran = list(dict.fromkeys(job.chapter for job in results))
    for chapter in chapters or ():
        if chapter not in ran:
            known = ", ".join(map(str, ran)) or "none"
            raise HarnessError(
                f"run {run_dir.name} has no chapter {chapter!r} (chapters: {known}); run it first"
            )
    return [job for job in results if not chapters or job.chapter in chapters]


def _check_job(job: JobResult, run_dir: Path, book: Book) -> None:
    """Only a whole run under the book's own parameters can be a reference."""
    if job.state not in FINISHED:
        why = f" ({job.reason})" if job.reason else ""
        raise HarnessError(
            f"job {job.id} of run {run_dir.name} ended as {job.state.value}{why}; only completed jobs can be"
            " blessed: mend the notebook and run it again, or name other chapters"
        )
    expected = book.parameters.get(job.chapter or "", {}).get(job.profile, {})
    for name in dict.fromkeys((*job.parameters, *expected)):
        if name in SET_BY_HARNESS:
            continue
        if not same_value(job.parameters.get(name), expected.get(name)):
            raise HarnessError(
                f"job {job.id} of run {run_dir.name} ran with {name} = {job.parameters.get(name)!r}, but"
                f" harness.yml says {expected.get(name)!r} for {job.profile}; run it without --param first"
            )


def _origin(job: JobResult, manifest: Manifest, root: Path) -> Origin:
    """Provenance of a job; a cached one keeps that of the run it came from, where that is still known."""
    source = manifest
    if job.cached_from is not None:
        try:
            source = read_manifest(find_run(root, job.cached_from))
        except HarnessError:  # cleaned away since: the key proves that this tree gives the same result
            source = manifest
    environment = source.environment_of(job.id)
    commit = (source.commit or "unknown")[:_COMMIT_LENGTH] + (DIRTY if source.dirty else "")
    started = (job.started or source.started)[:10]
    return Origin(
        commit=commit,
        date=started or date.today().isoformat(),
        hardware=str(environment.get("hardware") or "unknown"),
        versions={str(k): str(v) for k, v in environment.get("versions", {}).items()},
    )


def _committed(
    book: Book, run_dir: Path, origins: Mapping[str, Origin], *, allow_dirty: bool
) -> Mapping[str, Origin]:
    """Nobody can repeat what no commit holds: it is refused, or said."""
    changed = changes(book.root, besides=book.claims_dir / FOLDER)  # which blessing itself writes
    if allow_dirty:
        mark = DIRTY if changed else ""
        return {
            job: origin
            if origin.commit.endswith(DIRTY)
            else dataclasses.replace(origin, commit=origin.commit + mark)
            for job, origin in origins.items()
        }
    for job, origin in origins.items():
        if origin.commit.endswith(DIRTY):
            raise HarnessError(
                f"job {job} of run {run_dir.name} was measured with changes that no commit holds"
                f" ({origin.commit}); commit them and run it again with --no-cache, or take it with --allow-dirty"
            )
    if changed:
        more = f" and {len(changed) - 1} more" if changed[1:] else ""
        raise HarnessError(
            f"{book.root} has changes that no commit holds ({changed[0]}{more}); commit them first, or bless with"
            " --allow-dirty"
        )
    return origins


def _blessed_text(
    book: Book, chapter: str, jobs: Sequence[JobResult], origins: Mapping[str, Origin], *, replace: bool
) -> tuple[str | None, list[str]]:
    """New text of the references of one chapter (None when nothing changes), and notes on what was left out."""
    notebook = next((path for path in book.chapters if path.stem == chapter), None)
    claims = load_claims(book.claims_dir, chapter, tuple(book.profiles), notebook)
    path = references_path(book.claims_dir, chapter)
    if claims is None:
        return None, [f"has no claim file {claim_path(book.claims_dir, chapter)}; nothing blessed"]
    own = {profile: own_values(book, chapter, profile) for profile in {job.profile for job in jobs}}
    blessed = {claim.name: dict(claim.blessed) for claim in claims.claims}
    notes: list[str] = []
    changed = False
    for claim in claims.claims:
        for profile in dict.fromkeys(job.profile for job in jobs):
            found = [
                (job, m)
                for job in jobs
                if job.profile == profile
                for m in job.metrics
                if m.name == claim.name
            ]
            if problem := _reason_to_leave(claim, profile, found, own[profile]):
                notes.append(problem)
                continue
            old = () if replace else claim.blessed.get(profile, ())
            new = [_reference(metric, job, origins[job.id]) for job, metric in found]
            _refuse_duplicates(path, claim, old, new)
            blessed[claim.name][profile] = (*old, *new)
            changed = True
    unclaimed = dict.fromkeys(m.name for job in jobs for m in job.metrics if m.name not in blessed)
    notes += [f"metric {name} has no claim in {chapter}.yml; not blessed" for name in unclaimed]
    if not changed:
        return None, notes
    notes += [f"blessed values of {name} dropped: nobody claims it" for name in _unclaimed(path, blessed)]
    text = references_text(blessed)
    parse_references(text, path)  # what is written can be read back
    return text, notes


def _unclaimed(path: Path, claims: Collection[str]) -> list[str]:
    """The names of blessed values that nobody claims any more."""
    return sorted(read_references(path).keys() - set(claims))


def _reason_to_leave(
    claim: Claim, profile: str, found: Sequence[tuple[JobResult, Metric]], own: Mapping[str, Any]
) -> str | None:
    for job, _ in found:
        if (other := not_covered(claim, job, own)) is not None:
            return f"claim {claim.name}: not applicable, {other.en}; left as it is"
    if not found:
        return f"claim {claim.name}: the run recorded no such metric; left as it is"
    if profile in claim.bounds and profile not in claim.blessed and profile not in claim.published:
        return f"claim {claim.name}: judged by bounds under {profile}; left as it is"
    units = {metric.unit for _, metric in found if metric.unit} - {claim.unit}
    if claim.unit and units:
        recorded = ", ".join(sorted(units))
        return f"claim {claim.name}: recorded in {recorded}, claimed in {claim.unit}; left as it is"
    return None


def _reference(metric: Metric, job: JobResult, origin: Origin) -> ReferenceRun:
    return ReferenceRun(metric.value, job.seed, origin.commit, origin.date, origin.hardware, origin.versions)


def _refuse_duplicates(
    path: Path, claim: Claim, old: Sequence[ReferenceRun], new: Sequence[ReferenceRun]
) -> None:
    """A dirty run and a clean one of the same commit and seed are not two measurements either."""

    def key(run: ReferenceRun) -> tuple[int | None, str, str]:
        return run.seed, run.commit.removesuffix(DIRTY), run.hardware

    known = set(map(key, old))
    for run in new:
        if key(run) in known:
            raise HarnessError(
                f"{path}: claim {claim.name} already has a blessed run of seed {run.seed},"
                f" commit {run.commit}, {run.hardware}; drop the old runs with --replace, or run other seeds"
            )
        known.add(key(run))
