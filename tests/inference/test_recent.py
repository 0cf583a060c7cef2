"""Windows of persons as their frames come are those of whole videos, up to the newest frame."""

import numpy as np
import pytest

from data_pipeline.windows import Windows
from mtl_face.inference.recent import Recent
from mtl_face.inputs import GAPS, LONGEST_ABSENCE
from mtl_face.tables import FrameTable

TOKENS = "tokens"


def faces_of(lengths, seed, longest):
    """Persons and frame numbers of faces in the order of the frames, and what was seen of each."""
    random = np.random.default_rng(seed)
    frames = [np.cumsum(random.integers(1, 4, length)) for length in lengths]
    for frame in frames:  # someone is away
        frame[len(frame) // 2 :] += random.integers(0, longest)
    person = np.repeat(np.arange(len(lengths)), lengths)
    frame = np.concatenate(frames)
    in_time = np.lexsort((random.permutation(len(frame)), frame))
    tokens = random.normal(size=(len(frame), 3, 2)).astype(np.float16)
    return person[in_time], frame[in_time], {TOKENS: tokens}


@pytest.mark.parametrize("length", [2, 5, 8])
@pytest.mark.parametrize("longest", [3, 3 * LONGEST_ABSENCE])
def test_they_are_those_of_whole_videos(length, longest):
    person_F, frame_F, arrays = faces_of([1, 3, 8, 9, 50, 23], length, longest)
    table = FrameTable.from_columns(
        dataset="set",
        video=person_F.astype(str),
        frame=frame_F,
        image=np.arange(len(frame_F)).astype(str),
        root=".",
    )
    whole = Windows.of(table, length, causal=True)
    face_N = table.image.astype(int)  # a table is sorted
    recent = Recent(length)
    for begin in range(0, len(frame_F), 7):  # several faces a call, of a frame or of some
        rows = slice(begin, begin + 7)
        given = {name: array[rows] for name, array in arrays.items()}
        found, index_FW = recent.windows(given, person_F[rows], frame_F[rows])
        for face, index_W in enumerate(index_FW):
            place = int(np.flatnonzero(index_W == face)[0])
            assert (np.delete(index_W, place) == -1).all()
            (window,), (at,) = np.nonzero(
                whole.answered_MW == np.flatnonzero(face_N == begin + face)
            )
            assert at == place
            until = slice(0, place + 1)
            np.testing.assert_array_equal(found[GAPS][face, until], whole.gap_MW[window, until])
            np.testing.assert_array_equal(
                found[TOKENS][face, until], arrays[TOKENS][face_N[whole.row_MW[window, until]]]
            )
            assert (found[GAPS][face, place + 1 :] == -1).all()
            assert not found[TOKENS][face, place + 1 :].any()
    assert len(frame_F) == 94


def test_what_it_holds_is_bounded_and_persons_who_left_are_forgotten():
    recent = Recent(8)
    held = []
    for frame in range(1, 3 * LONGEST_ABSENCE, 25):
        # one who stays, and one who is new and never seen again
        arrays = {TOKENS: np.zeros((2, 3, 2), np.float16)}
        recent.windows(arrays, np.array([0, frame]), np.array([frame, frame]))
        held.append(recent.num_rows)
    assert max(held) <= 8 + LONGEST_ABSENCE // 25 + 1
    assert held[-1] < held[len(held) // 2] + 8
    recent.windows(
        {TOKENS: np.zeros((1, 3, 2), np.float16)}, np.array([0]), np.array([9 * LONGEST_ABSENCE])
    )
    assert recent.num_rows == 1


def test_no_face_is_no_window():
    none = np.zeros(0, np.int64)
    found, index_FW = Recent(4).windows({TOKENS: np.zeros((0, 3, 2), np.float16)}, none, none)
    assert found[TOKENS].shape == (0, 4, 3, 2)
    assert index_FW.shape == (0, 4)
