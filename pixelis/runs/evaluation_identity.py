"""What an evaluation's rollouts depend on, and the folder where finished ones are kept."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pixelis import __version__
from pixelis.config import EvaluateConfig, flatten
from pixelis.errors import ConfigError
from pixelis.evaluation.kept_rollouts import KeptRollouts
from pixelis.models.load import resolve_model
from pixelis.tracking.lookup import ADAPTER_FILES

# Where things are, and what is made of the rollouts. In float32 batches only change the speed.
NOT_IDENTITY = (
    "adapter",
    "against",
    "experiment",
    "data",
    "batch_size",
    "teacher_forced",
    "bootstrap_samples",
    "resume",
    "output_dir",
    "num_traces",
    "num_reported",
    "input",  # what is asked is in the digest
    "format",
    "image_folder",
    "max_rejected",
)


def check_sampling(config: EvaluateConfig) -> None:
    """Refuse several samples that would all be the same.

    Raises:
        ConfigError: naming both keys.
    """
    if config.num_samples > 1 and config.temperature == 0:
        raise ConfigError(
            "num_samples above 1 needs a temperature above 0, or all samples of an example are "
            f"equal; got num_samples={config.num_samples}, temperature={config.temperature}"
        )


def evaluation_identity(
    config: EvaluateConfig,
    model_config: Any,
    digests: Mapping[str, str],
    adapters: Mapping[str, Path],
) -> dict[str, Any]:
    """All that an evaluation's rollouts depend on, as flat JSON.

    Args:
        config: of the evaluation.
        model_config: section `model` of the model's file.
        digests: data file -> SHA-256.
        adapters: `adapter` and, where there is one, `against` -> folder.
    """
    identity: dict[str, Any] = {
        key: value
        for key, value in flatten(config).items()
        if key.partition(".")[0] not in NOT_IDENTITY
    }
    identity |= {f"model.{key}": value for key, value in flatten(model_config).items()}
    identity |= {f"data {name}": digest for name, digest in digests.items()}
    identity |= {f"{name} files": _adapter_digest(folder) for name, folder in adapters.items()}
    place = Path(resolve_model(model_config.model_name))
    # Weights may be many gigabytes: a file that was replaced shows in its size or time.
    identity["model files"] = [
        [file.name, file.stat().st_size, file.stat().st_mtime_ns]
        for file in sorted(place.glob("*.safetensors"))
    ]
    if model_config.torch_dtype != "float32":
        # Sums of other shapes round otherwise, and fewer digits make more ties.
        identity["batch_size"] = config.batch_size
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return identity | {"pixelis": __version__, "device": device}


def kept_rollouts(config: EvaluateConfig, identity: Mapping[str, Any]) -> KeptRollouts:
    """The rollouts of the same evaluation, in a folder that is named by its identity."""
    text = json.dumps(identity, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    return KeptRollouts(Path(config.output_dir) / name, identity, resume=config.resume == "auto")


@contextmanager
def told(kept: KeptRollouts) -> Iterator[None]:
    """Say what is taken up, and, when the work inside is stopped, what is kept."""
    if len(kept):
        print(
            f"{len(kept)} finished rollouts of this evaluation, which was stopped, are taken up "
            f"from {kept.folder}",
            flush=True,
        )
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        print(
            f"stopped: {len(kept)} finished rollouts are kept in {kept.folder}; the same command "
            "goes on there",
            file=sys.stderr,
            flush=True,
        )
        raise


def _adapter_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ADAPTER_FILES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
