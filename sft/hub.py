"""Where a model is: with the book, in a folder, or on the hub; and whether the hub answers at all.

A hub is asked before the libraries wait for one that does not answer.

`huggingface_hub` sets no limit of its own on some requests: measured with version 2.4, `load_dataset` waits over six
minutes for a hub that accepts and never answers, and `from_pretrained` does not return at all.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from huggingface_hub import constants

PRETRAINED = Path(__file__).parent / "pretrained"
"""The models that come with the book: mini-bert-zh, mini-gpt-zh."""


class HubError(Exception):
    """The hub does not answer. The message says which one, why, and what to do."""


def locate_model(name: str) -> str:
    """What ``from_pretrained`` is to be given: the folder of a model that comes with the book, or the name itself.

    Args:
        name: ``"mini-bert-zh"``, ``"mini-gpt-zh"``, a local folder, or a hub id.

    Raises:
        HubError: a hub id, and the hub does not answer.
    """
    shipped = PRETRAINED / name
    if shipped.is_dir():
        return str(shipped)
    require_hub(name)
    return name


def require_hub(repository: str, kind: str = "models", timeout: float = 10) -> None:
    """Return if ``repository`` is a local folder, or the hub is switched off by choice, or it answers.

    Args:
        kind: ``"models"`` or ``"datasets"``.
        timeout: seconds.

    Raises:
        HubError: no answer within the time, or one that says the hub is out of order. An unknown repository is
            not its business: the libraries name that well.
    """
    if constants.HF_HUB_OFFLINE or Path(repository).is_dir():
        return
    try:
        urllib.request.urlopen(f"{constants.ENDPOINT}/api/{kind}/{repository}", timeout=timeout).close()
    except urllib.error.HTTPError as error:
        if error.code < 500:
            return
        reason = f"answers {error.code}"
    except OSError as error:
        reason = f"does not answer ({getattr(error, 'reason', error)})"
    else:
        return
    raise HubError(
        f"the hub at {constants.ENDPOINT} {reason}, so {repository} cannot be loaded; set HF_ENDPOINT to a mirror "
        "before Python starts, set HF_HUB_OFFLINE=1 to use what is cached, or name a downloaded folder"
    )
