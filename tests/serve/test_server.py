"""Addresses, certificates and tokens that are refused, and the end by a signal."""

import contextlib
import http.client
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from served import ConstructedModel, message, serving
from websockets.sync.client import connect

from mtl_face.cli.main import main
from mtl_face.errors import ConfigError, UserError
from mtl_face.serve import server
from mtl_face.serve.server import Options, ServerError


def refused(error=UserError, **options):
    """The message with which a server does not start; no model is loaded before."""

    def load():
        raise AssertionError("the model is loaded before the options are checked")

    with pytest.raises(error) as raised:
        server.serve(Options(**{"port": 0, **options}), load, print)
    return str(raised.value)


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = refused(ServerError, port=port)
    assert f"127.0.0.1:{port}" in text
    assert "in use" in text
    assert f"--port={port + 1}" in text


def test_a_host_that_is_not_of_this_machine():
    assert "--host=no.such.host.invalid" in refused(ServerError, host="no.such.host.invalid")
    assert "192.0.2.1" in refused(ServerError, host="192.0.2.1")  # an address of documentation


def test_beyond_loopback_a_certificate_is_needed():
    text = refused(ConfigError, host="0.0.0.0")
    assert "--certificate" in text
    assert "camera" in text
    assert "ssh -L" in text


@pytest.mark.parametrize("token", ["short", "with a space in between", "semi;colon-and-more-text"])
def test_a_token_that_can_be_guessed_or_fits_no_cookie(token):
    assert "--token" in refused(ConfigError, token=token)


def certificate(folder, *, password=None):
    """A certificate for 127.0.0.1 and its key, written by OpenSSL."""
    paths = folder / "certificate.pem", folder / "key.pem"
    hidden = ["-noenc"] if password is None else ["-passout", f"pass:{password}"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", *hidden, "-days", "2", "-subj", "/CN=x",
         "-addext", "subjectAltName=IP:127.0.0.1", "-out", paths[0], "-keyout", paths[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return paths


@pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL's program is not installed")
class TestCertificate:
    def test_absent(self, tmp_path):
        path = tmp_path / "absent.pem"
        assert f"{path}: " in refused(ServerError, certificate=path)
        assert "--certificate" in refused(ConfigError, key=path)

    def test_no_certificate(self, tmp_path):
        path = tmp_path / "text.pem"
        path.write_text("text")
        assert f"{path}: no certificate" in refused(ServerError, certificate=path)

    def test_encrypted(self, tmp_path):
        cert, key = certificate(tmp_path, password="secret-secret")
        assert "encrypted" in refused(ServerError, certificate=cert, key=key)

    def test_https(self, tmp_path):
        cert, key = certificate(tmp_path)
        trusted = ssl.create_default_context(cafile=cert)
        with serving(certificate=cert, key=key) as served:
            assert served.address.startswith("https://")
            with urllib.request.urlopen(served.address, context=trusted) as answer:
                assert b"mtl_face" in answer.read()

    def test_beyond_loopback(self, tmp_path):
        """A new token is printed and asked for, and the cookie is sent over https alone."""
        cert, key = certificate(tmp_path)
        trusted = ssl.create_default_context(cafile=cert)
        with serving(host="0.0.0.0", certificate=cert, key=key) as served:
            place, _, token = served.address.partition("#token=")
            assert len(token) >= 32
            assert socket.gethostname() in place
            here = f"https://127.0.0.1:{served.port}/api"
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(f"{here}/about", context=trusted)
            request = urllib.request.Request(
                f"{here}/session", method="POST", headers={"Authorization": f"Bearer {token}"}
            )
            with urllib.request.urlopen(request, context=trusted) as answer:
                assert "Secure" in answer.headers["set-cookie"]


def test_what_is_printed_on_loopback():
    with serving(ConstructedModel()) as served:
        assert served.printed == [
            f"open http://127.0.0.1:{served.port}/",
            "pictures stay on this machine, and none is kept",
            "Ctrl-C stops the server",
        ]
    assert served.printed[-1] == "stopped"


@contextlib.contextmanager
def program(model="ConstructedModel()"):
    """A process that serves, with a short patience at its end, and its port."""
    text = (
        "import time\n"
        "from served import ConstructedModel\n"
        "from mtl_face.serve import server\n"
        "server._STOP_SECONDS = 0.2\n"
        "say = lambda line: print(line, flush=True)\n"
        f"server.serve(server.Options(port=0), lambda: {model}, say)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}"},
    )
    with process:
        try:
            yield process, int(process.stdout.readline().rpartition(":")[2].rstrip("/\n"))
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_open_connections(number):
    with program() as (process, port), connect(f"ws://127.0.0.1:{port}/api/camera"):
        process.send_signal(number)
        out, errors = process.communicate(timeout=300)
    assert process.returncode == 0
    assert out.endswith("stopped\n")
    assert errors == ""


def test_what_takes_long_is_cut_off_in_a_line():
    """An upload that stands still, and a frame whose answer is being made."""
    model = "ConstructedModel(before=lambda source: [say(source), time.sleep(0.6)])"
    with (
        program(model) as (process, port),
        connect(f"ws://127.0.0.1:{port}/api/camera?name=slow") as socket_,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as upload,
    ):
        upload.putrequest("POST", "/api/file?name=a.jpg")
        upload.putheader("Content-Length", "1000")
        upload.endheaders()
        upload.send(b"begin")
        socket_.send(message(1.0))
        assert [process.stdout.readline() for _ in range(3)][-1] == "slow\n"
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=300)
    assert process.returncode == 0
    assert out == "requests that take longer than 0.2 s are cut off: 2\nstopped\n"
    assert errors == ""


class TestCommandLine:
    def test_mistakes(self, capsys, tmp_path):
        for flag, words in {
            "--port=70000": "at most 65535",
            "--max_minutes=0": "from 1 on",
            "--prot=1": "did you mean --port?",
        }.items():
            with pytest.raises(SystemExit) as ended:
                main(["serve", f"--model={tmp_path}", flag])
            assert ended.value.code == 2
            assert words in capsys.readouterr().err

    def test_a_model_that_is_none(self, capsys, tmp_path):
        assert main(["serve", f"--model={tmp_path}/absent", "--port=0"]) == 2
        assert "absent" in capsys.readouterr().err
