"""An adapter's LoggedModel, loaded and called as `mlflow models` does it."""

import io
import json
import re

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from peft import PeftModel
from PIL import Image

from pixelis.config import ModelConfig
from pixelis.data.encode import Encoder
from pixelis.errors import DataError
from pixelis.evaluation.serving import AdapterModel
from pixelis.models.load import load_model, load_processor
from pixelis.models.lora import add_lora
from pixelis.operations import execute
from pixelis.tracking import MlflowRecorder, Origin, log_adapter, resolve_adapter
from pixelis.tracking.adapters import input_example

PIXELS = {"min_pixels": 3136, "max_pixels": 12544}


pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A store with one adapter of the embedded base: its client and its LoggedModel's address."""
    folder = tmp_path_factory.mktemp("served")
    base = load_model("pixelis-nano", torch_dtype="float32")
    names = {"model_name": "pixelis-nano", "lora_r": 4, "lora_alpha": 8}
    model = add_lora(base, ModelConfig(**names, lora_dropout=0.0), seed=0)
    model.save_pretrained(str(folder / "final"), save_embedding_layers=False)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    home = client.create_experiment("served", str(folder / "artifacts"))
    recorder = MlflowRecorder(client, client.create_run(home))
    recorder.origin = Origin("pixelis-nano", **PIXELS, trust_remote_code=False, data="none.",
                             curriculum="strategy: staged\n", seed=0)  # fmt: skip
    log_adapter(recorder, folder / "final", "final", 1, {})
    recorder.close("FINISHED")
    (logged,) = client.search_logged_models([home])
    yield f"models:/{logged.model_id}"
    mlflow.set_tracking_uri(None)


def test_an_image_and_a_question_give_a_trajectory_and_an_answer(served):
    model = mlflow.pyfunc.load_model(served)
    example = model.input_example
    assert list(example["question"]) == ["What is the colour of the circle?"]
    both = pd.concat([input_example(), input_example()], ignore_index=True)
    table = model.predict(both, params={"max_operations": 1, "max_new_tokens": 40})
    assert list(table.columns) == ["answer", "trajectory", "outcome"]
    assert table.iloc[0].equals(table.iloc[1])
    turns = json.loads(table["trajectory"][0])
    assert turns and set(turns[0]) == {"text", "operation", "arguments", "result"}
    assert table["outcome"][0] in ("answered", "max_operations", "no_answer")
    # The embedded base calls an operation untrained, and it really ran on the picture.
    assert turns[0]["operation"] == "GET_PROPERTIES"
    picture = Image.open(io.BytesIO(input_example()["image"][0]))
    expected = execute("GET_PROPERTIES", turns[0]["arguments"], [picture]).result
    assert turns[0]["result"] == expected and "color" in expected


def test_the_folder_has_pefts_layout_without_base_weights(served):
    folder = resolve_adapter(served)
    assert {"adapter_config.json", "adapter_model.safetensors", "MLmodel", "README.md"} <= {
        path.name for path in folder.iterdir()
    }
    assert not list(folder.rglob("*.pkl")) and not list(folder.rglob("*.bin"))
    assert (folder / "adapter_model.safetensors").stat().st_size < 1_000_000
    base = load_model("pixelis-nano", torch_dtype="float32")
    assert PeftModel.from_pretrained(base, str(folder)).peft_config["default"].r == 4


def test_the_code_of_the_card_runs_as_it_stands(served):
    card = (resolve_adapter(served) / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    scope = {}
    exec(code, scope)
    assert scope["model"].peft_config["default"].r == 4
    assert f"mlflow models serve -m {served} " in card


def test_a_missing_question_and_a_broken_image_are_named():
    encoder = Encoder(load_processor("pixelis-nano", **PIXELS))
    model = AdapterModel(load_model("pixelis-nano", torch_dtype="float32"), encoder)
    with pytest.raises(DataError, match="the input has no column question: "):
        model.predict(pd.DataFrame([{"image": b""}]))
    with pytest.raises(DataError, match="the image of input 0 cannot be read"):
        model.predict(pd.DataFrame([{"image": b"no picture", "question": "What?"}]))
