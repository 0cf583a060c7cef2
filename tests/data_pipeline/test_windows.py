"""Windows of frames: each row answered once, from its middle; videos apart; gaps known."""

import dataclasses

import numpy as np
import pytest

from data_pipeline import order, windows
from data_pipeline.windows import Windows
from mtl_face.inputs import LONGEST_ABSENCE, LONGEST_GAP
from mtl_face.tables import FrameTable


def table_of(lengths, seed=0, step=1):
    """Videos of these lengths, their rows mixed; frame numbers rise by 1 to 9, times `step`."""
    random = np.random.default_rng(seed)
    video = np.repeat([f"v{number}" for number in range(len(lengths))], lengths)
    frame = np.concatenate([np.cumsum(random.integers(1, 10, n)) * step for n in lengths])
    mixed = random.permutation(len(video))
    return FrameTable.from_columns(
        dataset="set",
        video=video[mixed],
        frame=frame[mixed],
        image=np.arange(len(video)).astype(str),
        root=".",
        valence=np.arange(len(video)) / len(video),
        arousal=np.where(mixed % 3, 0.5, np.nan),
        expression=mixed % 8,
    )


@pytest.mark.parametrize("length", [2, 5, 8])
@pytest.mark.parametrize("causal", [False, True])
def test_each_row_is_answered_once_by_the_best_window(length, causal):
    table = table_of([1, 3, 8, 9, 50, 2])
    found = Windows.of(table, length, causal=causal)
    answered = found.answered_MW[found.answered_MW >= 0]
    np.testing.assert_array_equal(np.sort(answered), np.arange(len(table)))
    worth: dict[int, list[float]] = {}
    own = {}
    for row_W, own_W in zip(found.row_MW, found.answered_MW, strict=True):
        rows = row_W[row_W >= 0]
        assert len(set(table.video[rows])) == 1
        assert (np.diff(table.frame[rows]) > 0).all()
        assert (row_W[len(rows) :] == -1).all()
        for place, row in enumerate(rows):
            value = place if causal else -abs(place - (length - 1) / 2)
            worth.setdefault(row, []).append(value)
            if own_W[place] == row:
                own[row] = value
    assert all(own[row] == max(values) for row, values in worth.items())


def test_gaps_are_those_of_the_frame_numbers():
    table = table_of([9, 30])
    found = Windows.of(table, 8)
    for row_W, gap_W in zip(found.row_MW, found.gap_MW, strict=True):
        rows = row_W[row_W >= 0]
        np.testing.assert_array_equal(
            gap_W[: len(rows)], np.diff(table.frame[rows], prepend=table.frame[rows[0]])
        )
        assert (gap_W[len(rows) :] == -1).all()
    far = Windows.of(table_of([9], step=1 << 40), 8)
    assert far.gap_MW.max() == LONGEST_GAP


def test_what_comes_later_changes_no_causal_window_before():
    table = table_of([40])
    whole = Windows.of(table, 8, causal=True)
    for count in (1, 7, 8, 9, 12, 13, 39):
        part = Windows.of(table.take(np.arange(count)), 8, causal=True)
        assert len(part) <= len(whole)
        seen_MW = part.row_MW >= 0
        np.testing.assert_array_equal(whole.row_MW[: len(part)][seen_MW], part.row_MW[seen_MW])
        own_MW = np.where(
            whole.answered_MW[: len(part)] < count, whole.answered_MW[: len(part)], -1
        )
        np.testing.assert_array_equal(part.answered_MW, own_MW)


def test_a_causal_network_begins_anew_after_a_long_absence():
    frame = np.array([1, 2, 3, 3 + LONGEST_ABSENCE, 4 + 2 * LONGEST_ABSENCE])
    table = FrameTable.from_columns(
        dataset="set", video=["v"] * 5, frame=frame, image=["a"] * 5, root="."
    )
    found = Windows.of(table, 8, causal=True)
    assert found.row_MW[:, :4].tolist() == [[0, 1, 2, 3], [4, -1, -1, -1]]
    assert found.gap_MW[:, :4].tolist() == [[0, 1, 1, LONGEST_ABSENCE], [0, -1, -1, -1]]
    assert len(Windows.of(table, 8)) == 1


def test_videos_of_one_name_in_two_data_sets_are_apart():
    table = table_of([12])
    table = dataclasses.replace(table, dataset=np.array(["a", "b"] * 6, object))
    found = Windows.of(table, 4)
    for row_W in found.row_MW:
        assert len(set(table.dataset[row_W[row_W >= 0]])) == 1
    assert len(found) == 4  # two of each 6 rows


def test_soft_labels_of_padding_count_nothing():
    table = table_of([3, 8])
    soft = np.full((len(table), 12), 0.5, np.float32)
    table = dataclasses.replace(table, au_probability=soft)
    found, rows = Windows.of(table, 8), order.Permutations(2, seed=0)
    batch = next(windows.train_batches(found, table, {}, batch_size=2, rows=rows))
    padding_R = (batch["gaps"] < 0).reshape(-1)
    assert padding_R.sum() == 5
    labels = batch["labels"]
    for name in ("va", "au", "expr"):
        assert np.isnan(labels[name][padding_R]).all()
    assert not np.isnan(labels["au"][~padding_R]).any()
    np.testing.assert_array_equal(labels["weight"], np.where(padding_R, 0, 1))


def test_training_batches_hold_rows_and_labels_side_by_side():
    table = table_of([3, 21])
    found = Windows.of(table, 8)
    features = {"answer_va": np.arange(len(table) * 2.0).reshape(-1, 2).astype(np.float32)}
    rows = order.Permutations(len(found), seed=1)
    batches = windows.train_batches(found, table, features, batch_size=2, rows=rows, start_step=3)
    batch = next(batches)
    index_b = order.step_indices(rows, 2, step=3)
    row_R = found.row_MW[index_b].reshape(-1)
    seen_R = row_R >= 0
    assert batch["answer_va"].shape == (2, 8, 2)
    np.testing.assert_array_equal(
        batch["answer_va"].reshape(-1, 2)[seen_R], features["answer_va"][row_R[seen_R]]
    )
    labels = batch["labels"]
    np.testing.assert_array_equal(labels["expr"][seen_R], table.expression[row_R[seen_R]])
    np.testing.assert_array_equal(
        np.isnan(labels["va"][:, 0]), ~seen_R | np.isnan(table.arousal[row_R])
    )
    everything = [
        next(windows.train_batches(found, table, features, batch_size=len(found), rows=rows))
    ]
    padding_R = (everything[0]["gaps"] < 0).reshape(-1)
    assert padding_R.any()
    assert (everything[0]["labels"]["expr"][padding_R] == -1).all()
    assert (everything[0]["labels"]["au"][padding_R] == -1).all()
    assert not everything[0]["answer_va"].reshape(-1, 2)[padding_R].any()


def test_evaluation_goes_through_all_windows_in_two_processes():
    table = table_of([3, 21, 40])
    found = Windows.of(table, 8)
    features = {"answer_va": np.ones((len(table), 2), np.float32)}
    seen = []
    for index in range(2):
        process = order.Process(index, 2)
        for batch in windows.eval_batches(found, features, batch_size=4, process=process):
            assert batch["gaps"].shape == (2, 8)
            seen += batch["index"][batch["index"] >= 0].tolist()
    assert sorted(seen) == list(range(len(table)))
