"""Run the notebooks of an executable book and say whether their numbers still hold.

The package is read from both sides: a chapter imports only :mod:`harness.record`, which needs nothing
but the standard library; everything else serves ``python -m harness``.
"""

__version__ = "0.1.0"
