"""Which rows a run is trained on and chosen by: what has changed since, and on another host.

A row counts by its names and labels, wherever its files lie. Pixels are not looked at.

Dimension letters: N rows.
"""

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face import files
from mtl_face.errors import UserError, WorkdirError
from mtl_face.run import Say
from mtl_face.run import workdir as workdirs
from mtl_face.tables import FrameTable
from mtl_face.training import metadata
from mtl_face.training.processes import distributed

FILE = "rows.npz"
"""In a workdir: the hashes of all rows, for the numbers of a message."""

_KEY = "rows"
"""Of the metadata of a checkpoint."""

Hashes = NDArray[np.uint64]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Hashes of the rows of each split, in their order.

    Attributes:
        named: uint64 [N] by split, of data set (if there are several), video, frame and image.
        labelled: uint64 [N] by split, of these and the labels.
    """

    named: Mapping[str, Hashes]
    labelled: Mapping[str, Hashes]

    @classmethod
    def of(cls, tables: Mapping[str, FrameTable]) -> "Rows":
        """The hashes of tables by the names of their splits.

        Soft labels count where they are trained on: in the split `train`.
        """
        hashes = {
            split: _hashes(table if split == "train" else table.hard())
            for split, table in tables.items()
        }
        return cls(
            {split: named_N for split, (named_N, _) in hashes.items()},
            {split: labelled_N for split, (_, labelled_N) in hashes.items()},
        )

    @classmethod
    def read(cls, workdir: Path) -> "Rows | None":
        """Those that a run wrote; None where they cannot be read."""
        try:
            with np.load(workdir / FILE, allow_pickle=False) as file:
                parts = {name.partition("/")[::2]: file[name] for name in file.files}
            if any(part.dtype != np.uint64 or part.ndim != 1 for part in parts.values()):
                return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        named, labelled = (
            {split: hashes for (kind, split), hashes in parts.items() if kind == wanted}
            for wanted in ("named", "labelled")
        )
        return cls(named, labelled)

    def write(self, workdir: Path) -> None:
        """Writes them into a workdir, in process 0; WorkdirError if the disk refuses."""
        if not distributed.is_writer():
            return
        parts = {f"named/{split}": hashes for split, hashes in self.named.items()}
        parts |= {f"labelled/{split}": hashes for split, hashes in self.labelled.items()}
        with files.replacing(workdir / FILE) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **parts)

    @property
    def metadata(self) -> dict[str, Any]:
        """What a checkpoint keeps of them."""
        return {
            _KEY: {
                split: {
                    "count": len(labelled_N),
                    "sha256": hashlib.sha256(labelled_N.astype("<u8").tobytes()).hexdigest(),
                }
                for split, labelled_N in self.labelled.items()
            }
        }

    def require_as_before(self, workdir: Path, *, accepted: bool, say: Say) -> None:
        """Compares them with those of the newest checkpoint that kept them, in process 0.

        WorkdirError if they differ; with `accepted`, `say` gets a warning instead.
        """
        distributed.first(lambda: self._compare(workdir, accepted, say))

    def _compare(self, workdir: Path, accepted: bool, say: Say) -> None:
        kept = metadata.newest(workdir / workdirs.CHECKPOINTS, _KEY)
        own = self.metadata[_KEY]
        if not isinstance(kept, dict) or kept == own:
            return
        before = _kept_hashes(workdir, kept)
        problem = "; ".join(
            f"{split}: {_difference(split, self, before, kept.get(split))}"
            for split in own
            if own[split] != kept.get(split)
        )
        if accepted:
            say(f"warning: other rows than before: {problem}; accepted")
            return
        raise WorkdirError(
            f"its run had other rows: {problem}",
            path=workdir,
            remedy="restore the annotations, or go on with the rows as they are now, in other "
            "batches: train --accept_changed_data (accept_changed_data=True)",
        )

    def require_same_everywhere(self) -> None:
        """UserError, which names this process, if process 0 of the run has read other rows."""
        own = self.metadata[_KEY]
        first = json.loads(distributed.of_first(json.dumps(own)))
        differing = [
            f"{split}: {own[split]['count']} here, {first[split]['count']} there"
            + (
                ", with other names or labels"
                if own[split]["count"] == first[split]["count"]
                else ""
            )
            for split in own
            if own[split] != first[split]
        ]
        if differing:
            raise UserError(
                f"has read other rows than process 0: {'; '.join(differing)}",
                remedy="give every host the same annotations, or all of them the same shards",
            )


def named_sha256(table: FrameTable) -> str:
    """Hash of the names of a table's rows, in their order, whatever their labels."""
    return hashlib.sha256(_hashes(table)[0].astype("<u8").tobytes()).hexdigest()


def changes(workdir: Path, table: FrameTable, split: str) -> str | None:
    """What has become of the rows of a split since a run was trained, in words.

    None where they are the same, or where no checkpoint kept them.
    """
    kept = metadata.newest(workdir / workdirs.CHECKPOINTS, _KEY)
    now = Rows.of({split: table})
    if not isinstance(kept, dict) or kept.get(split) in (None, now.metadata[_KEY][split]):
        return None
    return _difference(split, now, _kept_hashes(workdir, kept), kept[split])


def _kept_hashes(workdir: Path, kept: Mapping[str, Any]) -> Rows | None:
    """The hashes in a workdir, if they are those that a checkpoint kept a digest of."""
    found = Rows.read(workdir)
    return found if found is not None and found.metadata[_KEY] == kept else None


def _hashes(table: FrameTable) -> tuple[Hashes, Hashes]:
    # The name of the only data set says nothing, and is another one in a table of shards.
    dataset = table.dataset if len(set(table.dataset)) > 1 else [""] * len(table)
    names = zip(dataset, table.video, table.frame.tolist(), table.image, strict=True)
    label_NC = np.column_stack([table.va, table.expression, table.au]).astype("<f4") + 0.0  # of -0
    if not table.is_hard:
        soft_NC = np.column_stack([table.votes, table.au_probability, table.label_weight])
        label_NC = np.hstack([label_NC, soft_NC]).astype("<f4") + 0.0
    if not np.isnan(table.raters).all():
        label_NC = np.hstack([label_NC, table.raters]).astype("<f4") + 0.0
    label_NC[np.isnan(label_NC)] = np.nan  # in one of its many bit patterns
    label_size = label_NC.strides[0]
    label_bytes = label_NC.astype("<f4").tobytes()
    named, labelled = bytearray(), bytearray()
    for row, name in enumerate(names):
        text = "\0".join(map(str, name)).encode(errors="surrogatepass")
        hashed = hashlib.blake2b(text, digest_size=8)
        named += hashed.digest()
        hashed.update(label_bytes[row * label_size : (row + 1) * label_size])
        labelled += hashed.digest()
    return np.frombuffer(named, "<u8"), np.frombuffer(labelled, "<u8")


def _difference(split: str, now: Rows, before: Rows | None, kept: Any) -> str:
    """What has become of the rows of a split, in words."""
    count = len(now.labelled[split])
    if before is None or split not in before.named:
        return f"{count} rows, before {kept['count'] if isinstance(kept, dict) else 'none'}"
    came = _surplus(now.named[split], before.named[split])
    gone = _surplus(before.named[split], now.named[split])
    changed = _surplus(now.labelled[split], before.labelled[split]) - came
    parts = [
        f"{number} {words}"
        for number, words in ((gone, "gone"), (came, "new"), (changed, "with other labels"))
        if number
    ]
    return f"{', '.join(parts) or 'in another order'} ({count} rows, before {kept['count']})"


def _surplus(hash_N: Hashes, other: Hashes) -> int:
    """How many rows one has that the other lacks; a row that is there twice counts twice."""
    _, code = np.unique(np.concatenate([hash_N, other]), return_inverse=True)
    counts = np.bincount(code[: len(hash_N)], minlength=code.max(initial=-1) + 1)
    counts -= np.bincount(code[len(hash_N) :], minlength=len(counts))
    return int(np.maximum(counts, 0).sum())
