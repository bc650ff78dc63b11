"""What each chapter begins with, so that none of it stands between the reader and the chapter.

from sft.prelude import prepare, say

device = prepare(seed, device)
"""

from __future__ import annotations

import os
import sys
import warnings

import torch

from sft import plotting, training

_SILENT = (  # said by libraries, of themselves; a reader can do nothing about them
    "IProgress not found",
    "Recommended: pip install sacremoses",
    "`is_gradient_checkpointing`",
    "`gradient_checkpointing`",
    "`gradient_checkpointing_",  # the new names are not in every release that the book runs on
)


def prepare(seed: int, device: str = "auto") -> torch.device:
    """Set the look of figures, seed all random numbers, keep libraries from talking; the device to compute on.

    To be called before Hugging Face libraries are used; calling twice is harmless.

    Raises:
        ValueError: the named device is not on this machine.
    """
    for message in _SILENT:
        warnings.filterwarnings("ignore", message=message)
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = (
        "1"  # read when datasets is imported, which takes seconds
    )
    if loaded := sys.modules.get("datasets"):
        loaded.disable_progress_bars()
    from transformers.utils import logging  # not before the filters: it asks for IProgress

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    plotting.use_book_style()
    training.set_seed(seed)
    return training.find_device(device)


def say(markdown: str) -> None:
    """Show a text as Markdown below the cell: a sentence with a number in it, a small table."""
    from IPython.display import Markdown, display

    display(Markdown(markdown))
