"""From a batch to the model: no mask and no needless logits, and yet the same loss."""

import pytest
import torch

from pixelis.config import ModelConfig
from pixelis.data.dataset import CurriculumDataset
from pixelis.data.encode import IGNORE_INDEX, Encoder
from pixelis.data.store import to_row
from pixelis.data_prep.generate import generate_example
from pixelis.data_prep.tasks import TASKS
from pixelis.models.forward import model_inputs, output_head, supervised_logits
from pixelis.models.load import load_model, load_processor
from pixelis.models.lora import add_lora
from pixelis.training.trainer import compute_token_loss

NANO = "pixelis-nano"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums depend on how they are split among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model():
    base = load_model(NANO, torch_dtype="float32")
    return add_lora(
        base, ModelConfig(model_name=NANO, lora_r=4, lora_alpha=8, lora_dropout=0.0), seed=0
    )


@pytest.fixture(scope="module")
def batch():
    """Three examples of unequal lengths, two with more than one image."""
    made = [
        generate_example(seed=6, index=index, task=task, sample_type="positive")
        for index, task in enumerate(list(TASKS)[:3])
    ]
    encoder = Encoder(load_processor(NANO, max_pixels=12544))
    dataset = CurriculumDataset({"simple": [to_row(example) for example in made]}, encoder)
    items = [dataset["simple", i] for i in range(3)]
    assert len({len(item) for item in items}) == 3
    return dataset.collate(items)


@pytest.fixture(scope="module")
def positions(model, batch):
    rule = model.get_base_model().model.get_rope_index
    found, _ = rule(
        batch["input_ids"],
        batch["mm_token_type_ids"],
        batch["image_grid_thw"],
        attention_mask=batch["attention_mask"],
    )
    return found


@pytest.fixture(scope="module")
def plain(model, batch):
    """The model's logits as transformers computes them."""
    given = {name: x for name, x in batch.items() if name not in ("labels", "kinds")}
    with torch.inference_mode():
        return model(**given).logits


def supervised(logits, labels):
    return logits[:, :-1][labels[:, 1:] != IGNORE_INDEX]


def test_without_positions_everything_but_labels_and_kinds_is_fed(batch):
    assert set(model_inputs(batch)) == set(batch) - {"labels", "kinds"}


def test_with_positions_there_is_no_mask_and_labelled_logits_are_the_same(
    model, batch, positions, plain
):
    given = model_inputs({**batch, "position_ids": positions})
    assert not {"attention_mask", "mm_token_type_ids"} & set(given)
    with torch.inference_mode():
        found = model(**given).logits
    expected = supervised(plain, batch["labels"])
    torch.testing.assert_close(supervised(found, batch["labels"]), expected, atol=2e-4, rtol=0)
    # Padding is attended to by nobody that has a label, and positions do matter.
    with torch.inference_mode():
        flat = torch.arange(positions.shape[2]).expand_as(positions)
        other = model(**model_inputs({**batch, "position_ids": flat})).logits
    assert (supervised(other, batch["labels"]) - expected).abs().max() > 0.01


def test_features_take_the_images_place(model, batch, positions, plain):
    core = model.get_base_model().model
    with torch.inference_mode():
        outputs = core.get_image_features(
            batch["pixel_values"], batch["image_grid_thw"], return_dict=True
        )
        features = torch.cat(list(outputs.pooler_output))
        kept = {k: v for k, v in batch.items() if k not in ("pixel_values", "image_grid_thw")}
        given = model_inputs({**kept, "position_ids": positions, "image_features": features})
        found = model(**given).logits
        mixed = model_inputs(
            {**kept, "position_ids": positions, "image_features": features.flip(0)}
        )
        other = model(**mixed).logits
    expected = supervised(plain, batch["labels"])
    torch.testing.assert_close(supervised(found, batch["labels"]), expected, atol=2e-4, rtol=0)
    assert (supervised(other, batch["labels"]) - expected).abs().max() > 0.01  # images do matter


def test_the_head_computes_what_is_supervised_and_nothing_else(model, batch, positions):
    labels, given = batch["labels"], model_inputs({**batch, "position_ids": positions})
    with torch.inference_mode():
        full = model(**given).logits
        with supervised_logits(output_head(model), labels):
            found = model(**given).logits
        again = model(**given).logits  # nothing is left on the head
    assert found.shape == ((labels[:, 1:] != IGNORE_INDEX).sum(), full.shape[-1])
    torch.testing.assert_close(found, supervised(full, labels), atol=1e-5, rtol=0)
    assert torch.equal(again, full)


def test_a_base_that_names_no_head_computes_all(model, batch, positions):
    given = model_inputs({**batch, "position_ids": positions})
    with torch.inference_mode(), supervised_logits(None, batch["labels"]):
        assert model(**given).logits.shape[:2] == batch["labels"].shape


# What a training makes of it


def loss_and_gradients(model, given, labels, head):
    model.zero_grad()
    with supervised_logits(head, labels):
        outputs = model(**given)
    loss = compute_token_loss(outputs, labels)
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    return loss.item(), gradients


@pytest.mark.parametrize("masked", [True, False], ids=["with a mask", "without one"])
def test_loss_and_gradients_are_the_full_head_s(batch, positions, masked):
    base = load_model(NANO, torch_dtype="float32")
    model = add_lora(
        base, ModelConfig(model_name=NANO, lora_r=4, lora_alpha=8, lora_dropout=0.0), seed=0
    )
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, which would leave the other half without a gradient
            torch.nn.init.normal_(parameter, std=0.05)
    labels = batch["labels"]
    assert batch["attention_mask"].min() == 0  # rows are padded
    whole = {name: x for name, x in batch.items() if name not in ("labels", "kinds")}
    expected, wanted = loss_and_gradients(model, whole, labels, None)
    given = whole if masked else model_inputs({**batch, "position_ids": positions})
    loss, gradients = loss_and_gradients(model, given, labels, output_head(model))
    assert loss == pytest.approx(expected, abs=1e-6)
    for name, gradient in wanted.items():
        assert gradient.abs().max() > 1e-4, name
        torch.testing.assert_close(gradients[name], gradient, atol=1e-6, rtol=0)


def test_a_batch_in_which_nothing_is_supervised_counts_for_nothing(model, batch, positions):
    nothing = torch.full_like(batch["labels"], IGNORE_INDEX)
    model.zero_grad()
    with supervised_logits(output_head(model), nothing):
        outputs = model(**model_inputs({**batch, "position_ids": positions}))
    loss = compute_token_loss(outputs, nothing, torch.tensor(40))
    loss.backward()
    assert loss == 0
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)
