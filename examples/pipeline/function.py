"""From a patient's number to advice: enrichment, models, a second server, a choice. ``train.py`` makes the models."""

from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import reference  # type: ignore[import-not-found]  # the file beside this one

import servegraph
from servegraph.errors import UnprocessableError
from servegraph.serving import DataFrameSource, RemoteStep

MODELS = Path(__file__).parent / "models"
URGENT = 75.0  # percent of the patients whose disease progresses less


def ask(body: dict[str, Any]) -> dict[str, Any]:
    """The request that the models get, beside the patient."""
    if not isinstance(body, dict) or "patient" not in body:
        raise UnprocessableError('send an object with a patient: {"patient": 17}')
    request = {"inputs": [{"patient": body["patient"]}], "model": body.get("model", "linear")}
    return {"patient": body["patient"], "request": request}


class Patients(DataFrameSource):
    """The table of features, one row for each patient."""

    def __init__(self) -> None:
        super().__init__(pd.read_csv(MODELS / "patients.csv"), keys="patient")


class Progression(servegraph.V2ModelServer):
    """Predicts how far the disease will have progressed a year from now."""

    def load(self) -> None:
        path, _ = self.get_model(".joblib")
        self.model = joblib.load(path)

    def predict(self, request: dict[str, Any]) -> list[float]:
        progressions: list[float] = self.model.predict(request["inputs"]).tolist()
        return progressions

    def postprocess(self, response: dict[str, Any]) -> dict[str, Any]:
        return {**response, "typical_error": self.get_param("typical_error")}


def unknown(event: servegraph.Event) -> servegraph.Event:
    """The answer for a patient who is not in the table; any other failure stays one."""
    if event.error is not None and not isinstance(event.error, UnprocessableError):
        raise event.error
    problem = {"problem": f"there is no patient {event.body['patient']!r}", "from_step": event.origin_state}
    event.body = servegraph.Response(body=problem, status_code=404)
    return event


class Reference(RemoteStep):
    """Asks the reference server; starts one beside itself unless it is told where one is."""

    def __init__(
        self,
        url: str | None = None,
        name: str | None = None,
        context: Any = None,
        input_path: str | None = None,
        result_path: str | None = None,
    ) -> None:
        self.service = None
        if url is None:
            self.service = reference.function.serve(http_port=0, block=False)
            url = self.service.url
        super().__init__(
            url,
            method="POST",
            input_path=input_path,
            result_path=result_path,
            name=name,
            context=context,
        )

    def close(self) -> None:
        if self.service is not None:
            self.service.stop()


def interval(body: dict[str, Any]) -> dict[str, Any]:
    """The range that holds about two thirds of such patients."""
    progression, error = body["prediction"]["outputs"][0], body["prediction"]["typical_error"]
    return {"interval": [round(progression - error, 1), round(progression + error, 1)]}


def combine(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One object of what the branches gave, in the order in which the merge names them."""
    asked, ranged = parts
    prediction = asked["prediction"]
    return {
        "patient": asked["patient"],
        "model": prediction["model_name"],
        "progression": round(prediction["outputs"][0], 1),
        "percentile": asked["percentile"][0],
        **ranged,
    }


class Urgency:
    """Chooses the next step by where the prediction stands."""

    def select_outlets(self, body: dict[str, Any]) -> list[str]:
        return ["visit" if body["percentile"] >= URGENT else "routine"]


def visit(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "advice": "invite for a visit this month"}


def routine(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "advice": "see at the next routine check"}


def answer(body: dict[str, Any]) -> dict[str, Any]:
    return {"result": body}


function = servegraph.new_function("progression", project="examples")
function.spec.description = "Advice for a patient, from the predicted progression of diabetes."
function.spec.parameters["example_body"] = {"patient": 17, "model": "boosted"}
graph = function.set_topology("flow", engine="async")
models = graph.to(name="ask", handler=ask).to(
    "*servegraph.serving.EnrichmentModelRouter",
    name="models",
    feature_source=Patients,
    input_path="request",
    result_path="prediction",
)
models.error_handler("unknown", handler=unknown, full_event=True)
for kind in ("linear", "boosted"):
    models.add_route(kind, class_name=Progression, model_path=str(MODELS / kind))
models.to(Reference, name="reference", input_path="prediction.outputs", result_path="percentile")
models.to(name="interval", handler=interval)
graph.add_step(servegraph.Merge, name="merge", after=["reference", "interval"]).to(name="combine", handler=combine).to(
    Urgency, name="urgency"
)
graph.add_step(name="visit", handler=visit, after="urgency")
graph.add_step(name="routine", handler=routine, after="urgency")
graph.add_step(name="answer", handler=answer, after=["visit", "routine"]).respond()
