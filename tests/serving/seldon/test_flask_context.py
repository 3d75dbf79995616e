from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import pytest
from werkzeug.exceptions import HTTPException

from servegraph import jsoncodec
from servegraph.graph.events import Event
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.flask_context import FlaskContext, add_flask_hint


class Plain:
    pass


class Late:
    def predict(self, X: Any, names: Any) -> Any:
        from flask import request

        return request.headers["x-user"]


def event(body: Any = None, **kwargs: Any) -> Event:
    made = Event(body, method="POST", path="/api/v1.0/predictions", **kwargs)
    made._query = "a=1&a=2&b=%C3%A4"
    return made


def context(component: Any = None, **config: Any) -> FlaskContext:
    found = FlaskContext.for_component(component if component is not None else Plain(), config)
    assert found is not None
    return found


def errors(*handlers: tuple[Any, Any], scoped: bool = False) -> FlaskContext:
    class Failing:
        model_error_handler = flask.Blueprint("error_handlers", __name__)

    for what, handler in handlers:
        blueprint = Failing.model_error_handler
        (blueprint.errorhandler if scoped else blueprint.app_errorhandler)(what)(handler)
    return context(Failing())


def says(text: str, status: int = 418) -> Any:
    def handler(error: Any) -> Any:
        return flask.jsonify({"handler": text, "error": type(error).__name__, "path": flask.request.path}), status

    return handler


def test_request_shows_what_the_event_has() -> None:
    made = event(
        b'{"data": {"ndarray": [1]}}',
        content_type="application/json; charset=utf-8",
        headers={"X-User": "ann", "Cookie": "c=d", "Host": "example.com:9000"},
    )

    def look() -> dict[str, Any]:
        request = flask.request
        return {
            "json": request.json,
            "data": request.get_data(),
            "user": request.headers["x-user"],
            "path": request.path,
            "method": request.method,
            "args": request.args.to_dict(flat=False),
            "type": request.mimetype,
            "cookie": request.cookies["c"],
            "host": request.host,
        }

    assert context().run(made, look) == {
        "json": {"data": {"ndarray": [1]}},
        "data": b'{"data": {"ndarray": [1]}}',
        "user": "ann",
        "path": "/api/v1.0/predictions",
        "method": "POST",
        "args": {"a": ["1", "2"], "b": ["ä"]},
        "type": "application/json",
        "cookie": "d",
        "host": "example.com:9000",
    }


def test_body_that_was_decoded_already_is_there_again() -> None:
    made = event({"a": [1, "ü"]}, content_type="application/json", headers={"content-length": "3"})
    assert context().run(made, lambda: flask.request.json) == {"a": [1, "ü"]}
    assert context().run(made, lambda: jsoncodec.loads(flask.request.get_data())) == {"a": [1, "ü"]}
    assert context().run(event(None), lambda: flask.request.get_data()) == b""
    assert context().run(event("tëxt"), lambda: flask.request.get_data(as_text=True)) == "tëxt"


def test_address_of_the_client_is_there_where_the_event_has_one() -> None:
    made = event()
    assert context().run(made, lambda: flask.request.remote_addr) is None
    made._peer = ("10.0.0.7", 4711)
    assert context().run(made, lambda: (flask.request.remote_addr, flask.request.environ["REMOTE_PORT"])) == (
        "10.0.0.7",
        "4711",
    )


def test_form_is_read_from_the_body() -> None:
    made = event(b"json=%7B%7D&isDefault=true", content_type="application/x-www-form-urlencoded")
    assert context().run(made, lambda: flask.request.form.to_dict()) == {"json": "{}", "isDefault": "true"}


def test_form_that_was_read_already_is_there_again() -> None:
    made = event({"a": "ü&"}, content_type="application/x-www-form-urlencoded")
    assert context().run(made, lambda: jsoncodec.loads(flask.request.form["json"])) == {"a": "ü&"}


def test_application_objects_work_and_last_one_request() -> None:
    found = context()

    def first() -> tuple[str, bytes, bool]:
        flask.g.seen = True
        return flask.current_app.name, flask.jsonify({"b": 1, "a": 2}).get_data(), "seen" in flask.g

    assert found.run(event(), first) == ("seldon_core.wrapper", b'{"a":2,"b":1}\n', True)
    assert found.run(event(), lambda: "seen" in flask.g) is False
    assert flask.has_request_context() is False


def test_keys_keep_their_order_when_the_configuration_says_so() -> None:
    found = context(JSON_SORT_KEYS=False, TESTING=True)
    assert found.run(event(), lambda: flask.jsonify({"b": 1, "a": 2}).get_data()) == b'{"b":1,"a":2}\n'
    assert found.app.testing


def test_arguments_are_handed_on_and_errors_come_through() -> None:
    def fail(first: int, *, second: int) -> None:
        raise ValueError(first + second)

    with pytest.raises(ValueError, match="3"):
        context().run(event(), fail, 1, second=2)
    assert flask.has_request_context() is False


def test_each_thread_sees_its_own_request() -> None:
    found = context()
    together = threading.Barrier(4)

    def look() -> str:
        together.wait(30)
        return flask.request.headers["x-user"]

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(found.run, event(headers={"x-user": str(i)}), look) for i in range(4)]
        assert [future.result(60) for future in futures] == ["0", "1", "2", "3"]


def test_async_methods_see_their_own_request_all_along() -> None:
    found = context()

    async def look(together: asyncio.Barrier) -> tuple[str, str]:
        before = flask.request.headers["x-user"]
        await together.wait()
        return before, flask.request.headers["x-user"]

    async def main() -> list[tuple[str, str]]:
        together = asyncio.Barrier(3)
        return await asyncio.gather(
            *(found.run_async(event(headers={"x-user": str(i)}), look, together) for i in range(3))
        )

    assert asyncio.run(main()) == [("0", "0"), ("1", "1"), ("2", "2")]


class Base(Exception):
    pass


class Special(Base):
    pass


def answer(found: FlaskContext, error: Exception) -> tuple[int, dict[str, Any]] | None:
    given = found.handle_error(error, event())
    if given is None:
        return None
    status, headers, body = given
    assert ("Content-Type", "application/json") in headers
    return status, jsoncodec.loads(body)


@pytest.mark.parametrize("scoped", [False, True], ids=["app_errorhandler", "errorhandler"])
def test_handler_of_the_most_specific_class_wins(scoped: bool) -> None:
    path = "/api/v1.0/predictions"
    found = errors((Exception, says("any")), (Base, says("base", 402)), scoped=scoped)
    assert answer(found, Special()) == (402, {"handler": "base", "error": "Special", "path": path})
    assert answer(found, SeldonMicroserviceException("x")) == (
        418,
        {"handler": "any", "error": "SeldonMicroserviceException", "path": path},
    )
    found = errors((Base, says("base")), (Special, says("special")), scoped=scoped)
    assert answer(found, Special()) == (418, {"handler": "special", "error": "Special", "path": path})
    assert answer(found, ValueError()) is None


def test_status_codes_have_handlers() -> None:
    found = errors((404, says("missing", 404)), (500, says("broken", 503)))

    def abort(status: int) -> HTTPException:
        with pytest.raises(HTTPException) as caught:
            flask.abort(status)
        return caught.value

    path = "/api/v1.0/predictions"
    assert answer(found, abort(404)) == (404, {"handler": "missing", "error": "NotFound", "path": path})
    assert answer(found, ValueError()) == (503, {"handler": "broken", "error": "InternalServerError", "path": path})


def test_abort_without_a_handler_keeps_its_status_and_has_the_body_of_every_failure() -> None:
    found = context()
    with pytest.raises(HTTPException) as caught:
        flask.abort(403, "not you")
    assert answer(found, caught.value) == (
        403,
        {"status": {"code": -1, "info": "403 Forbidden: not you", "reason": "MICROSERVICE_BAD_DATA", "status": 1}},
    )
    with pytest.raises(HTTPException) as caught:
        flask.abort(flask.Response("gone", 410))
    given = found.handle_error(caught.value, event())
    assert given is not None
    assert (given[0], given[2]) == (410, b"gone")


def test_error_without_any_handler_is_not_answered_here() -> None:
    assert context().handle_error(ValueError(), event()) is None
    assert context().has_handlers is False


def test_error_of_a_handler_comes_through() -> None:
    def handler(error: Any) -> Any:
        raise KeyError("in the handler")

    with pytest.raises(KeyError, match="in the handler"):
        errors((Base, handler)).handle_error(Base(), event())


def test_handler_may_answer_with_text_bytes_or_a_response() -> None:
    found = errors((Base, lambda error: ("sorry", 409, {"X-Why": "no"})))
    given = found.handle_error(Base(), event())
    assert given is not None
    status, headers, body = given
    assert (status, body, dict(headers)["X-Why"]) == (409, b"sorry", "no")


def test_handlers_that_are_no_blueprint_are_refused() -> None:
    class Wrong:
        model_error_handler = "x"

    with pytest.raises(TypeError, match=r"model_error_handler must be a flask.Blueprint, got str"):
        FlaskContext.for_component(Wrong())


def run_in_new_process(code: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_SETTING = """
    import sys
    {before}
    from servegraph.serving.seldon.flask_context import FlaskContext
    class Plain:
        def predict(self, X, names):
            return X
    class Late:
        def predict(self, X, names):
            def inner():
                from flask.globals import request
                return request
            return inner()
    found = [FlaskContext.for_component(kind()) is not None for kind in (Plain, Late)]
    print(*found, "flask" in sys.modules)
"""


def test_component_has_a_context_only_if_it_uses_flask() -> None:
    # The method of the second imports it; then it is there, also for what comes after.
    assert run_in_new_process(_SETTING.format(before="")) == "False True True"
    assert run_in_new_process(_SETTING.format(before="import flask")) == "True True True"


def test_component_without_flask_loads_none() -> None:
    code = """
        import sys, types
        from servegraph.serving.seldon.flask_context import FlaskContext
        module = types.ModuleType("plain")
        exec("class Plain:\\n def predict(self, X, names):\\n  return X", module.__dict__)
        sys.modules["plain"] = module
        print(FlaskContext.for_component(module.Plain()), "flask" in sys.modules, "werkzeug" in sys.modules)
    """
    assert run_in_new_process(code) == "None False False"


def test_nothing_breaks_where_flask_is_not_installed() -> None:
    code = _SETTING.format(before="sys.modules['flask'] = None")
    # An entry of None makes the import fail as if the package were absent; the key itself is there.
    assert run_in_new_process(code) == "False False True"


def test_import_error_of_flask_tells_how_to_install_it() -> None:
    error = ModuleNotFoundError("No module named 'flask'", name="flask.blueprints")
    add_flask_hint(error)
    assert error.__notes__ == ["Components that use Flask need it: pip install 'servegraph[flask]'"]
    other = ModuleNotFoundError("No module named 'flaskette'", name="flaskette")
    add_flask_hint(other)
    assert not hasattr(other, "__notes__")
