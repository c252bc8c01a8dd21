"""The server that a user of PyTorch would write: FastAPI around a loop over `nn.LSTM`. `serving.py` compares with it.

    PYTHONPATH=benchmarks python benchmarks/web/by_hand.py MODEL [--batched] [--port 8000]

Without `--batched`, it answers one request at a time. With it, a thread takes all requests that wait, generates the
longest length for all of them in one batch, and then takes the next ones. Prompts of a batch must have equal lengths.
"""

from __future__ import annotations

import argparse
import asyncio
import queue
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from charloom.checkpoint import ModelFolder, load_model

TEMPERATURE = 0.8
COLLECT_SECONDS = 0.02  # a batch waits so long for further requests
LARGEST_BATCH = 64


class Ask(BaseModel):
    """The body of a request."""

    prompt: str
    max_tokens: int


class Network(torch.nn.Module):
    """The network of a model folder, in PyTorch."""

    def __init__(self, folder: ModelFolder) -> None:
        super().__init__()
        made = folder.architecture
        self.embedding = torch.nn.Embedding(made.vocabulary_size, made.embedding)
        self.rnn = torch.nn.LSTM(made.embedding, made.hidden, made.layers, batch_first=True)
        self.head = torch.nn.Linear(made.hidden, made.vocabulary_size)
        self.load_state_dict({name: torch.tensor(value) for name, value in folder.parameters.items()})
        self._characters = folder.vocabulary.characters

    @torch.inference_mode()
    def generate(self, prompts: list[str], length: int) -> list[str]:
        """A text after each prompt."""
        ids_BT, state = torch.tensor([[self._characters.index(c) for c in prompt] for prompt in prompts]), None
        made = []
        for _ in range(length):
            out, state = self.rnn(self.embedding(ids_BT), state)
            shares = torch.softmax(self.head(out[:, -1]) / TEMPERATURE, dim=-1)
            ids_BT = torch.multinomial(shares, 1)
            made.append(ids_BT)
        return ["".join(self._characters[token] for token in row) for row in torch.cat(made, dim=1).tolist()]


def one_at_a_time(network: Network) -> FastAPI:
    """The simplest server."""
    app, turn = FastAPI(), threading.Lock()

    @app.post("/generate")
    def generate(ask: Ask) -> dict[str, str]:
        with turn:
            return {"text": network.generate([ask.prompt], ask.max_tokens)[0]}

    return app


def batched(network: Network) -> FastAPI:
    """The server of a user who wants more from the same network."""
    app = FastAPI()
    waiting: queue.SimpleQueue[tuple[Ask, Future[str]]] = queue.SimpleQueue()

    def work() -> None:
        while True:
            batch = [waiting.get()]
            time.sleep(COLLECT_SECONDS)
            while len(batch) < LARGEST_BATCH and not waiting.empty():
                batch.append(waiting.get())
            texts = network.generate([ask.prompt for ask, _ in batch], max(ask.max_tokens for ask, _ in batch))
            for (ask, answer), text in zip(batch, texts, strict=True):
                answer.set_result(text[: ask.max_tokens])

    @app.post("/generate")
    async def generate(ask: Ask) -> dict[str, str]:
        answer: Future[str] = Future()
        waiting.put((ask, answer))
        return {"text": await asyncio.wrap_future(answer)}

    threading.Thread(target=work, daemon=True).start()
    return app


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--batched", action="store_true")
    parser.add_argument("--port", type=int, default=8000)
    asked = parser.parse_args()
    network = Network(load_model(asked.model))
    app = batched(network) if asked.batched else one_at_a_time(network)

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok"}

    uvicorn.run(app, port=asked.port, log_level="error")


if __name__ == "__main__":
    main()
