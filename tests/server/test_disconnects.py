"""A client that leaves: its slots are free at once, whether it streams or not, runs or waits."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from servers import eventually, running, sources


def request_of(served, **fields):
    """The bytes of a request that asks for a very long text."""
    body = json.dumps({"prompt": "abc", "max_tokens": 50_000, **fields}).encode()
    port = served.url.rpartition(":")[2]
    head = f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def connected(served):
    return socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2])))


def tokens(served):
    """The number of tokens that were generated."""
    return sum(
        sample.value
        for family in served.running.models.metrics.families()
        for sample in family.samples
        if sample.name == "charloom_generated_tokens_total"
    )


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"n": 5}, {"stream": True, "n": 5}], ids=json.dumps)
def test_a_client_that_leaves_frees_its_slots(served, slow, fields):
    """Catches work for nobody: llama.cpp#11720, and uvicorn, which does not cancel a request without a stream."""
    before = tokens(served)
    with connected(served) as client:
        client.sendall(request_of(served, **fields))
        eventually(lambda: served.sum("running") == fields.get("n", 1))
        eventually(lambda: tokens(served) > before)
    eventually(served.idle, "a free slot")
    assert tokens(served) - before < 50_000


def test_a_client_that_leaves_while_it_waits(folders, slow):
    """Catches a request that takes a slot after its client has left."""
    with running(sources(folders)[:1], slots=1) as served, served.client() as http:
        first, second = connected(served), connected(served)
        first.sendall(request_of(served))
        eventually(lambda: served.sum("running") == 1)
        second.sendall(request_of(served))
        eventually(lambda: served.sum("waiting") == 1)
        second.close()
        eventually(lambda: served.sum("waiting") == 0)
        assert served.sum("running") == 1
        first.close()
        eventually(served.idle)
        assert http.post("/v1/completions", json={"prompt": "a"}).status_code == 200


def test_a_client_that_leaves_while_its_prompt_is_scored(served, slow, monkeypatch):
    """Catches a prompt that is read to its end for nobody."""
    from charloom.inference import scheduler

    monkeypatch.setattr(scheduler, "READ_SECONDS", 0.0)
    monkeypatch.setattr(scheduler, "SCORED_TOKENS", 1)
    with connected(served) as client:
        client.sendall(request_of(served, prompt="abc" * 20_000, max_tokens=0, echo=True, logprobs=0))
        eventually(lambda: served.sum("running") == 1)
    eventually(served.idle)


def test_many_that_leave_at_once(served, slow):
    """Catches a slot that is lost when requests come and go at the same time."""

    def come_and_go():
        with connected(served) as client:
            client.sendall(request_of(served, stream=True))

    threads = [threading.Thread(target=come_and_go) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(served.idle)
    with served.client() as http:
        assert http.post("/v1/completions", json={"prompt": "a", "max_tokens": 5}).status_code == 200


def test_a_reader_that_is_slow_does_not_delay_others(served, slow):
    """Catches a stream whose reader stops the thread of the scheduler."""
    with connected(served) as client, served.client() as http:
        client.sendall(request_of(served, stream=True, n=8, logprobs=0, max_tokens=5000))
        eventually(lambda: served.sum("running") == 8)
        assert http.post("/v1/completions", json={"prompt": "a", "max_tokens": 5}).status_code == 200
    eventually(served.idle)
