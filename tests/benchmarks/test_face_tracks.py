"""The measurement of constructed videos: how numbers are counted, and two cases."""

import pytest

from benchmarks import face_tracks


def test_numbers_are_those_of_first_appearance():
    score = face_tracks.Score()
    for person, number in [(0, 5), (0, 5), (1, 7), (0, 7), (1, 7), (0, 5)]:
        score.add(person, number)
    assert (score.faces, score.wrong) == (6, 1)


def test_two_persons_with_one_number_are_an_error():
    score = face_tracks.Score()
    for person in (0, 0, 1, 1):
        score.add(person, 3)
    assert (score.faces, score.wrong) == (4, 2)


def test_who_is_behind_is_not_known():
    known = [people for _, people in face_tracks.frames(face_tracks.cross, 0)]
    assert [len(people) for people in known[:3]] == [2, 2, 2]
    middle = known[len(known) // 2]
    assert [person for _, person in middle] == [0]


@pytest.mark.slow
@pytest.mark.parametrize("case", [face_tracks.other_size, face_tracks.swap])
def test_looks_tell_what_motion_does_not(case):
    scores = face_tracks.errors(case, 0)
    assert scores["motion_and_looks"].wrong == 0
    assert scores["motion"].wrong > 0
    assert scores["motion"].faces > 30
