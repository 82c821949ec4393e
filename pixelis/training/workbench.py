"""What one training after another shares: the processor, the encoded examples, and the base."""

from pathlib import Path
from typing import Any

from peft import PeftModel

from pixelis.config import ModelConfig
from pixelis.curriculum import CurriculumConfig
from pixelis.data.dataset import CurriculumDataset
from pixelis.data.encode import Encoder
from pixelis.data.store import load_split
from pixelis.models.changed_base import changes_base
from pixelis.models.load import load_processor
from pixelis.training.adapter import load_base
from pixelis.training.inputs import build_datasets, check_sizes


class Workbench:
    """Loads each thing once; the base is freed of its adapter before the next one is put on it.

    Nothing of a training is left on it: the next one computes the same numbers as in a process of
    its own.
    """

    def __init__(self) -> None:
        """Load nothing yet."""
        self._data: dict[tuple[Any, ...], tuple[Encoder, dict[str, CurriculumDataset]]] = {}
        self._tests: dict[tuple[Any, ...], CurriculumDataset] = {}
        self._bases: dict[tuple[Any, ...], Any] = {}
        self._adapted: PeftModel | None = None

    def load_data(
        self, model: ModelConfig, folder: Path, curriculum: CurriculumConfig, *, max_length: int
    ) -> tuple[Encoder, dict[str, CurriculumDataset]]:
        """The encoder of a model's processor, and the train and validation splits behind it.

        Raises:
            CheckpointError, DataError, ConfigError: see `load_processor` and `build_datasets`.
        """
        pixels = (model.min_pixels, model.max_pixels)
        key = (model.model_name, *pixels, model.trust_remote_code, folder.resolve(), max_length)
        if key not in self._data:
            processor = load_processor(
                model.model_name,
                min_pixels=model.min_pixels,
                max_pixels=model.max_pixels,
                trust_remote_code=model.trust_remote_code,
            )
            encoder = Encoder(processor, max_length=max_length)
            self._data[key] = encoder, build_datasets(folder, encoder, curriculum)
        encoder, datasets = self._data[key]
        check_sizes(curriculum, {split: dataset.rows for split, dataset in datasets.items()})
        return encoder, datasets

    def load_test(self, folder: Path, encoder: Encoder) -> CurriculumDataset:
        """The test split, encoded by an encoder of `load_data`.

        Raises:
            DataError: when the folder cannot be read.
        """
        key = (folder.resolve(), id(encoder))
        if key not in self._tests:
            self._tests[key] = CurriculumDataset(load_split(folder, "test"), encoder)
        return self._tests[key]

    def load_base(self, model: ModelConfig) -> Any:
        """The base of a configuration, as it was loaded."""
        self.free()
        if changes_base(model.init_lora_weights):
            return load_base(model)  # it would not be the same base any more
        key = (model.model_name, model.torch_dtype, model.trust_remote_code, model.load_in_4bit)
        if key not in self._bases:
            self._bases[key] = load_base(model)
        base = self._bases[key].eval()
        if getattr(base, "is_gradient_checkpointing", False):
            base.gradient_checkpointing_disable()
        return base

    def lend(self, adapted: PeftModel) -> None:
        """Note what stands on the base now."""
        self._adapted = adapted

    def free(self) -> None:
        """Take the last training's adapter off the base again."""
        if self._adapted is not None:
            base = self._adapted.unload()
            if hasattr(base, "peft_config"):
                del base.peft_config
            self._adapted = None
