"""`POST /v1/completions` without a stream: every field, and the text that the model gives alone."""

from __future__ import annotations

import json

import pytest

from charloom.data.vocabulary import RECORD_SEPARATOR


def ask(http, status=200, **fields):
    answer = http.post("/v1/completions", json=fields)
    assert answer.status_code == status, answer.text
    return answer.json()


def texts(answer):
    return [choice["text"] for choice in answer["choices"]]


def test_an_answer(http, models):
    """Catches a field of the protocol that is missing, and a text that is not that of the model alone."""
    answer = ask(http, model="letters", prompt="abc", max_tokens=30, seed=5)
    choice = {"index": 0, "text": models["letters"].generate("abc", 30, seed=5), "logprobs": None}
    assert answer["choices"] == [choice | {"finish_reason": "length"}]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 30, "total_tokens": 33}
    assert (answer["object"], answer["model"]) == ("text_completion", "letters")
    assert answer["id"].startswith("cmpl-")
    assert answer["created"] > 10**9


def test_what_is_left_out(http, models):
    """Catches defaults that differ from OpenAI's (16 tokens, 1 text) or from charloom's (the temperature)."""
    answer = ask(http, seed=3)
    assert answer["model"] == "letters"
    assert texts(answer) == [models["letters"].generate("", 16, seed=3)]
    null = dict.fromkeys(("max_tokens", "temperature", "top_p", "n", "stop", "logprobs", "echo", "stream", "top_k"))
    assert texts(ask(http, seed=3, **null)) == texts(answer)
    neutral = {"best_of": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "user": "me"}
    assert texts(ask(http, seed=3, **neutral)) == texts(answer)


def test_without_a_seed_texts_differ(http):
    """Catches a seed that is always the same."""
    assert len({text for _ in range(3) for text in texts(ask(http, prompt="a", max_tokens=30))}) == 3


OPTIONS = [
    {"temperature": 0},
    {"temperature": 2.0},
    {"top_p": 0.5, "temperature": 1},
    {"top_k": 2},
    {"min_p": 0.3},
    {"repetition_penalty": 1.5},
    {"stop": "a"},
    {"stop": ["bc", "\n", "dd"]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=json.dumps)
def test_options(http, models, options):
    """Catches an option that is accepted and has no effect."""
    answer = ask(http, prompt="abc", max_tokens=60, seed=7, **options)
    assert texts(answer) == [models["letters"].generate("abc", 60, seed=7, **options)]


def test_the_four_forms_of_a_prompt(http, models):
    """Catches choices in another order than choice + prompt x n, and token ids that are read as prompts."""
    model, prompts = models["letters"], ["abc", "", "hg"]
    ids = [model.tokenize(prompt) for prompt in prompts]
    expected = model.generate_many(2, prompts, 20, seed=4)
    for form in (prompts, ids):
        answer = ask(http, prompt=form, n=2, max_tokens=20, seed=4)
        assert texts(answer) == expected
        assert [choice["index"] for choice in answer["choices"]] == [*range(6)]
        assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 120, "total_tokens": 125}
    for form in ("abc", ids[0]):
        assert texts(ask(http, prompt=form, n=2, max_tokens=20, seed=4)) == model.generate_many(2, "abc", 20, seed=4)


def test_one_token_can_be_text_and_id(http, models):
    """Catches `[5]` read as a list of prompts, and an empty list of ids that is no prompt."""
    one = models["letters"].tokenize("c")
    assert texts(ask(http, prompt=one, seed=1)) == texts(ask(http, prompt=["c"], seed=1))
    assert texts(ask(http, prompt=[[]], seed=1)) == texts(ask(http, prompt="", seed=1))


def test_records(http, models):
    """Catches a record separator on the wire, and a number of records that has no effect."""
    answer = ask(http, model="records", max_tokens=500, records=3, seed=2)
    assert texts(answer) == [models["records"].generate("", 500, records=3, seed=2)]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["text"].count("\n\n") == 2
    assert RECORD_SEPARATOR not in answer["choices"][0]["text"]


def test_the_finish_reason(http):
    """Catches `length` for a text that a stop string ended."""
    assert ask(http, prompt="abc", stop="a", max_tokens=1000, seed=1)["choices"][0]["finish_reason"] == "stop"
    assert ask(http, prompt="abc", stop="\n\n\n\n\n", max_tokens=5, seed=1)["choices"][0]["finish_reason"] == "length"


def test_bytes_count_as_tokens(http, models):
    """Catches max_tokens in characters, and half a character at the end of a text."""
    for tokens in range(1, 12):
        answer = ask(http, model="bytes", prompt="é", max_tokens=tokens, seed=8, temperature=1.5)
        whole = models["bytes"].generate("é", 40, seed=8, temperature=1.5)
        (text,) = texts(answer)
        assert whole.startswith(text)
        assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": tokens, "total_tokens": 2 + tokens}


def test_unknown_characters(http, models):
    """Catches a policy that is ignored."""
    message = ask(http, 400, prompt="aéb")["error"]["message"]
    assert message.startswith("'é' (U+00E9) at position 1 of the prompt is not in this model's vocabulary")
    skipped = ask(http, prompt="aéb", unknown="skip", seed=1)
    assert texts(skipped) == [models["letters"].generate("ab", 16, seed=1)]


def test_the_wire_is_ascii(http):
    """Catches U+2028, at which some clients end a line."""
    answer = http.post("/v1/completions", json={"prompt": "\u2028", "max_tokens": 200, "echo": True, "seed": 1})
    assert answer.content.isascii()
    assert answer.json()["choices"][0]["text"].count("\u2028") > 1


def test_a_prompt_is_echoed(http, models):
    """Catches an echo without the text after it, or with the record separator that the model reads first."""
    for name, prompt in (("letters", "abc"), ("records", "ab\n\ncd"), ("bytes", "Zoë")):
        answer = ask(http, model=name, prompt=prompt, echo=True, max_tokens=9, seed=1)
        plain = ask(http, model=name, prompt=prompt, max_tokens=9, seed=1)
        assert texts(answer) == [prompt + texts(plain)[0]]
        assert texts(ask(http, model=name, prompt=prompt, echo=True)) == [prompt]  # nothing is generated by default
    assert texts(ask(http, prompt=["abc", "d"], n=2, max_tokens=0, echo=True)) == ["abc", "abc", "d", "d"]


MISTAKES = [
    ({"n": 0}, "`n` must be at least 1; got 0"),
    ({"n": 2.5}, "`n` must be a whole number; got 2.5"),
    ({"n": True}, "`n` must be a whole number; got True"),
    ({"max_tokens": "5"}, "`max_tokens` must be a whole number; got '5'"),
    ({"max_tokens": 0}, "`max_tokens` must be at least 1 without `echo`; got 0"),
    ({"max_tokens": 10**30}, "`max_tokens` must give at most 262,144 tokens for all texts of a request"),
    ({"temperature": -1}, "`temperature` must be at least 0; got -1"),
    ({"top_p": 0}, "`top_p` must be above 0; got 0"),
    ({"logprobs": 6}, "`logprobs` must be at most 5; got 6"),
    ({"seed": -1}, "`seed` must be at least 0; got -1"),
    ({"seed": 2**63}, "`seed` must be below 2^63"),
    ({"stop": [""]}, "`stop` must not contain an empty string; leave it out"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "`stop` must give at most 4 strings; got 5"),
    ({"stop": 5}, "`stop` must be a string or a list of strings"),
    ({"stream": "yes"}, "`stream` must be True or False"),
    ({"stream_options": {"include_usage": True}}, "`stream_options` needs `stream`"),
    ({"stream": True, "stream_options": {"x": 1}}, "`x` is an unknown name"),
    ({"prompt": [["a"]]}, "`prompt` must be a string, a list of strings, a list of token ids, or a list of such lists"),
    ({"prompt": ["a", 1]}, "`prompt` must be a string, a list of strings"),
    ({"prompt": []}, "`prompt` must have at least one prompt; got an empty list"),
    ({"prompt": [99]}, "the prompt must be a string or token ids from 0 to 10; got 99 in a list"),
    ({"prompt": None}, "`prompt` must be a string"),
    ({"records": 1}, "`records` needs a model that was trained on records"),
    ({"unknown": "drop"}, "`unknown` must be 'error', 'skip' or 'replace'; got 'drop'"),
    ({"best_of": 3}, "`best_of` must equal `n`"),
    ({"frequency_penalty": 0.5}, "`frequency_penalty` must be at most 0; got 0.5"),
    ({"logit_bias": {}}, "`logit_bias` is an unknown name; leave it out"),
    ({"suffix": "x"}, "`suffix` is an unknown name"),
    ({"max_token": 5}, "`max_token` is an unknown name; did you mean `max_tokens`?"),
    ({"n": 200}, "`n` must give at most 128 texts in one request; got 200"),
    ({"logprobs": 5, "max_tokens": 200_000}, "`logprobs` must give at most 65,536 log-probabilities in one answer"),
]


@pytest.mark.parametrize(("fields", "message"), MISTAKES, ids=[json.dumps(fields) for fields, _ in MISTAKES])
def test_mistakes(http, fields, message):
    """Catches a mistake that is accepted, answered by 500, or not named."""
    error = ask(http, 400, **fields)["error"]
    assert error["message"].startswith(message)
    assert error["type"] == "invalid_request_error"
    named = message.split("`")[1] if message.startswith("`") else None
    assert error["param"] == named


def test_an_unknown_model(http):
    """Catches a fallback to another model."""
    error = ask(http, 404, model="gpt-4")["error"]
    assert error["message"] == "`model` must be one of 'letters', 'records', 'bytes'; got 'gpt-4'"
    assert error["code"] == "model_not_found"


def test_a_model_that_cannot_choose(http, monkeypatch):
    """Catches an error with status 200, or a text that just ends."""
    from charloom.inference.detokenizer import Detokenizer

    def fail(self, tokens):
        self.finish_reason = "error"
        return "", 0

    monkeypatch.setattr(Detokenizer, "take", fail)
    error = ask(http, 422, prompt="abc")["error"]
    assert error["message"].startswith("no character is left to choose")
