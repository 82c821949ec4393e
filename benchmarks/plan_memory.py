"""Compare the memory that `plan` forecasts with measured trainings of two bases.

    python benchmarks/plan_memory.py   # minutes; exit code 1 for a difference over 15 %

Each case is a training of two steps in a fresh process (`tests/planning/measured_memory.py`). Held
is the peak of live tensor bytes, above the base's weights and with them.
"""

import argparse
import shutil
import sys
import tempfile
from itertools import product
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from pixelis.config import DataPrepConfig
from pixelis.data_prep.prepare import prepare_folder
from pixelis.models.load import EMBEDDED_DIR

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.planning.measured_memory import measure_apart  # noqa: E402

LIMIT = 0.15
MIB = 2**20
# The embedded base's architecture: 86 M parameters, and a vocabulary that makes logits matter.
LARGER = {
    "hidden_size": 640,
    "intermediate_size": 1760,
    "num_hidden_layers": 14,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "layer_types": ["full_attention"] * 14,
    "rope_parameters": {"mrope_section": [10, 15, 15], "rope_theta": 1e6, "rope_type": "default"},
}


def make_larger(folder):
    """Save a larger random model with the embedded base's processor; return its parameters."""
    shutil.copytree(EMBEDDED_DIR, folder)
    config = AutoConfig.from_pretrained(EMBEDDED_DIR)
    for key, value in LARGER.items():
        setattr(config.text_config, key, value)
    config.vision_config.out_hidden_size = LARGER["hidden_size"]
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    return model.num_parameters()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--bases", nargs="+", default=["embedded", "larger"])
    given = parser.parse_args()
    batch_sizes = given.batch_sizes
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_folder(DataPrepConfig(num_samples=200, num_workers=1), folder / "data")
        number = make_larger(folder / "larger")
        bases = {"embedded": "pixelis-nano", f"larger ({number / 1e6:.0f} M)": folder / "larger"}
        bases = {name: path for name, path in bases.items() if name.split()[0] in given.bases}
        cases = [
            (base, size, checkpointing, precision, "auto")
            for base, size, checkpointing, precision in product(
                bases, batch_sizes, (False, True), ("fp32", "bf16")
            )
        ] + [(base, batch_sizes[-1], True, "fp32", "off") for base in bases]
        print(
            "| base | batch | checkpointing | precision | vision cache | measured above the base, "
            "MiB | forecast | ratio | with the base, measured | forecast | ratio |"
        )
        print("| --- " * 11 + "|")
        for base, size, checkpointing, precision, cache in cases:
            model = {"model_name": str(bases[base]), "gradient_checkpointing": checkpointing}
            training = {"batch_size": size, "precision": precision, "vision_cache": cache}
            result = measure_apart(model, training, folder / "data")
            cells = [base, size, "yes" if checkpointing else "no", precision, cache]
            for kind in ("_above_base", ""):
                measured, forecast = (result[f"{n}{kind}"] for n in ("measured", "forecast"))
                ratio = forecast / measured
                worst = max(worst, abs(ratio - 1))
                cells += [f"{measured / MIB:.1f}", f"{forecast / MIB:.1f}", f"{ratio:.3f}"]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print(f"largest deviation: {worst:.1%} (limit {LIMIT:.0%})")
    return int(worst > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
