"""Split the jobs of a run over the machines of a CI matrix: ``harness run --shard i/n``.

Every shard plans the whole run and takes each n-th job from the i-th on. That needs no message between the
shards and no history, spreads the seeds of a chapter, and gives every shard the same number of jobs, or one
more. A shard executes and records; it judges nothing, as the seeds of a claim lie in several shards.
``harness report --merge`` puts the shards together and judges the whole (:mod:`harness.archive.merge`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.book.plan import Planned

MOST_SHARDS = 1000


@dataclass(frozen=True)
class Shard:
    """The part *index* (from 1) of *of* of a plan."""

    index: int
    of: int
    plan: tuple[str, ...]  # ids of the jobs of all shards, in order
    digest: str  # of all that was planned: shards of one run agree in it

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @property
    def jobs(self) -> tuple[str, ...]:
        """Ids of this shard's jobs, in order."""
        return self.plan[self.index - 1 :: self.of]


def parse_shard(text: str) -> tuple[int, int]:
    """``"2/4"`` as (2, 4)."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    index, of = (int(part) for part in found.groups()) if found else (0, 0)
    if not 1 <= index <= of <= MOST_SHARDS:
        raise HarnessError(
            f"--shard {text!r}: give i/n with 1 <= i <= n <= {MOST_SHARDS}, such as 2/4 for the second of four"
        )
    return index, of


def take_shard(planned: Sequence[Planned], index: int, of: int) -> tuple[Shard, list[Planned]]:
    """The shard *index* of *of*, and its share of the plan."""
    shard = Shard(index, of, tuple(entry.job.id for entry in planned), _digest(planned))
    return shard, list(planned[index - 1 :: of])


def _digest(planned: Sequence[Planned]) -> str:
    """The same on every machine that planned the same code with the same parameters."""
    parts = []
    for entry in planned:
        parameters = {name: repr(value) for name, value in sorted(entry.job.parameters.items())}
        code = [cell.source for cell in entry.notebook.code] if entry.notebook else []
        parts.append((entry.job.id, parameters, code))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def shard_from_json(data: Any) -> Shard:
    """Read the shard of a manifest.

    Raises:
        TypeError, ValueError, KeyError: what stands there is no shard.
    """
    index, of, plan, digest = data["index"], data["of"], data["plan"], data["digest"]
    whole = all(type(number) is int for number in (index, of))
    if not whole or not 1 <= index <= of <= MOST_SHARDS or not isinstance(digest, str):
        raise ValueError(f"no shard {index!r} of {of!r}")
    if not isinstance(plan, list) or not all(map(_is_folder_name, plan)):
        raise ValueError("the plan must be a list of job ids")
    return Shard(index, of, tuple(plan), digest)


def _is_folder_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not {"/", "\\", "\0"} & set(name)
