"""Ideas from papers on recurrent language models, tried in PyTorch for equal steps before they are built.

    python benchmarks/plan/prototypes.py CORPUS [--idea NAME] [--steps N] [--hidden H] [--layers L] ...

Each idea is compared with `plain` for the same text, steps and settings. If an idea draws more random values, then
initial weights and masks differ, which changes a loss by some thousandths. Only min-gru has a cheaper step than
`plain`. So another idea that is not better in equal steps cannot be better in equal minutes. The last line of the
output is a JSON object. It has the nats per token of the last weights over the whole validation split.

Shapes: B sequences side by side, T characters, E embedding, H hidden, V vocabulary size, L layers.
"""

from __future__ import annotations

import argparse
import copy
import json
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from charloom.config import TrainingSettings
from charloom.data.batches import StreamBatches
from charloom.data.corpus import open_corpus
from charloom.data.groups import NOTHING
from charloom.data.ids import Ids
from charloom.training.budget import learning_rate

BATCH, LENGTH, EMBEDDING = 32, 64, 64
State = tuple[Tensor, ...]

IDEAS = {
    "plain": "an LSTM with locked masks and weight drop, as in charloom",
    "average": "an exponential mean of the weights over the steps, with factor 0.995 (EMA)",
    "average-long": "the same with factor 0.999",
    "tail": "the mean of the weights over the last tenth of the steps",
    "embedding-drop": "the embeddings of a tenth of the tokens are zero in a step (Gal and Ghahramani 2016)",
    "activation": "penalties on outputs (2) and on their change per time step (1) (Merity, McCann and Socher 2017)",
    "reset": "in each step, one sequence in a hundred starts from the zero state (Merity, Keskar and Socher 2018)",
    "sum": "the head reads the sum of the outputs of all layers",
    "residual": "each layer but the first adds its input to its output",
    "layer-norm": "input sums, recurrent sums and cell are normalised (Ba, Kiros and Hinton 2016)",
    "mogrifier": "input and state gate each other twice before each time step (Melis, Kocisky and Blunsom 2020)",
    "min-gru": "the gates read only the input (Feng et al. 2024); layers have residual connections",
}
AVERAGES = {"average": 0.995, "average-long": 0.999}


class Lstm(nn.Module):
    """One layer. drop: the share of recurrent weights that is dropped."""

    def __init__(self, inputs: int, hidden: int, norm: bool, rounds: int) -> None:
        super().__init__()
        self.inputs, self.hidden = inputs, hidden
        self.w_GX = nn.Parameter(glorot(4, hidden, inputs))
        self.w_GH = nn.Parameter(torch.cat([orthogonal(hidden) for _ in range(4)]))
        self.bias_G = nn.Parameter(torch.tensor([0.0, 1.0, 0.0, 0.0]).repeat_interleave(hidden))
        sizes = (4 * hidden, 4 * hidden, hidden) if norm else ()
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in sizes)
        self.rounds = nn.ModuleList(nn.Linear(*self._round(n)) for n in range(rounds))

    def _round(self, n: int) -> tuple[int, int]:
        return (self.inputs, self.hidden) if n % 2 else (self.hidden, self.inputs)

    def forward(self, x_BTX: Tensor, state: State | None, drop: float) -> tuple[Tensor, State]:
        """(outputs, state after the last step)."""
        h_BH, c_BH = state or (x_BTX.new_zeros(len(x_BTX), self.hidden),) * 2
        w_GH = functional.dropout(self.w_GH, drop, self.training)
        sums_BTG = None if self.rounds else self._norm(0, x_BTX @ self.w_GX.T) + self.bias_G
        out: list[Tensor] = []
        for t in range(x_BTX.shape[1]):
            if sums_BTG is None:
                x_BX, h_BH = self._mogrify(x_BTX[:, t], h_BH)
                sums_BG = self._norm(0, x_BX @ self.w_GX.T) + self.bias_G
            else:
                sums_BG = sums_BTG[:, t]
            i, f, g, o = (sums_BG + self._norm(1, h_BH @ w_GH.T)).chunk(4, 1)
            c_BH = f.sigmoid() * c_BH + i.sigmoid() * g.tanh()
            h_BH = o.sigmoid() * self._norm(2, c_BH).tanh()
            out.append(h_BH)
        return torch.stack(out, 1), (h_BH, c_BH)

    def _norm(self, n: int, x: Tensor) -> Tensor:
        return self.norms[n](x) if self.norms else x

    def _mogrify(self, x_BX: Tensor, h_BH: Tensor) -> tuple[Tensor, Tensor]:
        for n, gate in enumerate(self.rounds):
            if n % 2:
                h_BH = 2 * gate(x_BX).sigmoid() * h_BH
            else:
                x_BX = 2 * gate(h_BH).sigmoid() * x_BX
        return x_BX, h_BH


class MinGru(nn.Module):
    """One layer: h = (1 - z) h + z g, where z and g depend on the input alone."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.w_GX = nn.Parameter(glorot(2, hidden, inputs))
        self.bias_G = nn.Parameter(torch.tensor([-1.0, 0.0]).repeat_interleave(hidden))

    def forward(self, x_BTX: Tensor, state: State | None, drop: float) -> tuple[Tensor, State]:
        """(outputs, state after the last step)."""
        (h_BH,) = state or (x_BTX.new_zeros(len(x_BTX), self.hidden),)
        w_GX = functional.dropout(self.w_GX, drop, self.training)
        z_BTH, g_BTH = (x_BTX @ w_GX.T + self.bias_G).chunk(2, 2)
        z_BTH = z_BTH.sigmoid()
        out: list[Tensor] = []
        for z_BH, g_BH in zip(z_BTH.unbind(1), g_BTH.unbind(1), strict=True):
            h_BH = h_BH + z_BH * (g_BH - h_BH)
            out.append(h_BH)
        return torch.stack(out, 1), (h_BH,)


class Network(nn.Module):
    """Embedding, layers, head, and the ideas that do not belong to a cell."""

    def __init__(self, tokens: int, options: argparse.Namespace) -> None:
        super().__init__()
        self.options, self.idea, hidden = options, options.idea, options.hidden
        self.embedding = nn.Embedding(tokens, EMBEDDING)
        self.layers = nn.ModuleList(self._layer(hidden if n else EMBEDDING) for n in range(options.layers))
        self.head = nn.Linear(hidden, tokens)
        self.head.weight.data = glorot(1, tokens, hidden)
        self.head.bias.data.zero_()

    def _layer(self, inputs: int) -> nn.Module:
        if self.idea == "min-gru":
            return MinGru(inputs, self.options.hidden)
        return Lstm(inputs, self.options.hidden, self.idea == "layer-norm", 2 * (self.idea == "mogrifier"))

    def forward(self, ids_BT: Tensor, states: list[State] | None) -> tuple[Tensor, list[State], Tensor]:
        """(logits, states, penalty)."""
        weight = self.embedding.weight
        if self.idea == "embedding-drop":
            weight = weight * functional.dropout(torch.ones(len(weight), 1), 0.1, self.training)
        x_BTX, penalty = functional.embedding(ids_BT, weight), torch.zeros(())
        after, outs = list[State](), list[Tensor]()
        for n, layer in enumerate(self.layers):
            out_BTH, state = layer(x_BTX, states and states[n], self.options.weight_drop)
            if self.idea == "activation" and self.training:
                penalty = 1.0 * (out_BTH[:, 1:] - out_BTH[:, :-1]).pow(2).mean()
            if self.idea in ("residual", "min-gru") and n:
                out_BTH = out_BTH + x_BTX
            x_BTX = self._drop(out_BTH)
            after.append(tuple(part.detach() for part in state))
            outs.append(x_BTX)
        if self.idea == "activation" and self.training:
            penalty = penalty + 2.0 * x_BTX.pow(2).mean()
        return self.head(sum(outs) if self.idea == "sum" else x_BTX), after, penalty

    def _drop(self, out_BTH: Tensor) -> Tensor:
        """Locked dropout: the same units at every character of a row."""
        return out_BTH * functional.dropout(torch.ones_like(out_BTH[:, :1]), self.options.dropout, self.training)


def glorot(gates: int, rows: int, columns: int) -> Tensor:
    """The same as in `engines/initial.py`."""
    bound = math.sqrt(6 / (rows + columns))
    return torch.empty(gates * rows, columns).uniform_(-bound, bound)


def orthogonal(size: int) -> Tensor:
    """The same as in `engines/initial.py`."""
    q, r = torch.linalg.qr(torch.randn(size, size))
    signed: Tensor = q * r.diagonal().sign()
    return signed


def main() -> None:
    """Trains and measures one idea, and prints the result."""
    options = parsed()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    text = open_corpus(options.corpus).text()
    tokens = sorted(set(text))
    ids_of = {token: number for number, token in enumerate(tokens)}
    ids = np.array([ids_of[token] for token in text])
    seen, unseen = ids[: len(ids) * 9 // 10], ids[len(ids) * 9 // 10 :]
    network = Network(len(tokens), options)
    averaged, nats = train(network, StreamBatches(Ids.of(seen), BATCH, LENGTH), options)
    result = {"idea": options.idea, "parameters": sum(parameter.numel() for parameter in network.parameters())}
    result |= {"validation_nats": measure(averaged, unseen), "train_nats": nats, "steps": options.steps}
    print(json.dumps(result))


def parsed() -> argparse.Namespace:
    """The settings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus")
    parser.add_argument("--idea", choices=IDEAS, default="plain")
    for name, default in (("steps", 1500), ("hidden", 256), ("layers", 1), ("seed", 0), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, value in (("dropout", 0.5), ("weight-drop", 0.3), ("lr", 0.01)):
        parser.add_argument(f"--{name}", type=float, default=value)
    return parser.parse_args()


def train(network: Network, streams: StreamBatches, options: argparse.Namespace) -> tuple[Network, float]:
    """The network to measure, and the mean loss of the last tenth of training."""
    matrices = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    settings = TrainingSettings(steps=options.steps, lr=options.lr)
    states: list[State] | None = None
    averaged, summed, last = copy.deepcopy(network), 0, []
    for step in range(options.steps):
        index = step % len(streams)
        inputs_BT, targets_BT = (torch.from_numpy(part) for part in streams.batch(step // len(streams), index))
        if index == 0 or (states and states[0][0].shape[0] != len(inputs_BT)):
            states = None
        if options.idea == "reset" and states:
            kept_B1 = (torch.rand(len(inputs_BT), 1) >= 0.01).float()
            states = [tuple(part * kept_B1 for part in state) for state in states]
        logits_BTV, states, penalty = network(inputs_BT, states)
        loss = cross_entropy(logits_BTV, targets_BT) / (targets_BT != NOTHING).sum()
        optimizer.zero_grad()
        (loss + penalty).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step / options.steps)
        optimizer.step()
        late = step >= options.steps * 9 // 10
        last += [loss.item()] if late else []
        if options.idea == "tail" and late:
            summed += 1
            mix(averaged, network, 1 / summed)
        elif options.idea in AVERAGES:
            mix(averaged, network, max(1 - AVERAGES[options.idea], 1 / (step + 1)))
    return averaged if options.idea == "tail" or options.idea in AVERAGES else network, sum(last) / len(last)


def cross_entropy(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """The sum of nats over all targets."""
    rows, targets = logits_BTV.flatten(0, 1), targets_BT.flatten()
    return functional.cross_entropy(rows, targets, ignore_index=NOTHING, reduction="sum")


def mix(averaged: Network, network: Network, share: float) -> None:
    """Moves the averaged weights towards the network's by this share."""
    with torch.no_grad():
        for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
            mean.lerp_(value, share)


@torch.no_grad()
def measure(network: Network, ids: np.ndarray) -> float:
    """Nats per token over the whole text, in streams with the state carried."""
    network.eval()
    total, count, states = 0.0, 0, None
    streams = StreamBatches(Ids.of(ids), 8, LENGTH)
    for index in range(len(streams)):
        inputs_BT, targets_BT = (torch.from_numpy(part) for part in streams.batch(0, index))
        if states and states[0][0].shape[0] != len(inputs_BT):
            states = [tuple(part[: len(inputs_BT)] for part in state) for state in states]
        logits_BTV, states, _ = network(inputs_BT, states)
        total += cross_entropy(logits_BTV, targets_BT).item()
        count += int((targets_BT != NOTHING).sum())
    return total / count


if __name__ == "__main__":
    main()
