"""Where a model or a data set is: with the book, in a folder, on the hub or on ModelScope; and whether that answers.

One switch, the environment variable ``BOOK_HUB``, says where what does not come with the book is taken from:

* ``huggingface`` (the default): the Hugging Face hub, or the mirror that ``HF_ENDPOINT`` names;
* ``modelscope``: ModelScope, by its package ``modelscope-hub`` (``MODELSCOPE_ENDPOINT`` names another address);
* a folder: it holds ``<organisation>/<name>/``, one folder for each repository, as the hubs' own tools download them.

A hub is asked before the libraries wait for one that does not answer.

`huggingface_hub` sets no limit of its own on some requests: measured with version 2.4, `load_dataset` waits over six
minutes for a hub that accepts and never answers, and `from_pretrained` does not return at all.
"""

from __future__ import annotations

import logging
import os
import urllib.error
import urllib.request
from pathlib import Path

from huggingface_hub import constants

PRETRAINED = Path(__file__).parent / "pretrained"
"""The models that come with the book: mini-bert-zh, mini-gpt-zh."""

SWITCH = "BOOK_HUB"


class HubError(Exception):
    """The hub does not answer or lacks what was asked for. The message says which one, why, and what to do."""


def locate_model(name: str) -> str:
    """What ``from_pretrained`` is to be given: the folder of a model that comes with the book, or what
    :func:`locate` says.

    Args:
        name: ``"mini-bert-zh"``, ``"mini-gpt-zh"``, a local folder, or a hub id.

    Raises:
        HubError: a hub id, and the hub does not answer or does not have it.
    """
    shipped = PRETRAINED / name
    return str(shipped) if shipped.is_dir() else locate(name)


def locate(repository: str, kind: str = "models", timeout: float = 10) -> str:
    """Where ``repository`` can be loaded from: a folder, or the name itself for the Hugging Face libraries.

    Args:
        repository: a local folder, or ``organisation/name``.
        kind: ``"models"`` or ``"datasets"``.
        timeout: seconds that a hub has to answer.

    Raises:
        HubError: it is not to be had from where ``BOOK_HUB`` points.
    """
    source = os.environ.get(SWITCH, "").strip() or "huggingface"
    if Path(repository).is_dir():
        return repository
    if source == "huggingface":
        _ask_huggingface(repository, kind, timeout)
        return repository
    if source == "modelscope":
        return _download_from_modelscope(repository, kind, timeout)
    folder = Path(source, repository)
    if not folder.is_dir():
        raise HubError(
            f"{SWITCH} is {source}, and there is no folder {folder}; put {repository} there, or let {SWITCH} be "
            "huggingface, modelscope, or a folder that holds it"
        )
    return str(folder)


def _ask_huggingface(repository: str, kind: str, timeout: float) -> None:
    """Return if the hub is switched off by choice, or answers; the libraries name an unknown repository well."""
    if constants.HF_HUB_OFFLINE:
        return
    if reason := _silence(f"{constants.ENDPOINT}/api/{kind}/{repository}", timeout):
        raise HubError(
            f"the hub at {constants.ENDPOINT} {reason}, so {repository} cannot be loaded; set HF_ENDPOINT to a mirror "
            f"before Python starts, or {SWITCH} to modelscope or a folder, or HF_HUB_OFFLINE=1 to use what is cached, "
            "or name a downloaded folder"
        )


def _download_from_modelscope(repository: str, kind: str, timeout: float) -> str:
    """The folder of a repository, downloaded where it is not in ModelScope's cache."""
    try:
        import modelscope_hub
    except ImportError:
        raise HubError(f"{SWITCH} is modelscope, which needs a package: pip install modelscope-hub") from None
    logging.getLogger("modelscope_hub").setLevel(logging.WARNING)
    config, offline = modelscope_hub.HubConfig(), constants.HF_HUB_OFFLINE
    endpoint = config.endpoint
    reason = "" if offline else _silence(f"{endpoint}/api/v1/{kind}/{repository}", timeout)
    if reason:
        raise HubError(
            f"ModelScope at {endpoint} {reason}, so {repository} cannot be loaded; let {SWITCH} be huggingface or a "
            "folder, or set HF_HUB_OFFLINE=1 to use what is cached"
        )
    try:
        api = modelscope_hub.HubApi(config)
        return str(api.download_repo(repository, kind.removesuffix("s"), local_files_only=offline))
    except modelscope_hub.HubError as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise HubError(
            f"cannot load {repository} from ModelScope; look up the name it has there, or use another {SWITCH} ({told})"
        ) from error


def _silence(address: str, timeout: float) -> str:
    """Why this address is of no use, empty if it answers, be it with a no."""
    try:
        urllib.request.urlopen(address, timeout=timeout).close()
    except urllib.error.HTTPError as error:
        return f"answers {error.code}" if error.code >= 500 else ""
    except OSError as error:
        return f"does not answer ({getattr(error, 'reason', error)})"
    return ""
