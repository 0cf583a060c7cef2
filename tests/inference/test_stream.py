"""Frames become rows: who is seen where, and with which answer."""

import camera_frames
import numpy as np
import pytest
import small_videos
from brightness_network import Brightness
from PIL import Image, ImageFilter

from mtl_face.errors import ConfigError
from mtl_face.face_table import BLURRED, NO_FACE, OK, PARTLY_OUTSIDE, SMALL
from mtl_face.faces import align
from mtl_face.faces.detect import Face, FaceFinder
from mtl_face.faces.video import VideoFrame
from mtl_face.inference import stream
from mtl_face.inference.stream import FaceStream


@pytest.fixture(scope="module")
def finder():
    return FaceFinder()


def frames_of(pictures, begin=1):
    return [
        VideoFrame(number, (number - 1) / 25, Image.fromarray(pixels))
        for number, pixels in enumerate(pictures, start=begin)
    ]


def face_at(left, top, height, score=0.9):
    """A face without a mesh whose landmarks fill a box of this height."""
    template = align.TEMPLATE_L2 - align.TEMPLATE_L2.min(axis=0)
    landmarks = template * height / template[:, 1].max() + [left, top]
    return Face(landmarks, score, None)


def test_rows_of_a_video(finder):
    pictures = small_videos.two_people(6, absent=(3,))
    pictures[4] = np.full_like(pictures[4], 60)
    predictor = Brightness()
    live = FaceStream(predictor, source="talk.mp4", finder=finder)
    frames = frames_of(pictures)
    tables = live.update(frames[:4]) + live.update(frames[4:])
    assert [len(table) for table in tables] == [2, 2, 1, 2, 1, 2]
    assert predictor.batches == [7, 2]
    assert {str(table.source[0]) for table in tables} == {"talk.mp4"}
    assert [table.frame[0] for table in tables] == [1, 2, 3, 4, 5, 6]
    assert [table.time_ms[0] for table in tables] == [0, 40, 80, 120, 160, 200]
    # The larger head is found first; it stands on the left and keeps its number.
    for table in (tables[1], tables[3], tables[5]):
        by_person = dict(zip(table.person.tolist(), table.box[:, 0].tolist(), strict=True))
        assert by_person.keys() == {1, 2}
        assert by_person[1] < 330 < by_person[2]
    assert tables[2].person.tolist() == [1]
    assert tables[4].status.tolist() == [NO_FACE]
    assert tables[4].person.tolist() == [0]
    assert np.isnan(tables[4].va).all()
    assert tables[4].au_present.tolist() == [[-1] * 12]
    assert set(np.concatenate([table.status for table in tables])) == {OK, NO_FACE}


def test_answers_belong_to_their_faces(finder):
    (pixels,) = small_videos.two_people(1)
    pixels[:, 330:] //= 2  # the one on the right stands in the dark
    (table,) = FaceStream(Brightness(), source="a", finder=finder).update(frames_of([pixels]))
    for face, row in zip(finder(Image.fromarray(pixels)), range(2), strict=True):
        level = np.asarray(align.crop_face(Image.fromarray(pixels), face.landmarks)).mean() / 255
        assert table.va[row, 1] == pytest.approx(-level)
        np.testing.assert_allclose(table.landmarks[row], face.landmarks)
        np.testing.assert_allclose(table.box[row], face.box)
        assert table.score[row] == pytest.approx(face.score)
    assert abs(table.va[0, 1] - table.va[1, 1]) > 0.05
    assert (table.va[:, 0] == 1).all()  # clipped
    np.testing.assert_allclose(table.au_probability[0], 1 / (1 + np.exp(-np.linspace(-2, 3, 12))))
    assert table.au_present[0].tolist() == [0] * 5 + [1] * 7
    assert table.expression_name.tolist() == ["Other", "Other"]
    assert np.isnan(table.va_std).all()


def test_points_are_kept_where_asked_for(finder):
    (picture,) = small_videos.two_people(1)
    live = FaceStream(Brightness(), source="a", finder=finder, mesh=True)
    seen, empty = live.update(frames_of([picture, np.zeros_like(picture)]))
    assert seen.mesh.shape == (2, 468, 3)
    np.testing.assert_allclose(seen.mesh[0, :, 0].min(), seen.box[0, 0])
    assert np.isnan(empty.mesh).all()


def test_no_frames_give_no_tables():
    assert FaceStream(Brightness(), source="a", finder=lambda picture: []).update([]) == []


def test_a_crop_is_resized_as_training_resizes_it():
    predictor = Brightness()
    predictor.crop_size = 32
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    live = FaceStream(predictor, source="a", finder=lambda picture: [face_at(60, 60, 70)])
    (table,) = live.update(frames_of([pixels]))
    crop = align.crop_face(Image.fromarray(pixels), face_at(60, 60, 70).landmarks)
    level = np.asarray(crop.resize((32, 32), Image.Resampling.BILINEAR)).mean() / 255
    assert table.va[0, 1] == pytest.approx(-level)


def status(pixels, finder):
    live = FaceStream(Brightness(), source="a", finder=finder)
    (table,) = live.update(frames_of([np.asarray(pixels)]))
    return str(table.status[0])


def test_faces_that_should_not_be_trusted(finder):
    picture = Image.fromarray(camera_frames.head(3, size=320, eyes_px=60)[0])
    assert status(picture, finder) == OK
    assert status(picture.filter(ImageFilter.GaussianBlur(1)), finder) == OK
    assert status(picture.filter(ImageFilter.GaussianBlur(4)), finder) == BLURRED
    height = finder(picture)[0].box[[1, 3]] @ [-1, 1]

    def of_height(pixels):
        side = round(320 * pixels / height)
        return picture.resize((side, side), Image.Resampling.BOX)

    assert status(of_height(52), finder) == OK
    assert SMALL in status(of_height(36), finder).split("+")


def test_a_face_at_the_edge():
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    for left, expected in [(0, OK), (-60, PARTLY_OUTSIDE), (250, PARTLY_OUTSIDE), (200, OK)]:
        assert status(pixels, lambda picture, left=left: [face_at(left, 60, 80)]) == expected
    assert status(pixels, lambda picture: [face_at(280, 60, 30)]) == f"{SMALL}+{PARTLY_OUTSIDE}"


def test_sharpness_is_that_of_a_known_texture():
    """Of a checkerboard the Laplacian is -8 times the deviation; contrast does not matter."""
    y, x = np.mgrid[:112, :112]
    for low, high in ((0, 255), (100, 120)):
        board = np.where((x + y) % 2, high, low)[..., None].repeat(3, axis=2).astype(np.uint8)
        assert stream.sharpness(board) == pytest.approx(64, rel=0.01)
    assert stream.sharpness(np.full((112, 112, 3), 77, np.uint8)) == 0
    ramp = np.tile(x[..., None], 3).astype(np.uint8)
    assert stream.sharpness(ramp) == pytest.approx(0, abs=1e-9)


def test_as_many_answers_as_faces():
    table = stream.FaceTable.without_faces(["a"], [1], [0.0])
    predictions = Brightness().predict_arrays({"image": np.zeros((1, 112, 112, 3), np.uint8)})
    with pytest.raises(ValueError, match="1 predictions for 0 faces"):
        stream.with_answers(table, predictions)


class Counting(FaceFinder):
    """Counts searches and followed faces."""

    def __init__(self):
        super().__init__()
        self.searches = self.followed = 0

    def __call__(self, frame):
        self.searches += 1
        return super().__call__(frame)

    def find_one(self, frame):
        return super().__call__(frame)

    def follow(self, frame, faces):
        self.followed += len(faces)
        return super().follow(frame, faces)


def test_faces_are_followed_between_searches():
    pictures = small_videos.two_people(20, absent=tuple(range(1, 7)))
    finder = Counting()
    live = FaceStream(Brightness(), source="a", finder=finder)
    tables = live.update(frames_of(pictures))
    assert finder.searches == 3  # frames 1, 9, 17
    assert finder.followed == 7 + 1 + 7 * 2 + 2 + 3 * 2  # in frames that are searched, too
    persons = [table.person.tolist() for table in tables]
    assert persons == [[1]] * 8 + [[1, 2]] * 12  # who came in frame 7 is found by the next search
    searched = FaceStream(Brightness(), source="a", finder=finder.find_one)
    by_search = searched.update(frames_of(pictures))
    for table, expected in zip(tables[8:], by_search[8:], strict=True):
        places = table.person.argsort(), expected.box[:, 0].argsort()
        eyes = np.linalg.norm(expected.landmarks[:, 1] - expected.landmarks[:, 0], axis=1).min()
        offset = table.landmarks[places[0]] - expected.landmarks[places[1]]
        assert np.abs(offset).max() < 0.05 * eyes


def test_a_search_does_not_move_the_points_of_a_face():
    """They are found from those of the frame before: a search's own would differ by a pixel."""
    pictures = small_videos.two_people(10, absent=tuple(range(1, 11)))
    finder = Counting()
    live = FaceStream(Brightness(), source="a", finder=finder, mesh=True)
    tables = live.update(frames_of(pictures))
    assert finder.searches == 2  # frames 1 and 9
    before = Face(tables[7].landmarks[0], tables[7].score[0], tables[7].mesh[0])
    (followed,) = finder.follow(Image.fromarray(pictures[8]), [before])
    np.testing.assert_array_equal(tables[8].mesh[0], followed.mesh)


def test_a_lost_face_or_a_gap_leads_to_a_search():
    pictures = small_videos.two_people(8)
    pictures[3] = np.full_like(pictures[3], 60)
    finder = Counting()
    live = FaceStream(Brightness(), source="a", finder=finder)
    tables = live.update(frames_of(pictures))
    assert [len(table) for table in tables] == [2, 2, 2, 1, 2, 2, 2, 2]
    assert finder.searches == 3  # frames 1, 4 and 5, where both are back
    assert tables[-1].person.tolist() == [1, 2]
    live.update(frames_of(pictures[:1], begin=20))
    assert finder.searches == 4


def test_a_cut_leads_to_a_search():
    """Who came with it is found at once; who was there before keeps the number."""
    pictures = small_videos.two_people(6, absent=(1, 2, 3))
    for pixels in pictures[3:]:
        stripes = np.broadcast_to(np.arange(640)[:, None] // 80 % 2 * 255, pixels.shape)
        np.copyto(
            pixels, stripes, where=(pixels == 90).all(axis=2, keepdims=True), casting="unsafe"
        )
    finder = Counting()
    tables = FaceStream(Brightness(), source="a", finder=finder).update(frames_of(pictures))
    assert finder.searches == 2  # frames 1 and 4; the next would be frame 9
    assert [table.person.tolist() for table in tables] == [[1]] * 3 + [[1, 2]] * 3


def test_each_frame_is_searched_for_who_was_lost():
    absent = tuple(range(4, 24))
    finder = Counting()
    live = FaceStream(Brightness(), source="a", finder=finder)
    live.update(frames_of(small_videos.two_people(30, absent=absent)[:6]))
    assert finder.searches == 1 + 3
    tables = live.update(frames_of(small_videos.two_people(30, absent=absent)[6:], begin=7))
    # to frame 19, 15 after the loss; then every eighth: 27, by which the person is back
    assert finder.searches == 1 + 16 + 1
    assert [len(table) for table in tables] == [1] * 20 + [2] * 4


def test_a_face_that_the_search_misses_is_still_followed():
    class Blinking(Counting):
        """A search that finds nothing but at first."""

        def __call__(self, frame):
            faces = super().__call__(frame)
            return faces if self.searches == 1 else []

    finder = Blinking()
    live = FaceStream(Brightness(), source="a", finder=finder)
    tables = live.update(frames_of(small_videos.two_people(20)))
    assert {len(table) for table in tables} == {2}
    assert finder.searches == 3


def test_a_network_of_other_crops_is_refused():
    crop = {"data": ["a"], **align.specification(112)}
    FaceStream(Brightness(crop=crop), source="a", finder=lambda picture: [])
    with pytest.raises(ConfigError, match=r"landmarks is .*left_eye"):
        FaceStream(Brightness(crop={**crop, "landmarks": ["left_eye"]}), source="a")
    del crop["outside_of_the_frame"]
    with pytest.raises(ConfigError, match="outside_of_the_frame is None, not 'black'"):
        stream.predict_images(Brightness(crop=crop), [], names=[])
