"""`charloom info`: the facts about a model, and about this installation."""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import version

import pytest

from charloom import kernels

pytestmark = pytest.mark.processor


def test_a_models_card(charloom, tiny):
    """Catches a fact that is missing, has no label, or belongs to another model."""
    facts = json.loads(charloom("info", tiny, "--json").out)
    assert facts["network"] == "lstm, 1 x 8, embedding input"
    weights = (tiny / "best" / "model.safetensors").stat().st_size
    assert 0 < weights - 4 * facts["parameters"] < 2000
    assert facts["metadata"]["corpus"] == "corpus"
    lines = charloom("info", tiny).out.splitlines()
    assert any(line.startswith("validation nats") and line.endswith("bits)") for line in lines)
    starts = {len(line) - len(line.partition("  ")[2].lstrip()) for line in lines}
    assert len(starts) == 1, "the values must stand below each other"


def test_this_installation(charloom):
    """Catches wrong versions, and a trainer that differs from the default engine of training."""
    facts = json.loads(charloom("info", "--json").out)
    assert facts["charloom"] == version("charloom")
    assert facts["numpy"] == version("numpy")
    assert facts["trains_with"].startswith("the kernels, in " if facts["kernels"] != "none" else "torch on ")
    assert "trains with" in charloom("info").out
    facts = json.loads(charloom("info", "--json", env={"CHARLOOM_KERNELS": "off"}).out)
    assert facts["trains_with"].startswith("torch on ")


def test_the_reason_is_one_short_line_and_the_details_are_asked_for(charloom):
    """Catches a list of CPU features without --verbose, and a missing reason with it."""
    missing = {name: why for name in kernels.VARIANTS if (why := kernels.obstacle(name))}
    assert missing, "no machine runs every variant"
    assert json.loads(charloom("info", "--json").out)["kernels_not_here"] == missing
    short, verbose = charloom("info").out, charloom("info", "--verbose").out
    assert max(map(len, short.splitlines())) <= 100
    for name, why in missing.items():
        assert why not in short
        assert any(line.startswith(name) and line.endswith(why) for line in verbose.splitlines())


def test_which_kernels_and_why(charloom):
    """Catches kernels that are named but not used, and other variants that are missing."""
    asked = os.environ.get(kernels.FORCE, "")  # not `off`, which is set if nothing is built
    facts = json.loads(charloom("info", "--json", env={kernels.FORCE: asked}).out)
    choice, runnable = kernels.chosen(), kernels.runnable()
    assert facts["kernels"] == choice.name
    assert facts["kernels_because"] == choice.reason
    assert f"chosen because   {choice.reason}" in charloom("info", env={kernels.FORCE: asked}).out
    assert facts["other_kernels"] == (", ".join(name for name in runnable if name != choice.name) or "none")
    facts = json.loads(charloom("info", "--json", env={"CHARLOOM_KERNELS": "off"}).out)
    assert (facts["kernels"], facts["kernels_because"]) == ("none", "CHARLOOM_KERNELS=off")
    assert facts["other_kernels"] == (", ".join(runnable) or "none")


def test_kernels_that_do_not_exist(charloom):
    """Catches a misspelt variable that is ignored."""
    ended = charloom("info", env={"CHARLOOM_KERNELS": "sse"})
    assert ended.status == 2
    assert ended.complaint.startswith("CHARLOOM_KERNELS must be one of amx, ")


def test_an_untrusted_model_cannot_control_the_terminal(charloom, tmp_path, tiny):
    """Catches escape codes, newlines and odd types in the metadata of an untrusted model."""
    shutil.copytree(tiny / "best", tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config["metadata"] = {"corpus": "\x1b[2Jgone\nfree", "validation_nats": "low", "characters": [1, None]}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    ended = charloom("info", "model")
    assert ended.status == 0
    assert "\x1b" not in ended.out
    assert "·[2Jgone free" in ended.out
