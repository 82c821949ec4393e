"""The documentation: its links, its commands and its records."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CHECKED_PAGES = [page for page in PAGES if "## Checked by" in page.read_text(encoding="utf-8")]
JSON_BLOCK = re.compile(r"```json\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)")


def ids(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_link_leads_to_a_file(page):
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if ":" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", CHECKED_PAGES, ids=ids)
def test_every_file_that_a_command_names_exists(page):
    commands = re.findall(r"`([^`]+)`", page.read_text(encoding="utf-8"))
    named = {
        word
        for command in commands
        if command.startswith(("python ", "pip ", "mlflow run", "pixelis ", "bash "))
        for word in re.findall(r"\b(?:tests|benchmarks|docs|configs)/[\w./-]*", command)
    }
    made = {"configs/best.yaml"}
    assert [name for name in sorted(named - made) if not (ROOT / name).exists()] == []


def test_every_file_that_the_architecture_page_names_exists():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:pixelis|configs)/[\w./]+)`", text)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def records():
    text = (ROOT / "docs/data-formats.md").read_text(encoding="utf-8")
    return [json.loads(block) for block in JSON_BLOCK.findall(text)]


def write_image(path):
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (64, 48), (235, 235, 235))
    ImageDraw.Draw(image).ellipse((10, 10, 30, 30), fill=(215, 35, 40))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.mark.parametrize("key", ["trajectory", "messages", "conversations", "problem"])
def test_a_record_of_the_formats_page_is_imported(tmp_path, key):
    from pixelis.config import DataPrepConfig
    from pixelis.data_prep.prepare import prepare_folder

    (record,) = [record for record in records() if key in record]
    # Each line has a question of its own: equal examples would be rejected.
    lines = [json.dumps({**record, "id": str(number)}) for number in range(12)]
    for number, line in enumerate(lines):
        image = f"images/{number}.png"
        write_image(tmp_path / "in" / image)
        lines[number] = line.replace("images/a.png", image)
    source = tmp_path / "in" / "records.jsonl"
    source.write_text("\n".join(lines), encoding="utf-8")
    config = DataPrepConfig(input=str(source), num_workers=1, max_rejected=0.0)
    prepare_folder(config, tmp_path / "out")
    summary = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))
    assert summary["rejected"] == {}
