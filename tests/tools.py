"""The command-line tools that the tests are installed with."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_tool(tool: str, *arguments: str) -> str:
    """What a command of this environment says, from the project's root; it must succeed."""
    command = [str(Path(sys.executable).with_name(tool)), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
