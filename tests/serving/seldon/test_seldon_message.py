"""Messages as Python values, between nodes in one process."""

from __future__ import annotations

import pytest

from servegraph.serving.seldon.message import KINDS, Feedback, Message, Meta

FULL = Meta("p", {"t": 1}, {"r": -1}, {"n": "img:1"}, [{"key": "k"}])


def test_meta_as_json_leaves_out_what_is_empty() -> None:
    assert Meta().to_dict() == {}
    assert FULL.to_dict() == {
        "puid": "p",
        "tags": {"t": 1},
        "routing": {"r": -1},
        "requestPath": {"n": "img:1"},
        "metrics": [{"key": "k"}],
    }


def test_metas_with_the_same_content_are_equal() -> None:
    assert FULL.copy() == FULL
    assert Meta("p") != Meta("q")
    assert Meta("p") != {"puid": "p"}
    with pytest.raises(TypeError, match="unhashable"):
        hash(FULL)


def test_copy_of_a_meta_changes_on_its_own() -> None:
    copy = FULL.copy()
    copy.tags["u"] = copy.routing["u"] = 2
    copy.request_path["u"] = "2"
    copy.metrics.append({})
    assert Meta("p", {"t": 1}, {"r": -1}, {"n": "img:1"}, [{"key": "k"}]) == FULL


def test_new_messages_share_nothing() -> None:
    first, second = Message(), Message()
    first.names.append("a")
    first.meta.tags["t"] = 1
    first.meta.metrics.append({})
    assert (second.names, second.meta, second.kind, second.encoding) == ([], Meta(), None, None)
    one, other = Feedback(), Feedback()
    one.request.meta.puid = "p"
    assert (other.request.meta.puid, other.reward) == ("", 0.0)


def test_message_says_what_it_holds() -> None:
    shown = repr(Message("strData", "x", meta=Meta("p")))
    assert shown == "Message(strData, 'x', names=[], meta={'puid': 'p'})"
    assert repr(FULL.copy()).startswith("Meta({'puid': 'p', ")
    assert KINDS == ("data", "jsonData", "strData", "binData", "customData")
