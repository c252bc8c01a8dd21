"""The folder of the app: names of clients that are no paths, limits of uploads, and run folders that are damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from charloom.errors import SettingsError
from charloom.server.app_folder import AppFolder, stem_of
from charloom.server.errors import ApiError
from charloom.server.run_on_disk import events_in
from charloom.server.uploads import UploadLimits, Uploads, ending, shown_name

ID = "0123abcd"


def put(uploads: Uploads, data: bytes, number: str = "0", name: str = "a.txt", upload: str = ID) -> Path:
    with uploads.begin(upload, number, name, len(data)) as arriving:
        arriving.take(len(data))
        arriving.add(data)
        return arriving.finish().path


def make_run(folder: Path, *events: object, toml: str = "[training]\nminutes = 2.5\n", last: bool = True) -> Path:
    """A run folder with this log."""
    folder.mkdir(parents=True)
    (folder / "run.toml").write_text(toml, encoding="utf-8")
    (folder / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    if last:
        (folder / "last").mkdir()
    return folder


@pytest.fixture
def app(tmp_path):
    with AppFolder(tmp_path / "app") as folder:
        yield folder


@pytest.mark.parametrize(
    ("name", "shown", "stored", "stem"),
    [
        ("chapter 1.txt", "chapter 1.txt", ".txt", "chapter-1"),
        ("../../x", "x", ".txt", "x"),
        ("/etc/passwd", "passwd", ".txt", "passwd"),
        ("C:\\texts\\Größe.TXT.GZ", "Größe.TXT.GZ", ".gz", "groe"),
        ("a/b.csv.gz", "b.csv.gz", ".csv.gz", "b"),
        ("log.JSONL", "log.JSONL", ".jsonl", "log"),
        ("x\0y\n.json", "xy.json", ".json", "xy"),
        ("\ud800..", "..", ".txt", "text"),
        ("..", "..", ".txt", "text"),
        ("Анна.txt", "Анна.txt", ".txt", "text"),
        ("", "text", ".txt", "text"),
        ("/", "text", ".txt", "text"),
        ("n" * 3000, "n" * 100, ".txt", "n" * 40),
        ("a.exe", "a.exe", ".txt", "a"),
        ("a.txt/../..csv", "..csv", ".csv", "csv"),
    ],
)
def test_the_name_of_a_text(name, shown, stored, stem):
    """Catches a name that leaves its folder, controls a terminal, or gives a run a name that is not plain."""
    assert (shown_name(name), ending(name), stem_of(shown_name(name))) == (shown, stored, stem)


@pytest.mark.parametrize(
    "upload", ["", "..", "../../x", "0123abc", "0123ABCD", "0123abcd\n", "0" * 33, "0123abc/", "²" * 8]
)
def test_the_id_of_an_upload(app, upload):
    """Catches an id that is a path, or that another system reads in another way."""
    with pytest.raises(ApiError, match="must be called by 8 to 32 digits") as caught:
        app.uploads.begin(upload, "0", "a.txt", None)
    assert caught.value.status == 400
    assert [*app.uploads.folder.iterdir()] == []


@pytest.mark.parametrize("number", ["", "-1", "1000", "0000", "..", "1.0", "²", "٣", "0\n"])
def test_the_number_of_a_file(app, number):
    """Catches a number that is a path."""
    with pytest.raises(ApiError, match="must be 0 to 999"):
        app.uploads.begin(ID, number, "a.txt", None)


def test_a_file_replaces_an_earlier_one(app):
    """Catches files in the order of their arrival, an earlier file that stays, and one that counts twice."""
    uploads = Uploads(app.path / "uploads", UploadLimits(one_bytes=10))
    put(uploads, b"12345", "10", "b.txt")
    put(uploads, b"123", "2", "first.csv")
    place = put(uploads, b"12345", "2", "a.txt")
    assert [file.name for file in uploads.files(ID)] == ["a.txt", "b.txt"]
    assert sorted(path.name for path in place.parent.iterdir()) == ["0002.txt", "0010.txt"]


def test_uploads_have_limits(tmp_path):
    """Catches a disk that one page fills, at once or in parts, and a half file that stays."""
    uploads = Uploads(tmp_path / "uploads", UploadLimits(one_bytes=10, all_bytes=15, uploads=2))
    with pytest.raises(ApiError, match="at most 10 bytes together; found 11") as caught:
        uploads.begin(ID, "0", "a.txt", 11)
    assert caught.value.status == 413
    put(uploads, b"12345678")
    with uploads.begin(ID, "1", "b.txt", None) as arriving:
        arriving.take(2)
        with pytest.raises(ApiError, match="found 11"):
            arriving.take(1)
    assert sorted(path.name for path in (tmp_path / "uploads" / ID).iterdir()) == ["0000.txt"]
    with pytest.raises(ApiError, match="all uploads together may have 15 bytes"):
        uploads.begin("a" * 8, "0", "a.txt", 8)
    put(uploads, b"1234", upload="a" * 8)
    with pytest.raises(ApiError, match="at most 2 uploads"):
        uploads.begin("b" * 8, "0", "a.txt", 1)


def test_old_uploads_are_removed(tmp_path):
    """Catches uploads that stay for ever, and one in use that is removed."""
    now = 0.0
    uploads = Uploads(tmp_path / "uploads", UploadLimits(seconds=100), lambda: now)
    old, used = put(uploads, b"1"), put(uploads, b"2", upload="a" * 8)
    now = 99
    uploads.files("a" * 8)
    now = 101
    put(uploads, b"3", upload="b" * 8)
    assert (old.parent.exists(), used.exists()) == (False, True)
    with pytest.raises(ApiError, match="upload the files again") as caught:
        uploads.files(ID)
    assert caught.value.status == 404


def test_only_our_own_uploads_are_removed(tmp_path):
    """Catches `--folder` with a folder of the user's that has `uploads` of its own: its files must stay."""
    uploads = tmp_path / "uploads"
    outside = tmp_path / "outside" / "0000.txt"
    for path in (uploads / ID / "0000.txt", uploads / "photos" / "0000.txt", uploads / ("a" * 8) / "mine.txt", outside):
        path.parent.mkdir(parents=True)
        path.write_text("text", encoding="utf-8")
    (uploads / ("b" * 8)).symlink_to(outside.parent)
    Uploads(uploads)
    assert sorted(path.name for path in uploads.iterdir()) == ["a" * 8, "b" * 8, "photos"]
    assert outside.exists()
    assert (uploads / ("a" * 8) / "mine.txt").exists()


def test_one_app_at_a_time(app, tmp_path):
    """Catches a second app that removes the uploads of the first."""
    path = put(app.uploads, b"text")
    with pytest.raises(SettingsError, match="by one app at a time"):
        AppFolder(app.path)
    assert path.exists()
    (tmp_path / "file").write_text("text", encoding="utf-8")
    with pytest.raises(SettingsError, match="`folder` must be a folder that can be written"):
        AppFolder(tmp_path / "file")


def test_names_of_runs(app):
    """Catches a run that takes the folder or the name of another."""
    (app.runs / "a-1").mkdir()
    (app.runs / "a-2").symlink_to(app.path / "nowhere")
    assert app.new_name("a.txt", ["a-3"]) == "a-4"


def test_what_a_run_says(app):
    """Catches figures of another event, a resumed run that still counts as finished, and a half line."""
    started = {"event": "started", "step": 0}
    validation = {"event": "validation", "step": 5, "best": True, "validation_bits": 2.5, "seconds": 30.0}
    worse = {**validation, "best": False, "validation_bits": 3.0, "seconds": 40.0}
    finished = {"event": "finished", "seconds": 60.0, "validation_bits": 2.4}
    folder = make_run(app.runs / "a-1", started, validation, worse, finished)
    run = app.read("a-1")
    assert (run.state, run.minutes, run.seconds, run.best_bits) == ("finished", 2.5, 60.0, 2.4)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"event": "started", "step": 5}\n{"event": "st')
    assert app.read("a-1").state == "stopped"
    assert [event["event"] for event in app.events("a-1")][-2:] == ["finished", "started"]


def test_a_link_is_no_run(app, tmp_path):
    """Catches a link with which a client reads another folder or file."""
    outside = make_run(tmp_path / "outside", {"event": "notice", "text": "secret"})
    (app.runs / "a-1").symlink_to(outside)
    inside = make_run(app.runs / "a-2")
    (inside / "log.jsonl").unlink()
    (inside / "log.jsonl").symlink_to(outside / "log.jsonl")
    assert app.names() == ["a-2"]
    assert app.events("a-2") == []
    assert app.read("a-2").state == "failed"
    for name in ("a-1", "..", ".", "", "../outside", str(outside), "a-2/../../../outside", "a\0"):
        with pytest.raises(ApiError, match="must be one of those"):
            app.events(name)


@pytest.mark.parametrize(
    "toml", ["", "[training", "training = 5", "[training]\nminutes = nan", "\udcff", "[training]\nminutes = 'x'"]
)
@pytest.mark.parametrize(
    "log",
    [
        b"",
        b"\xff\xfe\n",
        b"[]\n5\nnull\n",
        b'{"event": 5}\n{"event": "validation", "best": 1, "seconds": "x", "validation_bits": []}\n',
        b'{"event": "step", "seconds": 1e999}\n{"event": "step", "seconds": NaN}\n{"event": "step", "seconds": 1'
        + b"0" * 4000
        + b"}\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_damaged_run(app, toml, log):
    """Catches one damaged run that hides all others, and an answer that is not JSON."""
    make_run(app.runs / "a-2")
    folder = make_run(app.runs / "a-1")
    (folder / "run.toml").write_bytes(toml.encode("utf-8", "surrogateescape"))
    (folder / "log.jsonl").write_bytes(log)
    (folder / "app.json").write_bytes(log)
    found = {run.run: run for run in app.all()}
    assert found["a-2"].state == "stopped"
    assert found["a-1"].state in ("failed", "stopped")
    assert (found["a-1"].error is None) == (found["a-1"].state == "stopped")
    json.dumps([run.to_json() for run in found.values()], allow_nan=False)
    json.dumps(app.events("a-1"), allow_nan=False)


def test_a_run_that_never_trained(app):
    """Catches a run that can be resumed in the list, and not on the disk."""
    make_run(app.runs / "a-1", last=False)
    assert (app.read("a-1").state, app.read("a-1").error) == (
        "failed",
        "stopped before training began; start it again",
    )


def test_a_long_log(app, monkeypatch):
    """Catches a log that fills the memory."""
    folder = make_run(app.runs / "a-1", *({"event": "step", "step": step} for step in range(1000)))
    monkeypatch.setattr("charloom.server.run_on_disk.LARGEST_TEXT", 100)
    assert [event["step"] for event in events_in(folder / "log.jsonl")] == [997, 998, 999]
