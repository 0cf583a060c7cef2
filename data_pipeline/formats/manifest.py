"""A manifest: anyone's own images and labels as one CSV or Parquet file, one row an image.

Columns, by name (in any order, upper or lower case, others are named and ignored):

    image       path of the image below the image folder (required); also called as `IMAGE_NAMES`
    video       name of the video; without it, see `places`
    frame       number of the frame in its video; without it, the number at the end of the image's
                name
    valence     number in the range that the setting `va_range` gives
    arousal     the same
    valence_rater_std, arousal_rater_std  sample standard deviations of several annotators' ratings,
                of which valence and arousal are the means, on the same scale
    raters      number of these annotators
    expression  class number or word, translated by an expression map
    au1 ... au26  any subset of the twelve action units, also written AU01, AU01_r or AU01_c
    votes_neutral ... votes_other  how many annotators chose each expression
    expr_neutral_probability ... expr_other_probability  in place of votes, summing to 1
    au1_probability ... au26_probability  probability of an action unit, or share of annotators
    label_weight  what the row's labels count in training, from 0 to 1; empty: 1
    teacher     which model gave labels of the row (`run.py predict --pseudo_labels`)

An empty cell is a missing label; `nan`, `na`, `none` and `null` as well. What would give wrong
labels without a word is refused: action units that are counted by position, classes that the
expression map does not know, a threshold above all values.

Dimension letters: N rows, A action units (12).
"""

import collections
import itertools
import os
import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.expression_maps import MAPS, ExpressionMap, find_map
from data_pipeline.formats.places import find_places
from data_pipeline.formats.user_files import WHITESPACE, BadRow, Columns, FaultList, read_columns
from data_pipeline.formats.values import (
    MISSING_CLASS,
    NUMBER_REMEDY,
    CellError,
    check_image_path,
    to_number,
)
from mtl_face import tables, tasks
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import AnnotationError, exact, quoted, shortened

IMAGE_NAMES = (
    *("image", "images", "image_path", "img_path", "imagepath", "imgpath", "filepath"),
    *("file_path", "path", "image_file", "image_location", "subdirectory_filepath", "img"),
    *("image_name", "imagename", "img_name", "filename", "file_name", "file", "image_id"),
)
"""Names of the column of images, the plainest first: where there are two, the first here counts."""

_EXPRESSION_NAMES = ("expression", "emotion", "emotions", "facial_expression")
"""Names of the column of expressions; numbers below another than the first are of any order."""

_KNOWN = (
    *("image", "video", "frame", *tasks.VA_NAMES, *tables.RATER_NAMES, "expression"),
    *(*tables.VOTE_NAMES, *tables.AU_PROBABILITY_NAMES, "label_weight", "teacher"),
)
_AU_COLUMN = re.compile(r"au_?0*([1-9][0-9]?)(?:_[rc])?", re.ASCII)
_NO_UNIT = re.compile(r"au_?0*(?:0|3)(?:_[rc])?", re.ASCII)
"""Names that no action unit has: FACS has neither 0 nor 3."""
_FEWEST_ASKED = 100  # expressions: of fewer, none may be of class 0 by chance
_SCARCE = 20  # ones below a threshold that may be all there are in a small file
_SUM_TOLERANCE = 0.01  # of probabilities that were rounded when they were written
_MISSING_WORDS = frozenset(("", "nan", "na", "n/a", "none", "null"))


def read_manifest(
    path: str | os.PathLike[str],
    settings: ManifestConfig,
    *,
    image_root: str | os.PathLike[str],
    dataset: str = "manifest",
    say: Callable[[str], None] = lambda line: None,
    skipped: list[BadRow] | None = None,
) -> tables.FrameTable:
    """Reads a manifest: CSV (comma, semicolon or tab, a header line, UTF-8) or Parquet.

    The settings say what its labels mean. Valence and arousal are mapped linearly from `va_range`
    to [-1, 1]; an action unit of an intensity is present from `au_threshold` on; `missing_values`
    count where they are no valid label: outside `va_range`, neither 0 nor 1 in action units,
    unknown to the map. The images are not looked at. `say` is given one line on each thing that was
    left out, translated or taken. `skipped` is as for `FaultList`.

    Returns:
        The sorted table; `row` is the line in the file (of a Parquet file, the row from 1).

    Raises:
        ConfigError: the expression map is unknown.
        AnnotationError: the file cannot be read or has faults; names path, line and remedy.
    """
    faults = FaultList(path, skipped)
    columns = read_columns(path, lambda name: known_name(name) is not None, faults)
    table = to_table(
        columns, settings, faults=faults, image_root=image_root, dataset=dataset, say=say
    )
    say_unused_votes(table, say)
    return table


def to_table(
    columns: Columns,
    settings: ManifestConfig,
    *,
    faults: FaultList,
    image_root: str | os.PathLike[str],
    dataset: str,
    say: Callable[[str], None],
) -> tables.FrameTable:
    """The table of columns that are named as a manifest's; as `read_manifest`, without a file.

    `faults` are those that were met already.
    """
    classes = find_map(settings.expression_map)
    names = _name_columns(columns, faults.path, say)
    images = []
    for line, cell in zip(columns.lines, columns.cells[names["image"]], strict=True):
        try:
            images.append(check_image_path(cell))
        except CellError as error:
            faults.add(line, str(error), error.remedy)
            images.append("")
    labels = _Labels(columns, names, settings, faults)
    va_N2 = np.stack([labels.affect(name) for name in tasks.VA_NAMES], axis=1)
    raters_N3 = labels.raters(say)
    raters_N3[np.isnan(va_N2).any(axis=1)] = np.nan
    votes_NE = labels.shares(say)
    if "expression" in names or np.isnan(votes_NE).all():
        expression_N = labels.expressions(classes, say)
        _say_contradictions(expression_N, votes_NE, columns.lines, say)
    else:
        expression_N = majority(votes_NE, say)
    au_NA, probability_NA = labels.action_units(say), labels.au_probabilities()
    weight_N = labels.weights()
    au_NA = np.where(np.isnan(au_NA) & ~np.isnan(probability_NA), probability_NA >= 0.5, au_NA)
    videos, numbers = find_places(
        columns, names, images, video_from=settings.video_from, faults=faults, say=say
    )
    sound_N = faults.sound_rows(columns.lines)
    return tables.FrameTable.from_columns(
        dataset=dataset,
        video=itertools.compress(videos, sound_N),
        frame=np.array(numbers)[sound_N],
        image=itertools.compress(images, sound_N),
        root=os.fspath(image_root),
        valence=va_N2[sound_N, 0],
        arousal=va_N2[sound_N, 1],
        raters=raters_N3[sound_N],
        expression=expression_N[sound_N],
        votes=votes_NE[sound_N],
        au=au_NA[sound_N],
        au_probability=probability_NA[sound_N],
        label_weight=weight_N[sound_N],
        row=np.array(columns.lines)[sound_N],
    )


def _say_contradictions(
    expression_N: npt.NDArray[np.int8],
    votes_NE: npt.NDArray[np.float64],
    lines: Sequence[int],
    say: Callable[[str], None],
) -> None:
    """Counts rows whose expression has fewer votes than another, and names the first."""
    votes_NE = np.nan_to_num(votes_NE)
    own_N = votes_NE[np.arange(len(votes_NE)), expression_N]
    fewer_N = (expression_N >= 0) & (own_N < votes_NE.max(axis=1))
    if fewer := int(fewer_N.sum()):
        first = lines[int(np.flatnonzero(fewer_N)[0])]
        say(
            f"{fewer} rows have an expression with fewer votes than another, as that of line "
            f"{first}: the column expression is the label"
        )


def say_unused_votes(table: tables.FrameTable, say: Callable[[str], None]) -> None:
    """Counts rows whose column expression is empty although their votes have a winner."""
    votes_NE = np.nan_to_num(table.votes)
    most_N = votes_NE.max(axis=1)
    one_winner_N = (votes_NE == most_N[:, None]).sum(axis=1) == 1
    unused_N = (table.expression < 0) & (most_N > 0) & one_winner_N
    if unused := int(unused_N.sum()):
        first = int(table.row[unused_N].min())
        say(f"{unused} rows have votes and an empty expression, as that of line {first}: no label")


def majority(votes_NK: npt.NDArray[np.float64], say: Callable[[str], None]) -> npt.NDArray[np.int8]:
    """The class with most votes, int8 [N]; -1 where two share the first place or none has votes.

    K classes; NaN is no vote. Rows without one are counted through `say`.
    """
    votes_NK = np.nan_to_num(votes_NK)
    most_N = votes_NK.max(axis=1)
    tied_N = (votes_NK == most_N[:, None]).sum(axis=1) > 1
    if tied := int((tied_N & (most_N > 0)).sum()):
        say(f"{tied} rows have two or more expressions with equally many votes: no label")
    return np.where(tied_N | (most_N == 0), -1, votes_NK.argmax(axis=1)).astype(np.int8)


def known_name(column: str) -> str | None:
    """What a manifest's column of this name gives: `image`, `au1` and the like; None for others."""
    name = _plain(column)
    unit = _AU_COLUMN.fullmatch(name)
    if unit and int(unit[1]) in tasks.AU_NUMBERS:
        return f"au{int(unit[1])}"
    if name in IMAGE_NAMES:
        return "image"
    if name in _EXPRESSION_NAMES:
        return "expression"
    if name in tables.EXPRESSION_PROBABILITY_NAMES:
        return tables.VOTE_NAMES[tables.EXPRESSION_PROBABILITY_NAMES.index(name)]
    return name if name in _KNOWN else None


def _plain(column: str) -> str:
    """A column's name in lower case, with one `_` for blanks and hyphens."""
    return re.sub(r"[\s-]+", "_", column.strip(WHITESPACE).lower())


def _plainness(column: str) -> int:
    """Place of a column's name among those that mean the same; 0 for all others."""
    name = _plain(column)
    known = next((names for names in (IMAGE_NAMES, _EXPRESSION_NAMES) if name in names), (name,))
    return known.index(name)


def _name_columns(
    columns: Columns, path: str | os.PathLike[str], say: Callable[[str], None]
) -> dict[str, str]:
    """The file's name of each known column."""
    names: dict[str, str] = {}
    unread = list(columns.others)
    for column in sorted(columns.cells, key=_plainness):
        name = known_name(column)
        assert name is not None
        if name in names and _plainness(column) > _plainness(names[name]):
            unread.append(column)
            continue
        if name in names:
            raise AnnotationError(
                f"columns {quoted(names[name])} and {quoted(column)} both give {name}",
                path=path,
                line=1,
                remedy="keep one of the two",
            )
        names[name] = column
    if "image" not in names:
        raise AnnotationError(
            f"no column image among {_listed([*columns.cells, *columns.others])}",
            path=path,
            line=1,
            remedy="the first line names the columns; docs/data_formats.md lists them",
        )
    positions = [name for name in columns.others if _NO_UNIT.fullmatch(_plain(name))]
    if positions:
        raise AnnotationError(
            f"column {quoted(positions[0])} names no action unit: the numbers seem to be positions",
            path=path,
            line=1,
            remedy="name each column by its unit's FACS number; the twelve are "
            + ", ".join(tasks.AU_NAMES),
        )
    if unread:
        say(f"columns that are not read: {_listed(unread)}")
    if set(names) <= {"image", "video", "frame", "label_weight", "teacher"}:
        say("the manifest has no labels")
    return names


def _listed(names: list[str]) -> str:
    return ", ".join(shortened(names, 20, lambda name: name[:40]))


class _Labels:
    """Labels as numbers in this project's ranges, from cells of text."""

    def __init__(
        self, columns: Columns, names: dict[str, str], settings: ManifestConfig, faults: FaultList
    ) -> None:
        self._columns, self._names = columns, names
        self._settings, self._faults = settings, faults

    def affect(self, name: str) -> npt.NDArray[np.float64]:
        """Valence or arousal, float64 [N] in [-1, 1], NaN where missing."""
        low, high = self._settings.va_range
        value_N = self._numbers(name)
        valid_N = (value_N >= low) & (value_N <= high)
        wrong_N = self._take_out_missing(value_N, valid_N)
        values = np.unique(value_N[wrong_N])
        remedy = f"correct the value; {name} goes from {exact(low)} to {exact(high)} here"
        if len(values) == 1 and values[0].is_integer():
            remedy = self._mark_remedy(values[0])
        elif len(values) > 1:
            remedy = (
                "set data.manifest.va_range to the scale of the file, as data.manifest.va_range="
                f"1,9; {name} goes from {exact(np.nanmin(value_N))} to {exact(np.nanmax(value_N))}"
            )
        for row in np.flatnonzero(wrong_N).tolist():
            outside = f"outside [{exact(low)}, {exact(high)}]"
            self._fault(row, name, value_N[row], outside, remedy)
        # Scaling may round past the ends by one bit.
        return np.clip((value_N - low) / (high - low) * 2 - 1, -1.0, 1.0)

    def raters(self, say: Callable[[str], None]) -> npt.NDArray[np.float64]:
        """Annotators' standard deviations and number, as `FrameTable.raters`, float64 [N, 3]."""
        std_names, name = tables.RATER_NAMES[:2], tables.RATER_NAMES[2]
        given = [column for column in tables.RATER_NAMES if column in self._names]
        if given and len(given) < len(tables.RATER_NAMES):
            absent = next(column for column in tables.RATER_NAMES if column not in given)
            raise AnnotationError(
                f"there is a column {given[0]} and no column {absent}",
                path=self._faults.path,
                line=1,
                remedy=f"give all of {', '.join(tables.RATER_NAMES)}, or none",
            )
        value_N3 = np.stack([self._numbers(column) for column in tables.RATER_NAMES], axis=1)
        number_N = value_N3[:, 2]
        whole_N = (number_N >= 0) & (number_N == np.floor(number_N)) & np.isfinite(number_N)
        for row in np.flatnonzero(self._take_out_missing(number_N, whole_N)).tolist():
            remedy = "write 1, 2, 3, ...; leave the cell empty where it is not known"
            self._fault(row, name, number_N[row], "no number of annotators", remedy)
        low, high = self._settings.va_range
        # Half of the annotators at each end of the scale differ most.
        most_N = (high - low) / 2 * np.sqrt(number_N / np.maximum(number_N - 1, 1))
        for column, value_N in zip(std_names, value_N3.T, strict=False):
            valid_N = (value_N >= 0) & ~(value_N > most_N * (1 + 1e-6)) & np.isfinite(value_N)
            for row in np.flatnonzero(self._take_out_missing(value_N, valid_N)).tolist():
                problem = f"and that of {number_N[row]:g} annotators is from 0 to {most_N[row]:.3g}"
                remedy = (
                    "write the sample standard deviation of their ratings, on the scale of "
                    "data.manifest.va_range"
                )
                self._fault(row, column, value_N[row], problem, remedy)
        known_N = (number_N >= 2) & ~np.isnan(value_N3).any(axis=1)
        if given and not known_N.all():
            say(f"{(~known_N).sum():,} rows have no spread of two or more annotators")
        scale = 2 / (high - low)
        return np.where(known_N[:, None], value_N3 * (scale, scale, 1.0), np.nan)

    def action_units(self, say: Callable[[str], None]) -> npt.NDArray[np.float64]:
        """All action units, float64 [N, A] of 0 and 1, NaN where missing."""
        threshold = self._settings.au_threshold
        value_NA = np.stack([self._numbers(name) for name in tasks.AU_NAMES], axis=1)
        for name, value_N in zip(tasks.AU_NAMES, value_NA.T, strict=True):
            if threshold is None:
                valid_N, allowed = np.isin(value_N, (0, 1)), "neither 0 nor 1"
            else:
                valid_N, allowed = (value_N >= 0) & (value_N <= 5), "no intensity from 0 to 5"
            wrong_N = self._take_out_missing(value_N, valid_N)
            for row in np.flatnonzero(wrong_N).tolist():
                value = value_N[row]
                remedy = self._mark_remedy(value)
                if 0 < value < 1:
                    remedy = "data.manifest.au_threshold=0.5 takes scores from 0.5 on as present"
                elif 1 < value <= 5:
                    remedy = "data.manifest.au_threshold=2 takes intensities from 2 on as present"
                self._fault(row, name, value, allowed, remedy)
        if threshold is None:
            return value_NA
        known = value_NA[~np.isnan(value_NA)]
        if known.size and (known < threshold).all():
            problem = f"no action unit reaches data.manifest.au_threshold={exact(threshold)}"
            if (known == 1).sum() >= _SCARCE and np.isin(known, (0, 1)).all():
                raise AnnotationError(
                    f"{problem}: each is 0 or 1",
                    path=self._faults.path,
                    line=1,
                    remedy="use data.manifest.au_threshold=none, they are no intensities",
                )
            say(f"{problem}: the largest value is {exact(known.max())}")
        return np.where(np.isnan(value_NA), np.nan, value_NA >= threshold)

    def shares(self, say: Callable[[str], None]) -> npt.NDArray[np.float64]:
        """Votes for each expression, or probabilities, float64 [N, E], NaN where missing."""
        probable = [
            place
            for place, name in enumerate(tables.VOTE_NAMES)
            if _plain(self._names.get(name, "")) in tables.EXPRESSION_PROBABILITY_NAMES
        ]
        if probable:
            return self._probabilities(probable)
        votes_NE = np.stack([self._votes(name) for name in tables.VOTE_NAMES], axis=1)
        none_N = (np.nan_to_num(votes_NE) == 0).all(axis=1) & ~np.isnan(votes_NE).all(axis=1)
        if none := int(none_N.sum()):
            line = self._columns.lines[int(np.flatnonzero(none_N)[0])]
            say(f"{none} rows have 0 votes for each expression, as that of line {line}: no label")
        return votes_NE

    def _probabilities(self, given: list[int]) -> npt.NDArray[np.float64]:
        """Probabilities of expressions, float64 [N, E], rows summing to 1 or NaN."""
        names = tables.EXPRESSION_PROBABILITY_NAMES
        if len(given) < len(names):
            raise AnnotationError(
                f"{len(given)} of the {len(names)} columns of probabilities, without "
                + ", ".join(name for place, name in enumerate(names) if place not in given),
                path=self._faults.path,
                line=1,
                remedy="give all of them, 0 for an expression that is out of the question",
            )
        value_NE = np.stack(
            [
                self._share(votes, name)
                for votes, name in zip(tables.VOTE_NAMES, names, strict=True)
            ],
            axis=1,
        )
        known_N = ~np.isnan(value_NE).any(axis=1)
        total_N = value_NE.sum(axis=1)
        partly_N = ~known_N & ~np.isnan(value_NE).all(axis=1)
        for row in np.flatnonzero(partly_N).tolist():
            number = int((~np.isnan(value_NE[row])).sum())
            problem = f"has {number} of the {len(names)} probabilities of expressions"
            self._faults.add(self._columns.lines[row], problem, "give all of them, or none")
        for row in np.flatnonzero(known_N & ~(np.abs(total_N - 1) <= _SUM_TOLERANCE)).tolist():
            self._faults.add(
                self._columns.lines[row],
                f"the probabilities of expressions sum to {total_N[row]:.4g}, not to 1",
                "write probabilities; numbers of votes belong into columns "
                f"{tables.VOTE_NAMES[0]} ...",
            )
        total_N = np.where(known_N & (total_N > 0), total_N, np.nan)
        return value_NE / total_N[:, None]

    def au_probabilities(self) -> npt.NDArray[np.float64]:
        """Probabilities of action units, float64 [N, A], NaN where missing."""
        names = tables.AU_PROBABILITY_NAMES
        return np.stack([self._share(name, name) for name in names], axis=1)

    def weights(self) -> npt.NDArray[np.float64]:
        """What each row's labels count, float64 [N] in [0, 1]."""
        return np.nan_to_num(self._share("label_weight", "label_weight"), nan=1.0)

    def _share(self, key: str, name: str) -> npt.NDArray[np.float64]:
        """A column of numbers from 0 to 1, float64 [N], NaN where missing."""
        value_N = self._numbers(key)
        wrong_N = self._take_out_missing(value_N, (value_N >= 0) & (value_N <= 1))
        for row in np.flatnonzero(wrong_N).tolist():
            remedy = "write a number from 0 to 1; leave the cell of a missing one empty"
            self._fault(row, name, value_N[row], "outside [0, 1]", remedy)
        value_N[wrong_N] = np.nan
        return value_N

    def _votes(self, name: str) -> npt.NDArray[np.float64]:
        """The votes for one expression, float64 [N], NaN where missing."""
        value_N = self._numbers(name)
        wrong_N = self._take_out_missing(value_N, np.isfinite(value_N) & (value_N >= 0))
        for row in np.flatnonzero(wrong_N).tolist():
            remedy = "a vote is a number from 0 on; leave the cell of a missing one empty"
            self._fault(row, name, value_N[row], "no number of votes", remedy)
        return np.where(wrong_N, np.nan, value_N)

    def expressions(
        self, classes: ExpressionMap, say: Callable[[str], None]
    ) -> npt.NDArray[np.int8]:
        """Classes of this project, int8 [N], -1 where missing or without counterpart."""
        expression_N = np.full(len(self._columns.lines), -1, np.int8)
        index = {name: number for number, name in enumerate(tasks.EXPRESSION_NAMES)}
        name_of_map = self._settings.expression_map
        numbers: collections.Counter[tuple[str, str]] = collections.Counter()
        unmapped: collections.Counter[str] = collections.Counter()
        marks = (*self._settings.missing_values, MISSING_CLASS)
        column = self._names.get("expression", "expression")
        if _plainness(column):
            self._require_words(column)
        for row, cell in enumerate(self._cells("expression")):
            label = cell.strip(WHITESPACE).lower()
            if label in _MISSING_WORDS:
                continue
            whole = label.removesuffix(".0")
            name = classes.get(label, classes.get(whole))
            if name is not None:
                expression_N[row] = index[name]
                if whole.isdigit():
                    numbers[whole, name] += 1
            elif label in classes or whole in classes or not _is_number(label):
                unmapped[whole] += 1
            elif float(label) not in marks:
                self._faults.add(
                    self._columns.lines[row],
                    f"expression is {whole[:20]}, which the map {name_of_map} does not know",
                    "set data.manifest.expression_map to the map of these numbers, or "
                    + self._mark_remedy(float(label)),
                )
        if numbers:
            by_number = sorted(numbers.items(), key=lambda entry: int(entry[0][0]))
            taken = ", ".join(f"{' '.join(key)} {count:,}" for key, count in by_number)
            say(f"expressions, as the map {name_of_map} (data.manifest.expression_map): {taken}")
            found = {number for number, _ in numbers}
            varied = len(found) >= 5 and numbers.total() >= _FEWEST_ASKED
            if varied and classes.get("0") and "0" not in found:
                say(f"no expression is 0, in that map {classes['0']}: does the file count from 1?")
        if unmapped:
            # The null of a user's own map is a decision.
            decided = () if name_of_map in MAPS else classes
            num_wrong = sum(n for label, n in unmapped.items() if label not in decided)
            num_right = int((expression_N >= 0).sum())
            shown = ", ".join(f"{quoted(label, 20)} {n:,}" for label, n in unmapped.most_common(8))
            problem = f"have no counterpart in the map {name_of_map}"
            if num_wrong > num_right:
                raise AnnotationError(
                    f"{num_wrong:,} of {num_wrong + num_right:,} expressions {problem}: {shown}",
                    path=self._faults.path,
                    line=1,
                    remedy="set data.manifest.expression_map to the map of these labels, or to a "
                    "JSON file that says null for each that is to count as missing",
                )
            say(f"{unmapped.total():,} expressions {problem} and count as missing: {shown}")
        return expression_N

    def _require_words(self, column: str) -> None:
        """Raises AnnotationError if expressions are numbers, whose order the name does not tell."""
        numbers = {cell for cell in map(str.strip, self._columns.cells[column]) if _is_class(cell)}
        if numbers:
            raise AnnotationError(
                f"column {quoted(column)} holds numbers, as {min(numbers)[:20]}, and data sets "
                "number emotions in different ways",
                path=self._faults.path,
                line=1,
                remedy="set data.manifest.expression_map to the map of these numbers, and name the "
                "column expression",
            )

    def _take_out_missing(
        self, value_N: npt.NDArray[np.float64], valid_N: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Sets marks of missing labels to NaN; which of the other values are wrong, bool [N]."""
        value_N[~valid_N & np.isin(value_N, self._settings.missing_values)] = np.nan
        return ~valid_N & ~np.isnan(value_N)

    def _fault(self, row: int, name: str, value: float, problem: str, remedy: str) -> None:
        if not np.isfinite(value):
            problem, remedy = "not a finite number", NUMBER_REMEDY
        self._faults.add(self._columns.lines[row], f"{name} is {exact(value)}, {problem}", remedy)

    def _mark_remedy(self, value: float) -> str:
        marks = ",".join(map(exact, (*self._settings.missing_values, value)))
        return f"if {exact(value)} marks a missing label, data.manifest.missing_values={marks}"

    def _cells(self, name: str) -> list[str]:
        return self._columns.cells[self._names[name]] if name in self._names else []

    def _numbers(self, name: str) -> npt.NDArray[np.float64]:
        """A column as numbers, NaN where empty, or where there is no such column."""
        value_N = np.full(len(self._columns.lines), np.nan)
        known: dict[str, float] = {}  # most columns repeat a few cells
        for row, cell in enumerate(self._cells(name)):
            if cell in known:
                value_N[row] = known[cell]
                continue
            text = cell.strip(WHITESPACE)
            if text.lower() in _MISSING_WORDS:
                known[cell] = np.nan
                continue
            try:
                value_N[row] = known[cell] = to_number(text)
            except ValueError:
                self._faults.add(
                    self._columns.lines[row],
                    f"{name} is {quoted(text, 40)}, not a number",
                    "write numbers with a decimal point; leave the cell of a missing label empty",
                )
        return value_N


def _is_class(text: str) -> bool:
    return _is_number(text) and float(text) >= 0


def _is_number(text: str) -> bool:
    try:
        to_number(text)
    except ValueError:
        return False
    return True
