"""Whatever bytes a file holds: it is read, or refused with its name, its line and a remedy."""

import io
import json
import os

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.formats import (
    layouts,
    manifest,
    per_video,
    s_aff_wild2,
    submission,
    submission_check,
)
from data_pipeline.formats.expression_maps import find_map
from data_pipeline.formats.test_list import load_test_list
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import UserError
from mtl_face.tables import FrameTable

AUS = ",".join("01" * 6)
NAMES = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
UNITS = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
MULTI_TASK = (
    f"image,valence,arousal,expression,aus\n341/00008.jpg,0.25,-0.5,3,{AUS}\n"
    f"video45_1/00001.jpg,-5,-5,-1,{','.join(['-1'] * 12)},\n"
)
SUBMISSION = (
    f"image,valence,arousal,expression,aus\n341/00008.jpg,0.25,-0.5,3,{AUS}\n"
    f"a/00001.jpg,1,0,0,{AUS}\n"
)


def parquet():
    buffer = io.BytesIO()
    columns = {"image": ["a/1.jpg", "b.jpg"], "expression": [3, 4], "au1": [0.0, None]}
    pd.DataFrame(columns).to_parquet(buffer)
    return buffer.getvalue()


def read_annotations(path):
    return s_aff_wild2.read_annotations(path, image_root="/images")


def read_manifest(path):
    return manifest.read_manifest(path, ManifestConfig(), image_root="/images")


def read_layout(path):
    return layouts.read(
        path, ManifestConfig(), split="train", image_root="/images", dataset="hostile"
    )


LAYOUTS = {
    "own": "image,video,frame,valence,AU01,votes_fear\na/1.jpg,a,1,0.5,9,2\n",
    "openface": "frame, face_id, confidence, success, AU01_r, AU01_c\n1, 0, 0.9, 1, 2.5, 1\n",
    "openface3": "video_path,frame_index,face_id,face_detection,emotion,action_units\n"
    'a/b.mp4,0,0.0,"[1.0, 2.0, 3.0, 4.0, 0.5]",1.0,"[[0.1, 0.2]]"\n',
    "py_feat": "frame,FaceRectX,FaceScore,AU01,anger,Neutral,input\n0,1,0.9,0.5,.1,.2,a/b.mp4\n",
    "affectnet": "subDirectory_filePath,face_x,expression,valence,arousal\n1/a.jpg,3,1,0.5,-2\n",
    "affectnet_words": ",pth,label,relFCs\n0,anger/a.jpg,surprise,0.8\n",
    "ferplus": "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,"
    "unknown,NF\nTraining,fer0.png,4,0,0,1,3,2,0,0,0,0\n",
    "raf_db": "train_00001.jpg 5\ntest_0001.jpg 1\n",
    "bp4d": "0,1,2,4,5,6,7,10\n2440,0,1,9,0,0,1,1\n",
    "challenge_rows": f"341/00008.jpg,0.25,-0.5,3,{AUS}\n",
}


def read_strictly(path):
    return submission.read_submission(path, strict=True)


def read_leniently(path):
    return submission.read_submission(path, strict=False)


def read_video_file(task):
    return lambda path: per_video.read_video_file(path, task)


READERS = {
    "annotations": (read_annotations, MULTI_TASK),
    "image list": (lambda path: load_test_list(path, "/images"), "image\na/00001.jpg,\nb/2.jpg\n"),
    "count list": (lambda path: load_test_list(path, "/images"), "video,frames\na,3\nb_left,2\n"),
    "valence file": (read_video_file("va"), "valence,arousal\n0.5,0.25\n-5,-5\n"),
    "expression file": (read_video_file("expr"), f"{NAMES}\n3\n-1\n"),
    "unit file": (read_video_file("au"), f"{UNITS}\n{AUS}\n"),
    "csv": (read_manifest, "image,video,frame,valence,AU01,expression\na/1.jpg,a,1,0.5,1,joy\n"),
    "parquet": (read_manifest, parquet()),
    "annotations, skipping": (
        lambda path: s_aff_wild2.read_annotations(path, image_root="/images", skipped=[]),
        MULTI_TASK + "9/00001.jpg,0,0,8,\n" + MULTI_TASK.split("\n", 1)[1],
    ),
    "csv, skipping": (
        lambda path: manifest.read_manifest(
            path, ManifestConfig(), image_root="/images", skipped=[]
        ),
        'image,video,AU01\n"a/1.jpg",a,1\na/2.jpg,a\na/3.jpg,a,0\n',
    ),
    "valence file, skipping": (
        lambda path: per_video.read_video_file(path, "va", []),
        "valence,arousal\n0.5,0.25\n7,0\n-5,-5\n",
    ),
    "map": (lambda path: find_map(str(path)), json.dumps({"0": "Neutral", "1": None})),
    "submission": (read_strictly, SUBMISSION),
    "submission, leniently": (read_leniently, MULTI_TASK),
    "one task": (read_leniently, f"image_location,{NAMES}\na/00001.jpg,3\n"),
    "no header": (read_leniently, f"a/00001.jpg,{AUS}\n"),
    **{f"layout {name}": (read_layout, text) for name, text in LAYOUTS.items()},
}

WITHOUT_LINE = {"parquet", "map", "layout affectnet", "layout ferplus", "layout raf_db"}
"""Readers of files that need not have a line to name."""


def mutate(content, mutations):
    for place, removed, added in mutations:
        position = place % (len(content) + 1)
        content = content[:position] + added + content[position + removed :]
    return content


_added = st.one_of(
    st.binary(max_size=3),
    st.sampled_from(
        [b",", b"\n", b"\r", b"\0", b"-5", b"nan", b"1e999", b"../", b"/", b"\\", b'"', b"{", b";"]
    ),
)
_mutations = st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 4), _added), max_size=4)


@pytest.mark.parametrize("name", READERS)
@settings(deadline=None, derandomize=True, max_examples=50)
@given(data=st.data())
def test_any_bytes(tmp_path_factory, name, data):
    read_or_refuse(tmp_path_factory.getbasetemp(), name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@settings(deadline=None, derandomize=True, max_examples=500)
@given(data=st.data())
def test_very_many_bytes(tmp_path_factory, name, data):
    read_or_refuse(tmp_path_factory.getbasetemp(), name, data)


def read_or_refuse(folder, name, data):
    reader, valid = READERS[name]
    whole = valid if isinstance(valid, bytes) else valid.encode()
    content = data.draw(
        st.one_of(_mutations.map(lambda mutations: mutate(whole, mutations)), st.binary())
    )
    path = folder / f"hostile-{name}.json"
    path.write_bytes(content)
    fault = None
    try:
        read = reader(path)
    except UserError as error:
        fault = error
    if fault is None:
        if isinstance(read, FrameTable):
            assert len(read) >= 1
            normal = [os.path.normpath(place) for place in read.paths()]
            assert all(place.startswith("/images/") for place in normal)
        return
    assert fault.path == str(path)
    assert fault.remedy
    num_lines = len(content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
    if fault.line is None:
        assert name in WITHOUT_LINE or content.startswith(b"PAR1")
    else:
        assert 1 <= fault.line <= num_lines


@pytest.mark.parametrize("name", [name for name in READERS if name != "parquet"])
def test_a_large_file_of_another_kind_is_refused_in_few_words(tmp_path, name):
    for content in (b"\0" * 1_000_000, b"image\n" + b"a" * 1_000_000):
        (tmp_path / "file.json").write_bytes(content)
        with pytest.raises(UserError, match=r"1,000,000 characters") as error:
            READERS[name][0](tmp_path / "file.json")
        assert len(str(error.value)) < 400
        assert error.value.line == 1 + content.count(b"\n")


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_read(tmp_path, name):
    """The properties above speak of files that were sound before they were changed."""
    reader, valid = READERS[name]
    path = tmp_path / "valid.json"
    path.write_bytes(valid if isinstance(valid, bytes) else valid.encode())
    reader(path)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(mutations=_mutations, edition=st.sampled_from(["abaw7_mtl", "abaw5_va", "abaw6_expr"]))
def test_validating_any_bytes(tmp_path_factory, mutations, edition):
    """Deviations, or a refusal: and a submission that passes reads back as the list."""
    folder = tmp_path_factory.getbasetemp()
    listed, path = folder / "hostile-list.txt", folder / "hostile-submission.txt"
    listed.write_text("image\n341/00008.jpg\na/00001.jpg\n")
    texts = {
        "abaw7_mtl": SUBMISSION,
        "abaw5_va": "image_location,valence,arousal\n341/00008.jpg,0,1\na/00001.jpg,-1,0\n",
        "abaw6_expr": f"image_location,{NAMES}\n341/00008.jpg,7\na/00001.jpg,0\n",
    }
    path.write_bytes(mutate(texts[edition].encode(), mutations))
    try:
        deviations = submission_check.validate_submission(
            path,
            edition=edition,
            test_list=load_test_list(listed, ""),
            list_path=listed,
        )
    except UserError as error:
        deviations = [error]
    if deviations:
        assert all(str(deviation) for deviation in deviations)
        return
    table, _ = submission.read_submission(path)
    assert list(table.image) == ["341/00008.jpg", "a/00001.jpg"]
