"""Values as they are written into a Dockerfile: quoted so that they come out as they went in, or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

from servegraph.errors import SettingsError

_ESCAPED = re.compile(r'["\\$]')
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9\-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9\-]*[A-Za-z0-9])?)*(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}"
_IMAGE = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::{_TAG})?(?:@sha256:[0-9a-f]{{64}})?")
_PYTHON = re.compile(r"3\.[0-9]{1,2}(?:\.[0-9]{1,2})?")
_USER = re.compile(r"[0-9]{1,10}(?::[0-9]{1,10})?")
_LARGEST_ID: Final = 2**31 - 1
_OLDEST_PYTHON: Final = (3, 11)


def quoted(value: str) -> str:
    """A value between double quotes, in which Docker finds no variable and no escape."""
    return '"' + _ESCAPED.sub(lambda found: "\\" + found.group(), value) + '"'


def assignments(instruction: str, values: Mapping[str, str]) -> str:
    """An ``ENV`` or ``LABEL`` instruction with all values, one a line; nothing where there are none."""
    if not values:
        return ""
    lines = [f"{name}={quoted(value)}" for name, value in values.items()]
    return f"{instruction} " + (" \\\n" + " " * (len(instruction) + 1)).join(lines) + "\n"


def exec_form(arguments: Iterable[str]) -> str:
    """The arguments of a command as a JSON array: no shell reads them."""
    return json.dumps(list(arguments), ensure_ascii=False)


def image_reference(text: str, option: str) -> str:
    """The name of an image, unchanged.

    Raises:
        SettingsError: it is no name of an image.
    """
    if len(text) > 512 or not _IMAGE.fullmatch(text):
        raise SettingsError(f"{option} takes the name of an image, such as 'python:3.12-slim', not {text!r}")
    return text


def python_version(text: str) -> str:
    """A version of Python that servegraph runs on, unchanged.

    Raises:
        SettingsError: it is none.
    """
    if not _PYTHON.fullmatch(text):
        raise SettingsError(f"--python takes a version such as 3.12, not {text!r}")
    if tuple(int(part) for part in text.split(".")[:2]) < _OLDEST_PYTHON:
        raise SettingsError(f"--python: servegraph runs on Python 3.11 and later, not on {text}")
    return text


def user_id(text: str) -> str:
    """A numeric user, with a group (0, the one that OpenShift gives, where none is named).

    Raises:
        SettingsError: it is no number; a name would have to exist in the base image.
    """
    if not _USER.fullmatch(text) or any(int(part) > _LARGEST_ID for part in text.split(":")):
        raise SettingsError(f"--user takes a number, or UID:GID, not {text!r}")
    return ":".join(str(int(part)) for part in (text if ":" in text else f"{text}:0").split(":"))
