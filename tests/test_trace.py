"""A trace, compared with PyTorch on the parameters of a model file: every array and every gradient."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from charloom import trace as trace_module  # noqa: E402
from charloom.architecture import Architecture  # noqa: E402
from charloom.checkpoint import ModelFolder, save_model  # noqa: E402
from charloom.data.vocabulary import RECORD_SEPARATOR, Vocabulary  # noqa: E402
from charloom.errors import SettingsError, TextError, UnknownCharacterError  # noqa: E402
from charloom.model import Model  # noqa: E402

LETTERS = Vocabulary("characters", tuple("abcdefg"))
RECORDS = Vocabulary("characters", tuple("abc"), separator=True)
TEXT, STEP, WINDOW = "fabcgebda", 6, 4
CELLS = [("lstm", "tanh"), ("lstm", "capped"), ("gru", "tanh"), ("rnn", "tanh"), ("rnn", "relu")]
KINDS = [*product(CELLS, (1, 2, 3), ("embedding", "onehot", "scalar"))]
NAMES = ["-".join((*cell, str(layers), kind)) for cell, layers, kind in KINDS]
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
GATES = {
    "lstm": ("input_gate", "forget_gate", "candidate", "output_gate"),
    "gru": ("reset_gate", "update_gate", "candidate"),
    "rnn": (),
}


def make(cell=("lstm", "tanh"), layers=2, input_kind="embedding", vocabulary=LETTERS, hidden=5, **options):
    """A model whose gates are far from linear; with relu, biases that keep units active."""
    name, variant = cell
    shape = Architecture(
        cell=name,
        nonlinearity="relu" if variant == "relu" else "tanh",
        input_gate="capped" if variant == "capped" else "free",
        layers=layers,
        hidden=hidden,
        input=input_kind,
        embedding=3,
        vocabulary_size=vocabulary.size,
    )
    random = np.random.default_rng(1)
    parameters = {name: random.normal(0, 0.7, size).astype(np.float32) for name, size in shape.shapes.items()}
    if variant == "relu":
        parameters |= {name: np.abs(value) for name, value in parameters.items() if name.startswith("rnn.bias")}
    return Model(ModelFolder(shape, vocabulary, parameters, **options))


def in_float64(model):
    exact = {name: value.astype(np.float64) for name, value in model.folder.parameters.items()}
    return Model(replace(model.folder, parameters=exact))


class Judge:
    """The forward pass in PyTorch, by the equations of its documentation, with the names of a model file.

    A value of `nudges` is added to x_t (layer -1), h_t or c_t where it arises, so its gradient is that of the value.
    """

    def __init__(self, shape, parameters, ids):
        self.shape, self.parameters, self.ids = shape, parameters, ids
        self.arrays: dict[str, list] = {}

    def features(self, token):
        sizes = self.shape
        if sizes.input == "embedding":
            return self.parameters["embedding.weight"][token]
        dtype = self.parameters["head.bias"].dtype
        if sizes.input == "scalar":
            return torch.tensor([token / sizes.vocabulary_size], dtype=dtype)
        return torch.nn.functional.one_hot(torch.tensor(token), sizes.vocabulary_size).to(dtype)

    def loss(self, step, nudges):
        """-ln p of the token after a step. Stores the arrays of all steps up to that step."""
        zero = torch.zeros(self.shape.hidden, dtype=self.parameters["head.bias"].dtype)
        h, c = [zero] * self.shape.layers, [zero] * self.shape.layers
        self.arrays, losses = {}, []
        for t, token in enumerate(self.ids):
            x = self.features(token) + nudges.get(("x", -1, t), 0)
            for n in range(self.shape.layers):
                h[n], c[n] = self.cell(n, t, x, h[n], c[n], nudges)
                x = h[n]
            logits = self.parameters["head.weight"] @ x + self.parameters["head.bias"]
            self.keep("logits_TV", logits)
            self.keep("probabilities_TV", logits.softmax(0))
            if t + 1 < len(self.ids):
                losses.append(-logits.log_softmax(0)[self.ids[t + 1]])
                self.keep("nats_N", losses[-1])
        return losses[step]

    def cell(self, n, t, x, h, c, nudges):
        w, b = self.parameters[f"rnn.weight_ih_l{n}"], self.parameters[f"rnn.bias_ih_l{n}"]
        u, d = self.parameters[f"rnn.weight_hh_l{n}"], self.parameters[f"rnn.bias_hh_l{n}"]
        below, past, kind = w @ x + b, u @ h + d, self.shape.cell
        if kind == "rnn":
            h = torch.tanh(below + past) if self.shape.nonlinearity == "tanh" else torch.relu(below + past)
            gates = ()
        elif kind == "lstm":
            i, f, g, o = (below + past).chunk(4)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            gates = (torch.minimum(i, 1 - f) if self.shape.input_gate == "capped" else i, f, g, o)
            c = gates[1] * c + gates[0] * gates[2] + nudges.get(("c", n, t), 0)
            self.keep(f"layers.{n}.cell_TH", c)
            h = gates[3] * c.tanh()
        else:
            (xr, xz, xn), (hr, hz, hn) = below.chunk(3), past.chunk(3)
            r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
            gates = (r, z, (xn + r * hn).tanh())
            h = (1 - z) * gates[2] + z * h
        h = h + nudges.get(("h", n, t), 0)
        self.keep(f"layers.{n}.hidden_TH", h)
        for name, gate in zip(GATES[kind], gates, strict=True):
            self.keep(f"layers.{n}.{name}_TH", gate)
        return h, c

    def keep(self, name, value):
        self.arrays.setdefault(name, []).append(value.detach().numpy().copy())

    def places(self, steps):
        """The position of every nudge in these steps, and its size."""
        for t in steps:
            yield ("x", -1, t), self.shape.input_size
            for n in range(self.shape.layers):
                yield ("h", n, t), self.shape.hidden
                if self.shape.cell == "lstm":
                    yield ("c", n, t), self.shape.hidden


def judge_of(model, tmp_path, dtype):
    """The reference reads the parameters from the file, without the package."""
    save_model(tmp_path / "model", model.folder)
    parameters = load_file(tmp_path / "model" / "model.safetensors")
    parameters = {name: value.to(getattr(torch, dtype)) for name, value in parameters.items()}
    return Judge(model.architecture, parameters, model.vocabulary.encode(TEXT).tolist())


def row_of(gradients, place):
    kind, n, t = place
    w = t - gradients.first
    return {"x": lambda: gradients.inputs_WX[w], "h": lambda: gradients.hidden_LWH[n, w]}.get(
        kind, lambda: gradients.cell_LWH[n, w]
    )()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("cell", "layers", "input_kind"), KINDS, ids=NAMES)
def test_arrays_and_gradients_are_those_of_pytorch(tmp_path, cell, layers, input_kind, dtype):
    """Catches: gates with exchanged names, a state one step late, a gradient without a path (c_t, the layer above,
    later steps), and the loss of another step.
    """
    model = make(cell, layers, input_kind)
    judge = judge_of(model, tmp_path, dtype)
    found = (model if dtype == "float32" else in_float64(model)).trace(TEXT, gradients_of=STEP, window=WINDOW)
    steps = range(STEP - WINDOW, STEP + 1)
    nudges = {place: torch.zeros(size, dtype=getattr(torch, dtype), requires_grad=True) for place, size in
              judge.places(steps)}  # fmt: skip
    judge.loss(STEP, nudges).backward()
    arrays = {name: array for name, array in found.arrays.items() if not name.startswith("gradients.")}
    assert arrays.keys() == judge.arrays.keys() | {"ids_T"}
    assert found.ids_T.tolist() == judge.ids
    for name, values in judge.arrays.items():
        assert arrays[name].dtype == dtype, name
        np.testing.assert_allclose(
            arrays[name], np.stack(values), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], err_msg=name
        )
    gradients = found.gradients
    assert (gradients.step, gradients.first) == (STEP, STEP - WINDOW)
    assert len(gradients.inputs_WX) == gradients.hidden_LWH.shape[1] == WINDOW + 1
    for place, nudge in nudges.items():
        judged = nudge.grad.numpy()
        assert np.abs(row_of(gradients, place) - judged).max() <= TOLERANCE[dtype] * max(1, np.abs(judged).max()), place
    assert all(nudge.grad.any() for nudge in nudges.values()), "a gradient of nothing but zeros proves nothing"


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_gradients_are_slopes(tmp_path, cell):
    """Catches: a mistake that the reference also makes, because both apply the chain rule."""
    model, width = make(cell), 1e-6
    judge = judge_of(model, tmp_path, "float64")
    gradients = in_float64(model).trace(TEXT, gradients_of=STEP).gradients
    assert gradients.first == 0, "without a window, the gradients begin where the text does"
    for place, size in judge.places(range(STEP + 1)):
        slopes = [
            float(judge.loss(STEP, {place: width * unit}) - judge.loss(STEP, {place: -width * unit})) / (2 * width)
            for unit in torch.eye(size, dtype=torch.float64)
        ]
        np.testing.assert_allclose(row_of(gradients, place), slopes, rtol=1e-5, atol=1e-8, err_msg=str(place))


@pytest.mark.parametrize("cell", [cell for cell in CELLS if "capped" not in cell], ids="-".join)
def test_pytorchs_own_modules_agree(tmp_path, cell):
    """Catches: the same mistake in the equations of the reference and of the trace."""
    model = make(cell, layers=3)
    parameters = judge_of(model, tmp_path, "float32").parameters
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[cell[0]]
    options = {"nonlinearity": cell[1]} if cell[0] == "rnn" else {}
    network = torch.nn.ModuleDict(
        {"embedding": torch.nn.Embedding(7, 3), "rnn": kind(3, 5, 3, **options), "head": torch.nn.Linear(5, 7)}
    )
    network.load_state_dict(parameters)
    hidden, _ = network["rnn"](network["embedding"](torch.tensor(model.vocabulary.encode(TEXT).tolist())))
    found = model.trace(TEXT)
    np.testing.assert_allclose(found.layers[-1].hidden_TH, hidden.detach(), atol=1e-5)
    np.testing.assert_allclose(found.logits_TV, network["head"](hidden).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (make(), "abcdefgfedcba"),
        (make(vocabulary=Vocabulary("bytes")), "a → ü"),
        (make(vocabulary=Vocabulary("bytes", binary=True)), "a\udcff\udc80"),
        (make(vocabulary=RECORDS), f"ab{RECORD_SEPARATOR}ccb"),
        (make(vocabulary=RECORDS, keep_order=False), f"ab{RECORD_SEPARATOR}ccb{RECORD_SEPARATOR}"),
    ],
    ids=["characters", "bytes", "binary", "records", "independent"],
)
def test_the_losses_are_those_of_the_score(model, text):
    """Catches: another first state or separator than in `score`, and a loss at a wrong token."""
    found, score = model.trace(text), model.score(text)
    assert len(found.nats_N) == score.tokens == len(found.tokens) - 1
    assert found.nats_N.sum() == pytest.approx(score.nats, rel=1e-5)
    p = found.probabilities_TV[np.arange(score.tokens), found.ids_T[1:]]
    np.testing.assert_allclose(found.nats_N, -np.log(p), rtol=1e-4)


def test_independent_records_start_anew():
    """Catches: a state carried over a separator, and a gradient that reaches back over one."""
    text = f"ab{RECORD_SEPARATOR}ccb"
    carried, anew = (make(vocabulary=RECORDS, keep_order=keep_order) for keep_order in (True, False))
    alone = anew.trace("ccb", gradients_of=2)
    found = anew.trace(text, gradients_of=5)
    assert found.tokens == ("<separator>", "a", "b", "<separator>", "c", "c", "b")
    np.testing.assert_allclose(found.logits_TV[3:], alone.logits_TV, rtol=1e-5, atol=1e-6)
    assert (alone.gradients.first, found.gradients.first) == (0, 3)
    np.testing.assert_allclose(found.gradients.cell_LWH, alone.gradients.cell_LWH, rtol=1e-5, atol=1e-6)
    assert np.abs(carried.trace(text).logits_TV[3:] - alone.logits_TV).max() > 0.01
    assert carried.trace(text, gradients_of=5).gradients.first == 0


@pytest.mark.parametrize("chunk", [1, 3, 4, 100])
@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_chunks_are_the_whole(cell, chunk):
    """Catches: a state lost between chunks, a loss lost or counted twice there, a separator at the edge of a chunk."""
    model = make(cell, vocabulary=RECORDS, keep_order=False)
    text = f"abcab{RECORD_SEPARATOR}ccbabb{RECORD_SEPARATOR}a"
    whole, chunks = model.trace(text), [*model.trace_chunks(text, chunk)]
    assert [part.first for part in chunks] == [*range(0, len(whole.tokens), chunk)]
    assert sum((part.tokens for part in chunks), ()) == whole.tokens
    for name, array in whole.arrays.items():
        joined = np.concatenate([part.arrays[name] for part in chunks])
        np.testing.assert_allclose(joined, array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_one_character_has_a_prediction_and_no_loss():
    """Catches: a page that shows nothing before a second character is typed."""
    found = make().trace("a")
    assert (found.probabilities_TV.shape, found.nats_N.shape) == ((1, 7), (0,))
    assert make(vocabulary=RECORDS).trace("").tokens == ("<separator>",)


def test_json_holds_everything():
    """Catches: a missing array, a NumPy number, and a token that cannot be encoded."""
    model = make(vocabulary=Vocabulary("bytes", separator=True, binary=True))
    found = model.trace(f"é\udcff{RECORD_SEPARATOR}a\n", gradients_of=np.int64(2))
    read = json.loads(json.dumps(found.to_json(), allow_nan=False, ensure_ascii=False).encode())
    assert read["tokens"] == ["<separator>", "<0xC3>", "<0xA9>", "<0xFF>", "<separator>", "a", "\n"]
    assert (read["first"], read["gradients.step"], read["gradients.first"]) == (0, 2, 0)
    assert {"layers.1.forget_gate_TH", "gradients.cell_LWH"} < found.arrays.keys()
    for name, array in found.arrays.items():
        np.testing.assert_array_equal(np.array(read[name], array.dtype), array, err_msg=name)


def test_a_gradient_that_explodes_is_not_a_warning():
    """Catches: a RuntimeWarning of NumPy, and JSON with NaN, which browsers refuse."""
    folder = make(("rnn", "tanh"), layers=1).folder
    silent = {name: np.zeros_like(value) for name, value in folder.parameters.items() if name.startswith("rnn.")}
    tripled = silent | {"rnn.weight_hh_l0": 3 * np.eye(5, dtype=np.float32)}  # h is 0, and its gradient grows by 3
    found = Model(replace(folder, parameters=folder.parameters | tripled)).trace("a" * 102, gradients_of=100)
    assert not np.isfinite(found.gradients.hidden_LWH[0, 0]).any()
    read = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert read["gradients.hidden_LWH"][0][0] == [None] * 5


def test_a_text_that_is_too_long_is_refused_before_it_is_read(monkeypatch):
    """Catches: a process that the system kills for its memory."""
    model = make()  # 74 numbers a step: 2 layers of 6 x 5, and 2 x 7
    monkeypatch.setattr(trace_module, "MOST_NUMBERS", 10 * 74 + 1)
    assert len(model.trace("a" * 10).tokens) == 10
    message = (
        "a text to trace must hold from 1 to 10 tokens with this model; found 11; `trace_chunks` traces a text of "
    )
    with pytest.raises(TextError, match=message):
        model.trace("a" * 11)
    with pytest.raises(TextError, match=r"must hold from 1 to 10 tokens with this model; found 0$"):
        model.trace("")
    assert len([*model.trace_chunks("a" * 25, 10)]) == 3
    for chunk in (0, 11, "9"):
        with pytest.raises(SettingsError, match="`chunk` must be from 1 to 10 steps with this model; got"):
            model.trace_chunks("a", chunk)


def test_chunks_need_no_memory_for_the_text():
    """Catches: chunks that all stay in memory."""
    model, text = make(vocabulary=Vocabulary("bytes"), hidden=16), "a" * 4000
    tracemalloc.start()
    for _ in model.trace_chunks(text, 100):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4000 * 2 * 256 * 4 / 4, "a quarter of the probabilities and logits of all steps"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradients_of": 3}, "`gradients_of` must be a step .* this text has steps 0 to 2; got 3"),
        ({"gradients_of": -1}, "`gradients_of` must be .* got -1"),
        ({"gradients_of": "b"}, "`gradients_of` must be .* got 'b'"),
        ({"gradients_of": 1, "window": -1}, "`window` must be a number of steps, 0 or more; got -1"),
        ({"window": 5}, "`window` needs `gradients_of`"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(options, message):
    """Catches: a traceback of NumPy, and a negative step that counts from the end."""
    with pytest.raises(SettingsError, match=message):
        make().trace("abcd", **options)


def test_an_unknown_character_is_named():
    """Catches: a policy that is not passed on."""
    with pytest.raises(UnknownCharacterError, match="'z'"):
        make().trace("abz")
    assert make().trace("abz", unknown="skip").tokens == ("a", "b")


def test_a_model_is_loaded_without_an_engine():
    """Catches: an import for traces that delays every start."""
    code = "import sys, charloom.model; print([name for name in sys.modules if name.startswith('charloom.engines')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_what_a_session_shows_is_short():
    """Catches a trace or a model folder that fills the screen of an interactive session with its arrays."""
    model = make(("gru", "tanh"))
    assert repr(model.trace(TEXT, gradients_of=STEP)) == (
        "<charloom.Trace: 9 steps from step 0; layers: 2, each with reset_gate_TH, update_gate_TH, candidate_TH, "
        "hidden_TH; logits_TV, probabilities_TV, nats_N; gradients of step 6>"
    )
    assert len(repr(model.folder)) < 500
