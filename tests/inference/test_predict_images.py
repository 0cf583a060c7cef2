"""`Predictor.predict` and `Predictor.stream`: any kind of picture in, tables out."""

import threading

import camera_frames
import numpy as np
import pytest
import small_videos
from brightness_network import Brightness
from PIL import ExifTags, Image
from smile_network import Smile

from mtl_face.errors import ConfigError, ImageError
from mtl_face.face_table import NO_FACE, NOT_DECODED
from mtl_face.faces import camera, geometry
from mtl_face.faces.camera import CameraError
from mtl_face.faces.detect import PHOTO_FACE_PX, FaceFinder
from mtl_face.faces.video import VideoError
from mtl_face.inference import stream
from mtl_face.inference.predictor import Predictor


class Answering(Brightness):
    """The network without weights, with the methods of a predictor."""

    predict, stream = Predictor.predict, Predictor.stream


class Smiling(Smile):
    predict, stream = Predictor.predict, Predictor.stream


@pytest.fixture(scope="module")
def heads():
    return [camera_frames.head(seed)[0] for seed in range(3)]


def test_a_picture_in_every_form(heads, tmp_path):
    pixels = heads[0]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(pixels)))
    turned.save(tmp_path / "turned.png", exif=exif)
    clear = Image.fromarray(pixels)
    clear.putalpha(128)
    forms = [
        tmp_path / "a.png",
        str(tmp_path / "turned.png"),
        Image.fromarray(pixels),
        Image.open(tmp_path / "turned.png"),
        clear,
        pixels,
    ]
    model = Answering()
    table = model.predict(forms)
    assert table.person.tolist() == [1] * 6
    assert table.source.tolist() == [
        str(tmp_path / "a.png"),
        str(tmp_path / "turned.png"),
        *(f"image {number}" for number in (3, 4, 5, 6)),
    ]
    np.testing.assert_allclose(table.landmarks, table.landmarks[:1].repeat(6, axis=0), atol=1e-3)
    np.testing.assert_allclose(table.va, table.va[:1].repeat(6, axis=0), atol=1e-6)
    assert table.metadata == {"weights_sha256": "f00d", "step": 7}
    for one in (forms[0], forms[1], forms[2], pixels):
        assert model.predict(one).person.tolist() == [1]
    assert len(model.predict(np.stack([pixels, pixels]))) == 2
    assert len(model.predict([])) == 0
    assert model.predict([np.zeros_like(pixels)]).status.tolist() == [NO_FACE]
    assert model.predict(pixels, mesh=True).mesh.shape == (1, 468, 3)


def test_many_pictures_keep_their_order(heads):
    pictures = [
        heads[number % 3] if number % 4 else np.zeros_like(heads[0]) for number in range(19)
    ]
    table = Answering().predict(pictures)
    assert table.source.tolist() == [f"image {number}" for number in range(1, 20)]
    assert (table.person == 0).tolist() == [number % 4 == 0 for number in range(19)]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("gone.jpg", "gone.jpg: the image does not exist"),
        ("talk.mp4", "talk.mp4: is a video"),
        (np.zeros((4, 4), np.uint8), "image 1 is uint8 .4, 4."),
        (np.zeros((4, 4, 3), np.float32), "image 1 is float32"),
        (np.zeros((0, 4, 3), np.uint8), "image 1 is uint8"),
        (Image.fromarray(np.full((4, 4), 7e9, np.float32)), "image 1: .*which one is white"),
    ],
)
def test_what_is_no_picture(image, words):
    with pytest.raises(ImageError, match=words) as raised:
        Answering().predict([image])
    assert raised.value.remedy


def test_beside_a_neutral_picture(heads):
    model = Smiling()
    table = model.predict(heads, neutral=heads[1])
    assert table.baseline.tolist() == ["neutral picture"] * 3
    mesh = FaceFinder(PHOTO_FACE_PX)(Image.fromarray(heads[1]))[0].mesh
    for baseline in model.baselines[-1]:
        np.testing.assert_allclose(baseline, geometry.normalise(mesh[None])[0], atol=1e-5)
    assert table.va[1, 0] == pytest.approx(0, abs=1e-3)
    assert model.predict(heads).baseline.tolist() == ["none"] * 3
    with pytest.raises(ImageError, match="the neutral picture shows no face"):
        model.predict(heads, neutral=np.zeros_like(heads[0]))
    with pytest.raises(ConfigError, match="take the points"):
        Answering().predict(heads, neutral=heads[1])


def test_a_video_comes_frame_by_frame(tmp_path):
    frames = small_videos.two_people(12, absent=(3,))
    frames[6] = np.full_like(frames[6], 60)
    path = small_videos.write(tmp_path / "talk.mp4", frames)
    tables = list(Answering().stream(path))
    assert [len(table) for table in tables] == [2, 2, 1, 2, 2, 2, 1, 2, 2, 2, 2, 2]
    assert [table.frame[0] for table in tables] == list(range(1, 13))
    assert {str(table.source[0]) for table in tables} == {str(path)}
    np.testing.assert_allclose([table.time_ms[0] for table in tables], np.arange(12) * 40)


def test_frames_that_cannot_be_decoded(tmp_path, monkeypatch):
    class Lossy:
        frames = 5

        def __iter__(self):
            for number in (2, 4):
                yield stream.VideoFrame(number, number / 25, Image.new("RGB", (64, 64)))

    monkeypatch.setattr(stream, "open_video", lambda path: Lossy())
    tables = list(Answering().stream("a.mp4", mesh=True))
    assert [table.frame.tolist() for table in tables] == [[1], [2], [3], [4], [5]]
    words = [str(table.status[0]) for table in tables]
    assert words == [NOT_DECODED, NO_FACE, NOT_DECODED, NO_FACE, NOT_DECODED]
    assert all(table.mesh is not None for table in tables)


def test_a_camera_and_what_is_no_video(tmp_path, monkeypatch):
    with pytest.raises(VideoError, match="does not exist"):
        next(Answering().stream(tmp_path / "gone.mp4"))
    with pytest.raises(CameraError):
        next(Answering().stream("camera:63"))
    monkeypatch.setattr(
        camera, "device_of", lambda number: ("testsrc=size=64x48:rate=8:duration=0.5", "lavfi")
    )
    tables = list(Answering().stream("camera:0"))
    assert [str(table.source[0]) for table in tables] == ["camera:0"] * 4


def test_several_threads_at_once(heads):
    model = Answering()
    expected = [model.predict(head) for head in heads]
    found = {}

    def work(number):
        found[number] = [model.predict(head) for head in heads]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.keys() == set(range(4))
    for tables in found.values():
        for table, one in zip(tables, expected, strict=True):
            np.testing.assert_allclose(table.landmarks, one.landmarks, atol=1e-4)
            np.testing.assert_allclose(table.va, one.va, atol=1e-6)


def test_a_table_draws_itself(heads, tmp_path):
    table = Answering().predict(heads[0])
    drawn = table.annotate(heads[0])
    assert drawn.mode == "RGB"
    assert drawn.width > 320
    hidden = table.annotate(Image.fromarray(heads[0]), anonymise=True)
    assert np.abs(np.asarray(hidden).astype(int) - np.asarray(drawn)).max() > 100
    with pytest.raises(ValueError, match="of 2 pictures"):
        Answering().predict(heads[:2]).annotate(heads[0])
    path = small_videos.write(tmp_path / "a.mp4", small_videos.two_people(6))
    rows = stream.FaceTable.joined(list(Answering().stream(path)))
    figure = rows.plot(tmp_path / "a.svg")
    assert figure.axes
    assert (tmp_path / "a.svg").stat().st_size > 1000
