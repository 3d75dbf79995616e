from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from framework_modules import framework

from servegraph.errors import ModelLoadError
from servegraph.serving.seldon.component import Component
from servegraph.serving.seldon.errors import SeldonMicroserviceException
from servegraph.serving.seldon.message import Message
from servegraph.serving.seldon.servers import HuggingFaceServer
from servegraph.serving.seldon.servers.huggingface_server import TASKS
from servegraph.serving.store_cache import tree_digest

torch = framework("torch")
transformers = framework("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of the framework are about itself

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a"]


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", eos_token="[SEP]", mask_token="[MASK]"
    )


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=len(WORDS), id2label={0: "minus", 1: "plus"}, **sizes)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    config = transformers.GPT2Config(vocab_size=len(WORDS), n_embd=8, n_layer=1, n_head=2, n_positions=32)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    return tmp_path


def ask(server: Any, payload: dict[str, Any]) -> Message:
    component = Component(server)
    component.load()
    answer = component.call("predict", payload)
    assert isinstance(answer, Message)
    return answer


def test_classification_of_texts_in_each_form(classifier: Path) -> None:
    server = HuggingFaceServer(str(classifier), "text-classification", sha256=tree_digest(classifier))
    answer = ask(server, {"strData": "a good film"})
    assert answer.kind == "jsonData"
    assert answer.value["label"] in ("minus", "plus")
    assert 0 < answer.value["score"] <= 1
    several = {"a good film": None, "a bad film": None}
    for payload in (
        {"jsonData": {"inputs": list(several)}},
        {"jsonData": list(several)},
        {"data": {"ndarray": [[text] for text in several]}},
    ):
        outputs = ask(server, payload).value["outputs"]
        assert outputs[0] == answer.value
        assert len(outputs) == 2


def test_generation_gives_text_for_text_and_takes_parameters(generator: Path) -> None:
    server = HuggingFaceServer(str(generator), "text-generation")
    answer = ask(server, {"jsonData": {"inputs": "good", "parameters": {"max_new_tokens": 3, "do_sample": False}}})
    assert answer.kind == "strData"
    assert answer.value.startswith("good")


@pytest.mark.parametrize("name", ["trust_remote_code", "custom_generate", "assistant_model", "model"])
def test_requests_may_not_name_code_or_models(generator: Path, name: str) -> None:
    server = HuggingFaceServer(str(generator), "text-generation")
    with pytest.raises(SeldonMicroserviceException, match=rf"requests may not set \['{name}'\]") as caught:
        ask(server, {"jsonData": {"inputs": "good", "parameters": {name: "x/y"}}})
    assert caught.value.status_code == 400


def test_payloads_that_are_no_text_are_the_callers_fault(classifier: Path) -> None:
    server = HuggingFaceServer(str(classifier), "text-classification")
    with pytest.raises(SeldonMicroserviceException, match="takes texts, not bytes"):
        ask(server, {"binData": "YQ=="})
    with pytest.raises(SeldonMicroserviceException, match=r"holds inputs and parameters, and not \['more'\]"):
        ask(server, {"jsonData": {"inputs": "a", "more": 1}})


def test_model_that_is_a_pickle_needs_permission(classifier: Path) -> None:
    model = transformers.BertForSequenceClassification.from_pretrained(classifier)
    torch.save(model.state_dict(), classifier / "pytorch_model.bin")
    (classifier / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="a model that is no safetensors file needs allow_pickle"):
        HuggingFaceServer(str(classifier), "text-classification").load()
    answer = ask(HuggingFaceServer(str(classifier), "text-classification", allow_pickle=True), {"strData": "a film"})
    assert answer.value["label"] in ("minus", "plus")


def test_folder_that_holds_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="transformers cannot load it"):
        HuggingFaceServer(str(tmp_path), "text-classification").load()


def test_parameters_that_cannot_be_kept_are_errors() -> None:
    with pytest.raises(ModelLoadError, match="optimum_model is not supported"):
        HuggingFaceServer("x", optimum_model=True)
    with pytest.raises(ModelLoadError, match="sha256 is that of the folder in model_uri"):
        HuggingFaceServer(pretrained_model="x", sha256="0" * 64)
    with pytest.raises(ModelLoadError, match="one of model_uri, pretrained_model and task"):
        HuggingFaceServer()


def test_images_come_as_bytes_and_never_as_the_path_of_one(tmp_path: Path) -> None:
    import io

    image = pytest.importorskip("PIL.Image")
    torch.manual_seed(7)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.ViTConfig(image_size=4, patch_size=2, id2label={0: "cat", 1: "dog"}, **sizes)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 4, "width": 4}}
    (tmp_path / "preprocessor_config.json").write_text(str(processor).replace("'", '"'))
    server = HuggingFaceServer(str(tmp_path), "image-classification")
    packed = io.BytesIO()
    image.new("RGB", (4, 4), (255, 0, 0)).save(packed, "PNG")
    server.load()
    labels = {each["label"] for each in server.predict(packed.getvalue(), [])["outputs"]}
    assert labels == {"cat", "dog"}
    for text in ("/etc/passwd", "http://127.0.0.1/x.png"):
        with pytest.raises(SeldonMicroserviceException, match=r"takes bytes \(binData\), not a text"):
            server.predict(text, [])
    with pytest.raises(SeldonMicroserviceException, match="the bytes are no image"):
        server.predict(b"no image", [])


def test_tasks_that_would_read_files_that_requests_name_are_not_served() -> None:
    assert TASKS.isdisjoint({"visual-question-answering", "document-question-answering", "image-text-to-text"})


def test_task_that_is_not_served_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(ModelLoadError, match=r"pipelines for 'image-segmentation' are not served.*image-to-text"):
        HuggingFaceServer("x", "image-segmentation").load()


def test_tasks_go_by_their_other_names_too(classifier: Path) -> None:
    server = HuggingFaceServer(str(classifier), "sentiment-analysis")
    assert ask(server, {"strData": "a film"}).value["label"] in ("minus", "plus")
