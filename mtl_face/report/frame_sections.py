"""Frames as sections of the report: timelines, examples, attention.

Dimension letters: K shown rows, M decoder modules, T task tokens (3).
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.answers import Answers
from mtl_face.evaluation.truth import Truth
from mtl_face.report import attention_maps, timeline
from mtl_face.report.cards import card
from mtl_face.report.gallery import GROUPS, Images, choose
from mtl_face.report.html import Html, details, escape, group, heading, image, join, paragraph

Attention = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Pictures uint8 [K, H, W, 3] -> cross-attention weights [K, modules, heads, 3, patches]."""

_OPEN_TIMELINES = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """The frames of the gallery with what is drawn of them.

    Attributes:
        groups: rows by group.
        pictures: by row, None where there is none.
        maps: attention by row, [M, T, h, w], of the rows with a picture; empty without a network.
    """

    groups: dict[str, NDArray[np.int64]]
    pictures: dict[int, NDArray[np.uint8] | None]
    maps: dict[int, NDArray[np.float64]]

    @classmethod
    def of(
        cls,
        truth: Truth,
        answers: Answers,
        *,
        num_rows: int,
        images: Images | None,
        attention: Attention | None,
    ) -> "Shown":
        """Chooses rows, and asks for their pictures and attention.

        Raises:
            ValueError: a picture or the attention has the wrong shape.
        """
        groups = choose(truth, answers, num_rows=num_rows)
        rows = [int(row) for group in groups.values() for row in group]
        pictures = {row: images(row) if images is not None else None for row in rows}
        maps = {}
        seen = {row: picture for row, picture in pictures.items() if picture is not None}
        if attention is not None and seen:
            weights = attention(np.stack(list(seen.values())))
            maps = dict(zip(seen, attention_maps.check(weights, len(seen)), strict=True))
        return cls(groups, pictures, maps)

    @property
    def top(self) -> float:
        """Weight of the palest colour; 1 without maps."""
        maps = list(self.maps.values())
        return attention_maps.top_weight(np.stack(maps)) if maps else 1.0


def timelines(truth: Truth, answers: Answers, raw: Answers | None) -> Iterator[Html]:
    """Valence and arousal of each video over its frames. Rows of all tables belong together."""
    videos = timeline.choose_videos(truth, answers)
    if not videos:
        yield paragraph(
            "No timelines: no video has valence and arousal predicted for two different frames."
        )
        return
    if raw is not None and np.array_equal(
        [raw.valence, raw.arousal], [answers.valence, answers.arousal], equal_nan=True
    ):
        raw = None
    yield timeline.legend(raw=raw is not None, band=answers.valence_std is not None)
    shown = videos[: timeline.MAX_VIDEOS]
    told = (
        f"{len(videos):,} videos"
        if len(videos) == len(shown)
        else (f"the {len(shown)} worst of {len(videos):,} videos")
    )
    yield paragraph(
        f"Of {told}, the worst first. Lines break where frames are missing for long. The error of "
        "one video has no interval."
        + ("" if raw is not None else " Valence and arousal were not smoothed.")
        + (
            ""
            if answers.valence_std is not None
            else " The predictions have no standard deviations, hence no band."
        ),
        css_class="muted",
    )
    drawn = [timeline.draw(video, truth, answers, raw) for video in shown]
    yield join(drawn[:_OPEN_TIMELINES])
    if rest := drawn[_OPEN_TIMELINES:]:
        yield details(f"{len(rest)} more videos", rest)


def attention(shown: Shown) -> Iterator[Html]:
    """Mean attention of each token in each module over the faces shown."""
    if not shown.maps:
        yield paragraph(
            "No attention maps: they need the network and pictures, as `run.py evaluate` of a run "
            "or an export has them."
        )
        return
    rows = list(shown.maps)
    mean_MThw = np.mean([shown.maps[row] for row in rows], axis=0)
    pictures = [picture for row in rows if (picture := shown.pictures[row]) is not None]
    mean_face = np.mean(pictures, axis=0).astype(np.uint8)
    yield paragraph(
        f"How much each task token reads each part of the face, mean over {len(rows)} faces "
        "(the examples below) and all heads, on their mean face. Dark: none. Pale: "
        f"{shown.top:.3f} of the whole, against {1 / mean_MThw[0, 0].size:.3f} if all parts were "
        "read alike. Weights show what was read, not why an answer was given.",
        css_class="muted",
    )
    for module, maps_Thw in enumerate(mean_MThw, start=1):
        yield heading(f"Module {module} of {len(mean_MThw)}")
        tiles = []
        for words, weight_hw in zip(attention_maps.TOKENS.values(), maps_Thw, strict=True):
            peak = attention_maps.in_words(weight_hw)
            told = f"Mean attention of the {words} token in module {module}: {peak}"
            drawn = image(attention_maps.overlay(mean_face, weight_hw, shown.top), told)
            tiles.append(
                Html(f'<div class="tile">{drawn}<span>{escape(words)}: {escape(peak)}</span></div>')
            )
        yield group(tiles, css_class="tiles wide")


def examples(truth: Truth, answers: Answers, shown: Shown, num_rows: int) -> Iterator[Html]:
    """The frames of the gallery. Rows of both tables belong together."""
    if not num_rows:
        yield paragraph("No examples were asked for.")
        return
    if not len(shown.groups["best"]):
        yield paragraph("No frame has a label.")
        return
    yield paragraph(
        "Ranked by the mean error over the tasks of a frame, among those with the most labelled "
        "tasks; from different videos where there are enough. Uncertain: by the mean entropy of "
        "expression and action units, and the standard deviations of valence and arousal if there "
        "are any." + (" Attention: the last module, mean over the heads." if shown.maps else ""),
        css_class="muted",
    )
    if "uncertain" not in shown.groups:
        yield paragraph(
            "No most uncertain frames: the predictions are decisions without probabilities."
        )
    if not any(picture is not None for picture in shown.pictures.values()):
        yield paragraph("No pictures: the images were not given.")
    for name, rows in shown.groups.items():
        if not len(rows):
            continue
        yield heading(GROUPS[name])
        cards = []
        for row in rows.tolist():
            maps = shown.maps.get(row)
            cards.append(
                card(
                    row,
                    truth=truth,
                    answers=answers,
                    picture=shown.pictures[row],
                    maps=None if maps is None else maps[-1],
                    top=shown.top,
                )
            )
        yield group(cards, css_class="gallery")
