"""Remove the chunks of Mermaid that none of the kept kinds of diagram can reach; see README.md."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "mermaid"
KEPT = (
    "flowDiagram", "sequenceDiagram", "classDiagram", "stateDiagram", "erDiagram", "ganttDiagram", "timeline",
    "journeyDiagram", "quadrantDiagram", "xychartDiagram", "sankeyDiagram", "kanban", "requirementDiagram", "c4Diagram",
    "blockDiagram", "dagre", "sizeCapture",
)  # fmt: skip
_STATIC = re.compile(r"""(?:from|import)\s*["'](\.{1,2}/[^"']+)["']""")
_ON_DEMAND = re.compile(r"""import\(\s*["'](\.{1,2}/[^"']+)["']\s*\)""")


def targets(module: Path, pattern: re.Pattern[str]) -> set[Path]:
    """Files that *module* imports in the way of *pattern*."""
    text = module.read_text(encoding="utf-8")
    return {(module.parent / name).resolve() for name in pattern.findall(text)}


def reachable(start: Iterable[Path]) -> set[Path]:
    """*start* and all that loads with it."""
    found: set[Path] = set()
    rest = set(start)
    while rest:
        module = rest.pop()
        found.add(module)
        rest |= targets(module, _STATIC) - found
    return found


def main() -> None:
    entry = FOLDER / "mermaid.esm.min.mjs"
    on_demand = {path for module in reachable([entry]) for path in targets(module, _ON_DEMAND)}
    kept = reachable([entry, *(path for path in on_demand if path.name.startswith(KEPT))])
    for path in set(FOLDER.rglob("*.mjs")) - kept:
        path.unlink()
    print(f"kept {len(kept)} modules, {sum(path.stat().st_size for path in kept):,} bytes")


if __name__ == "__main__":
    main()
