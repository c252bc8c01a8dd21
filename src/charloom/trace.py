"""A trace: named arrays of what a network computes while it reads a text, and the gradient of one loss.

Step t reads token t and predicts token t + 1. The first step starts from the zero state. A model of records reads a
separator first. With independent records, every separator is read from the zero state.

The forward and backward passes are those of the NumPy engine (`charloom.engines.numpy`).

Shapes: T steps, N predictions whose next token is known, V vocabulary size, L layers, H hidden units, W steps of a
window, X input features of a token (embedding size, V for one-hot, 1 for scalar).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charloom.architecture import Architecture
from charloom.cells import Floats, Integers
from charloom.checkpoint import ModelFolder
from charloom.data.groups import NOTHING
from charloom.data.vocabulary import Vocabulary
from charloom.engines.numpy import linear
from charloom.engines.numpy.gru import GruActivations
from charloom.engines.numpy.lstm import LstmActivations
from charloom.engines.numpy.network import ForwardPass, NumpyNetwork
from charloom.engines.numpy.rnn import RnnActivations
from charloom.errors import SettingsError, TextError

MOST_NUMBERS = 2**26
"""Most numbers of a trace or of a chunk: 256 MiB in float32. The process needs 2.5 times this memory while it computes
them, and 4.5 times with the gradients of all steps.
"""


class RnnTrace(NamedTuple):
    """A simple recurrent layer: h_t after every step."""

    hidden_TH: Floats


class LstmTrace(NamedTuple):
    """An LSTM layer: i, f, g, o, c and h of every step (equations: `charloom.cells.lstm_step`).

    Gates are from 0 to 1, the candidate and h from -1 to 1. The cell state is not bounded, except with a capped input
    gate, whose values after the cap are here: it then moves to ±1 or stays within.
    """

    input_gate_TH: Floats
    forget_gate_TH: Floats
    candidate_TH: Floats
    output_gate_TH: Floats
    cell_TH: Floats
    hidden_TH: Floats


class GruTrace(NamedTuple):
    """A GRU layer: r, z, n and h of every step (equations: `charloom.cells.gru_step`).

    Gates are from 0 to 1, the candidate and h from -1 to 1. An update gate near 1 keeps the old state.
    """

    reset_gate_TH: Floats
    update_gate_TH: Floats
    candidate_TH: Floats
    hidden_TH: Floats


LayerTrace = RnnTrace | LstmTrace | GruTrace
LAYERS: dict[str, type[LayerTrace]] = {"rnn": RnnTrace, "lstm": LstmTrace, "gru": GruTrace}


@dataclass(frozen=True, eq=False)
class Gradients:
    """The gradient of the loss of step `step`: -ln p of the next token, in nats.

    Row w belongs to step `first + w`; the last row belongs to `step` itself. A gradient with respect to h_t or c_t
    includes every path to the loss, through the layers above and through later steps. A gradient that exceeds the
    largest float is inf or nan.

    inputs_WX: with respect to the input features of each token; hidden_LWH: to h_t of every layer; cell_LWH: to c_t of
    every LSTM layer; None for other cells.
    """

    step: int
    first: int
    inputs_WX: Floats
    hidden_LWH: Floats
    cell_LWH: Floats | None


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """Everything that a network computes at T consecutive steps.

    first: the number of the first step, which is 0 except in later chunks; tokens: what each step reads: a character,
    `<0xE2>` for a byte that is not ASCII, `<separator>` or `<unknown>`; ids_T: their ids; layers: from the bottom layer
    to the top; logits_TV, probabilities_TV: of the token after each step; nats_N: -ln p of the actual next token. The
    last step of a text has no next token. So N is T - 1 for a whole text and for the last chunk, and T for other
    chunks.
    """

    first: int
    tokens: tuple[str, ...]
    ids_T: Integers
    layers: tuple[LayerTrace, ...]
    logits_TV: Floats
    probabilities_TV: Floats
    nats_N: Floats
    gradients: Gradients | None = None

    def __repr__(self) -> str:
        """The size and the names of the arrays, in one line."""
        further = "" if self.gradients is None else f"; gradients of step {self.gradients.step:,}"
        return (
            f"<charloom.Trace: {len(self.ids_T):,} steps from step {self.first:,}; layers: {len(self.layers)}, each "
            f"with {', '.join(self.layers[0]._fields)}; logits_TV, probabilities_TV, nats_N{further}>"
        )

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name, such as `logits_TV`, `layers.0.hidden_TH` and `gradients.inputs_WX`."""
        names = ("ids_T", "logits_TV", "probabilities_TV", "nats_N")
        found: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in names}
        for n, layer in enumerate(self.layers):
            found |= {f"layers.{n}.{name}": array for name, array in layer._asdict().items()}
        if self.gradients is not None:
            values = vars(self.gradients).items()
            found |= {f"gradients.{name}": value for name, value in values if isinstance(value, np.ndarray)}
        return found

    def to_json(self) -> dict[str, Any]:
        """The arrays for `json.dumps`, under the names of `arrays`: nested lists, with null for inf and nan."""
        found: dict[str, Any] = {"first": self.first, "tokens": list(self.tokens)}
        if self.gradients is not None:
            found |= {"gradients.step": self.gradients.step, "gradients.first": self.gradients.first}
        return found | {name: _finite(array).tolist() for name, array in self.arrays.items()}


def _finite(array: NDArray[Any]) -> NDArray[Any]:
    """Python numbers, with None for inf and nan."""
    values = array.astype(object)
    values[~np.isfinite(array)] = None
    return values


def trace(folder: ModelFolder, ids_T: Integers, gradients_of: int | None = None, window: int | None = None) -> Trace:
    """The trace of a whole text: see `charloom.model.Model.trace`."""
    most = most_steps(folder.architecture, MOST_NUMBERS)
    if not 1 <= len(ids_T) <= most:
        raise TextError(
            f"a text to trace must hold from 1 to {most:,} tokens with this model; found {len(ids_T):,}"
            + ("; `trace_chunks` traces a text of any length" if len(ids_T) else "")
        )
    _check_gradients(len(ids_T), gradients_of, window)
    (whole,) = _chunks(folder, ids_T, len(ids_T))
    return whole if gradients_of is None else replace(whole, gradients=_gradients(folder, ids_T, gradients_of, window))


def trace_chunks(folder: ModelFolder, ids_T: Integers, chunk: int) -> Iterator[Trace]:
    """The trace of a whole text in chunks of `chunk` steps: see `charloom.model.Model.trace_chunks`."""
    most = most_steps(folder.architecture, MOST_NUMBERS)
    if not (type(chunk) is int and 1 <= chunk <= most):
        raise SettingsError(f"`chunk` must be from 1 to {most:,} steps with this model; got {chunk!r}")
    return _chunks(folder, ids_T, chunk)


def most_steps(architecture: Architecture, numbers: int) -> int:
    """The number of steps whose arrays have at most this many numbers; at least 1."""
    of_layers = architecture.layers * len(LAYERS[architecture.cell]._fields) * architecture.hidden
    return max(1, numbers // (of_layers + 2 * architecture.vocabulary_size))


def _check_gradients(steps: int, gradients_of: int | None, window: int | None) -> None:
    if gradients_of is None and window is not None:
        raise SettingsError("`window` needs `gradients_of`, the step whose loss has the gradients")
    if gradients_of is not None and not (_is_count(gradients_of) and gradients_of < steps - 1):
        raise SettingsError(
            "`gradients_of` must be a step whose next token is in the text; this text has "
            f"{f'steps 0 to {steps - 2}' if steps > 1 else 'none'}; got {gradients_of!r}",
        )
    if window is not None and not _is_count(window):
        raise SettingsError(f"`window` must be a number of steps, 0 or more; got {window!r}")


def _is_count(value: object) -> bool:
    """Whether it is an integer of at least 0, of Python or NumPy: `nats_N.argmax()` is a valid step."""
    return isinstance(value, int | np.integer) and bool(value >= 0)


def _chunks(folder: ModelFolder, ids_T: Integers, chunk: int) -> Iterator[Trace]:
    network, state = NumpyNetwork(folder.architecture, folder.parameters), None
    names = _names(folder.vocabulary)
    # The head computes probabilities only for steps with a target. The last step's target has no meaning.
    targets_T = np.roll(ids_T, -1)
    for first in range(0, len(ids_T), chunk):
        passes: list[ForwardPass] = []
        for start, stop in pairwise(_cuts(ids_T, first, chunk, folder.reset_id)):
            state = None if ids_T[start] == folder.reset_id else state
            passes.append(network.forward(ids_T[None, start:stop], targets_T[None, start:stop], state))
            state = passes[-1].state
        yield _trace(network, names, first, ids_T, passes)


def _cuts(ids_T: Integers, first: int, chunk: int, reset_id: int | None) -> list[int]:
    """The bounds of the passes in a chunk. A token that is read from the zero state begins a pass."""
    stop = min(first + chunk, len(ids_T))
    return sorted({first, *(first + _resets(ids_T[first:stop], reset_id)).tolist(), stop})


def _resets(ids_T: Integers, reset_id: int | None) -> Integers:
    """The steps that start from the zero state."""
    return np.flatnonzero(ids_T == (-1 if reset_id is None else reset_id))


def _trace(network: NumpyNetwork, names: list[str], first: int, ids_T: Integers, passes: list[ForwardPass]) -> Trace:
    """The arrays of consecutive passes as one trace."""
    head = network.parameters["head.weight"], network.parameters["head.bias"]
    nats_T = np.concatenate([done.nats_N for done in passes])
    here_T = ids_T[first : first + len(nats_T)].astype(np.intp)
    return Trace(
        first=first,
        tokens=tuple(names[token] for token in here_T),
        ids_T=here_T,
        layers=tuple(_layer([done.layers[n] for done in passes]) for n in range(network.architecture.layers)),
        logits_TV=np.concatenate([linear.forward(done.head.x_NH, *head) for done in passes]),
        probabilities_TV=np.concatenate([done.head.probabilities_NV for done in passes]),
        nats_N=nats_T[: len(ids_T) - 1 - first],
    )


def _layer(saved: list[RnnActivations] | list[LstmActivations] | list[GruActivations]) -> LayerTrace:
    """The arrays of a layer, from the saved activations of consecutive passes."""
    hidden_TH = np.concatenate([each.hidden[1:, 0] for each in saved])
    if isinstance(saved[0], RnnActivations):
        return RnnTrace(hidden_TH)
    if isinstance(saved[0], GruActivations):
        r_TH, z_TH, n_TH = np.concatenate([each.gates_T3BH[:, :, 0] for each in saved]).swapaxes(0, 1)
        return GruTrace(r_TH, z_TH, n_TH, hidden_TH)
    i_TH, f_TH, g_TH, o_TH = np.concatenate([each.gates_T4BH[:, :, 0] for each in saved]).swapaxes(0, 1)
    return LstmTrace(i_TH, f_TH, g_TH, o_TH, np.concatenate([each.cell[1:, 0] for each in saved]), hidden_TH)


def _gradients(folder: ModelFolder, ids_T: Integers, step: int, window: int | None) -> Gradients:
    """One backward pass over the window. The state before the window is a constant."""
    network = NumpyNetwork(folder.architecture, folder.parameters)
    begin = int(max(_resets(ids_T[: step + 1], folder.reset_id), default=0))
    first = begin if window is None else max(begin, step - window)
    targets_BT = np.full((1, step + 1), NOTHING)
    targets_BT[0, step] = ids_T[step + 1]
    state = network.forward(ids_T[None, begin:first], targets_BT[:, begin:first]).state if first > begin else None
    done = network.forward(ids_T[None, first : step + 1], targets_BT[:, first:], state)
    with np.errstate(over="ignore", invalid="ignore"):
        found = network.backward(done)
        inputs_WX = found.layers[0].inputs_TBG[:, 0] @ network.parameters["rnn.weight_ih_l0"]
    cells = [layer.cell_TBH[:, 0] for layer in found.layers if layer.cell_TBH is not None]
    return Gradients(
        step=int(step),
        first=int(first),
        inputs_WX=inputs_WX,
        hidden_LWH=np.stack([layer.hidden_TBH[:, 0] for layer in found.layers]),
        cell_LWH=np.stack(cells) if cells else None,
    )


def _names(vocabulary: Vocabulary) -> list[str]:
    """The name of every token by its id. All can be printed and encoded, unlike the bytes of half a character."""
    plain = list(vocabulary.characters) or [chr(byte) if byte < 128 else f"<0x{byte:02X}>" for byte in range(256)]
    return plain + ["<unknown>"] * vocabulary.unknown + ["<separator>"] * vocabulary.separator
