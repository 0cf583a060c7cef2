"""What is handed out to a page that answers by itself, and folders of a runtime that are none."""

import json

import pytest
from served import serving

from mtl_face.cli.main import main
from mtl_face.face_table import NO_BASELINE, RUNNING_MEAN
from mtl_face.run.page_networks import Networks
from mtl_face.serve import in_page
from mtl_face.serve.access import IN_PAGE_HEADERS
from mtl_face.serve.app import COLUMN_NAMES
from mtl_face.serve.in_page import InPage, RuntimeFolderError

TOKEN = "a-long-secret-of-tests"


def package(folder, *, name=in_page.PACKAGE, version="1.30.0"):
    """A folder like that of the package, with files of a few bytes."""
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": name, "version": version}))
    for file in in_page.RUNTIME:
        (folder / "dist" / file).write_text(file)
    return folder


def constructed(*, takes_points=True):
    decisions = {"au_thresholds": {"au1": 0.5}, "expression_biases": {"Neutral": 0.0}}
    networks = Networks(b"detector", b"mesh", b"network", 64, takes_points, decisions, "float32")
    runtime = {name: name.encode() for name in in_page.RUNTIME}
    return InPage("constructed", networks, runtime)


@pytest.mark.parametrize(
    "place", ["", "package", "onnxruntime-web", "node_modules/onnxruntime-web"]
)
def test_a_runtime_as_npm_leaves_it(tmp_path, place):
    package(tmp_path / place)
    found = in_page.read_runtime(tmp_path)
    assert found == {name: name.encode() for name in in_page.RUNTIME}


def refused(folder):
    with pytest.raises(RuntimeFolderError) as raised:
        in_page.read_runtime(folder)
    assert "npm install --prefix=FOLDER onnxruntime-web" in str(raised.value)
    return str(raised.value)


def test_folders_that_hold_no_runtime(tmp_path):
    assert f"{tmp_path / 'absent'}: " in refused(tmp_path / "absent")
    assert "is empty" in refused(tmp_path)
    (tmp_path / "file").write_text("x")
    assert f"{tmp_path / 'file'}: is a file, and not a folder" in refused(tmp_path / "file")
    assert "does not hold onnxruntime-web" in refused(tmp_path)
    other = package(tmp_path / "other", name="onnxruntime-node")
    assert "does not hold onnxruntime-web" in refused(other)
    old = package(tmp_path / "old", version="1.14.0")
    assert "is onnxruntime-web 1.14.0, and 1.19 or later is needed" in refused(old)
    for text in ("{", "[" * 100_000):
        (old / "package.json").write_text(text)
        assert f"{old / 'package.json'}: is damaged" in refused(old)
    half = package(tmp_path / "half")
    (half / "dist" / in_page.RUNTIME[-1]).unlink()
    assert in_page.RUNTIME[-1] in refused(half)


def test_mistakes_on_the_command_line(tmp_path, capsys):
    for flags, words in {
        ("--in_browser",): "npm install --prefix=FOLDER onnxruntime-web",
        ("--in_browser", f"--runtime={tmp_path}"): f"{tmp_path}: is empty",
        (f"--runtime={tmp_path}",): "without --in_browser",
    }.items():
        assert main(["serve", "--port=0", *flags]) == 2
        assert words in capsys.readouterr().err


@pytest.fixture(scope="module")
def served():
    with serving(constructed()) as served:
        yield served


def test_what_is_said_at_the_start(served):
    assert served.printed[0].startswith("open http://127.0.0.1:")
    assert "stay in the page" in served.printed[1]


def test_files_have_types_that_browsers_run(served):
    kinds = {
        "/": "text/html; charset=utf-8",
        "/worker.js": "text/javascript; charset=utf-8",
        "/runtime/ort.wasm.min.mjs": "text/javascript; charset=utf-8",
        "/runtime/ort-wasm-simd-threaded.mjs": "text/javascript; charset=utf-8",
        "/runtime/ort-wasm-simd-threaded.wasm": "application/wasm",
        "/api/networks/detector.onnx": "application/octet-stream",
    }
    for path, kind in kinds.items():
        status, headers, body = served.request("GET", path)
        assert (status, headers["content-type"]) == (200, kind), path
        assert IN_PAGE_HEADERS.items() <= headers.items()
        if path.startswith(("/runtime/", "/api/")):
            assert body.decode().startswith(path.rpartition("/")[2].partition(".onnx")[0])


def test_the_page_is_isolated_and_may_run_webassembly_alone(served):
    _, headers, _ = served.request("GET", "/")
    policy = headers["content-security-policy"]
    assert "script-src 'self' 'wasm-unsafe-eval';" in policy
    assert "worker-src 'self'" in policy
    assert "'unsafe-eval'" not in policy
    assert "unsafe-inline" not in policy
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    with serving() as plain:
        _, headers, _ = plain.request("GET", "/")
    assert "wasm" not in headers["content-security-policy"]


def test_nothing_takes_a_picture(served):
    for method, path in (("POST", "/api/file?name=a.jpg"), ("GET", "/api/camera")):
        status, _, _ = served.request(method, path, b"picture" if method == "POST" else None)
        assert status == 404, path
    for path in ("/", "/api/about", "/api/networks/network.onnx", "/runtime/ort.wasm.min.mjs"):
        assert served.request("POST", path, b"picture")[0] == 405
    assert served.request("GET", "/runtime/package.json")[0] == 404
    assert served.request("GET", "/runtime/../app.py")[0] == 404


def test_what_the_page_is_told(served):
    about = json.loads(served.request("GET", "/api/about")[2])
    assert about["in_page"] is True
    assert about["crop_size"] == 64
    assert about["baselines"] == [NO_BASELINE, RUNNING_MEAN]
    assert about["decisions"]["au_thresholds"] == {"au1": 0.5}
    assert about["videos"] == []
    empty = dict(zip(COLUMN_NAMES, about["empty"], strict=True))
    assert (empty["person"], empty["status"], empty["valence"]) == (0, "no face", None)
    with serving(constructed(takes_points=False)) as other:
        assert json.loads(other.request("GET", "/api/about")[2])["baselines"] == []


def test_networks_need_the_token():
    with serving(constructed(), token=TOKEN) as served:
        path = "/api/networks/network.onnx"
        assert served.request("GET", path)[0] == 401
        assert served.request("GET", path, authorization=f"Bearer {TOKEN}")[2] == b"network"
