import itertools
import shutil
from typing import Any

import image_cases
import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from data_pipeline import frames, images, input, memory, order
from mtl_face.errors import ConfigError, ImageError

SIZE = 24
NUM_ROWS = 13


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Thirteen rows over twelve images, JPEG and PNG, one of them of another size."""
    root = tmp_path_factory.mktemp("images")
    names = [f"v/{i:05d}.{'jpg' if i % 2 else 'png'}" for i in range(1, NUM_ROWS)] + ["v/00003.jpg"]
    (root / "v").mkdir()
    for i, name in enumerate(names[:-1]):
        picture = image_cases.picture(i, (40, 31) if i == 4 else (SIZE, SIZE))
        (root / name).write_bytes(
            image_cases.encode(picture, "JPEG" if name.endswith("jpg") else "PNG")
        )
    rng = np.random.default_rng(0)
    valence = rng.uniform(-1, 1, NUM_ROWS)
    valence[::3] = np.nan
    au = rng.integers(0, 2, (NUM_ROWS, 12)).astype(float)
    au[1::4] = np.nan
    return frames.from_columns(
        dataset="d",
        video=["v"] * NUM_ROWS,
        frame=[int(name[2:7]) for name in names],
        image=names,
        root=str(root),
        valence=valence,
        arousal=rng.uniform(-1, 1, NUM_ROWS),
        expression=rng.integers(-1, 8, NUM_ROWS),
        au=au,
    )


def broken_copy(table, tmp_path, row, content):
    """The same images with the file of one row replaced (None: removed)."""
    shutil.copytree(table.root[0], tmp_path, dirs_exist_ok=True)
    broken = frames.from_columns(
        dataset="d", video=table.video, frame=table.frame, image=table.image, root=str(tmp_path)
    )
    path = tmp_path / table.image[row]
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    return broken, str(path)


def assert_equal(batch, expected):
    assert str(jax.tree.structure(batch)) == str(jax.tree.structure(expected))
    for one, other in zip(jax.tree.leaves(batch), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def assert_rows(batch, table, rows):
    """The batch holds these rows: pixels against Pillow, labels against the table's."""
    targets, weights = frames.labels(table)
    for task in targets:
        np.testing.assert_array_equal(batch["targets"][task], targets[task][rows])
        np.testing.assert_array_equal(batch["weights"][task], weights[task][rows])
    paths = table.paths()
    for image, row in zip(batch["image"], rows, strict=True):
        difference = image.astype(int) - images.read_image(paths[row], SIZE)
        assert np.abs(difference).max() <= 1  # rounding of the resized one; else equal


@pytest.mark.parametrize("source", ["files", "memory"])
def test_training_follows_the_order(table, source):
    stream = input.train_batches(
        table, batch_size=4, image_size=SIZE, seed=5, start_step=2, source=source
    )
    for step in range(2, 9):  # across two ends of an epoch
        batch = next(stream)
        assert list(batch) == ["image", "targets", "weights"]
        assert batch["image"].dtype == np.uint8
        rows = order.step_indices(NUM_ROWS, 4, seed=5, step=step)
        assert_rows(batch, table, rows)


def test_processes_and_restarts_and_sources_agree(table):
    options: dict[str, Any] = {"batch_size": 6, "image_size": SIZE, "seed": 1}
    whole = list(itertools.islice(input.train_batches(table, **options), 5))
    decoded = input.decode_all(table, image_size=SIZE)
    again = input.train_batches(table, **options, source=decoded)
    for batch, expected in zip(again, whole, strict=False):
        assert_equal(batch, expected)
    for source in ("files", decoded):
        parts = [
            input.train_batches(
                table, **options, start_step=3, source=source, process_index=i, process_count=3
            )
            for i in range(3)
        ]
        for expected, *local in zip(whole[3:], *parts, strict=False):
            joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *local)
            assert_equal(joined, expected)


@pytest.mark.parametrize("source", ["files", "memory"])
@pytest.mark.parametrize(("batch_size", "process_count"), [(13, 1), (4, 1), (8, 2), (6, 3)])
def test_evaluation_gives_each_row_once(table, source, batch_size, process_count):
    per_process = [
        list(
            input.eval_batches(
                table,
                batch_size=batch_size,
                image_size=SIZE,
                source=source,
                process_index=i,
                process_count=process_count,
            )
        )
        for i in range(process_count)
    ]
    assert {len(batches) for batches in per_process} == {-(-NUM_ROWS // batch_size)}
    found = []
    for batch in itertools.chain(*per_process):
        valid, index = batch["valid"], batch["index"]
        assert valid.dtype == bool
        assert index.dtype == np.int64
        assert len(valid) == len(batch["image"]) == batch_size // process_count
        assert_rows(jax.tree.map(lambda leaf, keep=valid: leaf[keep], batch), table, index[valid])
        assert (index[~valid] == -1).all()
        for leaf in jax.tree.leaves({**batch, "index": valid}):
            assert not leaf[~valid].any()
        found.extend(index[valid])
    assert sorted(found) == list(range(NUM_ROWS))


@pytest.mark.parametrize("name", image_cases.readable())
def test_decodes_as_pillow_does(tmp_path, name):
    content, expected, tolerance = image_cases.readable()[name]
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "1.jpg").write_bytes(content)
    table = frames.from_columns(
        dataset="d", video=["v"], frame=[1], image=["v/1.jpg"], root=str(tmp_path)
    )
    for size in (64, 48, 100):
        image = input.decode_all(table, image_size=size)[0].astype(int)
        if size == 64:
            assert np.abs(image - expected).max() <= tolerance
        assert np.abs(image - images.read_image(table.paths()[0], size)).max() <= 1


@pytest.mark.parametrize("name", [*image_cases.broken(), "missing"])
def test_names_the_image_that_cannot_be_decoded(table, tmp_path, name):
    content, words = image_cases.broken().get(name, (None, "does not exist"))
    broken, path = broken_copy(table, tmp_path, 7, content)
    stream = input.eval_batches(broken, batch_size=3, image_size=SIZE)
    np.testing.assert_array_equal(next(stream)["index"], [0, 1, 2])
    np.testing.assert_array_equal(next(stream)["index"], [3, 4, 5])
    with pytest.raises(ImageError, match=words) as caught:
        next(stream)
    assert caught.value.path == path
    assert caught.value.remedy
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    with pytest.raises(ImageError, match=words):
        input.train_batches(broken, batch_size=13, image_size=SIZE, seed=0, source="memory")


def test_names_an_image_that_only_tensorflow_refuses(table, tmp_path, monkeypatch):
    broken, path = broken_copy(table, tmp_path, 2, b"refused")
    monkeypatch.setattr(images, "diagnose", lambda path: None)
    with pytest.raises(ImageError, match="cannot be decoded") as caught:
        next(input.eval_batches(broken, batch_size=13, image_size=SIZE))
    assert caught.value.path == path


def test_mistakes_are_reported_at_once(table, monkeypatch):
    with pytest.raises(ConfigError, match="larger than the 13 rows"):
        input.train_batches(table, batch_size=14, seed=0)
    with pytest.raises(ConfigError, match="2 processes"):
        input.train_batches(table, batch_size=5, seed=0, process_count=2)
    with pytest.raises(ConfigError, match="2 processes"):
        input.eval_batches(table, batch_size=5, process_count=2)
    with pytest.raises(ConfigError, match="source is 'disk'"):
        input.eval_batches(table, batch_size=5, source="disk")
    with pytest.raises(ValueError, match="not one image a row"):
        input.eval_batches(table, batch_size=5, source=np.zeros((13, SIZE, SIZE, 3), np.uint8))
    monkeypatch.setattr(memory, "available_bytes", lambda: 2 * 13 * SIZE * SIZE * 3 - 2)
    with pytest.raises(ConfigError, match="more than half") as caught:
        input.eval_batches(table, batch_size=5, image_size=SIZE, source="memory")
    assert "files" in str(caught.value)
    monkeypatch.setattr(memory, "available_bytes", lambda: 2 * 13 * SIZE * SIZE * 3)
    input.decode_all(table, image_size=SIZE)


def test_available_memory_is_plausible():
    assert 2**26 < memory.available_bytes() < 2**50


def test_to_devices_gives_global_arrays_and_runs_ahead(table):
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    local = list(input.eval_batches(table, batch_size=8, image_size=SIZE)) * 3
    asked = []

    def source():
        for number, batch in enumerate(local):
            asked.append(number)
            yield batch

    for number, batch in enumerate(input.to_devices(source(), sharding, ahead=2)):
        assert asked[-1] == min(number + 2, len(local) - 1)
        assert batch["image"].sharding == sharding
        assert batch["image"].addressable_shards[0].data.shape == (1, SIZE, SIZE, 3)
        assert batch["index"].dtype == np.int32
        for one, other in zip(jax.tree.leaves(batch), jax.tree.leaves(local[number]), strict=True):
            np.testing.assert_array_equal(one, other)
    assert number == len(local) - 1
