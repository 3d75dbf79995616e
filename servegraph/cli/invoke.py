"""``servegraph invoke``: one request to a server, or to a function in this process."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from servegraph import jsoncodec
from servegraph.cli.target import component_option, components_of, load_target, show_traceback
from servegraph.errors import RequestError, RequestFailedError, SettingsError
from servegraph.graph.events import Event, Response
from servegraph.runtimes.function import ServingFunction


@click.command(name="invoke", short_help="Send one request to a server or a function.")
@click.argument("target")
@click.argument("path", default="/")
@click.option("-d", "--data", metavar="BODY|@FILE|-", help="The body: a text, a file, or standard input.")
@click.option("-X", "--method", help="The HTTP method.  [default: POST with a body, else GET]")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header field; repeatable.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True, help="Seconds."
)
@click.option("--name", help="The function to call, where a file defines several.")
@component_option
def command(
    target: str,
    path: str,
    data: str | None,
    method: str | None,
    headers: tuple[str, ...],
    timeout: float,
    name: str | None,
    components: tuple[str, ...],
) -> None:
    """Send one request to TARGET at PATH and print the answer.

    TARGET is the URL of a server, or anything that `servegraph serve` takes; then the function runs in this process.

    \b
    Examples:
      servegraph invoke http://127.0.0.1:8080 /v2/models/iris/infer -d '{"inputs": [[5.1, 3.5, 1.4, 0.2]]}'
      servegraph invoke examples/iris/function.py /v2/models/iris/infer -d @request.json
      echo '{"inputs": [1]}' | servegraph invoke function.py /v2/models/double/infer -d -
    """  # noqa: D301 - click's mark for lines that stay as they are
    body = _body(data)
    fields = _headers(headers)
    if body is not None and not any(n.lower() == "content-type" for n in fields) and _is_json(body):
        fields["Content-Type"] = "application/json"
    try:
        if target.startswith(("http://", "https://")):
            if components:
                raise SettingsError("--component is for a deployment that runs in this process, not for a server")
            from servegraph.runtimes.client import invoke

            answer = invoke(target, path, body, method, fields, timeout)
        else:
            function = load_target(target, name, components_of(components))
            answer = _in_process(function, _event(path, body, method, fields, timeout))
    except RequestFailedError as exc:
        if isinstance(exc.body, (dict, list)):
            click.echo(jsoncodec.dumps(exc.body, indent=True).decode(), err=True)
        raise
    _show(answer)


def _in_process(function: ServingFunction, event: Event) -> Any:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with function.to_mock_server() as server:
        try:
            return server.run(event, get_body=True)
        except RequestFailedError as exc:
            if exc.__cause__ is not None and exc.__cause__.__cause__ is not None:
                show_traceback(exc.__cause__.__cause__)  # what the function's own code raised
            raise


def _event(path: str, body: bytes | None, method: str | None, fields: dict[str, str], timeout: float) -> Event:
    content_type = next((v for n, v in fields.items() if n.lower() == "content-type"), None)
    place, _, query = path.partition("?")
    event = Event(body, content_type, fields, (method or ("GET" if body is None else "POST")).upper(), place)
    event._query = query
    event.deadline = time.monotonic() + timeout
    return event


def _body(data: str | None) -> bytes | None:
    if data is None:
        return None
    if data == "-":
        return sys.stdin.buffer.read()
    if data.startswith("@"):
        file = Path(data[1:])
        try:
            return file.read_bytes()
        except OSError as exc:
            raise RequestError(f"-d {data}: {exc.strerror}") from exc
    return data.encode()


def _headers(given: Sequence[str]) -> dict[str, str]:
    fields = {}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise RequestError(f"-H takes 'NAME: VALUE', not {text!r}")
        fields[name.strip()] = value.strip()
    return fields


def _is_json(body: bytes) -> bool:
    try:
        jsoncodec.loads(body)
    except jsoncodec.JSONDecodeError:
        return False
    return True


def _show(answer: Any) -> None:
    if isinstance(answer, Response):
        answer = answer.body
    if answer is None:
        click.echo("(no result)", err=True)
    elif isinstance(answer, bytes):
        sys.stdout.buffer.write(answer)
    elif isinstance(answer, str):
        click.echo(answer)
    else:
        click.echo(jsoncodec.dumps(answer, indent=True).decode())
