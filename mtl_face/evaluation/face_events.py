"""Events of faces: when a person shows an action unit or an expression, as a psychologist codes it.

An event has an onset, an apex and an offset. Times are those of the frames, never frame numbers
divided by a rate. A frame lasts until the next one of its source; an event begins when its first
frame is shown, and ends when its last one has been.

Dimension letters: N rows, F frames of a source, S frames in which the person is seen, A action
units (12).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import UserError, escaped, quoted
from mtl_face.face_table import NOT_DECODED, OK, FaceTable
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES

SEEN, APPEARS, STARTS = "seen", "face appears", "start of video"
"""How an event begins: in view, or already there when the face or the video begins."""

LOST, STOPS = "face lost", "end of video"
"""How an event ends, if not in view (`SEEN`)."""

PAUSE = 10.0
"""A frame lasts as long as is usual, where the next one is this many times farther away."""

FRAME_MS = 40.0
"""Length of a frame in a source that has no times."""


class EventError(UserError):
    """Rules that cannot be, or a table without a video."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventRules:
    """What counts as one event.

    An action unit's event begins with a frame in which the model decides that it is present, and
    goes on while it is present or its probability is at least `keep`. An expression's goes on
    while its probability is within `margin` of the answer's; then that of the new answer begins.

    Attributes:
        keep: probability in 0..1.
        margin: difference of probabilities, 0..1.
        shortest_ms: shorter events are left out.
        longest_gap_ms: a face that is lost for longer ends its events.
        trusted_only: whether a face that cannot be trusted counts as not seen.

    Raises:
        EventError: a value out of its range.
    """

    keep: float = 0.4
    margin: float = 0.1
    shortest_ms: float = 100.0
    longest_gap_ms: float = 100.0
    trusted_only: bool = False

    def __post_init__(self) -> None:
        for name, most in (("keep", 1), ("margin", 1), ("shortest_ms", np.inf)):
            _require(name, getattr(self, name), most)
        _require("longest_gap_ms", self.longest_gap_ms, np.inf)

    @classmethod
    def from_texts(cls, texts: Sequence[str]) -> "EventRules":
        """Rules from texts such as `keep=0.3` and `trusted_only=yes`, else as by default.

        Raises:
            EventError: an unknown name or a value that cannot be.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for text in texts:
            name, _, value = text.partition("=")
            if name not in names:
                raise EventError(
                    f"{quoted(text)} is no rule of events",
                    remedy=f"give NAME=VALUE, with a name of {', '.join(sorted(names))}",
                )
            try:
                values[name] = _WORDS[value] if name == "trusted_only" else float(value)
            except (KeyError, ValueError) as error:
                kind = "yes or no" if name == "trusted_only" else "a number"
                raise EventError(
                    f"{name} is {quoted(value)}", remedy=f"give {kind}, as {name}={_EXAMPLES[name]}"
                ) from error
        return cls(**values)


_WORDS = {"yes": True, "no": False}
_EXAMPLES = {
    "keep": "0.3",
    "margin": "0.05",
    "shortest_ms": "200",
    "longest_gap_ms": "0",
    "trusted_only": "yes",
}


def _require(name: str, value: float, most: float) -> None:
    if not 0 <= value <= most:
        end = f"between 0 and {most:g}" if np.isfinite(most) else "0 or more"
        raise EventError(f"{name} is {value:g}", remedy=f"choose a number {end}")


@dataclasses.dataclass(frozen=True)
class Track:
    """A person over the frames of a source.

    Attributes:
        source, person: who it is.
        frame_F: numbers of the source's frames.
        start_F, end_F: when each frame begins and ends to be shown, in milliseconds; FRAME_MS apart
            where the source has no times.
        timed: whether it has.
        row_F: row of the person in the table, -1 where the face is not seen.
    """

    source: str
    person: int
    frame_F: NDArray[np.int64]
    start_F: NDArray[np.float64]
    end_F: NDArray[np.float64]
    timed: bool
    row_F: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.float64]:
        """How long each frame is shown, in milliseconds, [F]."""
        return self.end_F - self.start_F

    @property
    def in_view(self) -> float:
        """Share of the time of all frames in which the face is seen."""
        return float(self.lengths[self.row_F >= 0].sum() / self.lengths.sum())


def tracks(faces: FaceTable, *, trusted_only: bool = False) -> Iterator[Track]:
    """The persons of the videos of a table, by source and in order of appearance; no photos.

    Frames that were not decoded count as part of the frame before. `trusted_only` as in
    `EventRules`: a person who is never to be trusted has no track.

    Raises:
        EventError: a person stands twice in a frame.
    """
    rows_of: dict[str, list[tuple[int, NDArray[np.int64]]]] = {}
    for source, person, rows in faces.persons():
        rows_of.setdefault(source, []).append((person, rows))
    decoded_N = np.flatnonzero(faces.status != NOT_DECODED)
    names, code_N = np.unique(faces.source[decoded_N], return_inverse=True)
    order = np.argsort(code_N, kind="stable")
    starts = np.searchsorted(code_N[order], np.arange(1, len(names)))
    decoded_of = dict(zip(names.tolist(), np.split(decoded_N[order], starts), strict=False))
    for source, people in rows_of.items():
        decoded = decoded_of[source]
        frame_F, first = np.unique(faces.frame[decoded], return_index=True)
        if len(frame_F) < 2:
            continue
        time_F = faces.time_ms[decoded[first]]
        timed = bool(np.isfinite(time_F).all())
        start_F = np.maximum.accumulate(time_F if timed else FRAME_MS * (frame_F - 1.0))
        step = np.diff(start_F)
        usual = float(np.median(step[step > 0])) if (step > 0).any() else FRAME_MS
        step = np.append(np.where(step > PAUSE * usual, usual, step), usual)
        for person, rows in people:
            frames, counts = np.unique(faces.frame[rows], return_counts=True)
            if (counts > 1).any():
                raise EventError(
                    f"{escaped(source)}: person {person} stands twice in frame "
                    f"{frames[counts.argmax()]}",
                    remedy="if tables of several videos were joined, give each its own source",
                )
            if trusted_only:
                rows = rows[faces.status[rows] == OK]
            if len(rows):
                row_F = np.full(len(frame_F), -1, np.int64)
                row_F[np.searchsorted(frame_F, faces.frame[rows])] = rows
                yield Track(source, person, frame_F, start_F, start_F + step, timed, row_F)


class Event(NamedTuple):
    """An event. Milliseconds are NaN where the source has no times.

    Attributes:
        source, person: whose it is.
        what: `au12`, or the name of an expression.
        onset_ms, apex_ms, offset_ms: when the first frame begins, the frame of the largest
            probability begins, and the last one ends.
        duration_ms: from onset to offset.
        onset_frame, apex_frame, offset_frame: numbers of these frames; the last one belongs to the
            event.
        peak_probability: NaN of a model without probabilities.
        trusted_share: share of its frames with a face that can be trusted.
        begins: `SEEN`, `APPEARS` or `STARTS`.
        ends: `SEEN`, `LOST` or `STOPS`.
    """

    source: str
    person: int
    what: str
    onset_ms: float
    apex_ms: float
    offset_ms: float
    duration_ms: float
    onset_frame: int
    apex_frame: int
    offset_frame: int
    peak_probability: float
    trusted_share: float
    begins: str
    ends: str


def events_of(faces: FaceTable, track: Track, rules: EventRules) -> list[Event]:
    """The events of a person: those of each action unit, then the expressions, each in time."""
    seen_S = np.flatnonzero(track.row_F >= 0)
    row_S = track.row_F[seen_S]
    gap_S = track.start_F[seen_S[1:]] - track.end_F[seen_S[:-1]]
    # Times in milliseconds are sums of rounded ones: a thousandth is no gap.
    broken_S = np.append(True, gap_S > rules.longest_gap_ms + 1e-3)
    found: list[Event] = []
    spans: list[tuple[str, int, int, NDArray[np.float64]]] = []
    for unit, name in enumerate(AU_NAMES):
        present_S = faces.au_present[row_S, unit] == 1
        probability_S = faces.au_probability[row_S, unit]
        kept_S = present_S | (probability_S >= rules.keep)
        for first, last in _runs(present_S, kept_S, broken_S):
            spans.append((name, first, last, probability_S))
    answer_S = faces.expression[row_S].astype(np.int64)
    chance_SE = faces.expression_probability[row_S]
    for first, last, number in _answers(answer_S, chance_SE, broken_S, rules.margin):
        spans.append((EXPRESSION_NAMES[number], first, last, chance_SE[:, number]))
    trusted_S = faces.status[row_S] == OK
    for what, first, last, probability_S in spans:
        event = _event(track, what, (first, last), (seen_S, broken_S, probability_S, trusted_S))
        length = track.end_F[seen_S[last]] - track.start_F[seen_S[first]]
        if length >= rules.shortest_ms - 1e-3:
            found.append(event)
    return found


def _runs(
    begins_S: NDArray[np.bool_], goes_on_S: NDArray[np.bool_], broken_S: NDArray[np.bool_]
) -> Iterator[tuple[int, int]]:
    """First and last frame of each stretch: from one that begins it, as long as it goes on."""
    if not begins_S.any():
        return
    # A stretch that goes on, whole, starts after one that does not, or after a gap.
    fresh_S = goes_on_S & (broken_S | ~np.append(False, goes_on_S[:-1]))
    over_S = goes_on_S & np.append(broken_S[1:] | ~goes_on_S[1:], True)
    first_of_all, last_of_all = np.flatnonzero(fresh_S), np.flatnonzero(over_S)
    begin = np.flatnonzero(begins_S)
    place = np.searchsorted(begin, first_of_all)
    for at, last in zip(place.tolist(), last_of_all.tolist(), strict=True):
        if at < len(begin) and begin[at] <= last:
            yield int(begin[at]), last


def _answers(
    answer_S: NDArray[np.int64],
    chance_SE: NDArray[np.float64],
    broken_S: NDArray[np.bool_],
    margin: float,
) -> Iterator[tuple[int, int, int]]:
    """First and last frame and class of each stretch with one expression."""
    current, first = -1, 0
    best_S = chance_SE[np.arange(len(answer_S)), answer_S]
    for place, (answer, broken) in enumerate(
        zip(answer_S.tolist(), broken_S.tolist(), strict=True)
    ):
        near = (
            current >= 0
            and answer >= 0
            and chance_SE[place, current] >= best_S[place] - margin - 1e-12
        )
        if answer == current and not broken:
            continue
        if near and not broken:
            continue
        if current >= 0:
            yield first, place - 1, current
        current, first = answer, place
    if current >= 0:
        yield first, len(answer_S) - 1, current


def _event(
    track: Track,
    what: str,
    span: tuple[int, int],
    of_seen: tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64], NDArray[np.bool_]],
) -> Event:
    """An event from its first and last frame, counted among those with the face."""
    first, last = span
    seen_S, broken_S, probability_S, trusted_S = of_seen
    inside = probability_S[first : last + 1]
    apex = first if np.isnan(inside).all() else first + int(np.nanargmax(inside))
    onset, top, offset = seen_S[first], seen_S[apex], seen_S[last]
    times = track.start_F[onset], track.start_F[top], track.end_F[offset]
    onset_ms, apex_ms, offset_ms = map(float, times) if track.timed else (np.nan,) * 3
    begins = SEEN
    if broken_S[first]:
        begins = STARTS if onset == 0 else APPEARS
    ends = SEEN
    if last + 1 == len(seen_S) or broken_S[last + 1]:
        ends = STOPS if offset + 1 == len(track.frame_F) else LOST
    return Event(
        track.source,
        track.person,
        what,
        onset_ms,
        apex_ms,
        offset_ms,
        offset_ms - onset_ms,
        int(track.frame_F[onset]),
        int(track.frame_F[top]),
        int(track.frame_F[offset]),
        float(probability_S[apex]),
        float(trusted_S[first : last + 1].mean()),
        begins,
        ends,
    )
