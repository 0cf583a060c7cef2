"""Follows faces from frame to frame, and decides which of them are the people of a video.

A track is one face without a long break. A person may have several tracks, since a face turns away
or a cut comes between; `people` joins them by time and place. Nobody is recognised: two persons
who are never seen at the same time count as one, as in Aff-Wild2, whose two-person videos have a
folder for the person on the left and one for the right.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_face.faces.detect import GROWTH, REACH, Face

PATIENCE = 15
"""Frames without the face after which a track ends."""

MOST_PEOPLE = 2

LEAST_PROMINENCE = 0.15
"""Size summed over frames, as a share of the most prominent person's, below which a face is a
passer-by and gets no folder."""

_SHARED = 0.1  # share of the shorter's frames that two tracks of one person may have in common


@dataclasses.dataclass
class Track:
    """One face over some frames; tracks are numbered from 0 in order of appearance."""

    number: int
    frames: list[int] = dataclasses.field(default_factory=list)
    faces: list[Face] = dataclasses.field(default_factory=list)


class Tracker:
    """Assigns the faces of successive frames to tracks; `tracks` are all of them so far."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []

    def update(self, frame: int, faces: Sequence[Face]) -> list[Track]:
        """Adds the faces of a frame, later than the one before; returns the track of each."""
        active = [track for track in self.tracks if frame - track.frames[-1] <= PATIENCE]
        pairs = []
        for index, face in enumerate(faces):
            for track in active:
                last = track.faces[-1]
                distance, growth = last.distance(face), last.growth(face)
                if distance <= REACH and growth <= GROWTH:
                    pairs.append((distance + (growth - 1), index, track.number))
        chosen: dict[int, Track] = {}
        taken: set[int] = set()
        for _, index, number in sorted(pairs):
            if index not in chosen and number not in taken:
                chosen[index] = self.tracks[number]
                taken.add(number)
        for index, face in enumerate(faces):
            if index not in chosen:
                chosen[index] = Track(len(self.tracks))
                self.tracks.append(chosen[index])
            chosen[index].frames.append(frame)
            chosen[index].faces.append(face)
        return [chosen[index] for index in range(len(faces))]

    def forget(self) -> None:
        """Keeps the last face of each track alone, which is all that following needs."""
        for track in self.tracks:
            del track.frames[:-1], track.faces[:-1]

    def state(self) -> list[dict[str, Any]]:
        """What following needs of each track, as JSON values."""
        return [
            {"frame": track.frames[-1], "face": as_json(track.faces[-1])} for track in self.tracks
        ]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Goes on from what `state` gave."""
        self.tracks = [
            Track(number, [last["frame"]], [from_json(last["face"])])
            for number, last in enumerate(state)
        ]


def as_json(face: Face) -> dict[str, Any]:
    """A face as JSON values."""
    mesh = None if face.mesh is None else face.mesh.tolist()
    return {"landmarks": face.landmarks.tolist(), "score": float(face.score), "mesh": mesh}


def from_json(values: Mapping[str, Any]) -> Face:
    """Inverse of `as_json`."""
    mesh = None if values["mesh"] is None else np.asarray(values["mesh"], np.float32)
    return Face(np.asarray(values["landmarks"], np.float64), values["score"], mesh)


def people(tracks: Sequence[Track]) -> list[dict[int, int]]:
    """The most prominent people of a video, from left to right, from all of its tracks.

    Each is the number of the track to take the face from, by frame in which the person is seen.
    """
    groups: list[list[Track]] = []
    for track in sorted(tracks, key=lambda track: (-len(track.frames), track.number)):
        open_to = [group for group in groups if not _together(track, group)]
        if open_to:
            place = _mean_x(track)
            min(open_to, key=lambda group: abs(place - _mean_x(*group))).append(track)
        else:
            groups.append([track])
    groups.sort(key=lambda group: -_prominence(group))
    kept = [
        group
        for group in groups[:MOST_PEOPLE]
        if _prominence(group) >= LEAST_PROMINENCE * _prominence(groups[0])
    ]
    return [_choice(group) for group in sorted(kept, key=lambda group: _mean_x(*group))]


def _prominence(group: Sequence[Track]) -> float:
    """Size of the face, summed over the frames of each track."""
    return sum(sum(face.size for face in track.faces) for track in group)


def _mean_x(*tracks: Track) -> float:
    return float(np.mean([face.centre[0] for track in tracks for face in track.faces]))


def _together(track: Track, group: Sequence[Track]) -> bool:
    """Whether the track and the group's are seen at the same time, as two persons are."""
    frames = set(track.frames)
    return any(
        len(frames.intersection(other.frames)) > _SHARED * min(len(frames), len(other.frames))
        for other in group
    )


def _choice(group: Sequence[Track]) -> dict[int, int]:
    """The track with the largest face of each frame."""
    seen = sorted(
        (frame, face.size, track.number)
        for track in group
        for frame, face in zip(track.frames, track.faces, strict=True)
    )
    return {frame: number for frame, _, number in seen}
