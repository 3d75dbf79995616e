"""The error tree: every error has a status, keeps its place, and survives a trip between processes."""

from __future__ import annotations

import http
import inspect
import pickle

import hypothesis.strategies as st
import pytest
from hypothesis import given

from servegraph import errors
from servegraph.errors import (
    MethodNotAllowedError,
    MissingExtraError,
    OverloadedError,
    RequestFailedError,
    ServegraphError,
    closest,
    summary,
)

TREE = [e for _, e in inspect.getmembers(errors, inspect.isclass) if issubclass(e, ServegraphError)]
PLAIN = [e for e in TREE if e not in (MissingExtraError, RequestFailedError)]

STATUSES = {
    "NotFoundError": 404,
    "MethodNotAllowedError": 405,
    "RequestTimeoutError": 408,
    "PayloadTooLargeError": 413,
    "UnsupportedMediaTypeError": 415,
    "UnprocessableError": 422,
    "RequestError": 400,
    "RemoteError": 502,
    "UnavailableError": 503,
    "ModelNotReadyError": 503,
    "OverloadedError": 503,
    "DeadlineError": 504,
}


@pytest.mark.parametrize("error", TREE)
def test_error_class_has_the_status_and_title_of_its_kind(error: type[ServegraphError]) -> None:
    assert error.status == STATUSES.get(error.__name__, 500)
    phrases = {http.HTTPStatus(error.status).phrase, error.title}
    # Python 3.13 took the newer names of two statuses.
    assert len(phrases) == 1 or error.status in (413, 422)
    assert inspect.getdoc(error)


@pytest.mark.parametrize("error", TREE)
def test_error_class_is_drawn_in_the_module_docstring(error: type[ServegraphError]) -> None:
    assert errors.__doc__ is not None
    assert error.__name__ in errors.__doc__


@pytest.mark.parametrize("error", PLAIN)
def test_error_keeps_its_message_step_and_model(error: type[ServegraphError]) -> None:
    raised = error("what went wrong", step="enrich", model="m1")
    assert (str(raised), raised.message, raised.step, raised.model) == (
        "what went wrong",
        "what went wrong",
        "enrich",
        "m1",
    )


@pytest.mark.parametrize(
    "error",
    [
        *[e("why", step="s", model="m") for e in PLAIN],
        MissingExtraError("the stream", "kafka"),
        MethodNotAllowedError("no", allow=["GET", "POST"]),
        OverloadedError("full", retry_after=7, step="s"),
        RequestFailedError(422, {"error": "shape"}),
        RequestFailedError(503, b"", "said so"),
    ],
    ids=repr,
)
def test_error_pickled_and_read_back_is_the_same(error: ServegraphError) -> None:
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert vars(copied) == vars(error)


def test_only_what_may_be_sent_again_is_retryable() -> None:
    assert {e.__name__ for e in TREE if e.retryable} == {
        "RemoteError",
        "UnavailableError",
        "ModelNotReadyError",
        "OverloadedError",
    }


def test_request_failed_error_has_the_status_and_body_of_the_answer() -> None:
    error = RequestFailedError(404, {"error": "no model"})
    assert (error.status, error.body) == (404, {"error": "no model"})
    assert str(error) == "failed (404): {'error': 'no model'}"
    assert RequestFailedError.status == 500


def test_closest_of_a_typing_error_suggests_the_near_name_first() -> None:
    assert closest("routr", ["flow", "router"]) == "did you mean 'router'? valid: flow, router"


def test_closest_of_an_unlike_name_lists_what_is_valid() -> None:
    assert closest("xyz", ["b", "a", "b"]) == "valid: a, b"
    assert closest("xyz", []) == "there are none"


def test_closest_of_many_names_shows_twenty_and_counts_the_rest() -> None:
    message = closest("q", [f"name{i:02}" for i in range(23)])
    assert message.endswith("name19 and 3 more")


@given(st.text(), st.lists(st.text()))
def test_closest_of_any_names_is_a_line(name: str, valid: list[str]) -> None:
    assert closest(name, valid)


def test_summary_of_an_exception_whose_text_cannot_be_read_is_its_type_and_a_note() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert summary(ValueError("no such row")) == "ValueError: no such row"
    assert summary(Hostile()) == "Hostile: (its text cannot be read)"
