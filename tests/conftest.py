"""What every test relies on."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

# two workers on two cores: threads that wait for one another by spinning would only fight
os.environ.setdefault("OMP_NUM_THREADS", "1")

# what is started in the background of a shell ignores Ctrl-C and passes that on; the tests send it and mean it
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

# under GitHub Actions the runs of the tests would annotate the repository and fill the step's summary
for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
    os.environ.pop(name, None)

CHAPTERS = Path(__file__).with_name("chapters")
RUN_CHAPTERS = ("test_smoke", "test_full_profile", "test_full_matrix")
OF_FIXTURE = {
    "browser": "browser",
    "chromium": "browser",
    "cluster": "ray",
    "live_site": "browser",
    "site": "slow",
    "built_book": "slow",
    "checkout": "slow",  # workflows are played
    "shell": "slow",  # commands of the pages are run
    "pytester": "slow",  # starts pytest, and that kernels
}
"""Fixtures that are slow to make, and the marker of the tests that ask for one; modules mark the rest themselves."""

START_KERNELS = {
    "test_build",
    "test_cli",
    "test_compare",
    "test_copies",
    "test_corpus",
    "test_docs",
    "test_ending",
    "test_init",
    "test_job",
    "test_kernelspec",
    "test_merge",
    "test_pretrain",
    "test_reach",
    "test_reads",
    "test_remote",
    "test_resume",
    "test_run",
    "test_schedule",
    "test_search",
    "test_speed",
    "test_screen",
    "test_teaching",
    "test_variables",
}
"""Modules of which nearly every test starts kernels, other processes or a build: only those marked `quick` are."""


@pytest.hookimpl(tryfirst=True)  # before xdist writes the groups into the names of the tests
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark what `make quick` leaves out, by what a test stands on, and keep together what shares a fixture."""
    keep_together(items)
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in OF_FIXTURE:
                item.add_marker(OF_FIXTURE[fixture])
        if item.path.stem in START_KERNELS and item.get_closest_marker("quick") is None:
            item.add_marker("slow")
        if item.path.is_relative_to(CHAPTERS) and item.path.stem in RUN_CHAPTERS:
            item.add_marker("chapters")


def keep_together(items: Sequence[pytest.Item]) -> None:
    """Give all tests to one worker that share a fixture, even by way of others.

    `pytest -n` hands tests out one by one: each worker would run the whole book, build the site and print the copies
    for itself.
    """
    places = {item: sorted(places_of_shared(item), key=len) for item in items}
    wider = {inner: found[0] for found in places.values() for inner in found[1:]}
    for item, found in places.items():
        if found and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(wider.get(found[0], found[0])))


def places_of_shared(item: pytest.Item) -> set[str]:
    """The modules, and the folders of conftest.py, that define what this test shares with others."""
    fixtures = getattr(item, "_fixtureinfo", None)  # no public way leads to a fixture's scope
    used = [found[-1] for found in fixtures.name2fixturedefs.values()] if fixtures else []
    return {one.node.nodeid for one in used if one.scope != "function" and one.node is not None} - {""}
