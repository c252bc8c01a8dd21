"""Training on the page of the app, with real processes: from an upload to a model that answers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
from apps import ID, Client, app_command, client_of
from servers import PATIENCE, eventually, running, small_limits

from charloom.server.uploads import UploadLimits

LONG = 1
"""Minutes of a run that does not end by itself in a test."""


@pytest.fixture
def page(tmp_path):
    """A client of an app without models."""
    with running([], app_folder=tmp_path / "app") as served, client_of(served.url) as client:
        yield client


def test_from_an_upload_to_a_model(page: Client, corpus, tmp_path):
    """Catches a server that needs a model to start, a run that never ends, and a model that is not served."""
    assert page.http.get("/health").json() == {"status": "ok"}
    assert page.http.get("/v1/models").json() == {"object": "list", "data": []}
    for model in ({}, {"model": "zen-1"}):
        refused = page.http.post("/v1/completions", json={"prompt": "a", **model})
        assert (refused.status_code, refused.json()["error"]["message"]) == (
            404,
            "there is no model yet; train one",
        )
    stored = page.put(corpus, name="texts/Zen.txt")
    assert (stored.status_code, stored.json()) == (201, {"upload": ID, "name": "Zen.txt", "bytes": len(corpus)})
    assert page.train(0.05).json() == {"run": "zen-1"}
    assert page.runs()["current"] == "zen-1"
    page.wait_for("zen-1", "finished")
    listed = page.runs()
    run = listed["runs"][0]
    assert (listed["current"], run["texts"], run["minutes"], run["error"]) == (None, ["Zen.txt"], 0.05, None)
    assert run["best_bits"] > 0
    names = [event["event"] for event in page.events("zen-1")]
    assert names[0] == "planned"
    assert names[-1] == "finished"
    assert {"started", "validation", "sample"} <= {*names}
    assert page.events("zen-1") == page.server_log(tmp_path / "app" / "runs" / "zen-1")
    answer = page.http.post("/v1/completions", json={"model": "zen-1", "prompt": "The ", "max_tokens": 5})
    assert len(answer.json()["choices"][0]["text"]) == 5
    assert page.http.get("/v1/models/zen-1").json()["id"] == "zen-1"
    readme = (tmp_path / "app" / "runs" / "zen-1" / "best" / "README.md").read_text(encoding="utf-8")
    assert "0000" not in readme
    base = page.train(0.02, **{"from": "zen-1"}).json()["run"]
    page.wait_for(base, "finished")
    assert page.runs()["runs"][0] == {**page.runs()["runs"][0], "run": "zen-2", "from": "zen-1"}
    assert any("fine-tuning" in event.get("text", "") for event in page.events(base))


def test_one_run_at_a_time(page: Client, corpus):
    """Catches two processes that train at the same time, and a stop that loses the run."""
    page.put(corpus)
    assert page.post("stop").status_code == 409
    statuses = []
    asking = [threading.Thread(target=lambda: statuses.append(page.train(LONG).status_code)) for _ in range(4)]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    assert sorted(statuses) == [202, 409, 409, 409]
    page.wait_for("text-1", "training")
    assert "one run at a time; text-1 trains" in page.train(LONG).json()["error"]["message"]
    assert page.plan().status_code == 409
    assert page.post("resume", run="text-1").status_code == 409
    eventually(lambda: page.steps("text-1"))
    assert page.post("stop").json() == {"run": "text-1"}
    page.wait_for("text-1", "stopped")
    before = page.events("text-1")
    assert [run["run"] for run in page.runs()["runs"]] == ["text-1"]
    assert page.http.get("/v1/models/text-1").status_code == 200
    resumed = page.post("resume", run="text-1", minutes=0.001)
    assert (resumed.status_code, resumed.json()) == (202, {"run": "text-1"})
    page.wait_for("text-1", "finished")
    after = page.events("text-1")
    assert after[: len(before)] == before
    assert [event["resumed"] for event in after if event["event"] == "started"] == [False, True]


def test_a_run_that_is_stopped_before_it_trains(page: Client, corpus, tmp_path):
    """Catches a folder that stays of a run that never trained, and a state that never changes."""
    page.put(corpus * 500)
    page.train(LONG)
    assert page.post("stop").status_code == 202
    page.wait_for("text-1", "stopped")
    assert page.http.get("/app/runs/text-1").json()["error"] == "stopped before training began; start it again"
    assert page.runs() == {"current": None, "runs": []}
    assert [*(tmp_path / "app" / "runs").iterdir()] == []
    assert page.post("resume", run="text-1").status_code == 404
    assert page.plan().status_code == 200


def test_a_plan(page: Client, corpus):
    """Catches a plan that leaves files, that counts separators, or that shows our own names of files."""
    page.put("name,text\n" + "Ada,hello\nBob,goodbye\n" * 100, name="people.csv")
    found = page.plan(records="line").json()
    assert found["planned"]["event"] == "planned"
    assert any(notice.startswith("people.csv is read as plain text; `field`") for notice in found["notices"])
    assert found["preview"].startswith("name,text\nAda,hello\nBob,")
    assert found["characters"] == len("name,text") + len("Ada,helloBob,goodbye") * 100
    found = page.plan(field="text").json()
    assert found["preview"].startswith("hello\ngoodbye\nhello\n")
    assert len(found["preview"]) == 600
    page.put("", name="empty.txt")
    refused = page.plan()
    assert refused.status_code == 400
    message = "a text must have at least 2 characters; empty.txt has 0 after cleaning"
    assert refused.json()["error"]["message"] == message
    page.put(b"\x00\x01\x02", name="a.bin")
    assert "a.bin looks binary" in page.plan().json()["error"]["message"]
    page.train(LONG)
    page.wait_for("a-1", "failed")
    assert page.runs()["runs"][0]["error"].startswith("a.bin looks binary")


def test_a_page_that_leaves_during_a_plan(page: Client, corpus):
    """Catches a plan of a page that was closed, which keeps all others from training."""
    page.put(corpus * 500)
    with pytest.raises(httpx.ReadTimeout):
        page.http.post("/app/plan", json={"upload": ID, "minutes": 1}, timeout=0.2)
    page.put("ab")
    eventually(lambda: page.plan().status_code == 200)


def test_a_process_that_is_killed(page: Client, corpus, tmp_path):
    """Catches a run that counts as training for ever, because its process ended without a word."""
    page.put(corpus)
    page.train(LONG)
    eventually(lambda: page.steps("text-1"))
    os.kill(page_process(tmp_path / "app" / "runs" / "text-1"), signal.SIGKILL)
    page.wait_for("text-1", "failed")
    assert page.runs()["runs"][0]["error"] == "the training process ended with status -9"
    page.post("resume", run="text-1", minutes=0.001)
    page.wait_for("text-1", "finished")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "`upload` must be given"),
        ({"upload": ID}, 400, "`minutes` must be given"),
        ({"upload": ID, "minutes": 0}, 400, "`minutes` must be above 0"),
        ({"upload": ID, "minutes": 1441}, 400, "`minutes` must be at most 1440"),
        ({"upload": ID, "minutes": "5"}, 400, "`minutes` must be a number"),
        ({"upload": ID, "minutes": True}, 400, "`minutes` must be a number"),
        ({"upload": ID, "minutes": 1, "records": "field"}, 400, "`records` must be"),
        ({"upload": ID, "minutes": 1, "out": "/tmp/x"}, 400, "`out` is an unknown name"),
        ({"upload": ID, "minutes": 1, "base": "x"}, 400, "`base` is an unknown name"),
        ({"upload": "../runs", "minutes": 1}, 404, "`upload` must be one that was uploaded"),
        ({"upload": ID, "minutes": 1, "from": "/etc"}, 404, "there is no model yet"),
    ],
)
def test_wrong_requests(page: Client, corpus, body, status, message):
    """Catches a value that is passed on unchecked, and a mistake after which nothing trains any more."""
    page.put(corpus)
    for path in ("plan", "train"):
        refused = page.post(path, **body)
        assert refused.status_code == status
        assert refused.json()["error"]["message"].startswith(message)
    assert page.runs() == {"current": None, "runs": []}


@pytest.mark.parametrize(
    "path", ["x/0", "..%2f..%2fx/0", "0123ABCD/0", f"{ID}/1000", f"{ID}/-1", f"{ID}/%2e%2e", f"{ID}%00/0"]
)
def test_wrong_uploads(page: Client, path, tmp_path):
    """Catches a file outside its folder."""
    refused = page.http.put(f"/app/uploads/{path}", content=b"text")
    assert refused.status_code in (400, 404)
    assert refused.json()["error"]["message"]
    assert [*(tmp_path / "app" / "uploads").iterdir()] == []


def test_wrong_runs(page: Client):
    """Catches a name of a run that is a path."""
    for name in ("x", "..%2f..%2fx", "%2fetc", "%00", "x" * 5000):
        assert page.http.get(f"/app/runs/{name}").status_code == 404
    for name in ("x", "../..", "/etc", "\0", "x" * 5000, ""):
        assert page.post("resume", run=name).status_code == 404
    assert page.http.get("/app/runs/x?since=-1").status_code == 400


def test_a_page_of_another_server(page: Client):
    """Catches a page on the web that trains or uploads here."""
    headers = {"origin": "https://example.org"}
    asked = [
        page.http.put(f"/app/uploads/{ID}/0", content=b"text", headers=headers),
        *(page.http.post(f"/app/{path}", json={}, headers=headers) for path in ("plan", "train", "stop", "resume")),
    ]
    assert {answer.status_code for answer in asked} == {403}
    assert page.http.post("/app/stop", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert page.http.get("/app/runs", headers={"host": "example.org"}).status_code == 403


def test_a_slow_upload(tmp_path):
    """Catches a file that is cut off although it goes on arriving, and one that keeps a connection for ever."""
    head = f"PUT /app/uploads/{ID}/0?name=a.txt HTTP/1.1\r\nhost: localhost\r\ncontent-length: 40\r\n\r\n".encode()
    limits = small_limits()
    with running([], app_folder=tmp_path / "app", limits=limits) as server:
        port = int(server.url.rpartition(":")[2])
        for parts, status in (10, b"201"), (1, b"408"):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.settimeout(PATIENCE)
                client.sendall(head)
                for _ in range(parts):
                    client.sendall(b"abcd")
                    time.sleep(limits.request_seconds / 5)
                assert client.recv(1000).split()[1] == status


def test_a_server_without_training(http):
    """Catches `charloom serve` that trains."""
    for method, path in (("PUT", f"uploads/{ID}/0"), ("POST", "train"), ("POST", "plan"), ("GET", "runs")):
        answer = http.request(method, f"/app/{path}", json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_large_uploads(tmp_path, corpus):
    """Catches a limit that only Content-Length enforces, a client that cannot read the answer, and half a file."""
    uploads = tmp_path / "app" / "uploads"
    with (
        running([], app_folder=tmp_path / "app", upload_limits=UploadLimits(one_bytes=3_000_000)) as served,
        client_of(served.url) as page,
    ):
        data = b"x" * 2_000_000
        assert page.put(data).status_code == 201
        assert page.put(data, 1).status_code == 413
        chunked = page.http.put(f"/app/uploads/{ID}/1", content=iter([data, data, data]))
        assert chunked.status_code == 413
        assert "at most 3,000,000 bytes together" in chunked.json()["error"]["message"]
        with socket.create_connection(("127.0.0.1", httpx.URL(served.url).port)) as client:
            head = f"PUT /app/uploads/{ID}/1 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900000\r\n\r\n"
            client.sendall(head.encode() + b"x" * 500_000)
            eventually(lambda: len([*(uploads / ID).iterdir()]) == 2)
        eventually(lambda: [path.name for path in (uploads / ID).iterdir()] == ["0000.txt"])
        assert page.put(b"y" * 1_000_000, 1).status_code == 201


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_while_it_trains(corpus, tmp_path, how):
    """Catches a process that trains on without its server, a run that is lost, and Ctrl-C that kills it unsaved."""
    folder = tmp_path / "app"
    with app_command(folder) as app, client_of(app.url) as page:
        page.put(corpus)
        page.train(LONG)
        eventually(lambda: page.steps("text-1"))
        process = child_of(app.process.pid)
        # In a terminal, Ctrl-C goes to the whole group of processes.
        (os.killpg if how == signal.SIGINT else os.kill)(app.process.pid, how)
        status, err = app.ended()
        assert status == {signal.SIGKILL: -9, signal.SIGTERM: 0, signal.SIGINT: 0}[how]
        assert "Traceback" not in err
    if how != signal.SIGKILL:
        assert not Path(f"/proc/{process}").exists()  # the server waited until the run was saved
    eventually(lambda: not Path(f"/proc/{process}").exists(), "the end of the process that trains")
    steps = [event["step"] for event in Client.server_log(folder / "runs" / "text-1") if event["event"] == "step"]
    with app_command(folder) as app, client_of(app.url) as page:
        run = page.runs()["runs"][0]
        assert (run["run"], run["state"], run["texts"]) == ("text-1", "stopped", ["text.txt"])
        assert page.http.get("/v1/models/text-1").status_code == 200
        page.post("resume", run="text-1", minutes=0.001)
        page.wait_for("text-1", "finished")
        events = page.events("text-1")
        assert [event["step"] for event in events if event["event"] == "step"][: len(steps)] == steps
        resumed = [event["step"] for event in events if event["event"] == "started"][-1]
        assert resumed >= steps[-1]  # nothing was lost


def page_process(run: Path) -> int:
    """The process that trains a run: it has locked its folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(run / "lock") in map(os.readlink, (process / "fd").iterdir()):
                return int(process.name)
    raise AssertionError("no process has the lock")


def child_of(parent: int) -> int:
    """The process that trains."""
    return int(Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()[0])
