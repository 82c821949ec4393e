"""Which settings are parameters of a run in MLflow, and which are its tags."""

from collections.abc import Mapping

from pixelis.config.schema import EVA
from pixelis.curriculum.strategies import STRATEGIES
from pixelis.tracking import Scalar

# Paths, addresses and names: MLflow's comparison opens with the first parameters that differ, and
# these would come before the settings.
PLACES = (
    *("exp_name", "experiment", "resume", "register", "adapter", "against"),
    *("input", "image_folder", "output_dir"),
    *("data.path", "data.prep", "data.trusted", "training.output_dir"),
)
# How fast a training is, and how often it writes something; `config/*.yaml` in the run has these.
NO_PARAMS = (
    *("training.logging_steps", "training.save_steps", "training.save_total_limit"),
    *("training.num_workers", "training.vision_cache", "training.vision_cache_gib"),
    *("training.eval_batch_size", "training.auto_batch_size", "training.max_bad_steps"),
    *("training.torch_compile", "training.use_liger_kernel"),
    *("evaluation.num_traces", "evaluation.num_reported"),
    *("model.use_lora", "model.attn_implementation", "model.trust_remote_code"),
)


def run_params(settings: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return the settings that can change a result: not those of strategies that are not used."""
    strategy = settings["curriculum.strategy"] if settings.get("curriculum.enabled") else None
    unused = [f"curriculum.{name}." for name in STRATEGIES if name != strategy]
    if settings.get("model.lora_r") != "auto" and settings.get("model.init_lora_weights") != EVA:
        unused.append("model.lora_auto_")
    return {
        key: value
        for key, value in settings.items()
        if key not in (*PLACES, *NO_PARAMS) and not key.startswith(tuple(unused))
    }


def place_tags(settings: Mapping[str, Scalar]) -> dict[str, str]:
    """Return the paths, addresses and names among the settings, as tags of the same names."""
    return {key: str(settings[key]) for key in PLACES if settings.get(key) is not None}
