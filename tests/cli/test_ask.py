"""ask as a user meets it."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelis.cli.arguments import run_cli
from pixelis.cli.ask import main
from pixelis.runs.ask import AskSettings, save_marked
from pixelis.tracking import MlflowRecorder, log_adapter
from tests.evaluation.rollouts import answer, call, rollout

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parent.parent.parent
QUESTION = ("--question", "What is the colour of the circle?")


@pytest.fixture
def photo(workdir):
    picture = Image.new("RGB", (112, 112), "white")
    ImageDraw.Draw(picture).ellipse((14, 20, 46, 52), fill=(220, 40, 40))
    picture.save(workdir / "photo.png")


def ask(*words):
    return run_cli(main, ["--model", str(ROOT / "configs/model_arch.yaml"), *words])


def test_the_newest_adapter_and_its_base_answer_turn_by_turn(photo, adapter, client, capfd):
    sft = MlflowRecorder(client, client.create_run("0", run_name="sft"))
    sft.tags({"pixelis.entry_point": "sft"})
    log_adapter(sft, adapter, "final", 1, {})
    sft.close("FINISHED")
    capfd.readouterr()
    words = ("--image", "photo.png", *QUESTION, "--experiment", "Default", "--base")
    assert ask(*words) == 0
    out = capfd.readouterr().out
    assert f"adapter: runs:/{sft.run_id}, of the newest finished sft run (sft)" in out
    assert "photo.png: 112 x 112 pixels, which the model sees as 112 x 112\n" in out
    assert "question: What is the colour of the circle?\n" in out
    _, tuned, base = re.split(r"(?m)^(?:adapter|base)$", out)
    # Fresh, the adapter does what the base does.
    assert tuned.strip().replace("-adapter.png", "-base.png") == base.strip()
    assert tuned.startswith("\n  1  ") and ("answer: " in tuned)
    pictures = [Path(path) for path in re.findall(r"where it looked: (\S+)", out)]
    for path in pictures:
        assert Image.open(path).size == (1008, 1008)
    assert sorted(pictures) == sorted(Path("outputs/ask").glob("*"))


def test_where_it_looked_is_marked_on_each_frame_in_the_pixels_of_the_image(tmp_path):
    images = (Image.new("RGB", (2048, 1024)), Image.new("RGB", (100, 80)))
    paths = (Path("a/photo.jpg"), Path("b/photo.png"))
    settings = AskSettings(paths, "?", None, "x", False, tmp_path / "out")
    boxes = [[1024, 512, 2048, 1024], [10, 10, 30, 30]]
    track = call("TRACK_OBJECT", {"frames": [1, 2], "bbox": boxes[0]}, {"boxes": boxes})
    saved = save_marked(rollout(track, answer("up")), settings, images, "adapter")
    assert saved == [tmp_path / f"out/photo-{frame}-adapter.png" for frame in (1, 2)]
    large, small = (np.asarray(Image.open(path)) for path in saved)
    assert large.shape == (512, 1024, 3) and small.shape == (800, 1000, 3)
    assert not large[:230].any() and large[256, 512:].any(axis=-1).all()
    assert small[100, 100:300].any(axis=-1).all() and not small[310:].any()
    assert save_marked(rollout(answer("up")), settings, images, "base") == []


@pytest.fixture
def refused(refused):
    return lambda *words: refused(main, ["--model", str(ROOT / "configs/model_arch.yaml"), *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--image", "photo.png"), "ask needs an image and a question: --image FILE --question"),
        (QUESTION, "ask needs an image and a question: --image FILE --question TEXT"),
        (("--image", "no.png", *QUESTION), "no.png: No such file or directory"),
        (("--image", "adapter", *QUESTION), "adapter: Is a directory"),
        (("--image", "photo.png", "text.png", *QUESTION), "text.png: an image does not open"),
        (("--image", "photo.png", *QUESTION, "--adapter", "no"), "the adapter no is not a folder"),
        (
            ("--image", "thin.png", *QUESTION, "--adapter", "adapter"),
            "the model's processor refuses an image of 900 x 4 pixels: ",
        ),
        (
            ("--image", "photo.png", *QUESTION),
            "no finished sft run in the experiment 'sft_curriculum'; experiments there are: Def",
        ),
        (
            ("--image", "photo.png", *QUESTION, "--model.max_pixel", "9"),
            "Unknown key 'model.max_pixel' in the command line. Did you mean 'max_pixels'?",
        ),
        (
            (
                "--image",
                "photo.png",
                *QUESTION,
                "--adapter",
                "adapter",
                "--model.model_name",
                "./x",
            ),
            "no model folder ./x; ",
        ),
    ],
)
def test_bad_input(photo, adapter, refused, words, message):
    Path("text.png").write_text("a circle")
    Image.new("RGB", (900, 4)).save("thin.png")
    assert message in refused(*words)
