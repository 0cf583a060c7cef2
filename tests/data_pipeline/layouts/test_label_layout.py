from pathlib import Path

import pytest

from data_pipeline.formats.layouts import layout
from data_pipeline.formats.user_files import Columns
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import ConfigError


def test_a_video_is_called_as_its_file_and_its_folders():
    def place(path):
        return layout.Place(Path(path), "train", ManifestConfig(), Path("/images"))

    assert place("/out/P1/a.csv").video_of(Path("/out/P1/a.csv")) == "a"
    assert place("/out").video_of(Path("/out/P1/a.b.csv")) == "P1/a.b"


def test_a_map_of_the_settings_goes_before_the_layouts_own():
    def place(**settings):
        return layout.Place(Path("l"), "train", ManifestConfig(**settings), Path("/images"))

    assert place().expression_map("affectnet") == "affectnet"
    assert place(expression_map="mine.json").expression_map("affectnet") == "mine.json"


def test_photos_are_videos_of_their_own():
    assert layout.photos(["1/a.b.jpg", " 2\\c.PNG"]) == {
        "image": ["1/a.b.jpg", " 2\\c.PNG"],
        "video": ["1/a.b", "2/c"],
        "frame": ["1", "1"],
    }


def test_images_that_are_not_read_are_counted():
    images = ["a.jpg", "b.tif", "c.JPEG", "d.webp", "e.tif"]
    rows, counts = layout.readable(images, [0, 1, 2, 3])
    assert rows == [0, 2]
    ((what, number),) = counts.items()
    assert number == 2
    assert "(.tif, .webp)" in what


def test_folders_of_images_are_below_the_image_folder():
    assert layout.folder_below(Path("/data/train/images"), Path("/data")) == "train/images"
    with pytest.raises(ConfigError, match="is not below /data/crops"):
        layout.folder_below(Path("/data/train"), Path("/data/crops"))


def test_rows_are_taken_with_their_lines():
    columns = layout.take(Columns({}, [], [2, 3, 5]), [2, 0], image=["a", "b", "c"])
    assert (columns.cells, columns.lines) == ({"image": ["c", "a"]}, [5, 2])
