"""Follows faces from frame to frame, and decides which of them are the people of a video.

A track is one person's face, as far as motion and looks tell. From frame to frame, motion tells:
who is where a face was. Where it cannot, because two cross, the whole picture changes in a cut, or
a face was away for some time, the track is taken whose face looks most alike (`faces.likeness`), if
it looks alike enough; else a new track begins. Nobody is recognised from one video to another.
`people` joins the tracks of persons whom neither told, by time and place: two persons who are never
seen at the same time count as one, as in Aff-Wild2, whose two-person videos have a folder for the
person on the left and one for the right.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment

from mtl_face.faces.align import Floats
from mtl_face.faces.detect import GROWTH, REACH, Face
from mtl_face.faces.likeness import difference, likeness

PATIENCE = 15
"""Frames without the face after which motion no longer tells whose face it is."""

MOST_PEOPLE = 2

LEAST_PROMINENCE = 0.15
"""Size summed over frames, as a share of the most prominent person's, below which a face is a
passer-by and gets no folder."""

_SHARED = 0.1  # share of the shorter's frames that two tracks of one person may have in common

# Costs of giving a face to a track, in the unit of `likeness.difference`: motion is at most 1.5.
_ABRUPT = 2.5  # change of looks from one frame to the next from which motion does not tell
_SMOOTH_LOOKS = 2.0  # most that looks count against motion that tells
_LOOKS = 8.0  # most that they count elsewhere
_AWAY = 1.0  # cost of another place, or of an absence
_NEW = _AWAY + 2.6  # of a new track: 89 % of the same persons and 15 % of others look more alike
_SEEN = 3  # frames of a track from which on its looks are known
_MEMORY = 50  # frames over which looks are averaged

# A frame is seen small: samples, means of them, and brightness of the means.
_SAMPLES, _MEANS = (64, 36), (16, 9)

_SAME_SHOT = 0.6
"""Correlation of two frames seen small below which a cut lies between them.

In constructed videos it is at least 0.70 from frame to frame, and at most 0.45 between two walls.
"""


@dataclasses.dataclass
class Track:
    """One face over some frames; tracks are numbered from 0 in order of appearance.

    Attributes:
        number: of the track.
        frames: numbers of the frames.
        faces: the face in each.
        size: width and height of the newest frame; None: not known.
        looks: mean likeness so far, and `newest` that of the newest frame; None: not known.
        seen: how many frames `looks` is of.
    """

    number: int
    frames: list[int] = dataclasses.field(default_factory=list)
    faces: list[Face] = dataclasses.field(default_factory=list)
    size: tuple[int, int] | None = None
    looks: Floats | None = None
    newest: Floats | None = None
    seen: int = 0

    def last_in(self, size: tuple[int, int] | None) -> Face:
        """The newest face, as it would be in a frame of this size."""
        face = self.faces[-1]
        return face if size is None or self.size is None else face.scaled(self.size, size)

    def add(
        self, frame: int, face: Face, size: tuple[int, int] | None, looks: Floats | None
    ) -> None:
        """Adds the face of a frame."""
        self.frames.append(frame)
        self.faces.append(face)
        self.size = size or self.size
        if looks is None:
            return
        self.newest = looks
        self.seen += 1
        if self.looks is None:
            self.looks = looks
        share = 1 / min(self.seen, _MEMORY)
        mixed = (1 - share) * self.looks + share * looks
        # What was outside of the picture so far, or is now, is taken from the other.
        self.looks = np.where(np.isnan(mixed), np.fmax(self.looks, looks), mixed)


class Tracker:
    """Assigns the faces of successive frames to tracks; `tracks` are all of them so far."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self._shot = 0  # first frame since the last cut
        self._view: Floats | None = None  # the newest frame, seen small

    def is_cut(self, picture: Image.Image) -> bool:
        """Whether a cut lies between the newest frame and this one, RGB: all of it is another."""
        return self._view is not None and _correlation(self._view, _view(picture)) < _SAME_SHOT

    def update(
        self, frame: int, faces: Sequence[Face], picture: Image.Image | None = None
    ) -> list[Track]:
        """Adds the faces of a frame, later than the one before; returns the track of each.

        `picture` is the frame, RGB; without it, motion alone tells.
        """
        size = None if picture is None else picture.size
        if picture is not None:
            if self.is_cut(picture):
                self._shot = frame
            view = _view(picture)
            if view.any():  # a black frame is no shot of its own
                self._view = view
        looks = [
            None if picture is None or face.mesh is None else likeness(picture, face.mesh)
            for face in faces
        ]
        count = len(self.tracks)
        # Each face has a column of its own for a new track.
        cost = np.full((len(faces), count + len(faces)), np.inf)
        for index, face in enumerate(faces):
            cost[index, count + index] = _NEW
            for track in self.tracks:
                cost[index, track.number] = _cost(
                    track, frame, face, size, looks[index], self._shot
                )
        rows, columns = linear_sum_assignment(np.where(np.isfinite(cost), cost, 1e6))
        chosen: dict[int, Track] = {}
        for index, column in sorted(zip(rows.tolist(), columns.tolist(), strict=True)):
            if column >= count:
                chosen[index] = Track(len(self.tracks))
                self.tracks.append(chosen[index])
            else:
                chosen[index] = self.tracks[column]
            chosen[index].add(frame, faces[index], size, looks[index])
        return [chosen[index] for index in range(len(faces))]

    def forget(self) -> None:
        """Keeps the last face of each track alone, which is all that following needs."""
        for track in self.tracks:
            del track.frames[:-1], track.faces[:-1]

    def state(self) -> dict[str, Any]:
        """What following needs, as JSON values."""
        tracks = [
            {
                "frame": track.frames[-1],
                "face": as_json(track.faces[-1]),
                "size": track.size,
                "looks": _numbers(track.looks),
                "newest": _numbers(track.newest),
                "seen": track.seen,
            }
            for track in self.tracks
        ]
        return {"tracks": tracks, "shot": self._shot, "view": _numbers(self._view)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self._shot, self._view = state["shot"], _array(state["view"])
        self.tracks = [
            Track(
                number,
                [last["frame"]],
                [from_json(last["face"])],
                None if last["size"] is None else (last["size"][0], last["size"][1]),
                _array(last["looks"]),
                _array(last["newest"]),
                last["seen"],
            )
            for number, last in enumerate(state["tracks"])
        ]


def _view(picture: Image.Image) -> Floats:
    """Brightness of a frame seen small, less its mean, [144]; all 0 if it has one brightness."""
    small = picture.resize(_SAMPLES, Image.Resampling.NEAREST).convert("L")
    value = np.asarray(small.resize(_MEANS, Image.Resampling.BOX), np.float64).ravel()
    return value - value.mean()


def _correlation(one: Floats, other: Floats) -> float:
    """Correlation of two frames seen small; 1 if one of them has one brightness throughout."""
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / length if length else 1.0


def _cost(
    track: Track,
    frame: int,
    face: Face,
    size: tuple[int, int] | None,
    looks: Floats | None,
    shot: int,
) -> float:
    """How little a face of a frame fits a track; infinite if it is another one.

    `shot` is the first frame since the last cut, from before which motion does not tell.
    """
    known = looks is not None and track.looks is not None and track.newest is not None
    unlike = 0.0
    abrupt = False
    if looks is not None and track.looks is not None and track.newest is not None:
        unlike = difference(track.looks, looks)
        abrupt = difference(track.newest, looks) > _ABRUPT
    age = frame - track.frames[-1]
    is_cut = known and track.frames[-1] < shot
    last = track.last_in(size)
    distance, growth = last.distance(face), last.growth(face)
    if age <= PATIENCE and not is_cut and distance <= REACH and growth <= GROWTH:
        motion = distance + growth - 1
        tells = age <= 2 and not abrupt
        return motion + min(unlike, _SMOOTH_LOOKS if tells else _LOOKS)
    if known and (track.seen >= _SEEN or (is_cut and age <= PATIENCE)):
        return _AWAY + min(unlike, _LOOKS)
    return np.inf


def _numbers(values: Floats | None) -> list[float | None] | None:
    """Values as JSON, which knows no NaN."""
    if values is None:
        return None
    return [None if np.isnan(value) else float(value) for value in values]


def _array(values: Sequence[float | None] | None) -> Floats | None:
    """Inverse of `_numbers`."""
    return None if values is None else np.array(values, np.float64)


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
