"""A plain LSTM in PyTorch, trained for some minutes, to compare with charloom's plan in equal time.

    python benchmarks/plan/pytorch.py tiny-shakespeare [--minutes 2]

It is what somebody writes who knows the subject: `nn.LSTM` 1 x 256 with an embedding of 64, AdamW with a cosine that
ends with the time, dropout 0.2, 32 sequences x 64 characters side by side with the state carried on. It uses all cores
and bf16 if the processor multiplies it. The time includes neither the start of Python nor the last validation. The last
line of the output is a JSON object. It has the nats per character over the whole validation split.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from charloom.config import TrainingSettings
from charloom.data.batches import StreamBatches
from charloom.data.corpus import open_corpus
from charloom.data.ids import Ids
from charloom.engines.torch.device import trains_in_bf16
from charloom.training.budget import learning_rate

BATCH, LENGTH, EMBEDDING, HIDDEN, DROPOUT, RATE, DECAY = 32, 64, 64, 256, 0.2, 0.01, 0.1


class Network(nn.Module):
    """Embedding, LSTM, dropout, head."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, EMBEDDING)
        self.rnn = nn.LSTM(EMBEDDING, HIDDEN, batch_first=True)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(HIDDEN, symbols)

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The mean loss in nats, and the state after the last step."""
        out_BTH, state = self.rnn(self.embedding(inputs_BT), state)
        logits_NV = self.head(self.dropout(out_BTH)).flatten(0, 1).float()
        return functional.cross_entropy(logits_NV, targets_BT.flatten()), tuple(part.detach() for part in state)


def main() -> None:
    """Trains, validates, prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus")
    parser.add_argument("--minutes", type=float, default=2.0)
    options = parser.parse_args()
    torch.manual_seed(0)
    text = open_corpus(options.corpus).text()
    ids_of = {symbol: number for number, symbol in enumerate(sorted(set(text)))}
    ids = np.array([ids_of[symbol] for symbol in text])
    network = Network(len(ids_of))
    steps, nats = train(network, streams_of(ids[: len(ids) * 9 // 10]), 60 * options.minutes)
    result = {"validation_nats": validate(network, streams_of(ids[len(ids) * 9 // 10 :])), "train_nats": nats}
    print(json.dumps(result | {"steps": steps, "curve": []}))


def streams_of(ids: np.ndarray) -> list[tuple[Tensor, Tensor]]:
    """Whole batches of inputs and targets, in the order of the text."""
    streams = StreamBatches(Ids.of(ids), BATCH, LENGTH)
    batches = [streams.batch(0, index) for index in range(len(streams))]
    whole = [batch for batch in batches if batch[0].shape == (BATCH, LENGTH)]
    return [(torch.from_numpy(inputs_BT), torch.from_numpy(targets_BT)) for inputs_BT, targets_BT in whole]


def train(network: Network, batches: list[tuple[Tensor, Tensor]], seconds: float) -> tuple[int, float]:
    """The number of steps, and the last epoch's mean loss."""
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.99), weight_decay=DECAY, fused=True)
    settings, half = TrainingSettings(minutes=1, lr=RATE), trains_in_bf16("cpu", "lstm")
    start, step, state, losses = time.monotonic(), 0, None, list[float]()
    while (spent := (time.monotonic() - start) / seconds) < 1:
        state = state if step % len(batches) else None
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss, state = network(*batches[step % len(batches)], state)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, spent)
        optimizer.step()
        losses.append(loss.item())
        step += 1
    return step, float(np.mean(losses[-len(batches) :]))


@torch.inference_mode()
def validate(network: Network, batches: list[tuple[Tensor, Tensor]]) -> float:
    """The mean loss, with the state carried."""
    network.eval()
    state, losses = None, list[float]()
    for batch in batches:
        loss, state = network(*batch, state)
        losses.append(loss.item())
    return float(np.mean(losses))


if __name__ == "__main__":
    main()
