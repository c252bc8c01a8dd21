"""The tab About: what the model is, a copy of it, and how it compares with compressors."""

from __future__ import annotations

import re
import zipfile

import pytest
from playwright.sync_api import expect
from servers import ModelSource, make_folder, running

import charloom
from charloom.checkpoint import facts, model_card, save_model
from charloom.model import Model


@pytest.fixture(scope="module")
def run(tmp_path_factory, corpus):
    """A run folder of a small model, with a held-out text."""
    folder = tmp_path_factory.mktemp("run") / "run"
    charloom.train(texts=[corpus], out=folder, steps=2, hidden=8, embedding=4, batch_size=4, seq_length=16, threads=1)
    return folder


@pytest.mark.parametrize("name", ["letters", "records", "bytes"])
def test_facts_and_card(app, models, folders, name):
    """Catches facts of the model that was chosen before."""
    app.tab("About")
    app.at("model").select_option(name)
    expect(app.at("about-name")).to_have_text(name)
    folder = models[name].folder
    expected = {label: f"{value:,}" if isinstance(value, int) else str(value) for label, value in facts(folder).items()}
    labels, values = (app.page.locator(f"#facts {kind}").all_text_contents() for kind in ("dt", "dd"))
    assert dict(zip(labels, values, strict=True)) == expected | {"folder": str(folders[name])}
    assert app.at("card").text_content() == model_card(folder)


def test_download(app, models, tmp_path):
    """Catches a .zip that is not a model, or another model."""
    app.at("model").select_option("records")
    app.tab("About")
    expect(app.at("about-name")).to_have_text("records")
    with app.page.expect_download() as found:
        app.at("download").click()
    assert found.value.suggested_filename == "records.zip"
    expect(app.at("about-status")).to_have_text("records.zip")
    with zipfile.ZipFile(found.value.path()) as archive:
        archive.extractall(tmp_path)
    copy = Model.load(tmp_path / "records")
    assert copy.generate("ab", 300, seed=1) == models["records"].generate("ab", 300, seed=1)


def test_a_model_without_a_held_out_text(app):
    """Catches a comparison that fails without a line."""
    app.tab("About")
    app.page.get_by_role("button", name="Compare with xz and PPMd").click()
    expect(app.at("compressors")).to_have_text("This model has no held-out text here.")


def test_the_comparison_of_a_run(run, opened):
    """Catches figures in another unit than bits per character, and a row with the figure of its neighbour."""
    with running([ModelSource("mine", str(run))]) as served:
        page = opened(f"{served.url}/#about")
        expect(page.locator("#about-name")).to_have_text("mine")
        page.get_by_role("button", name="Compare with xz and PPMd").click()
        expect(page.locator("#compressors tr")).to_have_count(3)
        report = Model.load(run).evaluate().to_json()
        names = {"this model": "bits_per_char", "xz -9e": "xz_bits_per_char", "PPMd": "ppmd_bits_per_char"}
        rows = [re.split(r"\s+(?=[\d.]+$)", row) for row in page.locator("#compressors tr").all_inner_texts()]
        assert dict(rows) == {label: f"{report[key]:.2f}" for label, key in names.items()}
        expect(page.locator("#compressors p")).to_contain_text(f"{report['characters']:,} characters")


def test_a_model_that_is_loaded_again(tmp_path, opened):
    """Catches a text by the earlier weights after a reload of the page."""
    save_model(tmp_path / "model", make_folder("letters"))
    with running([ModelSource("model", str(tmp_path / "model"))]) as served, served.client() as http:
        page = opened(f"{served.url}/#generate?prompt=ab&seed=1&max_tokens=50")
        expect(page.locator("#model option")).to_have_count(1)
        save_model(tmp_path / "model", make_folder("letters", seed=1))
        assert http.post("/admin/reload", json={}).status_code == 200
        page.locator("#go").click()
        expected = Model.load(tmp_path / "model").generate("ab", 50, seed=1)
        expect(page.locator("#text")).to_have_value("ab" + expected)
