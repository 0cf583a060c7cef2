"""Features of frames on disk: written whole or resumed, never taken for others; baselines."""

import json

import numpy as np
import pytest

from data_pipeline import features, order
from data_pipeline import input as data_input
from data_pipeline.batch import with_features
from mtl_face.errors import UserError
from mtl_face.tables import FrameTable

COUNT = 10
IDENTITY = features.Identity("tokens", COUNT, "5" * 64, {"network": "a", "version": 1})


def values(start=0):
    rows = np.arange(start, COUNT)
    return {
        "tokens": np.random.default_rng(0).normal(size=(COUNT, 3, 2)).astype(np.float16)[rows],
        "found": rows % 3 != 0,
    }


def blocks(start, size=4, fail_at=None):
    whole = values()
    for begin in range(start, COUNT, size):
        if begin == fail_at:
            raise KeyboardInterrupt
        yield {name: array[begin : begin + size] for name, array in whole.items()}


def assert_whole(found):
    assert found.keys() == values().keys()
    for name, array in values().items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_arrays_of_any_shape_and_dtype_come_back(tmp_path):
    assert features.read(tmp_path, IDENTITY) is None
    done = []
    folder = features.write(
        tmp_path, IDENTITY, blocks, progress=lambda *numbers: done.append(numbers)
    )
    assert folder.parent == tmp_path
    assert folder.name.startswith("tokens-")
    assert_whole(features.read(tmp_path, IDENTITY))
    assert done == [(0, 10), (4, 10), (8, 10), (10, 10)]
    assert json.loads((folder / "features.json").read_text())["making"] == IDENTITY.making
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]


def test_what_is_there_is_not_made_again(tmp_path):
    features.write(tmp_path, IDENTITY, blocks)
    features.write(tmp_path, IDENTITY, lambda start: pytest.fail("made again"))


def test_an_interrupted_writing_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_SECONDS_BETWEEN_NOTES", -1.0)
    with pytest.raises(KeyboardInterrupt):
        features.write(tmp_path, IDENTITY, lambda start: blocks(start, fail_at=8))
    assert features.read(tmp_path, IDENTITY) is None
    starts = []

    def make(start):
        starts.append(start)
        return blocks(start)

    features.write(tmp_path, IDENTITY, make)
    assert starts == [8]
    assert_whole(features.read(tmp_path, IDENTITY))


@pytest.mark.parametrize("damage", ["no array", "cut off", "gone"])
def test_a_damaged_beginning_is_made_again(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(features, "_SECONDS_BETWEEN_NOTES", -1.0)
    with pytest.raises(KeyboardInterrupt):
        features.write(tmp_path, IDENTITY, lambda start: blocks(start, fail_at=8))
    (part,) = tmp_path.glob("*.part")
    path = part / "tokens.npy"
    content = path.read_bytes()
    path.write_bytes(b"no array" if damage == "no array" else content[:-1])
    if damage == "gone":
        path.unlink()
    features.write(tmp_path, IDENTITY, blocks)
    assert_whole(features.read(tmp_path, IDENTITY))


@pytest.mark.parametrize(
    "change",
    [
        {"count": COUNT + 1},
        {"rows_sha256": "6" * 64},
        {"making": {"network": "a", "version": 2}},
        {"kind": "points"},
    ],
)
def test_other_features_are_never_taken_for_these(tmp_path, change):
    folder = features.write(tmp_path, IDENTITY, blocks)
    other = features.Identity(**{**vars(IDENTITY), **change})
    assert features.read(tmp_path, other) is None
    folder.rename(other.folder(tmp_path))  # as by a user who knows better
    with pytest.raises(UserError, match="of other rows, or made in another way") as raised:
        features.read(tmp_path, other)
    assert "delete the folder" in raised.value.remedy


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00", None])
def test_damaged_arrays_are_an_error(tmp_path, damage):
    folder = features.write(tmp_path, IDENTITY, blocks)
    path = folder / "tokens.npy"
    if damage is None:
        np.save(path, np.zeros((COUNT, 3, 2), np.float32))
    else:
        path.write_bytes(damage)
    with pytest.raises(UserError, match=r"cannot be read|holds") as raised:
        features.read(tmp_path, IDENTITY)
    assert raised.value.path == str(path)


def test_a_full_disk_is_an_error_and_what_is_written_stays(tmp_path):
    """A device that is always full, in place of the file."""

    def make(start):
        (part,) = tmp_path.glob("*.part")
        (part / "tokens.npy").symlink_to("/dev/full")
        return blocks(start)

    with pytest.raises(UserError, match="No space left on device") as raised:
        features.write(tmp_path, IDENTITY, make)
    assert "free some space" in raised.value.remedy
    assert features.read(tmp_path, IDENTITY) is None


def test_too_few_rows_are_not_kept(tmp_path):
    with pytest.raises(ValueError, match="8 of 10 rows were made"):
        features.write(tmp_path, IDENTITY, lambda start: list(blocks(start))[:2])
    assert features.read(tmp_path, IDENTITY) is None


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as raised:
        features.write(tmp_path / "file", IDENTITY, blocks)
    assert "data.features=FOLDER" in raised.value.remedy


def test_batches_of_features_with_images_and_without():
    rows = {"points": values()["tokens"], "shared": features.Shared(np.eye(2), np.arange(10) % 2)}
    index = np.array([3, 9, order.PADDING])
    (alone,) = with_features(iter([index]), rows)
    image = np.ones((3, 2, 2, 3), np.uint8)
    (both,) = with_features(iter([(index, image)]), rows)
    for found in (alone[1], both[1]):
        np.testing.assert_array_equal(found["points"][:2], values()["tokens"][[3, 9]])
        np.testing.assert_array_equal(found["shared"][:2], [[0, 1], [0, 1]])
        assert not found["points"][2].any()
        assert not found["shared"][2].any()
    assert "image" not in alone[1]
    assert both[1]["image"] is image
    assert values()["tokens"][-1].any()  # what the index of padding would take


def test_features_come_in_the_order_of_the_rows():
    """By step, on going on, and over processes, as images do."""
    table = make_table()
    source = data_input.WithFeatures({"number": np.arange(6) * 10}, images=False)
    rows = order.Permutations(6, seed=3)

    def numbers(count, **how):
        stream = data_input.train_batches(table, batch_size=4, rows=rows, source=source, **how)
        return [next(stream)["number"].tolist() for _ in range(count)]

    whole = numbers(6)
    assert whole == [(order.step_indices(rows, 4, step=s) * 10).tolist() for s in range(6)]
    assert numbers(3, start_step=3) == whole[3:]
    parts = [numbers(6, process=order.Process(index, 2)) for index in range(2)]
    assert [one + two for one, two in zip(*parts, strict=True)] == whole
    found = list(data_input.eval_batches(table, batch_size=4, source=source))
    assert [batch["number"].tolist() for batch in found] == [[0, 10, 20, 30], [40, 50, 0, 0]]
    assert [batch["index"].tolist() for batch in found] == [[0, 1, 2, 3], [4, 5, -1, -1]]
    assert all("image" not in batch for batch in found)


def make_table():
    """Videos a (rows 0 to 2) and b (3, 4) of a data set, and a (5) of another."""
    au = np.zeros((6, 12), np.float32)
    au[0, :] = np.nan
    au[1, 5] = 1
    return FrameTable.from_columns(
        dataset=["x", "x", "x", "x", "x", "y"],
        video=["a", "a", "a", "b", "b", "a"],
        frame=range(6),
        image=[f"{number}.jpg" for number in range(6)],
        root=".",
        expression=[0, 0, 3, 4, -1, 0],
        au=au,
    )


def test_baselines_of_persons():
    table = make_table()
    points = np.random.default_rng(1).normal(size=(6, 5, 3)).astype(np.float32)
    found = np.ones(6, bool)
    kinds = ("none", "person", "neutral")
    baseline = features.baselines(table, points, found, kinds)[np.arange(6)]
    assert baseline.shape == (6, 3, 5, 3)
    assert baseline.dtype == np.float32
    assert not baseline[:, 0].any()
    for rows in ([0, 1, 2], [3, 4], [5]):
        mean = points[rows].mean(axis=0)
        np.testing.assert_allclose(baseline[rows, 1], [mean] * len(rows), atol=1e-6)
    # Of a, row 1 has an action unit and row 2 another expression; b has no neutral frame.
    np.testing.assert_allclose(baseline[:3, 2], [points[0]] * 3, atol=1e-6)
    np.testing.assert_array_equal(baseline[3:5, 2], baseline[3:5, 1])
    np.testing.assert_allclose(baseline[5, 2], points[5], atol=1e-6)


def test_faces_without_points_count_in_no_baseline():
    points = np.random.default_rng(1).normal(size=(6, 5, 3)).astype(np.float32)
    found = np.array([True, True, False, False, False, True])
    baseline = features.baselines(make_table(), points, found, ["person"])[np.arange(6)][:, 0]
    np.testing.assert_allclose(baseline[2], points[:2].mean(axis=0), atol=1e-6)
    assert not baseline[3:5].any()  # not known
