"""The one switch: the hub or its mirror, ModelScope, a folder; each against the stand-in on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from sft.data import DataError, load_reviews
from sft.hub import PRETRAINED, HubError, locate, locate_model
from tests.hub_server import Behaviour, HubServer

ROWS = "text,label\n好,1\n坏,0\n"


@pytest.fixture
def repositories(tmp_path) -> Path:
    model = tmp_path / "models" / "someone" / "model"
    (model / "sub").mkdir(parents=True)
    (model / "config.json").write_text('{"a": 1}', encoding="utf-8")
    (model / "sub" / "weights.bin").write_bytes(bytes(range(256)) * 40)
    reviews = tmp_path / "datasets" / "someone" / "reviews"
    reviews.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        (reviews / f"{split}.csv").write_text(ROWS, encoding="utf-8")
    return tmp_path


@pytest.fixture
def use(monkeypatch, tmp_path):
    """Let this process use a hub, under a value of the switch."""

    def use(hub: HubServer, switch: str | None = None, *, offline: bool = False) -> None:
        for name, value in hub.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.delenv("BOOK_HUB", raising=False)
        if switch is not None:
            monkeypatch.setenv("BOOK_HUB", switch)

    return use


@pytest.mark.parametrize("switch", [None, "", "huggingface"])
def test_the_hub_is_the_default_and_gets_the_name(repositories, use, switch):
    with HubServer(repositories) as hub:
        use(hub, switch)
        assert locate_model("someone/model") == "someone/model"
    assert [request.path for request in hub.requests] == ["/api/models/someone/model"]


@pytest.mark.parametrize("switch", ["huggingface", "modelscope", "/no/such/folder"])
def test_what_is_on_this_machine_needs_no_hub(repositories, use, switch):
    with HubServer(repositories, Behaviour.ABSENT) as hub:
        use(hub, switch)
        assert locate_model("mini-bert-zh") == str(PRETRAINED / "mini-bert-zh")
        assert locate(str(repositories / "models")) == str(repositories / "models")


def test_modelscope_is_downloaded_once_and_used_without_it(repositories, use):
    with HubServer(repositories) as hub:
        use(hub, "modelscope")
        folder = Path(locate_model("someone/model"))
        assert (folder / "sub" / "weights.bin").read_bytes() == bytes(range(256)) * 40
        assert (folder / "config.json").read_text() == '{"a": 1}'
    with HubServer(repositories, Behaviour.ABSENT) as hub:
        use(hub, "modelscope", offline=True)
        assert Path(locate_model("someone/model")) == folder


@pytest.mark.parametrize("switch", ["modelscope", "folder"])
def test_a_data_set_is_read_from_where_the_switch_points(repositories, use, switch):
    with HubServer(repositories) as hub:
        use(hub, str(repositories / "datasets") if switch == "folder" else switch)
        splits = load_reviews("hub", "someone/reviews")
    read = {name: splits[name]["text"][:] for name in splits}
    assert read == {"train": ["好", "坏"], "validation": ["好", "坏"], "test": ["好", "坏"]}


def test_a_folder_that_lacks_it_is_one_clear_line(repositories, use):
    with HubServer(repositories) as hub:
        use(hub, str(repositories / "models"))
        assert locate("someone/model") == str(repositories / "models" / "someone" / "model")
        with pytest.raises(
            HubError, match=r"there is no folder .*/models/someone/other; put someone/other there"
        ):
            locate("someone/other")
        with pytest.raises(DataError, match="there is no folder"):
            load_reviews("hub", "someone/other")
    assert hub.requests == []


def test_a_name_that_modelscope_lacks_is_one_clear_line(repositories, use):
    with HubServer(repositories) as hub:
        use(hub, "modelscope")
        with pytest.raises(
            HubError, match="cannot load someone/other from ModelScope; look up the name"
        ) as caught:
            locate("someone/other")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("switch", ["huggingface", "modelscope"])
@pytest.mark.parametrize("behaviour", [Behaviour.ABSENT, Behaviour.UNAVAILABLE, Behaviour.HANG])
def test_one_that_does_not_answer_is_told_in_time(repositories, use, switch, behaviour):
    with HubServer(repositories, behaviour) as hub:
        use(hub, switch)
        with pytest.raises(
            HubError, match=r"at http://127.*so someone/model cannot be loaded; .*HF_HUB_OFFLINE=1"
        ):
            locate("someone/model", timeout=0.5)


def test_modelscope_without_its_package_is_one_clear_line(repositories, use, monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope_hub", None)
    with HubServer(repositories) as hub:
        use(hub, "modelscope")
        with pytest.raises(HubError, match="pip install modelscope-hub"):
            locate("someone/model")


def test_offline_and_never_downloaded_is_one_clear_line(repositories, use):
    with HubServer(repositories) as hub:
        use(hub, "modelscope", offline=True)
        with pytest.raises(HubError, match="cannot load someone/model from ModelScope"):
            locate("someone/model")
    assert hub.requests == []
