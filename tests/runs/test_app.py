"""The page of app: its form, what it answers, and both in a browser."""

import asyncio
import io
import json
import shutil
import subprocess
import threading
import urllib.error
import urllib.request

import aiohttp
import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelis.config import ModelConfig
from pixelis.errors import ConfigError, DataError
from pixelis.runs.app import HOST, AskServer, read_form
from pixelis.runs.ask import load_asked
from tests.evaluation.test_page import HOSTILE, Reader

pytestmark = pytest.mark.integration
QUESTION = "What is the colour of the circle?"
BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def server(made_adapter):
    model, encoder = load_asked(str(made_adapter), ModelConfig(model_name="pixelis-nano"))
    with AskServer(0, model, encoder, "adapter <a>") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def encoded(picture):
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def photo():
    picture = Image.new("RGB", (112, 112), "white")
    ImageDraw.Draw(picture).ellipse((14, 20, 46, 52), fill=(220, 40, 40))
    return encoded(picture)


def form(*parts):
    """The body that a browser sends: name, file name or None, content."""
    body = b""
    for name, file, content in parts:
        named = f'; filename="{file}"\r\nContent-Type: image/png' if file is not None else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def get(server, path="/", body=None):
    """Status and page."""
    url = f"http://{HOST}:{server.server_port}{path}"
    request = urllib.request.Request(url, body, {"Content-Type": FORM})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_form(server):
    status, page = get(server)
    read = Reader(page)
    assert status == 200 and "adapter <a>" in read.text
    assert [each["name"] for each in read.all("input")] == ["image", "question", "base"]
    assert read.all("form")[0]["target"] == read.all("iframe")[0]["name"]
    assert get(server, "/other")[0] == 404


def test_adapter_and_base_answer_beside_each_other(server, photo):
    parts = [
        ("image", "a.png", photo),
        ("question", None, QUESTION.encode()),
        ("base", None, b"on"),
    ]
    status, page = get(server, body=form(*parts))
    _, tuned, base = page.split("<section><h2>")
    assert status == 200 and QUESTION in page
    # Fresh, the adapter does what the base does.
    assert tuned.removeprefix("adapter") == base.removeprefix("base")
    assert '<span class="mark">1</span>' in tuned and "data:image/webp;base64," in tuned
    status, page = get(server, body=form(*parts[:2]))
    assert page.count("<section>") == 1 and page.endswith("</section>\n")


def test_a_form_that_cannot_be_answered(server, photo):
    asked = ("question", None, QUESTION.encode())
    for parts, message in (
        ([asked, ("image", "", b"")], "choose an image and write a question"),
        ([("image", "a.png", photo)], "choose an image and write a question"),
        ([("image", "a.png", b"a circle"), asked], "an image does not open ("),
        ([("image", "a.png", encoded(Image.new("RGB", (900, 4)))), asked], "refuses an image of"),
        ([("image", "a.png", photo), ("question", None, b"why " * 9000)], "more than max_length"),
    ):
        status, page = get(server, body=form(*parts))
        assert status == 400 and message in Reader(page).text and "<section>" not in page
    assert get(server, body=b"no form")[0] == 400


def test_a_hostile_question_is_escaped(server, photo):
    question = HOSTILE.replace("\x00", "")
    parts = [("image", "a.png", photo), ("question", None, question.encode())]
    status, page = get(server, body=form(*parts))
    assert status == 200 and Reader(page).all("script") == [] and "{{ 7*7 }}" in page


def test_images_arrive_as_they_were_sent():
    pictures = [Image.effect_noise((60, 50), 80).convert("RGB") for _ in range(3)]
    sent = [encoded(picture) for picture in pictures]
    assert all(b"\r" in each and b"\n" in each for each in sent)
    parts = [("image", "é.png", content) for content in sent]
    example, labels = read_form(FORM, form(*parts, ("question", None, "Größe?".encode())))
    assert (example.question, labels) == ("Größe?", ("adapter",))
    for got, picture in zip(example.images, pictures, strict=True):
        assert np.array_equal(got, picture)
    with pytest.raises(DataError, match="choose an image and write a question"):
        read_form("", b"")


def test_a_port_in_use_is_one_line(server):
    with pytest.raises(ConfigError, match=f"port must be free, got {server.server_port} \\(Addr"):
        AskServer(server.server_port, None, None, "")


async def ask_in_browser(browser, home, url, photo):
    """Fill the form in as a user does; the text of the answer's frame."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0")
    process = subprocess.Popen(
        [browser, *flags, f"--user-data-dir={home}", url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (port := home / "DevToolsActivePort").is_file():
            await asyncio.sleep(0.2)
        debugger = f"http://{HOST}:{port.read_text().split()[0]}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{debugger}/json") as answer:
                tabs = await answer.json(content_type=None)
            (tab,) = [tab for tab in tabs if tab["type"] == "page"]
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as opened:

                async def command(method, **params):
                    await opened.send_json({"id": 1, "method": method, "params": params})
                    while (answer := await opened.receive_json()).get("id") != 1:
                        pass
                    return answer["result"]

                async def run(script):
                    result = await command("Runtime.evaluate", expression=script)
                    return result["result"].get("value")

                while not await run("document.querySelector('input[name=image]') !== null"):
                    await asyncio.sleep(0.2)
                root = (await command("DOM.getDocument"))["root"]["nodeId"]
                field = await command("DOM.querySelector", nodeId=root, selector="[name=image]")
                await command("DOM.setFileInputFiles", files=[str(photo)], nodeId=field["nodeId"])
                await run(
                    f"document.querySelector('[name=question]').value = {json.dumps(QUESTION)}"
                )
                await run("document.querySelector('button').click()")
                frame = "document.querySelector('iframe').contentDocument"
                images = f"[...{frame}.querySelectorAll('section img')].every(i => i.naturalWidth)"
                while not await run(
                    f"{frame}.readyState === 'complete' && "
                    f"{frame}.querySelectorAll('section').length === 2 && {images}"
                ):
                    await asyncio.sleep(0.5)
                return await run(f"{frame}.body.innerText")
    finally:
        process.terminate()
        process.wait(30)


def test_in_chromium(server, photo, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser on PATH: one of {', '.join(BROWSERS)}")
    (tmp_path / "photo.png").write_bytes(photo)
    url = f"http://{HOST}:{server.server_port}/"
    asking = ask_in_browser(browser, tmp_path, url, tmp_path / "photo.png")
    shown = asyncio.run(asyncio.wait_for(asking, 240))
    assert QUESTION in shown and "adapter" in shown and "base" in shown
