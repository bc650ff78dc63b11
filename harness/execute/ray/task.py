"""One job on a Ray cluster, as seen from the harness: start it, take in what it tells, put its files in their place."""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.archive.nodes import Site
from harness.errors import InfrastructureError
from harness.execute.executor import Run
from harness.execute.kernel.ending import Ending, describe_exit
from harness.execute.kernel.job import NOT_SAVED, JobFolder, cells_so_far, note_cell
from harness.execute.ray.node import BOOK, Request
from harness.files import explain_os_error
from harness.model import Job, JobResult, JobState, job_result_from_json

LOOK_EVERY = 0.5  # seconds between looks at whether the run was interrupted
CANCEL_WAIT = 30.0  # seconds for a cancelled job to hand back what it has
LOST_AFTER = 60.0  # seconds without an answer from a job before it counts as lost
ATTEMPTS = 2  # of a job whose node is lost


@dataclass(frozen=True)
class Cargo:
    """What all jobs of a run have in common on the cluster."""

    ray: Any
    actor: Any  # Ray's class of harness.execute.ray.remote.RemoteJob
    code: Any  # reference to the packed harness
    books: Mapping[Path, Any]  # references to packed folders; None where the nodes see them themselves
    variables: Mapping[str, str]  # of this process, that kernels get
    harness_visible: bool  # to a kernel here
    cores: int  # of each job
    gpus: int  # of each job
    memory: int  # bytes of the largest node


class _NodeLost(Exception):
    """The node went away with the job."""


def root_of(job: Job, run: Run) -> Path:
    """The folder that travels with a job: the book, or the notebook's own where it lies outside."""
    notebook = job.notebook.resolve()
    root = run.book.root.resolve() if run.book else None
    return root if root and notebook.is_relative_to(root) else notebook.parent


@dataclass
class Task:
    """One job on the cluster, as seen from here."""

    of_run: Run
    cargo: Cargo
    place: JobFolder
    memory_mb: float  # that it took before
    site: Site | None = None  # where it runs, once it does
    _node: str = ""  # id of where it runs; empty until it does
    _begun: bool = False  # its start was told
    _cells: dict[int, dict[str, Any]] = field(default_factory=dict)
    _seen: int = 0
    _offsets: dict[str, int] = field(default_factory=dict)

    def run(self) -> JobResult:
        """The job to its end, tried once more if its node is lost."""
        reason = ""
        for attempt in range(1, ATTEMPTS + 1):
            self.place.prepare()  # what a lost try recorded does not count
            self._node, self._cells, self._seen, self._offsets = "", {}, 0, {}
            try:
                return self._try()
            except _NodeLost as lost:
                reason = str(lost)
                if attempt == ATTEMPTS or self.of_run.stopped:
                    break
                self.of_run.warn(f"{reason}; it starts again on another node", self.place.job)
        if self.of_run.cancel.is_set():
            return self._lost(JobState.CANCELLED, f"interrupted; {reason}")
        return self._lost(JobState.DEAD, reason)

    def _try(self) -> JobResult:
        ray, cargo = self.cargo.ray, self.cargo
        place = {
            "num_cpus": cargo.cores,
            "num_gpus": cargo.gpus,
            "memory": min(int(self.memory_mb * 2**20), cargo.memory),
            "scheduling_strategy": "SPREAD",
        }
        root = root_of(self.place.job, self.of_run)
        actor = cargo.actor.options(**place).remote(cargo.code, cargo.books[root], self._request(root))
        try:
            return self._follow(actor)
        finally:
            with suppress(ray.exceptions.RayError):
                ray.kill(actor)

    def _request(self, root: Path) -> bytes:
        job = self.place.job
        notebook = job.notebook
        if self.cargo.books[root] is not None:
            notebook = Path(BOOK) / notebook.resolve().relative_to(root)
        request = Request(
            job=replace(job, notebook=notebook, parameters=dict(job.parameters)),
            shown=self.place.shown,
            root=root,
            folder=self.place.path,
            variables=self.cargo.variables,
            patterns=tuple(self.of_run.variables),
            threads=self.cargo.cores,
            gpu=bool(self.cargo.gpus),
            harness_visible=self.cargo.harness_visible,
            packages=self.of_run.book.requires if self.of_run.book else (),
            speed=self.of_run.speed,
        )
        return pickle.dumps(request)

    def _follow(self, actor: Any) -> JobResult:
        """Ask for news until the job has ended; hand on an interrupt."""
        ray, cancel = self.cargo.ray, self.of_run.cancel
        question, stop_at, heard = None, math.inf, time.monotonic()
        while True:
            if question is None:
                question = actor.poll.remote(self._seen, self._offsets)
            now = time.monotonic()
            if cancel.is_set() and stop_at == math.inf:
                if not self._node:
                    return self._lost(JobState.CANCELLED, "the run was interrupted before it started")
                actor.cancel.remote()
                stop_at = now + CANCEL_WAIT
            if now > stop_at:
                return self._lost(
                    JobState.CANCELLED, f"interrupted; {self._name} did not hand back its files"
                )
            if not ray.wait([question], timeout=LOOK_EVERY)[0]:
                if self._node and now - heard > LOST_AFTER:
                    raise _NodeLost(f"the node {self._name} has not answered for {LOST_AFTER:g} s")
                continue
            try:
                answer = ray.get(question)
            except ray.exceptions.ActorUnavailableError:  # a broken connection, or the node went away
                question = None
                if now - heard > LOST_AFTER:
                    raise _NodeLost(f"the node {self._name} cannot be reached") from None
                time.sleep(LOOK_EVERY)
                continue
            except ray.exceptions.RayError as error:
                return self._died(str(error))
            question, heard = None, time.monotonic()
            self._take(answer)
            if answer["end"] is not None:
                return self._finish(answer["end"])

    @property
    def _name(self) -> str:
        """Address and beginning of the id of the node."""
        nodes = self.cargo.ray.nodes()
        addresses = (node["NodeManagerAddress"] for node in nodes if node["NodeID"] == self._node)
        return f"{next(addresses, 'unknown')} ({self._node[:8]})"

    def _take(self, answer: Mapping[str, Any]) -> None:
        self._node = answer["node"]
        for event in answer["events"]:
            self._seen += 1
            note_cell(event, self._cells)
            if event["event"] == "node":
                self.site = Site(self._name, event["environment"])
                self.place.tell("node", node=self._name)
            elif event["event"] == "job_start":  # once, whatever the number of tries
                if self._begun:
                    continue
                self._begun = True
                self.of_run.emit({**event, "notebook": str(self.place.job.notebook)})
            else:
                self.of_run.emit(event)
        for name, data in answer["tails"].items():
            self._offsets[name] = self._offsets.get(name, 0) + len(data)
            with suppress(OSError), (self.place.path / name).open("ab") as file:
                file.write(data)

    def _finish(self, end: Mapping[str, Any]) -> JobResult:
        """Put the job's files into its folder, then tell its end."""
        files, folder = dict(end["files"]), self.place.path
        if "result.json" not in files:
            if end["code"] is not None and end["code"] < 0:
                reason = f"the process that ran it on {self._name} died ({describe_exit(end['code'])})"
                return self._lost(JobState.DEAD, reason)
            raise InfrastructureError(f"the node {self._name} cannot run it: {end['error']}")
        last = files.pop("result.json")
        files.pop("job.json", None)  # written here, with the paths of this machine
        result = replace(job_result_from_json(json.loads(last)), parameters=self.place.job.parameters)
        try:
            for name, data in [*files.items(), ("result.json", last)]:
                (folder / name).write_bytes(data)
        except OSError as error:
            trouble = explain_os_error(error, f"cannot write to {folder}")
            self.place.tell_trouble(trouble)
            result = replace(result, state=JobState.DEAD, reason=f"{NOT_SAVED}: {trouble}")
        return self.place.tell_end(result)

    def _died(self, said: str) -> JobResult:
        """The job's Ray worker is gone: with its node, or alone."""
        nodes = {node["NodeID"]: node["Alive"] for node in self.cargo.ray.nodes()}
        if self.of_run.cancel.is_set():
            return self._lost(JobState.CANCELLED, "interrupted")
        if "its node has died" in said or not nodes.get(self._node, False):
            raise _NodeLost(f"the node {self._name} was lost")
        if "low on memory" in said:
            reason = f"the node {self._name} ran out of memory, and Ray killed the job's worker there"
        else:
            reason = f"the Ray worker that ran it on {self._name} was killed"
        return self._lost(JobState.DEAD, reason)

    def _lost(self, state: JobState, reason: str) -> JobResult:
        """The result of a job whose own did not arrive: what was heard of it until then."""
        return self.place.finish(Ending(state, reason, cells_so_far(self.place.job, self._cells)))
