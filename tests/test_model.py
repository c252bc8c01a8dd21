"""A model that generates and scores, with random weights, and with weights that determine every next token."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import pickle  # noqa: TID251 - users may pickle a model
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from typing import get_type_hints

import numpy as np
import pytest

from charloom import kernels
from charloom.architecture import Architecture
from charloom.checkpoint import ModelFolder, save_model
from charloom.config import Cleaning
from charloom.data.vocabulary import RECORD_SEPARATOR, Vocabulary
from charloom.errors import ModelError, SettingsError, TextError, UnknownCharacterError
from charloom.inference.network import InferenceNetwork
from charloom.inference.options import GenerationOptions, Options
from charloom.inference.weights import InferenceWeights
from charloom.model import Model
from charloom.score import cross_entropy

pytestmark = pytest.mark.processor

LETTERS = Vocabulary("characters", tuple("\n abcdefgh"))
FOLDED = Vocabulary("characters", tuple("abc"), unknown=True)
RECORDS = Vocabulary("characters", tuple("abcd"), separator=True)
BYTES = Vocabulary("bytes")


def random_model(
    vocabulary=LETTERS, cell="lstm", hidden=16, layers=2, input_kind="embedding", seed=0, scale=2.0, **options
):
    """A model with weights large enough that the text depends on all earlier tokens."""
    made = Architecture(
        cell=cell,
        nonlinearity="tanh",
        layers=layers,
        hidden=hidden,
        input=input_kind,
        embedding=4,
        vocabulary_size=vocabulary.size,
    )
    generator = np.random.default_rng(seed)
    parameters = {
        name: (scale * generator.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in made.shapes.items()
    }
    return Model(ModelFolder(made, vocabulary, parameters, **options))


def chain_model(vocabulary, following, **options):
    """A network that gives following[token] all the probability after each token."""
    size = vocabulary.size
    made = Architecture(
        cell="rnn", nonlinearity="tanh", layers=1, hidden=size, input="onehot", embedding=1, vocabulary_size=size
    )
    parameters = {name: np.zeros(shape, np.float32) for name, shape in made.shapes.items()}
    parameters["rnn.weight_ih_l0"][...] = 10 * np.eye(size)
    for before, after in following.items():
        parameters["head.weight"][after, before] = 1000
    return Model(ModelFolder(made, vocabulary, parameters, **options))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("options", [{}, {"top_k": 4, "top_p": 0.9, "min_p": 0.01}])
def test_a_text_is_the_same_alone_in_a_batch_and_streamed(cell, options):
    """Catches a row that depends on other rows: their number, their random numbers, their end."""
    model = random_model(cell=cell)
    many = model.generate_many(5, "abc", 400, seed=3, stop=["ab", "h\n"], **options)
    assert len(set(many)) > 1  # they end at different positions
    for k, text in enumerate(many):
        assert model.generate("abc", 400, seed=3, index=k, stop=["ab", "h\n"], **options) == text
        assert "".join(model.stream("abc", 400, seed=3, index=k, stop=["ab", "h\n"], **options)) == text
    assert model.generate_many(2, "abc", 400, seed=3, index=2, stop=["ab", "h\n"], **options) == many[2:4]


def test_many_prompts_side_by_side():
    """Catches a text after a wrong prompt, an index that counts prompts instead of texts, and too many texts."""
    model = random_model()
    many = model.generate_many(2, ["abc", "", "h\n"], 60, seed=3, index=5)
    for k, text in enumerate(many):
        assert text == model.generate(["abc", "", "h\n"][k // 2], 60, seed=3, index=5 + k)
    with pytest.raises(SettingsError, match="`count` must give at most 100,000 texts in one call"):
        model.generate_many(50_001, ["abc", ""])


def test_a_longer_text_begins_with_the_shorter_one():
    """Catches random numbers that depend on the length."""
    model = random_model()
    assert model.generate(length=900, seed=1).startswith(model.generate(length=100, seed=1))
    assert model.generate(length=100, seed=1) != model.generate(length=100, seed=2)
    assert model.generate(length=100) != model.generate(length=100)


@pytest.mark.parametrize("vocabulary", [LETTERS, FOLDED, RECORDS, BYTES])
@pytest.mark.parametrize("length", [0, 1, 7, 300])
def test_length_is_exact(vocabulary, length):
    """Catches tokens, bytes or records counted as characters."""
    model = random_model(vocabulary)
    assert [len(text) for text in model.generate_many(3, "ab", length, seed=0)] == [length] * 3


def test_the_prompt_is_not_part_of_the_text():
    """Catches a prompt written twice, and a first token predicted from the wrong place."""
    model = chain_model(LETTERS, {n: (n + 1) % LETTERS.size for n in range(LETTERS.size)})
    assert model.generate("ab", 3) == "cde"
    assert model.generate("", 4) == " abc"  # an empty prompt: after a newline
    assert "".join(model.stream("g", 3)) == "h\n "


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_whole_prompt_is_read_once(cell):
    """Catches a last token that is read twice or not at all, and a first state that is not zero."""
    model = random_model(cell=cell)
    prompt = "abc defgh\nab"
    network = InferenceNetwork(InferenceWeights(model.architecture, model.weights.parameters))
    logits_BTV, _ = network.sequence(LETTERS.encode(prompt)[None], network.initial_state(1))
    most_probable = LETTERS.characters[logits_BTV[0, -1].argmax()]
    assert model.generate(prompt, 1, greedy=True) == most_probable
    share = np.exp(logits_BTV[0, -1] - logits_BTV[0, -1].max())
    texts = "".join(model.generate(prompt, 1, temperature=1.0, seed=0, index=k) for k in range(2000))
    counted = np.array([texts.count(c) for c in LETTERS.characters]) / 2000
    np.testing.assert_allclose(counted, share / share.sum(), atol=0.04)


def test_without_a_newline_an_evenly_drawn_character_comes_first():
    """Catches a model that always begins with the same character, or leaves the first one out."""
    letters = Vocabulary("characters", tuple("abcd"))
    model = chain_model(letters, {0: 1, 1: 2, 2: 3, 3: 0})
    texts = model.generate_many(200, length=4, seed=0)
    assert set(texts) == {"abcd", "bcda", "cdab", "dabc"}
    assert model.generate(length=4, seed=0, index=7) == texts[7]
    assert all(30 < texts.count(text) < 70 for text in set(texts))


@pytest.mark.parametrize("stop", [["cd"], ["bcde", "d"], ["cdx", "cd"], "cd", ["abcdx", "cd"]])
def test_stop_strings_end_the_text(stop):
    """Catches part of a stop string in the stream, and a longer candidate that hides a shorter one."""
    model = chain_model(LETTERS, {n: (n + 1) % LETTERS.size for n in range(LETTERS.size)})
    expected = {"bcde": "abc", "d": "abc"}.get(stop[0] if isinstance(stop, list) else "", "ab")
    assert "".join(model.stream(" ", 50, stop=stop)) == expected


def test_records_end_by_themselves():
    """Catches a separator after the last record, a length limit that the user did not set, and a record without a
    start.
    """
    a, b, separator = 0, 1, 4
    model = chain_model(RECORDS, {separator: a, a: b, b: separator}, records="paragraph")
    assert model.generate(records=3) == "ab\n\nab\n\nab"
    assert model.generate("a", records=2) == "b\n\nab"
    assert model.generate(records=600) == "\n\n".join(["ab"] * 600)
    assert model.generate(records=3, length=5) == "ab\n\na"
    assert model.generate(length=7) == "ab\n\nab\n"
    assert len(model.generate()) == 1000
    assert chain_model(RECORDS, {separator: a, a: separator}, records="line").generate(records=2) == "a\na"


def test_independent_records_begin_anew():
    """Catches a record that continues the state of the one before, although each began from zero in training."""
    options = {"records": "line", "scale": 4.0, "seed": 3}
    carried, anew = random_model(RECORDS, **options), random_model(RECORDS, keep_order=False, **options)
    lines = anew.generate(length=119, greedy=True).split("\n")
    assert lines == ["cc"] * 40
    assert len({*carried.generate(length=100, greedy=True).split("\n")}) > 3
    alone, together = anew.score("abca"), anew.score(RECORD_SEPARATOR.join(["abca"] * 5))
    separators = 4 * (anew.score("abca" + RECORD_SEPARATOR + "b").nats - anew.score("b").nats - alone.nats)
    assert together.nats == pytest.approx(5 * alone.nats + separators, rel=1e-5)


def test_no_record_is_empty():
    """Catches a model that generates only separators for ever."""
    model = chain_model(RECORDS, {4: 4, 0: 4, 1: 4, 2: 4, 3: 4}, records="line")
    lines = model.generate(records=5, seed=0).split("\n")
    assert [len(line) for line in lines] == [1] * 5


def test_records_need_a_model_of_records():
    """Catches a text that never ends, because no separator can come."""
    with pytest.raises(SettingsError, match="`records` needs a model that was trained on records"):
        random_model().generate(records=2)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_bytes_make_whole_characters(cell):
    """Catches an incomplete character from random weights, and a stream whose chunks do not join to the text."""
    model = random_model(BYTES, cell, scale=0.5)
    pieces = list(model.stream("é", 2000, temperature=1.5, seed=5))
    assert all(pieces)
    assert len("".join(pieces)) == 2000
    "".join(pieces).encode("utf-8")


def test_a_chain_of_bytes():
    """Catches a character that comes out before its last byte, or bytes that are decoded one by one."""
    cycle = "é🦊\n".encode()
    model = chain_model(BYTES, dict(itertools.pairwise([*cycle, cycle[0]])))
    assert "".join(model.stream("", 5)) == "é🦊\né🦊"


def test_the_unknown_token_is_read_and_never_generated():
    """Catches U+FFFD in a text, although the model gives it the highest probability."""
    model = chain_model(FOLDED, {0: 3, 1: 3, 2: 3, 3: 3})
    for options in ({"greedy": True}, {"temperature": 100.0}, {"top_k": 1}):
        text = model.generate("a?", 200, seed=1, unknown="replace", **options)
        assert set(text) <= set("abc")


def test_prompts_are_cleaned_as_the_training_text_was():
    """Catches a prompt that the model reads otherwise than it learned, and CRLF from another system."""
    model = random_model(cleaning=Cleaning(lowercase=True))
    assert model.generate("ABC\r\nD", 50, seed=1) == model.generate("abc\nd", 50, seed=1)
    assert model.score("ABC\r\nD") == model.score("abc\nd")


def test_unknown_characters():
    """Catches a message without the character, and an error that comes only with the first chunk."""
    model = random_model()
    with pytest.raises(UnknownCharacterError, match=r"'é' \(U\+00E9\) at position 1 of the prompt"):
        model.stream("aé")
    with pytest.raises(UnknownCharacterError, match="of the text"):
        model.score("abé")
    assert model.generate("aéb", 30, seed=1, unknown="skip") == model.generate("ab", 30, seed=1)
    assert model.generate("aéb", 30, seed=1, unknown="replace") == model.generate("a b", 30, seed=1)


@pytest.mark.parametrize("text", ["a\ud83db", "a" + RECORD_SEPARATOR])
def test_lone_surrogates_in_a_model_of_bytes(text):
    """Catches a UnicodeEncodeError or TypeError from half an emoji that came through JSON."""
    model = random_model(BYTES)
    with pytest.raises(UnknownCharacterError, match="position 1"):
        model.generate(text, 5)
    assert model.generate(text, 5, seed=1, unknown="skip") == model.generate(
        text.encode("utf-8", "ignore").decode(), 5, seed=1
    )


@pytest.mark.parametrize("vocabulary", [LETTERS, BYTES, RECORDS])
@pytest.mark.parametrize("input_kind", ["embedding", "onehot", "scalar"])
def test_score_predicts_every_character_once(vocabulary, input_kind):
    """Catches a target that is off by one, a state reset between blocks, and a first record without its separator."""
    model = random_model(vocabulary, input_kind=input_kind)
    text = "abcdabdcaabb" * 30
    ids = vocabulary.encode((RECORD_SEPARATOR if vocabulary.separator else "") + text)
    network = InferenceNetwork(InferenceWeights(model.architecture, model.weights.parameters))
    state, nats, correct = network.initial_state(1), 0.0, 0
    for before, after in itertools.pairwise(ids):
        logits, state = network.step(np.array([before]), state)
        one, hit = cross_entropy(logits, np.array([after]))
        nats, correct = nats + one, correct + hit
    score = model.score(text)
    assert score.tokens == score.characters == len(ids) - 1
    assert score.nats == pytest.approx(nats, rel=1e-5)
    assert score.correct == correct


def test_score_counts_characters_and_bytes_apart():
    """Catches bits per byte shown as bits per character."""
    score = random_model(BYTES).score("aé🦊")
    assert (score.tokens, score.characters) == (6, 2)
    folded = random_model(FOLDED).score("ab?c", unknown="skip")
    assert (folded.tokens, folded.characters) == (2, 2)


def test_a_separator_at_the_start_is_not_counted():
    """Catches: a separator that is only read, counted as a character that was predicted."""
    for vocabulary in (RECORDS, replace(BYTES, separator=True)):
        model = random_model(vocabulary)
        assert model.score(f"{RECORD_SEPARATOR}ab") == model.score("ab")


@pytest.mark.parametrize("records", ["line", "paragraph"])
def test_a_newline_ends_a_record_if_it_is_no_character(records):
    """Catches a generated text that cannot be scored or continued, and empty records between its records."""
    model = random_model(RECORDS, records=records)
    text = model.generate(records=3, seed=1)
    separated = RECORD_SEPARATOR.join(text.split())
    assert text.count("\n") == (4 if records == "paragraph" else 2)
    assert model.score(text) == model.score(separated)
    assert model.generate(text, 50, seed=1) == model.generate(separated, 50, seed=1)
    for vocabulary in (Vocabulary("characters", tuple("\nab"), separator=True), replace(BYTES, separator=True)):
        known = random_model(vocabulary)
        assert known.score("a\nb") != known.score(f"a{RECORD_SEPARATOR}b")
    with pytest.raises(UnknownCharacterError, match=r"'\\n' \(U\+000A\)"):
        random_model(FOLDED).score("a\nb")


@pytest.mark.parametrize(("vocabulary", "text"), [(LETTERS, ""), (LETTERS, "a"), (BYTES, "🦊"), (RECORDS, "")])
def test_too_short_to_score(vocabulary, text):
    """Catches a division by zero, and a message of `adapt` about a text to score."""
    for method in (random_model(vocabulary).score, random_model(vocabulary).adapt):
        with pytest.raises(TextError, match=r"^the text must hold at least 2 characters"):
            method(text)


@pytest.mark.parametrize(
    "options",
    [
        *({"length": -1}, {"temperature": -1.0}, {"top_k": 0}, {"stop": ["a", ""]}, {"seed": -1}, {"records": 0}),
        *({"x": 1}, {"threads": 2**31}, {"length": 10**101}, {"stop": ["ab"] * 50_001}),
    ],
)
def test_options_out_of_range_are_named_at_the_call(options):
    """Catches an error that comes only when the stream is read, or does not say which option."""
    with pytest.raises(SettingsError, match=next(iter(options))):
        random_model().stream(**options)
    for count in (0, 100_001, 2**70):
        with pytest.raises(SettingsError, match=r"`count` must be at (least 1|most 100,000); got"):
            random_model().generate_many(count)


def test_a_length_that_no_memory_holds():
    """Catches a program that fills the memory before it fails. `stream` accepts any length."""
    for ask in (random_model().generate, lambda length: random_model().generate_many(10**4, length=length)):
        with pytest.raises(
            SettingsError, match=r"`length` must be at most 1,000,000,000 .*; `Model.stream` has no such limit"
        ):
            ask(length=10**30)
    assert len(next(random_model().stream(length=10**30, seed=1))) > 0


@pytest.mark.parametrize("options", [{"slots": 0}, {"precision": "fp64"}, {"threads": 0}])
def test_a_scheduler_out_of_range(options):
    """Catches a run without a slot, which never ends, and an error of another class."""
    with pytest.raises(SettingsError, match=next(iter(options))):
        random_model().run([], **options)


@pytest.mark.parametrize("logprobs", [-1, 101, 1.5, True])
def test_too_many_log_probabilities(logprobs):
    """Catches an array that is as wide as a user wants."""
    with pytest.raises(SettingsError, match="`logprobs` must be a whole number from 0 to 100"):
        random_model().request("a", logprobs=logprobs)


def test_repetition_is_penalised_and_ngrams_are_not_repeated():
    """Catches an option without an effect, and a history without the prompt."""
    model = random_model()
    plain = model.generate("abc", 300, seed=1)
    assert model.generate("abc", 300, seed=1, repetition_penalty=1.0) == plain
    assert model.generate("abc", 300, seed=1, repetition_penalty=3.0) != plain
    text = "abc" + model.generate("abc", 300, seed=1, no_repeat_ngram_size=3)
    seen = [text[k : k + 3] for k in range(len(text) - 2)]
    assert len(seen) == len({*seen})
    chain = chain_model(LETTERS, {n: (n + 1) % LETTERS.size for n in range(LETTERS.size)})
    assert "bcd" not in chain.generate("abcdab", 5, seed=0, no_repeat_ngram_size=3)


def test_the_earlier_name_of_the_metadata():
    """Catches a program for the last version that ends with an AttributeError."""
    with pytest.warns(DeprecationWarning, match=r"Model\.metadata"):
        assert random_model(metadata={"corpus": "x"}).provenance == {"corpus": "x"}


def test_the_index_of_the_last_text_of_a_batch():
    """Catches an index beyond an int64 for any text but the first."""
    model, last = random_model(), 2**63 - 1
    assert model.generate_many(2, length=9, seed=1, index=last - 1)[1] == model.generate(length=9, seed=1, index=last)
    with pytest.raises(SettingsError, match=r"`index` must be below 2\^63 for each of 2 texts"):
        model.generate_many(2, length=9, index=last)


def test_every_keyword_is_a_setting():
    """Catches an option that type checkers know and the model does not, or the reverse."""
    assert get_type_hints(Options).keys() == GenerationOptions.model_fields.keys() - {"length"}


def test_a_vocabulary_of_another_model():
    """Catches an index error in the middle of a text."""
    model = random_model()
    with pytest.raises(ModelError, match="must have as many tokens"):
        Model(ModelFolder(model.architecture, FOLDED, {}))


@pytest.mark.once
def test_memory_does_not_grow_with_the_length():
    """Catches a value that is stored for each character: a list of chunks, of states, of random numbers."""
    chunks = random_model(BYTES, hidden=8, layers=1).stream(length=10**9, seed=0, stop=["never this"])
    # 8 bytes a character would be 480,000 or, by NumPy, 120,000; a chunk takes up to 300,000, by NumPy up to 60,000
    characters, slack = (15_000, 80_000) if kernels.chosen().module is None else (60_000, 400_000)
    peaks = []
    tracemalloc.start()
    for _ in range(2):
        generated = 0
        while generated < characters:
            generated += len(next(chunks))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()
    tracemalloc.stop()
    assert peaks[1] < peaks[0] + slack


def test_scoring_takes_memory_for_blocks_only():
    """Catches logits kept for the whole text."""
    model = random_model(hidden=8, layers=1, vocabulary=BYTES)
    tracemalloc.start()
    model.score("a" * 20_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000 * 256 * 8  # one float64 logit for every second token


def test_a_model_is_made_without_torch_or_safetensors():
    """Catches an import that delays the first character by a second."""
    heavy = {"torch", "safetensors", "rich", "fsspec", "charset_normalizer"}
    code = f"import sys, charloom.model; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_load_reads_what_checkpoint_wrote(tmp_path):
    """Catches a field of the model folder that is lost."""
    model = random_model(RECORDS, records="paragraph", cleaning=Cleaning(lowercase=True), metadata={"corpus": "x"})
    generator = np.random.default_rng(0)
    parameters = {n: generator.standard_normal(s).astype(np.float32) for n, s in model.architecture.shapes.items()}
    folder = replace(model.folder, parameters=parameters)
    save_model(tmp_path / "model", folder)
    loaded = Model.load(tmp_path / "model")
    assert (loaded.architecture, loaded.vocabulary) == (model.architecture, RECORDS)
    assert (loaded.folder.cleaning, loaded.folder.records) == (Cleaning(lowercase=True), "paragraph")
    assert loaded.metadata == {"corpus": "x"}
    expected = Model(folder).generate("ab", 50, seed=1)
    assert loaded.generate("ab", 50, seed=1) == expected


def test_save_writes_what_load_reads(tmp_path):
    """Catches a lost field, a user's folder that is overwritten, and an incomplete model."""
    model = random_model(RECORDS, records="line", keep_order=False, metadata={"corpus": "x"})
    model.save(tmp_path / "new" / "model")
    loaded = Model.load(tmp_path / "new" / "model")
    assert loaded.generate(records=5, seed=1) == model.generate(records=5, seed=1)
    assert loaded.metadata == model.metadata
    with pytest.raises(SettingsError, match="new or empty folder"):
        model.save(tmp_path / "new" / "model")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SettingsError, match="must go to a folder that can be written"):
        model.save(tmp_path / "file" / "model")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]


def test_repr_is_one_useful_line():
    """Catches a repr with a memory address, and metadata of an untrusted model that fill or control a terminal."""
    made = {"corpus": "my", "validation_nats": 1.53219}
    assert repr(random_model(metadata=made)) == (
        "<charloom.Model: lstm 2 x 16, 10 characters, 3,794 parameters, trained on 'my', 1.532 nats/char>"
    )
    assert repr(random_model(BYTES)).endswith("256 bytes, 8,960 parameters>")
    odd = repr(random_model(metadata={"corpus": "\x1b[2J" * 1000, "validation_nats": "low"}))
    assert odd.isprintable()
    assert len(odd) < 200


@pytest.mark.parametrize("vocabulary", [LETTERS, RECORDS, BYTES])
@pytest.mark.parametrize("used", [False, True])
def test_pickles_and_copies_generate_the_same(vocabulary, used):
    """Catches packed weights or a cached table in a pickle, a copy that shares arrays, and a field that is lost."""
    model = random_model(vocabulary, records="line" if vocabulary is RECORDS else "none", metadata={"corpus": ["x"]})
    options = {"seed": 1, "unknown": "skip"}  # an unknown character makes the vocabulary cache a table
    expected = model.generate("aé", 200, **options) if used else None
    parameters = model.architecture.size * 4
    for other in (pickle.loads(data := pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
        assert other is not model
        assert other.generate("aé", 200, **options) == (expected or model.generate("aé", 200, **options))
        assert (other.metadata, repr(other)) == (model.metadata, repr(model))
    assert len(data) < parameters + 10_000
    deep = copy.deepcopy(model)
    deep.metadata["corpus"].append("y")
    deep.folder.parameters["head.bias"][...] = 0
    assert (model.metadata, model.generate("aé", 200, **options)) == (
        {"corpus": ["x"]},
        other.generate("aé", 200, **options),
    )


def test_a_spawned_process_generates_the_same():
    """Catches a model that cannot be sent to the workers of a multiprocessing pool."""
    model = random_model()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(model.generate, ("ab", 100), {"seed": 1}) == model.generate("ab", 100, seed=1)


def test_a_list_of_prompts_gives_a_list_of_texts():
    """Catches a list that is read as one prompt, and a text of another prompt or index."""
    model = random_model()
    texts = model.generate(["abc", "", "h\n"], 60, seed=3, index=5)
    assert texts == [model.generate(prompt, 60, seed=3, index=5 + k) for k, prompt in enumerate(["abc", "", "h\n"])]
    assert model.generate(("abc",), 60, seed=3) == [model.generate("abc", 60, seed=3)]
    assert model.generate_many(1, (prompt for prompt in ["a", "b"]), 9, seed=3) == model.generate(["a", "b"], 9, seed=3)


@pytest.mark.parametrize("prompt", [123, None, b"abc", ["abc", 4]])
def test_a_prompt_is_a_string(prompt):
    """Catches a traceback from the cleaning of a text, or bytes that are read as a list of numbers."""
    model = random_model()
    wanted = "the prompt must be a string; got " + re.escape(repr(4 if isinstance(prompt, list) else prompt))
    for call in (model.generate, model.stream, lambda prompt: model.generate_many(2, prompt)):
        if call == model.stream and isinstance(prompt, list):
            continue
        with pytest.raises(SettingsError, match=wanted):
            call(prompt)


def test_the_docstring_of_generate_has_every_option():
    """Catches an option that `help(Model.generate)` does not explain."""
    explained = Model.generate.__doc__
    assert all(re.search(rf"\b{name}(`|:|,.*:)", explained) for name in get_type_hints(Options))
