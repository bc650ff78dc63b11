"""``pytest --harness PATH…``: each notebook is a test, and so is each claim of a chapter.

Without ``--harness`` nothing happens and nothing is imported; with it :mod:`harness.cli.pytest_items` does the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("harness", "notebooks and their claims")
    group.addoption("--harness", action="store_true", help="collect notebooks, and the claims of chapters")
    group.addoption("--harness-profile", metavar="NAME", help="profile to run them under, as in harness.yml")
    group.addoption("--harness-seeds", metavar="SEEDS", help="a count (5 is 0 to 4) or a list (0,3,7)")
    group.addoption("--harness-no-cache", action="store_true", help="run even what has not changed")
    group.addoption("--harness-strict", action="store_true", help="an inconclusive claim is a failure")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--harness"):
        from harness.cli.pytest_items import Notebooks

        config.pluginmanager.register(Notebooks(config), "harness-notebooks")
