"""Annotated pictures, timeline and summary out of the rows of several sources."""

import dataclasses
import subprocess
import sys

import face_rows
import numpy as np
import pandas as pd
import pytest
import small_videos
from brightness_network import Brightness
from PIL import Image

from mtl_face.errors import ConfigError, UserError, WorkdirError
from mtl_face.evaluation import face_files
from mtl_face.face_table import FaceTable
from mtl_face.faces import video
from mtl_face.report import masks
from mtl_face.report.annotate import layout
from mtl_face.run.faces import products
from mtl_face.run.faces.predict_faces import Request, predict_faces
from mtl_face.run.faces.products import Products, Wanted, annotated_paths
from mtl_face.run.faces.sources import CAMERA, PHOTO, VIDEO, Source
from mtl_face.run.postprocess import PostProcessing

FRAMES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    small_videos.write(folder / "talk.mp4", small_videos.grey_steps(FRAMES))
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (300, 200), (90, 140, 90)).save(folder / name)
    return folder


def source(path):
    kind = PHOTO if path.suffix in (".png", ".jpg") else VIDEO
    return Source(str(path), kind, path)


def rows_of(source, seen=None):
    """Rows as the answers of a source would be."""
    if source.kind == PHOTO:
        return dataclasses.replace(face_rows.faces(), source=np.array([source.name]))
    return face_rows.video(np.ones(FRAMES, bool) if seen is None else seen, source=source.name)


def make(sources, rows, **wanted):
    """Gives the tables one after the other; returns what was said and the progress."""
    asked = Wanted(**wanted)
    asked.check(sources)
    said, steps = [], []
    work = Products(asked, sources, say=said.append, progress=lambda *step: steps.append(step))
    with work:
        for table in rows:
            work.add(table)
    work.finish()
    return said, steps


def test_all_products_of_photos_and_a_video(folder, tmp_path):
    sources = [source(folder / name) for name in ("a.png", "talk.mp4", "b.jpg")]
    photo, talk, other = map(rows_of, sources)
    first = FaceTable.joined([photo, talk.take(np.arange(5))])  # records end where they end
    second = FaceTable.joined([talk.take(np.arange(5, len(talk))), other])
    said, steps = make(
        sources,
        [first, second],
        annotate=tmp_path / "drawn",
        plot=tmp_path / "t.svg",
        summary=tmp_path / "s.csv",
    )
    names = ["a_annotated.jpg", "b_annotated.jpg", "talk_annotated.mp4"]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == names
    frames = list(video.open_video(tmp_path / "drawn/talk_annotated.mp4"))
    assert [frame.seconds for frame in frames] == [0.04 * place for place in range(FRAMES)]
    assert frames[0].picture.size == layout(96, 64).canvas
    assert "talk.mp4, person 1" in (tmp_path / "t.svg").read_text()
    assert pd.read_csv(tmp_path / "s_summary.csv").source.tolist() == [str(folder / "talk.mp4")]
    assert len(pd.read_csv(tmp_path / "s_events.csv"))
    assert steps[-1] == (FRAMES + 2, FRAMES + 2)
    assert [done for done, _ in steps] == list(range(FRAMES + 3))
    assert said[0] == f"annotated: {tmp_path / 'drawn'}"
    assert said[-3:] == [
        f"summary: {tmp_path / 's_summary.csv'}",
        f"summary: {tmp_path / 's_events.csv'}",
        f"timeline: {tmp_path / 't.svg'}",
    ]


def test_the_answers_lie_on_their_own_frames(folder, tmp_path):
    """Faces of odd frames are at the left, of even ones at the right; frames differ in level."""
    talk = source(folder / "talk.mp4")
    table = rows_of(talk)
    box = np.where((table.frame % 2 == 1)[:, None], [5, 5, 25, 25], [70, 5, 90, 25]).astype(float)
    make([talk], [dataclasses.replace(table, box=box)], annotate=tmp_path / "a.mkv")
    drawn = list(video.open_video(tmp_path / "a.mkv"))
    assert len(drawn) == FRAMES
    factor = layout(96, 64).factor
    for frame in drawn:
        pixels = np.asarray(frame.picture).astype(int)
        level = np.median(pixels[: round(64 * factor), : round(96 * factor)], axis=(0, 1))
        assert level == pytest.approx([4 + 8 * (frame.number - 1)] * 3, abs=4)
        middle = round(15 * factor)
        edges = [pixels[middle, round(x * factor)] for x in (27, 68)]
        coloured = [np.ptp(edge) > 60 for edge in edges]
        assert coloured == [frame.number % 2 == 1, frame.number % 2 == 0]


def test_frames_that_were_not_decoded_are_left_out(folder, tmp_path):
    talk = source(folder / "talk.mp4")
    seen = np.ones(FRAMES, bool)
    seen[[3, 7]] = False
    table = rows_of(talk, seen)
    status = np.where(table.frame == 4, "not decoded", table.status)
    make([talk], [dataclasses.replace(table, status=status)], annotate=tmp_path / "a.mp4")
    times = [frame.seconds for frame in video.open_video(tmp_path / "a.mp4")]
    np.testing.assert_allclose(times, [0.04 * place for place in range(FRAMES) if place != 3])


def test_a_source_that_breaks_leaves_the_others(folder, tmp_path):
    good, bad = source(folder / "talk.mp4"), source(tmp_path / "gone.mp4")
    photo = source(tmp_path / "gone.png")
    said, _ = make(
        [bad, good, photo], [rows_of(each) for each in (bad, good, photo)], annotate=tmp_path / "d"
    )
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["talk_annotated.mp4"]
    assert f"{bad.name}: not annotated, the file does not exist" in said
    assert any(line.startswith(f"{photo.name}: not annotated") for line in said)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_no_half_of_a_video(folder, tmp_path, error):
    talk = source(folder / "talk.mp4")
    work = Products(
        Wanted(annotate=tmp_path / "a.mp4"), [talk], say=print, progress=lambda *step: None
    )

    def interrupted():
        with work:
            work.add(rows_of(talk).take(np.arange(4)))
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_hidden_faces(folder, tmp_path):
    picture = Image.new("RGB", (640, 480), "black")
    picture.paste("white", (200, 200, 260, 270))
    picture.save(tmp_path / "p.png")
    photo = source(tmp_path / "p.png")
    table = dataclasses.replace(rows_of(photo), box=np.array([[195.0, 195, 265, 275]]))
    for hidden in (False, True):
        make([photo], [table], annotate=tmp_path / "d.png", anonymise=hidden)
        with Image.open(tmp_path / "d.png") as drawn:
            assert (drawn.getpixel((230, 202)) == (255, 255, 255)) != hidden


def test_an_interrupted_drawing_begins_again_without_the_network(tmp_path, monkeypatch):
    """What was answered is kept beside the annotated file, where no table is asked for."""
    small_videos.write(tmp_path / "talk.mp4", small_videos.two_people(4))
    request = Request([tmp_path / "talk.mp4"], wanted=Wanted(annotate=tmp_path / "a.mp4"))
    said = []

    def go(network, drawing):
        predict_faces(
            network,
            request,
            steps=PostProcessing(),
            say=said.append,
            progress=lambda *step: None,
            drawing=drawing,
        )

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(Brightness(), stop)
    kept = tmp_path / ".a.mp4.unfinished"
    assert sorted(tmp_path.iterdir()) == [kept, tmp_path / "talk.mp4"]
    assert any("the same command goes on" in line for line in said)
    network = Brightness()
    go(network, lambda *step: None)
    assert network.batches == []
    assert sorted(tmp_path.iterdir()) == [tmp_path / "a.mp4", tmp_path / "talk.mp4"]
    assert len(list(video.open_video(tmp_path / "a.mp4"))) == 4


def test_drawing_is_loaded_when_it_is_asked_for():
    """Matplotlib and templates would add to the time until the first answer."""
    program = (
        "import sys, mtl_face.run.faces.predict_faces\n"
        "print(*{'matplotlib', 'jinja2', 'markupsafe', 'av', 'tensorflow'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=600
    )
    assert result.stdout == "\n"


def test_names_in_a_folder(tmp_path):
    sources = [
        Source("x/a.png", PHOTO, tmp_path / "x/a.png"),
        Source("y/a.png", PHOTO, tmp_path / "y/a.png"),
        Source("y_a.png", PHOTO, tmp_path / "y_a.png"),
        Source("talk.mkv", VIDEO, tmp_path / "talk.mkv"),
        Source("../y/a.png", PHOTO, tmp_path / "z/a.png"),
    ]
    paths = annotated_paths(tmp_path / "d", sources)
    assert list(paths) == [each.name for each in sources]
    assert [path.name for path in paths.values()] == [
        "x_a.png_annotated.jpg",
        "y_a.png_annotated.jpg",
        "y_a_annotated.jpg",
        "talk_annotated.mp4",
        "y_a.png_2_annotated.jpg",
    ]
    (one,) = annotated_paths(tmp_path, sources[:1]).values()  # a folder that is there
    assert one == tmp_path / "a_annotated.jpg"


def test_what_cannot_be_made_is_refused_before(folder, tmp_path):
    talk, photo = source(folder / "talk.mp4"), source(folder / "a.png")
    camera = Source("camera:0", CAMERA, tmp_path / "0")
    (tmp_path / "file").write_text("")
    cases = [
        ([photo], {"plot": tmp_path / "a.svg"}, ConfigError, "--plot without a video"),
        ([photo], {"summary": tmp_path / "a"}, ConfigError, "--summary without a video"),
        ([talk], {"anonymise": True}, ConfigError, "--anonymise without --annotate"),
        ([camera], {"annotate": tmp_path / "d"}, ConfigError, "camera:0 are not kept"),
        ([talk, photo], {"annotate": tmp_path / "a.mp4"}, ConfigError, "one file for 2 sources"),
        ([talk], {"annotate": tmp_path / "a.avi"}, UserError, "no format"),
        ([photo], {"annotate": tmp_path / "a.mp4"}, UserError, "no format"),
        ([talk], {"plot": tmp_path / "a.pdf"}, UserError, "no format"),
        ([talk], {"plot": tmp_path / "file/a.svg"}, WorkdirError, "file"),
        ([talk], {"annotate": tmp_path / "file/a.mp4"}, WorkdirError, "file"),
    ]
    for sources, wanted, error, words in cases:
        with pytest.raises(error, match=words):
            Wanted(**wanted).check(sources)


def test_a_video_without_a_face_has_no_summary(folder, tmp_path):
    talk = source(folder / "talk.mp4")
    with pytest.raises(UserError, match="no video with a face"):
        make([talk], [rows_of(talk, np.zeros(FRAMES, bool))], summary=tmp_path / "s")


def test_the_mesh_is_not_kept(folder):
    talk = source(folder / "talk.mp4")
    table = rows_of(talk)
    mesh = np.zeros((len(table), 468, 3), np.float32)
    work = Products(Wanted(summary=folder / "s"), [talk], say=print, progress=lambda *step: None)
    work.add(dataclasses.replace(table, mesh=mesh))
    assert [kept.mesh for kept in work._kept] == [None]
    nothing = Products(Wanted(), [talk], say=print, progress=lambda *step: None)
    nothing.add(table)
    assert nothing._kept == []


def test_the_rules_of_events_are_those_asked_for(folder, tmp_path):
    talk = source(folder / "talk.mp4")
    rules = products.EventRules(shortest_ms=1e6)
    make([talk], [rows_of(talk)], summary=tmp_path / "s", rules=rules)
    assert len(pd.read_csv(tmp_path / "s_events.csv")) == 0


def test_the_whole_road_from_a_video_with_a_face(tmp_path):
    """Found faces, answered, drawn with their faces hidden; tables keep no points unasked."""
    small_videos.write(tmp_path / "talk.mp4", small_videos.two_people(6))
    shown = []
    said = []
    predict_faces(
        Brightness(),
        Request(
            [tmp_path / "talk.mp4"],
            [tmp_path / "t.parquet"],
            wanted=Wanted(
                annotate=tmp_path / "a.mp4",
                anonymise=True,
                plot=tmp_path / "t.html",
                summary=tmp_path / "s",
                rules=products.EventRules(shortest_ms=0),
            ),
        ),
        steps=PostProcessing(),
        say=said.append,
        progress=lambda *step: None,
        drawing=lambda *step: shown.append(step),
    )
    table = face_files.read(tmp_path / "t.parquet")
    assert table.mesh is None
    assert set(table.person.tolist()) == {1, 2}
    assert shown[-1] == (6, 6)
    frames = list(video.open_video(tmp_path / "a.mp4"))
    assert len(frames) == 6
    factor = layout(640, 360).factor
    eyes = (table.landmarks[0, :2].mean(axis=0) * factor).astype(int)  # between them: the mask
    pixel = np.asarray(frames[0].picture).astype(int)[eyes[1], eyes[0] - 6]
    assert np.abs(pixel - masks._FILL).max() < 12
    events = pd.read_csv(tmp_path / "s_events.csv")
    assert set(events.person) == {1, 2}
    assert {path.name for path in tmp_path.iterdir()} == {
        "talk.mp4",
        "t.parquet",
        "a.mp4",
        "t.html",
        "s_summary.csv",
        "s_events.csv",
    }
