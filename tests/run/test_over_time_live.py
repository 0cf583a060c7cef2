"""A network over time in live use answers as of a whole video: persons apart, gaps, absences."""

import dataclasses
import functools
import itertools

import drawn_run
import numpy as np
import pytest
import small_videos
from PIL import Image
from small_experiment import Experiment

from mtl_face.errors import ConfigError, WorkdirError
from mtl_face.evaluation import face_files
from mtl_face.faces import align
from mtl_face.faces.detect import Face
from mtl_face.faces.video import VideoFrame, open_video
from mtl_face.inference.stream import FaceStream
from mtl_face.run import models, page_networks
from mtl_face.run import workdir as workdirs
from mtl_face.run.export import export
from mtl_face.run.faces import first_pass
from mtl_face.run.faces.predict_faces import Request, predict_faces
from mtl_face.run.postprocess import PostProcessing
from mtl_face.run.predict import predict
from mtl_face.serve.model import Faces
from mtl_face.weights import exported
from mtl_face.weights.card import ExportError

pytestmark = pytest.mark.slow

TEMPORAL = ("data.image_size=112", "temporal.window=6", "temporal.layers=1", "temporal.width=8")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A network of frames whose weights are drawn, in `run`."""
    experiment = Experiment(tmp_path_factory.mktemp("live"))
    drawn_run.write(experiment, experiment.workdir, "data.image_size=112")
    return experiment


@functools.cache
def over_time(experiment, kind, *more):
    """A network over time whose weights are drawn: its folder, and itself."""
    name = "_".join([kind, *more]).replace(".", "_")
    named = (f"temporal.frame_model={experiment.workdir}", f"temporal.kind={kind}", *TEMPORAL)
    workdir = experiment.folder / name
    drawn_run.write(experiment, workdir, *named, *more)
    return workdir, models.load(workdir)


def face_at(left, top=60, height=70):
    template = align.TEMPLATE_L2 - align.TEMPLATE_L2.min(axis=0)
    return Face(template * height / template[:, 1].max() + [left, top], 0.9, None)


PERSONS = {1: 20, 2: 200}
"""Left edge of each person's face."""

FRAMES = [*range(1, 20), *range(23, 30), *range(2000, 2012)]
"""Frames with a face: of person 1, who is away for a while. Person 2 stays until 26."""


def seen():
    """By frame: a picture of noise whose brightness changes, and the persons in it."""
    random = np.random.default_rng(0)
    for number in FRAMES:
        base = random.integers(0, 200, (3,))
        pixels = (base + random.integers(0, 56, (200, 320, 3))).astype(np.uint8)
        persons = [1] if number % 5 == 0 or number > 26 else [1, 2]
        yield VideoFrame(number, None, Image.fromarray(pixels)), persons


def streamed(model, together=3):
    """Answers by person and frame, a few frames a call."""
    current = []

    def finder(picture):
        return [face_at(PERSONS[person]) for person in current.pop(0)]

    live = FaceStream(model, source="a", finder=finder)
    frames = list(seen())
    found = {}
    for begin in range(0, len(frames), together):
        part = frames[begin : begin + together]
        current.extend(persons for _, persons in part)
        for table in live.update([frame for frame, _ in part]):
            for row in range(len(table)):
                answers = (table.va[row], table.au_probability[row])
                found[int(table.person[row]), int(table.frame[row])] = np.concatenate(answers)
    return found


@pytest.fixture(scope="module")
def crops(experiment):
    """The same faces as aligned crops, whole to the bit, and their list."""
    folder, lines = experiment.folder / "crops", []
    for frame, persons in seen():
        for person in persons:
            # one who comes back after such a time has a new number: motion alone is followed here
            number = 3 if frame.number >= 2000 else person
            name = f"person{number}/{frame.number:05}.jpg"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            crop = align.crop_face(frame.picture, face_at(PERSONS[person]).landmarks)
            crop.save(folder / name, "PNG")
            lines.append(name)
    (folder / "list.txt").write_text("\n".join(["image_location", *lines]) + "\n")
    return folder


@pytest.mark.parametrize(
    ("kind", "tokens"), [("convolution", "task+patches"), ("attention", "task"), ("gru", "task")]
)
def test_the_numbers_are_those_of_the_same_frames_in_a_list(experiment, crops, kind, tokens):
    of_kind = () if tokens == "task" else (f"temporal.tokens={tokens}",)
    _, model = over_time(experiment, kind, "temporal.causal=true", *of_kind)
    table = predict(model, crops / "list.txt", images=crops, say=print)
    live = streamed(model)
    assert len(live) == len(table) == 57
    alone = predict(model.frames, crops / "list.txt", images=crops, say=print)
    assert abs(table.va - alone.va).max() > 0.05  # it corrects, by the frames before
    for row in range(len(table)):
        number = int(str(table.video[row]).removeprefix("person"))
        expected = np.concatenate([table.va[row].clip(-1, 1), table.au_probabilities[row]])
        np.testing.assert_allclose(live[number, int(table.frame[row])], expected, atol=2e-5)


def test_persons_do_not_mix_and_calls_do_not_matter(experiment):
    _, model = over_time(experiment, "gru", "temporal.causal=true")
    together, apart = streamed(model, 7), streamed(model, 1)
    assert together.keys() == apart.keys()
    for key, answers in together.items():
        np.testing.assert_allclose(apart[key], answers, atol=2e-5)


def written(path):
    """A short video of noise; in some frames a corner is white, and one person is away."""
    random = np.random.default_rng(1)
    frames = []
    for number in range(1, 18):
        base = random.integers(0, 200, (3,))
        pixels = (base + random.integers(0, 56, (200, 320, 3))).astype(np.uint8)
        pixels[:16, :16] = 255 * (number % 5 == 0)
        frames.append(pixels)
    return small_videos.write(path, frames)


def persons_in(picture):
    return [1] if np.asarray(picture)[:8, :8].mean() > 128 else [1, 2]


def answered(model, inputs, output, stop_at=None):
    """The table that `predict` writes of inputs; `stop_at` interrupts it at so many pictures."""
    calls = itertools.count(1)

    def finder(picture):
        if next(calls) == stop_at:
            raise KeyboardInterrupt
        return [face_at(PERSONS[person]) for person in persons_in(picture)]

    request = Request(inputs, [output])
    options = {"steps": PostProcessing(), "say": print, "progress": lambda *_: None}
    predict_faces(model, request, finder=finder, **options)
    return face_files.read(output)


@pytest.mark.parametrize("more", [(), ("temporal.causal=true",)])
def test_videos_and_photos_whose_faces_are_found(experiment, tmp_path, monkeypatch, more):
    monkeypatch.setattr(first_pass, "_RECORD", 8)
    _, model = over_time(experiment, "gru", *more)
    video = written(tmp_path / "a.mp4")
    lines = []
    for frame in open_video(video):
        for person in persons_in(frame.picture):
            lines.append(f"person{person}/{frame.number:05}.jpg")
            (tmp_path / lines[-1]).parent.mkdir(exist_ok=True)
            crop = align.crop_face(frame.picture, face_at(PERSONS[person]).landmarks)
            crop.save(tmp_path / lines[-1], "PNG")
            if frame.number == 1 and person == 1:
                photo, first = frame.picture, np.asarray(crop)
    photo.save(tmp_path / "photo.png")
    (tmp_path / "list.txt").write_text("\n".join(["image_location", *lines]) + "\n")
    expected = predict(model, tmp_path / "list.txt", images=tmp_path, say=print)
    inputs = [video, tmp_path / "photo.png"]
    with pytest.raises(KeyboardInterrupt):
        answered(model, inputs, tmp_path / "t.parquet", stop_at=11)
    table = answered(model, inputs, tmp_path / "t.parquet")
    of_video = table.take((table.source == str(video)) & table.has_face)
    assert len(of_video) == len(expected) == 31
    for row in range(len(expected)):
        number = int(str(expected.video[row]).removeprefix("person"))
        (at,) = np.flatnonzero(
            (of_video.person == number) & (of_video.frame == expected.frame[row])
        )
        np.testing.assert_allclose(of_video.va[at], expected.va[row].clip(-1, 1), atol=2e-5)
    of_photo = table.take(table.source == str(inputs[1]))
    alone = model.predict_crops(first[None])
    np.testing.assert_allclose(of_photo.va[0], alone.va[0].clip(-1, 1), atol=2e-5)


@pytest.mark.parametrize("form", ["safetensors", "orbax"])
def test_an_export_needs_no_folder_of_a_training(experiment, crops, tmp_path, form):
    workdir, trained = over_time(experiment, "gru", "temporal.causal=true")
    expected = predict(trained, crops / "list.txt", images=crops, say=print)
    live = streamed(trained)
    export(workdir, form=form, output=tmp_path / "export", say=print)
    hidden = experiment.workdir.with_name("hidden")
    experiment.workdir.rename(hidden)
    try:
        with pytest.raises(WorkdirError, match="does not exist"):
            models.load(workdir)
        model = models.load(tmp_path / "export")
        table = predict(model, crops / "list.txt", images=crops, say=print)
        again = export(tmp_path / "export", output=tmp_path / "again", say=print)
    finally:
        hidden.rename(experiment.workdir)
    np.testing.assert_allclose(table.va, expected.va, atol=2e-5)
    for key, answers in streamed(model).items():
        np.testing.assert_allclose(live[key], answers, atol=2e-5)
    card = exported.read_card(tmp_path / "export")
    assert card["network"]["over_time"]["causal"] is True
    assert card["frames"]["weights_sha256"] == model.frames.origin["weights_sha256"]
    assert model.origin["weights_sha256"] == trained.origin["weights_sha256"]
    assert exported.read_card(again)["weights_sha256"] == card["weights_sha256"]
    with pytest.raises(ExportError, match=r"temporal\.width is 8 in the export, 16"):
        models.open_model(
            tmp_path / "export",
            workdirs.own_config(tmp_path / "export", ["temporal.width=16"]),
            print,
        )


def test_programs_are_refused_with_a_reason(experiment, tmp_path):
    workdir, model = over_time(experiment, "gru", "temporal.causal=true")
    for form in ("onnx", "stablehlo"):
        with pytest.raises(ConfigError, match="programs are of networks of frames alone"):
            export(workdir, form=form, output=tmp_path / "file.onnx")
    with pytest.raises(ConfigError, match="programs are of networks of frames alone"):
        model.export(tmp_path / "file.onnx")
    with pytest.raises(ConfigError, match="pages that answer by themselves"):
        page_networks.networks_of(model)


def test_a_photo_is_a_video_of_one_frame(experiment):
    _, model = over_time(experiment, "gru", "temporal.causal=true")
    frame, _ = next(seen())
    crop = np.asarray(align.crop_face(frame.picture, face_at(PERSONS[1]).landmarks))
    table = model.predict_crops(crop[None])
    np.testing.assert_allclose(table.va[0].clip(-1, 1), streamed(model)[1, 1][:2], atol=2e-5)


def test_one_that_sees_later_frames_is_refused_live(experiment):
    _, model = over_time(experiment, "gru")
    for use in (lambda: Faces(model, "name"), lambda: next(model.stream("a.mp4"))):
        with pytest.raises(ConfigError, match=r"temporal\.causal=false") as caught:
            use()
        assert "temporal.causal=true" in caught.value.remedy
    live = FaceStream(model, source="a", finder=lambda picture: [])
    with pytest.raises(ConfigError, match=r"temporal\.causal=false"):
        live.update([frame for frame, _ in seen()][:1])


def test_a_network_over_time_reads_no_other_one_over_time(experiment):
    workdir, model = over_time(experiment, "gru")
    config = model.config
    temporal = dataclasses.replace(config.temporal, frame_model=str(workdir))
    with pytest.raises(ConfigError, match="is a network over time"):
        models.frame_model(dataclasses.replace(config, temporal=temporal))
