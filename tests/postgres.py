"""A PostgreSQL server of our own, for tests of what machines share."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg2
import pytest

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
SECONDS = 120  # for what takes two on a machine that has nothing else to do


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(ready):
    until = time.monotonic() + SECONDS
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def postgres():
    """An URI of a PostgreSQL of our own."""
    with tempfile.TemporaryDirectory(prefix="pixelis-postgres-") as name:  # pytest's is root's own
        user, words = "postgres", {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(name, user)
            words = {"user": user}
        yield from run_postgres(Path(name), user, words)


def run_postgres(folder, user, words):
    data, port = folder / "data", free_port()
    subprocess.run(
        [POSTGRES[-1], "-D", data, "-U", user, "-A", "trust", "--no-sync", "-E", "UTF8"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=folder,
        **words,
    )
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "fsync": "off",
    }
    options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    process = subprocess.Popen(
        [POSTGRES[-1].with_name("postgres"), "-D", data, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        **words,
    )
    uri = f"postgresql://{user}@127.0.0.1:{port}/postgres"

    def connects():
        try:
            psycopg2.connect(uri).close()
        except psycopg2.OperationalError:
            return False
        return True

    wait_for(connects)
    yield uri.replace("://", "+psycopg2://")
    process.send_signal(signal.SIGQUIT)  # at once, whoever is connected
    process.wait(timeout=SECONDS)
