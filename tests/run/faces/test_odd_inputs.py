"""Odd and damaged inputs: each is answered or named with a remedy, and the others are done."""

import io
import json
import tracemalloc

import camera_frames
import heif_file
import numpy as np
import pytest
import small_videos
from brightness_network import Brightness
from PIL import ExifTags, Image

from mtl_face import pictures
from mtl_face.errors import ImageError
from mtl_face.evaluation import face_files
from mtl_face.faces.detect import FaceFinder
from mtl_face.run.faces import sources
from mtl_face.run.faces.predict_faces import Request, predict_faces
from mtl_face.run.postprocess import PostProcessing


@pytest.fixture(scope="module")
def head():
    return camera_frames.head(2)[0]


def predict(tmp_path, *inputs, finder=None):
    """Rows, what was said, and the error, if there was one."""
    said, error = [], None
    try:
        predict_faces(
            Brightness(),
            Request(inputs, [tmp_path / "t.parquet"]),
            steps=PostProcessing(),
            say=said.append,
            progress=lambda *counts: None,
            finder=finder or FaceFinder(),
        )
    except ImageError as found:
        error = found
    return face_files.read(tmp_path / "t.parquet"), said, error


def rows(table, path):
    return table.take(table.source == str(path))


def test_photos_of_odd_kinds(head, tmp_path):
    """The same face in each, at the same place."""
    plain = Image.fromarray(head)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    clear = plain.copy()
    clear.putalpha(Image.linear_gradient("L").resize(plain.size))
    deep = np.asarray(plain.convert("L")).astype(np.uint16) * 257
    saved = {
        "plain.png": lambda path: plain.save(path),
        "turned.jpg": lambda path: plain.rotate(-90).save(path, exif=exif, quality=95),
        "alpha.png": lambda path: clear.save(path),
        "deep.png": lambda path: Image.fromarray(deep).save(path),
        "grey.tif": lambda path: plain.convert("L").save(path),
        "cmyk.jpg": lambda path: plain.convert("CMYK").save(path, quality=95),
        "moving.gif": lambda path: plain.save(
            path, save_all=True, append_images=[Image.new("RGB", plain.size)] * 3
        ),
    }
    for name, save in saved.items():
        save(tmp_path / name)
    table, said, error = predict(tmp_path, tmp_path)
    assert error is None
    expected = rows(table, tmp_path / "plain.png")
    for name in saved:
        found = rows(table, tmp_path / name)
        assert found.person.tolist() == [1], name
        assert np.abs(found.landmarks - expected.landmarks).max() < 3, name
    assert any("moving.gif: holds several pictures, the first was taken" in line for line in said)


def test_no_face_many_faces_and_very_small_pictures(head, tmp_path):
    small = np.asarray(Image.fromarray(head).resize((180, 180)))
    crowd = np.full((900, 1800, 3), 90, np.uint8)
    for number in range(50):
        top, left = divmod(number, 10)
        crowd[180 * top : 180 * top + 180, 180 * left : 180 * left + 180] = small
    Image.fromarray(crowd).save(tmp_path / "crowd.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("RGB", (3000, 2)).save(tmp_path / "line.png")
    table, _, error = predict(tmp_path, tmp_path, finder=FaceFinder(min_face=60))
    assert error is None
    seen = rows(table, tmp_path / "crowd.png")
    assert len(seen) == 50
    cells = {tuple(cell) for cell in (seen.landmarks.mean(axis=1) // 180).astype(int).tolist()}
    assert len(cells) == len(seen)
    assert seen.person.tolist() == list(range(1, len(seen) + 1))
    for name in ("dot.png", "line.png"):
        assert rows(table, tmp_path / name).status.tolist() == ["no face"]


def test_damaged_inputs_do_not_hold_up_the_others(head, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(head).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    video = small_videos.write(tmp_path / "good.mp4", small_videos.two_people(4)).read_bytes()
    contents = {
        "cut.jpg": (jpeg[: len(jpeg) // 2], "is truncated"),
        "empty.png": (b"", "the file is empty"),
        "empty.mp4": (b"", "empty.mp4: "),
        "text.mp4": (b"this is a diary, and no video\n" * 40, "text.mp4: "),
        "page.jpg": (b"<!DOCTYPE html><html></html>", "a web page"),
        "cut.mp4": (video[: len(video) // 2], "cut.mp4: "),
        "sound.wav.mp4": (b"RIFF\x24\0\0\0WAVEfmt ", "sound.wav.mp4: "),
    }
    for name, (content, _) in contents.items():
        (tmp_path / name).write_bytes(content)
    Image.fromarray(head).save(tmp_path / "z.png")
    table, _, error = predict(tmp_path, tmp_path, tmp_path / "gone.jpg", tmp_path / "nothing*.png")
    message = str(error)
    assert f"inputs that cannot be read: {len(contents) + 2} (rows of the others: " in message
    assert "gone.jpg" in message
    assert "matches nothing" in message
    for name, (_, words) in contents.items():
        assert f"{name}: " in message
        assert words in message
    assert message.count(" -> ") >= len(contents) + 2
    assert rows(table, tmp_path / "z.png").person.tolist() == [1]
    assert rows(table, tmp_path / "good.mp4").frame.max() == 4
    photos = [name for name in contents if not name.endswith("mp4")]
    for name in photos:
        assert rows(table, tmp_path / name).status.tolist() == ["not decoded"]


def test_a_picture_beyond_the_limit(tmp_path, monkeypatch, head):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 320 * 320 - 1)
    monkeypatch.setattr(
        pictures.decode, "__kwdefaults__", {"formats": None, "most_pixels": 320 * 320 - 1}
    )
    Image.fromarray(head).save(tmp_path / "large.png")
    table, _, error = predict(tmp_path, tmp_path / "large.png")
    assert "more than 102,399 pixels" in str(error)
    assert "crop or shrink it" in str(error)
    assert table.status.tolist() == ["not decoded"]


@pytest.mark.slow
def test_two_hundred_million_pixels(tmp_path, head):
    canvas = np.full((10_000, 20_000, 3), 90, np.uint8)
    big = np.asarray(Image.fromarray(head).resize((4000, 4000)))
    canvas[3000:7000, 8000:12000] = big
    Image.fromarray(canvas).save(tmp_path / "a.png", compress_level=1)
    del canvas, big
    table, _, error = predict(tmp_path, tmp_path / "a.png")
    assert error is None
    assert table.person.tolist() == [1]
    assert 3000 < table.landmarks[0, :, 1].mean() < 7000


def test_heic_installed_or_not(tmp_path, monkeypatch, head):
    pytest.importorskip("pi_heif")
    (tmp_path / "a.heic").write_bytes(heif_file.encode(head))
    Image.fromarray(head).save(tmp_path / "b.png")
    table, _, error = predict(tmp_path, tmp_path)
    assert error is None
    assert rows(table, tmp_path / "a.heic").person.tolist() == [1]
    without = tuple(name for name in pictures._readable() if name != "HEIF")
    monkeypatch.setattr(pictures, "_readable", lambda: without)
    table, said, error = predict(tmp_path, tmp_path)
    assert error is None
    assert any(".heic" in line and "mtl_face[heic]" in line for line in said)
    table, _, error = predict(tmp_path, tmp_path / "a.heic", tmp_path / "b.png")
    assert "mtl_face[heic]" in str(error)
    assert table.person.tolist() == [1]


@pytest.mark.parametrize("orientation", [2, 6])
def test_videos_that_a_matrix_turns(tmp_path, orientation):
    """Landmarks are those of the upright, mirrored frames."""
    pixels = small_videos.two_people(1, absent=(1,))[0]
    stored = {2: pixels[:, ::-1], 6: np.rot90(pixels)}[orientation]
    paths = [tmp_path / "plain.mp4", tmp_path / "turned.mp4"]
    small_videos.write(paths[0], [pixels] * 3)
    small_videos.write(paths[1], [np.ascontiguousarray(stored)] * 3)
    small_videos.turn(paths[1], orientation, *stored.shape[1::-1])
    table, said, error = predict(tmp_path, *paths)
    assert error is None
    plain, turned = (rows(table, path) for path in paths)
    assert turned.person.tolist() == [1] * 3
    np.testing.assert_allclose(turned.landmarks, plain.landmarks, atol=3)
    assert any("to be upright" in line for line in said)


def test_uneven_frame_rates_keep_their_times(tmp_path):
    times = [0, 40, 80, 500, 540, 2000]
    path = small_videos.write(tmp_path / "a.mkv", small_videos.two_people(6), times_ms=times)
    table, said, _ = predict(tmp_path, path)
    first = table.take(table.person == 1)
    assert first.time_ms.tolist() == times
    assert first.frame.tolist() == [1, 2, 3, 4, 5, 6]
    assert any("uneven frame rate" in line for line in said)


def test_names_that_mean_something_elsewhere(head, tmp_path):
    """A name is neither a formula, a pattern, a protocol nor an end of line."""
    names = ["=1+1.png", "[a]*.png", "a\nb.png", "http:x.png", "ü ñ.png"]
    for name in names:
        Image.fromarray(head).save(tmp_path / name)
    table, _, error = predict(tmp_path, *(tmp_path / name for name in names))
    assert error is None
    assert table.source.tolist() == [str(tmp_path / name) for name in names]
    assert table.person.tolist() == [1] * 5


def test_many_sources_take_no_memory_for_their_pictures(tmp_path):
    for number in range(24):
        Image.new("RGB", (400, 300), (number,) * 3).save(tmp_path / f"{number}.png")
    found = sources.find([tmp_path]).all
    assert len(found) == 24
    tracemalloc.start()
    predict(tmp_path, tmp_path, finder=lambda picture: [])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * 400 * 300 * 3


def test_a_model_of_another_schema(tmp_path, capsys):
    from mtl_face.cli import main

    (tmp_path / "export").mkdir()
    card = {"schema": 99, "versions": {"mtl_face": "9.9"}}
    (tmp_path / "export/model.json").write_text(json.dumps(card))
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    words = ["predict", f"--model={tmp_path / 'export'}", str(tmp_path / "a.png")]
    assert main.main(words) == 2
    err = capsys.readouterr().err
    assert "has a card of schema 99" in err
    assert "install mtl_face 9.9 or newer" in err
