"""Log-probabilities: of every token of the text, and of nothing else."""

from __future__ import annotations

import math

import pytest

from charloom.inference import scheduler
from charloom.inference.sequence import TokenLogprobs


def ask(http, **fields):
    answer = http.post("/v1/completions", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def check(choice, top):
    """The invariants of log-probabilities for a text of whole characters."""
    found = choice["logprobs"]
    assert "".join(found["tokens"]) == choice["text"]
    place = 0
    for token, offset in zip(found["tokens"], found["text_offset"], strict=True):
        assert offset == place
        place += len(token)
    for token, own, most in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True):
        if own is not None:
            assert most[token] == own
            assert top <= len(most) <= top + 1 or top == 0
            assert max(most.values()) <= 0


@pytest.mark.parametrize("top", [0, 1, 5])
@pytest.mark.parametrize("stop", [None, "a", "gd"])
def test_the_tokens_are_the_text(http, top, stop):
    """Catches tokens of a stop string, a chosen token without its own figure, and wrong places."""
    for seed in range(3):
        choice = ask(http, prompt="abc", max_tokens=40, seed=seed, logprobs=top, stop=stop)
        check(choice, top)
        assert None not in choice["logprobs"]["token_logprobs"]


def test_records(http):
    """Catches a separator as a lone surrogate, one that counts as one character, and a token after the text."""
    choice = ask(http, model="records", max_tokens=300, records=4, seed=2, logprobs=1, echo=True, prompt="ab\ncd")
    check(choice, 1)
    assert choice["logprobs"]["tokens"].count("\n\n") == 4


def test_scoring_gives_the_score(http, models):
    """Catches a figure that is not that of the text: their sum must be the model's own score."""
    for name, text in (("letters", "abc\nhgf" * 20), ("records", "abcd\n\ndcba"), ("bytes", "Zoë sagt: ‚ja‘")):
        choice = ask(http, model=name, prompt=text, max_tokens=0, echo=True, logprobs=0)
        figures = choice["logprobs"]["token_logprobs"]
        score = models[name].score(text)
        assert -sum(figure for figure in figures if figure is not None) == pytest.approx(score.nats, rel=1e-4)
        assert (figures[0] is None) == (name != "records")  # a record is predicted from its separator on
        assert None not in figures[1:]
        assert len(figures) == len(choice["logprobs"]["top_logprobs"]) == len(choice["logprobs"]["text_offset"])


def test_a_prompt_of_nothing(http):
    """Catches a first token without anything before it, on a model that reads a newline first."""
    choice = ask(http, prompt="", max_tokens=0, echo=True, logprobs=1)
    assert choice["text"] == ""
    assert choice["logprobs"]["tokens"] == []


def test_bytes_are_bytes(http):
    """Catches half a character as text, and bytes that stand elsewhere than their character."""
    choice = ask(http, model="bytes", prompt="aé€", max_tokens=0, echo=True, logprobs=0)
    found = choice["logprobs"]
    assert found["tokens"] == ["a", *(rf"bytes:\x{byte:02x}" for byte in "é€".encode())]
    assert found["text_offset"] == [0, 1, 1, 2, 2, 2]
    for seed in range(3):
        made = ask(http, model="bytes", prompt="é", max_tokens=40, seed=seed, logprobs=5, temperature=1.5)
        assert len(made["logprobs"]["tokens"]) == 40, "also the bytes of a last character that is not complete"
        assert all(0 <= place <= len(made["text"]) for place in made["logprobs"]["text_offset"])
        assert not any(0xD800 <= ord(character) < 0xE000 for character in made["text"])


def test_minus_infinity(http, monkeypatch):
    """Catches a number that JSON lacks."""
    monkeypatch.setattr(scheduler, "_logprobs", lambda decoded, row, top: [TokenLogprobs(1, -math.inf)] * 9)
    assert ask(http, prompt="abc", max_tokens=1, logprobs=0)["logprobs"]["token_logprobs"] == [-9999.0]
