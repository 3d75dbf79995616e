from __future__ import annotations

from concurrent.futures import CancelledError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servegraph import errors
from servegraph.runtimes.grpc_status import code_of, failure_of


class Chosen(Exception):
    def __init__(self, message: object, status_code: object, reason: object = None) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.reason = reason


@pytest.mark.parametrize(
    ("exc", "code", "reason"),
    [
        (errors.RequestError("x"), "INVALID_ARGUMENT", "REQUEST"),
        (errors.NotFoundError("x"), "NOT_FOUND", "NOT_FOUND"),
        (errors.MethodNotAllowedError("x"), "UNIMPLEMENTED", "METHOD_NOT_ALLOWED"),
        (errors.RequestTimeoutError("x"), "DEADLINE_EXCEEDED", "REQUEST_TIMEOUT"),
        (errors.PayloadTooLargeError("x"), "RESOURCE_EXHAUSTED", "PAYLOAD_TOO_LARGE"),
        (errors.UnsupportedMediaTypeError("x"), "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE"),
        (errors.UnprocessableError("x"), "INVALID_ARGUMENT", "UNPROCESSABLE"),
        (errors.RemoteError("x"), "UNAVAILABLE", "REMOTE"),
        (errors.UnavailableError("x"), "UNAVAILABLE", "UNAVAILABLE"),
        (errors.ModelNotReadyError("x"), "UNAVAILABLE", "MODEL_NOT_READY"),
        (errors.OverloadedError("x"), "RESOURCE_EXHAUSTED", "OVERLOADED"),
        (errors.DeadlineError("x"), "DEADLINE_EXCEEDED", "DEADLINE"),
        (errors.ModelLoadError("x"), "INTERNAL", "MODEL_LOAD"),
        (errors.ServegraphError("x"), "INTERNAL", "SERVEGRAPH"),
        (Chosen("x", 401), "UNAUTHENTICATED", "UNAUTHENTICATED"),
        (Chosen("x", 403), "PERMISSION_DENIED", "PERMISSION_DENIED"),
        (Chosen("x", 409), "ABORTED", "ABORTED"),
        (Chosen("x", 418, "TEAPOT"), "INVALID_ARGUMENT", "TEAPOT"),
        (Chosen("x", 429), "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"),
        (Chosen("x", 501), "UNIMPLEMENTED", "UNIMPLEMENTED"),
        (Chosen("x", 599, "bad\nreason"), "INTERNAL", "INTERNAL"),
    ],
    ids=lambda value: repr(value) if isinstance(value, Exception) else None,
)
def test_failure_of_error_with_a_status_has_its_code_message_and_reason(exc: Exception, code: str, reason: str) -> None:
    failure = failure_of(exc)
    assert (failure.code, failure.details, failure.reason) == (code, "x", reason)


@pytest.mark.parametrize(
    "exc", [ValueError("secret"), Chosen("secret", "404"), Chosen("secret", True), Chosen("secret", 200)], ids=repr
)
def test_failure_of_error_without_a_status_tells_its_type_alone(exc: Exception) -> None:
    failure = failure_of(exc)
    assert (failure.code, failure.reason, failure.is_fault) == ("INTERNAL", "INTERNAL", True)
    assert failure.details == f"{type(exc).__name__}; the server's log has the details"


@pytest.mark.parametrize(
    ("exc", "is_fault"),
    [
        (errors.NotFoundError("x"), False),
        (errors.OverloadedError("x"), False),
        (Chosen("x", 501), False),
        (Chosen("x", 500), True),
        (errors.DeadlineError("x"), True),
        (CancelledError(), False),
    ],
    ids=repr,
)
def test_failure_is_a_fault_only_when_the_log_should_have_it(exc: BaseException, is_fault: bool) -> None:
    assert failure_of(exc).is_fault is is_fault


def test_failure_of_cancelled_call_is_cancelled() -> None:
    assert failure_of(CancelledError()).code == "CANCELLED"


@given(st.text(max_size=3000))
def test_details_fit_into_a_header_block(message: str) -> None:
    details = failure_of(errors.RequestError(message)).details
    assert len(details.encode("utf-8", "replace")) <= 1000
    if message and len(message.encode("utf-8", "replace")) <= 1000:
        assert details == message


@given(st.integers(400, 599))
def test_code_of_every_error_status_is_one_of_grpc(status: int) -> None:
    import grpc

    assert grpc.StatusCode[code_of(status)] is not grpc.StatusCode.OK
