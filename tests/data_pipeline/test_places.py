"""What is a video: read from columns or paths, or asked."""

import pytest

from data_pipeline.formats import manifest
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import AnnotationError


def read(tmp_path, header, rows, **settings):
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    said = []
    table = manifest.read_manifest(
        path, ManifestConfig(**settings), image_root="/images", say=said.append
    )
    return table, said


def videos(table):
    return dict(zip(table.image, zip(table.video, table.frame.tolist(), strict=True), strict=True))


def numbered(pattern, folders, count=4, first=1):
    return [
        pattern.format(folder=folder, number=number)
        for folder in folders
        for number in range(first, first + count)
    ]


@pytest.mark.parametrize(
    "images",
    [
        numbered("{folder}/{number:05}.jpg", ("P01", "P02/trial1", "P02/trial2")),
        numbered("{folder}/frame_{number:04}.png", ("P01", "P02/trial1", "P02/trial2")),
        # numbers that do not come twice, but names that tell the videos apart
        [*numbered("a/a_{number}.jpg", " "), *numbered("b/b_{number}.jpg", " ", first=50)],
        # people of whom some have one photo
        [
            *numbered("{folder}/{folder}_{number:04}.jpg", "ab", 2),
            *(f"{c}/{c}_01.jpg" for c in "cdef"),
        ],
        # few frames of each video
        ["P01/0001.jpg", "P02/0003.jpg"],
    ],
)
def test_folders_of_numbered_frames_are_videos(tmp_path, images):
    """912 frames of 3 videos were 912 videos: nothing to smooth, and no split to check."""
    table, said = read(tmp_path, "image,au1", [f"{image},1" for image in images])
    for image, (video, frame) in videos(table).items():
        folder, _, name = image.rpartition("/")
        assert video == folder
        assert frame == int("".join(filter(str.isdigit, name)))
    count = len(set(table.video))
    assert said == [
        "no column video: each folder is a video (data.manifest.video_from): "
        f"{count} videos of {len(images)} images"
    ]


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("image,au1", ["anna.jpg,1", "bert.jpg,0", "carl.jpg,1"]),
        ("image,au1", ["photos/anna.jpg,1", "photos/bert.jpg,0"]),
        ("image,au1", ["photos/anna1.jpg,1", "photos/bert2.jpg,0", "photos/carl.jpg,1"]),
        ("image,au1", ["1/0a.jpg,1", "2/0b.jpg,0"]),
        # folders of classes, by word and by number
        (
            "image,au1",
            [f"{name},1" for name in numbered("{folder}/{number}.jpg", ("happy", "sad"))],
        ),
        (
            "image,expression",
            [f"train/{c}/{n}.jpg,{c}" for c in (0, 4) for n in range(5)],
        ),
    ],
)
def test_photos_are_videos_of_their_own(tmp_path, header, rows):
    table, said = read(tmp_path, header, rows)
    for image, place in videos(table).items():
        assert place == (image.rsplit(".", 1)[0], 1)
    assert said[-1].startswith("no column video: each image is a video of its own")


@pytest.mark.parametrize(
    "images",
    [
        numbered("{number:05}.jpg", " "),  # one video, or photos that were numbered
        numbered("images/{number:05}.jpg", " "),
        # numbered on over folders: photos that were spread, or one long video
        [*numbered("0/{number}.jpg", " "), *numbered("1/{number}.jpg", " ", first=5)],
        # several videos in one folder
        numbered("images/{folder}_{number:03}.jpg", ("P01", "P02")),
        # people, or shards of a large set
        [f"{folder}/{folder}{name}.jpg" for folder in "xy" for name in "abc"],
        # half of it is numbered
        [*numbered("a/{number}.jpg", " ", 10), *(f"a/{name}.jpg" for name in "pqrst")],
    ],
)
def test_what_paths_do_not_tell_is_asked(tmp_path, images):
    rows = [f"{image},1" for image in images]
    with pytest.raises(AnnotationError, match="do not tell whether a folder is a video") as caught:
        read(tmp_path, "image,au1", rows)
    for choice in ("folder", "name", "image"):
        assert f"data.manifest.video_from={choice} " in caught.value.remedy
    with pytest.raises(AnnotationError, match="au1 is 9"):  # wrong labels come first
        read(tmp_path, "image,au1", [*rows, f"{images[0]},9"])
    table, _ = read(tmp_path, "image,au1", rows, video_from="image")
    assert len(set(table.video)) == len(images)


def test_the_setting_decides(tmp_path):
    images = numbered("images/{folder}_{number:03}.jpg", ("P01", "P02"))
    rows = [f"{image},1" for image in images]
    table, said = read(tmp_path, "image,au1", rows, video_from="name")
    assert videos(table)["images/P02_003.jpg"] == ("images/P02", 3)
    assert said[0].endswith(": 2 videos of 8 images")
    table, _ = read(tmp_path, "image,au1", numbered("{number}.jpg,1", " "), video_from="folder")
    assert (set(table.video), list(table.frame)) == ({"."}, [1, 2, 3, 4])
    with pytest.raises(AnnotationError, match=r"'P02_001' .* frame 1|are both frame 1"):
        read(tmp_path, "image,au1", rows, video_from="folder")
    with pytest.raises(AnnotationError, match="'anna' is no frame number"):
        read(tmp_path, "image,au1", ["a/anna.jpg,1"], video_from="folder")


def test_columns_go_before_paths(tmp_path):
    table, said = read(tmp_path, "image,video,au1", ["x/0007.jpg,v,1", "y/take_8.jpg,v,1"])
    assert videos(table) == {"x/0007.jpg": ("v", 7), "y/take_8.jpg": ("v", 8)}
    assert said == []
    table, said = read(tmp_path, "image,frame,au1", ["a/x.jpg,3,1", "a/y.jpg,4,1", "b/x.jpg,3,1"])
    assert list(videos(table).values()) == [("a", 3), ("a", 4), ("b", 3)]
    with pytest.raises(AnnotationError, match="do not tell"):
        read(tmp_path, "image,frame,au1", ["a/x.jpg,3,1", "a/y.jpg,3,1"])


def test_an_image_that_is_listed_twice_is_one_frame(tmp_path):
    table, _ = read(tmp_path, "image,video,au1", ["x/1.jpg,v,1", "x/1.jpg,v,0"])
    assert list(table.duplicate) == [False, True]
    images = numbered("{folder}/{number}.jpg,1", ("a", "b"))
    table, _ = read(tmp_path, "image,au1", images + images[:1])
    assert (set(table.video), table.duplicate.sum()) == ({"a", "b"}, 1)


def test_two_images_of_one_frame_are_refused(tmp_path):
    """They would be taken for one image with two labels."""
    with pytest.raises(AnnotationError, match=r"'y/1.jpg' and 'x/1.jpg' are both frame 1 .* 'v'"):
        read(tmp_path, "image,video,au1", ["x/1.jpg,v,1", "y/1.jpg,v,0"])
    with pytest.raises(AnnotationError, match="both frame 1 of the video 'a'"):
        read(tmp_path, "image,au1", ["a.jpg,1", "a.png,0"])
