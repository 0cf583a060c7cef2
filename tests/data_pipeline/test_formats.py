import gc
import os

import image_cases
import pytest

from data_pipeline import formats, images
from mtl_face import config as config_lib
from mtl_face import tasks
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import AnnotationError, ConfigError, ImageError
from mtl_face.run import datasets

HEADER = "image,valence,arousal,expression,aus"
AUS = ",".join("01" * 6)


@pytest.fixture
def root(tmp_path):
    """One data set that three kinds can read: two frames, one of them without an image."""
    images_folder = tmp_path / "data" / "cropped_aligned" / "a"
    images_folder.mkdir(parents=True)
    (images_folder / "00001.jpg").write_bytes(image_cases.encode(image_cases.picture(), "JPEG"))
    rows = f"{HEADER}\na/00001.jpg,0.5,0.5,1,{AUS}\na/00002.jpg,0.1,0.1,2,{AUS},\n"
    (tmp_path / "data" / "MTL_Challenge").mkdir()
    (tmp_path / "data" / "training_set_annotations.txt").write_text(rows)
    (tmp_path / "data" / "MTL_Challenge" / "train_set.txt").write_text(rows)
    (tmp_path / "data" / "train.csv").write_text(
        "image,video,au1\na/00001.jpg,a,1\na/00002.jpg,a,0\n"
    )
    return tmp_path / "data"


def settings(kind, root, **others):
    return config_lib.DataSetConfig(kind=kind, root=str(root), **others)


@pytest.mark.parametrize("kind", ["s_aff_wild2", "abaw3_mtl", "manifest", "rendered_faces"])
def test_missing_images(root, kind):
    said = []
    with pytest.raises(ImageError, match=r"00002\.jpg: the image file of row 3 does not exist"):
        formats.load(settings(kind, root), "train")
    table = formats.load(settings(kind, root), "train", missing_images="skip", say=said.append)
    assert (len(table), set(table.dataset)) == (1, {kind})
    assert any(line.startswith("skipped 1 rows whose image file is missing: ") for line in said)
    assert len(formats.load(settings(kind, root), "train", missing_images="keep")) == 2
    with pytest.raises(AnnotationError, match="does not exist"):
        formats.load(settings(kind, root), "validation")
    named = settings(kind, root, validation_annotations=formats.USUAL_NAMES[kind][0])
    assert len(formats.load(named, "validation", missing_images="keep")) == 2
    assert (
        len(formats.load(settings(kind, "/gone"), "train", root=root, missing_images="skip")) == 1
    )


def test_unknown_kind_and_split(root):
    for kind, split in (("affwild", "train"), ("manifest", "test")):
        with pytest.raises(ConfigError, match="kinds are s_aff_wild2, abaw3_mtl, per_video"):
            formats.load(settings(kind, root), split)


def test_a_root_is_needed():
    with pytest.raises(ConfigError, match="no folder of the data set is named"):
        formats.load(config_lib.DataSetConfig(), "train")


def test_settings_reach_the_readers(root):
    """Each setting of the config changes what is read."""
    (root / "mine.csv").write_text("image,expression,au1,valence\na/00001.jpg,3,4.5,7\n")
    data = config_lib.DataConfig(
        kind="manifest",
        root=str(root),
        train_annotations="mine.csv",
        manifest=ManifestConfig(expression_map="affectnet", au_threshold=4.0, va_range=(1.0, 9.0)),
    )
    said = []
    table = datasets.load_split(data, "train", said.append)
    assert table.expression[0] == 6  # AffectNet's 3 is Surprise
    assert table.au[0, 0] == 1
    assert table.valence[0] == 0.5
    assert said[-1].startswith("train: 1 rows")


@pytest.mark.parametrize("what", ["folder", "file"])
def test_links_out_of_the_image_folder_are_refused(root, tmp_path, what):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "00002.jpg").write_bytes(b"secret")
    folder = root / "cropped_aligned"
    if what == "file":
        (folder / "a" / "00002.jpg").symlink_to(outside / "00002.jpg")
    else:
        (folder / "a" / "00001.jpg").rename(outside / "00001.jpg")
        (folder / "a").rmdir()
        (folder / "a").symlink_to(outside)
    for missing in ("error", "skip"):
        with pytest.raises(ImageError, match="symbolic link leads out of the image folder"):
            formats.load(settings("s_aff_wild2", root), "train", missing_images=missing)


def test_links_that_stay_inside_are_fine(root, tmp_path):
    folder = root / "cropped_aligned"
    (folder / "a" / "00002.jpg").symlink_to("00001.jpg")
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")  # the image folder itself may be a link
    assert len(formats.load(settings("s_aff_wild2", root), "train")) == 2


def test_a_link_that_no_row_names_does_not_matter(root, tmp_path):
    (tmp_path / "else.jpg").touch()
    (root / "cropped_aligned" / "a" / "00003.jpg").symlink_to(tmp_path / "else.jpg")
    table = formats.load(settings("s_aff_wild2", root), "train", missing_images="keep")
    assert images.find_missing(table).tolist() == [1]


def test_pipes_and_loops_are_no_images(root):
    os.mkfifo(root / "cropped_aligned" / "a" / "00002.jpg")
    with pytest.raises(ImageError, match="does not exist"):
        formats.load(settings("s_aff_wild2", root), "train")
    fault = images.diagnose(root / "cropped_aligned" / "a" / "00002.jpg")
    assert fault is not None
    assert "pipe or a device" in fault.problem
    loop = root / "cropped_aligned" / "a" / "00004.jpg"
    loop.symlink_to(loop)
    assert images.diagnose(loop) is not None


@pytest.mark.parametrize("kind", ["s_aff_wild2", "manifest"])
def test_paths_that_leave_the_folder_are_refused(root, kind):
    """Spelled in every way: none of them reaches a file, existing or not."""
    for image in (
        "../secret/1.jpg",
        "a/../../secret/1.jpg",
        "/etc/1.jpg",
        "..\\1.jpg",
        "a/..\\1.jpg",
    ):
        path = root / formats.USUAL_NAMES[kind][0]
        text = {"s_aff_wild2": f"{HEADER}\n{image},0,0,0,{AUS}\n", "manifest": f"image\n{image}\n"}
        path.write_text(text[kind])
        with pytest.raises(
            AnnotationError, match=r"leaves the image folder|absolute path"
        ) as caught:
            formats.load(settings(kind, root), "train", missing_images="keep")
        assert caught.value.line == 2


def test_bad_rows_are_left_out_counted_and_listed(root):
    rows = (root / "training_set_annotations.txt").read_text()
    bad = "".join(f"a/{n:05}.jpg,{n},0,0,{AUS}\n" for n in range(2, 14))
    good = "".join(f"a/{n:05}.jpg,0,0,0,{AUS}\n" for n in range(14, 30))
    (root / "training_set_annotations.txt").write_text(rows + bad + good)
    with pytest.raises(AnnotationError, match="valence is 2, outside"):
        formats.load(settings("s_aff_wild2", root), "train", missing_images="keep")
    said, kept = [], []
    table = formats.load(
        settings("s_aff_wild2", root, skip_bad_rows=True),
        "train",
        missing_images="keep",
        say=said.append,
        keep=kept.extend,
    )
    assert table.frame.tolist() == [1, 2, *range(14, 30)]
    lines = said[0].splitlines()
    assert lines[0] == "left out 12 bad rows (skip_bad_rows):"
    assert lines[1] == "  training_set_annotations.txt, line 4: valence is 2, outside [-1, 1]"
    assert lines[-1] == "  and 2 more"
    assert [row.line for row in kept] == list(range(4, 16))
    labels = formats.read_labels(
        root / "training_set_annotations.txt", dataset="x", skipped=[], say=said.append
    )
    assert (len(labels), said[1]) == (18, said[0])


def test_labels_that_seem_misread_are_asked_about(root):
    path = root / "training_set_annotations.txt"

    def asked(*values):
        rows = (f"a/{n:05}.jpg,{v},{a},-1,{AUS}" for n, (v, a) in enumerate(values))
        path.write_text("\n".join([HEADER, *rows]) + "\n")
        said = []
        data = settings("s_aff_wild2", root)
        formats.load(data, "train", missing_images="keep", say=said.append)
        return said

    assert asked(*[(0.5, 0)] * 20, (-0.5, 0.25)) == []
    assert "both -1 in 10 of 110 rows" in asked(*[(-1, -1)] * 10, *[(-0.5, 0.5)] * 100)[0]
    assert "of 120 rows is below 0" in asked(*[(0.5, 0)] * 120)[0]


SIXTEEN = "image,valence,arousal,expression," + ",".join(tasks.AU_NAMES)


@pytest.mark.parametrize(
    ("expression", "kind"),
    [("3", "s_aff_wild2"), ("-1", "s_aff_wild2"), ("", "manifest"), ("Happy", "manifest")],
)
def test_a_header_of_sixteen_names_fits_two_kinds(tmp_path, expression, kind):
    path = tmp_path / "labels.csv"
    path.write_text(f"{SIXTEEN}\na/1.jpg,0.5,-5,{expression}{',0' * 12}\n")
    assert formats.kind_of_file(path) == kind


@pytest.mark.parametrize(
    ("header", "prefer_manifest", "kind"),
    [
        (HEADER, True, "s_aff_wild2"),
        (HEADER + ",,", False, "s_aff_wild2"),
        (SIXTEEN, False, "s_aff_wild2"),
        (SIXTEEN, True, "manifest"),
        ("valence;Image", False, "manifest"),
        ("\ufeff\n image\tau1", False, "manifest"),
        ('"image","valence"', False, "manifest"),
        ("valence,arousal", False, "s_aff_wild2"),
    ],
)
def test_files_of_labels_are_told_by_their_first_line(tmp_path, header, prefer_manifest, kind):
    path = tmp_path / "labels"
    path.write_text(header + "\na/1.jpg,1\n", encoding="utf-8")
    assert formats.kind_of_file(path, ManifestConfig() if prefer_manifest else None) == kind
    path.write_bytes(b"PAR1...")
    assert formats.kind_of_file(path) == "manifest"


def test_the_collector_rests_while_labels_are_read_and_works_again_after_a_fault(root, monkeypatch):
    seen = []
    monkeypatch.setattr(formats, "_doubts", lambda table: seen.append(gc.isenabled()) or [])
    formats.load(settings("manifest", root, missing_images="keep"), "train")
    monkeypatch.setattr(
        formats, "kind_of_file", lambda *file: seen.append(gc.isenabled()) or "manifest"
    )
    with pytest.raises(AnnotationError):
        formats.read_labels(root / "cropped_aligned" / "none.csv", dataset="none")
    assert seen == [False, False]
    assert gc.isenabled()
    gc.disable()
    try:
        formats.load(settings("manifest", root, missing_images="keep"), "train")
        assert not gc.isenabled()
    finally:
        gc.enable()
