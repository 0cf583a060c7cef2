"""A headless Chromium, driven over the pipe of its DevTools protocol. No package is needed."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")

_TIMEOUT_S = 300.0

_EXECUTE = """
import fcntl, os, sys
for place, pipe in zip((3, 4), [fcntl.fcntl(int(p), fcntl.F_DUPFD, 10) for p in sys.argv[1:3]]):
    os.dup2(pipe, place)  # the descriptors of the protocol
    os.close(pipe)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page of a browser of its own; a context manager.

    Attributes:
        complaints: what the console, the page's scripts and the browser's own log said.
        requests: addresses that the page and its workers asked for, but for those that hold their
            own data.
        uploads: requests of them that could carry something away: methods other than GET, bodies,
            WebSockets.
        downloads: a folder for what the page downloads.

    `extra_flags` are further ones of its command line.
    """

    def __init__(self, *extra_flags: str) -> None:
        assert EXECUTABLE is not None
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.uploads: list[str] = []
        self._number = 0
        self._buffer = b""
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        flags += ["--hide-scrollbars", "--no-first-run", f"--user-data-dir={self._profile.name}"]
        flags += extra_flags
        pipes = [str(to_browser), str(from_browser)]
        command = [sys.executable, "-c", _EXECUTE, *pipes, EXECUTABLE]
        self._process = subprocess.Popen(
            [*command, *flags, "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._session: str | None = None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self._attach_workers(self._session)
        self.downloads = Path(self._profile.name) / "downloads"
        self.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=_TIMEOUT_S)
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer."""
        number = self._send(self._session, method, **parameters)
        while (answer := self._receive()).get("id") != number:
            pass
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def open(
        self, page: Path | str, *, width: int, dark: bool = False, media: str = "screen"
    ) -> None:
        """Shows a file or an address in a window of this width, and waits until it is there."""
        address = page if isinstance(page, str) else page.absolute().as_uri()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=812, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        place = address.partition("#")[0]
        self.wait_for(f"document.readyState + location == {'complete' + place!r}")

    def wait_for(self, expression: str) -> Any:
        """The value of a JavaScript expression as soon as it is true."""
        deadline = time.monotonic() + _TIMEOUT_S
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, (expression, self.complaints)
            time.sleep(0.05)
        return value

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Presses and releases a key, as a person would."""
        values = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **values)
        self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    def choose_files(self, selector: str, *paths: Path) -> None:
        """Puts files into an input, as if they had been chosen."""
        document = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG file."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def print_pdf(self, path: Path) -> None:
        """The page as it would be printed, for a reader who prefers the dark."""
        scheme = {"name": "prefers-color-scheme", "value": "dark"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.call("Emulation.clearDeviceMetricsOverride")
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF")["data"]))

    def _send(self, session: str | None, method: str, **parameters: Any) -> int:
        """Sends a command; the number of its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        rest = json.dumps(message).encode() + b"\0"
        while rest:
            rest = rest[os.write(self._write, rest) :]
        return self._number

    def _attach_workers(self, session: str | None) -> None:
        """Has the workers that a page or a worker starts wait until they are watched."""
        how = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
        self._send(session, "Target.setAutoAttach", **how)

    def _receive(self) -> dict[str, Any]:
        """The next message; events are noted."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], _TIMEOUT_S)
            assert ready, "the browser is silent"
            piece = os.read(self._read, 1 << 20)
            assert piece, "the browser has ended"
            self._buffer += piece
        content, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(content)
        method, values = message.get("method"), message.get("params", {})
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(values))
        elif method == "Network.requestWillBeSent":
            address, how = values["request"]["url"], values["request"]["method"]
            if not address.startswith(("data:", "blob:", "about:")):
                self.requests.append(address)
                if how != "GET" or values["request"].get("hasPostData"):
                    self.uploads.append(f"{how} {address}")
        elif method == "Network.webSocketCreated":
            self.uploads.append(values["url"])
        elif method == "Target.attachedToTarget":
            worker = values["sessionId"]
            for command in ("Network.enable", "Runtime.enable", "Log.enable"):
                self._send(worker, command)
            self._attach_workers(worker)
            self._send(worker, "Runtime.runIfWaitingForDebugger")
        return message
