"""Pipelines of Hugging Face's transformers."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

from servegraph.errors import ModelLoadError, ServegraphError, closest
from servegraph.importing import import_extra
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.servers.inputs import kind_of, plain
from servegraph.serving.seldon.servers.packaged import PackagedServer

PARAMETERS: Final = frozenset({
    "aggregation_strategy", "candidate_labels", "clean_up_tokenization_spaces", "do_sample", "early_stopping",
    "function_to_apply", "hypothesis_template", "length_penalty", "max_answer_len", "max_length", "max_new_tokens",
    "min_length", "min_new_tokens", "multi_label", "no_repeat_ngram_size", "num_beams", "num_return_sequences",
    "repetition_penalty", "return_full_text", "src_lang", "targets", "temperature", "tgt_lang", "threshold", "top_k",
    "top_p", "truncation",
})  # fmt: skip
"""What a request may set. Others of transformers' parameters name code or files to load."""

# Pipelines of other tasks take texts for the paths and URLs of files, or answer with pictures.
_TEXT_TASKS: Final = frozenset({
    "feature-extraction", "fill-mask", "question-answering", "summarization", "table-question-answering",
    "text-classification", "text-generation", "text2text-generation", "token-classification", "translation",
    "zero-shot-classification",
})  # fmt: skip
_IMAGE_TASKS: Final = frozenset(
    {"image-classification", "image-feature-extraction", "image-to-text", "object-detection"}
)
_SOUND_TASKS: Final = frozenset({"audio-classification", "automatic-speech-recognition"})
_OTHER_NAMES: Final = {"ner": "token-classification", "sentiment-analysis": "text-classification"}
TASKS: Final = _TEXT_TASKS | _IMAGE_TASKS | _SOUND_TASKS
"""The tasks that are served."""


class HuggingFaceServer(PackagedServer):
    """Serves a pipeline: a task with a model and a tokenizer.

    A text (``strData``) or bytes of an image or a sound (``binData``) are one input. A JSON object may hold ``inputs``
    and ``parameters``; without ``inputs`` it is itself the input, as ``{"question": …, "context": …}`` is. One text
    is answered with the text that was generated, where that is the whole answer, everything else with a JSON object.
    Models come as safetensors, unless pickles are allowed. Code that comes with a model is never run.

    Args:
        model_uri: the folder of the model and its tokenizer.
        task: the pipeline's task, such as ``text-classification``; by default that of the model.
        pretrained_model: the model, by a name on the hub or a folder, in place of that in ``model_uri``.
        pretrained_tokenizer: the tokenizer likewise.
        device: where it runs, such as ``cuda:0``; by default a GPU if there is one.
        optimum_model: whether to run the model by Optimum, which is not done here: serve its ONNX file.
        allow_pickle: whether a model may be loaded that does not come as safetensors.
        sha256: the digest that the folder must have.
    """

    def __init__(
        self,
        model_uri: str = "",
        task: str = "",
        pretrained_model: str = "",
        pretrained_tokenizer: str = "",
        device: str = "",
        optimum_model: bool = False,
        *,
        allow_pickle: bool | None = None,
        sha256: str = "",
    ) -> None:
        super().__init__(model_uri, allow_pickle=allow_pickle, sha256=sha256)
        if optimum_model:
            raise ModelLoadError("optimum_model is not supported: export the model and serve it by ONNX_SERVER")
        if not (model_uri or pretrained_model or task):
            raise ModelLoadError("a pipeline needs one of model_uri, pretrained_model and task")
        if sha256 and not model_uri:
            raise ModelLoadError("sha256 is that of the folder in model_uri, and there is none")
        self.task = task
        self.pretrained_model = pretrained_model
        self.pretrained_tokenizer = pretrained_tokenizer
        self.device = device
        self._pipeline: Any = None
        self._kind = ""  # the task under its one name

    def _load(self) -> None:
        if self.task:
            _known(self.task)
        transformers = import_extra("transformers", feature="serving a Hugging Face model", extra="transformers")
        model = self.pretrained_model or (str(self.path) if self.model_uri else "")
        if self.model_uri:
            self.permission.check_digest(self.path)
        given: dict[str, Any] = {
            "task": self.task, "model": model, "tokenizer": self.pretrained_tokenizer, "device": self.device,
        }  # fmt: skip
        given = {key: value for key, value in given.items() if value}
        if not self.permission.allowed:
            given["model_kwargs"] = {"use_safetensors": True}
        try:
            self._pipeline = transformers.pipeline(**given, trust_remote_code=False)
        except ServegraphError:
            raise
        except Exception as exc:  # it loads by any framework, and from the hub
            raise ModelLoadError(
                f"{model or self.task}: transformers cannot load it: {type(exc).__name__}: {exc}"
                + ("" if self.permission.allowed else "; a model that is no safetensors file needs allow_pickle")
            ) from exc
        self._kind = _known(self._pipeline.task)

    def _predict(self, features: Any, names: list[str]) -> Any:
        parameters: dict[str, Any] = {}
        if isinstance(features, Mapping) and "inputs" in features:
            parameters = self._parameters(features)
            features = features["inputs"]
        inputs = self._input(features)
        # A value that it cannot take is told by transformers with whatever comes to hand.
        try:
            result = self._pipeline(inputs, **parameters)
        except (TypeError, ValueError, KeyError) as exc:
            raise SeldonMicroserviceException(f"the {self.task} pipeline cannot take this: {exc}") from exc
        return _answer(inputs, plain(result))

    def _parameters(self, body: Mapping[str, Any]) -> dict[str, Any]:
        parameters = body.get("parameters") or {}
        unknown = sorted(set(body) - {"inputs", "parameters"})
        if unknown or not isinstance(parameters, Mapping):
            raise SeldonMicroserviceException(f"the JSON object holds inputs and parameters, and not {unknown}")
        refused = sorted(str(name) for name in parameters if name not in PARAMETERS)
        if refused:
            raise SeldonMicroserviceException(f"requests may not set {refused}; they may set {sorted(PARAMETERS)}")
        return dict(parameters)

    def _input(self, features: Any) -> Any:
        takes_bytes = self._kind not in _TEXT_TASKS
        if isinstance(features, bytes):
            if not takes_bytes:
                raise SeldonMicroserviceException(f"the {self._kind} pipeline takes texts, not bytes")
            return features if self._kind in _SOUND_TASKS else _image(features)
        if takes_bytes:
            # Texts would be taken as paths and URLs to read from.
            raise SeldonMicroserviceException(
                f"the {self._kind} pipeline takes bytes (binData), not {kind_of(features)}"
            )
        if hasattr(features, "tolist"):
            features = features.tolist()
        if (
            isinstance(features, list)
            and features
            and all(isinstance(each, list) and len(each) == 1 for each in features)
        ):
            features = [each[0] for each in features]  # a column of texts
        if not features or not isinstance(features, (str, list, Mapping)):
            raise SeldonMicroserviceException(f"the {self._kind} pipeline takes texts, not {kind_of(features)}")
        return dict(features) if isinstance(features, Mapping) else features


def _known(task: str) -> str:
    """A task under its one name.

    Raises:
        ModelLoadError: it is not served.
    """
    name = "translation" if task.startswith("translation_") else _OTHER_NAMES.get(task, task)
    if name not in TASKS:
        raise ModelLoadError(f"pipelines for {task!r} are not served; {closest(task, TASKS)}")
    return name


def _image(data: bytes) -> Any:
    pil = import_extra("PIL.Image", feature="images as input", extra="images")
    try:
        return pil.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError) as exc:
        raise SeldonMicroserviceException(f"the bytes are no image: {exc}") from exc


def _answer(inputs: Any, result: Any) -> Any:
    """What a pipeline gave, as a text or a JSON object."""
    if isinstance(inputs, str) and isinstance(result, list) and len(result) == 1:
        result = result[0]
    if isinstance(inputs, str) and isinstance(result, dict) and len(result) == 1:
        text = next(iter(result.values()))
        if isinstance(text, str):
            return text
    return result if isinstance(result, dict) else {"outputs": result}
