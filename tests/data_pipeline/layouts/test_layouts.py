import pytest

from data_pipeline.formats import layouts
from data_pipeline.formats.expression_maps import find_map
from mtl_face.config.schema import LAYOUTS, ManifestConfig
from mtl_face.errors import AnnotationError

OPENFACE = "frame, face_id, confidence, success, AU01_r, AU01_c\n"


def test_settings_name_every_layout():
    assert tuple(sorted(layout.name for layout in layouts.LAYOUTS)) == tuple(sorted(LAYOUTS))
    assert layouts.LAYOUTS[-1].name == "manifest"  # takes anything


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("openface", OPENFACE),
        (
            "openface3",
            "timestamp,video_path,frame_index,face_id,face_detection,emotion,action_units\n",
        ),
        ("py_feat", "frame,FaceRectX,AU01,anger,input\n"),
        ("affectnet", "subDirectory_filePath,face_x,expression,valence,arousal\n"),
        ("affectnet", "1/a.jpg,1,2,3,4,1.5;2.5,0,0.1,0.2\n"),
        ("affectnet_words", ",pth,label,relFCs\n"),
        ("fer2013", "emotion,pixels,Usage\n"),
        ("fer2013", "emotion, Usage, pixels\n"),
        (
            "ferplus",
            "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,"
            "unknown,NF\n",
        ),
        ("raf_db", "train_00001.jpg 5\n"),
        ("bp4d", "0,1,2,4,5,6,7,9,10\n"),
        ("challenge_rows", "341/00001.jpg,0.1,0.2,3" + ",0" * 12 + "\n"),
        ("challenge_rows", "341/00001.jpg,0.1,0.2,3" + ",0" * 12 + ",,\n"),
        ("manifest", "image,au1,au2\n"),
        ("manifest", "image,AU01_r,frame\n"),
        ("manifest", "\n"),
    ],
)
def test_content_says_which(tmp_path, name, text):
    path = tmp_path / "labels.txt"
    path.write_text(text)
    assert layouts.find(path, ManifestConfig()).name == name
    assert layouts.find(path, ManifestConfig(layout=name)).name == name
    assert layouts.find(path, ManifestConfig(layout="manifest")).name == "manifest"


def test_another_layout_than_the_settings_name_is_refused(read):
    with pytest.raises(
        AnnotationError, match="not AffectNet's list, but output of OpenFace 2"
    ) as e:
        read(OPENFACE + "1,0,1,1,2,1\n", layout="affectnet")
    assert "data.manifest.layout=openface" in e.value.remedy


def test_what_is_read_is_said(read):
    _, said = read("image,video,frame,au1\na.jpg,a,1,1\n")
    assert said == []
    _, said = read(OPENFACE + "1,0,1,1,2,1\n")
    assert said[0] == "labels.csv is read as output of OpenFace 2 (data.manifest.layout=openface)"


def test_nothing_there(read, tmp_path):
    with pytest.raises(AnnotationError, match="does not exist"):
        read(name="gone.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match=r"holds no \.csv file"):
        read(name="empty")


def test_videos_of_the_validation_set(read):
    rows = "image,video,frame,au1\n" + "".join(
        f"{video}/1.jpg,{video},1,1\n" for video in ("F001/T1", "F001/T2", "F002/T1", "M001/T1")
    )
    settings = {"validation_videos": ("F001*", "M001/T1")}
    train, _ = read(rows, **settings)
    validation, _ = read(rows, split="validation", **settings)
    assert list(train.video) == ["F002/T1"]
    assert list(validation.video) == ["F001/T1", "F001/T2", "M001/T1"]
    with pytest.raises(AnnotationError, match="no video is called F009") as caught:
        read(rows, validation_videos=("F001*", "F009"))
    assert "F001/T1, F001/T2, F002/T1" in caught.value.remedy
    with pytest.raises(AnnotationError, match="none is left to train on"):
        read(rows, validation_videos=("*",))


def test_files_of_a_folder_are_one_layout(read, tmp_path):
    read(OPENFACE + "1,0,1,1,2,1\n", "out/b.csv")
    (tmp_path / "out" / "c.csv").write_text("image,au1\na.jpg,1\n")
    with pytest.raises(AnnotationError, match="not output of OpenFace 2, as other files") as caught:
        read(name="out")
    assert caught.value.path == str(tmp_path / "out" / "c.csv")


def test_few_lines_are_said_of_many_files(read):
    for number in range(20):
        text = f"image,video,frame,au1,note{number}\na.jpg,v{number},1,1,1\n"
        read(text, f"many/{number}.csv")
    table, said = read(name="many")
    assert len(table) == 20
    assert len(said) == 9
    assert said[-1] == "and 12 more"


def test_maps_of_layouts():
    """The orders that the data sets publish, written out."""
    alphabetical = find_map("affectnet_alphabetical")
    words = ["anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"]
    assert [alphabetical[str(number)] for number in range(8)] == [alphabetical[w] for w in words]
    raf = ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"]
    assert [find_map("raf_db")[str(n)] for n in range(1, 8)] == [word.title() for word in raf]
    assert "0" not in find_map("raf_db")  # it counts from 1
