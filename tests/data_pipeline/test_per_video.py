import numpy as np
import pytest

from data_pipeline import formats
from data_pipeline.formats import per_video
from mtl_face import tasks
from mtl_face.config import DataSetConfig
from mtl_face.config.schema import PerVideoConfig
from mtl_face.errors import AnnotationError, ImageError

HEADERS = {
    "va": "valence,arousal",
    "expr": "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
    "au": "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26",
}
FOLDERS = {
    "va": "VA_Estimation_Challenge",
    "expr": "EXPR_Classification_Challenge",
    "au": "AU_Detection_Challenge",
}
ZEROS, NO_AU = ",".join("0" * 12), ",".join(["-1"] * 12)


def annotate(root, task, video, lines, folder=None, split="Train_Set"):
    path = root / (folder or FOLDERS[task]) / split / f"{video}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([HEADERS[task], *lines]) + "\n")
    return path


def crops(root, video, frame_numbers, name="{:05d}.jpg"):
    folder = root / "cropped_aligned" / video
    folder.mkdir(parents=True, exist_ok=True)
    for frame in frame_numbers:
        (folder / name.format(frame)).touch()


def read(root, **kwargs):
    said = []
    table = per_video.read_per_video(
        root,
        split_folder="Train_Set",
        image_root=root / "cropped_aligned",
        say=said.append,
        **kwargs,
    )
    return table, said


def test_joins_by_frame_number_and_never_shifts(tmp_path):
    """Against a reference that looks each label up by its frame, one at a time."""
    rng = np.random.default_rng(0)
    lengths = {"va": 40, "expr": 37, "au": 43}
    present = sorted(rng.choice(np.arange(1, 47), 30, replace=False).tolist())
    wanted = {}
    for video in ("7-60-1920x1080_left", "7-60-1920x1080_right"):
        crops(tmp_path, video, present)
        lines = {
            "va": [
                "-5,-5" if rng.random() < 0.3 else "{:.6f},{:.6f}".format(*rng.uniform(-1, 1, 2))
                for _ in range(lengths["va"])
            ],
            "expr": [str(rng.integers(-1, 8)) for _ in range(lengths["expr"])],
            "au": [
                NO_AU if rng.random() < 0.3 else ",".join(map(str, rng.integers(0, 2, 12)))
                for _ in range(lengths["au"])
            ],
        }
        for task in lines:
            annotate(tmp_path, task, video, lines[task])
        for frame in present:
            cells = {
                task: lines[task][frame - 1] if frame <= lengths[task] else None for task in lines
            }
            label = (
                None
                if cells["va"] in (None, "-5,-5")
                else tuple(map(float, cells["va"].split(","))),
                -1 if cells["expr"] is None else int(cells["expr"]),
                None if cells["au"] in (None, NO_AU) else tuple(map(int, cells["au"].split(","))),
            )
            if label != (None, -1, None):
                wanted[video, frame] = label
    table, said = read(tmp_path)
    found = {}
    for row in range(len(table)):
        va = (table.valence[row], table.arousal[row])
        found[table.video[row], int(table.frame[row])] = (
            None if np.isnan(va).any() else va,
            int(table.expression[row]),
            None if np.isnan(table.au[row]).any() else tuple(table.au[row].astype(int)),
        )
        assert table.image[row] == f"{table.video[row]}/{table.frame[row]:05d}.jpg"
        assert table.row[row] == table.frame[row] + 1
    assert found.keys() == wanted.keys()
    for key, (va, expression, au) in wanted.items():
        assert found[key][1:] == (expression, au)
        assert (found[key][0] is None) == (va is None)
        if va is not None:
            np.testing.assert_array_equal(found[key][0], np.float32(va))
    assert said[:3] == [
        "va: annotation files of 2 videos",
        "au: annotation files of 2 videos",
        "expr: annotation files of 2 videos",
    ]
    assert "differ in length for 2 videos" in said[3]


def test_counts_what_is_left_out(tmp_path):
    annotate(tmp_path, "va", "a", ["0.5,0.5", "-5,-5", "0.1,0.1", "0.2,0.2", "-5,0.3"])
    crops(tmp_path, "a", [0, 1, 2, 4, 5, 6, 7])
    table, said = read(tmp_path, read_tasks=("va",))
    assert list(table.frame) == [1, 4]
    assert said[-1] == (
        "left out 1 labelled frames without an image, 3 images of frames without a line, "
        "2 images without any valid label"
    )


def test_a_video_may_lack_a_task(tmp_path):
    annotate(tmp_path, "va", "a", ["0.5,0.5"])
    annotate(tmp_path, "au", "b", [ZEROS[:-1] + "-1"])
    annotate(tmp_path, "expr", "b", ["7"], folder="EXPR_Recognition_Challenge")
    crops(tmp_path, "a", [1], "{}.png")
    crops(tmp_path, "b", [1], "{:06d}.JPG")
    table, _ = read(tmp_path)
    assert list(table.image) == ["a/1.png", "b/000001.JPG"]
    assert list(table.expression) == [-1, 7]
    assert np.isnan(table.valence).tolist() == [False, True]
    assert np.isnan(table.au).sum(axis=1).tolist() == [12, 1]
    assert np.isnan(table.au[1, 11])  # one invalid unit, and no more, is missing


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("0.1,0.2\n0.3,0.4\n", 1, "the first line is '0.1,0.2'"),
        (HEADERS["au"] + "\n" + ZEROS, 1, "the first line"),
        ("valence,arousal\n", 1, "no lines below"),
        ("", 1, "empty"),
        ("valence,arousal\n0.1,0.2\n\n0.3,0.4\n", 3, "a blank line within"),
        ("valence,arousal\n0.1,0.2\n0.3\n", 3, "1 values, expected 2"),
        ("valence,arousal\n0.1,0.2\n0.3,0.4,0.5\n", 3, "3 values, expected 2"),
        ("valence,arousal\n0.1,x\n", 2, "arousal is 'x', not a number"),
        ("valence,arousal\n0.1,1_0\n", 2, "not a number"),
        ("valence,arousal\n0.1,0.1\n1.2,0\n", 3, "valence is 1.2, outside"),
        ("valence,arousal\n0.1,nan\n", 2, "arousal is nan"),
    ],
)
def test_refuses_faulty_files_with_their_line(tmp_path, text, line, words):
    path = annotate(tmp_path, "va", "a", [])
    path.write_text(text)
    crops(tmp_path, "a", [1])
    with pytest.raises(AnnotationError) as caught:
        read(tmp_path, read_tasks=("va",))
    assert (caught.value.path, caught.value.line) == (str(path), line)
    assert words in caught.value.problem
    assert caught.value.remedy


def test_names_the_folder_that_a_file_belongs_to(tmp_path):
    path = annotate(tmp_path, "va", "a", [])
    path.write_text(HEADERS["au"] + "\n" + ZEROS)
    with pytest.raises(AnnotationError, match="file for the task au"):
        per_video.read_video_file(path, tasks.VA)
    path.write_text(HEADERS["expr"].removesuffix(",Other") + "\n3\n")
    with pytest.raises(AnnotationError, match="earlier edition"):
        per_video.read_video_file(path, tasks.EXPR)


def test_forms_in_circulation(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfValence , Arousal,\r\n 0.5, -1 \r\n-5.0,-5,\r\n\r\n")
    np.testing.assert_array_equal(
        per_video.read_video_file(path, "va"), [[0.5, -1], [np.nan, np.nan]]
    )
    path.write_text(HEADERS["expr"] + "\n3\n-1\n3.0")
    np.testing.assert_array_equal(per_video.read_video_file(path, "expr"), [[3], [np.nan], [3]])


def test_videos_without_images(tmp_path):
    for video in ("a_left", "b", "c"):
        annotate(tmp_path, "va", video, ["0.1,0.1"])
    crops(tmp_path, "a", [1])
    crops(tmp_path, "c", [1])
    with pytest.raises(ImageError, match="folder a shows another person"):
        read(tmp_path, read_tasks=("va",))
    table, said = read(tmp_path, read_tasks=("va",), missing_videos="skip")
    assert list(table.video) == ["c"]
    assert "left out 2 videos without images: a_left, b" in said
    crops(tmp_path, "c", [1], "{}.png")
    with pytest.raises(ImageError, match=r"00001\.jpg and 1\.png are both images of frame 1"):
        read(tmp_path, read_tasks=("va",), missing_videos="skip")


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(AnnotationError, match="no folder VA_Estimation_Challenge"):
        read(tmp_path)
    annotate(tmp_path, "va", "a", ["0,0"], split="Training")
    with pytest.raises(AnnotationError, match="it holds Training"):
        read(tmp_path, read_tasks=("va",))
    (tmp_path / FOLDERS["va"] / "Train_Set").mkdir()
    with pytest.raises(AnnotationError, match=r"no \.txt file"):
        read(tmp_path, read_tasks=("va",))
    (tmp_path / FOLDERS["expr"]).mkdir()
    (tmp_path / "EXPR_Recognition_Challenge").mkdir()
    with pytest.raises(AnnotationError, match="both EXPR_Classification_Challenge and"):
        read(tmp_path, read_tasks=("expr",))
    annotate(tmp_path, "va", "a", ["0,0"])
    with pytest.raises(ImageError, match="image folder does not exist"):
        read(tmp_path, read_tasks=("va",))
    crops(tmp_path, "a", [2])
    with pytest.raises(AnnotationError, match="no frame has both"):
        read(tmp_path, read_tasks=("va",))


def test_load_reads_a_set(tmp_path):
    annotate(tmp_path, "au", "a", [ZEROS, ZEROS], split="Validation_Set")
    crops(tmp_path, "a", [2])
    data = DataSetConfig(
        kind="per_video", root=str(tmp_path), per_video=PerVideoConfig(tasks=("au",))
    )
    table = formats.load(data, "validation")
    assert (list(table.dataset), list(table.frame)) == (["per_video"], [2])


def test_bad_lines_can_be_left_out_and_move_no_other(tmp_path):
    lines = ["0.1,0.1", "0.2,x", "0.3,0.3", "0.4", "7,0.5", "0.6,0.6", "0.7,0.7", "0.8,0.8"]
    path = annotate(tmp_path, "va", "a", lines)
    annotate(tmp_path, "expr", "a", ["1"] * 8)
    crops(tmp_path, "a", range(1, 9))
    skipped = []
    table, _ = read(tmp_path, read_tasks=("va", "expr"), skipped=skipped)
    assert [(row.path, row.line) for row in skipped] == [(str(path), n) for n in (3, 5, 6)]
    expected = [0.1, np.nan, 0.3, np.nan, np.nan, 0.6, 0.7, 0.8]
    np.testing.assert_array_equal(table.valence, np.float32(expected))
    np.testing.assert_array_equal(table.arousal, np.float32(expected))
    assert list(table.expression) == [1] * 8  # the other task's lines are sound
    path.write_text("\n".join([HEADERS["va"], *lines[:3], "", *lines[3:]]))
    with pytest.raises(AnnotationError, match="a blank line within the file"):
        read(tmp_path, read_tasks=("va",), skipped=[])  # else every label below would move
