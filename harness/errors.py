"""Errors that a user can cause: one clear line, no traceback, the right exit code."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of ``python -m harness``; where several apply: 4, 3, 2, 1, 5."""

    OK = 0
    CLAIM_FAILED = 1
    NOTEBOOK_FAILED = 2
    USAGE = 3
    INFRASTRUCTURE = 4
    INCONCLUSIVE = 5


class HarnessError(Exception):
    """Something the user can mend. The message says what is wrong, where, and what to do."""

    exit_code = ExitCode.USAGE


class InfrastructureError(HarnessError):
    """The machine, not the book, is at fault: a full disk, no permission, a hub that does not answer."""

    exit_code = ExitCode.INFRASTRUCTURE
