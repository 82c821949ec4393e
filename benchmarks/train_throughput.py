"""Compare training speed and memory with TRL's SFTTrainer and transformers' Trainer.

    python benchmarks/train_throughput.py [--rounds 5] [--quick]

One model of Qwen2.5-VL's architecture (about 8 M parameters, random weights), the same LoRA, the
same examples, effective batch, optimiser and learning rate for all; two warm-up steps, then timed
steps; the trainers alternate for several rounds. TRL runs as its documentation runs it on images
(its own collator, PIL images in the dataset, loss on the assistant's turns), with its defaults
(bf16, gradient checkpointing) and in fp32 without checkpointing. Ours is `run_training` with its
defaults.

Exit code: 0; 1 where a target is missed; 2 where TRL is not installed.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from importlib import metadata
from pathlib import Path
from unittest import mock

from rounds import alternate, spread

BATCH, RATE, WARM_UP = 8, 1e-4, 2
PIXELS = 224 * 224  # 64 visual tokens
LORA = {"lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.0}
STAGES = [{"name": "all", "difficulty_mix": {"simple": 1.0}}]
SPEED_TARGET, MEMORY_TARGET = 3.0, 0.7
# Our defaults may differ from the plain Trainer's fp32 by twice the difference of its bf16.
BF16_NOISE, FP32_NOISE = 2.0, 1e-4
DATA = {
    "A": ("one image", (1,), ["attribute_recognition", "text_extraction"] * 2
          + ["relationship_detection", "spatial_reasoning", "geometric_comparison"] * 2),
    "B": ("two or three images", (2, 3), ["temporal_tracking"]),
}  # fmt: skip


# Shared by all trainers


def build_base(folder, vocabulary):
    """Save the model with the embedded base's processor."""
    import torch
    from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

    from pixelis.models.load import load_processor, resolve_model

    config = AutoConfig.from_pretrained(resolve_model("pixelis-nano"))
    config.text_config.update(
        {
            "vocab_size": vocabulary,
            "hidden_size": 256,
            "intermediate_size": 704,
            "num_hidden_layers": 6,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "layer_types": ["full_attention"] * 6,
            "initializer_range": 0.02,
        }
    )
    config.text_config.rope_parameters["mrope_section"] = [4, 6, 6]
    vision = {"hidden_size": 192, "intermediate_size": 512, "out_hidden_size": 256}
    config.vision_config.update(vision)
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).float()
    with silence():
        model.save_pretrained(folder)
    load_processor("pixelis-nano", min_pixels=PIXELS, max_pixels=PIXELS).save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def make_data(folder, images, tasks, number):
    """Generate a data folder of examples with some number of images, all of difficulty simple."""
    from dataclasses import replace

    from pixelis.data.example import DIFFICULTIES
    from pixelis.data.store import SUMMARY_FILE, difficulty_file, to_row, write_rows
    from pixelis.data_prep.generate import generate_example

    folder.mkdir()
    chosen, index = [], 0
    while len(chosen) < number + 8:
        task = tasks[index % len(tasks)]
        kind = "self_correction" if index % 10 == 9 else "positive"
        example = generate_example(seed=0, index=index, task=task, sample_type=kind)
        index += 1
        shown = len(example.images) + sum(step.image is not None for step in example.trajectory)
        if shown in images:
            split = "train" if len(chosen) < number else "validation"
            chosen.append(replace(example, difficulty="simple", difficulty_score=0.0, split=split))
    for name in DIFFICULTIES:
        rows = [to_row(example) for example in chosen] if name == "simple" else []
        write_rows(rows, folder / difficulty_file(name))
    (folder / SUMMARY_FILE).write_text("{}", encoding="utf-8")


def model_config(base, **keys):
    """Return the section `model` of the base, with the LoRA of all trainers."""
    from pixelis.config import ModelConfig

    sizes = {"min_pixels": PIXELS, "max_pixels": PIXELS}
    return ModelConfig(model_name=str(base), torch_dtype="float32", **sizes, **LORA, **keys)


def load_plain(base):
    """Load the base in fp32 with a new adapter, and its encoder."""
    from pixelis.models.load import load_encoder, load_model
    from pixelis.models.lora import add_lora

    config = model_config(base)
    model = load_model(str(base), torch_dtype="float32")
    return add_lora(model, config, seed=0), load_encoder(config)


def plain_loader(encoder, rows, keys):
    """Return a loader that encodes every batch when it is needed."""
    from torch.utils.data import DataLoader

    from pixelis.data.encode import collate, encode_example
    from pixelis.data.store import from_row

    def make_batch(chosen):
        items = [encode_example(from_row(rows[name][i]), encoder) for name, i in chosen]
        batch = collate(items, encoder)
        batch.pop("kinds")
        return batch

    return DataLoader(keys, BATCH, collate_fn=make_batch)


class Watch:
    """A recorder of the seconds and loss of each optimiser step, and of the memory added."""

    def __init__(self):
        from transformers import TrainerCallback

        self.ends, self.losses, self.level, self.peak = [], {}, 0.0, 0.0
        watch = self

        class Callback(TrainerCallback):
            def on_train_begin(self, *args, **words):
                watch.level = memory("VmRSS")
                if watch.level:
                    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here

            def on_step_end(self, *args, **words):
                watch.ends.append(time.perf_counter())
                watch.peak = memory("VmHWM") - watch.level

        self.callback = Callback()

    @property
    def ms(self):
        times = [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)]
        return 1000 * statistics.fmean(times[WARM_UP - 1 :])


def memory(name):
    """Return a memory value of the kernel in megabytes; 0 if it does not exist."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0.0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


# The trainers: each function trains for some steps and returns its Watch


def run_ours(base, data, steps, *, without=(), **training):
    """`run_training`, as the command runs it; `training` are keys of the configuration.

    `without` turns off optimisations that have no key: "positions" (the cache), "no mask" (a mask
    is used then), "supervised logits", "sorting" (by length inside a step).
    """
    import pixelis.data.loader as loader
    import pixelis.training.sft as sft
    import pixelis.training.trainer as trainer
    from pixelis.config import TrainingConfig
    from pixelis.curriculum import CurriculumConfig
    from pixelis.recorder import NullRecorder

    watch = Watch()

    class Watched(trainer.CurriculumTrainer):
        def __init__(self, *args, **words):
            super().__init__(*args, **words)
            self.add_callback(watch.callback)

        def training_step(self, *args, **words):
            loss = super().training_step(*args, **words)
            step = self.state.global_step
            watch.losses[step] = watch.losses.get(step, 0.0) + loss.item()
            return loss

    keys = {
        "max_steps": steps,
        # Long examples in smaller batches: the same speed with less memory.
        "batch_size": 4 if data.name == "A" else 2,
        "gradient_accumulation_steps": BATCH // (4 if data.name == "A" else 2),
        "learning_rate": RATE,
        "warmup_steps": 0,
        "lr_scheduler_type": "constant",
        "max_length": 1024,
        "eval_steps": 10**6,
        "save_steps": 10**6,
    } | training
    given_inputs = trainer.model_inputs

    def model_inputs(batch):
        given = given_inputs(batch)
        if "no mask" in without:
            given["attention_mask"] = batch["attention_mask"]
        if "positions" in without:
            given.pop("position_ids")
            given["mm_token_type_ids"] = batch["mm_token_type_ids"]
            if "mm_encoder_outputs" in given:
                given["image_grid_thw"] = batch["image_grid_thw"]
        return given

    changes = [(sft, "CurriculumTrainer", Watched), (trainer, "model_inputs", model_inputs)]
    if "supervised logits" in without:
        changes.append((trainer, "output_head", lambda model: None))
    if "sorting" in without:
        changes.append((loader.CurriculumDataset, "length", lambda self, key: 0))
    with ExitStack() as stack:
        out = stack.enter_context(tempfile.TemporaryDirectory())
        for owner, name, value in changes:
            stack.enter_context(mock.patch.object(owner, name, value))
        settings = sft.TrainingSettings(
            TrainingConfig(output_dir=out, **keys),
            model_config(base, gradient_checkpointing=False),
            CurriculumConfig.from_dict(
                {"enabled": False, "stages": STAGES, "eval_samples_per_difficulty": 2}
            ),
            data,
        )
        sft.run_training(settings, NullRecorder())
    return watch


def drawn(data, steps):
    """Return the examples' keys in the order in which our sampler draws them."""
    from pixelis.curriculum import MixtureSampler
    from pixelis.data.store import load_split

    sizes = {name: len(rows) for name, rows in load_split(data, "train").items()}
    return MixtureSampler(sizes, {"simple": 1.0}, 0).draw(steps * BATCH)


def plain_arguments(kind, out, steps, **words):
    """Return the training arguments that TRL and transformers share."""
    import torch

    return kind(
        output_dir=out,
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        seed=0,
        save_strategy="no",
        report_to="none",
        logging_steps=10**6,
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        **words,
    )


def run_plain(base, data, steps, **words):
    """Train with transformers' Trainer, which encodes every batch when it is needed."""
    from transformers import Trainer, TrainingArguments

    from pixelis.data.store import load_split

    model, encoder = load_plain(base)
    rows, watch = load_split(data, "train"), Watch()

    class Plain(Trainer):
        def get_train_dataloader(self):
            return plain_loader(encoder, rows, self.train_dataset)

        def training_step(self, *args, **words):
            loss = super().training_step(*args, **words)
            watch.losses[self.state.global_step] = loss.item()
            return loss

    with tempfile.TemporaryDirectory() as out:
        arguments = plain_arguments(TrainingArguments, out, steps, **words)
        Plain(
            model, arguments, train_dataset=drawn(data, steps), callbacks=[watch.callback]
        ).train()
    return watch


def run_trl(base, data, steps, **words):
    """Train with TRL's SFTTrainer on conversations with PIL images."""
    import datasets
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from pixelis.data.chat import example_messages
    from pixelis.data.store import from_row, load_split
    from pixelis.models.load import load_model, load_processor

    rows, watch = load_split(data, "train"), Watch()

    def as_row(key):
        messages = example_messages(from_row(rows[key[0]][key[1]]))
        content = [
            [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
             for part in message.parts]
            for message in messages
        ]  # fmt: skip
        roles = [message.role for message in messages]
        return {
            "messages": [{"role": r, "content": c} for r, c in zip(roles, content, strict=True)],
            "images": [image for message in messages for image in message.images],
        }

    made = [as_row(("simple", i)) for i in range(len(rows["simple"]))]
    dataset = datasets.Dataset.from_list(made)
    dataset = dataset.cast_column("images", datasets.List(datasets.Image()))
    processor = load_processor(str(base), min_pixels=PIXELS, max_pixels=PIXELS)
    opening, body = "<|im_start|>{{ message.role }}\n", "{{ render(message.content) }}"
    said = f"{{% generation %}}{body}<|im_end|>{{% endgeneration %}}"
    template = processor.chat_template
    macro = template[template.index("{%- macro render") : template.index("{#-")]
    processor.chat_template = macro + (
        "{%- for message in messages -%}"
        f"{opening}{{% if message.role == 'assistant' %}}{said}\n"
        f"{{% else %}}{body}<|im_end|>\n{{% endif -%}}{{%- endfor -%}}"
    )
    lora = LoraConfig(
        r=LORA["lora_r"],
        lora_alpha=LORA["lora_alpha"],
        lora_dropout=LORA["lora_dropout"],
        target_modules=load_plain(base)[0].peft_config["default"].target_modules,
        task_type="CAUSAL_LM",
    )
    with tempfile.TemporaryDirectory() as out:
        # max_length None: the documentation's advice for images, whose tokens must not be cut.
        keys = {"assistant_only_loss": True, "max_length": None} | words
        trainer = SFTTrainer(
            load_model(str(base), torch_dtype="float32"),
            args=plain_arguments(SFTConfig, out, steps, **keys),
            train_dataset=dataset,
            processing_class=processor,
            peft_config=lora,
            callbacks=[watch.callback],
        )
        trainer.train()
    return watch


CONTESTANTS = {
    "pixelis": run_ours,
    "TRL, its defaults": run_trl,
    "TRL, fp32, no checkpointing": partial(run_trl, bf16=False, gradient_checkpointing=False),
    "transformers' Trainer": run_plain,
}
TRLS = [name for name in CONTESTANTS if name.startswith("TRL")]
# Each row adds one idea, from the plain Trainer to ours.
ONE_BATCH = {"batch_size": BATCH, "gradient_accumulation_steps": 1}
NOTHING = ("positions", "no mask", "supervised logits", "sorting")
PLAIN = {"precision": "fp32", "vision_cache": "off"}
IDEAS = {
    "tokens cached": {**ONE_BATCH, **PLAIN, "without": NOTHING},
    "+ M-RoPE positions cached": {**ONE_BATCH, **PLAIN, "without": NOTHING[1:]},
    "+ no attention mask": {**ONE_BATCH, **PLAIN, "without": NOTHING[2:]},
    "+ vision features cached": {**ONE_BATCH, "precision": "fp32", "without": NOTHING[2:]},
    "+ logits where supervised": {**ONE_BATCH, "precision": "fp32", "without": NOTHING[3:]},
    "+ small batches, accumulated": {"precision": "fp32", "without": NOTHING[3:]},
    "+ like lengths together in a step": {"precision": "fp32"},
    "+ base in bf16 under autocast (pixelis)": {},
    "that, with 2 loader workers": {"num_workers": 2},
}  # fmt: skip


# Measurements


@contextmanager
def silence():
    """Silence the libraries inside the block."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def measure(runs, rounds, *, faster=None):
    """Let trainers alternate; print each one's ms per step and its ratio to the fastest `faster`.

    Returns name -> median.
    """

    def quiet(run):
        with silence():
            return run().ms

    results = alternate({name: partial(quiet, run) for name, run in runs.items()}, rounds)
    medians = {name: statistics.median(times) for name, times in results.items()}
    best = min((medians[name] for name in faster or ()), default=0.0)
    for name, times in results.items():
        ratio = f"{best / medians[name]:5.2f} x" if best else ""
        print(f"  {name:46} {spread(times, '.0f'):26} ms/step {ratio}", flush=True)
    return medians


def speed(base, data, rounds, steps, names):
    """Print one data set's table; return the ratio to the faster TRL."""
    runs = {name: partial(CONTESTANTS[name], base, data, WARM_UP + steps) for name in names}
    medians = measure(runs, rounds, faster=TRLS)
    return min(medians[name] for name in TRLS) / medians["pixelis"]


def differences(base, data, steps):
    """Compute the largest difference of a step's loss from the plain Trainer's in fp32.

    For ours in fp32, ours with its defaults, and, for comparison, the plain Trainer in bf16.
    """
    with silence():
        plain = run_plain(base, data, steps).losses
        exact = {"precision": "fp32", "vision_cache": "off"}
        others = [
            run_ours(base, data, steps, **ONE_BATCH, **exact).losses,
            run_ours(base, data, steps, **ONE_BATCH).losses,
            run_plain(base, data, steps, bf16=True).losses,
        ]
    return [max(abs(losses[s] - plain[s]) for s in plain) for losses in others]


def validation(base, data, rounds):
    """Print seconds of evaluating 48 examples: transformers' Trainer, and ours."""
    import torch
    from transformers import Trainer, TrainingArguments

    from pixelis.curriculum import CurriculumConfig
    from pixelis.data.store import load_split
    from pixelis.evaluation.validation import Validation
    from pixelis.training.adapter import load_base
    from pixelis.training.caches import load_data
    from pixelis.training.precision import halve_base

    keys = drawn(data, 6)
    rows = load_split(data, "train")
    with silence():
        model, encoder = load_plain(base)

    class Plain(Trainer):
        def get_eval_dataloader(self, eval_dataset=None):
            return plain_loader(encoder, rows, keys)

    config = model_config(base)
    curriculum = CurriculumConfig.from_dict({"stages": STAGES})
    with silence(), tempfile.TemporaryDirectory() as out:
        _, splits = load_data(config, data, curriculum, max_length=1024)
        half = load_base(config)
        halve_base(half)
        measure = Validation(
            splits["train"], ["simple"], samples_per_difficulty=48, batch_size=BATCH, seed=0
        )
        trainer = Plain(
            model, plain_arguments(TrainingArguments, out, 1, prediction_loss_only=True)
        )

    def ours():
        with torch.autocast("cpu", torch.bfloat16):
            measure(half)

    def timed(act):
        with silence():
            began = time.perf_counter()
            act()
        return time.perf_counter() - began

    runs = {
        "evaluating 48 examples, transformers' Trainer": lambda: timed(
            lambda: trainer.evaluate(keys)
        ),
        "the same, pixelis": lambda: timed(ours),
    }
    for name, seconds in alternate(runs, rounds).items():
        print(f"  {name:46} {spread(seconds):26} s", flush=True)


def peak(name, base, data):
    """Measure the megabytes above the level before the first step, in a separate process."""
    command = [sys.executable, __file__, "--peak", name, str(base), str(data)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output.splitlines()[-1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round, fewer steps: to try it")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        version = metadata.version("trl")
    except metadata.PackageNotFoundError:
        print("TRL is not installed: pip install -e '.[benchmarks]'", file=sys.stderr)
        return 2
    if arguments.peak:
        name, base, data = arguments.peak
        with silence():
            watch = CONTESTANTS[name](Path(base), Path(data), 6)
        print(json.dumps(watch.peak))
        return 0
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "peft")}
    print(f"TRL {version}, {', '.join(f'{k} {v}' for k, v in versions.items())}")
    quick = arguments.quick
    rounds, steps = (1, 2) if quick else (arguments.rounds, 4)
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        base, large = Path(folder) / "base", Path(folder) / "large"
        print(f"model: {build_base(base, 2048) / 1e6:.1f} M parameters, batch {BATCH}")
        build_base(large, 151_936)
        for name, (what, images, tasks) in DATA.items():
            data = Path(folder) / name
            make_data(data, images, tasks, 96)
            print(f"\n{name}, {what}", flush=True)
            with silence():
                run_ours(base, data, 1)  # fills the caches
            ratio = speed(base, data, rounds, steps, list(CONTESTANTS))
            if ratio < SPEED_TARGET:
                missed.append(f"{name}: {ratio:.2f} times the faster TRL, {SPEED_TARGET} wanted")
            print("  one idea more with each row:")
            ideas = {"transformers' Trainer": partial(run_plain, base, data, WARM_UP + steps)}
            for idea, keys in IDEAS.items():
                ideas[idea] = partial(run_ours, base, data, WARM_UP + steps, **keys)
            measure(ideas, min(rounds, 3))
            validation(base, data, min(rounds, 3))
            peaks = {
                who: statistics.median(peak(who, base, data) for _ in range(min(rounds, 3)))
                for who in ("pixelis", *TRLS)
            }
            share = peaks["pixelis"] / min(peaks[who] for who in TRLS)
            listed = ", ".join(f"{who} {size:.0f} MB" for who, size in peaks.items())
            print(f"  peak memory above the start: {listed}: {share:.2f}", flush=True)
            if share > MEMORY_TARGET:
                missed.append(f"{name}: {share:.2f} of TRL's memory, {MEMORY_TARGET} wanted")
        data = Path(folder) / "A"
        print("\nA with a vocabulary of 151,936", flush=True)
        with silence():
            run_ours(large, data, 1)
        speed(large, data, 1, 2, ["pixelis", *TRLS])
        print("\nlosses beside the plain Trainer's, A, no accumulation", flush=True)
        exact, usual, noise = differences(base, data, 10 if quick else 50)
        print(f"  largest difference: {exact:.1e}, {usual:.1e}, {noise:.1e}")
        if exact > FP32_NOISE or usual > BF16_NOISE * noise:
            missed.append(f"losses differ by {exact:.1e} in fp32, by {usual:.1e} with the defaults")
    print("\n" + ("\n".join(["missed:", *missed]) if missed else "all targets are met"))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
