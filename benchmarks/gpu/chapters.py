"""The book's own cells on the card: a run of the harness, its claims judged, and what of it goes into the results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

GRACE = 20
"""Seconds that the harness has to tell what is there after it was asked to stop."""


def run_chapters(
    book: Path, out: Path, device: str, profile: str, seconds: float, only: str = ""
) -> dict[str, Any]:
    """Run the chapters under *profile* for at most *seconds*; what was cut counts as cancelled, and stays in *out*.

    Raises:
        RuntimeError: the harness left no result; its last line.
    """
    command = [
        sys.executable,
        "-m",
        "harness",
        "run",
        "--profile",
        profile,
        "--device",
        device,
        "--out",
        str(out),
    ]
    command += ["--no-annotations", *(["--chapters", only] if only else [])]
    process = subprocess.Popen(
        command, cwd=book, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            said, _ = process.communicate(timeout=GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)  # it has a session of its own: Ctrl-C did not reach it
        process.wait(GRACE)
        raise
    result = out / "result.json"
    if not result.is_file():
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        raise RuntimeError(
            lines[-1] if lines else f"harness run ended with {process.returncode} and said nothing"
        )
    return summary(json.loads(result.read_text(encoding="utf-8")))


def summary(run: dict[str, Any]) -> dict[str, Any]:
    """Chapters by state, claims by verdict, and the hardware class that they were judged under."""
    return {
        "profile": run["profile"],
        "hardware": run["environment"]["hardware"],
        "seconds": run["seconds"],
        "chapters": [
            {
                "chapter": job["chapter"],
                "state": job["state"],
                "seconds": job["seconds"],
                "reason": job["reason"],
            }
            for job in run["jobs"]
        ],
        "claims": dict(sorted(Counter(verdict["outcome"] for verdict in run["verdicts"]).items())),
        "failed": [f"{v['chapter']}/{v['claim']}" for v in run["verdicts"] if v["outcome"] == "fail"],
    }
