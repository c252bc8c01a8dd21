"""The other routes: models, tokens, traces, health, metrics, reloads, and everything that does not exist."""

from __future__ import annotations

import json
import re
import shutil
import threading

import numpy as np
import pytest
from servers import eventually, make_folder, running, sources

from charloom.checkpoint import save_model
from charloom.model import Model
from charloom.server.served_models import LoadedModel, ModelSource, ServedModel


def test_models(http):
    """Catches a list that the official client cannot read."""
    listed = http.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [card["id"] for card in listed["data"]] == ["letters", "records", "bytes"]
    for card in listed["data"]:
        assert http.get(f"/v1/models/{card['id']}").json() == card
        assert card["object"] == "model"
    answer = http.get("/v1/models/other/one")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("name", "text"), [("letters", "abc\u2028h"), ("records", "ab\n\ncd"), ("bytes", "Zoë\x00€😀")]
)
def test_tokens(http, models, name, text):
    """Catches ids that do not give the text back."""
    answer = http.post("/tokenize", json={"model": name, "prompt": text}).json()
    assert answer["tokens"] == models[name].tokenize(text)
    assert answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == 2**18
    assert http.post("/detokenize", json={"model": name, "tokens": answer["tokens"]}).json() == {"prompt": text}


def test_half_a_character_is_no_surrogate(http):
    """Catches a lone surrogate on the wire, which most clients cannot read."""
    assert http.post("/detokenize", json={"model": "bytes", "tokens": [65, 0xE2, 0x82]}).json() == {"prompt": "A\ufffd"}
    answer = http.post("/detokenize", json={"tokens": [1, 99]})
    assert answer.status_code == 400
    assert "token ids from 0 to 10; got 99" in answer.json()["error"]["message"]


def test_a_trace(http, models):
    """Catches a trace that is not the model's, and a gradient that is not asked for."""
    fields = {"model": "records", "text": "abca", "gradients_of": 2, "window": 1}
    answer = http.post("/v1/trace", json=fields).json()
    expected = models["records"].trace("abca", gradients_of=2, window=1).to_json()
    assert answer.keys() == expected.keys()
    assert answer["tokens"] == ["<separator>", "a", "b", "c", "a"]
    for name, values in expected.items():
        if name != "tokens":
            assert np.allclose(np.array(answer[name], float), np.array(values, float))
    assert "gradients.step" not in http.post("/v1/trace", json={"text": "abc"}).json()
    wrong = http.post("/v1/trace", json={"text": "abc", "gradients_of": 7})
    assert wrong.status_code == 400
    assert wrong.json()["error"]["param"] == "gradients_of"


def test_what_does_not_exist(http):
    """Catches an HTML page or a traceback in place of an error, and a chat that is answered by a 404 without a word."""
    answer = http.get("/v2")
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        404,
        "there is no /v2 here; /openapi.json lists what there is",
    )
    answer = http.put("/v1/models", json={})
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        405,
        "/v1/models does not answer PUT; /openapi.json lists what it answers",
    )
    assert http.delete("/v1/models").status_code == 405
    answer = http.post("/v1/chat/completions", json={"messages": []})
    assert answer.status_code == 404
    assert (
        answer.json()["error"]["message"] == "these are completion models, without a chat format; use /v1/completions"
    )


def samples(http):
    """The values of /metrics by name and labels."""
    lines = [line for line in http.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_metrics(http):
    """Catches a counter that does not count, counts prompts n times, or belongs to another model."""
    before = samples(http)
    http.post("/v1/completions", json={"model": "records", "prompt": ["abc", "d"], "n": 3, "max_tokens": 7})
    http.post("/v1/completions", json={"model": "records", "prompt": "abc", "max_tokens": 7, "stream": True})
    http.post("/v1/completions", json={"model": "records", "prompt": "xyz"})
    http.post("/v1/completions", json={"model": "other"})
    http.post("/v1/completions", headers={"Origin": "https://evil.example"}, json={})
    now = samples(http)
    growth = {name: value - before.get(name, 0) for name, value in now.items() if value != before.get(name, 0)}
    expected = {
        'charloom_prompt_tokens_total{model="records"}': 7,
        'charloom_generated_tokens_total{model="records"}': 49,
        'charloom_sequences_total{model="records",reason="length"}': 7,
        'charloom_refusals_total{model="records",status="400"}': 1,
        'charloom_refusals_total{model="",status="404"}': 1,
        'charloom_refusals_total{model="",status="403"}': 1,
        'charloom_time_to_first_token_seconds_count{model="records"}': 7,
    }
    assert {name: growth.get(name) for name in expected} == expected
    assert growth['charloom_busy_slots_count{model="records"}'] > 0
    assert now['charloom_requests_running{model="records"}'] == now['charloom_requests_waiting{model="records"}'] == 0


def test_metrics_while_texts_run(folders, slow):
    """Catches gauges that are always 0, and chunks whose times are not measured."""
    with running(sources(folders)[:1], slots=2) as served, served.client() as http, served.client() as other:
        fields = {"prompt": "abc", "n": 3, "max_tokens": 50_000, "stream": True}
        with http.stream("POST", "/v1/completions", json=fields) as answer:
            lines = answer.iter_lines()
            for _ in range(9):
                next(lines)
            found = samples(other)
            assert found['charloom_requests_running{model="letters"}'] == 2
            assert found['charloom_requests_waiting{model="letters"}'] == 1
            eventually(lambda: samples(other).get('charloom_time_between_chunks_seconds_count{model="letters"}', 0) > 0)
        eventually(served.idle)


def test_every_route_is_documented(http):
    """Catches a route that the OpenAPI document leaves out, and a schema that it names and lacks."""
    document = http.get("/openapi.json").json()
    assert set(document["paths"]) == {
        *("/health", "/metrics", "/v1/models", "/v1/models/{name}", "/v1/completions", "/tokenize", "/detokenize"),
        *("/v1/trace", "/admin/reload"),
    }
    assert http.head("/health").status_code == 200
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert named <= document["components"]["schemas"].keys()
    assert document["components"]["schemas"]["CompletionRequest"]["additionalProperties"] is False


def test_health_while_a_model_loads(folders, monkeypatch):
    """Catches a server that says that it is ready before its model is."""
    go, load = threading.Event(), ServedModel._load
    monkeypatch.setattr(ServedModel, "_load", lambda self: (go.wait(60), load(self))[1])
    with running(sources(folders)[:1], ready=False) as served, served.client() as http:
        try:
            answer = http.get("/health")
            assert (answer.status_code, answer.json()) == (503, {"status": "loading"})
            for answer in (http.post("/v1/completions", json={}), http.get("/v1/models")):
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert answer.json()["error"]["message"] == "the model 'letters' is loading; ask again in a moment"
        finally:
            go.set()
        eventually(lambda: http.get("/health").status_code == 200)
        assert http.get("/health").json() == {"status": "ok"}


@pytest.fixture
def changing(tmp_path):
    """A server whose model a test may replace, and a function that does."""
    place = tmp_path / "run" / "best"
    place.parent.mkdir()
    save_model(place, make_folder("letters", seed=1))
    with running([ModelSource("run", str(tmp_path / "run"))]) as served:
        yield served, lambda seed: save_model(place, make_folder("letters", seed=seed))


def test_a_reload(changing, slow):
    """Catches weights that change under a text in progress, and a reload without effect."""
    served, replace = changing
    asked = {"prompt": "abc", "max_tokens": 300, "seed": 1}
    with served.client() as http, served.client() as other:
        with http.stream("POST", "/v1/completions", json=asked | {"stream": True}) as answer:
            eventually(lambda: served.sum("running") == 1)
            replace(2)
            assert other.post("/admin/reload", json={"model": "run"}).json() == {"reloaded": ["run"]}
            assert served.sum("running") == 1, "the reload must come while the text is in progress"
            new = other.post("/v1/completions", json=asked).json()["choices"][0]["text"]
            events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]
        old = "".join(event["choices"][0]["text"] for event in events)
        assert old == Model(make_folder("letters", seed=1)).generate("abc", 300, seed=1)
        assert new == Model(make_folder("letters", seed=2)).generate("abc", 300, seed=1)


def test_a_request_that_was_read_before_a_reload(changing, monkeypatch):
    """Catches token ids of one vocabulary that are given to a model with another."""
    served, replace = changing
    made = LoadedModel.names
    with served.client() as http:
        model = served.running.models.models["run"]
        submit = model.submit

        async def late(loaded, requests):
            replace(2)
            await model.load()
            return await submit(loaded, requests)

        monkeypatch.setattr(model, "submit", late)
        text = http.post("/v1/completions", json={"prompt": "abc", "seed": 1}).json()["choices"][0]["text"]
        assert text == Model(make_folder("letters", seed=1)).generate("abc", 16, seed=1)
    assert made is LoadedModel.names


def test_a_reload_of_a_damaged_folder(changing, tmp_path):
    """Catches a server that ends, or answers 500, because a training was interrupted."""
    served, _ = changing
    (tmp_path / "run" / "best" / "model.safetensors").write_bytes(b"x")
    with served.client() as http:
        before = http.post("/v1/completions", json={"seed": 1}).json()["choices"]
        answer = http.post("/admin/reload", json={})
        assert answer.status_code == 409
        assert answer.json()["error"]["message"].startswith(
            "run keeps its weights, because its folder cannot be loaded: "
        )
        shutil.rmtree(tmp_path / "run")
        assert http.post("/admin/reload", json={}).status_code == 409
        assert http.post("/v1/completions", json={"seed": 1}).json()["choices"] == before
        assert http.post("/admin/reload", json={"model": "x"}).status_code == 404


def test_reloads_one_after_the_other(changing, slow):
    """Catches weights that pile up in memory while one long text runs."""
    served, _ = changing
    with served.client() as http, served.client() as other:
        with http.stream("POST", "/v1/completions", json={"max_tokens": 50_000, "stream": True}):
            eventually(lambda: served.sum("running") == 1)
            assert other.post("/admin/reload", json={}).status_code == 200
            answer = other.post("/admin/reload", json={})
            assert answer.status_code == 409
            assert answer.json()["error"]["message"].startswith("one reload of 'run' must end before the next")
        eventually(served.idle)
        eventually(lambda: other.post("/admin/reload", json={}).status_code == 200)


def test_a_scheduler_that_fails(folders, monkeypatch, caplog):
    """Catches clients that wait for ever, and a server that says that it is well."""
    from charloom.inference.scheduler import Scheduler

    with running(sources(folders)[:1]) as served, served.client() as http:
        monkeypatch.setattr(Scheduler, "update", lambda self: 1 / 0)
        answer = http.post("/v1/completions", json={})
        assert answer.status_code == 500
        assert answer.json()["error"]["message"].startswith("this is a bug in charloom, ZeroDivisionError; the log")
        assert "division by zero" in caplog.text
        assert (http.get("/health").status_code, http.get("/health").json()) == (503, {"status": "failed"})
        assert http.post("/v1/completions", json={}).status_code == 503
