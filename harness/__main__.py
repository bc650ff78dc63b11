"""``python -m harness``, and the command ``harness``."""

import contextlib
import os
import sys
from typing import NoReturn


def run() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    try:
        from harness.cli.app import main

        code = main()
    except KeyboardInterrupt:  # during the imports, or at the very end
        print("error: interrupted", file=sys.stderr)
        code = 4
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    # sys.exit would do, but an interrupt that has passed through one of Python's exec() (the imports are full of
    # them) makes the interpreter end by SIGINT, whatever the code
    os._exit(code)


if __name__ == "__main__":
    run()
