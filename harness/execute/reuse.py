"""What stands of earlier runs, and what of this one the next may use."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from harness.archive.nodes import Site, difference
from harness.archive.recorded import RecordedRun
from harness.book.config import CONFIG_NAME
from harness.book.plan import Planned
from harness.errors import HarnessError, InfrastructureError
from harness.execute import cache
from harness.execute.executor import Run
from harness.execute.kernel.opened import NOTES
from harness.execute.reads import Named, Unsettled, named_by, own_files, settle, still_holds, write_reads
from harness.execute.resume import finished
from harness.files import write_json
from harness.model import SCHEMA, Job, JobResult, JobState, to_json
from harness.wording import first_of


@dataclass(frozen=True)
class Inputs:
    """What a job depends on, as it is before it runs."""

    parts: Mapping[str, Any]  # of the cache's key; empty where there is none
    named: Named

    @property
    def key(self) -> str:
        return cache.key_of(self.parts)


@dataclass
class Reuse:
    """Results that make a job needless. What is asked of it may be asked in any thread."""

    run: Run
    here: Mapping[str, Any]  # the environment of this machine
    _began: int = field(default_factory=time.time_ns)
    _unseen: dict[str, dict[str, None]] = field(default_factory=dict)  # of cached results, by chapter
    _unlike: set[str] = field(default_factory=set)  # differences of nodes that were told

    def keyed(self, planned: Sequence[Planned]) -> list[Planned]:
        """The plan with the cache's keys: empty where there is none."""
        self._tell_unmatched(planned)
        return [
            replace(entry, job=replace(entry.job, key=cache.key_of(self._key_parts(entry))))
            for entry in planned
        ]

    def _key_parts(self, entry: Planned) -> dict[str, Any]:
        """What the cache's key is made of; of a file that cannot be read, the cells say what it means for them."""
        try:
            return cache.parts_of(entry, self.run.book, self.run.variables)
        except OSError as error:
            what = f"cannot read {error.filename}: {error.strerror}" if error.filename else str(error)
            self.run.warn(f"{what}; it runs without the cache", entry.job)
            return {}

    def resumed(self, before: RecordedRun, planned: Sequence[Planned]) -> dict[str, JobResult]:
        """By job id, the results of the run that goes on for which nothing changed."""
        return {
            name: result
            for name, result in finished(before, planned).items()
            if still_holds(self.run.folder / "jobs" / name, self.run.root_of(result.notebook))
        }

    def cached(self, job: Job) -> JobResult | None:
        """The result of an earlier run that stands for the job's, put into its folder."""
        book, place = self.run.book, self.run.place(job)
        assert book is not None and job.chapter is not None  # else it has no key
        try:
            entry = cache.find(book.root, job.key)
        except (HarnessError, OSError) as error:
            self.run.warn(str(error), job)
            return None
        if entry is None or entry.changes(book.root):
            return None
        if job.chapter not in book.data:  # else its author has named what it reads
            self._unseen.setdefault(job.chapter, {}).update(dict.fromkeys(entry.reads.unseen))
        result = cache.restore(entry, job, place.path, place.shown)
        write_json(place.path / "job.json", {"schema": SCHEMA, **to_json(job)})
        write_json(place.path / "result.json", {"schema": SCHEMA, **to_json(result)})
        return result

    def inputs(self, entry: Planned) -> Inputs:
        """To be asked right before the job runs: files may have changed since the run began."""
        return Inputs(self._key_parts(entry) if entry.job.key else {}, self._named(entry))

    def _named(self, entry: Planned) -> Named:
        """What the text of a notebook names, as it is before the notebook runs."""
        assert entry.notebook is not None
        book, job = self.run.book, entry.job
        try:
            data = book.data_files(job.chapter) if book and job.chapter else ()
            return named_by(entry.notebook, book.root if book else None, book.packages if book else (), data)
        except OSError:  # its key could not be made either
            return Named()

    def keep(self, entry: Planned, inputs: Inputs, result: JobResult, site: Site | None) -> None:
        """Keep what a completed job did, and the notes of what it read no longer."""
        folder = self.run.place(entry.job).path
        if result.state is JobState.COMPLETED:
            try:
                self._keep(entry, inputs, site)
            except (InfrastructureError, Unsettled) as error:  # the run is whole without it
                if inputs.parts:
                    self.run.warn(f"not kept for the next run: {error}", entry.job)
        with suppress(OSError):
            (folder / NOTES).unlink(missing_ok=True)

    def _keep(self, entry: Planned, inputs: Inputs, site: Site | None) -> None:
        """Write down what a completed job read, and keep it for the next run if it has a key.

        Raises:
            Unsettled: what it read is no longer that; it stands in this run alone.
            InfrastructureError: there is no room for it.
        """
        job, root = entry.job, self.run.root_of(entry.job.notebook)
        folder = self.run.place(job).path
        own = own_files(folder)
        noted = entry.notebook is not None and entry.notebook.language == "python"
        reads = settle(folder, root, inputs.named, noted=noted, packed=self._began if site else None)
        now = self._key_parts(entry) if inputs.parts else {}
        if cache.without_files(now, root, own) != cache.without_files(inputs.parts, root, own):
            raise Unsettled("files that it depends on changed while it ran")
        write_reads(folder, reads)
        if now and self._stands_here(job, site):
            cache.keep(root, replace(job, key=cache.key_of(now)), now, folder, self.run.folder.name)

    def _stands_here(self, job: Job, site: Site | None) -> bool:
        """Whether the job ran on what its key says: this machine, or a node like it."""
        unlike = difference(site, self.here) if site else ""
        if unlike and unlike not in self._unlike:
            self._unlike.add(unlike)
            self.run.warn(f"not kept for the next run: {unlike}", job)
        return not unlike

    def _tell_unmatched(self, planned: Sequence[Planned]) -> None:
        """What the book names as data and is not there: a slip of the pen would keep its change from being seen."""
        book, chapters = self.run.book, {None, *(entry.job.chapter for entry in planned)}
        for chapter, patterns in book.data.items() if book else ():
            for pattern in patterns if chapter in chapters else ():
                if book and not any(book.files_like(pattern)):
                    self.run.warn(f"{CONFIG_NAME}: data: {pattern} names no file; mend it, or make the file")

    def tell_unseen(self) -> None:
        """Once a run, what the cached results just used may have read without its being seen."""
        told = [f"{chapter} ({first_of(list(unseen))})" for chapter, unseen in self._unseen.items() if unseen]
        if told:
            self.run.warn(
                f"cached results do not notice a change of what is read through these: {first_of(told)}; "
                f"name the files under data: in {CONFIG_NAME}, or run again with --no-cache"
            )
