"""The official client, as a judge: what it sends is accepted, and what it reads is complete."""

from __future__ import annotations

import asyncio

import openai
import pytest
from servers import PATIENCE, eventually, running, sources

from charloom.server.guard import Access


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", timeout=PATIENCE, max_retries=0) as made:
        yield made
    eventually(served.idle)


def test_models(client):
    """Catches a list that the client cannot read."""
    assert [model.id for model in client.models.list()] == ["letters", "records", "bytes"]
    assert client.models.retrieve("letters").object == "model"


def test_a_completion(client, models):
    """Catches a field that the client does not find."""
    answer = client.completions.create(model="letters", prompt=["abc", "d"], n=2, max_tokens=20, seed=3, logprobs=2)
    assert [choice.text for choice in answer.choices] == models["letters"].generate_many(2, ["abc", "d"], 20, seed=3)
    for choice in answer.choices:
        assert choice.finish_reason == "length"
        assert "".join(choice.logprobs.tokens) == choice.text
        assert len(choice.logprobs.top_logprobs) == len(choice.logprobs.token_logprobs) == 20
    assert answer.usage.total_tokens == 84


def test_our_own_options(client, models):
    """Catches options that the client can send as extra_body only, and that are refused."""
    extra = {"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.2, "unknown": "skip"}
    answer = client.completions.create(model="letters", prompt="aéb", max_tokens=20, seed=3, extra_body=extra)
    expected = models["letters"].generate("ab", 20, seed=3, top_k=3, min_p=0.1, repetition_penalty=1.2)
    assert answer.choices[0].text == expected


def test_a_stream(client, models):
    """Catches chunks that the client cannot parse, and U+2028, at which it may split a line."""
    stream = client.completions.create(
        model="letters",
        prompt="\u2028",
        max_tokens=300,
        seed=3,
        echo=True,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = stream
    text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert text == "\u2028" + models["letters"].generate("\u2028", 300, seed=3)
    assert last.usage.completion_tokens == 300


def test_scoring(client, models):
    """Catches an echo that does not score."""
    answer = client.completions.create(model="letters", prompt="abcabc", max_tokens=0, echo=True, logprobs=0)
    figures = answer.choices[0].logprobs.token_logprobs
    assert figures[0] is None
    assert -sum(figures[1:]) == pytest.approx(models["letters"].score("abcabc").nats, rel=1e-4)


def test_errors(client, served):
    """Catches an error that arrives as another class, or with a message that the client cannot find."""
    with pytest.raises(openai.NotFoundError, match="`model` must be one of 'letters', 'records', 'bytes'; got 'x'"):
        client.completions.create(model="x", prompt="a")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.completions.create(model="letters", prompt="a", n=1000)
    assert wrong.value.body["message"] == "`n` must give at most 128 texts in one request; got 1,000"
    assert wrong.value.param == "n"
    with pytest.raises(openai.NotFoundError, match="these are completion models"):
        client.chat.completions.create(model="letters", messages=[{"role": "user", "content": "Hello"}])


def test_an_error_in_mid_stream(client, monkeypatch):
    """Catches a stream that ends as if the text were whole."""
    from charloom.inference.detokenizer import Detokenizer

    def fail(self, tokens):
        self.finish_reason = "error"
        return "", 0

    monkeypatch.setattr(Detokenizer, "take", fail)
    with pytest.raises(openai.APIError, match="no character is left to choose"):
        list(client.completions.create(model="letters", prompt="a", stream=True))


def test_the_key(folders):
    """Catches a key that the client sends and the server does not read."""
    with running(sources(folders)[:1], access=Access(key="right")) as served:
        for key in ("right", "wrong"):
            with openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, timeout=PATIENCE, max_retries=0) as client:
                if key == "right":
                    assert client.completions.create(model="letters", prompt="a").choices
                else:
                    with pytest.raises(openai.AuthenticationError, match="this server needs its key"):
                        client.completions.create(model="letters", prompt="a")


def test_a_stream_that_is_closed(client, served, slow):
    """Catches a slot that stays in use after `stream.close()`."""
    stream = client.completions.create(model="letters", prompt="a", max_tokens=50_000, stream=True)
    next(stream)
    assert served.sum("running") == 1
    stream.close()
    eventually(served.idle)


def test_sixty_four_at_once(served, models):
    """Catches texts that depend on what runs beside them: vllm#51226."""

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", timeout=PATIENCE) as client:

            async def one(number):
                options = {"model": [*models][number % 3], "prompt": "abcd"[: number % 5], "max_tokens": 20 + number}
                if number % 2:
                    answer = await client.completions.create(seed=number, temperature=1, **options)
                    return answer.choices[0].text
                stream = await client.completions.create(seed=number, temperature=1, stream=True, **options)
                return "".join([chunk.choices[0].text async for chunk in stream])

            return await asyncio.gather(*map(one, range(64)))

    found = asyncio.run(ask())
    for number, text in enumerate(found):
        name = [*models][number % 3]
        whole = models[name].generate("abcd"[: number % 5], 20 + number, seed=number, temperature=1)
        assert whole.startswith(text) if name == "bytes" else text[: 20 + number] == whole
    eventually(served.idle)


def test_retries_while_the_queue_is_full(folders):
    """Catches a refusal that the client does not take as one to try again."""

    async def ask(served):
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=20) as client:
            calls = [client.completions.create(model="letters", prompt="a", max_tokens=300, seed=k) for k in range(12)]
            return [answer.choices[0].text for answer in await asyncio.gather(*calls)]

    with pytest.MonkeyPatch.context() as patch, running(sources(folders)[:1], slots=1, waiting=1) as served:
        patch.setattr("charloom.server.errors.RETRY_SECONDS", 0)
        found = asyncio.run(ask(served))
        assert len({*found}) == 12
        with served.client() as http:
            refused = http.get("/metrics").text
        assert 'charloom_refusals_total{model="letters",status="429"}' in refused
