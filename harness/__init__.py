"""Run the notebooks of an executable book and say whether their numbers still hold.

The package is read from both sides: a chapter imports only :mod:`harness.record`, which needs nothing but the
standard library; everything else serves ``python -m harness``. Its wings, in the order in which a number goes
through them: :mod:`~harness.book` (what is asked), :mod:`~harness.execute` (runs it), :mod:`~harness.archive`
(what a run leaves), :mod:`~harness.judge` (whether it holds), :mod:`~harness.report` and :mod:`~harness.site`
(who is told), :mod:`~harness.cli`. Which may import which: the contracts in pyproject.toml.
"""

__version__ = "0.1.0"
