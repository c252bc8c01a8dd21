"""The tab Train: from a text to a model, by mouse and by keyboard, and everything that can interrupt it."""

from __future__ import annotations

import os
import pydoc_data.topics
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from apps import app_command, client_of
from axe_playwright_python.sync_playwright import Axe
from pages import App, Problems
from playwright.sync_api import Page, expect
from servers import Served, eventually, running

from charloom.model import Model

TEXT = "\n".join(pydoc_data.topics.topics.values())[:100_000].encode()
MINUTES = "0.34"
"""Twenty seconds."""

SHORT = os.environ.get("CHARLOOM_KEYBOARD_MINUTES", "0.1")
"""The same for the way by keyboard; shorter, because the way is the test. Read before tests get their environment."""

LONG = "3"
"""Minutes that no test waits for."""

FINISHED = re.compile(": finished$")
TRAINING = re.compile(": training$")
STOPPED = re.compile(": stopped$")
TRAINED = 60_000
"""Milliseconds after which a training of twenty seconds counts as missing."""

MOST_BYTES = 200_000
"""Of the picture in README.md."""

PICTURE = os.path.abspath(os.environ.get("CHARLOOM_PICTURE", "")) if "CHARLOOM_PICTURE" in os.environ else None
"""Where to keep it; read before the tests get an environment of their own."""


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Served]:
    """`charloom app` with an empty folder."""
    with running([], app_folder=tmp_path / "app") as server:
        yield server


@pytest.fixture
def app(trainer: Served, opened: Callable[..., Page]) -> App:
    """Its page, which begins with training, because there is no model yet."""
    made = App(opened(f"{trainer.url}/"), trainer)
    expect(made.at("train")).to_be_visible()
    return made


def choose(app: App, name: str = "topics.txt", content: bytes = TEXT) -> None:
    """Chooses a file, as in the dialog of the system."""
    app.at("files").set_input_files([{"name": name, "mimeType": "text/plain", "buffer": content}])
    expect(app.at("chosen").locator("li")).to_have_count(1)


def drop(app: App, name: str, content: bytes) -> None:
    """Drops a file on the page."""
    files = app.page.evaluate_handle(
        """([name, text]) => {
            const files = new DataTransfer();
            files.items.add(new File([text], name));
            return files;
        }""",
        [name, content.decode()],
    )
    app.at("drop").dispatch_event("dragover", {"dataTransfer": files})
    app.at("drop").dispatch_event("drop", {"dataTransfer": files})


def begin(app: App, minutes: str = LONG) -> None:
    """Presses Train, and waits for the first point of the curve."""
    app.fill(minutes=minutes)
    app.at("train-go").click()
    expect(app.at("run-title")).to_have_text(TRAINING, timeout=TRAINED)
    expect(app.at("run-line")).to_contain_text("step ", timeout=TRAINED)


def stop(app: App) -> None:
    """Presses Stop."""
    app.at("train-stop").click()
    expect(app.at("run-title")).to_have_text(STOPPED, timeout=TRAINED)


def press(app: App, run: str, action: str) -> None:
    """Presses a button in the list of runs."""
    app.page.get_by_role("button", name=f"{action} {run}").click()


def reach(app: App, name: str) -> None:
    """Presses Tab until an element has the focus."""
    for _ in range(40):
        if app.page.evaluate("() => document.activeElement.id") == name:
            return
        app.page.keyboard.press("Tab")
    raise AssertionError(f"the Tab key does not reach {name}")


def text_of(run: Path, prompt: str, seed: int) -> str:
    """What the best model of a run generates for the settings that the page begins with."""
    return prompt + Model.load(run).generate(prompt, length=500, temperature=0.8, seed=seed)


def test_from_a_dropped_file_to_a_text_by_mouse(app: App, tmp_path: Path):
    """Catches a step of the way that is missing: the drop, the curve, the samples, the verdict, the model."""
    drop(app, "topics.txt", TEXT)
    expect(app.at("chosen")).to_contain_text(f"topics.txt, {len(TEXT):,} bytes")
    begin(app, MINUTES)
    expect(app.at("left")).to_contain_text("left")
    expect(app.at("run-title")).to_have_text(FINISHED, timeout=TRAINED)
    assert len(app.page.locator("#chart polyline.training").get_attribute("points").split()) > 2
    assert app.page.locator("#chart .dot").count() >= 2
    assert app.page.locator("#samples .text").count() >= 2
    expect(app.at("verdict")).to_contain_text("nats/char")
    expect(app.at("runs")).to_contain_text("topics-1")
    app.at("open-model").click()
    expect(app.at("model")).to_have_value("topics-1")
    app.at("text").fill("The ")
    assert app.go() == text_of(tmp_path / "app" / "runs" / "topics-1", "The ", app.seed)
    picture(app)


def picture(app: App) -> None:
    """The picture of README.md."""
    app.page.set_viewport_size({"width": 960, "height": 1000})
    app.tab("Train")
    app.page.evaluate("() => { document.querySelector('#run-title').scrollIntoView(); }")
    made = app.page.screenshot()
    assert made.startswith(b"\x89PNG")
    assert len(made) < MOST_BYTES
    if PICTURE:
        Path(PICTURE).write_bytes(made)


def test_the_same_by_keyboard_alone(app: App, tmp_path: Path):
    """Catches a control that the keyboard does not reach, or that only a mouse can use."""
    keys, file = app.page.keyboard, tmp_path / "topics.txt"
    app.page.on("filechooser", lambda chooser: None)  # Playwright takes a moment until it sees one
    file.write_bytes(TEXT)
    reach(app, "files")
    with app.page.expect_file_chooser() as chooser:
        keys.press("Enter")
    chooser.value.set_files(file)
    reach(app, "minutes")
    keys.press("Control+A")
    keys.type(SHORT)
    reach(app, "train-go")
    keys.press("Enter")
    expect(app.at("run-title")).to_have_text(FINISHED, timeout=TRAINED)
    expect(app.at("open-model")).to_be_visible()
    reach(app, "open-model")
    keys.press("Enter")
    expect(app.at("generate")).to_be_visible()
    reach(app, "text")
    keys.type("The ")
    keys.press("Control+Enter")
    assert app.ended() == text_of(tmp_path / "app" / "runs" / "topics-1", "The ", app.seed)


def test_the_plan(app: App):
    """Catches a plan without its reasons, and a text that is sent again for each request."""
    sent = []
    app.page.on("request", lambda request: request.method == "PUT" and sent.append(request.url))
    choose(app)
    app.at("plan").click()
    plan = app.at("planned")
    expect(plan).to_contain_text(f"{len(TEXT.decode()):,} characters", timeout=TRAINED)
    expect(plan.locator("pre")).to_contain_text(TEXT.decode()[:50].strip())
    expect(plan.get_by_role("row", name="weight decay")).to_contain_text("best for")
    app.at("plan").click()
    expect(app.at("train-status")).to_have_text("")
    assert len(sent) == 1
    app.at("pasted").fill("One more text. " * 200)
    app.at("records").select_option("sentence")
    app.at("plan").click()
    expect(plan).to_contain_text("records", timeout=TRAINED)
    assert len(sent) == 3
    app.page.get_by_role("button", name="Remove topics.txt").click()
    expect(app.at("chosen").locator("li")).to_have_count(0)


def test_stop_reload_and_resume(app: App, trainer: Served, tmp_path: Path):
    """Catches a run that a closed page ends, a Stop that loses steps, and a Resume that begins again."""
    choose(app)
    begin(app)
    app.page.reload()
    app.tab("Train")
    expect(app.at("run-title")).to_have_text(TRAINING)
    expect(app.at("train-go")).to_be_disabled()
    stop(app)
    steps = steps_of(app)
    press(app, "topics-1", "Resume")
    expect(app.at("run-title")).to_have_text(TRAINING, timeout=TRAINED)
    eventually(lambda: steps_of(app) > steps, "a later step")
    stop(app)
    press(app, "topics-1", "Fine-tune")
    expect(app.at("from")).to_have_value("topics-1")
    choose(app, "other.txt", TEXT.decode()[::-1].encode())
    begin(app)
    press(app, "topics-1", "Show")
    expect(app.at("run-title")).to_have_text(re.compile("^topics-1: stopped"))
    show = app.page.get_by_role("button", name="Show other-1")
    show.focus()
    app.page.wait_for_timeout(1500)  # the list is drawn again meanwhile
    expect(show).to_be_focused()
    expect(app.at("run-title")).to_have_text(re.compile("^topics-1: stopped"))
    app.page.keyboard.press("Enter")
    expect(app.at("run-title")).to_have_text(re.compile("^other-1: training"))
    stop(app)
    expect(app.page.get_by_role("row", name="other-1")).to_contain_text("from topics-1")
    press(app, "topics-1", "Show")
    expect(app.at("run-title")).to_have_text(re.compile("^topics-1: stopped"))
    press(app, "other-1", "Open")
    expect(app.at("model")).to_have_value("other-1")


def steps_of(app: App) -> int:
    """The step that the page shows."""
    found = re.search(r"step ([\d,]+)", app.at("run-line").inner_text())
    return int(found[1].replace(",", "")) if found else 0


def test_two_pages_press_train(app: App, trainer: Served, opened: Callable[..., Page], problems: Problems):
    """Catches two runs at the same time, and a second page that does not see the run of the first one."""
    problems.expect("409")
    second = App(opened(f"{trainer.url}/"), trainer)
    choose(second, "second.txt")
    choose(app)
    second.page.route("**/app/runs", lambda route: None)  # it does not hear of the other one
    for page in (app, second):
        page.fill(minutes=LONG)
    app.at("train-go").click()
    expect(app.at("run")).to_be_visible()
    second.at("train-go").click()
    expect(second.at("problem")).to_contain_text("one run at a time; topics-1 trains")
    second.page.unroute_all()
    second.page.reload()
    second.tab("Train")
    expect(second.at("run-title")).to_contain_text("topics-1", timeout=TRAINED)
    expect(second.at("run-title")).to_have_text(TRAINING, timeout=TRAINED)
    stop(second)


@pytest.mark.parametrize(
    ("name", "content", "minutes", "says"),
    [
        (None, b"", "1", "A run needs a text"),
        ("empty.txt", b"", "1", "empty.txt"),
        ("binary.txt", bytes(range(256)) * 40, "1", "binary.txt"),
        ("topics.txt", TEXT, "0", "Minutes must be a number above 0."),
    ],
)
def test_mistakes(app: App, problems: Problems, name: str | None, content: bytes, minutes: str, says: str):
    """Catches a mistake that gets no line, or more than one."""
    if name is not None:
        choose(app, name, content)
    if "txt" in says:
        problems.expect("400|console")
    app.at("minutes").fill(minutes)
    app.at("plan").click()
    expect(app.at("problem")).to_contain_text(says, timeout=TRAINED)
    assert "\n" not in app.at("problem").inner_text()


def test_hostile_names_and_texts(app: App, tmp_path: Path):
    """Catches a name that becomes a path or a tag, and a text that runs as a script (`problems` sees its dialog)."""
    outside = set(tmp_path.iterdir())
    content = b"<script>alert(1)</script> <img src=x onerror=alert(2)> \x1b[31mred\x1b[0m \xe2\x80\xae " * 400
    choose(app, "../../<img src=x onerror=alert(3)>.txt", content)
    app.at("plan").click()
    expect(app.at("planned").locator("pre")).to_contain_text("<script>alert(1)</script>", timeout=TRAINED)
    begin(app, "1")
    expect(app.page.locator("#samples .text").first).to_be_visible(timeout=TRAINED)
    stop(app)
    assert set(tmp_path.iterdir()) - outside <= {tmp_path / "app"}
    assert app.page.locator("main img, main script").count() == 0
    (run,) = (tmp_path / "app" / "runs").iterdir()
    assert re.fullmatch(r"[a-z0-9-]+", run.name)


def test_a_killed_server(opened: Callable[..., Page], problems: Problems, tmp_path: Path):
    """Catches a run that is lost, that trains on without a server, or that cannot be resumed."""
    problems.expect("ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET|request:")
    folder = tmp_path / "app"
    with app_command(folder) as command:
        port = int(command.url.rpartition(":")[2])
        app = App(opened(command.url), None)
        expect(app.at("train")).to_be_visible()
        choose(app)
        begin(app)
        command.process.kill()
        command.ended()
        expect(app.at("problem")).to_contain_text("The server does not answer")
    with app_command(folder, port=port):
        expect(app.page.get_by_role("row", name="topics-1")).to_contain_text("stopped", timeout=TRAINED)
        before = steps_of(app)
        press(app, "topics-1", "Resume")
        expect(app.at("run-title")).to_have_text(TRAINING, timeout=TRAINED)
        eventually(lambda: steps_of(app) > before, "a later step")
        stop(app)
        app.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_accessible_and_narrow(opened: Callable[..., Page], finished_app: str, width: int, scheme: str):
    """Catches colours without contrast, controls without a name, and a page that scrolls sideways."""
    app = App(opened(finished_app, viewport={"width": width, "height": 800}, color_scheme=scheme), None)
    app.tab("Train")
    press(app, "short-1", "Show")
    expect(app.at("run-title")).to_have_text(STOPPED)
    for summary in app.page.locator("#train summary").all():
        if summary.is_visible():
            summary.click()
    found = Axe().run(app.page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
    assert app.page.evaluate("() => document.documentElement.scrollWidth") <= width


@pytest.fixture(scope="module")
def finished_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an app that has a run."""
    with running([], app_folder=tmp_path_factory.mktemp("finished") / "app") as server:
        with client_of(server.url) as client:
            client.put(TEXT, name="short.txt")
            run = client.train(float(LONG)).json()["run"]
            eventually(lambda: client.steps(run) > 1, "two steps")
            client.post("stop")
            client.wait_for(run, "stopped")
        yield f"{server.url}/"
