"""Graph specs as other tools write them."""

from __future__ import annotations

from typing import Any

ROUTER: dict[str, Any] = {
    "kind": "router",
    "name": "router",
    "class_args": {"url_prefix": "/x/models"},
    "routes": {
        "m1": {
            "kind": "task",
            "class_name": "M",
            "class_args": {"my_param": 5, "model_path": "/tmp/m1", "outputs": None},
        },
        "m2:v2": {"kind": "task", "class_name": "M", "class_args": {"model_path": "/tmp/m2", "outputs": ["label"]}},
        "rem": {
            "kind": "task",
            "class_name": "$remote",
            "class_args": {"method": "POST", "url": "http://remote:8080/v2/models/x"},
        },
    },
}

FLOW: dict[str, Any] = {
    "engine": "async",
    "allow_cyclic": False,
    "steps": {
        "enrich": {"kind": "task", "handler": "enrich", "input_path": "a.b", "result_path": "c.d"},
        "st": {
            "kind": "task",
            "class_name": "Step",
            "class_args": {"mul": 7},
            "full_event": False,
            "after": ["enrich"],
            "on_error": "catcher",
        },
        "catcher": {
            "kind": "error_step",
            "handler": "enrich",
            "full_event": True,
            "base_step": "st",
            "endpoint_type": 1,
            "model_endpoint_creation_strategy": "skip",
        },
        "q1": {
            "kind": "queue",
            "path": "v3io:///users/q1",
            "shards": 4,
            "retention_in_hours": 8,
            "options": {"group": "g1"},
            "after": ["st"],
        },
        "s2": {"kind": "task", "class_name": "Step", "function": "child", "after": ["q1"]},
        "ens": {
            "kind": "router",
            "name": "ens",
            "class_name": "mlrun.serving.VotingEnsemble",
            "class_args": {"vote_type": "regression"},
            "function": "child",
            "after": ["s2"],
            "endpoint_type": 2,
            "model_endpoint_creation_strategy": "inplace",
            "routes": {
                "r1": {
                    "kind": "task",
                    "class_name": "M",
                    "class_args": {"model_path": ".", "z": 1},
                    "endpoint_type": 3,
                    "model_endpoint_creation_strategy": "inplace",
                }
            },
        },
        "flt": {
            "kind": "task",
            "class_name": "storey.Filter",
            "class_args": {"_fn": "(event['x']>1)"},
            "function": "child",
            "after": ["ens"],
        },
        "out": {"kind": "task", "handler": "json.dumps", "function": "child", "responder": True, "after": ["flt"]},
    },
    "model_endpoints_routes_names": ["st", "flt", "r2", "r1", "out", "s2", "enrich"],
}

CYCLE: dict[str, Any] = {
    "engine": "async",
    "allow_cyclic": True,
    "max_iterations": 10,
    "steps": {
        "inc": {"kind": "task", "handler": "inc", "cycle_from": ["ch"], "after": ["ch"]},
        "ch": {"kind": "task", "class_name": "Choose", "after": ["inc"]},
        "out": {"kind": "task", "handler": "out", "responder": True, "after": ["ch"]},
    },
}
