"""The files of docs/serving.md that other programs read: nginx, systemd, Docker."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from servers import PATIENCE, block, eventually

NGINX = """
daemon off; master_process off; pid nginx.pid; error_log stderr crit;
events {}
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
"""
"""What stands around the page's configuration: all files in one folder, and no process that outlives its parent."""


def program(name: str) -> str:
    """The path of a program, of this environment or of the system."""
    found = shutil.which(
        name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    )
    return found or pytest.skip(f"{name} is missing")


def answers(url: str) -> bool:
    """Whether a server is healthy."""
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health", timeout=PATIENCE).status_code == 200
    return False


@contextlib.contextmanager
def process(*arguments: object, cwd: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs while the `with` block does."""
    with subprocess.Popen([*map(str, arguments)], cwd=cwd, stderr=subprocess.DEVNULL) as running:
        try:
            yield running
        finally:
            running.kill()


def test_two_replicas_behind_nginx_and_one_is_killed(folders, models, tmp_path):
    """Catches a request that fails, or gets another text, because its replica was killed; and one that is not used
    again after its restart.
    """
    nginx = program("nginx")
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    front, *replicas = (f"http://127.0.0.1:{port}" for port in ports)
    text = block("nginx")
    for old, new in zip(("8000", "8001", "8002"), ports, strict=True):
        assert old in text
        text = re.sub(rf"\b{old}\b", str(new), text)
    (tmp_path / "nginx.conf").write_text(NGINX + text + "}\n", encoding="utf-8")

    def replica(number: int) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        serve = [sys.executable, "-m", "charloom", "serve", folders["letters"]]
        return process(*serve, "--port", ports[1 + number])

    def generated(number: int) -> bool:
        return bool(re.search(r"generated_tokens_total\S* [1-9]", httpx.get(f"{replicas[number]}/metrics").text))

    def ask(seed: int) -> bool:
        body = {"prompt": "abc", "max_tokens": 400, "seed": seed % 20}
        try:
            answer = httpx.post(f"{front}/v1/completions", json=body, timeout=PATIENCE, verify=False)
        except httpx.RemoteProtocolError:  # killed after the head of its answer: nginx cannot ask the other one
            answer = httpx.post(f"{front}/v1/completions", json=body, timeout=PATIENCE, verify=False)
        return answer.status_code == 200 and answer.json()["choices"][0]["text"] == expected[seed % 20]

    expected = [models["letters"].generate("abc", 400, seed=seed) for seed in range(20)]
    with replica(0) as first, replica(1), process(nginx, "-p", tmp_path, "-c", "nginx.conf"):
        eventually(lambda: all(map(answers, (front, *replicas))), "the start")
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, seed) for seed in range(400)]
            eventually(lambda: generated(0) and generated(1) and sum(each.done() for each in asked) > 20)
            first.kill()
            assert not asked[-1].done(), "the replica was killed under load"
            assert all(each.result() for each in asked)
        with replica(0):
            eventually(lambda: answers(replicas[0]), "the restart")
            eventually(lambda: ask(1) and generated(0), "a text of the replica that was started again")


def test_the_unit_of_systemd(tmp_path):
    """Catches a setting that systemd does not know."""
    analyze = program("systemd-analyze")
    unit = tmp_path / "charloom.service"
    unit.write_text(block("ini").replace("/opt/charloom/bin/charloom", sys.executable), encoding="utf-8")
    ended = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_dockerfile(tmp_path):
    """Catches what hadolint finds wrong."""
    hadolint = program("hadolint")
    (tmp_path / "Dockerfile").write_text(block("dockerfile"), encoding="utf-8")
    ended = subprocess.run([hadolint, "Dockerfile"], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "")
