"""What one training after another shares: the processor, the encoded examples, and the base."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel

from pixelis.config import ModelConfig, TrainingConfig
from pixelis.curriculum import CurriculumConfig, check_examples
from pixelis.data.dataset import CurriculumDataset
from pixelis.data.encode import Encoder
from pixelis.data.store import load_split
from pixelis.models.load import load_processor
from pixelis.models.pissa import changes_base
from pixelis.training.adapter import load_base
from pixelis.training.caches import look_once, use_token_cache
from pixelis.training.inputs import build_datasets
from pixelis.training.precision import BF16, FP32, halve_base, resolve_precision

Look = Callable[[Callable[[], Any]], None]
Datasets = dict[str, CurriculumDataset]
Sizes = dict[str, dict[str, int]]


class Workbench:
    """Loads each thing once; the base is freed of its adapter before the next one is put on it.

    Nothing of a training is left on it: the next one computes the same numbers as in a process of
    its own.
    """

    def __init__(self) -> None:
        """Load nothing yet."""
        self._data: dict[tuple[Any, ...], tuple[Encoder, Datasets, Sizes]] = {}
        self._tests: dict[tuple[Any, ...], CurriculumDataset] = {}
        self._bases: dict[tuple[Any, ...], Any] = {}
        self._given: tuple[Any, ...] | None = None  # the base that was last handed out
        self._adapted: PeftModel | None = None

    def load_data(
        self,
        model: ModelConfig,
        folder: Path,
        curriculum: CurriculumConfig,
        *,
        max_length: int,
        say: Callable[[str], None] = print,
    ) -> tuple[Encoder, dict[str, CurriculumDataset]]:
        """The encoder of a model's processor, and the train and validation splits behind it.

        Their tokens are cached beside the data; examples that are too long are left out.

        Raises:
            CheckpointError, DataError: see `load_processor` and `build_datasets`.
            ConfigError: when a mix needs a difficulty of which a split has no example that is short
                enough.
        """
        key = (
            *(model.model_name, model.min_pixels, model.max_pixels, model.trust_remote_code),
            # The features that the splits come to hold are a tower's, of one type.
            *(model.torch_dtype, model.attn_implementation, model.load_in_4bit),
            *(folder.resolve(), max_length),
        )
        if key not in self._data:
            processor = load_processor(
                model.model_name,
                min_pixels=model.min_pixels,
                max_pixels=model.max_pixels,
                trust_remote_code=model.trust_remote_code,
            )
            encoder = Encoder(processor, max_length=max_length)
            datasets = build_datasets(folder, encoder, curriculum)
            whole = {split: dataset.sizes for split, dataset in datasets.items()}
            use_token_cache(datasets, encoder, folder, model, say)
            self._data[key] = encoder, datasets, whole
        encoder, datasets, whole = self._data[key]
        check_examples(curriculum, whole)
        sizes = {split: dataset.sizes for split, dataset in datasets.items()}
        too_long = f"those longer than training.max_length {max_length}"
        check_examples(curriculum, sizes, without=too_long)
        return encoder, datasets

    def prepare(
        self,
        model: ModelConfig,
        folder: Path,
        curriculum: CurriculumConfig,
        training: TrainingConfig,
        say: Callable[[str], None] = print,
    ) -> None:
        """Load what the first training would: data, caches and the base, before its time begins.

        Args:
            model: section `model`.
            folder: of the data.
            curriculum: of the training.
            training: section `training`.
            say: takes a line.

        Raises:
            CheckpointError, ConfigError, DataError: see `load_data` and `load_base`.
        """
        encoder, datasets = self.load_data(
            model, folder, curriculum, max_length=training.max_length, say=say
        )
        self.load_base(
            model,
            precision=resolve_precision(training.precision),
            look=partial(look_once, datasets, encoder, training, model, folder, say),
        )
        self._given = None  # no adapter was put on it: it is as good as new

    def load_test(self, folder: Path, encoder: Encoder) -> CurriculumDataset:
        """The test split, encoded by an encoder of `load_data`.

        Raises:
            DataError: when the folder cannot be read.
        """
        key = (folder.resolve(), id(encoder))
        if key not in self._tests:
            self._tests[key] = CurriculumDataset(load_split(folder, "test"), encoder)
        return self._tests[key]

    def load_base(
        self, model: ModelConfig, *, precision: str = FP32, look: Look | None = None
    ) -> Any:
        """The base of a configuration, free of adapters, in evaluation mode.

        Args:
            model: section `model`.
            precision: bf16: its weights are rounded, where they are not bf16 already.
            look: given what returns the base as it was loaded, before anything is rounded.
        """
        self.free()
        half = precision == BF16 and not model.load_in_4bit
        key = (model.model_name, model.torch_dtype, model.attn_implementation, half)
        # Where the adapter takes from the base, it is not the same base any more.
        is_shared = not changes_base(model.init_lora_weights) and not model.load_in_4bit
        base = self._bases.get(key) if is_shared else None
        if base is None:
            base = load_base(model)
            if look is not None:
                look(partial(_as_it_is, base))
            if half:
                halve_base(base)
            if is_shared:
                self._bases[key] = base
        elif look is not None:
            look(partial(load_base, model) if half else partial(_as_it_is, base))
        self._given = key if is_shared else None
        if getattr(base, "is_gradient_checkpointing", False):
            base.gradient_checkpointing_disable()
        return base.eval()

    def lend(self, adapted: PeftModel) -> None:
        """Note what stands on the base now."""
        self._adapted = adapted

    def free(self) -> None:
        """Take the last training's adapter off the base again."""
        if self._adapted is not None:
            base = self._adapted.unload()
            if hasattr(base, "peft_config"):
                del base.peft_config
        elif self._given is not None:  # a training that failed while an adapter was put on it
            del self._bases[self._given]
        self._adapted = self._given = None


def _as_it_is(base: Any) -> Any:
    return base
