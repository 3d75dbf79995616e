"""Open Inference Protocol, JSON form (version 2): tensors in a request become model inputs, outputs become tensors.

Source: the Open Inference Protocol REST specification (kserve/open-inference-protocol). A model sees what it would
see in the MLRun style: ``request["inputs"]`` is a list of rows. One tensor of shape ``[n, …]`` gives ``n`` rows;
several tensors of the same ``n`` give rows whose columns stand side by side, in the order they were sent. The
tensors by name are in ``request["tensors"]`` as nested lists.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from servegraph.errors import StepError, UnprocessableError, clipped, closest

DEFAULT_RANK = 8
"""How many dimensions a tensor may have where nothing else is said."""
MAX_DIMENSION = 2**31 - 1
_FREE_LISTS = 65_536
"""As many lists may be made of a tensor whatever it holds; beyond it, two for each element."""

_INT_RANGES = {
    f"{'' if signed else 'U'}INT{bits}": (-(2 ** (bits - 1)) if signed else 0, 2 ** (bits - signed) - 1)
    for bits in (8, 16, 32, 64)
    for signed in (True, False)
}
_FLOATS = ("FP16", "FP32", "FP64", "BF16")
DATATYPES = ("BOOL", *_INT_RANGES, *_FLOATS, "BYTES")
# Of an array's dtype its kind and size in bytes.
_ARRAY_TYPES: dict[tuple[str, int], str] = {
    ("b", 1): "BOOL",
    ("f", 2): "FP16",
    ("f", 4): "FP32",
    ("f", 8): "FP64",
    **{("i", n): f"INT{8 * n}" for n in (1, 2, 4, 8)},
    **{("u", n): f"UINT{8 * n}" for n in (1, 2, 4, 8)},
}


def is_tensor_request(body: Mapping[str, Any]) -> bool:
    """Whether a body's ``inputs`` are tensors and not rows."""
    inputs = body.get("inputs")
    if not inputs or type(inputs) is not list:
        return False
    first = inputs[0]
    return type(first) is dict and "datatype" in first and "shape" in first


def decode(body: Mapping[str, Any], most_dimensions: int = DEFAULT_RANK) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The model's request in a tensor request, and the names of the outputs it asks for (none is all of them).

    Raises:
        UnprocessableError: a tensor's shape, datatype and data do not fit each other; the message names the place.
    """
    inputs = body["inputs"]
    if len(inputs) == 1:
        name, rows = _tensor(inputs[0], 0, most_dimensions)
        tensors = {name: rows}
    else:
        tensors = {}
        for i, item in enumerate(inputs):
            name, value = _tensor(item, i, most_dimensions)
            if name in tensors:
                raise UnprocessableError(f"$.inputs[{i}].name: there are two tensors named {clipped(name)!r}")
            tensors[name] = value
        rows = _side_by_side(tensors)
    request = {**body, "inputs": rows, "tensors": tensors}
    outputs = body.get("outputs")
    wanted: tuple[str, ...] = ()
    if outputs:
        if not isinstance(outputs, list) or not all(
            isinstance(o, dict) and isinstance(o.get("name"), str) for o in outputs
        ):
            raise UnprocessableError("$.outputs: must be a list of objects with a name")
        wanted = tuple(o["name"] for o in outputs)
        del request["outputs"]
    return request, wanted


def _tensor(item: Any, index: int, most: int) -> tuple[str, Any]:
    """A tensor's name and its value as nested lists."""
    where = f"$.inputs[{index}]"
    try:
        name, shape, datatype, data = item["name"], item["shape"], item["datatype"], item["data"]
    except (KeyError, TypeError):
        missing = [k for k in ("name", "shape", "datatype", "data") if not isinstance(item, dict) or k not in item]
        raise UnprocessableError(
            f"{where}: a tensor needs name, shape, datatype and data; missing: {missing}"
        ) from None
    if type(name) is not str:
        raise UnprocessableError(f"{where}.name: must be a string, not {type(name).__name__}")
    if type(shape) is not list or not 1 <= len(shape) <= most:
        raise UnprocessableError(f"{where}.shape: must be a list of 1 to {most} dimensions")
    size = 1
    for dimension in shape:
        if type(dimension) is not int or not 0 <= dimension <= MAX_DIMENSION:
            raise UnprocessableError(f"{where}.shape: {dimension!r} is no dimension from 0 to {MAX_DIMENSION}")
        size *= dimension
    if not size or size > _FREE_LISTS:
        _check_lists(shape, size, where)
    if type(data) is not list:
        raise UnprocessableError(f"{where}.data: must be an array, not {type(data).__name__}")
    if data and type(data[0]) is list:
        data = _flattened(data, shape, where)
    if len(data) != size:
        raise UnprocessableError(f"{where}: shape {shape} takes {size} elements, data has {len(data)}")
    return name, _nested(_checked(data, datatype, where), shape)


def _check_lists(shape: Sequence[int], size: int, where: str) -> None:
    """Refuse a shape whose rows within rows are many more lists than it has elements: memory made out of nothing."""
    lists = rows = 1
    for dimension in shape[:-1]:
        rows *= dimension
        lists += rows
        if lists > max(_FREE_LISTS, 2 * size):
            raise UnprocessableError(f"{where}.shape: {shape} has {size} elements in too many lists")


def _flattened(data: list[Any], shape: Sequence[int], where: str) -> list[Any]:
    """The elements of nested data, whose nesting must be that of the shape."""
    for depth, dimension in enumerate(shape):
        last = depth == len(shape) - 1
        if len(data) != math.prod(shape[: depth + 1]):
            raise UnprocessableError(f"{where}.data: its nesting does not fit shape {list(shape)}")
        if last:
            return data
        inner = shape[depth + 1]
        if not all(type(part) is list and len(part) == inner for part in data):
            raise UnprocessableError(f"{where}.data: not every part at depth {depth + 1} is a list of {inner}")
        data = [element for part in data for element in part]
        del dimension
    return data


def _checked(data: list[Any], datatype: Any, where: str) -> list[Any]:
    """The elements, if they are what the datatype says."""
    kinds = set(map(type, data))
    if datatype in _FLOATS:
        if kinds <= {float}:
            return data
        if kinds <= {float, int}:
            return list(map(float, data))
    elif type(datatype) is str and datatype in _INT_RANGES:
        if kinds <= {int}:
            low, high = _INT_RANGES[datatype]
            if data and (min(data) < low or max(data) > high):
                raise UnprocessableError(f"{where}.data: {datatype} holds {low} to {high}")
            return data
    elif datatype == "BOOL":
        if kinds <= {bool}:
            return data
        if kinds <= {bool, int} and set(data) <= {0, 1}:
            return list(map(bool, data))
    elif datatype == "BYTES":
        if kinds <= {str}:
            return data
    else:
        raise UnprocessableError(
            f"{where}.datatype: {clipped(str(datatype))!r} is unknown; {closest(str(datatype), DATATYPES)}"
        )
    fitting = {"BOOL": (bool,), "BYTES": (str,)}.get(datatype, (int, float) if datatype in _FLOATS else (int,))
    strange = next((t.__name__ for t in map(type, data) if t not in fitting), "numbers other than 0 and 1")
    raise UnprocessableError(f"{where}.data: holds {strange}, which is no {datatype}")


def _nested(data: list[Any], shape: Sequence[int]) -> list[Any]:
    """A flat list as nested lists of a shape."""
    for dimension in reversed(shape[1:]):
        if dimension == 0:
            return [[] for _ in range(shape[0])]
        data = [data[i : i + dimension] for i in range(0, len(data), dimension)]
    return data


def _side_by_side(tensors: Mapping[str, list[Any]]) -> list[list[Any]]:
    lengths = {name: len(value) for name, value in tensors.items()}
    if len(set(lengths.values())) != 1:
        raise UnprocessableError(f"$.inputs: the tensors differ in their first dimension: {lengths}")
    columns = [[part if isinstance(part, list) else [part] for part in value] for value in tensors.values()]
    return [[element for part in row for element in part] for row in zip(*columns, strict=True)]


def encode(
    response: Mapping[str, Any], wanted: tuple[str, ...], names: Sequence[str], model: str, version: str
) -> dict[str, Any]:
    """The protocol's answer from a model's response.

    ``outputs`` may be nested lists, an array, or a mapping of names to either.

    Raises:
        UnprocessableError: an output was asked for that the model does not give.
        StepError: the outputs are ragged or of mixed types and have no tensor form.
    """
    outputs = response.get("outputs")
    if isinstance(outputs, Mapping):
        tensors = [_output(str(name), value) for name, value in outputs.items()]
    else:
        tensors = [_output(names[0] if names else "output-0", outputs)]
    if wanted:
        by_name = {t["name"]: t for t in tensors}
        for name in wanted:
            if name not in by_name:
                raise UnprocessableError(f"$.outputs: the model gives no {clipped(name)!r}; {closest(name, by_name)}")
        tensors = [by_name[name] for name in wanted]
    answer = {"model_name": model, "id": response.get("id"), "outputs": tensors}
    if version:
        answer["model_version"] = version
    parameters = response.get("parameters")
    if parameters:
        answer["parameters"] = parameters
    return answer


def _output(name: str, value: Any) -> dict[str, Any]:
    dtype = getattr(value, "dtype", None)
    if dtype is not None and hasattr(value, "shape"):
        to_array: Callable[[], Any] | None = getattr(value, "to_numpy", None)
        array = value if to_array is None else to_array()
        dtype = array.dtype
        datatype = _ARRAY_TYPES.get((dtype.kind, dtype.itemsize))
        if datatype is not None:
            shape = list(array.shape) or [1]
            return {"name": name, "shape": shape, "datatype": datatype, "data": array.reshape(-1)}
        value = array.tolist()
    if not isinstance(value, (list, tuple)):
        value = [value]
    flat, shape = list(value), [len(value)]
    while flat and all(isinstance(part, (list, tuple)) for part in flat):
        inner = len(flat[0])
        if any(len(part) != inner for part in flat):
            raise StepError(f"output {name!r} is ragged: its rows differ in length, so it has no tensor form")
        flat = [element for part in flat for element in part]
        shape.append(inner)
    return {"name": name, "shape": shape, **_typed(name, flat)}


def _typed(name: str, flat: list[Any]) -> dict[str, Any]:
    kinds = set(map(type, flat))
    if not kinds <= {bool, int, float, str, bytes}:
        flat = [v.item() if hasattr(v, "item") else v for v in flat]
        kinds = set(map(type, flat))
    if kinds <= {bool} and kinds:
        return {"datatype": "BOOL", "data": flat}
    if kinds <= {int} and kinds:
        datatype = "INT64" if max(flat) < 2**63 else "UINT64"
        low, high = _INT_RANGES[datatype]
        if min(flat) < low or max(flat) > high:
            raise StepError(f"output {name!r} holds integers of more than 64 bits, which have no tensor form")
        return {"datatype": datatype, "data": flat}
    if kinds <= {int, float}:
        return {"datatype": "FP64", "data": flat if kinds <= {float} else list(map(float, flat))}
    if kinds <= {str, bytes}:
        return {"datatype": "BYTES", "data": [_as_text(v) for v in flat]}
    shown = sorted(t.__name__ for t in kinds)
    raise StepError(f"output {name!r} holds {shown}, which has no tensor form: return numbers, strings or booleans")


def _as_text(value: str | bytes) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode("ascii")
