"""Random requests that come, stream and leave in any order: each finished text is that of `charloom generate` alone."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from servers import PATIENCE, Served, eventually, running, sources

from charloom.inference import scheduler
from charloom.server.limits import ServerLimits

EXAMPLES = int(os.environ.get("CHARLOOM_EXAMPLES", "10"))
"""Sets of requests; CONTRIBUTING.md says when more are useful."""

REQUESTS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["letters", "records", "bytes"]),
        "prompt": st.text("abcd", max_size=4) | st.integers(1, 300).map(lambda n: ("abcdcab" * n)[:n]),
        "seed": st.integers(0, 5),
        "max_tokens": st.integers(1, 60),
    },
    optional={
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 2.0]),
        "top_k": st.integers(1, 5),
        "top_p": st.sampled_from([0.3, 0.9]),
        "min_p": st.sampled_from([0.05, 0.5]),
        "repetition_penalty": st.sampled_from([0.8, 1.5]),
        "stop": st.lists(st.text("abcd\n", min_size=1, max_size=3), max_size=3),
        "n": st.integers(1, 3),
        "logprobs": st.integers(0, 2),
        "echo": st.booleans(),
        "stream": st.booleans(),
    },
)
CLIENTS = st.lists(
    st.tuples(
        REQUESTS, st.integers(0, 3), st.none() | st.integers(0, 5)
    ),  # fields, turns before it, turns until it leaves
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def crowded(folders):
    """A server with few slots, so that requests wait for each other, which sends each chunk at once."""
    with running(sources(folders), slots=3, limits=ServerLimits(chunk_seconds=0)) as server:
        yield server


async def text_of(client: httpx.AsyncClient, fields: dict) -> list[str]:
    """The texts of one request."""
    if not fields.get("stream"):
        answer = await client.post("/v1/completions", json=fields)
        assert answer.status_code == 200, answer.text
        return [choice["text"] for choice in answer.json()["choices"]]
    texts = [""] * fields.get("n", 1)
    async with client.stream("POST", "/v1/completions", json=fields) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    texts[choice["index"]] += choice["text"]
    return texts


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0.002)


async def one(client, fields, before, until):
    await turns(before)
    asking = asyncio.ensure_future(text_of(client, fields))
    if until is None:
        return await asking
    await turns(until)
    if asking.done():
        return await asking
    asking.cancel()  # the client may end with an error of its own: it has left
    await asyncio.gather(asking, return_exceptions=True)
    return None


async def crowd(served: Served, clients):
    async with httpx.AsyncClient(base_url=served.url, timeout=PATIENCE) as client:
        return await asyncio.gather(*(one(client, *each) for each in clients))


def options_of(fields):
    """The options of a request, as `charloom generate` takes them."""
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "stop", "seed")
    return {name: fields[name] for name in names if name in fields}


def alone(model, fields):
    """What `charloom generate --count N` prints for these options, with a length that is large enough."""
    return model.generate_many(fields.get("n", 1), fields["prompt"], 2 * fields["max_tokens"], **options_of(fields))


def exactly(model, fields):
    """The same, up to the limit in tokens: each request alone on a new scheduler."""
    texts = []
    for request in model.requests(fields.get("n", 1), fields["prompt"], **options_of(fields)):
        only = replace(request, length=None, tokens=fields["max_tokens"])
        texts.append("".join(output.text for _, output in model.run([only], slots=1)))
    return texts


@pytest.mark.parametrize("tokens", [1, 2**12], ids=["steps", "chunks"])
def test_every_text_is_that_of_the_model_alone(crowded, models, monkeypatch, tokens):
    """Catches anything that one request takes from another, and a slot that a client took with it."""
    monkeypatch.setattr(scheduler, "CHUNK_TOKENS", tokens)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=[*HealthCheck],
        phases=[Phase.generate],
    )
    @given(clients=CLIENTS)
    def check(clients):
        for (fields, _, _), texts in zip(clients, asyncio.run(crowd(crowded, clients)), strict=True):
            if texts is None:
                continue
            model = models[fields["model"]]
            for text, short, whole in zip(texts, exactly(model, fields), alone(model, fields), strict=True):
                assert text == (fields["prompt"] if fields.get("echo") else "") + short, fields
                # At its limit, a text keeps the beginning of a stop string that a longer text would complete.
                rest = short.removeprefix(whole) if short.startswith(whole) else None
                begun = rest is not None and any(stop.startswith(rest) for stop in fields.get("stop", []))
                assert whole.startswith(short) or begun, fields
        eventually(crowded.idle)

    check()


def test_the_crowd_notices_a_seed_that_is_shared(crowded, models, monkeypatch):
    """Catches a test that finds nothing."""
    from charloom.inference.sequence import Sequence

    row = Sequence.row
    monkeypatch.setattr(Sequence, "row", lambda self: row(self).__class__(**{**vars(row(self)), "seed": 0}))
    clients = [({"model": "letters", "prompt": "a", "seed": 3, "max_tokens": 40, "temperature": 1.0}, 0, None)] * 2
    texts = asyncio.run(crowd(crowded, clients))
    monkeypatch.undo()
    assert texts[0] != alone(models["letters"], clients[0][0])
