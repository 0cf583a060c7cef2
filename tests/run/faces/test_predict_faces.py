"""From inputs to tables: order, completeness, interruptions, bad input, memory."""

import dataclasses
import errno
import itertools
import os
import subprocess
import sys
import tracemalloc

import camera_frames
import numpy as np
import pytest
import small_videos
from brightness_network import Brightness
from PIL import Image
from smile_network import Smile, face

from mtl_face.errors import ConfigError, ImageError, WorkdirError
from mtl_face.evaluation import face_files
from mtl_face.evaluation.calibration import Calibration
from mtl_face.evaluation.face_files import FaceFileError
from mtl_face.evaluation.smoothing import Smoothing
from mtl_face.face_table import NO_FACE, NOT_DECODED, FaceTable
from mtl_face.faces import align, camera
from mtl_face.faces.camera import CameraError
from mtl_face.faces.detect import Face, FaceFinder
from mtl_face.faces.video import VideoFrame
from mtl_face.run.faces import first_pass
from mtl_face.run.faces import predict_faces as module
from mtl_face.run.faces.journal import Journal
from mtl_face.run.faces.predict_faces import Request, predict_faces
from mtl_face.run.faces.products import Wanted
from mtl_face.run.postprocess import PostProcessing
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES


@pytest.fixture(scope="module")
def finder():
    return FaceFinder()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    frames = small_videos.two_people(20, absent=(5, 6))
    frames[9] = np.full_like(frames[9], 60)
    small_videos.write(folder / "talk.mp4", frames)
    for seed in range(3):
        Image.fromarray(camera_frames.head(seed)[0]).save(folder / f"p{seed}.png")
    return folder


class Centre:
    """Sees one face, in the middle of every picture; counts its calls."""

    def __init__(self, stop_at=None):
        self.calls = 0
        self.stop_at = stop_at

    def __call__(self, picture):
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        centre = np.asarray(picture.size) / 2
        return [Face(align.TEMPLATE_L2 - [56, 72] + centre, 0.9, None)]


def predict(*inputs, steps=None, finder=None, predictor=None, **request):
    said = []
    progress = []
    digest = predict_faces(
        predictor or Brightness(),
        Request(inputs, **request),
        steps=steps or PostProcessing(),
        say=said.append,
        progress=lambda done, total: progress.append((done, total)),
        finder=finder or Centre(),
    )
    return digest, said, progress


def test_photos_and_videos_to_all_formats(inputs, tmp_path, finder):
    outputs = [tmp_path / f"t{ending}" for ending in face_files.ENDINGS]
    digest, said, progress = predict(
        inputs / "talk.mp4", inputs, outputs=outputs, mesh=True, finder=finder
    )
    table = face_files.read(tmp_path / "t.parquet")
    assert table.mesh is not None
    names = list(dict.fromkeys(table.source.tolist()))
    assert names == [str(inputs / name) for name in ("talk.mp4", "p0.png", "p1.png", "p2.png")]
    talk = table.take(table.source == names[0])
    assert list(dict.fromkeys(talk.frame.tolist())) == list(range(1, 21))
    np.testing.assert_allclose(talk.time_ms, 40.0 * (talk.frame - 1))
    assert [(talk.frame == number).sum() for number in (1, 5, 6, 7, 10)] == [2, 1, 1, 2, 1]
    assert talk.status[talk.frame == 10].tolist() == [NO_FACE]
    assert set(talk.person.tolist()) == {0, 1, 2}
    for path in outputs:
        again = face_files.read(path)
        assert again.source.tolist() == table.source.tolist()
        np.testing.assert_allclose(again.va, table.va, rtol=1e-5)
    assert digest.rows == len(table)
    assert progress[-1] == (23, 23)
    assert [f"faces: {path}" for path in outputs] == said[-3:]
    assert sorted(tmp_path.iterdir()) == sorted(outputs)


def test_the_short_table_keeps_the_order_of_the_inputs(inputs):
    _, said, _ = predict(*(inputs / f"p{number}.png" for number in (2, 0, 1)))
    assert [line.split()[0][-6:] for line in said[1:]] == ["p2.png", "p0.png", "p1.png"]


def test_a_short_table_without_output(inputs, finder):
    _, said, _ = predict(inputs / "p0.png", inputs / "talk.mp4", finder=finder)
    assert len(said) == 4
    assert said[0].split() == [
        "source",
        "person",
        "expression",
        "valence",
        "arousal",
        "action",
        "units",
    ]
    assert "p0.png" in said[1]
    assert "Other 63%" in said[1]  # softmax of 0..7
    assert "in 19 of 20 frames" in said[2]
    assert "in 17 of 20 frames" in said[3]
    assert "AU26 100%" in said[3]


@pytest.mark.parametrize("stop_at", [2, 9, 30, 41, 42])
def test_an_interrupted_work_goes_on(inputs, tmp_path, stop_at, monkeypatch):
    """The table is the one of a work that was not interrupted, and nothing is done twice."""
    monkeypatch.setattr(first_pass, "_RECORD", 8)
    small_videos.write(
        tmp_path / "a.mp4",
        [pixels for pixels in small_videos.grey_steps(18, size=(128, 128)) for _ in range(2)],
    )
    given = (inputs, tmp_path / "a.mp4")  # 3 photos, 20 and 36 frames
    whole = Centre()
    predict(*given, outputs=[tmp_path / "whole.parquet"], finder=whole)
    assert whole.calls == 59
    outputs = [tmp_path / "t.parquet", tmp_path / "t.csv"]
    first, second = Centre(stop_at), Centre()
    with pytest.raises(KeyboardInterrupt):
        predict(*given, outputs=outputs, finder=first)
    assert not any(path.exists() for path in outputs)
    assert (tmp_path / ".t.parquet.unfinished").exists()
    predict(*given, outputs=outputs, finder=second)
    assert second.calls <= 59 - (stop_at - 1) + 2 * 8 + 8
    assert not (tmp_path / ".t.parquet.unfinished").exists()
    found, expected = (face_files.read(tmp_path / f"{name}.parquet") for name in ("t", "whole"))
    for field in dataclasses.fields(FaceTable):
        if field.name not in ("mesh", "metadata"):
            np.testing.assert_array_equal(
                getattr(found, field.name), getattr(expected, field.name), err_msg=field.name
            )


def test_persons_keep_their_numbers_over_an_interruption(inputs, tmp_path, finder, monkeypatch):
    monkeypatch.setattr(first_pass, "_RECORD", 8)
    calls = 0

    def stopping(picture):
        nonlocal calls
        calls += 1
        if calls == 18:
            raise KeyboardInterrupt
        return finder(picture)

    output = tmp_path / "t.csv"
    with pytest.raises(KeyboardInterrupt):
        predict(inputs / "talk.mp4", outputs=[output], finder=stopping)
    # The one on the left comes first in the list of faces now: only the track says who is who.
    predict(
        inputs / "talk.mp4",
        outputs=[output],
        finder=lambda picture: sorted(finder(picture), key=lambda face: -face.centre[0]),
    )
    table = face_files.read(output)
    for person, low, high in ((1, 0, 330), (2, 330, 640)):
        assert ((table.box[table.person == person, 0] // 1).clip(low, high) > low).all()
        assert (table.box[table.person == person, 0] < high).all()
    assert table.person.max() == 2


def test_another_command_does_not_take_over(inputs, tmp_path):
    output = tmp_path / "t.csv"
    with pytest.raises(KeyboardInterrupt):
        predict(inputs, outputs=[output], finder=Centre(stop_at=12))
    with pytest.raises(WorkdirError, match="another command") as raised:
        predict(inputs, outputs=[output], mesh=True)
    assert "delete the file" in raised.value.remedy
    with pytest.raises(WorkdirError, match="another command"):
        predict(inputs, outputs=[output], predictor=Brightness(weights_sha256="beef"))
    predict(inputs, outputs=[output])


def test_memory_does_not_grow_with_the_video(tmp_path):
    """Frames, tables and states of a longer video are not all held at once."""
    peaks = []
    for count in (300, 1300):
        path = small_videos.write(
            tmp_path / f"{count}.mp4", [np.full((96, 96, 3), 80, np.uint8)] * count
        )
        tracemalloc.start()
        predict(path, outputs=[tmp_path / f"{count}.csv"])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(face_files.read(tmp_path / f"{count}.csv")) == count
    assert peaks[1] - peaks[0] < 300 * (1300 - 300)  # a row of the table alone has 1000 bytes


def test_frames_that_cannot_be_decoded_are_rows(inputs, tmp_path, finder):
    content = bytearray((inputs / "talk.mp4").read_bytes())
    path = tmp_path / "cut.mkv"
    small_videos.write(path, small_videos.two_people(60), codec="mpeg4")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    _, said, _ = predict(path, outputs=[tmp_path / "t.csv"])
    table = face_files.read(tmp_path / "t.csv")
    frames = list(dict.fromkeys(table.frame.tolist()))
    assert frames == list(range(1, frames[-1] + 1))
    if (table.status == NOT_DECODED).any():
        assert any("could not be decoded" in line for line in said)


class Lossy:
    """A video some of whose frames cannot be decoded."""

    frames, damaged, orientation, variable_rate, numbered_by_count = 9, 4, 6, True, False

    def after(self, done):
        for number in (2, 3, 6, 7):
            if number > done:
                yield VideoFrame(number, number / 10, Image.new("RGB", (96, 96)))


def test_gaps_of_a_video(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(first_pass, "open_video", lambda path: Lossy())
    _, said, _ = predict(inputs / "talk.mp4", outputs=[tmp_path / "t.csv"])
    table = face_files.read(tmp_path / "t.csv")
    assert table.frame.tolist() == list(range(1, 10))
    lost = table.status == NOT_DECODED
    assert table.frame[lost].tolist() == [1, 4, 5, 8, 9]
    assert np.isnan(table.time_ms[lost]).all()
    assert any("turned right by 90 degrees" in line for line in said)
    assert any("uneven frame rate" in line for line in said)
    assert any("4 frames or packets could not be decoded" in line for line in said)


def calibration(smoothing):
    return Calibration(
        smoothing=smoothing,
        temperatures={"au": 2.0, "expr": 1.0},
        std_scales={"valence": 0.3, "arousal": 0.4},
        std_is_predicted=False,
        au_thresholds=dict.fromkeys(AU_NAMES, -0.4),
        expression_biases={name: 9.0 * (name == "Fear") for name in EXPRESSION_NAMES},
        fitted_on={},
    )


def test_videos_are_smoothed_and_calibrated_and_photos_calibrated_alone(inputs, tmp_path):
    path = small_videos.write(tmp_path / "a.mkv", small_videos.grey_steps(12, size=(128, 128)))
    smoothing = Smoothing(
        kernel="box", unit="frames", on="logits", windows={"va": 3, "au": 0, "expr": 0}
    )
    given = (path, inputs / "p0.png")
    raw, done = tmp_path / "raw.parquet", tmp_path / "done.parquet"
    predict(*given, outputs=[raw])
    steps = PostProcessing(smoothing, calibration(smoothing), {"file": "c.json"})
    _, said, _ = predict(*given, outputs=[done], steps=steps)
    before, after = face_files.read(raw), face_files.read(done)
    arousal = before.va[:12, 1]
    padded = np.pad(arousal, 1, constant_values=np.nan)
    expected = np.nanmean([padded[:-2], padded[1:-1], padded[2:]], axis=0)
    np.testing.assert_allclose(after.va[:12, 1], expected)
    assert abs(expected - arousal).max() > 0.01
    np.testing.assert_allclose(after.va_std[:12], [[0.3, 0.4]] * 12)
    logit = np.linspace(-2, 3, 12)
    np.testing.assert_allclose(after.au_probability[0], 1 / (1 + np.exp(-logit / 2)))
    assert after.au_present[0].tolist() == (logit / 2 > -0.4).astype(int).tolist()
    assert after.expression_name[:12].tolist() == ["Fear"] * 12
    np.testing.assert_array_equal(after.va[12:], before.va[12:])
    assert after.person[12:].all()
    np.testing.assert_allclose(after.va_std[12:], [[0.3, 0.4]] * (len(after) - 12))
    photo_logit = np.log(before.au_probability[12:]) - np.log1p(-before.au_probability[12:])
    np.testing.assert_allclose(after.au_probability[12:], 1 / (1 + np.exp(-photo_logit / 2)))
    assert set(after.expression_name[12:].tolist()) == {"Fear"}
    for word in ("smoothed", "calibrated"):
        assert sum(line.startswith(word) for line in said) == 1
    assert after.metadata["calibration"] == {"file": "c.json"}


def test_crops_of_another_kind_are_refused(inputs):
    crop = {"data": ["a"], **align.specification(112)}
    predict(inputs / "p0.png", predictor=Brightness(crop=crop))
    other = {**crop, "landmarks": ["left_eye"], "version": 1}
    with pytest.raises(ConfigError, match=r"landmarks is .*left_eye"):
        predict(inputs / "p0.png", predictor=Brightness(crop=other))


def test_outputs_that_cannot_be(inputs, tmp_path):
    with pytest.raises(FaceFileError, match=r"\.xlsx"):
        predict(inputs, outputs=[tmp_path / "t.xlsx"])
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(WorkdirError, match="is a folder"):
        predict(inputs, outputs=[tmp_path / "d.csv"])
    assert [path.name for path in tmp_path.iterdir()] == ["d.csv"]


@pytest.mark.parametrize("linked", [False, True])
def test_no_input_is_overwritten(inputs, tmp_path, linked):
    """Neither by a table nor by a picture, under whatever name."""
    photo, table = tmp_path / "p.png", tmp_path / "p.csv"
    photo.write_bytes((inputs / "p0.png").read_bytes())
    target = photo
    if linked:
        target = tmp_path / "other.png"
        target.symlink_to(photo)
    table.symlink_to(photo)
    before = photo.read_bytes()
    for request in ({"wanted": Wanted(annotate=target)}, {"outputs": [table]}):
        with pytest.raises(ConfigError, match="is one of the inputs, and would be overwritten"):
            predict(photo, **request)
        assert photo.read_bytes() == before


def test_a_full_disk(inputs, tmp_path, monkeypatch):
    """The error says it, no output is there, and the work goes on from the journal."""
    real = Journal.add

    def full(journal, arrays, **notes):
        if len(journal.entries) == 2:
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise module.files.unwritable(journal.path, error)
        real(journal, arrays, **notes)

    output = tmp_path / "t.csv"
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", full)
        patch.setattr(first_pass, "_RECORD", 8)
        with pytest.raises(WorkdirError, match="No space left on device"):
            predict(inputs, outputs=[output])
    assert not output.exists()
    second = Centre()
    predict(inputs, outputs=[output], finder=second)
    assert second.calls < 23
    assert len(face_files.read(output)) == 23


def test_one_process_at_a_time_makes_an_output(inputs, tmp_path):
    """Another one is named; where it was killed, its work is taken over at once."""
    output = tmp_path / "t.csv"
    with pytest.raises(KeyboardInterrupt):
        predict(inputs, outputs=[output], finder=Centre(stop_at=9))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    (journal,) = before
    holder = (
        "import sys, pathlib, mtl_face.locks as locks\n"
        "with locks.hold(pathlib.Path(sys.argv[1]), what='', remedy=''):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    lock = tmp_path / f"{journal.name}.lock"
    with subprocess.Popen(
        [sys.executable, "-c", holder, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(WorkdirError, match=f"t.csv is being made by process {process.pid} on"):
            predict(inputs, outputs=[output, tmp_path / "more.csv"])
        assert {path: path.read_bytes() for path in before} == before
        process.kill()
    assert lock.exists()
    _, said, _ = predict(inputs, outputs=[output])
    assert any("going on with" in line for line in said)
    assert list(tmp_path.iterdir()) == [output]


def test_ctrl_c_ends_a_camera(tmp_path, monkeypatch):
    """What it showed is written, as is what comes after it."""

    def endless(number):
        yield from itertools.chain.from_iterable([frames] * 4)
        raise KeyboardInterrupt

    frames = [VideoFrame(n, n / 25, Image.new("RGB", (96, 96))) for n in range(1, 9)]
    monkeypatch.setattr(camera, "frames", endless)
    Image.new("RGB", (96, 96)).save(tmp_path / "p.png")
    _, _, progress = predict("camera:0", tmp_path / "p.png", outputs=[tmp_path / "t.csv"])
    assert progress[0] == (1, 0)
    assert progress[-1][0] == progress[-1][1]
    table = face_files.read(tmp_path / "t.csv")
    assert table.source.tolist().count("camera:0") >= 16
    assert table.source[-1] == str(tmp_path / "p.png")


def test_a_generated_camera_shows_a_face(inputs, tmp_path, finder, monkeypatch):
    source = f"movie={inputs / 'talk.mp4'}"
    monkeypatch.setattr(camera, "device_of", lambda number: (source, "lavfi"))
    predict("camera:0", outputs=[tmp_path / "t.csv"], finder=finder)
    table = face_files.read(tmp_path / "t.csv")
    assert set(table.source) == {"camera:0"}
    assert table.frame.max() == 20
    assert table.person.max() == 2


def test_a_camera_that_is_absent_or_goes_away(inputs, tmp_path, monkeypatch):
    output = tmp_path / "t.csv"
    with pytest.raises(ImageError, match="camera:63: cannot be opened") as raised:
        predict("camera:63", inputs / "p0.png", outputs=[output])
    assert "rows of the others: 1" in str(raised.value)
    assert len(face_files.read(output)) == 1

    def leaving(number):
        for n in range(1, 13):
            yield VideoFrame(n, n / 25, Image.new("RGB", (96, 96)))
        raise CameraError("stopped after 12 frames", path="camera:0", remedy="check its cable")

    monkeypatch.setattr(camera, "frames", leaving)
    with pytest.raises(ImageError, match="stopped after 12 frames"):
        predict("camera:0", outputs=[output])
    assert len(face_files.read(output)) == 12


def actor(picture):
    """A person who smiles where the edge of the picture is light."""
    level = np.asarray(picture)[0, 0].mean() / 255
    return [face(1, round(level))] if level > 0.05 else []


def lights(path, pattern):
    """A video with a light (1), dark (0.2) or black (0) edge; faces look alike throughout."""
    frames = [np.full((320, 320, 3), 128, np.uint8) for _ in pattern]
    for frame, level in zip(frames, pattern, strict=True):
        frame[:16] = round(255 * level)
    return small_videos.write(path, frames)


@pytest.mark.parametrize("stop_at", [None, 30])
def test_persons_beside_themselves_at_rest(tmp_path, monkeypatch, stop_at):
    """Of one who alternates the person is taken out; of one who always smiles the smile stays."""
    monkeypatch.setattr(first_pass, "_RECORD", 8)
    alternating = lights(tmp_path / "a.mp4", [0.2, 1.0, 0.2, 1.0, 0.0] * 10)
    always = lights(tmp_path / "b.mp4", [1.0] * 30)
    Image.new("RGB", (320, 320), (255,) * 3).save(tmp_path / "p.png")
    given = (alternating, always, tmp_path / "p.png")
    tables = {}
    for name, relative in (("absolute", False), ("relative", True)):
        request = {"outputs": [tmp_path / f"{name}.parquet"], "relative": relative}
        if stop_at:
            calls = itertools.count(1)

            def stopping(picture, calls=calls):
                if next(calls) == stop_at:
                    raise KeyboardInterrupt
                return actor(picture)

            with pytest.raises(KeyboardInterrupt):
                predict(*given, predictor=Smile(), finder=stopping, **request)
        predict(*given, predictor=Smile(), finder=actor, **request)
        table = face_files.read(tmp_path / f"{name}.parquet")
        tables[name] = [table.take(table.source == str(path)) for path in given]
    words = [set(table.baseline.tolist()) for table in tables["relative"]]
    assert words == [{"mean of the person", ""}, {"none"}, {"none"}]
    words = [set(table.baseline.tolist()) for table in tables["absolute"]]
    assert words == [{"none", ""}, {"none"}, {"none"}]
    truth = np.tile([0, 1, 0, 1, np.nan], 10)
    errors = {name: np.nanmax(abs(one[0].va[:, 0] - truth)) for name, one in tables.items()}
    assert errors["relative"] < 0.15 < errors["absolute"]
    smiles = {name: one[1].va[:, 0] for name, one in tables.items()}
    np.testing.assert_array_equal(smiles["relative"], smiles["absolute"])
    assert smiles["relative"].min() > 0.7
    np.testing.assert_array_equal(tables["relative"][2].va, tables["absolute"][2].va)


def test_a_neutral_picture(tmp_path):
    for name, level in (("neutral", 60), ("smile", 255), ("black", 0)):
        Image.new("RGB", (320, 320), (level,) * 3).save(tmp_path / f"{name}.png")
    output = tmp_path / "t.csv"
    request = {"outputs": [output], "predictor": Smile(), "finder": actor}
    video = lights(tmp_path / "a.mp4", [1.0] * 3)
    predict(tmp_path / "smile.png", video, neutral=tmp_path / "neutral.png", **request)
    table = face_files.read(output)
    np.testing.assert_allclose(table.va[:, 0], 1.0, atol=0.01)
    assert set(table.baseline.tolist()) == {"neutral picture"}
    for neutral, words in (("black", "shows no face"), ("gone", "does not exist")):
        with pytest.raises(ImageError, match=words):
            predict(tmp_path / "smile.png", neutral=tmp_path / f"{neutral}.png", **request)
    request["predictor"] = Brightness()
    with pytest.raises(ConfigError, match="models that take the points"):
        predict(tmp_path / "smile.png", neutral=tmp_path / "neutral.png", **request)


def test_pixels_beside_points_run_with_the_video(tmp_path, monkeypatch):
    """What was learnt of a person outlasts an interruption."""
    monkeypatch.setattr(first_pass, "_RECORD", 8)
    path = lights(tmp_path / "a.mp4", [0.2, 1.0] * 20)
    network = Smile(inputs=("image", "points"))
    predict(path, outputs=[tmp_path / "whole.csv"], predictor=network, finder=actor)
    whole = face_files.read(tmp_path / "whole.csv")
    assert set(whole.baseline[1:].tolist()) == {"running mean"}
    calls = itertools.count(1)

    def stopping(picture):
        if next(calls) == 30:
            raise KeyboardInterrupt
        return actor(picture)

    request = {"outputs": [tmp_path / "t.csv"], "predictor": network}
    with pytest.raises(KeyboardInterrupt):
        predict(path, finder=stopping, **request)
    predict(path, finder=actor, **request)
    np.testing.assert_allclose(face_files.read(tmp_path / "t.csv").va, whole.va, atol=1e-5)


def test_followed_faces_go_on_where_they_were(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(first_pass, "_RECORD", 8)

    class Stopping(FaceFinder):
        left = 12

        def follow(self, frame, faces):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            return super().follow(frame, faces)

    whole, parts = tmp_path / "whole.parquet", tmp_path / "parts.parquet"
    predict(inputs / "talk.mp4", outputs=[whole], finder=FaceFinder())
    with pytest.raises(KeyboardInterrupt):
        predict(inputs / "talk.mp4", outputs=[parts], finder=Stopping())
    predict(inputs / "talk.mp4", outputs=[parts], finder=FaceFinder())
    found, expected = face_files.read(parts), face_files.read(whole)
    np.testing.assert_array_equal(found.person, expected.person)
    np.testing.assert_array_equal(found.landmarks, expected.landmarks)
