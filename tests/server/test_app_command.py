"""`charloom app` as a process: its address, its browser, its models, its mistakes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys

import httpx
import pytest
from apps import app_command, client_of
from servers import eventually


def test_the_page_opens_in_a_browser(tmp_path):
    """Catches a browser that is not opened, and one that opens without a display or against `--no-browser`."""
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {seen}\n', encoding="utf-8")
    browser.chmod(0o755)
    env = {"BROWSER": f"{browser} %s", "DISPLAY": ":0", "WAYLAND_DISPLAY": ""}
    with app_command(tmp_path / "app", **env) as app:
        url = app.url
        assert url.startswith("http://127.0.0.1:")
        eventually(seen.exists, "the start of the browser")
        eventually(lambda: seen.read_text(encoding="utf-8") == f"{url}\n")
    for further, other in (((), {"DISPLAY": ""}), (("--no-browser",), {})):
        with app_command(tmp_path / "app", *further, **env | other) as app, client_of(app.url) as page:
            assert page.http.get("/health").status_code == 200
    assert seen.read_text(encoding="utf-8") == f"{url}\n"


def test_a_port_in_use(tmp_path):
    """Catches an app that does not start beside another program on port 8000, and a chosen port that is not kept."""
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        except OSError:
            pass  # another program has it
        with app_command(tmp_path / "app", "--no-browser", port=None) as app:
            assert httpx.URL(app.url).port not in (None, 8000)
        with app_command(tmp_path / "app", "--no-browser", port=8000) as app:
            status, err = app.ended()
        assert (status, err.count("\n")) == (2, 1)
        assert "--port" in err


def test_models_and_runs(tmp_path, folders):
    """Catches a damaged run that stops the app, a run without its model, and a run that takes the name of a model."""
    runs = tmp_path / "app" / "runs"
    for name in ("whole", "damaged", "mine"):
        shutil.copytree(folders["letters"], runs / name / "best")
        (runs / name / "run.toml").write_text("[training]\n", encoding="utf-8")
    (runs / "damaged" / "best" / "model.safetensors").write_bytes(b"x")
    (runs / "link").symlink_to(runs / "whole")
    with app_command(tmp_path / "app", "--no-browser", f"mine={folders['bytes']}") as app, client_of(app.url) as page:
        assert [card["id"] for card in page.http.get("/v1/models").json()["data"]] == ["mine", "whole"]
        left_out = [line for line in app.err.splitlines() if "left out" in line]
        assert [line.partition(":")[2].split(" is left out")[0] for line in left_out] == [
            " the run damaged",
            " the run mine",
        ]
        assert {run["run"]: run["state"] for run in page.runs()["runs"]} == dict.fromkeys(
            ("whole", "damaged", "mine"), "failed"
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "x"], "--port must be a whole number; got 'x'"),
        (["--port", "70000"], "--port must be at most 65,535; got '70000'"),
        (["nowhere"], "nowhere does not exist"),
        (["--folder", "file"], "--folder must be a folder that can be written; file"),
        (["--host", "0.0.0.0"], "No such option '--host'"),
    ],
)
def test_mistakes(tmp_path, arguments, message):
    """Catches a traceback, and an app that other machines reach."""
    (tmp_path / "file").write_text("text", encoding="utf-8")
    command = [sys.executable, "-m", "charloom", "app", "--no-browser", *arguments]
    env = {**os.environ, "HOME": str(tmp_path / "home")}
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ended.returncode in (1, 2)
    assert ended.stderr.count("\n") == 1
    assert message.replace("file", str(tmp_path / "file") if message.endswith("file") else "file") in ended.stderr
    assert not (tmp_path / "home").exists()


def test_the_default_folder(tmp_path):
    """Catches a folder in the current one, or in the home of someone else."""
    command = [sys.executable, "-m", "charloom", "app", "--no-browser", "--port", "0"]
    env = {**os.environ, "HOME": str(tmp_path)}
    with subprocess.Popen(command, cwd="/", env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "serving at" in process.stderr.readline()
        process.terminate()
        assert process.wait() == 0
    made = {path.name for path in (tmp_path / "charloom-app").iterdir()}
    assert made == {"lock", "runs", "temporary", "uploads"}
