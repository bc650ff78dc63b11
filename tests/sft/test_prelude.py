"""What each chapter begins with: seeds, look, device, silence."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sft.prelude import say

CHAPTER = """
import random, warnings
import matplotlib.pyplot as plt, numpy as np, torch
{first}
from sft.prelude import prepare, say

device = prepare(7, "cpu")
drawn = random.random(), np.random.rand(), torch.rand(1).item()
assert prepare(7, "cpu") == device == torch.device("cpu")
assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())
assert plt.rcParams["font.family"][0].startswith("SFT")

import datasets, transformers
warnings.warn("IProgress not found. Please update jupyter")
warnings.warn("`is_gradient_checkpointing` is deprecated")
transformers.utils.logging.get_logger("transformers.modeling").warning("some weights were newly initialised")
list(transformers.utils.logging.tqdm(range(3)))
datasets.Dataset.from_dict({{"x": [1]}}).map(lambda row: row)
warnings.warn("of the chapter's own")
say("准确率 **0.9**")
"""


@pytest.mark.parametrize("first", ["", "import datasets, transformers"])
def test_libraries_are_silent_and_the_chapter_is_not(first):
    done = subprocess.run(
        [sys.executable, "-c", CHAPTER.format(first=first)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "Warning" in line or "%" in line] == [
        "<string>:19: UserWarning: of the chapter's own"
    ]
    assert "newly initialised" not in done.stderr


def test_say_shows_markdown(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    say("**一**")
    assert [one.data for one in shown] == ["**一**"]
