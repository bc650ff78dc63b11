"""Make the numbers of a finished run references: the only way in which a claim file's ``blessed`` changes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.archive.folder import find_run
from harness.archive.recorded import Manifest, read_manifest, read_run, refuse_shard
from harness.book.claims import claim_path, claim_yaml, parse_claims, read_claim_yaml
from harness.book.parameters import SET_BY_HARNESS, same_value
from harness.errors import HarnessError
from harness.files import write_text
from harness.judge.check import not_covered, own_values
from harness.model import FINISHED, Claim, JobResult, Metric, ReferenceRun

if TYPE_CHECKING:
    from harness.book.config import Book

DIGITS = 6
"""Significant digits of a blessed value: enough to recognise a repeated run, few enough to read."""
_COMMIT_LENGTH = 10


@dataclass(frozen=True)
class Origin:
    """Where a blessed value comes from."""

    commit: str
    date: str
    hardware: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """What blessing a run would do: the new text of each file that changes, and what a person should know."""

    texts: Mapping[Path, str]
    notes: tuple[str, ...]


def bless(
    book: Book,
    run_dir: Path,
    *,
    chapters: Sequence[str] | None,
    replace: bool,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Write the values of *run_dir* (all seeds) into its chapters' claim files; the files that changed.

    Args:
        book: the book whose claims are changed.
        run_dir: a finished run, judged or not.
        chapters: stems of the chapters to bless; None for all of the run.
        replace: drop the blessed runs of the profile first, on whatever hardware.
        say: told one line for each metric or claim that was left out, and why.

    Raises:
        HarnessError: a job did not complete, ran with other parameters than the book's, or is blessed
            already; or a file cannot be read. Nothing is written then.
    """
    plan = plan_blessing(book, run_dir, chapters=chapters, replace=replace)
    for path, text in plan.texts.items():
        write_text(path, text)
    for note in plan.notes:
        say(note)
    return list(plan.texts)


def plan_blessing(book: Book, run_dir: Path, *, chapters: Sequence[str] | None, replace: bool) -> Plan:
    """What :func:`bless` would write and say; changes nothing."""
    manifest = read_manifest(run_dir)
    refuse_shard(manifest, "blessing")
    jobs = _chosen_jobs(book, run_dir, chapters)
    for job in jobs:
        _check_job(job, run_dir, book)
    texts: dict[Path, str] = {}
    notes: list[str] = []
    for chapter in dict.fromkeys(job.chapter for job in jobs if job.chapter):
        path = claim_path(book.claims_dir, chapter)
        mine = [job for job in jobs if job.chapter == chapter]
        if not path.exists():
            notes.append(f"{chapter}: has no claim file {path}; nothing blessed")
            continue
        origins = {job.id: _origin(job, manifest, book.root) for job in mine}
        text, said = _blessed_text(book, path, mine, origins, replace=replace)
        notes += [f"{chapter}: {note}" for note in said]
        if text is not None:
            texts[path] = text
    return Plan(texts, tuple(notes))


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
    commit = (source.commit or "unknown")[:_COMMIT_LENGTH] + ("-dirty" if source.dirty else "")
    started = (job.started or source.started)[:10]
    return Origin(
        commit=commit,
        date=started or date.today().isoformat(),
        hardware=str(environment.get("hardware") or "unknown"),
        versions={str(k): str(v) for k, v in environment.get("versions", {}).items()},
    )


def _blessed_text(
    book: Book, path: Path, jobs: Sequence[JobResult], origins: Mapping[str, Origin], *, replace: bool
) -> tuple[str | None, list[str]]:
    """New text of one claim file (None when nothing changes), and notes on what was left out."""
    tree, profiles = read_claim_yaml(path), tuple(book.profiles)
    notebook = next((chapter for chapter in book.chapters if chapter.stem == path.stem), None)
    claims = parse_claims(tree, path, profiles, notebook)
    own = {profile: own_values(book, path.stem, profile) for profile in {job.profile for job in jobs}}
    notes: list[str] = []
    changed = False
    for claim, entry in zip(claims.claims, tree["claims"], strict=True):
        for profile in dict.fromkeys(job.profile for job in jobs):
            found = [
                (job, m)
                for job in jobs
                if job.profile == profile
                for m in job.metrics
                if m.name == claim.name
            ]
            problem = _reason_to_leave(claim, profile, found, own[profile])
            if problem:
                notes.append(problem)
                continue
            old = () if replace else claim.blessed.get(profile, ())
            new = [_reference(metric, job, origins[job.id]) for job, metric in found]
            _refuse_duplicates(path, claim, old, new)
            _put(entry, profile, new, replace=replace)
            changed = True
    known = {claim.name for claim in claims.claims}
    unclaimed = dict.fromkeys(m.name for job in jobs for m in job.metrics if m.name not in known)
    notes += [f"metric {name} has no claim in {path.name}; not blessed" for name in unclaimed]
    if not changed:
        return None, notes
    text = _dump(tree)
    parse_claims(_reread(text), path, profiles)  # what is written can be read back
    return text, notes


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
    value = float(f"{metric.value:.{DIGITS}g}")
    return ReferenceRun(value, job.seed, origin.commit, origin.date, origin.hardware, origin.versions)


def _refuse_duplicates(
    path: Path, claim: Claim, old: Sequence[ReferenceRun], new: Sequence[ReferenceRun]
) -> None:
    known = {(run.seed, run.commit, run.hardware) for run in old}
    for run in new:
        key = (run.seed, run.commit, run.hardware)
        if key in known:
            raise HarnessError(
                f"{path}: claim {claim.name} already has a blessed run of seed {run.seed},"
                f" commit {run.commit}, {run.hardware}; drop the old runs with --replace, or run other seeds"
            )
        known.add(key)


def _put(entry: Any, profile: str, runs: Sequence[ReferenceRun], *, replace: bool) -> None:
    """Add *runs* to the YAML tree of one claim, each in flow style on a line of its own."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if profile not in entry:
        entry[profile] = CommentedMap()
    holder = entry[profile]
    holder.fa.set_block_style()
    if "blessed" not in holder:
        holder.insert(0, "blessed", CommentedSeq())
    while replace and holder["blessed"]:  # in place: the comments that follow the list hang on it
        holder["blessed"].pop()
    holder["blessed"].fa.set_block_style()
    for run in runs:
        holder["blessed"].append(_flow(run))


def _flow(run: ReferenceRun) -> Any:
    from ruamel.yaml.comments import CommentedMap

    versions = CommentedMap(run.versions)
    versions.fa.set_flow_style()
    day = date.fromisoformat(run.date)
    line = CommentedMap(
        value=run.value, seed=run.seed, commit=run.commit, date=day, hardware=run.hardware, versions=versions
    )
    line.fa.set_flow_style()
    return line


def _dump(tree: Any) -> str:
    stream = io.StringIO()
    claim_yaml().dump(tree, stream)
    return stream.getvalue()


def _reread(text: str) -> Any:
    return claim_yaml().load(text)
