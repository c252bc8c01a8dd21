"""Many sequences on one backend: each gives the text that it gives alone, with any other sequences."""

from __future__ import annotations

import os
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from charloom import kernels
from charloom.architecture import Architecture
from charloom.checkpoint import ModelFolder
from charloom.data.vocabulary import Vocabulary
from charloom.errors import ModelError, QueueFullError, SettingsError
from charloom.inference import network, scheduler
from charloom.inference.numpy_backend import NumpyBackend
from charloom.inference.scheduler import Scheduler
from charloom.inference.stop_strings import StopStrings
from charloom.model import Model

pytestmark = pytest.mark.processor

EXAMPLES = int(os.environ.get("CHARLOOM_EXAMPLES", "15"))
"""Examples of the state machine for each backend and precision; CONTRIBUTING.md says when more are useful."""

LETTERS = Vocabulary("characters", tuple("\n abcdefgh"))
RECORDS = Vocabulary("characters", tuple("abcd"), unknown=True, separator=True)


def random_model(vocabulary=LETTERS, cell="lstm", layers=2, hidden=20, scale=2.0, seed=0, **options):
    made = Architecture(
        cell=cell,
        nonlinearity="tanh",
        layers=layers,
        hidden=hidden,
        input="embedding",
        embedding=4,
        vocabulary_size=vocabulary.size,
    )
    generator = np.random.default_rng(seed)
    parameters = {
        name: (scale * generator.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in made.shapes.items()
    }
    return Model(ModelFolder(made, vocabulary, parameters, **options))


@pytest.fixture(params=["numpy", "fp32", "bf16", "int8"])
def precision(request, monkeypatch):
    """The backend: NumPy, or the kernels in each precision."""
    if request.param == "numpy":
        monkeypatch.setattr(kernels, "chosen", lambda: kernels.KernelChoice("none", None, "a test"))
    elif kernels.chosen().module is None:
        pytest.skip("no kernels are in use")
    return "fp32" if request.param == "numpy" else request.param


def models():
    """Models of characters, of independent records, and of bytes."""
    return [
        random_model(),
        random_model(RECORDS, "gru", records="line", keep_order=False),
        random_model(Vocabulary("bytes"), "rnn", layers=1, scale=1.0),
    ]


OPTIONS = st.fixed_dictionaries(
    {"seed": st.integers(0, 5), "index": st.integers(0, 3)},
    optional={
        "temperature": st.sampled_from([0.3, 1.0, 2.0]),
        "top_k": st.integers(1, 5),
        "top_p": st.sampled_from([0.3, 0.9]),
        "min_p": st.sampled_from([0.05, 0.5]),
        "greedy": st.booleans(),
        "repetition_penalty": st.sampled_from([0.8, 1.5]),
        "repetition_window": st.integers(1, 20),
        "no_repeat_ngram_size": st.integers(3, 6),
        "stop": st.lists(st.text("abcdé", min_size=1, max_size=3), max_size=2),
        "length": st.integers(0, 60),
        "logprobs": st.integers(0, 6),
    },
)
LIMITS = st.fixed_dictionaries({}, optional={"tokens": st.integers(0, 40), "prompt_logprobs": st.integers(0, 3)})
"""Fields of a request that `Model.request` does not set."""
PROMPTS = st.text("abcd", max_size=4) | st.integers(1, 400).map(lambda n: ("abcdcab" * n)[:n])


def machine(precision, made, batch_of=None):  # noqa: C901 - a class of small methods
    """A state machine: requests that are added and cancelled in any order between updates."""

    class Requests(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.given = {}

        def scheduler_of(self, number, slots, threads):
            if number not in self.given:
                scheduler = made[number].scheduler(precision, threads, slots)
                if batch_of:
                    scheduler._batch = batch_of(scheduler._batch)
                self.given[number] = (scheduler, {})
            return self.given[number]

        @rule(
            number=st.integers(0, len(made) - 1),
            prompt=PROMPTS,
            options=OPTIONS,
            limits=LIMITS,
            slots=st.integers(1, 9),
            threads=st.integers(1, 2),
        )
        def submit(self, number, prompt, options, limits, slots, threads):
            scheduler, sequences = self.scheduler_of(number, slots, threads)
            request = replace(made[number].request(prompt, **{"length": 30, **options}), **limits)
            sequences[scheduler.submit(request)] = []

        @rule(data=st.data(), moment=st.sampled_from([0.0, 0.02]), reading=st.sampled_from([0.0, 0.02]))
        def update(self, data, moment, reading):
            scheduler.CHUNK_SECONDS, scheduler.READ_SECONDS = moment, reading
            scheduler.FIRST_SECONDS = min(moment, 0.002)
            for each, sequences in self.given.values():
                for output in each.update():
                    sequences[output.sequence].append(output)

        @rule(data=st.data())
        def cancel(self, data):
            if any(sequences for _, sequences in self.given.values()):
                every = [one for _, sequences in self.given.values() for one in sequences]
                data.draw(st.sampled_from(every)).cancel()

        def teardown(self):
            for number, (each, sequences) in self.given.items():
                while not each.idle:
                    for output in each.update():
                        sequences[output.sequence].append(output)
                for sequence, outputs in sequences.items():
                    self.check(number, sequence, outputs)

        def check(self, number, sequence, outputs):
            alone = [output for _, output in outputs_of(made[number], sequence.request, precision)]
            text, whole = ("".join(output.text for output in each) for each in (outputs, alone))
            logprobs, expected = (sum((output.logprobs for output in each), ()) for each in (outputs, alone))
            prompt, alike = (sum((output.prompt_logprobs for output in each), ()) for each in (outputs, alone))
            assert [output.finish_reason for output in outputs[:-1]] == [None] * (len(outputs) - 1)
            if outputs[-1].finish_reason == "cancelled":
                assert whole.startswith(text)
                assert expected[: len(logprobs)] == logprobs
                assert prompt in (alike, ())
            else:
                assert outputs[-1].finish_reason == alone[-1].finish_reason
                assert (text, logprobs, prompt) == (whole, expected, alike)

    return Requests


def outputs_of(model, request, precision):
    """The outputs of a request alone, up to an error."""
    outputs = model.run([request], precision, threads=1, slots=1)
    try:
        while (pair := next(outputs, None)) is not None:
            yield pair
    except ModelError:
        return


@pytest.fixture
def restored(monkeypatch):
    """Restores the constants that the machine changes; NumPy reads prompts in several blocks."""
    for name in ("CHUNK_SECONDS", "FIRST_SECONDS", "READ_SECONDS"):
        monkeypatch.setattr(scheduler, name, getattr(scheduler, name))
    monkeypatch.setattr(network, "BLOCK_LIMIT", 80 * 50)


RUNS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_a_sequence_is_the_same_alone_and_among_others(precision, restored):
    """Catches anything that one sequence takes from another: parameters, random numbers, state, position, time, end."""
    run_state_machine_as_test(machine(precision, models()), settings=RUNS)


class Swapped:
    """A batch in which the third of every three rows has the parameters of the second."""

    def __init__(self, batch):
        self._batch, self._rows = batch, []
        self.leave, self.decode = batch.leave, batch.decode

    def join(self, row, recent, state):
        self._rows.append(row)
        taken = self._rows[-2] if len(self._rows) % 3 == 0 else row
        self._batch.join(taken, recent, state)


def test_the_state_machine_sees_two_rows_whose_parameters_are_swapped(precision, restored):
    """Catches a state machine that finds no errors."""
    found = settings(RUNS, max_examples=200, database=None, phases=[Phase.generate])  # no shrinking: it takes minutes
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine(precision, models(), Swapped), settings=found)


def test_the_same_among_sixty_three_others(precision):
    """Catches products of many rows (AMX tiles, panels) with other rounding, and rows that move when others leave."""
    model = random_model(hidden=40)
    requests = [
        model.request("abc"[: k % 4], 40 + 7 * (k % 11), seed=k, temperature=0.5 + k / 40, top_k=1 + k % 9)
        for k in range(64)
    ]
    texts = [""] * 64
    for number, output in model.run(requests, precision, slots=64):
        texts[number] += output.text
    for number in (0, 1, 31, 63):
        assert texts[number] == "".join(o.text for _, o in outputs_of(model, requests[number], precision))


def test_one_sequence_without_a_choice_leaves_the_others_alone(precision):
    """Catches one request that ends the whole batch."""
    model = random_model()
    bad = model.request("a", 50, seed=1, no_repeat_ngram_size=1)  # runs out of characters
    good = model.request("a", 50, seed=1)
    work = model.scheduler(precision)
    sequences = [work.submit(request) for request in (good, bad, good)]
    texts, reasons = dict.fromkeys(sequences, ""), {}
    while not work.idle:
        for output in work.update():
            texts[output.sequence] += output.text
            reasons[output.sequence] = output.finish_reason
    assert [reasons[sequence] for sequence in sequences] == ["length", "error", "length"]
    assert len(texts[sequences[1]]) == LETTERS.size - 1
    assert texts[sequences[0]] == texts[sequences[2]] == model.generate("a", 50, seed=1, precision=precision)


def test_the_queue_is_bounded(precision):
    """Catches a server that takes requests until its memory ends."""
    model = random_model()
    work = Scheduler(model._backend(precision), LETTERS, slots=1, waiting=2)
    for _ in range(2):
        work.submit(model.request("a", 5))
    with pytest.raises(QueueFullError, match="at most 2 requests may wait"):
        work.submit(model.request("a", 5))
    work.update()
    work.submit(model.request("a", 5))


def test_a_prompt_that_many_share_is_read_once(precision, monkeypatch):
    """Catches sixty-four readings of one long prompt, and a state that one of its users changes."""
    model, work, read = random_model(), None, []
    backend = model._backend(precision)
    plain = type(backend).read
    monkeypatch.setattr(
        type(backend), "read", lambda self, ids_T, *rest: read.append(len(ids_T)) or plain(self, ids_T, *rest)
    )
    request = model.request("abc" * 50, 20, seed=4)
    work = Scheduler(backend, LETTERS, slots=3)
    sequences = [work.submit(replace(request, index=index)) for index in range(8)]
    texts = dict.fromkeys(sequences, "")
    while not work.idle:
        for output in work.update():
            texts[output.sequence] += output.text
    assert read[0] == 149
    assert sum(length == 149 for length in read) == 1
    assert [*texts.values()] == [model.generate("abc" * 50, 20, seed=4, index=k, precision=precision) for k in range(8)]


def test_a_long_prompt_is_read_between_steps_of_others(precision, monkeypatch):
    """Catches a prompt that stops all running sequences until it is read."""
    monkeypatch.setattr(scheduler, "READ_SECONDS", 0.0)
    monkeypatch.setattr(scheduler, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(network, "BLOCK_LIMIT", 80 * 50)
    model = random_model()
    work = model.scheduler(precision)
    running = work.submit(model.request("a", 10**6, seed=1))
    work.update()
    late, updates = work.submit(model.request("ab" * 400, 5)), 0
    seen: set = set()
    while late not in seen:
        outputs = work.update()
        seen = {output.sequence for output in outputs}
        assert running in seen
        updates += 1
    assert updates > 5


def test_a_chunk_of_a_prompt_needs_memory_for_that_chunk_alone(precision):
    """Catches a chunk of a prompt that copies and checks the whole rest: the time would grow with the square."""
    backend = random_model(layers=1)._backend(precision)
    ids_T = np.zeros(10**7, np.uint8)
    backend.read(ids_T[:9], backend.initial_state(), 0.0)
    tracemalloc.start()
    try:
        backend.read(ids_T, backend.initial_state(), 0.0)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def test_log_probabilities(precision):
    """Catches probabilities after the temperature, a generated token without its own, and a wrong order."""
    model = random_model()
    request = model.request("abc", 30, logprobs=LETTERS.size, seed=2, temperature=0.1, top_k=2)
    outputs = [output for _, output in outputs_of(model, request, precision)]
    found = [each for output in outputs for each in output.logprobs]
    assert "".join(LETTERS.characters[each.token] for each in found) == "".join(output.text for output in outputs)
    for each in found:
        ids, logprobs = zip(*each.top, strict=True)
        assert sorted(ids) == [*range(LETTERS.size)]
        assert [*logprobs] == sorted(logprobs, reverse=True)
        assert np.exp(logprobs).sum() == pytest.approx(1, abs=1e-6)
        assert each.logprob == dict(each.top)[each.token]
    backend = model._backend(precision)
    logits, _ = backend.logits(LETTERS.encode("abc")[None], backend.initial_state())
    own = logits[0, -1].astype(float)[found[0].token] - np.log(np.exp(logits[0, -1].astype(float)).sum())
    assert found[0].logprob == pytest.approx(own, abs=1e-5)


def test_log_probabilities_of_a_prompt(precision):
    """Catches figures of a token beside the right one, and a text that differs when its prompt is scored."""
    for model, prompt in zip(models(), ("abcdhg" * 30, "abcd\n" * 30, "Zoë\n" * 30), strict=True):
        plain = model.request(prompt, 20, seed=1)
        request = replace(plain, prompt_logprobs=2)
        outputs = [output for _, output in outputs_of(model, request, precision)]
        assert "".join(output.text for output in outputs) == model.generate(prompt, 20, seed=1, precision=precision)
        found = [each for output in outputs for each in output.prompt_logprobs]
        assert [each.token for each in found] == request.prompt_T[1:].tolist()
        backend = model._backend(precision)
        logits_BTV, _ = backend.logits(request.prompt_T[None, :-1], backend.initial_state())
        own_TV = logits_BTV[0].astype(float)
        own_TV -= np.log(np.exp(own_TV).sum(axis=1, keepdims=True))
        assert [each.logprob for each in found] == pytest.approx(
            own_TV[range(len(found)), request.prompt_T[1:]], abs=1e-4
        )
        assert [each.top[0][1] for each in found] == pytest.approx(own_TV.max(axis=1), abs=1e-4)
        assert all(len(each.top) == 2 for each in found)


def test_one_prompt_with_and_without_its_log_probabilities(precision):
    """Catches a reading that two requests share although only one asks for log-probabilities."""
    model = random_model()
    plain = model.request("abcabc", 5, seed=1)
    requests = [plain, *(replace(plain, prompt_logprobs=top) for top in (0, 2)), plain]
    found = dict.fromkeys(range(4), ())
    for number, output in model.run(requests, precision):
        found[number] += output.prompt_logprobs
    assert [[len(each.top) for each in found[number]] for number in range(4)] == [[], [0] * 5, [2] * 5, []]


def test_a_prompt_is_scored_without_a_text(precision):
    """Catches a request for no tokens that ends before its prompt is read, or that generates one."""
    model = random_model()
    request = replace(model.request("abcabc", seed=1), tokens=0, prompt_logprobs=0)
    outputs = [output for _, output in outputs_of(model, request, precision)]
    assert [(output.text, output.tokens, output.finish_reason) for output in outputs] == [("", 0, "length")]
    assert len(outputs[0].prompt_logprobs) == 5
    [(_, nothing)] = model.run([replace(request, prompt_T=request.prompt_T[:0])], precision)
    assert (nothing.prompt_logprobs, nothing.finish_reason) == ((), "length")


def test_scoring_can_be_cancelled(precision, monkeypatch):
    """Catches a scored prompt that is read to its end although nobody waits, because its text has ended already."""
    monkeypatch.setattr(scheduler, "READ_SECONDS", 0.0)
    model = random_model()
    work = model.scheduler(precision)
    sequence = work.submit(replace(model.request("abc" * 1000), tokens=0, prompt_logprobs=0))
    assert work.update() == []
    sequence.cancel()
    assert [output.finish_reason for output in work.update()] == ["cancelled"]
    assert work.idle


def test_a_prompt_that_cannot_be_scored_ends_alone():
    """Catches NaN as a log-probability, and an error that ends the other sequences."""
    model, broken = random_model(), random_model()
    broken.folder.parameters["head.bias"][:] = np.nan
    [(_, output)] = outputs_of(broken, replace(broken.request("abc"), tokens=0, prompt_logprobs=0), "fp32")
    assert (output.finish_reason, output.prompt_logprobs) == ("error", ())
    assert model.generate("abc", 5, seed=1)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_limit_in_tokens(precision, number):
    """Catches a limit that counts characters: a character of a byte-level model is several tokens."""
    model = models()[number]
    for tokens in (1, 7, 40):
        request = replace(model.request("abc", 10**6, seed=3, temperature=1.5, stop=["a" * 50]), tokens=tokens)
        outputs = [output for _, output in outputs_of(model, request, precision)]
        assert sum(output.tokens for output in outputs) == tokens
        assert outputs[-1].finish_reason == "length"
        text = "".join(output.text for output in outputs)
        whole = model.generate("abc", 200, seed=3, temperature=1.5, precision=precision)
        assert text == (whole[:tokens] if number < 2 else whole[: len(text)])


def test_requests_that_belong_together_are_taken_together():
    """Catches half of the texts of a call that wait in a full queue."""
    model = random_model()
    work = model.scheduler(slots=1, waiting=3)
    work.submit_all(model.requests(2, "a", 5))
    with pytest.raises(QueueFullError, match="at most 3 requests may wait; 2 wait, and 2 more do not fit"):
        work.submit_all(model.requests(2, "b", 5))
    assert (work.waiting, work.running) == (2, 0)
    work.submit(model.request("b", 10**6))
    work.update()
    assert work.waiting + work.running <= 3
    while work.waiting:
        work.update()
    assert work.running == 1


def test_a_prompt_of_token_ids(precision):
    """Catches ids that are not checked, and ids that do not give the text of the prompt that they came from."""
    for model, prompt in zip(models(), ("abc", "abcd", "Zoë"), strict=True):
        ids = model.tokenizer.tokens(prompt).tolist()
        assert model.request(ids).prompt_T.tolist() == model.request(prompt).prompt_T.tolist()
        assert model.request([]).prompt_T.tolist() == model.request("").prompt_T.tolist()
        assert [each.prompt_T.tolist() for each in model.requests(1, [ids, prompt])] == [
            model.request(ids).prompt_T.tolist()
        ] * 2
        for wrong in (-1, model.vocabulary.size, True, 1.0, "a", 2**70):
            with pytest.raises(SettingsError, match="the prompt must be a string or token ids from 0 to"):
                model.request([0, wrong])


def test_log_probabilities_of_a_first_token_that_is_drawn_evenly(precision):
    """Catches a probability above 0 for the unknown token, which is never drawn: the sum would be above 1."""
    model = random_model(Vocabulary("characters", tuple("abcd"), unknown=True))
    [(_, output)] = model.run([model.request("", 1, logprobs=5)], precision)
    [found] = output.logprobs
    assert sum(np.exp(logprob) for _, logprob in found.top) == pytest.approx(1)
    assert found.logprob == pytest.approx(np.log(0.25))


def test_a_scheduler_needs_a_slot_and_a_queue(precision):
    """Catches `Model.run` that never ends, or that generates nothing without an error."""
    model = random_model()
    with pytest.raises(SettingsError, match="`slots` must be at least 1; got 0"):
        model.run([model.request("a", 5)], precision, slots=0)
    with pytest.raises(SettingsError, match="`waiting` must be at least 1; got 0"):
        Scheduler(model._backend(precision), LETTERS, slots=1, waiting=0)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_numpy_reads_a_prompt_in_short_chunks(cell):
    """Catches seconds between two steps of other sequences, and a state that depends on the chunks."""
    model = random_model(RECORDS, cell, layers=3, hidden=70, records="line", keep_order=False)
    backend = NumpyBackend(model.weights)
    ids_T = np.random.default_rng(1).choice([0, 1, 2, 3, RECORDS.separator_id], 500, p=[0.3, 0.3, 0.2, 0.19, 0.01])
    _, whole = [*backend._network.states(ids_T[None], backend.initial_state())][-1]
    state, done, chunks = backend.initial_state(), 0, []
    while done < len(ids_T):
        count, state = backend.read(ids_T[done:], state, 0.0)
        done, chunks = done + count, [*chunks, count]
    assert max(chunks) < 100
    np.testing.assert_array_equal(state.h_LBH, whole.h_LBH)
    np.testing.assert_array_equal(state.memory, whole.memory)


def test_the_first_update_of_a_sequence_is_short_but_not_empty(precision, monkeypatch):
    """Catches a first text that waits, and updates with a few tokens while many short sequences come and go."""
    model, seconds = random_model(), []
    work = model.scheduler(precision)
    plain = work._batch.decode
    monkeypatch.setattr(work._batch, "decode", lambda steps, most: seconds.append(most) or plain(steps, most))
    for _ in range(2):
        work.submit(model.request("a", 10_000))
        work.update()
        work.update()
    assert 0 < seconds[0] == seconds[2] <= 0.002
    assert seconds[1] == seconds[3] == scheduler.CHUNK_SECONDS


def test_prompts_share_what_is_asked_of_them(monkeypatch):
    """Catches an automaton of stop strings for each prompt (up to 30 MB), and rows that NumPy samples one by one."""
    requests: list = []
    monkeypatch.setattr(Model, "run", lambda self, given, *rest, **options: requests.extend(given) or iter(()))
    random_model().generate_many(2, ["a", "b", "c"], 5, stop="xyz", seed=1)
    assert len(requests) == 6
    assert len({id(request.stop) for request in requests}) == len({id(request.sampling) for request in requests}) == 1


def test_every_token_is_counted(precision, monkeypatch):
    """Catches tokens that are lost because they gave no text yet: parts of a character or of a stop string."""
    monkeypatch.setattr(scheduler, "CHUNK_SECONDS", 0.0)
    model = random_model(Vocabulary("bytes"), "rnn", layers=1, scale=1.0)
    counts = [
        sum(output.tokens for _, output in model.run([model.request("a", 300, seed=1, logprobs=asked)], precision))
        for asked in (None, 0)
    ]
    assert counts[0] == counts[1] > 300


@pytest.mark.filterwarnings("error")
def test_log_probabilities_of_a_sequence_without_a_choice(precision):
    """Catches a warning of NumPy's about -inf less -inf."""
    model = random_model()
    model.weights.parameters["head.bias"][:] = -np.inf
    work = model.scheduler("fp32")
    work.submit(model.request("a", 5, logprobs=2))
    outputs = [output for _ in range(3) for output in work.update()]
    assert [(output.finish_reason, output.logprobs) for output in outputs] == [("error", ())]


def test_stop_strings_belong_to_their_request(precision):
    """Catches an automaton whose state two sequences share."""
    model = random_model()
    stops = [StopStrings(("ab",)), StopStrings(("h", "e ")), StopStrings(())]
    requests = [replace(model.request("a", 200, seed=3), stop=stop) for stop in stops for _ in range(3)]
    texts = [""] * len(requests)
    for number, output in model.run(requests, precision):
        texts[number] += output.text
    assert [len({*texts[k : k + 3]}) for k in (0, 3, 6)] == [1, 1, 1]
    assert len({*texts}) == 3
