"""Shards give back the table and the pixels that they were written from, in any order."""

import dataclasses
import errno
import itertools
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import small_dataset
import tensorflow as tf
import tensorflow_datasets as tfds

from data_pipeline import decoding, input, order, records, shards
from data_pipeline.formats import s_aff_wild2
from mtl_face.errors import AnnotationError, ConfigError, ImageError

ROOT = pathlib.Path(__file__).parents[2]
COLUMNS = (
    *("dataset", "video", "frame", "image", "valence", "arousal", "raters", "expression", "votes"),
    *("au", "au_probability", "label_weight", "row"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_dataset.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def tables(folder):
    found = {
        split: s_aff_wild2.read_annotations(
            folder / f"{name}_set_annotations.txt",
            image_root=folder / "cropped_aligned",
            dataset="small",
        )
        for split, name in (("train", "training"), ("validation", "validation"))
    }
    votes = found["train"].votes.copy()
    votes[:3] = np.arange(24).reshape(3, 8)
    probability = found["train"].au_probability.copy()
    probability[2:5] = 0.25
    weight = found["train"].label_weight.copy()
    weight[1] = 0.5
    raters = found["train"].raters.copy()
    raters[4:6] = (0.25, 0.5, 3)
    soft = {"votes": votes, "au_probability": probability, "label_weight": weight, "raters": raters}
    return found | {"train": dataclasses.replace(found["train"], **soft)}


@pytest.fixture(scope="module", params=shards.FILE_FORMATS)
def written(request, tables, tmp_path_factory):
    target = tmp_path_factory.mktemp(request.param)
    folder = shards.write(tables, target, file_format=request.param, num_shards=3)
    assert records.find(target) == records.find(folder) == folder
    return folder


def assert_same_table(found, expected):
    for name in COLUMNS:
        column, other = getattr(found, name), getattr(expected, name)
        assert column.dtype == other.dtype
        np.testing.assert_array_equal(column, other)
    np.testing.assert_array_equal(found.duplicate, expected.duplicate)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_table_comes_back(written, tables, split):
    assert_same_table(records.read_table(written, split), tables[split])


@pytest.mark.parametrize("start_step", [0, 23])
def test_batches_are_those_of_the_files(written, tables, start_step):
    rows = order.Permutations(40, 3)
    options = {"batch_size": 7, "image_size": 32, "rows": rows, "start_step": start_step}
    files = input.train_batches(tables["train"], **options)
    table, source = records.read_table(written, "train"), records.Records(written, "train")
    stored = input.train_batches(table, **options, source=source)
    for one, other in itertools.islice(zip(files, stored, strict=True), 12):
        for leaf, expected in zip(jax.tree.leaves(other), jax.tree.leaves(one), strict=True):
            np.testing.assert_array_equal(leaf, expected)


def test_evaluation_reads_each_record_once(written, tables):
    table, source = (
        records.read_table(written, "validation"),
        records.Records(written, "validation"),
    )
    decoded = input.decode_all(tables["validation"], image_size=32)
    np.testing.assert_array_equal(input.decode_all(table, image_size=32, source=source), decoded)
    seen = []
    for batch in input.eval_batches(table, batch_size=8, image_size=32, source=source):
        valid = batch["index"] >= 0
        np.testing.assert_array_equal(batch["image"][valid], decoded[batch["index"][valid]])
        assert not batch["image"][~valid].any()
        seen.extend(batch["index"][valid].tolist())
    assert seen == list(range(19))


def test_any_reader_of_tfds_can_use_them(written, tables):
    builder = tfds.builder_from_directory(written)
    table = tables["train"]
    assert builder.info.splits["train"].num_examples == 40
    assert builder.info.metadata["train"] == table.counts()
    raw = {"image": tfds.decode.SkipDecoding()}
    if "array_record" in builder.info.file_format.value:
        examples = iter(builder.as_data_source(split="train", decoders=raw))
    else:
        in_order = tfds.ReadConfig(interleave_cycle_length=1)
        examples = builder.as_dataset(
            split="train", decoders=raw, read_config=in_order
        ).as_numpy_iterator()
    for row, example in enumerate(examples):
        assert example["image"] == pathlib.Path(table.paths()[row]).read_bytes()  # not encoded anew
        assert tf.compat.as_text(example["video"]) == table.video[row]
        np.testing.assert_array_equal(example["valence"], table.valence[row])
        np.testing.assert_array_equal(example["au"] == 1, table.au[row] == 1)
        assert example["expression"] == table.expression[row]


def test_does_not_write_over_shards(written, tables):
    with pytest.raises(ConfigError, match="exists already") as caught:
        shards.write(tables, written.parents[2], file_format="tfrecord")
    assert "move this one away" in str(caught.value)
    with pytest.raises(ConfigError, match="file_format is 'riegeli'"):
        shards.write(tables, written.parents[2], file_format="riegeli")


def test_mistakes_are_named(written, tables, tmp_path):
    with pytest.raises(ConfigError, match="holds no sets of shards") as caught:
        records.find(tmp_path)
    assert "prepare" in str(caught.value)
    copy = tmp_path / "copy"
    shutil.copytree(written, copy)
    with pytest.raises(ConfigError, match="0 shards of the split test"):
        records.Records(copy, "test")
    with pytest.raises(AnnotationError, match="no such split"):
        records.read_table(copy, "test")
    with pytest.raises(ValueError, match="40 records for 19 rows"):
        input.eval_batches(
            tables["validation"], batch_size=4, source=records.Records(copy, "train")
        )
    (copy / records.table_file("train")).write_bytes(b"PAR1 and nothing")
    with pytest.raises(AnnotationError, match="not a table of frames"):
        records.read_table(copy, "train")
    (copy / records.table_file("train")).unlink()
    (copy / records.table_file("train")).mkdir()
    with pytest.raises(AnnotationError, match="this is a folder"):
        records.read_table(copy, "train")
    next(copy.glob("face_frames-train.*-00001-of-*")).unlink()
    with pytest.raises(ConfigError, match="2 shards of the split train of 3"):
        records.Records(copy, "train")


@pytest.mark.parametrize(
    ("failure", "problem", "remedy"),
    [
        (PermissionError(errno.EACCES, "denied"), "no permission to read the file", "chmod"),
        (OSError(errno.EIO, "failed"), "cannot be read", "disk"),
    ],
)
def test_a_shard_that_cannot_be_opened_is_named(written, monkeypatch, failure, problem, remedy):
    def refuse(path, *arguments, **options):
        raise failure

    monkeypatch.setattr(pathlib.Path, "open", refuse)
    with pytest.raises(AnnotationError, match=problem) as caught:
        records.Records(written, "train")
    assert caught.value.path == str(min(written.glob("face_frames-train.*")))
    assert remedy in caught.value.remedy


def test_a_folder_or_another_file_in_place_of_a_shard_is_named(written, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(written, copy)
    path = min(copy.glob("face_frames-train.*"))
    path.write_bytes(b"rubbish")
    with pytest.raises(AnnotationError, match=r"no ArrayRecord file|middle of a record"):
        records.Records(copy, "train")
    path.unlink()
    path.mkdir()
    with pytest.raises(AnnotationError, match="this is a folder"):
        records.Records(copy, "train")


def test_a_damaged_array_record_file_is_named(tables, tmp_path):
    folder = shards.write(tables, tmp_path, file_format="array_record", num_shards=1)
    path = next(folder.glob("face_frames-train.*"))
    content = bytearray(path.read_bytes())
    content[1000:2000] = bytes(byte ^ 0x5A for byte in content[1000:2000])
    path.write_bytes(content)
    source = records.Records(folder, "train")
    with pytest.raises(AnnotationError, match="a record cannot be read") as caught:
        list(input.eval_batches(tables["train"], batch_size=4, source=source))
    assert caught.value.path == str(path)
    assert "again" in str(caught.value)


def test_a_cut_off_tfrecord_file_is_named(tables, tmp_path):
    folder = shards.write(tables, tmp_path, file_format="tfrecord", num_shards=1)
    path = next(folder.glob("face_frames-train.*"))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(AnnotationError, match="middle of a record") as caught:
        records.Records(folder, "train")
    assert caught.value.path == str(path) or caught.value.path == path


def test_names_the_row_of_a_broken_image(folder, tables, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(folder, copy)
    table = s_aff_wild2.read_annotations(
        copy / "validation_set_annotations.txt",
        image_root=copy / "cropped_aligned",
        dataset="small",
    )
    pathlib.Path(table.paths()[10]).write_bytes(b"\xff\xd8\xff broken")
    written = shards.write({"validation": table}, tmp_path / "shards")
    stream = input.eval_batches(
        table, batch_size=4, image_size=32, source=records.Records(written, "validation")
    )
    next(stream)
    next(stream)
    with pytest.raises(ImageError, match="row 10 cannot be decoded") as caught:
        next(stream)
    assert table.image[10] in str(caught.value.path)


@pytest.mark.slow
def test_tfds_build(folder, tables, tmp_path):
    for module in ("apache_beam", "mlcroissant"):  # the command `tfds` does not start without
        pytest.importorskip(module)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tensorflow_datasets.scripts.cli.main",
            "build",
            "data_pipeline/shards.py",
            "--config=plain",
            f"--manual_dir={folder}",
            f"--data_dir={tmp_path}",
            "--file_format=array_record",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    written = records.find(tmp_path)
    found = records.read_table(written, "train")
    assert set(found.dataset) == {"s_aff_wild2"}
    np.testing.assert_array_equal(found.au, tables["train"].au)
    assert len(records.Records(written, "train")) == 40


@pytest.mark.slow
@pytest.mark.parametrize("file_format", shards.FILE_FORMATS)
def test_beam_writes_the_same_records(tables, tmp_path, file_format):
    """On Beam's DirectRunner."""
    beam = pytest.importorskip("apache_beam")
    options = beam.options.pipeline_options.PipelineOptions(runner="DirectRunner")
    table = tables["train"]
    plain = shards.write({"train": table}, tmp_path / "plain", file_format=file_format)
    by_beam = shards.write(
        {"train": table},
        tmp_path / "beam",
        file_format=file_format,
        num_shards=3,
        beam_options=options,
    )
    assert len(list(by_beam.glob("face_frames-train.*"))) == 3
    assert_same_table(records.read_table(by_beam, "train"), table)
    every = np.arange(40)
    assert records.Records(by_beam, "train").read(every) == records.Records(plain, "train").read(
        every
    )


def test_writing_tells_how_far_it_is(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_REPORTED", 7)
    told = []
    shards.write(tables, tmp_path, progress=lambda *numbers: told.append(numbers))
    total = sum(map(len, tables.values()))
    assert told == [(done, total) for done in [*range(7, total, 7), total]]


def test_the_first_batch_waits_for_few_records_and_later_ones_are_read_together(
    written, monkeypatch
):
    class Watched(records.Records):
        def read(self, row_b):
            self.__dict__.setdefault("counts", []).append(len(row_b))
            return super().read(row_b)

    monkeypatch.setattr(decoding, "ANNOUNCED", 20)
    table, source = records.read_table(written, "train"), Watched(written, "train")
    batches = input.train_batches(
        table, batch_size=4, rows=order.Permutations(len(table), 0), start_step=7, source=source
    )
    for _ in range(30):
        next(batches)
    assert source.counts[:5] == [4, 8, 16, 20, 20]

    source = Watched(written, "train")
    monkeypatch.setattr(decoding, "_READ_AT_ONCE", 9 * source.mean_bytes)
    for _ in input.eval_batches(table, batch_size=4, source=source):
        pass
    assert source.counts == [4, 8, 8, 8, 8, 4]
