"""The audit of a data set with planted defects, and its search against all pairs."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
import small_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipeline import audit
from data_pipeline.audit import near_duplicates
from data_pipeline.audit import rows as audit_rows
from data_pipeline.audit.findings import as_text
from data_pipeline.formats import s_aff_wild2
from mtl_face.errors import ImageError
from mtl_face.tables import FrameTable
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES

SPLITS = {"train": "training", "validation": "validation"}


def read(root):
    return {
        split: s_aff_wild2.read_annotations(
            root / f"{name}_set_annotations.txt", image_root=root / "cropped_aligned"
        )
        for split, name in SPLITS.items()
    }


def face_like(seed, size=112):
    """A picture that is smooth, as faces are, and unlike that of another seed."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


def write_split(root, name, rows, mode="w"):
    path = root / f"{name}_set_annotations.txt"
    header = [] if mode == "a" else ["image,valence,arousal,expression,aus"]
    with path.open(mode) as file:
        file.write("\n".join([*header, *rows]) + "\n")


def labelled(image, va="0.5,-0.25", expression=4, au="0,0,0,1,0,0,1,0,0,0,1,0"):
    return f"{image},{va},{expression},{au}"


@pytest.fixture
def root(tmp_path):
    """Two videos a split, unlike each other, and no defect."""
    for split_index, name in enumerate(SPLITS.values()):
        rows = []
        for video in range(2):
            folder = tmp_path / "cropped_aligned" / f"{name}{video}"
            folder.mkdir(parents=True)
            for frame in range(1, 13):
                picture = face_like(1000 * split_index + 100 * video + frame)
                picture.save(folder / f"{4 * frame:05}.jpg", quality=90)
                rows.append(labelled(f"{name}{video}/{4 * frame:05}.jpg"))
        write_split(tmp_path, name, rows)
    return tmp_path


def run(root, **arguments):
    report = audit.audit(read(root), image_size=112, **arguments)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    return report


def sentences(report, severity):
    return [finding["what"] for finding in report["findings"] if finding["severity"] == severity]


def test_clean_data_have_no_errors(root):
    report = run(root)
    assert sentences(report, "error") == []
    assert report["near"] == [{"splits": ["train", "validation"], "images": 0, "groups": []}]
    assert report["images"] == 48
    assert report["splits"]["train"]["counts"]["rows"] == 24
    assert report["splits"]["train"]["images"]["sizes"] == {"112x112": 24}


def test_findings_end_with_their_numbers():
    found = [{"severity": "warning", "what": "w", "remedy": "r", "examples": ["a", "b", "c", "d"]}]
    assert as_text(found).splitlines() == [
        "warning: w",
        *("    a", "    b", "    c"),
        "  -> r",
        "in all: 0 errors, 1 warning, 0 notes",
    ]


def test_missing_and_broken_images_are_listed(root):
    images = root / "cropped_aligned"
    (images / "training0/00004.jpg").unlink()
    shutil.rmtree(images / "validation1")
    broken = images / "training0/00008.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    (images / "training1/00004.jpg").write_bytes(b"words")
    report = run(root)
    found = report["splits"]["train"]["images"]
    assert found["missing"] == [{"image": "training0/00004.jpg", "line": 2}]
    assert [entry["image"] for entry in found["broken"]] == [
        "training0/00008.jpg",
        "training1/00004.jpg",
    ]
    assert "truncated" in found["broken"][0]["problem"]
    assert found["readable"] == 21
    assert len(report["splits"]["validation"]["images"]["missing"]) == 12
    assert sorted(sentences(report, "error")) == [
        "train: image files that cannot be used: 2",
        "train: rows whose image file does not exist: 1",
        "validation: rows whose image file does not exist: 12",
    ]


def test_images_that_are_videos_of_their_own_are_told(root):
    """Then people in two splits cannot be found, and intervals are too narrow."""
    tables = read(root)
    tables["train"] = dataclasses.replace(tables["train"], video=tables["train"].image)
    report = audit.audit(tables, image_size=112)
    told = [note for note in sentences(report, "note") if "a video of its own" in note]
    assert told == ["train: each image is a video of its own: 24"]


def test_no_image_folder(root):
    shutil.rmtree(root / "cropped_aligned")
    with pytest.raises(ImageError, match="image folder does not exist"):
        run(root)


def test_odd_pictures_are_told_apart(root):
    folder = root / "cropped_aligned/training0"
    Image.new("RGB", (112, 112), (9, 9, 9)).save(folder / "00004.jpg")
    face_like(5).convert("L").save(folder / "00008.jpg")
    face_like(6, size=96).save(folder / "00012.jpg")
    shutil.copy(folder / "00016.jpg", folder / "00020.jpg")
    found = run(root)["splits"]["train"]["images"]
    assert [entry["image"] for entry in found["flat"]] == ["training0/00004.jpg"]
    assert found["grey"] == 2  # the flat one has no colour either
    assert found["other_size"] == 1
    assert found["sizes"] == {"112x112": 23, "96x96": 1}
    assert found["identical"] == [["training0/00016.jpg", "training0/00020.jpg"]]


@pytest.mark.parametrize("upright", [False, True])
def test_orientations_are_counted(root, upright):
    folder = root / "cropped_aligned/training0"
    for name, orientation in (("00004", 6), ("00008", 1), ("00012", 5)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture = face_like(7 + orientation).resize((112, 80))
        picture.save(folder / f"{name}.jpg", exif=exif)
    report = run(root, upright=upright)
    found = report["splits"]["train"]["images"]
    assert found["turned"] == [
        {"image": "training0/00004.jpg", "orientation": 6},
        {"image": "training0/00012.jpg", "orientation": 5},
    ]
    sizes = {"112x112": 21, "80x112": 2, "112x80": 1} if upright else {"112x112": 21, "112x80": 3}
    assert found["sizes"] == sizes
    (finding,) = (each for each in report["findings"] if "EXIF" in each["what"])
    start = "train: images whose EXIF orientation is not upright: 2, "
    assert finding["what"] == start + ("which are turned" if upright else "used as they are stored")
    assert finding["severity"] == ("note" if upright else "warning")
    assert ("=ignore" if upright else "=apply") in finding["remedy"]
    assert finding["examples"][0] == "training0/00004.jpg: turned right by 90 degrees"


def test_duplicates_by_what_their_labels_say(root):
    write_split(
        root,
        "training",
        [
            labelled("training0/00004.jpg"),
            labelled("training0/00008.jpg", va="0.5,-0.24"),
            labelled("training0/00012.jpg", va="-5,-5", expression=-1),
            labelled("training1/00004.jpg", expression=3, au=",".join(["-1"] * 12)),
        ],
        mode="a",
    )
    found = run(root)["splits"]["train"]["duplicates"]
    counts = {name: found[name] for name in ("frames", "equal", "complementary", "conflicting")}
    assert counts == {"frames": 4, "equal": 1, "complementary": 1, "conflicting": 2}
    assert [entry["kind"] for entry in found["examples"]] == [
        "conflicting",
        "conflicting",
        "complementary",
    ]
    assert found["examples"][1]["rows"] == [
        {"line": 14, "labels": "valence +0.50, arousal -0.25, Happiness, AU 6 12 25"},
        {"line": 29, "labels": "valence +0.50, arousal -0.25, Fear"},
    ]


def test_near_duplicates_across_splits(root):
    """A video that was stored again, shifted and brightened, is found; unlike ones are not."""
    source, copy = (root / "cropped_aligned" / name for name in ("training1", "again"))
    copy.mkdir()
    rows = []
    for path in sorted(source.iterdir()):
        with Image.open(path) as image:
            moved = image.transform(
                image.size, Image.Transform.AFFINE, (1, 0, 0.3, 0, 1, 0), Image.Resampling.BILINEAR
            )
        moved.point(lambda value: int(0.95 * value) + 4).save(copy / path.name, quality=60)
        rows.append(labelled(f"again/{path.name}"))
    write_split(root, "validation", rows, mode="a")
    (near,) = run(root)["near"]
    assert near["images"] == 12
    (group,) = near["groups"]
    assert (group["videos"], group["images"], group["identical"]) == (["training1", "again"], 12, 0)
    one, other = group["example"]["images"]
    assert one["image"].split("/")[1] == other["image"].split("/")[1]
    assert group["example"]["correlation"] > 0.97


def test_what_splits_share(root):
    for name in ("video7_left", "video8_1", "training0"):
        target = root / "cropped_aligned" / name
        if not target.exists():
            target.mkdir()
            face_like(len(name)).save(target / "00001.jpg")
    write_split(root, "training", [labelled("video7_left/00001.jpg")], mode="a")
    write_split(
        root,
        "validation",
        [labelled("video7_right/00001.jpg"), labelled("training0/00004.jpg")],
        mode="a",
    )
    who = {"training1": "Ann", "validation0": "Ann", "validation1": "Bo"}
    report = run(root, identities={("s-aff-wild2", video): name for video, name in who.items()})
    shared = report["shared"]
    assert shared["videos"] == [
        {
            "name": "s-aff-wild2: training0",
            "splits": {"train": ["training0"], "validation": ["training0"]},
        }
    ]
    assert [entry["splits"] for entry in shared["recordings"]] == [
        {"train": ["video7_left"], "validation": ["video7_right"]}
    ]
    assert shared["identities"] == [
        {"name": "Ann", "splits": {"train": ["training1"], "validation": ["validation0"]}}
    ]


@pytest.mark.parametrize(
    ("train", "validation", "shared"),
    [
        (["P01/a", "P02/a"], ["P01/b", "P03/a"], [["P01/a", "P01/b"]]),
        (["clips/a", "clips/b"], ["clips/c"], []),  # one folder of all videos tells nothing
        (["train/a"], ["test/a"], []),
        (["a_1", "P/x"], ["a_2", "x"], [["a_1", "a_2"]]),
    ],
)
@pytest.mark.parametrize("photos", [False, True])
def test_videos_in_one_folder_may_show_one_person(train, validation, shared, photos):
    """Photos may lie in folders for no reason but their number."""

    def table(videos):
        return FrameTable.from_columns(
            dataset="d",
            video=videos,
            frame=[1] * len(videos),
            image=[f"{video}.jpg" if photos else f"{video}/1.jpg" for video in videos],
            root="/images",
        )

    found = audit_rows.shared_between_splits(
        {"train": table(train), "validation": table(validation)}
    )["recordings"]
    pairs = [[*entry["splits"]["train"], *entry["splits"]["validation"]] for entry in found]
    assert pairs == [pair for pair in shared if not (photos and "/" in pair[0])]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("video45_1", "video45"),
        ("video45", "video45"),
        ("46-30-484x360_left", "46-30-484x360"),
        ("122-60-1920x1080-1", "122-60-1920x1080"),
        ("122-60-1920x1080-1_right", "122-60-1920x1080"),
        ("341", "341"),
        ("12-30-640x480", "12-30-640x480"),
        ("_left", "_left"),
    ],
)
def test_recording_of_a_video(name, source):
    assert audit_rows.source_video(name) == source


def test_gaps_of_each_video():
    table = FrameTable.from_columns(
        dataset="d",
        video=["a"] * 5 + ["b"],
        frame=[1, 2, 2, 6, 106, 9],
        image=[f"v/{i}.jpg" for i in range(6)],
        root="r",
    )
    first, second = audit_rows.frame_gaps(table)
    assert (first["frames"], first["first"], first["last"]) == (4, 1, 106)
    assert (first["median_gap"], first["mean_gap"]) == (4.0, 35.0)
    assert (first["longest_gap"], first["after"]) == (100, 6)
    assert second["longest_gap"] is None
    counts = audit_rows.gap_histogram(table)
    assert {name: count for name, count in counts.items() if count} == {
        "1": 1,
        "2-4": 1,
        "100 or more": 1,
    }


def test_label_statistics_against_pandas(tmp_path):
    """pandas computes the same from its own reading of the columns."""
    table = read(small_dataset.write(tmp_path, rows={"training": 300, "validation": 5}))["train"]
    found = audit_rows.label_statistics(table)
    frame = table.to_dataframe()
    for unit, name in enumerate(AU_NAMES):
        assert found["au"][name]["present"] == (frame[name] == 1).sum()
        assert found["au"][name]["missing"] == frame[name].isna().sum()
        assert found["au"][name]["share"] == pytest.approx(frame[name].mean(), abs=1e-6)
        given_unit = frame[frame[name] == 1][list(AU_NAMES)].mean()
        np.testing.assert_allclose(found["au_given_au"][unit], given_unit, atol=1e-6)
    for index, name in enumerate(EXPRESSION_NAMES):
        rows = frame[frame.expression == index]
        assert found["expressions"][name] == len(rows)
        np.testing.assert_allclose(
            found["au_given_expression"][index], rows[list(AU_NAMES)].mean(), atol=1e-6
        )
        both = rows.dropna(subset=["valence", "arousal"])
        assert found["va_given_expression"][name]["rows"] == len(both)
        assert found["va_given_expression"][name]["valence"] == pytest.approx(
            both.valence.astype(float).mean(), abs=1e-6
        )
    assert sum(found["combinations"].values()) == 300
    assert np.sum(found["va"]["histogram"]) == frame.valence.notna().sum()


def test_unlabelled_tasks_have_no_shares():
    table = FrameTable.from_columns(
        dataset="d", video=["a"], frame=[1], image=["a/1.jpg"], root="r"
    )
    found = audit_rows.label_statistics(table)
    assert found["combinations"]["none"] == 1
    assert found["au"]["au1"]["share"] is None
    assert found["va"]["valence"] == {"mean": None, "std": None}
    assert found["au_given_expression"][0] == [None] * 12


numbers = st.lists(st.integers(0, 2**64 - 1), max_size=12, unique=True)


@given(numbers, st.lists(st.sets(st.integers(0, 63), max_size=9), max_size=12), st.integers(0, 7))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_banding_finds_what_all_pairs_find(first, flips, radius):
    second = list(
        dict.fromkeys(
            number ^ sum(1 << bit for bit in bits)
            for number, bits in zip(first, flips, strict=False)
        )
    )
    a, b = (np.array(values, np.uint64) for values in (first, second))
    found = set(
        zip(*(index.tolist() for index in near_duplicates.close_pairs(a, b, radius)), strict=True)
    )
    assert found == {
        (i, j)
        for i, one in enumerate(first)
        for j, other in enumerate(second)
        if (one ^ other).bit_count() <= radius
    }


def test_banding_finds_bits_that_are_spread_over_all_bands():
    random = np.random.default_rng(0)
    first = random.integers(0, 2**64, 300, dtype=np.uint64)
    flips = [sum(1 << int(bit) for bit in random.permutation(64)[:7]) for _ in first]
    a, b = near_duplicates.close_pairs(first, first ^ np.array(flips, np.uint64), radius=7)
    np.testing.assert_array_equal(a, np.arange(300))
    np.testing.assert_array_equal(b, np.arange(300))


def test_equal_hashes_of_unlike_pictures_are_no_pair():
    """Texture finer than the hash sees: only the thumbnails tell the pictures apart."""
    thumbs = np.stack([np.asarray(face_like(seed, 16).convert("L")) for seed in range(20)])
    board = 45 * (-1) ** np.add.outer(np.arange(16), np.arange(16))
    other = (thumbs.astype(int) // 2 + 64 + board).clip(0, 255).astype(np.uint8)
    mean = near_duplicates.standardise(np.concatenate([thumbs, other])).mean(axis=0)
    hashes = [near_duplicates.perceptual_hashes(part, mean) for part in (thumbs, other)]
    assert (np.bitwise_count(hashes[0] ^ hashes[1]) <= near_duplicates.RADIUS).sum() > 5
    assert len(near_duplicates.near_duplicates(thumbs, other)) == 0


def test_crowded_bands_are_searched_in_parts(monkeypatch):
    monkeypatch.setattr(near_duplicates, "_PAIRS_AT_ONCE", 7)
    numbers = np.arange(40, dtype=np.uint64)  # all alike in three of four bands
    a, b = near_duplicates.close_pairs(numbers, numbers, radius=1)
    assert sorted(zip(a.tolist(), b.tolist(), strict=True)) == [
        (i, j) for i in range(40) for j in range(40) if (i ^ j).bit_count() <= 1
    ]


def test_a_still_video_counts_with_all_its_frames():
    picture = np.asarray(face_like(1, 16).convert("L"))
    other = np.asarray(face_like(2, 16).convert("L"))
    first = np.stack([picture] * 20 + [other])
    pairs = near_duplicates.near_duplicates(first, np.stack([picture] * 9))
    assert pairs["second"].tolist() == list(range(9))
    np.testing.assert_allclose(pairs["correlation"], 1, atol=1e-5)


def test_near_duplicates_of_nothing():
    empty = np.zeros((0, 16, 16), np.uint8)
    assert len(near_duplicates.near_duplicates(empty, empty)) == 0


def test_the_hash_ignores_brightness_and_contrast():
    thumbs = np.stack([np.asarray(face_like(seed, 16).convert("L")) for seed in range(30)])
    mean = near_duplicates.standardise(thumbs).mean(axis=0)
    dim = (thumbs // 2 + 40).astype(np.uint8)
    bits = np.bitwise_count(
        near_duplicates.perceptual_hashes(thumbs, mean)
        ^ near_duplicates.perceptual_hashes(dim, mean)
    )
    assert bits.max() <= 3


def test_scan_reports_progress_and_reads_each_path_once(tmp_path):
    buffer = io.BytesIO()
    face_like(3).save(buffer, "JPEG")
    paths = []
    for index in range(3):
        paths.append(str(tmp_path / f"{index}.jpg"))
        (tmp_path / f"{index}.jpg").write_bytes(buffer.getvalue())
    seen = []
    scan = audit.scan_images(paths * 2, progress=lambda *counts: seen.append(counts))
    assert scan.paths == paths
    assert seen == [(3, 3)]
    assert len(set(scan.digest.tolist())) == 1
    assert scan.size.tolist() == [[112, 112]] * 3
