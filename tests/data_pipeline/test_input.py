import importlib.util
import io
import itertools
import pathlib
import shutil
import socket
import subprocess
import sys
from typing import Any

import image_cases
import jax
import label_arrays
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from PIL import Image, ImageOps

from data_pipeline import batch as batch_module
from data_pipeline import decoding, images, input, order
from mtl_face import tables, tasks
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
    return tables.FrameTable.from_columns(
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


def permuted(seed=0):
    return order.Permutations(NUM_ROWS, seed)


def broken_copy(table, tmp_path, row, content):
    """The same images with the file of one row replaced (None: removed)."""
    shutil.copytree(table.root[0], tmp_path, dirs_exist_ok=True)
    broken = tables.FrameTable.from_columns(
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
    if "labels" in batch:
        for found, expected in zip(
            batch_module.expand_labels(batch["labels"]), label_arrays.labels(table), strict=True
        ):
            for task in tasks.TASKS:
                np.testing.assert_array_equal(found[task], expected[task][rows])
    paths = table.paths()
    for image, row in zip(batch["image"], rows, strict=True):
        difference = image.astype(int) - images.read_image(paths[row], SIZE)
        assert np.abs(difference).max() <= 1  # rounding of the resized one; else equal


def test_pillow_in_place_of_tensorflow(table, tmp_path, monkeypatch):
    """Where TensorFlow is not installed: the same rows and padding, pixels but for rounding."""
    by_tensorflow = list(input.eval_batches(table, batch_size=4, image_size=SIZE))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    by_pillow = list(input.eval_batches(table, batch_size=4, image_size=SIZE))
    assert len(by_pillow) == len(by_tensorflow)
    for one, other in zip(by_pillow, by_tensorflow, strict=True):
        np.testing.assert_array_equal(one["index"], other["index"])
        assert one["image"].dtype == np.uint8
        assert np.abs(one["image"].astype(int) - other["image"]).max() <= 1
    broken, path = broken_copy(table, tmp_path, 5, b"no image")
    with pytest.raises(ImageError) as error:
        list(input.eval_batches(broken, batch_size=4, image_size=SIZE))
    assert error.value.path == path


@pytest.mark.parametrize("decodes_first", [False, True])
def test_training_follows_the_order(table, decodes_first):
    source = input.decode_all(table, image_size=SIZE) if decodes_first else None
    stream = input.train_batches(
        table, batch_size=4, image_size=SIZE, rows=permuted(5), start_step=2, source=source
    )
    for step in range(2, 9):  # across two ends of an epoch
        batch = next(stream)
        assert list(batch) == ["image", "labels"]
        assert batch["image"].dtype == np.uint8
        rows = order.step_indices(permuted(5), 4, step=step)
        assert_rows(batch, table, rows)


def test_processes_and_restarts_and_sources_agree(table):
    options: dict[str, Any] = {"batch_size": 6, "image_size": SIZE, "rows": permuted(1)}
    whole = list(itertools.islice(input.train_batches(table, **options), 5))
    decoded = input.decode_all(table, image_size=SIZE)
    again = input.train_batches(table, **options, source=decoded)
    for batch, expected in zip(again, whole, strict=False):
        assert_equal(batch, expected)
    for source in (None, decoded):
        parts = [
            input.train_batches(
                table, **options, start_step=3, source=source, process=order.Process(i, 3)
            )
            for i in range(3)
        ]
        for expected, *local in zip(whole[3:], *parts, strict=False):
            joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *local)
            assert_equal(joined, expected)


@pytest.mark.parametrize("decodes_first", [False, True])
@pytest.mark.parametrize(("batch_size", "process_count"), [(13, 1), (4, 1), (8, 2), (6, 3)])
def test_evaluation_gives_each_row_once(table, decodes_first, batch_size, process_count):
    source = input.decode_all(table, image_size=SIZE) if decodes_first else None
    per_process = [
        list(
            input.eval_batches(
                table,
                batch_size=batch_size,
                image_size=SIZE,
                source=source,
                process=order.Process(i, process_count),
            )
        )
        for i in range(process_count)
    ]
    assert {len(batches) for batches in per_process} == {-(-NUM_ROWS // batch_size)}
    found = []
    for batch in itertools.chain(*per_process):
        index = batch["index"]
        valid = index >= 0
        assert list(batch) == ["image", "index"]
        assert index.dtype == np.int32
        assert len(valid) == len(batch["image"]) == batch_size // process_count
        assert_rows(jax.tree.map(lambda leaf, keep=valid: leaf[keep], batch), table, index[valid])
        assert (index[~valid] == -1).all()
        assert not batch["image"][~valid].any()
        found.extend(index[valid])
    assert sorted(found) == list(range(NUM_ROWS))


def test_decodes_as_pillow_does(tmp_path):
    cases = image_cases.readable()
    (tmp_path / "v").mkdir()
    for number, (content, _, _) in enumerate(cases.values()):
        (tmp_path / "v" / f"{number}.jpg").write_bytes(content)
    table = tables.FrameTable.from_columns(
        dataset="d",
        video=["v"] * len(cases),
        frame=range(len(cases)),
        image=[f"v/{number}.jpg" for number in range(len(cases))],
        root=str(tmp_path),
    )
    for size in (64, 48, 100):
        decoded = input.decode_all(table, image_size=size).astype(int)
        for name, path, image in zip(cases, table.paths(), decoded, strict=True):
            _, expected, tolerance = cases[name]
            if size == 64:
                assert np.abs(image - expected).max() <= tolerance, name
            assert np.abs(image - images.read_image(path, size)).max() <= 1, name


def upright(content):
    with Image.open(io.BytesIO(content)) as image:
        return ImageOps.exif_transpose(image)


@pytest.mark.parametrize("encoded", [True, False])
def test_turns_images_as_pillow_does(tmp_path, encoded):
    """All eight orientations, JPEG and PNG, of the wanted size and of another."""
    contents = [
        image_cases.turned(orientation, image_cases.picture(orientation, size), kind)
        for kind in ("JPEG", "PNG")
        for size in ((SIZE, SIZE), (40, 31))
        for orientation in range(1, 9)
    ]
    contents.append(image_cases.turned(6, image_cases.picture(0, (SIZE, SIZE)), "JPEG")[:-40])
    names = [f"v/{number}.jpg" for number in range(len(contents))]
    (tmp_path / "v").mkdir()
    for name, content in zip(names, contents, strict=True):
        (tmp_path / name).write_bytes(content)
    broken = tables.FrameTable.from_columns(
        dataset="d",
        video=["v"] * len(names),
        frame=range(len(names)),
        image=names,
        root=str(tmp_path),
    )
    table = broken.take(range(len(names) - 1))
    if encoded:
        batches = input.eval_batches(table, batch_size=8, image_size=SIZE, source=input.Upright())
        found = np.concatenate([batch["image"] for batch in batches])
    else:
        found = input.decode_all(table, image_size=SIZE, source=input.Upright())
    for name, path, image, content in zip(names, table.paths(), found, contents, strict=False):
        expected = upright(content)
        if expected.size == (SIZE, SIZE):
            np.testing.assert_array_equal(image, np.asarray(expected.convert("RGB")), name)
        difference = image.astype(int) - images.read_image(path, SIZE, upright=True)
        assert np.abs(difference).max() <= 1, name
    with pytest.raises(ImageError, match="truncated") as caught:
        input.decode_all(broken, image_size=SIZE, source=input.Upright())
    assert caught.value.path == broken.paths()[-1]


@pytest.mark.parametrize("name", [*image_cases.broken(), "huge", "missing"])
def test_names_the_image_that_cannot_be_decoded(table, tmp_path, name):
    cases = image_cases.broken() | {"huge": (image_cases.huge(), "50,000,000 pixels")}
    content, words = cases.get(name, (None, "does not exist"))
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


def test_decoding_all_at_once_names_the_image_in_the_call(table, tmp_path):
    broken, path = broken_copy(table, tmp_path, 7, None)
    with pytest.raises(ImageError, match="does not exist") as caught:
        input.decode_all(broken, image_size=SIZE)
    assert caught.value.path == path


def test_names_an_image_that_only_tensorflow_refuses(table, tmp_path, monkeypatch):
    broken, path = broken_copy(table, tmp_path, 2, b"refused")
    monkeypatch.setattr(images, "diagnose", lambda path: None)
    with pytest.raises(
        ImageError,
        match=r"cannot be decoded \(Input is empty\.\)",
    ) as caught:
        next(input.eval_batches(broken, batch_size=13, image_size=SIZE))
    assert caught.value.path == path


def test_checks_the_size_that_a_header_promises(table, monkeypatch):
    """Before decoding: the decoder would take memory for what a damaged header promises."""
    monkeypatch.setattr(decoding, "_loader", decoding._loader.__wrapped__)  # keeps no graph of it
    monkeypatch.setattr(images, "MAX_PIXELS", SIZE * SIZE - 1)
    monkeypatch.setattr(images, "diagnose", lambda path: None)
    for row in (0, 1):  # a JPEG and a PNG
        stream = input.eval_batches(table.take([row]), batch_size=1, image_size=SIZE + 1)
        with pytest.raises(ImageError, match=r"cannot be decoded \(Input is empty\.\)"):
            next(stream)


def test_the_graph_that_decodes_is_made_once(table, monkeypatch):
    made = []

    def counted(contents, image_size):
        made.append(image_size)
        return decode_several(contents, image_size)

    decode_several = decoding.decode_several
    decoding._loader.cache_clear()
    monkeypatch.setattr(decoding, "decode_several", counted)
    for rows in ([0, 1, 2], [3, 4, 5, 6]):
        list(input.eval_batches(table.take(rows), batch_size=2, image_size=SIZE))
    assert made == [SIZE]


def test_a_slow_image_keeps_its_place(table, tmp_path):
    slow = image_cases.encode(image_cases.picture(0, (3000, 3000)), "PNG")
    mixed, _ = broken_copy(table, tmp_path, 0, slow)
    for row, batch in enumerate(input.eval_batches(mixed, batch_size=1, image_size=SIZE)):
        assert_rows(batch, mixed, np.array([row]))


def test_says_when_the_fault_went_away(table, tmp_path, monkeypatch):
    """A file share that failed for a moment: no image is to blame any more."""
    broken, _ = broken_copy(table, tmp_path, 2, b"refused")
    sound = image_cases.encode(image_cases.picture(), "JPEG")

    def mend(_path):
        (tmp_path / table.image[2]).write_bytes(sound)

    monkeypatch.setattr(images, "diagnose", mend)
    with pytest.raises(ImageError, match=r"can be now \(Input is empty\.\)") as caught:
        next(input.eval_batches(broken, batch_size=13, image_size=SIZE))
    assert "start again" in str(caught.value)


def test_mistakes_are_reported_at_once(table, monkeypatch):
    with pytest.raises(ConfigError, match="larger than the 13 rows"):
        input.train_batches(table, batch_size=14, rows=permuted())
    with pytest.raises(ConfigError, match="2 processes"):
        input.train_batches(table, batch_size=5, rows=permuted(), process=order.Process(0, 2))
    with pytest.raises(ConfigError, match="2 processes"):
        input.eval_batches(table, batch_size=5, process=order.Process(0, 2))
    with pytest.raises(ValueError, match="not one image a row"):
        input.eval_batches(table, batch_size=5, source=np.zeros((13, SIZE, SIZE, 3), np.uint8))
    monkeypatch.setattr(input, "available_bytes", lambda: 2 * 13 * SIZE * SIZE * 3 - 2)
    with pytest.raises(ConfigError, match="more than half") as caught:
        input.decode_all(table, image_size=SIZE)
    assert "data.source=files" in str(caught.value)
    monkeypatch.setattr(input, "available_bytes", lambda: 2 * 13 * SIZE * SIZE * 3)
    input.decode_all(table, image_size=SIZE)


def test_labels_cross_in_21_bytes_an_example(table):
    labels = next(input.train_batches(table, batch_size=10, image_size=SIZE, rows=permuted()))[
        "labels"
    ]
    assert {task: column.dtype for task, column in labels.items()} == {
        "va": np.float32,
        "au": np.int8,
        "expr": np.int8,
    }
    assert sum(column.nbytes for column in labels.values()) == 10 * 21
    assert (np.isnan(labels["va"][:, 0]) == np.isnan(labels["va"][:, 1])).all()


def test_available_memory_is_plausible(tmp_path, monkeypatch):
    assert 2**26 < input.available_bytes() < 2**50
    monkeypatch.setattr(input, "_CGROUP", tmp_path)  # a container's limit
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 2400\ninactive_file 600\n")
    assert input.available_bytes() == 2600
    (tmp_path / "memory.max").write_text("max\n")
    assert input.available_bytes() > 2**26


_PROCESS = """
import sys
import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
index, port = int(sys.argv[1]), sys.argv[2]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", 2, index)
from data_pipeline import input
batches = [
    {"index": np.arange(start + 4 * index, start + 4 * index + 4)} for start in (0, 8)
]
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
sharding = NamedSharding(mesh, PartitionSpec("data"))
replicated = NamedSharding(mesh, PartitionSpec())
total = jax.jit(lambda x: (x * np.arange(8)).sum(), out_shardings=replicated)
for start, batch in zip((0, 8), input.to_devices(batches, sharding)):
    assert batch["index"].shape == (8,)
    expected = (np.arange(start, start + 8) * np.arange(8)).sum()
    assert int(total(batch["index"])) == expected
print("agreed")
"""


@pytest.mark.slow
def test_to_devices_joins_the_parts_of_two_processes():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(index), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=pathlib.Path(__file__).parents[2],
        )
        for index in range(2)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        assert "agreed" in output


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
        for one, other in zip(jax.tree.leaves(batch), jax.tree.leaves(local[number]), strict=True):
            np.testing.assert_array_equal(one, other)
    assert number == len(local) - 1


def test_labels_are_expanded_on_the_devices(table):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    stream = input.train_batches(table, batch_size=8, image_size=SIZE, rows=permuted())
    targets, weights = label_arrays.labels(table)
    for step, batch in enumerate(input.to_devices(itertools.islice(stream, 3), sharding)):
        rows = order.step_indices(permuted(), 8, step=step)
        assert list(batch) == ["image", "targets", "weights"]
        for name, expected in (("targets", targets), ("weights", weights)):
            assert batch[name].keys() == expected.keys()
            for task, column in expected.items():
                assert batch[name][task].dtype == np.float32
                assert batch[name][task].sharding.is_equivalent_to(sharding, column.ndim)
                np.testing.assert_array_equal(batch[name][task], column[rows])


def test_a_program_may_end_while_batches_are_read_ahead(tmp_path):
    """Ended inside the generator, TensorFlow's thread once waited for itself for ever."""
    (tmp_path / "1.png").write_bytes(image_cases.encode(image_cases.picture(0, (8, 8)), "PNG"))
    script = f"""
import time
import numpy as np
from data_pipeline import input
from mtl_face import tables

class SlowLater:
    length = 1

    def epoch(self, number):
        time.sleep(0.002 if number >= {decoding.ANNOUNCED} else 0)
        return np.array([0])

table = tables.FrameTable.from_columns(
    dataset="d", video=["v"], frame=[1], image=["1.png"], root={str(tmp_path)!r}
)
batches = input.train_batches(table, batch_size=1, image_size=8, rows=SlowLater())
for _ in range({decoding.ANNOUNCED}):
    batch = next(batches)
print(batch["image"].shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.stdout == "(1, 8, 8, 3)\n", done.stderr
    assert done.returncode == 0
