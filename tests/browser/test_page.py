"""The page as a whole: tabs, the keyboard, narrow screens, accessibility, the key, and text from elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from servers import ModelSource, make_folder, running

from charloom.checkpoint import save_model
from charloom.server.guard import Access
from charloom.server.page_routes import POLICY

HOSTILE = "<img src=x onerror=alert(1)>"
METADATA = {
    "corpus": "<script>alert(2)</script><b id=injected>\x1b[31mred\x1b]0;title\x07\u202etxt",
    "prompt": "</textarea><img src=y onerror=alert(3)>",
    "split": "<iframe src=javascript:alert(4)></iframe>",
}
TABS = ["Generate", "Look", "About"]


def filled(app):
    """The page with something in every tab."""
    app.fill(length=300, count=2, seed=1)
    app.at("text").fill("ab" * 100)
    app.go()
    app.tab("Look")
    app.at("second").select_option("bytes")
    app.look("abcd efgh\n" * 20)
    app.page.locator("#looks .ch").nth(5).click()
    app.tab("About")
    expect(app.at("about-name")).to_have_text("letters")
    app.tab("Generate")


def test_tabs(app):
    """Catches a tab that shows another panel, an arrow key that stops at an end, and an address without the tab."""
    tabs = [app.page.get_by_role("tab", name=name) for name in TABS]
    for name, tab in zip(TABS, tabs, strict=True):
        tab.click()
        expect(app.page.get_by_role("tabpanel")).to_have_count(1)
        expect(app.page.get_by_role("tabpanel", name=name)).to_be_visible()
        assert [each.get_attribute("aria-selected") for each in tabs] == [str(each is tab).lower() for each in tabs]
        assert f"#{name.lower()}" in app.page.url
    for key, name in [
        ("ArrowRight", "Generate"),
        ("ArrowLeft", "About"),
        ("ArrowLeft", "Look"),
        ("ArrowRight", "About"),
    ]:
        app.page.keyboard.press(key)
        expect(app.page.get_by_role("tab", name=name)).to_be_focused()
        expect(app.page.get_by_role("tabpanel", name=name)).to_be_visible()
    expect(app.at("tab-train")).to_be_hidden()
    app.page.reload()
    expect(app.page.get_by_role("tabpanel", name="About")).to_be_visible()


@pytest.mark.parametrize("tab", TABS)
def test_the_keyboard_reaches_every_control(app, tab):
    """Catches a control for the mouse only, and a place that the Tab key does not leave."""
    filled(app)
    app.tab(tab)
    find = """() => {
        const all = [...document.querySelectorAll("a[href], button, input, select, textarea, summary")];
        const there = all.filter((one) => one.checkVisibility() && !one.disabled && one.tabIndex >= 0);
        return [there.length, there.indexOf(document.activeElement)];
    }"""
    app.page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(app.page.evaluate(find)[0] + 10):
        app.page.keyboard.press("Tab")
        there, place = app.page.evaluate(find)
        reached.add(place)
    assert there >= 4
    assert reached - {-1} == {*range(there)}


def test_one_character_is_in_the_order_of_the_tab_key(app):
    """Catches a text of 4,000 stops on the way to the next control."""
    app.tab("Look")
    app.look("abcdefgh")
    app.page.locator("#looks .ch").first.focus()
    for _ in range(3):
        app.page.keyboard.press("ArrowRight")
    expect(app.page.locator("#looks .ch[tabindex='0']")).to_have_count(1)


def test_one_character_is_in_the_order_after_a_click(app):
    """Catches a second character in the order of the Tab key."""
    app.tab("Look")
    app.look("abcdefgh")
    app.page.locator("#looks .ch").nth(4).click()
    app.page.keyboard.press("ArrowRight")
    assert app.page.locator("#looks .ch[tabindex='0']").all_text_contents() == ["f"]


def test_the_keyboard_reaches_the_list(app):
    """Catches a list that changes while the Tab key is on the way to it."""
    app.tab("Look")
    app.look("abcdefgh")
    app.page.locator("#looks .ch").first.focus()
    app.page.keyboard.press("End")
    app.page.keyboard.press("Tab")
    expect(app.page.locator("#detail button").first).to_be_focused()
    expect(app.at("detail")).to_contain_text("letters, character 8, ")


def test_the_keyboard_reaches_the_list_of_the_first_of_two_models(app):
    """Catches a list that only a mouse can reach."""
    app.tab("Look")
    app.at("second").select_option("bytes")
    app.look("abcdefgh")
    app.page.locator("#looks .ch").first.focus()
    app.page.keyboard.press("ArrowRight")
    app.page.keyboard.press("Enter")
    expect(app.page.locator("#detail button:enabled").first).to_be_focused(timeout=1000)
    expect(app.at("detail")).to_contain_text("letters, character 2, ")


def test_a_narrow_screen(app):
    """Catches a page that scrolls sideways on a telephone."""
    filled(app)
    app.page.set_viewport_size({"width": 360, "height": 640})
    for tab in TABS:
        app.tab(tab)
        assert app.page.evaluate("document.documentElement.scrollWidth") <= 360
        wide = app.page.evaluate(
            """() => [...document.querySelectorAll("main *")]
                .filter((one) => one.checkVisibility() && !one.closest("svg, .scroll"))
                .filter((one) => one.getBoundingClientRect().right > 361).map((one) => one.outerHTML.slice(0, 80))"""
        )
        assert wide == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(app, scheme):
    """Catches what axe-core calls serious or critical: contrast, names of controls, roles."""
    app.page.emulate_media(color_scheme=scheme)
    filled(app)
    for width in (360, 1280):
        app.page.set_viewport_size({"width": width, "height": 800})
        for tab in TABS:
            app.tab(tab)
            assert findings(app.page) == [], f"{tab}, {width} px"


def findings(page):
    """Serious and critical findings: the rule and the elements."""
    return [
        (found["id"], [node["html"][:200] for node in found["nodes"]])
        for found in Axe().run(page).response["violations"]
        if found["impact"] in ("serious", "critical")
    ]


def test_a_server_with_a_key(folders, opened, problems):
    """Catches a page that does not ask for the key, takes a wrong one, or keeps it for other windows."""
    problems.expect("status of 401")
    with running([ModelSource("letters", str(folders["letters"]))], access=Access(key="sesame-1")) as served:
        page = opened(f"{served.url}/#generate?seed=3&prompt=ab&max_tokens=30")
        form = page.locator("#key-form")
        expect(form).to_be_visible()
        assert findings(page) == []
        page.get_by_label("This server needs its key").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#problem")).to_be_visible()
        expect(form).to_be_visible()
        page.locator("#key").fill("sesame-1")
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#model option")).to_have_count(1)
        expect(form).to_be_hidden()
        expect(page.locator("#problem")).to_be_hidden()
        page.locator("#go").click()
        expect(page.locator("#generate-status")).to_contain_text("30 characters")
        page.get_by_role("tab", name="About").click()
        with page.expect_download():
            page.locator("#download").click()
        page.reload()
        expect(page.locator("#facts dd").first).to_be_visible()
        assert "sesame" not in page.url + page.evaluate("JSON.stringify(localStorage) + document.cookie")
        other = page.context.new_page()
        other.goto(served.url)
        expect(other.locator("#key-form")).to_be_visible()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A server with a model whose name and metadata are HTML and escape sequences."""
    place = tmp_path_factory.mktemp("hostile") / "<b>model"
    save_model(place, replace(make_folder("bytes"), metadata=METADATA))
    with running([ModelSource(HOSTILE, str(place)), ModelSource("W" * 300, str(place))]) as served:
        yield served


def test_text_from_elsewhere_is_text(hostile, opened):
    """Catches a name or a fact of a model that becomes HTML. A dialog or an error in the console fails the test too."""
    page = opened(hostile.url)
    expect(page.locator("#model option")).to_have_count(2)
    page.locator("#length").fill("200")
    page.locator("#count").fill("2")
    page.locator("#text").fill(f"{HOSTILE}</textarea><script>alert(5)</script>")
    page.locator("#go").click()
    expect(page.locator("#generate-status")).to_contain_text("complete")
    expect(page.locator(".given").first).to_contain_text("<script>alert(5)</script>")
    page.get_by_role("tab", name="Look").click()
    page.locator("#look-text").fill(f"{HOSTILE}\x1b[31m")
    page.locator("#look-go").click()
    expect(page.locator("#looks h3")).to_have_text(HOSTILE)
    page.locator("#looks .ch").first.hover()
    expect(page.locator("#detail")).to_contain_text(f"{HOSTILE}, character 1, <")
    page.get_by_role("tab", name="About").click()
    expect(page.locator("#about-name")).to_have_text(HOSTILE)
    expect(page.locator("#card")).to_contain_text("<script>alert(2)</script>")
    expect(page.locator("#facts")).to_contain_text("<b>model")
    with page.expect_download() as found:
        page.locator("#download").click()
    assert not re.search('[<>"/\\\\]', found.value.suggested_filename)
    page.get_by_role("button", name="Compare with xz and PPMd").click()
    expect(page.locator("#compressors")).to_contain_text("no held-out text")
    assert page.locator("main img, main script, main iframe, #injected").count() == 0


def test_a_long_name_on_a_narrow_screen(hostile, opened):
    """Catches a name that makes the page wider than the screen."""
    page = opened(hostile.url, viewport={"width": 360, "height": 640})
    page.locator("#model").select_option("W" * 300)
    for tab in TABS:
        page.get_by_role("tab", name=tab).click()
        if tab == "Look":
            page.locator("#look-text").fill("ab " * 50)
            page.locator("#look-go").click()
            expect(page.locator("#looks h3")).to_be_visible()
        if tab == "About":
            expect(page.locator("#about-name")).to_have_text("W" * 300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, tab


def test_the_policy(app, problems):
    """Catches a page that runs a script of a stranger, or that shows itself in the frame of one."""
    answer = app.page.request.get(f"{app.served.url}/")
    assert {name: answer.headers[name] for name in POLICY} == POLICY
    assert "'unsafe" not in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    problems.expect("Content Security Policy")
    app.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.injected = 1";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<img src='data:,' onerror='window.injected = 2'>");
        }"""
    )
    app.page.wait_for_timeout(100)
    assert app.page.evaluate("window.injected ?? null") is None


def test_nothing_comes_from_another_server(opened, served):
    """Catches a font, a script or a picture from the internet."""
    page, asked = opened("about:blank"), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served.url)
    expect(page.locator("#model option")).to_have_count(3)
    assert len(asked) > 5
    assert all(url.startswith(served.url) for url in asked)
