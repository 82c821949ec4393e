"""Texts without what is nobody's business."""

import json
from pathlib import Path

import pytest

from pixelis.tracking.privacy import public, without_home, without_secrets


def test_the_home_folder_is_a_tilde_where_it_is_one(monkeypatch):
    monkeypatch.setenv("HOME", "/home/some")
    assert without_home("/home/some/data and /home/some") == "~/data and ~"
    assert without_home("file:///home/some/a") == "file://~/a"
    for other in ("/home/someone/data", "/home/some-one", "/mnt/home/some"):
        assert without_home(other) == other
    monkeypatch.setenv("HOME", "/")
    assert without_home("/data") == "/data"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pa55@host:5000/x", "http://host:5000/x"),
        ("to postgresql+psycopg2://me:p@55@db/x failed", "to postgresql+psycopg2://db/x failed"),
        ("https://token@host/a.git", "https://host/a.git"),
        ("http://host/x?token=abc&step=3", "http://host/x?token=***&step=3"),
        ("http://h/x?X-Amz-Signature=abc&a=1&sig=d", "http://h/x?X-Amz-Signature=***&a=1&sig=***"),
        ("Authorization: Bearer abc123def456ghi", "Authorization: Bearer ***"),
        ("authorization: basic dXNlcjpwYTU1MTIz", "authorization: basic ***"),
        ("the bearer understands a basic question", "the bearer understands a basic question"),
        (f"login hf_{'a1' * 12} failed", "login *** failed"),
        (f"ghp_{'A1' * 15}, AKIA{'Z' * 16}", "***, ***"),
        (
            "half_a1 and risk-free-and-long-words-go-on",
            "half_a1 and risk-free-and-long-words-go-on",
        ),
        ("a@b.org at http://host", "a@b.org at http://host"),
        ("plain", "plain"),
    ],
)
def test_urls_have_no_user_and_no_password(text, shown):
    assert without_secrets(text) == shown


def test_the_values_of_secret_variables_are_hidden_wherever_they_are(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    monkeypatch.setenv("MY_PASSWORD", "hf_abcdefgh-longer")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret")
    monkeypatch.setenv("SHORT_TOKEN", "true")
    monkeypatch.setenv("PGPASSWORD", "short6")
    monkeypatch.setenv("PWD", "/some/folder")
    monkeypatch.setenv("SSH_KEY_FILE_PAT", "/some/keys/id_ed25519")
    monkeypatch.setenv("TLS_KEY", "begin of the key\nmiddle of the key")
    monkeypatch.setenv("DB_PASS", 'with"quotes"')
    assert public("short6 /some/folder /some/keys/id_ed25519") == (
        "*** /some/folder /some/keys/id_ed25519"
    )
    assert public("middle of the key, begin of the key\nmiddle of the key") == "***, ***"
    assert public(json.dumps({"a": 'with"quotes"'})) == json.dumps({"a": "***"})
    monkeypatch.setenv("PLAIN_NAME", "innocent-value")
    rows = [{"a": "hf_abcdefgh-longer", "b": 1.5, "c": ["x verysecret", None]}]
    assert public(rows) == [{"a": "***", "b": 1.5, "c": ["x ***", None]}]
    assert public({"hf_abcdefgh": Path("x/verysecret")}) == {"***": "x/***"}
    assert public("true innocent-value hf_abcdefgh") == "true innocent-value ***"


def test_the_home_folder_behind_a_link_is_a_tilde_too(monkeypatch, tmp_path):
    (real := tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(real)
    monkeypatch.setenv("HOME", str(tmp_path / "link"))
    for text in (f"{tmp_path}/link/a.txt", f"{real}/a.txt"):
        assert without_home(text) == "~/a.txt"
