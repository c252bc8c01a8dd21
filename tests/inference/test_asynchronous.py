"""Text on asyncio: the same text, a loop that is not blocked, and work that ends with its reader."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from charloom.architecture import Architecture
from charloom.checkpoint import ModelFolder
from charloom.data.vocabulary import Vocabulary
from charloom.engines.initial import initial_parameters
from charloom.errors import ModelError, SettingsError
from charloom.inference.scheduler import Scheduler
from charloom.model import Model

pytestmark = pytest.mark.processor

ENDLESS = 10**9


@pytest.fixture
def model():
    vocabulary = Vocabulary("characters", tuple("\n abcdefgh"))
    sizes = Architecture(
        cell="gru", nonlinearity="tanh", layers=1, hidden=8, input="onehot", embedding=1, vocabulary_size=10
    )
    return Model(ModelFolder(sizes, vocabulary, initial_parameters(sizes, 0)))


@pytest.fixture
def updates(monkeypatch):
    """The threads in which the updates of a scheduler ran."""
    seen = []
    update = Scheduler.update
    monkeypatch.setattr(Scheduler, "update", lambda self: (seen.append(threading.current_thread()), update(self))[1])
    return seen


async def collected(chunks):
    return [chunk async for chunk in chunks]


def test_the_text_is_that_of_a_stream(model):
    """Catches: options that are not passed on, chunks lost at the end."""
    options = {"seed": 1, "temperature": 0.5, "stop": ["abcdefgh"], "threads": 1}
    chunks = asyncio.run(collected(model.astream("ab", 20_000, **options)))
    assert len(chunks) > 1
    assert "".join(chunks) == model.generate("ab", 20_000, **options)


def test_the_event_loop_goes_on(model, monkeypatch):
    """Catches: weights that are packed, or text that is generated, in the thread of the event loop."""
    free, waited = threading.Event(), []
    update, scheduler = Scheduler.update, Model.scheduler

    def after_the_loop(work):
        def wait(self, *arguments, **options):
            free.clear()
            waited.append(free.wait(20))  # only the event loop sets it
            return work(self, *arguments, **options)

        return wait

    monkeypatch.setattr(Scheduler, "update", after_the_loop(update))
    monkeypatch.setattr(Model, "scheduler", after_the_loop(scheduler))

    async def program():
        async def beat():
            while True:
                free.set()
                await asyncio.sleep(0.001)

        other = asyncio.create_task(beat())
        text = await collected(model.astream("ab", 50, seed=1))
        other.cancel()
        return "".join(text)

    assert len(asyncio.run(program())) == 50
    assert len(waited) >= 2
    assert all(waited)


def test_leaving_the_loop_ends_the_work(model, updates):
    """Catches: a thread that still generates after the reader has left the loop."""

    async def program():
        async for _ in model.astream(length=ENDLESS, seed=1):
            break
        count = len(updates)
        await asyncio.sleep(0.2)
        return count

    count = asyncio.run(program())
    assert 1 <= count == len(updates)


@pytest.mark.parametrize("prompt", ["ab", "ab" * 2_000_000])
def test_cancelling_the_task_ends_the_work(model, updates, prompt):
    """Catches: a thread that reads a long prompt to its end, or generates on, after its task was cancelled."""

    async def program():
        task = asyncio.create_task(collected(model.astream(prompt, ENDLESS, seed=1)))
        while not updates:
            await asyncio.sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        count = len(updates)
        await asyncio.sleep(0.2)
        return task.cancelled(), count

    cancelled, count = asyncio.run(program())
    assert cancelled
    assert len(updates) == count
    assert threading.main_thread() not in updates


def test_mistakes_come_at_the_call_and_errors_in_the_loop(model):
    """Catches: an error that comes only with the first chunk, and one that ends the text without a message."""
    with pytest.raises(SettingsError, match="temperature"):
        model.astream(temperature=-1)
    with pytest.raises(SettingsError, match="the prompt must be a string; got 123"):
        model.astream(123)
    model.folder.parameters["head.bias"][...] = float("nan")
    with pytest.raises(ModelError, match="no character is left to choose"):
        asyncio.run(collected(model.astream("ab", 50, seed=1)))
