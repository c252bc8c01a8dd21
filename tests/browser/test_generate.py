"""The tab Generate: every control, and the text that each gives."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect
from servers import eventually

SETTINGS = {
    "temperature": ({"temperature": 1.7}, {"temperature": 1.7}),
    "greedy": ({"temperature": 0}, {"greedy": True}),
    "top_k": ({"top_k": 2}, {"top_k": 2}),
    "top_p": ({"top_p": 0.4}, {"top_p": 0.4}),
    "min_p": ({"min_p": 0.5}, {"min_p": 0.5}),
    "repetition_penalty": ({"repetition_penalty": 3}, {"repetition_penalty": 3.0}),
    "all": (
        {"temperature": 1.2, "top_k": 7, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1},
        {"temperature": 1.2, "top_k": 7, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1},
    ),
}


def caret(app, place):
    """Puts the cursor into the text, as a click does."""
    app.at("text").focus()
    app.at("text").evaluate("(area, place) => area.setSelectionRange(place, place)", place)
    app.page.keyboard.press("Shift")  # a key that changes nothing: the page looks where the cursor is


def texts(app):
    """The generated texts side by side."""
    return app.page.locator("#side-by-side .text > span:last-child").all_text_contents()


def test_the_text_is_that_of_the_library(app, models):
    """Catches a request with another seed or length than the fields show, and chunks that are lost or out of order."""
    app.fill(seed=7, length=300)
    app.at("text").fill("abc\n")
    assert app.go() == "abc\n" + models["letters"].generate("abc\n", 300, seed=7)
    expect(app.at("generate-status")).to_contain_text("300 characters in ")


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting(app, models, name):
    """Catches a field that is not sent, or is sent under another name."""
    fields, options = SETTINGS[name]
    app.fill(seed=3, length=200, **fields)
    app.at("text").fill("ab")
    made = models["letters"].generate("ab", 200, seed=3, **options)
    assert made != models["letters"].generate("ab", 200, seed=3)
    assert app.go() == "ab" + made


def test_stop_strings(app, models):
    """Catches `\\n` that is sent as two characters, and lines that are sent as one string."""
    app.fill(seed=1, length=500, stop_strings="zz\n\\n\n\nfed")
    app.at("text").fill("ab")
    assert app.go("ended by a stop string") == "ab" + models["letters"].generate("ab", 500, seed=1, stop=["\n", "fed"])
    app.fill(stop_strings="")
    app.at("text").fill("ab")
    assert "\n" in app.go()


@pytest.mark.parametrize(("model", "prompt"), [("records", "ab"), ("bytes", "Zoë & 100% ‚ja‘?\n")])
def test_each_kind_of_model(app, models, model, prompt):
    """Catches half a character on the page, and a separator of records that is not shown as a blank line."""
    app.at("model").select_option(model)
    app.fill(seed=5, length=400)
    app.at("text").fill(prompt)
    made = app.go().removeprefix(prompt)
    expected = models[model].generate(prompt, len(made), seed=5)
    if model == "bytes":
        assert re.search("[\u0080-\uffff]", made.replace("\ufffd", "")), "a character of several bytes"
        expected = re.sub("[\udc80-\udcff]", "\ufffd", expected).replace("\r", "\n")  # what a text field does
    else:
        assert made.count("\n\n") > 3
    assert made == expected


def test_a_seed_stays_or_changes(app):
    """Catches a seed that stays with "a new seed for each text", or a seed of the user that is replaced."""
    expect(app.at("new-seed")).to_be_checked()
    app.fill(length=50)
    seeds = set()
    for _ in range(3):
        app.at("text").fill("ab")
        app.go()
        seeds.add(app.seed)
    assert len(seeds) == 3
    app.fill(seed=11)
    expect(app.at("new-seed")).not_to_be_checked()
    made = set()
    for _ in range(2):
        app.at("text").fill("ab")
        made.add(app.go())
    assert (len(made), app.seed) == (1, 11)
    app.at("new-seed").check()
    app.at("text").fill("ab")
    assert app.go() not in made


def test_stop_in_the_middle(app, slow):
    """Catches a slot that works on after Stop, a text that is lost by it, and a page that waits for ever."""
    app.fill(length=50_000, seed=2)
    app.at("text").fill("ab")
    expect(app.at("stop")).to_be_disabled()
    app.at("go").click()
    expect(app.at("go")).to_be_disabled()
    expect(app.at("generate-status")).to_have_text("generating …")
    expect(app.at("text")).to_have_value(re.compile(r"^ab[^$]{20}"))
    assert not app.at("text").is_editable()
    app.at("stop").click()
    text = app.ended("stopped")
    assert 22 < len(text) < 50_000
    eventually(app.served.idle, "a free slot")
    expect(app.at("stop")).to_be_disabled()
    expect(app.at("text")).to_be_editable()
    app.at("undo").click()
    assert app.text == "ab"
    app.fill(length=20)
    assert len(app.go()) == 22


def test_keys(app, slow):
    """Catches keys that do nothing, and Ctrl+Enter that writes a newline."""
    app.fill(length=50_000)
    app.at("text").fill("ab")
    app.page.keyboard.press("Control+Enter")
    expect(app.at("text")).to_have_value(re.compile(r"^ab[^$]{5}"))
    app.page.keyboard.press("Escape")
    app.ended("stopped")
    app.fill(length=10)
    app.at("text").fill("cd")
    app.at("temperature").press("Control+Enter")
    assert len(app.ended()) == 12


def test_from_the_cursor(app, models):
    """Catches a text that goes on at its end though the cursor is in the middle."""
    app.fill(seed=4, length=30)
    app.at("text").fill("abcdefgh")
    expect(app.at("go")).to_have_text("Go")
    caret(app, 3)
    expect(app.at("go")).to_have_text("Go from the cursor")
    assert app.go() == "abc" + models["letters"].generate("abc", 30, seed=4)
    expect(app.at("go")).to_have_text("Go")
    app.at("undo").click()
    assert app.text == "abcdefgh"
    expect(app.at("go")).to_have_text("Go from the cursor")


def test_undo_goes_back_step_by_step(app):
    """Catches an Undo that knows one step only, or brings back a text without what was typed."""
    app.fill(length=10)
    expect(app.at("undo")).to_be_disabled()
    states = []
    for _ in range(3):
        app.at("text").press("End")
        app.at("text").press_sequentially("a")
        states.append(app.text)
        app.go()
        app.at("text").press("Control+End")
    for state in reversed(states):
        app.at("undo").click()
        assert app.text == state
    expect(app.at("undo")).to_be_disabled()


def test_several_texts_and_the_use_of_one(app, models):
    """Catches chunks in the place of another text, and "Use this text" without the beginning."""
    app.fill(seed=9, length=120, count=3)
    app.at("text").fill("abc")
    app.go()
    made = models["letters"].generate_many(3, "abc", 120, seed=9)
    assert texts(app) == made
    assert app.text == "abc"
    expect(app.page.get_by_role("region", name="Text 2")).to_be_visible()
    app.page.get_by_role("button", name="Use this text").nth(1).click()
    assert app.text == "abc" + made[1]
    app.at("undo").click()
    assert app.text == "abc"
    app.fill(count=1)
    assert app.go() == "abc" + made[0]
    expect(app.at("side-by-side").locator("article")).to_have_count(0)


def test_unknown_characters(app, models, problems):
    """Catches a prompt that is refused without a word, and a box that has no effect."""
    problems.expect("status of 400")
    app.fill(seed=6, length=40)
    app.at("text").fill("aXb")
    app.go("not complete")
    expect(app.at("problem")).to_have_text(re.compile("X.*or tick “leave out"))
    assert len(app.at("problem").inner_text().splitlines()) == 1
    assert app.text == "aXb"
    app.at("skip-unknown").check()
    assert app.go() == "aXb" + models["letters"].generate("ab", 40, seed=6)
    expect(app.at("problem")).to_be_hidden()


@pytest.mark.parametrize(
    ("label", "fields"),
    [
        ("Temperature", {"temperature": 101}),
        ("Length", {"length": 10**7}),
        ("Length", {"length": ""}),
        ("Top-k", {"top_k": 0}),
        ("Texts side by side", {"count": 10**9}),
    ],
)
def test_a_setting_out_of_range(app, label, fields):
    """Catches a wrong value that is sent or left out without a line, and a page that stays busy after it."""
    app.fill(**fields)
    app.at("go").click()
    expect(app.at("problem")).to_have_text(re.compile(f"^{label}: ."))
    expect(app.at("go")).to_be_enabled()
    expect(app.at("generate-status")).to_have_text("")


def test_more_stop_strings_than_the_server_takes(app, problems):
    """Catches a refusal of the server that the page does not show."""
    problems.expect("status of 400")
    app.fill(stop_strings="a\nb\nc\nd\ne")
    app.go("not complete")
    expect(app.at("problem")).to_contain_text("`stop` must give at most 4 strings")
    expect(app.at("go")).to_be_enabled()


def test_a_text_from_elsewhere_ends_the_one_in_progress(app, slow, models):
    """Catches a choice in Look that appends two texts to one another, or is never continued."""
    app.fill(length=200_000)
    app.at("go").click()
    expect(app.at("stop")).to_be_enabled()
    app.tab("Look")
    app.look("abc")
    app.page.evaluate("() => { document.querySelector('#length').value = 20; }")
    app.page.locator("#looks .ch").nth(1).click()
    app.page.locator("#detail button").first.click()
    text = app.ended()
    assert text[0] == "a"
    assert len(text) == 22


def test_escape_after_a_click(app, slow):
    """Catches an Escape key that works only inside the text."""
    app.fill(length=200_000)
    app.at("go").click()
    expect(app.at("stop")).to_be_focused()
    app.page.keyboard.press("Escape")
    app.ended("stopped")
    expect(app.at("go")).to_be_focused()


def test_a_server_that_is_gone(app, problems):
    """Catches a request that fails without a line."""
    problems.expect("ERR_FAILED")
    app.page.route("**/v1/completions", lambda route: route.abort())
    app.go("not complete")
    expect(app.at("problem")).to_have_text("The server does not answer. Is it still running?")


def test_a_link_gives_the_same_text(app, served, opened, models):
    """Catches a link without a setting, or that a browser changes: with newlines, quotes and characters of URLs."""
    app.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    app.at("model").select_option("bytes")
    app.at("skip-unknown").check()
    app.fill(length=60, temperature=0.5, top_k=90, top_p=0.9, min_p=0.02, repetition_penalty=1.2, count=2)
    app.fill(stop_strings="qqq\n\\n?&#")
    prompt = 'Zoë?#&=%20+"<b>\n€'
    app.at("text").fill(prompt)
    app.go()
    made = texts(app)
    app.at("copy-link").click()
    expect(app.at("copied")).to_have_text("Copied.")
    address = app.page.evaluate("navigator.clipboard.readText()")
    assert address.startswith(f"{served.url}/#generate?")
    other = type(app)(opened(address), served)
    expect(other.at("model")).to_have_value("bytes")
    assert other.text == prompt
    assert other.seed == app.seed
    for name in ("temperature", "length", "top-k", "top-p", "min-p", "repetition-penalty", "count", "stop-strings"):
        assert other.at(name).input_value() == app.at(name).input_value()
    expect(other.at("skip-unknown")).to_be_checked()
    other.go()
    assert texts(other) == made


def test_a_long_beginning_is_not_in_the_link(app):
    """Catches an address that a browser or a server cuts."""
    app.fill(length=5)
    app.at("text").fill("abcdefgh" * 501)
    app.go()
    app.at("copy-link").click()
    expect(app.at("copied")).to_contain_text("more than 4,000 characters")
    assert len(app.page.url) < 1000


def test_the_back_button(link, models):
    """Catches a page that shows one address and generates from another."""
    app = link(model="letters", prompt="ab", seed=1, max_tokens=40)
    first = app.go()
    assert first == "ab" + models["letters"].generate("ab", 40, seed=1)
    app.page.evaluate("location.hash = '#generate?model=records&prompt=cd&seed=2&max_tokens=50&temperature=0.3'")
    expect(app.at("text")).to_have_value("cd")
    second = app.go()
    assert second == "cd" + models["records"].generate("cd", len(second) - 2, seed=2, temperature=0.3)
    app.page.go_back()
    expect(app.at("model")).to_have_value("letters")
    expect(app.at("temperature")).to_have_value("0.8")
    assert app.text == "ab"
    assert app.go() == first
    app.page.go_forward()
    expect(app.at("text")).to_have_value("cd")
    assert app.go() == second


def test_a_text_stays_when_a_tab_changes(app):
    """Catches a text that is lost on the way to another tab and back."""
    app.fill(length=20)
    text = app.go()
    app.tab("About")
    app.page.go_back()
    expect(app.at("generate")).to_be_visible()
    assert app.text == text
    app.tab("Look")
    app.tab("Generate")
    assert app.text == text


def test_a_reload_keeps_the_settings(app):
    """Catches an address that falls behind the fields."""
    app.at("model").select_option("records")
    app.fill(temperature=0.3, length=33, top_k=2)
    app.page.reload()
    expect(app.at("model")).to_have_value("records")
    assert [app.at(name).input_value() for name in ("temperature", "length", "top-k")] == ["0.3", "33", "2"]
