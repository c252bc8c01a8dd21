"""`charloom serve`: what the command line checks before it serves. `tests/server` tests the server."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")


def test_mistakes(charloom, tiny, tmp_path):
    """Catches a traceback, or a mistake that is not named."""
    (tmp_path / "empty").write_text(" \n", encoding="utf-8")
    for arguments, status, message in (
        (["none"], 1, "a model must be a folder that charloom wrote; none does not exist"),
        ([tiny, tiny], 2, "each model must have a name of its own; two are called 'run'; give NAME=MODEL"),
        ([f"={tiny}"], 2, f"the name of a model must be printable text; {tiny}/best got the name ''; give NAME=MODEL"),
        ([tiny, "--slots", "0"], 2, "--slots must be at least 1; got '0'"),
        ([tiny, "--waiting", "x"], 2, "--waiting must be a whole number; got 'x'"),
        ([tiny, "--port", "65536"], 2, "--port must be at most 65,535; got '65536'"),
        ([tiny, "--precision", "fp64"], 2, "--precision must be 'auto', 'fp32', 'bf16' or 'int8'; got 'fp64'"),
        ([tiny, "--api-key-file", "no"], 2, "--api-key-file must name a file that can be read; no: No such file"),
        ([tiny, "--api-key-file", "empty"], 2, "the key in empty must be one line of ASCII characters"),
        ([tiny, "--cors-origin", "example.org"], 2, "--cors-origin must be such as https://example.org"),
        ([tiny, "--host", "no.such.host.invalid", "--insecure"], 2, "--host and --port must be a free address"),
    ):
        ended = charloom("serve", *arguments)
        assert (ended.status, ended.complaint[: len(message)]) == (status, message)


def test_an_open_server_is_for_this_machine_only(charloom, tiny):
    """Catches a server without a key that the whole network reaches. `tests/server` has the other cases."""
    ended = charloom("serve", tiny, "--host", "0.0.0.0")
    assert ended.status == 2
    assert ended.complaint == (
        "--host must be 127.0.0.1 or localhost without a key; got '0.0.0.0'; pass --api-key-file, set "
        "CHARLOOM_API_KEY, or pass --insecure if everyone who reaches this machine may use it"
    )
    assert charloom("serve", tiny, env={"CHARLOOM_API_KEY": "two words"}).complaint.startswith(
        "the key in CHARLOOM_API_KEY"
    )


def test_a_port_in_use(charloom, tiny):
    """Catches a traceback of the library below."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = charloom("serve", tiny, "--port", str(port))
    assert ended.status == 2
    assert ended.complaint == (
        f"--host and --port must be a free address of this machine; 127.0.0.1 port {port}: Address already in use; "
        "choose another"
    )


def test_a_model_that_is_damaged(charloom, tiny, tmp_path):
    """Catches a server that stays up without a model."""
    (tmp_path / "model").mkdir()
    for file in (tiny / "best").iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes()[:100])
    ended = charloom("serve", "model", "--port", "0")
    assert ended.status == 1
    assert ended.complaint.startswith("model: model: config.json must be JSON; it is damaged")


def test_without_the_extra(tiny):
    """Catches a traceback where fastapi is missing, and a package that is imported without need."""
    code = "import sys; sys.modules['fastapi'] = None; from charloom.cli.main import main; main()"
    ended = subprocess.run([sys.executable, "-c", code, "serve", tiny], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr == (
        "charloom: charloom serve needs the package fastapi; pip install fastapi uvicorn prometheus-client\n"
    )
