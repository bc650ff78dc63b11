"""How the book's two small models are made: ``python -m recipes.distill``, then ``python -m recipes.pretrain``.

Nothing here is needed to read or to run the book, and `sft` imports none of it: a change to how the models are made
leaves the chapters' recorded results valid.
"""
