"""Streams: the chunks together are the answer without a stream."""

from __future__ import annotations

import asyncio
import json

import pytest
from servers import eventually, running, sources

from charloom.inference import scheduler
from charloom.inference.detokenizer import Detokenizer
from charloom.server.limits import ServerLimits
from charloom.server.worker import Worker


def chunks_of(http, **fields):
    """The chunks of a stream, whose last event must be [DONE]."""
    with http.stream("POST", "/v1/completions", json={"stream": True, **fields}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        body = answer.read()
    assert body.isascii()
    events = body.decode().split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    assert all(event.startswith("data: {") and "\n" not in event for event in events)
    return [json.loads(event.removeprefix("data: ")) for event in events]


def joined(chunks, count=1):
    """Choices as an answer without a stream has them."""
    choices = [{"index": number, "text": "", "logprobs": None, "finish_reason": None} for number in range(count)]
    for chunk in chunks:
        for part in chunk["choices"]:
            choice = choices[part["index"]]
            assert choice["finish_reason"] is None, "nothing may follow the last part of a choice"
            choice["text"] += part["text"]
            choice["finish_reason"] = part["finish_reason"]
            if part["logprobs"]:
                choice["logprobs"] = choice["logprobs"] or {name: [] for name in part["logprobs"]}
                for name, values in part["logprobs"].items():
                    choice["logprobs"][name] += values
    return choices


def whole(http, **fields):
    answer = http.post("/v1/completions", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def eager(folders):
    """A server that sends every chunk at once."""
    with running(sources(folders), limits=ServerLimits(chunk_seconds=0)) as server:
        yield server


@pytest.fixture
def http(eager, monkeypatch):
    """A client that gets a chunk for each token: the scheduler waits until the event loop has sent the last one."""
    update = Worker._update

    async def settle():
        for _ in range(20):
            await asyncio.sleep(0)

    def update_and_wait(self):
        update(self)
        asyncio.run_coroutine_threadsafe(settle(), self._loop).result(60)

    monkeypatch.setattr(scheduler, "CHUNK_TOKENS", 1)
    monkeypatch.setattr(Worker, "_update", update_and_wait)
    with eager.client() as client:
        yield client
    eventually(eager.idle)


STREAMS = [
    {"prompt": "abc", "max_tokens": 40},
    {"prompt": ["abc", "h"], "n": 2, "max_tokens": 20},
    {"prompt": "abc", "max_tokens": 40, "stop": ["ab", "cde", "gg", "h\n"]},
    {"prompt": "abc", "max_tokens": 12, "logprobs": 2, "echo": True},
    {"prompt": "abc", "max_tokens": 0, "logprobs": 0, "echo": True},
    {"prompt": "abc", "max_tokens": 40, "logprobs": 3, "stop": ["hgh", "e "]},
    {"model": "records", "prompt": "ab\ncd", "max_tokens": 60, "logprobs": 1, "echo": True, "records": 3},
    {"model": "records", "max_tokens": 300, "records": 4, "stop": "\nab", "logprobs": 0},
    {"model": "bytes", "prompt": "é", "max_tokens": 30, "logprobs": 2, "echo": True, "temperature": 1.5},
]


@pytest.mark.parametrize("fields", STREAMS, ids=json.dumps)
def test_the_chunks_are_the_answer(http, fields):
    """Catches text that is lost, doubled or leaked between two chunks, and figures beside another token."""
    count = len(fields["prompt"]) * 2 if isinstance(fields.get("prompt"), list) else 1
    for seed in range(4):
        chunks = chunks_of(http, seed=seed, **fields)
        assert joined(chunks, count) == whole(http, seed=seed, **fields)["choices"]
        assert {chunk["object"] for chunk in chunks} == {"text_completion"}
        assert len({chunk["id"] for chunk in chunks}) == 1
        assert not any("usage" in chunk for chunk in chunks)


def test_there_are_many_chunks(http):
    """Catches a stream that is sent at its end, which would also weaken the test above."""
    assert len(chunks_of(http, prompt="abc", max_tokens=40, seed=1)) > 30


def test_a_stop_string_never_leaks(http, models):
    """Catches the first characters of a stop string, sent before its last one was known."""
    for seed in range(6):
        text = models["letters"].generate("abc", 60, seed=seed)
        for stop in (text[20:24], text[30:33], text[:2]):
            (choice,) = joined(chunks_of(http, prompt="abc", max_tokens=60, seed=seed, stop=[stop]))
            assert choice["text"] == text[: text.index(stop)]
            assert choice["finish_reason"] == "stop"


def test_the_beginning_of_a_stop_string_is_text_at_the_end(http, models):
    """Catches characters that were held back for a stop string and are then lost."""
    text = models["letters"].generate("abc", 30, seed=3)
    (choice,) = joined(chunks_of(http, prompt="abc", max_tokens=30, seed=3, stop=[text[-3:] + "\u2028\u2028\u2028"]))
    assert (choice["text"], choice["finish_reason"]) == (text, "length")


def test_the_usage_is_a_last_chunk(http):
    """Catches a usage that is missing, or counts chunks."""
    *parts, last = chunks_of(http, prompt=["abc", "d"], max_tokens=9, seed=1, stream_options={"include_usage": True})
    assert all(part["usage"] is None for part in parts)
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 4, "completion_tokens": 18, "total_tokens": 22}
    assert "usage" not in chunks_of(http, prompt="a", stream_options={"include_usage": False})[-1]


def test_an_error_in_mid_stream_is_an_event(http, monkeypatch):
    """Catches a text that just ends, as if it were whole."""

    def fail(self, tokens):
        self.finish_reason = "error"
        return "", 0

    monkeypatch.setattr(Detokenizer, "take", fail)
    *_, last = chunks_of(http, prompt="abc")
    assert last["error"]["message"].startswith("no character is left to choose")


def test_a_mistake_is_no_stream(http):
    """Catches status 200 for a request that is refused."""
    answer = http.post("/v1/completions", json={"stream": True, "n": 0})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
