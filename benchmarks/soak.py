"""Kill what a run consists of at random moments, and look whether anything is lost, left behind or told wrong.

Run as ``python -m benchmarks.soak [--kills 200] [--seed 0] [--only N] [--out FILE]``; Linux only.

Each trial runs a small book with ``--jobs 2`` and kills one process: a kernel, a worker or its guard by SIGKILL, the
harness itself by SIGKILL, SIGTERM or SIGINT. The moment is drawn as an
event of the run and a delay after it, so a trial can be repeated by its number. The chapters record metrics, print,
write big outputs, fork as a DataLoader does and start children, some detached and without environment; right after
each ``record()`` they add a line to a witness file of their own, and one more at their very end. Afterwards:

- what the witness saw recorded stands in metrics.jsonl and, where the harness lived, in result.json;
- 30 s later no process of the run is alive, and its folders for sockets are gone;
- each state and the exit code are true by the witness; cells that ended show their output;
- every JSON file is whole, and ``harness check`` tells that a run is unfinished whose harness was killed;
- the next run of the book is right.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import psutil

ROOT = Path(__file__).resolve().parents[1]
ORPHAN_WAIT = 30.0  # seconds for the last process of a run to end
RUN_WAIT = 240.0  # seconds for the harness to end, whatever was killed
HARNESS_SIGNALS = {
    "harness KILL": signal.SIGKILL,
    "harness TERM": signal.SIGTERM,
    "harness INT": signal.SIGINT,
}
KINDS = ("kernel", "worker", "guard", *HARNESS_SIGNALS)
FATAL = ("kernel", "worker")  # to the job

# --- the book ------------------------------------------------------------------------------------------

SETUP = """
import json, os, subprocess, sys, time
from pathlib import Path
from harness.record import record

WITNESS = Path(os.getenv("HARNESS_METRICS")).with_name("witness.jsonl")

def witness(**line):
    with WITNESS.open("a") as file:
        file.write(json.dumps(line) + "\\n")

def measure(name, value):
    record(name, value)
    witness(name=name, value=value)

def child(*prefix, **options):
    sleeper = [*prefix, "bash", "-c", 'exec -a "$0" sleep 900', token]
    return subprocess.Popen(sleeper, stdin=-3, stdout=-3, stderr=-3, **options)
"""
END = "witness(end=True)"
BARE = "env={'PATH': '/usr/bin:/bin'}, start_new_session=True"
CHAPTERS: Mapping[str, Sequence[str]] = {
    "01-records": [f"measure('m{i}', {i}.5)\ntime.sleep(0.3)" for i in range(6)],
    "02-children": [
        f"child()\nchild(start_new_session=True)\nchild({BARE})\nmeasure('first', 1)",
        "for _ in range(15):  # there is always one that nobody had the time to see\n"
        "    child('/usr/bin/env', '-i', 'setsid', '-f')\n"
        f"    child({BARE})\n    time.sleep(0.1)\nmeasure('second', 2)",
        "child('/usr/bin/env', '-i', 'setsid', '-f').wait()\nmeasure('third', 3)",
    ],
    "03-outputs": [
        "for i in range(20_000): print(i)\nmeasure('lines', 20_000)",
        "print('x' * 4_000_000)\nprint('y' * 1000, file=sys.stderr)\nmeasure('size', 4)",
        "from IPython.display import display\ndisplay({'text/plain': 'z' * 2_000_000}, raw=True)\n"
        "measure('shown', 2)\ntime.sleep(0.3)",
    ],
    "04-forks": [
        "import multiprocessing as mp\ncontext = mp.get_context('fork')\nqueue = context.Queue()\n"
        "def load(queue, i):\n    while True:\n        queue.put(i)\n        time.sleep(0.02)\n"
        "loaders = [context.Process(target=load, args=(queue, i), daemon=True) for i in range(3)]\n"
        "for loader in loaders: loader.start()\nmeasure('batch', queue.get())",
        "for i in range(5):\n    measure(f'step{i}', sum(queue.get() for _ in range(4)))\n    time.sleep(0.2)",
        "if not (pid := os.fork()):\n    os.setsid()\n    time.sleep(900)\nmeasure('pid', pid)",
    ],
}


def write_book(root: Path) -> None:
    (root / "chapters").mkdir(parents=True)
    for name, cells in CHAPTERS.items():
        notebook = nbformat.v4.new_notebook()
        parameters = nbformat.v4.new_code_cell("token = ''", metadata={"tags": ["parameters"]})
        marked = [f"print('begin {i}')\n{cell}\nprint('done {i}')" for i, cell in enumerate(cells)]
        sources = [SETUP, *marked, END]
        notebook.cells = [parameters, *map(nbformat.v4.new_code_cell, sources)]
        nbformat.write(notebook, root / "chapters" / f"{name}.ipynb")
    limits = {"cell_timeout": 120, "notebook_timeout": 200, "default": True}
    settings = {"book": "soak", "chapters": "chapters", "claims": "chapters/claims", "packages": [],
                "profiles": {"smoke": limits}}  # fmt: skip
    (root / "harness.yml").write_text(json.dumps(settings), encoding="utf-8")


# --- a trial -------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """One kill: what was drawn, what was hit, and what was wrong afterwards."""

    number: int
    kind: str
    event: int  # the kill follows this line of events.jsonl; 0: the start of the process
    delay: float
    job: str = ""  # that the victim belonged to
    early: bool = False  # jobs had yet to end when the harness was hit
    states: dict[str, str] = field(default_factory=dict)
    code: int | None = None
    violations: list[str] = field(default_factory=list)

    def blame(self, what: str) -> None:
        self.violations.append(what)


def draw(number: int, seed: int, events: int) -> Trial:
    """Trial *number*: kinds take turns; of the moments, a third fall right after the first events."""
    kinds = list(KINDS)
    random.Random(seed).shuffle(kinds)
    kind = kinds[number % len(kinds)]
    chance = random.Random(f"{seed} {number}")
    if chance.random() < 1 / 3:
        event = chance.randint(0 if kind in HARNESS_SIGNALS else 1, 8)
        return Trial(number, kind, event, chance.uniform(0, 0.8 if event == 0 else 0.15))
    return Trial(number, kind, chance.randint(1, events), chance.uniform(0, 0.4))


class Ground:
    """The folder of one trial: its book, its run, and everything that runs because of it."""

    def __init__(self, root: Path) -> None:
        self.root, self.book, self.run, self.temporary = root, root / "book", root / "run", root / "t"
        self.token = f"soak-{os.urandom(6).hex()}"
        self.temporary.mkdir(parents=True)
        write_book(self.book)

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "harness", "run", "--quiet", "--jobs", "2",
                   "--param", f"token={self.token}", *options]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.temporary)}
        with (self.root / "harness.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.book,
                env=environment,
                stdin=-3,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def events(self, what: bytes = b"\n") -> int:
        try:
            return (self.run / "events.jsonl").read_bytes().count(what)
        except OSError:
            return 0

    def job_of(self, process: psutil.Process) -> str:
        """The job whose log is its standard output."""
        with contextlib.suppress(OSError):
            log = Path(f"/proc/{process.pid}/fd/1").readlink()
            if log.name == "log.txt" and log.parent.parent == self.run / "jobs":
                return log.parent.name
        return ""

    def find(self, kind: str, harness: psutil.Process) -> list[tuple[psutil.Process, str]]:
        """Processes of that kind with their jobs; a guard once its worker has a kernel."""
        found = []
        for child in _children(harness):
            job = self.job_of(child)
            if kind == "worker" and job:
                found.append((child, job))
            elif kind in ("kernel", "guard") and job:
                below = [
                    c for c in _children(child) if self.job_of(c) == job and self.token not in _command(c)
                ]
                kernels = [c for c in below if _session(c.pid) == c.pid]
                guards = [c for c in below if _session(c.pid) == child.pid]
                found += [(c, job) for c in (kernels if kind == "kernel" else kernels and guards)]
        return found

    def left(self) -> list[psutil.Process]:
        """Whatever is alive with the token among its arguments or a file of the trial in use."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if self.token in _command(process) or self._uses(process.pid):
                    found.append(process)
        return found

    def _uses(self, pid: int) -> bool:
        inside = os.fsencode(self.root)
        with contextlib.suppress(OSError):
            if inside in Path(f"/proc/{pid}/environ").read_bytes():
                return True
        for name in ("cwd", "fd/1", "fd/2"):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/{name}").readlink().is_relative_to(self.root):
                    return True
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return sorted(process.children(), key=psutil.Process.create_time)
    return []


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _session(pid: int) -> int:
    with contextlib.suppress(OSError):
        return os.getsid(pid)
    return 0


def strike(trial: Trial, ground: Ground, running: subprocess.Popen[bytes]) -> bool:
    """Wait for the moment and kill; False if there was nothing to kill any more."""
    harness, chance = psutil.Process(running.pid), random.Random(trial.number)
    while ground.events() < trial.event and running.poll() is None:
        time.sleep(0.005)
    time.sleep(trial.delay)
    while running.poll() is None:
        if trial.kind in HARNESS_SIGNALS:
            trial.early = ground.events(b'"job_end"') < len(CHAPTERS)
            running.send_signal(HARNESS_SIGNALS[trial.kind])
            return True
        if victims := ground.find(trial.kind, harness):
            process, trial.job = chance.choice(victims)
            with contextlib.suppress(psutil.Error):
                process.kill()
                return True
        time.sleep(0.005)
    return False


def attempt(trial: Trial, place: Path) -> Trial | None:
    """Run, kill, look; None if the run was over before the moment came."""
    ground = Ground(place / str(trial.number))
    options = ["--no-cache", "--out", str(ground.run)]
    running = ground.start(*options)
    try:
        if not strike(trial, ground, running):
            running.wait(RUN_WAIT)
            return None
        try:
            trial.code = running.wait(RUN_WAIT)
        except subprocess.TimeoutExpired:
            trial.blame(f"the harness did not end in {RUN_WAIT:g} s")
            return trial
        look_for_orphans(trial, ground)
        look_at_files(trial, ground)
        run_again(trial, ground)
        return trial
    finally:
        for process in [running, *ground.left()]:
            with contextlib.suppress(psutil.Error, OSError):
                process.kill()
        running.wait()
        if not trial.violations:
            shutil.rmtree(ground.root)


# --- what is looked at ---------------------------------------------------------------------------------


def look_for_orphans(trial: Trial, ground: Ground) -> None:
    deadline = time.monotonic() + ORPHAN_WAIT
    while (left := ground.left()) and time.monotonic() < deadline:
        time.sleep(0.25)
    for process in left:
        trial.blame(f"left running: {process.pid} {_command(process)[:120]!r}")
    for folder in ground.temporary.glob("hk-*"):
        trial.blame(f"left in the temporary folder: {folder.name}")
    if "Traceback" in (ground.root / "harness.log").read_text(encoding="utf-8", errors="replace"):
        trial.blame("a traceback on the terminal")


def look_at_files(trial: Trial, ground: Ground) -> None:
    """States, metrics and files, by what the witnesses saw."""
    for path in ground.run.rglob("*.json"):
        _read(path, trial)
    killed = trial.kind == "harness KILL"
    if not (ground.run / "manifest.json").exists():  # the moment was before the run
        if trial.kind not in HARNESS_SIGNALS or trial.code == 0:
            trial.blame(f"no run, exit code {trial.code}")
        return
    *whole, _ = (ground.run / "events.jsonl").read_bytes().split(b"\n")
    for line in whole:
        _parse(line, "events.jsonl", trial)
    whole_run = _read(ground.run / "result.json", trial) if (ground.run / "result.json").exists() else None
    if whole_run is None and not killed:
        trial.blame("no result.json though the harness lived")
    results = {job["id"]: job for job in (whole_run or {}).get("jobs", ())}
    for folder in sorted((ground.run / "jobs").iterdir()):
        own = folder / "result.json"
        result = results.get(folder.name) or (_read(own, trial) if own.exists() else None)
        look_at_job(trial, folder, result)
    check_exit_code(trial, whole_run)
    if killed and whole_run is None:
        command = [sys.executable, "-m", "harness", "check", str(ground.run)]
        done = subprocess.run(command, cwd=ground.book, capture_output=True, text=True, check=False,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
        none = done.returncode == 3 and "holds no finished job" in done.stderr
        some = done.returncode == 4 and "unfinished" in done.stderr and "Traceback" not in done.stderr
        if len(trial.states) < len(CHAPTERS) and not (some if trial.states else none):
            trial.blame(f"check of the killed run: {done.returncode} {done.stderr[-300:]!r}")


def look_at_job(trial: Trial, folder: Path, result: Mapping[str, Any] | None) -> None:
    name = folder.name
    seen = [_parse(line, f"{name}: witness", trial) for line in _lines(folder / "witness.jsonl")]
    recorded = {line["name"]: line["value"] for line in seen if line and "name" in line}
    ended = any("end" in line for line in seen if line)
    kept = {}
    for line in _lines(folder / "metrics.jsonl"):
        if metric := _parse(line, f"{name}: metrics.jsonl", trial):
            kept[metric["name"]] = metric["value"]
    if lost := {n: v for n, v in recorded.items() if kept.get(n) != v}:
        trial.blame(f"{name}: not in metrics.jsonl: {lost}")
    if result is None:
        return
    state = trial.states[name] = result["state"]
    told = {metric["name"]: metric["value"] for metric in result["metrics"]}
    if lost := {n: v for n, v in recorded.items() if told.get(n) != v}:
        trial.blame(f"{name}: not in result.json: {lost}")
    allowed = {"completed"} if ended else set()
    if trial.kind in FATAL and name == trial.job:
        allowed.add("dead")
    elif trial.kind in HARNESS_SIGNALS and trial.kind != "harness KILL":
        allowed.add("cancelled")
    if state not in allowed:
        trial.blame(f"{name}: {state} ({result['reason']}), {'ended' if ended else 'did not end'}")
    if state == "completed" and any(cell["state"] != "completed" for cell in result["cells"]):
        trial.blame(f"{name}: completed, but not all of its cells")
    look_at_notebook(trial, folder, result)


def look_at_notebook(trial: Trial, folder: Path, result: Mapping[str, Any]) -> None:
    """Cells that ended show what they printed; those of a killed worker are gone by design."""
    document = _read(folder / "out.ipynb", trial)
    if document is None or (trial.kind == "worker" and result["state"] == "dead"):
        return
    for i, cell in enumerate(result["cells"][2:-1]):  # between the set-up and the end
        outputs = (o for c in document["cells"] if c.get("id") == cell["id"] for o in c["outputs"])
        text = "".join("".join(output.get("text", ())) for output in outputs)
        if cell["state"] == "completed" and f"done {i}" not in text.splitlines():
            trial.blame(f"{folder.name}: cell {cell['index'] + 1} completed without its output")


def check_exit_code(trial: Trial, whole_run: Mapping[str, Any] | None) -> None:
    states = set(trial.states.values())
    if trial.kind == "harness KILL":
        expected = {-signal.SIGKILL}
    elif states == {"completed"}:
        expected = {0} if trial.kind not in HARNESS_SIGNALS else {4} if trial.early else {0, 4}
    else:
        expected = {4}
    if trial.code not in expected:
        trial.blame(f"exit code {trial.code}, states {sorted(states)}")
    if whole_run and trial.kind not in HARNESS_SIGNALS and whole_run["exit_code"] != trial.code:
        trial.blame(f"exit code {trial.code}, {whole_run['exit_code']} in result.json")


def run_again(trial: Trial, ground: Ground) -> None:
    """The same book once more: what ended is taken over, the rest runs."""
    running = ground.start()
    try:
        code = running.wait(RUN_WAIT)
    except subprocess.TimeoutExpired:
        running.kill()
        trial.blame("the next run does not end")
        return
    result = _read(ground.book / "_build" / "runs" / "latest" / "result.json", trial) or {"jobs": ()}
    states = [job["state"] for job in result["jobs"]]
    if code or len(states) != len(CHAPTERS) or not set(states) <= {"completed", "skipped"}:
        trial.blame(f"the next run: exit code {code}, states {states}")
    if left := ground.left():
        trial.blame(f"left by the next run: {[_command(process)[:120] for process in left]}")


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def _parse(text: bytes, what: str, trial: Trial) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        trial.blame(f"{what}: not JSON: {text[:80]!r}")
        return None


def _read(path: Path, trial: Trial) -> Any:
    try:
        return _parse(path.read_bytes(), path.name, trial)
    except OSError as error:
        trial.blame(f"{path.name}: {error.strerror}")
        return None


# --- all of them ---------------------------------------------------------------------------------------


def soak(kills: int, seed: int, only: int | None, at_once: int, place: Path) -> Iterator[Trial]:
    """Trials until *kills* have hit something, each in a folder of its own that goes if all was well."""
    events = count_events(place / "reference")
    if only is not None:
        if (trial := attempt(draw(only, seed, events), place)) is None:
            raise SystemExit(f"the run was over before trial {only} could kill anything")
        yield trial
        return
    numbers, hits = itertools.count(), 0
    waiting: set[Future[Trial | None]] = set()
    with ThreadPoolExecutor(at_once) as pool:
        while hits < kills:
            while len(waiting) < min(at_once, kills - hits):
                waiting.add(pool.submit(attempt, draw(next(numbers), seed, events), place))
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for trial in filter(None, (future.result() for future in done)):
                hits += 1
                yield trial


def count_events(root: Path) -> int:
    """Lines of events.jsonl in a run that nobody disturbs."""
    ground = Ground(root)
    if code := ground.start("--no-cache", "--out", str(ground.run)).wait(RUN_WAIT):
        log = (root / "harness.log").read_text(encoding="utf-8")
        raise SystemExit(f"the book does not run by itself: exit code {code}\n{log}")
    events = ground.events()
    shutil.rmtree(root)
    return events


def table(trials: Sequence[Trial]) -> str:
    """Kills by kind, and how the jobs ended that they hit."""
    lines = ["| killed | kills | jobs ended | wrong |", "|---|--:|---|--:|"]
    for kind in KINDS:
        if group := [trial for trial in trials if trial.kind == kind]:
            states = Counter(s for t in group for j, s in t.states.items() if t.job in ("", j))
            ends = ", ".join(f"{count} {state}" for state, count in states.most_common())
            wrong = sum(bool(trial.violations) for trial in group)
            lines.append(f"| {kind} | {len(group)} | {ends} | {wrong} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="N", help="repeat trial N alone")
    parser.add_argument("--at-once", type=int, default=2, help="trials side by side")
    parser.add_argument("--out", type=Path, help="write the counts as JSON")
    options = parser.parse_args()
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # as in the background of a shell; children inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    began, trials = time.perf_counter(), []
    place = Path(tempfile.mkdtemp(prefix="soak-", dir="/tmp"))
    for trial in soak(options.kills, options.seed, options.only, options.at_once, place):
        trials.append(trial)
        ends = ", ".join(f"{job}: {state}" for job, state in trial.states.items())
        where = f"{trial.kind} {trial.job}, event {trial.event} + {trial.delay:.2f} s"
        print(f"{trial.number} {where}: {trial.code}; {ends}", flush=True)
        for violation in trial.violations:
            print(f"    WRONG {violation}", flush=True)
    wrong = [trial for trial in trials if trial.violations]
    print(f"\n{table(trials)}\n")
    report = {
        "seed": options.seed, "kills": len(trials), "kills_by_kind": dict(Counter(t.kind for t in trials)),
        "states_of_jobs": dict(Counter(state for trial in trials for state in trial.states.values())),
        "violations": {str(trial.number): trial.violations for trial in wrong},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "seconds": round(time.perf_counter() - began),
        "python": platform.python_version(),
    }  # fmt: skip
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if wrong:
        print(f"{len(wrong)} of {len(trials)} kills left something wrong; their folders are in {place}")
        return 1
    shutil.rmtree(place)
    print(f"{len(trials)} kills: nothing lost, nothing left, no state wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())
