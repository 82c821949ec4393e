"""Makes docs/ui_run.png, ui_compare.png and ui_timeline.png: the MLflow UI as a user sees it.

    python docs/make_screenshots.py --keep outputs/screenshots

Three trainings that differ in the threshold (a minute or two each), their comparison, then the
pictures; with the same folder again, only what is missing is trained. Needs Chromium.
"""

import argparse
import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from mlflow import MlflowClient

ROOT = Path(__file__).parent.parent
EXPERIMENT = "sft_curriculum"
COMPARISONS = f"{EXPERIMENT}_comparisons"
THRESHOLDS = (-0.1, -0.15, -0.25)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--remote-debugging-port=0"),
)
SECONDS = 12  # in which a page has asked for its metrics and drawn its charts
# As after a first look around: the assistant is closed, and the UI is that of model training.
BEFORE = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
localStorage.setItem("mlflow.workflowType_v1", JSON.stringify("machine_learning"));
"""


def main() -> None:
    """Train what is missing, compare, start the UI, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="folder that stays, and is used again")
    parser.add_argument("--steps", type=int, default=160, help="optimiser steps of each training")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="where pictures go")
    words = parser.parse_args()
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"no browser on PATH: one of {', '.join(BROWSERS)} is needed")
    with tempfile.TemporaryDirectory(prefix="pixelis-screenshots-") as temporary:
        folder = (words.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        store = f"sqlite:///{folder}/mlflow.db"
        train(folder, store, words.steps)
        pages = find_pages(MlflowClient(store))
        with ui(folder, store) as address:
            asyncio.run(take_all(browser, address, pages, words.out))


def train(folder: Path, store: str, steps: int) -> None:
    """Three trainings that differ in the threshold, and their comparison; what is there stays."""
    client = MlflowClient(store)
    for name in (EXPERIMENT, COMPARISONS):
        if client.get_experiment_by_name(name) is None:
            client.create_experiment(name, artifact_location=f"file://{folder}/artifacts")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
        "MLFLOW_TRACKING_URI": store,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    settings = {
        "data.path": f"{folder}/data",
        "training.max_steps": steps,
        "training.warmup_steps": 10,
        "training.eval_steps": 10,
        "curriculum.advancement_interval": 20,
        "curriculum.trial_steps": 10,
        "curriculum.rollback_cooldown": 20,
        "curriculum.rollback_factor": 1.5,
        "curriculum.min_performance_for_advance": 0.5,
        "curriculum.eval_samples_per_difficulty": 32,
        "evaluation.samples_per_difficulty": 40,
    }
    for threshold in THRESHOLDS:
        output = folder / f"threshold{threshold}"
        if (output / "final").is_dir():
            continue
        mine = {"training.output_dir": output, "curriculum.rollback_threshold": threshold}
        call("sft", settings | mine, environment)
    if not compared(client):
        call("compare", {"last": len(THRESHOLDS)}, environment)


def call(entry_point: str, settings: dict[str, object], environment: dict[str, str]) -> None:
    """Run an entry point in the project folder."""
    options = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "-m", f"pixelis.cli.{entry_point}", *options]
    subprocess.run(command, env=environment, cwd=ROOT, check=True)


def finished(client: MlflowClient, entry_point: str, experiment: str = EXPERIMENT) -> list[str]:
    """The ids of the finished runs of an entry point, oldest first."""
    place = client.get_experiment_by_name(experiment)
    query = f"attributes.status = 'FINISHED' and tags.`pixelis.entry_point` = '{entry_point}'"
    order = ["attributes.start_time ASC"]
    runs = client.search_runs([place.experiment_id], query, order_by=order)
    return [run.info.run_id for run in runs]


def compared(client: MlflowClient) -> list[str]:
    """The comparisons that there are."""
    return finished(client, "compare", COMPARISONS)


def find_pages(client: MlflowClient) -> dict[str, tuple[str, tuple[int, int]]]:
    """Picture -> the page of the UI that it shows, and its size in pixels."""
    trained, comparison = finished(client, "sft")[-len(THRESHOLDS) :], compared(client)[-1]
    place, place_of_comparison = (
        client.get_experiment_by_name(name).experiment_id for name in (EXPERIMENT, COMPARISONS)
    )
    ids = urllib.request.quote(json.dumps(trained))
    runs = f"#/experiments/{place}/runs"
    experiments = urllib.request.quote(json.dumps([place]))
    return {
        "ui_run.png": (f"{runs}/{trained[1]}/model-metrics", (1400, 1100)),
        "ui_compare.png": (f"#/compare-runs?runs={ids}&experiments={experiments}", (1400, 1100)),
        "ui_comparison.png": (
            f"#/experiments/{place_of_comparison}/runs/{comparison}/artifacts/comparison/"
            "timelines.html",
            (1400, 1150),
        ),
        "ui_timeline.png": (f"{runs}/{trained[1]}/artifacts/curriculum/timeline.html", (1400, 850)),
    }


@contextmanager
def ui(folder: Path, store: str) -> Iterator[str]:
    """The MLflow UI on a free port, until the pictures are taken."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store]
    with (folder / "ui.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--workers", "1"], cwd=folder, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5)
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(30)


async def take_all(
    browser: str, address: str, pages: dict[str, tuple[str, tuple[int, int]]], out: Path
) -> None:
    """Open each page in one browser, wait, and keep what it shows."""
    with tempfile.TemporaryDirectory(prefix="pixelis-browser-", ignore_cleanup_errors=True) as home:
        command = [browser, *FLAGS, f"--user-data-dir={home}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            async with aiohttp.ClientSession() as session:
                place = await debugger(session, Path(home))
                for name, (page, size) in pages.items():
                    picture = await take(session, place, f"{address}/{page}", size)
                    (out / name).write_bytes(picture)
                    print(f"{out / name}: {address}/{page}", flush=True)
        finally:
            process.terminate()
            process.wait(30)


async def debugger(session: aiohttp.ClientSession, home: Path) -> str:
    """The address at which the browser takes commands."""
    while not (port_file := home / "DevToolsActivePort").is_file():
        await asyncio.sleep(0.2)
    return f"http://127.0.0.1:{port_file.read_text().split()[0]}"


async def take(
    session: aiohttp.ClientSession, browser: str, page: str, size: tuple[int, int]
) -> bytes:
    """Open a page in a tab of its own; what it shows after a while, as a PNG."""
    async with session.put(f"{browser}/json/new?about:blank") as answer:
        tab = await answer.json(content_type=None)
    address = tab["webSocketDebuggerUrl"]
    async with session.ws_connect(address, max_msg_size=0) as socket_:

        async def command(method: str, **params: object) -> dict[str, str]:
            await socket_.send_json({"id": 1, "method": method, "params": params})
            while (answer := await socket_.receive_json()).get("id") != 1:
                pass
            return answer["result"]

        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        await command("Page.enable")
        await command("Emulation.setDeviceMetricsOverride", **metrics)
        await command("Page.addScriptToEvaluateOnNewDocument", source=BEFORE)
        await command("Page.navigate", url=page)
        await asyncio.sleep(SECONDS)
        shown = await command("Page.captureScreenshot", format="png")
    async with session.get(f"{browser}/json/close/{tab['id']}"):
        return base64.b64decode(shown["data"])


if __name__ == "__main__":
    main()
