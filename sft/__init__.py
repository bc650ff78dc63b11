"""The book's own small library: what one chapter defines and a later one needs.

Nothing here imports :mod:`harness`, nor :mod:`recipes`, which makes the models in ``pretrained/``. Modules are imported
one by one (``from sft.data import load_reviews``), so that a chapter pays only for what it uses.
"""
