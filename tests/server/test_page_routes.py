"""The routes of the web page: facts about a model, and how it reads a text."""

from __future__ import annotations

import io
import math
import zipfile

import numpy as np
import pytest
from servers import make_folder, running, sources

from charloom.checkpoint import save_model
from charloom.evaluation.characters import per_character
from charloom.evaluation.text import encoded
from charloom.model import Model
from charloom.server.limits import ServerLimits
from charloom.server.served_models import ModelSource

TEXTS = {"letters": "bad cab\nfed", "records": "abcd", "bytes": "aé漢🙂"}


def test_the_page_allows_only_its_own_scripts(http):
    """Catches a page that runs what a model's folder or another server holds, or that another page puts in a frame."""
    page = http.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "<script>" not in page.text
    assert "style=" not in page.text
    assert "onclick" not in page.text
    assert page.headers["x-content-type-options"] == "nosniff"


def test_state(http, folders):
    """Catches a page that offers training where the server does not train."""
    state = http.get("/app/state").json()
    assert state["training"] is False
    assert state["folder"] is None
    assert [model["name"] for model in state["models"]] == [*folders]
    assert len(state["colours"]) == 10
    assert state["colours"][0] is None
    assert state["colours"][9] == ["#000000", "#f51945"]


@pytest.mark.parametrize("name", TEXTS)
def test_what_a_model_says_about_each_character(http, models, name):
    """Catches other figures than those of `charloom eval --heat`, and tokens at wrong places of the text."""
    text, model = TEXTS[name], models[name]
    found = http.post("/app/look", json={"model": name, "text": text}).json()
    assert found["text"] == text
    nats = np.zeros(len(text))
    for place, value in zip(found["places"], found["nats"], strict=True):
        nats[place] += math.nan if value is None else value
    (expected,) = per_character(model.folder, encoded(model.folder, text, "error"))
    # the text of a model of records begins and ends with a separator there
    np.testing.assert_allclose(nats, expected.nats_C[expected.text.index(text[0]) :][: len(text)], rtol=1e-4)


def test_ranks_and_the_likeliest(http, models):
    """Catches a rank counted from 0, a list in a wrong order, and more than ten entries."""
    text = TEXTS["bytes"]
    found = http.post("/app/look", json={"model": "bytes", "text": text}).json()
    probabilities_TV = models["bytes"].trace(text).probabilities_TV
    ids = text.encode()
    assert found["ranks"][0] is None
    assert found["top"][0] is None
    for place, (rank, top) in enumerate(zip(found["ranks"][1:], found["top"][1:], strict=True)):
        own = probabilities_TV[place, ids[place + 1]]
        position = 1 + int((probabilities_TV[place] > own).sum())
        assert rank == (position if position <= 20 else None)
        np.testing.assert_allclose(
            [math.exp(logprob) for _, logprob in top], np.sort(probabilities_TV[place])[::-1][:10], rtol=1e-3
        )
        assert len(top) == 10


@pytest.mark.parametrize(("name", "array"), [("letters", "cell"), ("letters", "forget_gate"), ("records", "hidden")])
def test_values_of_a_unit(http, models, name, array):
    """Catches the value of another unit, layer or step."""
    asked = {"model": name, "text": TEXTS[name], "layer": 1, "unit": 7, "array": array}
    values = http.post("/app/unit", json=asked).json()["values"]
    expected = getattr(models[name].trace(TEXTS[name]).layers[1], f"{array}_TH")[-len(TEXTS[name]) :, 7]
    np.testing.assert_allclose(values, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("path", "asked", "says"),
    [
        ("look", {"text": ""}, "must have from 1 to 4,000 tokens"),
        ("look", {"text": "a" * 4001}, "found 4,001"),
        ("look", {"text": "xyz"}, "is not in this model's vocabulary"),
        ("look", {"text": 3}, "text"),
        ("unit", {"text": "a", "unit": 20}, "must be below 2 and 20"),
        ("unit", {"text": "a", "layer": 2}, "must be below 2 and 20"),
        ("unit", {"text": "a", "array": "__class__"}, "must be one of input_gate"),
    ],
)
def test_a_wrong_request(http, path, asked, says):
    """Catches a traceback, and a name of a client that becomes an attribute."""
    answer = http.post(f"/app/{path}", json=asked)
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]


def test_facts_and_card(http, folders):
    """Catches facts of another model."""
    found = http.get("/app/models/records").json()
    assert found["facts"]["network"].startswith("gru, 2 x 20")
    assert found["card"].startswith("---\nlibrary_name: charloom")
    assert found["folder"] == str(folders["records"])
    assert (found["layers"], found["hidden"], found["unit"]) == (2, 20, "char")
    assert found["arrays"] == ["reset_gate", "update_gate", "candidate", "hidden"]
    assert http.get("/app/models/nobody").status_code == 404


def test_a_download_is_a_model(http, models, tmp_path):
    """Catches a .zip that charloom cannot load, or that holds more than the model."""
    answer = http.get("/app/models/letters/download")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert sorted(archive.namelist()) == [
            f"letters/{file}" for file in ("README.md", "config.json", "model.safetensors", "vocabulary.json")
        ]
        archive.extractall(tmp_path)
    again = Model.load(tmp_path / "letters")
    assert again.generate("a", length=50, seed=3) == models["letters"].generate("a", length=50, seed=3)


def test_a_download_of_a_name_like_a_path(tmp_path):
    """Catches a .zip whose entries leave the folder into which it is unpacked."""
    save_model(tmp_path / "model", make_folder("letters"))
    with running([ModelSource("../../x", str(tmp_path / "model"))]) as server, server.client() as client:
        answer = client.get("/app/models/..%2F..%2Fx/download")
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert all(name.startswith("------x/") for name in archive.namelist())


def test_compressors(http):
    """Catches an error for a model that has no run beside it."""
    assert http.get("/app/models/letters/compressors").json() is None


def test_the_limit_of_a_text(folders):
    """Catches a limit that is not the server's."""
    with running(sources(folders), limits=ServerLimits(look_tokens=5)) as server, server.client() as client:
        assert client.post("/app/look", json={"text": "abcde"}).status_code == 200
        assert client.post("/app/look", json={"text": "abcdef"}).status_code == 400
