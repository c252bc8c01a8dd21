"""The static score of each token, against a loop in PyTorch; an engine for each thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from charloom.data.vocabulary import RECORD_SEPARATOR, Vocabulary
from charloom.evaluation import static
from charloom.evaluation.engine import open_evaluation_engine
from charloom.evaluation.text import encoded
from charloom.model import Model

pytestmark = pytest.mark.processor

LETTERS = Vocabulary("characters", tuple("\n abcd"))
RECORDS = Vocabulary("characters", tuple("abcd"), separator=True)
RECORD_TEXT = RECORD_SEPARATOR.join(["ab", "abcdabcdaabbccdd" * 3, "c", "dd", "abc", "d" * 25, "a", "bb"])


def nats_by_pytorch(folder, ids, resets):
    """(nats, top guesses) of each token after the first, one step after the other, in float64."""
    torch = pytest.importorskip("torch")
    sizes, weights = folder.architecture, {n: torch.tensor(p).double() for n, p in folder.parameters.items()}
    network = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[sizes.cell]
    network = network(sizes.embedding, sizes.hidden, sizes.layers).double()
    network.load_state_dict({n.removeprefix("rnn."): w for n, w in weights.items() if n.startswith("rnn.")})
    state, nats, correct = None, [], []
    with torch.no_grad():
        for before, after in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True):
            state = None if before == resets else state
            out, state = network(weights["embedding.weight"][before][None, None], state)
            log_p = torch.log_softmax(out[0, 0] @ weights["head.weight"].T + weights["head.bias"], 0)
            nats.append(-log_p[after].item())
            correct.append(log_p.argmax().item() == after)
    return np.array(nats), np.array(correct)


@pytest.mark.parametrize("block", [3, static.BLOCK])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize(
    ("vocabulary", "text", "keep_order"),
    [(LETTERS, "abcd dcba\nab " * 9, True), (RECORDS, RECORD_TEXT, True), (RECORDS, RECORD_TEXT, False)],
    ids=["text", "records in order", "independent records"],
)
def test_targets_are_those_of_a_loop_in_pytorch(monkeypatch, random_folder, block, cell, vocabulary, text, keep_order):
    """Catches a state that is lost or kept where it must not be, records out of order, and a target off by one."""
    monkeypatch.setattr(static, "BLOCK", block)
    folder = random_folder(vocabulary, cell, keep_order=keep_order, records="none" if keep_order else "line")
    ids = encoded(folder, text, "error").ids_T
    expected, top = nats_by_pytorch(folder, ids, None if keep_order else vocabulary.separator_id)
    blocks = [*static.targets(open_evaluation_engine(folder), ids, folder.reset_id)]
    assert [len(nats_N) for nats_N, _ in blocks[:-1]] == [block] * (len(blocks) - 1)
    np.testing.assert_allclose(np.concatenate([nats_N for nats_N, _ in blocks]), expected, atol=2e-5)
    np.testing.assert_array_equal(np.concatenate([correct_N for _, correct_N in blocks]), top)
    score = Model(folder).score(text)
    assert (score.nats, score.correct) == (pytest.approx(expected.sum(), rel=1e-5), top.sum())


def test_records_of_one_call_are_alike_and_few():
    """Catches a block of padding: one long record beside many short ones, and more rows than memory has."""
    parts = [(0, 1), (1, 3), (3, static.BLOCK), (static.BLOCK, static.BLOCK + 2)]
    groups = [*static._alike(parts)]
    assert sorted(part for group in groups for part in group) == parts
    assert [len(group) for group in groups] == [3, 1]


def test_threads_share_a_model(random_folder):
    """Catches two threads in the buffers of one engine: a score of both texts mixed, or a crash."""
    model, texts = Model(random_folder(LETTERS)), [f"{letter} ab" * 3000 for letter in "abcd"] * 4
    expected = [model.score(text) for text in texts]
    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(model.score, texts)] == expected
