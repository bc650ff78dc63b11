"""What a Ray worker does for one job: unpack, start the harness there as a process, pass on what it says.

The class is sent to the node by value, as no harness need be installed there: it imports the standard library alone,
and Ray where it is called. The process it starts holds its standard input: when the Ray worker ends in whatever way,
the input ends, and with it the job.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import Any

PREFIX, LOCK = "harness-ray-", "lock"
POLL = 1.0  # seconds that a question waits for news
TAILS = ("metrics.jsonl", "log.txt")  # passed on while they grow: a node that is lost takes the rest along


def sweep() -> None:
    """Remove folders of jobs whose processes were killed outright: nobody holds their lock."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            lock = os.open(folder / LOCK, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass
        finally:
            os.close(lock)


class RemoteJob:
    """One job on a node, from its start to its end.

    Args:
        code: the harness as a tar file.
        book: the book's folder (or the notebook's), below ``book/``; None where the node sees it itself.
        request: for :mod:`harness.execute.ray.node`, which reads it.
    """

    def __init__(self, code: bytes, book: bytes | None, request: bytes) -> None:
        self._events: list[dict[str, Any]] = []
        self._end: dict[str, Any] | None = None
        self._news = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = False
        sweep()
        new = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
        self._lock = os.open(new / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._folder = new.rename(new.with_name(new.name[1:]))  # only now another job's sweep sees it
        threading.Thread(target=self._run, args=(code, book, request), daemon=True).start()

    def poll(self, seen: int, offsets: dict[str, int]) -> dict[str, Any]:
        """What is new after *seen* events and *offsets* of the growing files; asking twice gives the same again."""
        import ray

        with self._news:
            self._news.wait_for(lambda: len(self._events) > seen or self._end is not None, POLL)
            events, end = self._events[seen:], self._end
        tails = {} if end else {name: self._tail(name, offsets.get(name, 0)) for name in TAILS}
        return {
            "node": ray.get_runtime_context().get_node_id(),
            "events": events,
            "tails": {name: data for name, data in tails.items() if data},
            "end": end,
        }

    def cancel(self) -> None:
        """Ask the job to stop; it saves what there is, and its end comes with a later poll."""
        with self._news:
            self._cancelled = True
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()

    def _run(self, code: bytes, book: bytes | None, request: bytes) -> None:
        end: dict[str, Any] = {"files": {}, "code": None, "error": ""}
        try:
            end["code"], end["error"] = self._run_process(code, book, request)
            files = sorted((self._folder / "job").glob("*")) if (self._folder / "job").is_dir() else []
            end["files"] = {path.name: path.read_bytes() for path in files if path.is_file()}
        except OSError as error:
            end["error"] = f"{error.strerror or error} ({error.filename or self._folder})"
        shutil.rmtree(self._folder, ignore_errors=True)
        with self._news:
            self._end = end
            self._news.notify_all()

    def _run_process(self, code: bytes, book: bytes | None, request: bytes) -> tuple[int, str]:
        """Run the harness to its end; its exit code and what it last said on stderr."""
        for data in (code, *([book] if book is not None else [])):
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                tar.extractall(self._folder, filter="data")
        (self._folder / "request").write_bytes(request)
        with (self._folder / "stderr").open("wb") as stderr, self._news:
            process = subprocess.Popen(
                [sys.executable, "-m", "harness.execute.ray.node", str(self._folder)],
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                pass_fds=(self._lock,),
                start_new_session=True,
            )
            self._process = process
            if self._cancelled and process.stdin is not None:
                process.stdin.close()
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            with self._news:
                self._events.append(event)
                self._news.notify_all()
        process.wait()
        said = (self._folder / "stderr").read_text(errors="replace").strip().splitlines()
        return process.returncode, said[-1] if said else f"exit code {process.returncode}"

    def _tail(self, name: str, offset: int) -> bytes:
        try:
            with (self._folder / "job" / name).open("rb") as file:
                file.seek(offset)
                return file.read(2**20)
        except OSError:
            return b""
