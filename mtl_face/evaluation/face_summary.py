"""Summary of faces: one row for each person and video, and a table of events.

Means, percentiles and shares are over time, not over frames: a frame counts as long as it is shown.
Rates are a minute in which the face was seen.

Dimension letters: S frames in which the person is seen.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import escaped, shortened
from mtl_face.evaluation.face_events import Event, EventError, EventRules, Track, events_of, tracks
from mtl_face.face_table import OK, FaceTable
from mtl_face.files import write_csv
from mtl_face.tasks import AU_DESCRIPTIONS, AU_NAMES, EXPRESSION_NAMES, VA_NAMES

PERCENTILES = (5, 25, 50, 75, 95)

_MOST_PERSONS = 10  # in words
_EVENT_COLUMNS = Event._fields


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the persons of some videos showed.

    Attributes:
        persons: numbers of each person and video by the names of `columns`; NaN without an answer.
        events: by person, what is shown, and time.
        rules: what counted as an event.
    """

    persons: list[dict[str, Any]]
    events: list[Event]
    rules: EventRules

    def write(self, path: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Writes two CSV files beside each other; WorkdirError if they cannot be written.

        Args:
            path: `talk.csv` or `talk` gives `talk_summary.csv` and `talk_events.csv`.

        Returns:
            Both paths.
        """
        summary, events = paths(path)
        names = columns()
        write_csv(summary, [names, *([_cell(row[name]) for name in names] for row in self.persons)])
        write_csv(
            events, [_EVENT_COLUMNS, *([_cell(cell) for cell in event] for event in self.events)]
        )
        return summary, events

    def in_words(self) -> list[str]:
        """A short text for each person."""
        rows = shortened(self.persons, _MOST_PERSONS, _words)
        return [line for row in rows for line in row.split("\n")]


def paths(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Where `Summary.write` writes: summary and events."""
    base = Path(path)
    stem = base.with_suffix("") if base.suffix.lower() == ".csv" else base
    return stem.with_name(f"{stem.name}_summary.csv"), stem.with_name(f"{stem.name}_events.csv")


def columns() -> list[str]:
    """Names of the numbers of a person, in their order.

    `duration_ms` is of the source; `..._share` of the time in view, but `in_view_share` and
    `trusted_share` of all the time; `..._per_minute` events a minute in view.
    """
    names = ["source", "person", "duration_ms", "frames", "frames_with_face", "frames_trusted"]
    names += ["in_view_share", "trusted_share"]
    for name in VA_NAMES:
        names += [f"{name}_mean", f"{name}_sd", *(f"{name}_p{percent}" for percent in PERCENTILES)]
    names += [f"expr_{name.lower()}_share" for name in EXPRESSION_NAMES]
    for name in AU_NAMES:
        names += [f"{name}_share", f"{name}_events_per_minute", f"{name}_mean_peak_probability"]
    return names


def summarise(faces: FaceTable, rules: EventRules | None = None) -> Summary:
    """Summarises the videos of a table; the mesh is not needed, and photos are left out.

    Raises:
        EventError: the table has no video with a face.
    """
    rules = rules or EventRules()
    persons, events = [], []
    for track in tracks(faces, trusted_only=rules.trusted_only):
        of_person = events_of(faces, track, rules)
        events += of_person
        persons.append(_person(faces, track, of_person))
    if not persons:
        raise EventError(
            "no video with a face to summarise",
            remedy="a summary needs a video of two frames or more; of photos, use the table",
        )
    return Summary(persons, events, rules)


def _person(faces: FaceTable, track: Track, events: Sequence[Event]) -> dict[str, Any]:
    seen_S = track.row_F >= 0
    row_S, length_S = track.row_F[seen_S], track.lengths[seen_S]
    trusted_S = faces.status[row_S] == OK
    whole = float(track.lengths.sum())
    minutes = float(length_S.sum()) / 60_000 if track.timed else np.nan
    numbers: dict[str, Any] = {
        "source": track.source,
        "person": track.person,
        "duration_ms": whole if track.timed else np.nan,
        "frames": len(track.frame_F),
        "frames_with_face": len(row_S),
        "frames_trusted": int(trusted_S.sum()),
        "in_view_share": track.in_view,
        "trusted_share": float(length_S[trusted_S].sum()) / whole,
    }
    for name, value_S in zip(VA_NAMES, faces.va[row_S].T, strict=True):
        numbers |= {f"{name}_{key}": value for key, value in _spread(value_S, length_S)}
    answer_S = faces.expression[row_S]
    for number, name in enumerate(EXPRESSION_NAMES):
        share = _share(answer_S == number, answer_S >= 0, length_S)
        numbers[f"expr_{name.lower()}_share"] = share
    for unit, name in enumerate(AU_NAMES):
        present_S = faces.au_present[row_S, unit]
        peaks = [event.peak_probability for event in events if event.what == name]
        numbers[f"{name}_share"] = _share(present_S == 1, present_S >= 0, length_S)
        answered = bool((present_S >= 0).any())
        numbers[f"{name}_events_per_minute"] = len(peaks) / minutes if answered else np.nan
        known = [peak for peak in peaks if np.isfinite(peak)]
        numbers[f"{name}_mean_peak_probability"] = float(np.mean(known)) if known else np.nan
    return numbers


def _share(
    is_S: NDArray[np.bool_], answered_S: NDArray[np.bool_], length_S: NDArray[np.float64]
) -> float:
    """Share of the answered time, NaN where there is none."""
    total = float(length_S[answered_S].sum())
    return float(length_S[is_S].sum()) / total if total else np.nan


def _spread(
    value_S: NDArray[np.float64], length_S: NDArray[np.float64]
) -> Iterator[tuple[str, float]]:
    """Mean, standard deviation and percentiles over time.

    A percentile is the smallest value that is not exceeded for so much of the time.
    """
    known = np.isfinite(value_S)
    value, weight = value_S[known], length_S[known]
    if not weight.sum():
        value, weight = np.full(1, np.nan), np.ones(1)
    weight = weight / weight.sum()
    mean = float((weight * value).sum())
    yield "mean", mean
    yield "sd", float(np.sqrt((weight * (value - mean) ** 2).sum()))
    order = np.argsort(value, kind="stable")
    total = np.cumsum(weight[order])
    for percent in PERCENTILES:
        place = int(np.searchsorted(total, percent / 100 - 1e-12))
        yield f"p{percent}", float(value[order[min(place, len(order) - 1)]])


def _cell(value: Any) -> Any:
    """A value as in the tables of faces: six significant digits, times to a microsecond."""
    if isinstance(value, float):
        if np.isnan(value):
            return ""
        return round(value, 3) if abs(value) >= 1000 else float(f"{value:.6g}")
    return value


def _words(person: dict[str, Any]) -> str:
    """A person in up to four lines."""
    lines = [
        f"{escaped(person['source'])}, person {person['person']}: in view "
        f"{person['in_view_share']:.0%} of {_duration(person)}, to be trusted "
        f"{person['trusted_share']:.0%}"
    ]
    va = [
        f"{name} {person[f'{name}_mean']:+.2f} (sd {person[f'{name}_sd']:.2f}, 5 to 95 %: "
        f"{person[f'{name}_p5']:+.2f} to {person[f'{name}_p95']:+.2f})"
        for name in VA_NAMES
        if np.isfinite(person[f"{name}_mean"])
    ]
    shares = {name: person[f"expr_{name.lower()}_share"] for name in EXPRESSION_NAMES}
    units = {name: person[f"{name}_share"] for name in AU_NAMES}
    rate = {name: person[f"{name}_events_per_minute"] for name in AU_NAMES}
    lines += va
    best = sorted((name for name in shares if shares[name] >= 0.01), key=lambda name: -shares[name])
    if best:
        lines.append("expressions: " + ", ".join(f"{name} {shares[name]:.0%}" for name in best))
    often = sorted((name for name in units if units[name] >= 0.01), key=lambda name: -units[name])
    if often:
        names = dict(zip(AU_NAMES, AU_DESCRIPTIONS, strict=True))
        words = [
            f"{name.upper()} ({names[name]}) {units[name]:.0%}"
            + (f", {rate[name]:.2g} a minute" if np.isfinite(rate[name]) else "")
            for name in often[:4]
        ]
        lines.append("action units: " + "; ".join(words))
    return "\n  ".join(lines)


def _duration(person: dict[str, Any]) -> str:
    if not np.isfinite(person["duration_ms"]):
        return f"{person['frames']:,} frames"
    minutes, seconds = divmod(round(person["duration_ms"] / 1000), 60)
    return f"{minutes:02d}:{seconds:02d}"
