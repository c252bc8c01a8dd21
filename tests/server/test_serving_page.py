"""docs/serving.md: its commands and programs run, and its tables are true."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys

import pytest
from servers import PAGE, block, eventually, running

from charloom.data.vocabulary import Vocabulary
from charloom.model import Model
from charloom.server.completions import CompletionRequest
from charloom.server.errors import KINDS
from charloom.server.limits import ServerLimits
from charloom.server.metrics import Metrics
from charloom.server.served_models import ModelSource


@pytest.fixture(scope="module")
def english(tmp_path_factory):
    """A server whose model knows the letters of the page's examples, under the page's name."""
    from charloom.architecture import Architecture
    from charloom.checkpoint import ModelFolder
    from charloom.engines.initial import initial_parameters

    vocabulary = Vocabulary("characters", tuple("\n O" + "abcdefghijklmnopqrstuvwxyz"))
    sizes = Architecture(
        cell="gru",
        nonlinearity="tanh",
        layers=1,
        hidden=8,
        input="onehot",
        embedding=1,
        vocabulary_size=vocabulary.size,
    )
    place = tmp_path_factory.mktemp("page") / "my-1"
    Model(ModelFolder(sizes, vocabulary, initial_parameters(sizes, 0))).save(place)
    with running([ModelSource("my-1", str(place))]) as served:
        yield served


def test_the_curl_lines(english):
    """Catches a line that a reader copies and that fails."""
    if not shutil.which("curl"):
        pytest.skip("curl is missing")
    lines = [line for line in block("sh", 1).replace("\\\n", " ").splitlines() if line]
    assert len(lines) == 11
    for line in lines:
        command = shlex.split(line.replace("http://127.0.0.1:8000", english.url))
        ended = subprocess.run(
            [*command, "--silent", "--show-error", "--fail-with-body"], capture_output=True, text=True
        )
        assert ended.returncode == 0, (line, ended.stdout, ended.stderr)
        assert ended.stdout
    eventually(english.idle)


def test_the_python_program(english):
    """Catches an example for another version of the client."""
    program = block("python").replace("http://127.0.0.1:8000", english.url)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout) > 150


def test_the_javascript_program(english):
    """Catches an example that no browser runs."""
    if not shutil.which("node"):
        pytest.skip("node is missing")
    program = block("js").replace("http://127.0.0.1:8000", english.url)
    ended = subprocess.run(["node", "--input-type=module", "-e", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout) > 90


def first_cells(heading: str) -> list[str]:
    """The first cells of the table below a heading."""
    table = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:]


def test_the_table_of_fields():
    """Catches a field that the page leaves out."""
    named = {name for cell in first_cells("Fields of a request") for name in re.findall(r"`(\w+)`", cell)}
    assert named == CompletionRequest.model_fields.keys() - {"best_of", "frequency_penalty", "presence_penalty", "user"}


def test_the_table_of_metrics():
    """Catches a metric that the page leaves out, or that has another name."""
    metrics = Metrics()
    metrics.refuse(400)
    metrics.ended.labels("a", "stop")
    named = {family.name + "_total" * (family.type == "counter") for family in metrics.families()}
    assert {cell.strip("`") for cell in first_cells("Metrics")} == named


def test_the_table_of_limits():
    """Catches a limit that changed and is not what the page says."""
    limits = ServerLimits()
    numbers = {f"{limits.sequences}", f"{limits.prompt_tokens:,}", f"{limits.logprobs:,}", f"{limits.connections:,}"}
    numbers |= {f"{limits.request_seconds:g} s", f"{limits.send_seconds:g} s", f"{limits.body_bytes >> 20} MiB"}
    text = PAGE.partition("\n## Limits\n")[2].partition("\n## ")[0]
    assert all(f"| {number} |" in text for number in numbers)
    assert f"Running ones get {limits.grace_seconds:g} seconds" in text
    assert limits.prompt_tokens == limits.generated_tokens == limits.trace_numbers


def test_the_table_of_errors():
    """Catches a status that the page leaves out."""
    from charloom.server.app import ERRORS

    assert {int(cell) for cell in first_cells("Errors")} == ERRORS.keys()
    assert KINDS.keys() <= ERRORS.keys()
