"""`serve`: a page in the browser for photos, videos and the camera, on this machine.

Faces are marked, and valence, arousal, action units and expressions shown as they come; the table
can be downloaded. Nothing leaves the machine, and nothing is kept. With --in_browser the networks
run in the page itself, which no picture leaves. Ctrl-C stops it.
"""

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_face.cli import flags
from mtl_face.config import Config
from mtl_face.errors import ConfigError, UserError
from mtl_face.run import workdir as workdirs

if TYPE_CHECKING:
    from mtl_face.serve.in_page import InPage
    from mtl_face.serve.model import Faces


def add_arguments(parser: argparse.ArgumentParser) -> None:
    whole = functools.partial(flags.natural_number, least=1)
    flags.model(parser, default=Path(workdirs.DEFAULT_MODEL))
    parser.add_argument(
        "--in_browser",
        action="store_true",
        help="run the networks in the page: photos and camera stay in it; needs --runtime",
    )
    flags.path(
        parser, "--runtime", "FOLDER", "with --in_browser: onnxruntime-web, as npm installs it"
    )
    parser.add_argument(
        "--port", type=_port, default=8765, metavar="N", help="default: 8765; 0: any free one"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="interface to listen on (default: 127.0.0.1, reached from this machine alone; others "
        "need --certificate, and ask for a token)",
    )
    parser.add_argument(
        "--token",
        metavar="TEXT",
        help="secret that every browser must know (default: none on this machine, a new one "
        "beyond)",
    )
    flags.path(parser, "--certificate", "PEM", "certificate for https")
    flags.path(parser, "--key", "PEM", "its private key, if in a file of its own")
    parser.add_argument(
        "--allow_host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name under which browsers reach this machine; may be repeated",
    )
    parser.add_argument(
        "--max_upload_mb",
        type=whole,
        default=1000,
        metavar="N",
        help="largest photo or video (default: 1000)",
    )
    parser.add_argument(
        "--max_minutes",
        type=whole,
        default=60,
        metavar="N",
        help="longest time for one file (default: 60)",
    )
    parser.add_argument(
        "--max_clients",
        type=whole,
        default=8,
        metavar="N",
        help="files and cameras at the same time (default: 8)",
    )


def _port(text: str) -> int:
    port = flags.natural_number(text)
    if port > 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: at most 65535")
    return port


def run(config: Config, options: argparse.Namespace) -> int:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"the page needs a web server, which cannot be imported ({error})",
            remedy='install the extra: python -m pip install "mtl_face[serve]" '
            "(in a clone: python -m pip install -e '.[serve]')",
        ) from error
    from mtl_face.serve import app, in_page, server

    runtime = _runtime(options)
    limits = app.Limits(
        upload_bytes=options.max_upload_mb * 1_000_000,
        seconds=60.0 * options.max_minutes,
        clients=options.max_clients,
    )
    where = server.Options(
        host=options.host,
        port=options.port,
        token=options.token,
        certificate=options.certificate,
        key=options.key,
        allow_hosts=tuple(options.allow_host),
        limits=limits,
    )

    def load() -> "Faces | InPage":
        from mtl_face.run import models, show
        from mtl_face.serve.model import Faces

        print(f"loading {options.model}")
        predictor = models.open_model(options.model, config, show)
        if runtime is not None:
            print("writing the networks for the page")
            return in_page.load(predictor, options.model.stem, runtime)
        faces = Faces(predictor, options.model.stem)
        faces.compile()
        return faces

    server.serve(where, load, print)
    return 0


def _runtime(options: argparse.Namespace) -> dict[str, bytes] | None:
    """The files that a page needs to run the networks; None where the server runs them."""
    from mtl_face.serve import in_page

    if options.in_browser and options.runtime is None:
        raise ConfigError(
            "--in_browser needs ONNX Runtime Web, and --runtime does not say where it lies",
            remedy=in_page.HOW_TO_MAKE,
        )
    if options.runtime is not None and not options.in_browser:
        raise ConfigError(
            "--runtime is given without --in_browser, and the server runs the networks",
            remedy="add --in_browser to run them in the page, or leave --runtime out",
        )
    return None if options.runtime is None else in_page.read_runtime(options.runtime)
