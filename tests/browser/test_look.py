"""The tab Look: what the page shows for each character is what the library computes."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from playwright.sync_api import expect
from servers import eventually

from charloom.cli.main import main
from charloom.evaluation.characters import per_character
from charloom.evaluation.heat import colours, level_of
from charloom.evaluation.text import evaluation_text

TEXTS = {
    "letters": "abc\nhgf  abba\u2028deed" * 3,
    "records": "abcd\n\ndcba\n\naabb",
    "bytes": "Zoë sagt: ‚ja‘ 😀 und geht.",
}
READ = {"letters": TEXTS["letters"], "records": "abcd\ndcba\naabb", "bytes": TEXTS["bytes"]}
"""What is typed for these texts: a newline ends a record."""

SHOWN = {"\u2028": "·", "\n": "↵\n", "\n\n": "↵↵\n"}
MARKS = {"\u2028": "·", "\n": "↵", " ": "␣"}


def bits_of(model, text):
    """The bits of each character, by `charloom eval --heat`."""
    chunks = per_character(model.folder, evaluation_text(model.folder, text))
    return np.concatenate([chunk.bits_C for chunk in chunks]).tolist()


def characters_of(name):
    """The characters of a text as the page divides it."""
    return re.findall("\n\n|.", TEXTS[name], re.DOTALL) if name == "records" else [*TEXTS[name]]


def styles(app, place=0):
    """The colour and the background of each character, as the browser computes them."""
    return app.page.evaluate(
        """(place) => [...document.querySelectorAll("#looks .text")[place].children].map((span) => {
            const style = getComputedStyle(span);
            return [style.color, style.backgroundColor];
        })""",
        place,
    )


def rgb(colour):
    """`#rrggbb` as a browser writes it."""
    return "rgb({}, {}, {})".format(*(int(colour[place : place + 2], 16) for place in (1, 3, 5)))


def look(app, name, text=None):
    """Looks at a text with this model."""
    app.tab("Look")
    app.at("model").select_option(name)
    app.look(READ[name] if text is None else text)


@pytest.mark.parametrize("name", TEXTS)
def test_bits_and_colours(app, models, name):
    """Catches a character with the figure of its neighbour, and colours that differ from those of the terminal."""
    look(app, name)
    bits, characters = bits_of(models[name], READ[name]), characters_of(name)
    spans = app.page.locator("#looks .ch").all_text_contents()
    assert spans == [SHOWN.get(each, each) for each in characters]
    assert len(bits) == len(characters)
    ink, none = app.page.evaluate("getComputedStyle(document.body).color"), "rgba(0, 0, 0, 0)"
    expected = [colours(level_of(each)) for each in bits]
    assert [(rgb(pair[0]), rgb(pair[1])) if pair else (ink, none) for pair in expected] == [*map(tuple, styles(app))]
    assert any(expected), "a text with colours"
    for place, (detail, each) in enumerate(zip(app.details, bits, strict=True)):
        assert detail.startswith(f"{name}, character {place + 1}, ")
        if each != each:  # NaN: the first character of a text
            assert detail.endswith(": not predicted")
        else:
            found = re.search(r": ([\d.]+) bits, probability (below 0.1|[\d.]+)%, rank ", detail)
            assert float(found[1]) == pytest.approx(each, abs=0.0051)
            if found[2] != "below 0.1":
                assert float(found[2]) == pytest.approx(100 * 2**-each, abs=0.051)
    known = [each for each in bits if each == each]
    summary = app.page.locator("#looks article > p").inner_text()
    assert float(summary.split()[0]) == pytest.approx(sum(known) / len(known), abs=0.0051)
    assert summary.endswith(f"{len(bits)} characters")


def test_the_levels_are_those_of_the_command(app, folders, tmp_path, capsys):
    """Catches a page and a terminal that disagree about a character."""
    text = "abc hgf abba deed"
    (tmp_path / "text").write_text(text)
    with pytest.raises(SystemExit, match="0"):
        main(["eval", str(folders["letters"]), str(tmp_path / "text"), "--heat"])
    digits = capsys.readouterr().out.splitlines()[-1].ljust(len(text))
    look(app, "letters", text)
    backgrounds = [colour for _, colour in styles(app)]
    for digit, background in zip(digits, backgrounds, strict=True):
        pair = colours(int(digit or 0) if digit.strip() else 0)
        assert background == (rgb(pair[1]) if pair else "rgba(0, 0, 0, 0)")


def listed(app):
    """The characters and probabilities of the list."""
    pairs = [button.rsplit("  ", 1) for button in app.page.locator("#detail button").all_text_contents()]
    return [(character, share) for character, share in pairs]


def test_the_likeliest_characters(app, models):
    """Catches a list of another position, and a mark in place of a character that can be seen."""
    look(app, "letters")
    text = READ["letters"]
    for place in (1, 5, len(text) - 1):
        app.page.locator("#looks .ch").nth(place).hover()
        expect(app.at("detail")).to_contain_text(f"character {place + 1}, ")
        expected = [*models["letters"].next_token(text[:place]).items()][:10]
        found = listed(app)
        assert [character for character, _ in found] == [MARKS.get(token, token) for token, _ in expected]
        for (_, share), (_, probability) in zip(found, expected, strict=True):
            if probability < 0.0005:
                assert share == "below 0.1%"
            else:
                assert float(share.rstrip("%")) == pytest.approx(100 * probability, abs=0.051)
    app.page.locator("#looks .ch").first.hover()
    expect(app.at("detail")).to_contain_text("not predicted")
    assert listed(app) == []


def test_arrow_keys(app):
    """Catches keys that do nothing, go beyond an end, or leave the Tab key on another character."""
    look(app, "letters", "abcdefgh" * 20)
    spans, detail = app.page.locator("#looks .ch"), app.at("detail")
    spans.first.focus()
    keys = [("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("PageDown", 51), ("End", 159)]
    keys += [("ArrowRight", 159), ("PageUp", 109), ("Home", 0), ("ArrowLeft", 0), ("PageDown", 50)]
    for key, place in keys:
        app.page.keyboard.press(key)
        expect(spans.nth(place)).to_be_focused()
        expect(detail).to_contain_text(f"character {place + 1}, ")
    app.page.keyboard.press("Shift+Tab")
    app.page.keyboard.press("Tab")
    expect(spans.nth(50)).to_be_focused()


def test_a_click_keeps_the_list(app):
    """Catches a list that changes on the way to it."""
    look(app, "letters")
    spans, detail = app.page.locator("#looks .ch"), app.at("detail")
    spans.nth(3).click()
    expect(spans.nth(3)).to_have_class(re.compile("kept"))
    spans.nth(8).hover()
    expect(detail).to_contain_text("character 4, ")
    spans.nth(8).click()
    expect(detail).to_contain_text("character 9, ")
    expect(spans.nth(3)).not_to_have_class(re.compile("kept"))
    spans.nth(8).click()
    spans.nth(5).hover()
    expect(detail).to_contain_text("character 6, ")


@pytest.mark.parametrize("name", ["letters", "records"])
def test_a_choice_continues_from_there(app, models, name):
    """Catches a text that goes on from another place or with another model, and a choice that is lost."""
    app.fill(length=50)
    look(app, name)
    place = 6
    app.page.locator("#looks .ch").nth(place).click()
    chosen = next(
        token
        for token in [*models[name].next_token(READ[name][: place + name.count("rec")])][1:]
        if token in "abcdefgh"
    )
    app.page.locator("#detail button").filter(has_text=re.compile(rf"^{chosen} ")).click()
    expect(app.at("generate")).to_be_visible()
    text = app.ended()
    before = "".join(characters_of(name)[:place]) + chosen
    assert text.startswith(before)
    typed = before.replace("\n\n", "\n") if name == "records" else before
    assert text[len(before) :] == models[name].generate(typed, len(text) - len(before), seed=app.seed)
    expect(app.at("model")).to_have_value(name)


@pytest.mark.parametrize("name", TEXTS)
def test_colour_by_a_unit(app, models, name):
    """Catches values of another unit or layer, and a value that stands one character too early or too late."""
    layer, unit = models[name].architecture.layers - 1, 13
    look(app, name)
    app.at("colour-by").select_option("unit")
    array = {"letters": "cell", "records": "update_gate", "bytes": "hidden"}[name]
    expect(app.at("legend")).to_contain_text("Value after each character")
    if app.at("array").input_value() != array:
        with app.page.expect_response("**/app/unit"):
            app.at("array").select_option(array)
    for field, value in (("layer", layer), ("unit", unit)):
        if app.at(field).input_value() != str(value):
            with app.page.expect_response("**/app/unit"):
                app.fill(**{field: value})
    values = getattr(models[name].trace(READ[name]).layers[layer], f"{array}_TH")[:, unit]
    if name == "bytes":  # a character has the value of its last byte
        values = values[np.cumsum([len(each.encode()) for each in TEXTS[name]]) - 1]
    values = values[-len(characters_of(name)) :].tolist()
    eventually(lambda: app.details[-1].endswith(f"; {array} of unit {unit}: {values[-1]:.3f}"), "the value")
    found = [float(detail.rsplit(" ", 1)[1]) for detail in app.details]
    assert found == pytest.approx(values, abs=0.00051)
    largest = max(1, *map(abs, values))
    for value, (_, background) in zip(values, styles(app), strict=True):
        *colour, opacity = map(float, re.findall(r"[\d.]+", background))
        if abs(value) > 0.1:
            assert colour == ([214, 110, 0] if value < 0 else [31, 110, 190])
            assert opacity == pytest.approx(0.6 * abs(value) / largest, abs=0.01)
    app.at("colour-by").select_option("surprise")
    expect(app.at("legend")).to_contain_text("Bits of each character")
    assert "unit" not in app.details[-1]


def test_the_list_follows_the_unit(app, models):
    """Catches a list that gives the value of one unit under the number of another."""
    look(app, "letters")
    app.at("colour-by").select_option("unit")
    app.page.locator("#looks .ch").nth(4).click()
    app.fill(unit=13)
    value = models["letters"].trace(READ["letters"]).layers[0].hidden_TH[4, 13]
    expect(app.at("detail")).to_contain_text(f"hidden of unit 13: {value:.3f}", timeout=2000)


def test_the_last_choice_of_a_unit_counts(app):
    """Catches the values of an earlier choice, whose answer comes later, under the number of the last one."""
    held = []

    def hold(route):
        if '"unit":3' in route.request.post_data:
            held.append(route)
        else:
            route.continue_()

    look(app, "letters")
    app.page.route("**/app/unit", hold)
    app.at("colour-by").select_option("unit")
    app.fill(unit=3)
    with app.page.expect_response("**/app/unit"):
        app.fill(unit=13)
    app.page.wait_for_timeout(50)
    before = styles(app)
    with app.page.expect_response("**/app/unit"):
        held[0].continue_()
    app.page.wait_for_timeout(50)
    assert styles(app) == before


def test_every_invisible_character_has_a_mark(app):
    """Catches a character that nobody sees, so nobody can point at it."""
    look(app, "letters", "a\u2028b")
    assert app.page.locator("#looks .ch").all_text_contents() == ["a", "·", "b"]


def test_a_unit_that_does_not_exist(app, problems):
    """Catches a number above the last unit that is neither refused nor explained."""
    problems.expect("status of 400")
    look(app, "letters")
    app.at("colour-by").select_option("unit")
    app.fill(unit=20)
    expect(app.at("problem")).to_have_text("`layer` and `unit` must be below 2 and 20; got 0 and 20")


def test_the_histogram_of_ranks(app, models):
    """Catches a token that counts in two ranges or in none."""
    look(app, "bytes")
    model, text = models["bytes"], READ["bytes"]
    ids = model.tokenize(text)
    made = model.trace(text).probabilities_TV
    ranks = [1 + int((row > row[token]).sum()) for row, token in zip(made, ids[1:], strict=False)]
    edges = [0, 1, 5, 20, 256]
    expected = [sum(low < rank <= high for rank in ranks) / len(ranks) for low, high in pairwise(edges)]
    assert sum(share > 0 for share in expected) > 1
    shown = app.page.locator("#looks .bars span").all_text_contents()
    assert shown[::2] == ["rank 1", "rank 2 to 5", "rank 6 to 20", "rank below 20"]
    assert [float(each.rstrip("%")) for each in shown[1::2]] == pytest.approx([100 * e for e in expected], abs=0.051)


def test_two_models_side_by_side(app, models):
    """Catches figures of one model under the name of the other."""
    app.tab("Look")
    app.at("second").select_option("bytes")
    app.look("abcd dcba")
    assert app.page.locator("#looks h3").all_text_contents() == ["letters", "bytes"]
    for place, name in enumerate(("letters", "bytes")):
        expected = [colours(level_of(bits)) for bits in bits_of(models[name], "abcd dcba")]
        assert [pair[1] for pair in styles(app, place)] == [
            rgb(pair[1]) if pair else "rgba(0, 0, 0, 0)" for pair in expected
        ]
    app.page.locator("#looks article").nth(1).locator(".ch").nth(4).hover()
    expect(app.at("detail")).to_contain_text("bytes, character 5, ␣")


def test_the_text_of_generate(app):
    """Catches a button that takes an old text."""
    app.fill(length=30)
    text = app.go()
    app.tab("Look")
    app.at("look-take").click()
    expect(app.page.locator("#looks .ch")).to_have_count(len(text))
    assert app.at("look-text").input_value() == text


def test_unknown_characters(app, problems):
    """Catches a text that is refused without a line, and a box that has no effect."""
    problems.expect("status of 400")
    app.tab("Look")
    app.at("look-text").fill("abXc")
    app.at("look-go").click()
    expect(app.at("problem")).to_contain_text("X")
    expect(app.at("look-status")).to_have_text("")
    app.at("skip-unknown").check()
    app.look("abXc")
    assert app.page.locator("#looks .ch").all_text_contents() == ["a", "b", "c"]
    expect(app.at("problem")).to_be_hidden()


@pytest.mark.parametrize("text", ["", "abcdefgh" * 501])
def test_a_text_of_the_wrong_length(app, problems, text):
    """Catches a page that waits for ever, and a line without the limit."""
    problems.expect("status of 400")
    app.tab("Look")
    app.at("look-text").fill(text)
    app.at("look-go").click()
    expected = f"`text` must have from 1 to 4,000 tokens to be shown; found {len(text):,}"
    expect(app.at("problem")).to_have_text(expected)
    expect(app.at("look-status")).to_have_text("")


def test_one_character(app, models):
    """Catches a division by zero, on the page and in the figures."""
    look(app, "letters", "a")
    expect(app.page.locator("#looks article > p")).to_have_text("one character: nothing to predict")
    assert app.details == ["letters, character 1, a: not predicted"]
    look(app, "records", "a")
    expect(app.page.locator("#looks article > p")).to_contain_text("bits/char for 1 characters")
    assert f"{bits_of(models['records'], 'a')[0]:.2f} bits" in app.details[0]


def test_the_longest_text(app):
    """Catches a page that cannot draw as many characters as the server allows."""
    look(app, "letters", "abcd efgh\n" * 400)
    expect(app.page.locator("#looks .ch")).to_have_count(4000)
    expect(app.page.locator("#looks article > p")).to_contain_text("4,000 characters")
