"""The page in a real browser, where one is installed; faces are found for real."""

import re
import time
from pathlib import Path

import numpy as np
import page_steps
import pytest
import skimage
import small_videos
from brightness_network import Brightness
from browser import EXECUTABLE
from page_steps import ANSWERED, assert_same_table, click, table
from PIL import Image
from served import ConstructedModel, serving

from mtl_face.serve.app import COLUMN_NAMES
from mtl_face.serve.model import Faces

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed"),
]

ASTRONAUT = Path(skimage.__file__).parent / "data/astronaut.png"
READY = "!document.getElementById('app').hidden"
OVERFLOWING = """[...document.querySelectorAll('main *, header *, footer *')].filter(e =>
    !e.closest('svg, .unseen, #files, [hidden]')
    && e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.id || e.tagName).join()"""
OVERLAPPING = """[...document.querySelectorAll('tr')].filter(row => {
    const words = document.createRange(); words.selectNodeContents(row.cells[0]);
    const bar = row.querySelector('.track').getBoundingClientRect();
    return words.getBoundingClientRect().right > bar.left || bar.width < 30;
}).map(row => row.textContent).join()"""


@pytest.fixture(scope="module")
def model():
    return Faces(Brightness(), "brightness")


@pytest.fixture(scope="module")
def served(model):
    with serving(model) as served:
        yield served


@pytest.fixture(scope="module")
def constructed():
    with serving(ConstructedModel(faces=2)) as served:
        yield served


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    camera = page_steps.write_camera(tmp_path_factory.mktemp("camera") / "camera.mjpeg")
    with page_steps.browser_with_camera(camera) as browser:
        yield browser


@pytest.fixture(autouse=True)
def quiet(browser):
    """No test leaves a complaint of the page, or a request to another host."""
    browser.complaints.clear()
    browser.requests.clear()
    yield
    assert browser.complaints == []
    hosts = {re.match(r"\w+://([^/]*)", address)[1] for address in browser.requests}
    assert {host.partition(":")[0] for host in hosts} == {"127.0.0.1"}
    assert len(hosts) == 1


def opened(browser, served, *files, width=1280, **how):
    browser.open(served.address, width=width, **how)
    browser.wait_for(READY)
    if files:
        browser.choose_files("#files", *files)


def test_a_real_photograph(browser, served, model):
    opened(browser, served, ASTRONAUT)
    browser.wait_for(ANSWERED)
    expected = model.photo(Image.open(ASTRONAUT).convert("RGB"), "astronaut.png").to_dataframe()
    found = table(browser)
    assert list(found) == list(COLUMN_NAMES)
    assert_same_table(found, expected, atol=lambda name: 1e-4)
    assert len(found) == 1
    left, top, right, bottom = (
        float(found[f"face_{side}"].iloc[0]) for side in ("left", "top", "right", "bottom")
    )
    assert 150 < left < right < 300  # where the face is
    assert 50 < top < bottom < 220
    # the box is drawn around it, and nothing in its middle or far from it
    middle = (top + bottom) / 2
    places = [(left, middle), (right, middle), ((left + right) / 2, middle), (400, 400)]
    inked = """(points => { const o = document.getElementById('overlay');
        const copy = new OffscreenCanvas(o.width, o.height);
        const context = copy.getContext('2d', { willReadFrequently: true });
        context.drawImage(o, 0, 0);
        const s = Math.min(o.width, o.height) / 512;
        return points.map(([x, y]) => context.getImageData((o.width - 512 * s) / 2 + x * s - 2,
            (o.height - 512 * s) / 2 + y * s - 2, 5, 5).data.some(Boolean)); })"""
    found_ink = browser.evaluate(f"{inked}({[list(place) for place in places]})")
    assert found_ink == [True, True, False, False]
    assert "single picture" in browser.evaluate("document.getElementById('caution').textContent")
    said = browser.evaluate("document.getElementById('answer').textContent")
    assert said.startswith(f"Person 1: {expected['expression'].iloc[0]}, valence ")


def test_a_camera(browser, served):
    opened(browser, served)
    click(browser, "camera")
    browser.wait_for(ANSWERED)
    browser.wait_for("document.getElementById('speed').textContent")
    browser.wait_for("+document.getElementById('clock').textContent.split('frame ')[1] > 12")
    assert browser.evaluate("document.getElementById('video').videoWidth") == 1280
    assert browser.evaluate("document.getElementById('camera').ariaPressed") == "true"
    click(browser, "camera")
    browser.wait_for("document.getElementById('camera').ariaPressed == 'false'")
    found = table(browser)
    # the last frame that was answered stays: the wall of the camera's file, and the face
    wall, skin = browser.evaluate(
        "(c => { const d = new OffscreenCanvas(c.width, c.height).getContext('2d',"
        "{ willReadFrequently: true }); d.drawImage(c, 0, 0);"
        "return [[100, 100], [610, 360]].map(place =>"
        "[...d.getImageData(...place, 1, 1).data.slice(0, 3)]); })"
        "(document.getElementById('answered'))"
    )
    assert np.ptp([*wall, 110]) < 12
    assert np.ptp([*skin, 110]) > 20
    assert browser.evaluate("getComputedStyle(document.getElementById('answered')).display") != (
        "none"
    )
    assert found["frame"].tolist() == list(range(1, len(found) + 1))
    assert set(found["source"]) == {"camera"}
    # which frames come, the browser decides, and whether each is whole
    assert set(found["person"]) <= {0, 1}
    found = found[found["person"] == 1]
    assert len(found) > 10
    assert (np.diff(found["time_ms"]) > 0).all()
    assert found["face_left"].between(350, 650).all()
    assert found["face_left"].nunique() > 2  # it moves


def test_one_frame_at_a_time_waits_for_an_answer(browser):
    model = ConstructedModel(before=lambda source: time.sleep(0.05))
    with serving(model) as served:
        browser.open(served.address, width=1280)
        browser.wait_for(READY)
        browser.evaluate(
            "window.waiting = 0; window.most = 0; const send = WebSocket.prototype.send;"
            "WebSocket.prototype.send = function (data) {"
            "  if (!this.seen) { this.seen = true;"
            "    this.addEventListener('message', () => { window.waiting -= 1; }); }"
            "  window.most = Math.max(window.most, window.waiting += 1);"
            "  return send.call(this, data); }; null"
        )
        click(browser, "camera")
        browser.wait_for("document.getElementById('speed').textContent")
        assert browser.evaluate("window.most") == 1
        click(browser, "camera")


def test_a_server_that_goes_away_is_said(browser):
    with serving(ConstructedModel()) as served:
        browser.open(served.address, width=1280)
        browser.wait_for(READY)
        click(browser, "camera")
        browser.wait_for(ANSWERED)
    text = browser.wait_for("document.getElementById('messages').textContent")
    assert "connection to the server was lost" in text
    assert browser.evaluate("document.getElementById('camera').ariaPressed") == "false"
    browser.complaints.clear()


def test_a_video_of_two_people(browser, served, model, tmp_path):
    path = small_videos.write(tmp_path / "two.mp4", small_videos.two_people(20))
    opened(browser, served, path)
    browser.wait_for(f"document.getElementById('progress').hidden && {ANSWERED}")
    names = "[...document.querySelectorAll('#persons label')].map(l => l.textContent).join()"
    assert browser.wait_for(names) == "Person 1,Person 2"
    found = table(browser)
    assert sorted(set(zip(found["frame"], found["person"], strict=True))) == [
        (frame, person) for frame in range(1, 21) for person in (1, 2)
    ]
    seek = "(t) => { const s = document.getElementById('seek'); s.value = t;"
    seek += "s.dispatchEvent(new Event('input')); }"
    for number, time_ms in ((15, 570), (3, 90)):
        browser.evaluate(f"({seek})({time_ms})")
        browser.wait_for(f"document.getElementById('clock').textContent.endsWith('frame {number}')")


def test_a_video_that_the_browser_cannot_show(browser, served, tmp_path):
    frames = small_videos.two_people(4)
    path = small_videos.write(tmp_path / "old.avi", frames, codec="mjpeg", pixel_format="yuvj420p")
    opened(browser, served, path)
    browser.wait_for("!document.getElementById('unseen').hidden")
    browser.wait_for(f"document.getElementById('progress').hidden && {ANSWERED}")
    assert len(table(browser)) == 8


def test_bad_files_are_refused_and_the_others_answered(browser, served, tmp_path):
    note = tmp_path / "note.jpg"
    note.write_text("not a picture")
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    dark = tmp_path / "dark.png"
    Image.new("RGB", (64, 64)).save(dark)
    opened(browser, served, note, ASTRONAUT, empty, dark)
    browser.wait_for("document.querySelectorAll('#messages li').length == 2")
    browser.wait_for("document.getElementById('progress').hidden")
    said = browser.evaluate("document.getElementById('messages').innerText")
    assert "note.jpg: this is a text file, not an image" in said
    assert "empty.mp4: " in said
    assert "No face was found" in browser.evaluate("document.getElementById('nobody').textContent")
    assert table(browser)["status"].tolist()[1] == "no face"
    names = "[...document.querySelectorAll('#sources label')].map(l => l.textContent).join()"
    assert browser.evaluate(names) == "astronaut.png,dark.png"
    click(browser, "clear")
    browser.wait_for("!document.getElementById('empty').hidden")
    assert browser.evaluate("document.querySelectorAll('#messages li').length") == 0


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 390, 1000, 1440])
def test_it_fits_and_can_be_read(browser, constructed, width, dark):
    opened(browser, constructed, ASTRONAUT, width=width, dark=dark)
    browser.wait_for(ANSWERED)
    assert browser.evaluate(OVERFLOWING) == ""
    assert browser.evaluate(OVERLAPPING) == ""
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    for selector in ("body", "#facts dt", "th small", "button.main", "#caution", "#va", "footer"):
        assert contrast(browser, selector) >= 4.5, selector


def contrast(browser, selector):
    """The ratio of WCAG between an element's text and what is behind it."""
    pair = browser.evaluate(
        f"(e => {{ const text = getComputedStyle(e).color; const clear = 'rgba(0, 0, 0, 0)';"
        "while (getComputedStyle(e).backgroundColor == clear) e = e.parentElement;"
        "return [text, getComputedStyle(e).backgroundColor]; })"
        f"(document.querySelector('{selector}'))"
    )
    levels = []
    for color in pair:
        share = np.array([int(number) for number in re.findall(r"\d+", color)[:3]]) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        levels.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(levels) / min(levels)


def test_the_dark_is_dark(browser, constructed):
    background = "getComputedStyle(document.body).backgroundColor"
    opened(browser, constructed, dark=True)
    assert browser.evaluate(background) == "rgb(20, 24, 28)"
    opened(browser, constructed)
    assert browser.evaluate(background) == "rgb(238, 241, 244)"


def test_nothing_moves_by_itself(browser, constructed):
    """So that a bar never differs from its number, and nobody need ask for less motion."""
    opened(browser, constructed, ASTRONAUT)
    browser.wait_for(ANSWERED)
    assert browser.evaluate("document.getAnimations().length") == 0
    times = "[...document.querySelectorAll('*')].flatMap(e => { const s = getComputedStyle(e);"
    times += "return [s.transitionDuration, s.animationDuration]; })"
    assert set(browser.evaluate(times)) <= {"0s", "auto"}


def test_the_keyboard_reaches_every_control(browser, constructed):
    opened(browser, constructed, ASTRONAUT, ASTRONAUT)
    browser.wait_for("document.querySelectorAll('#sources label').length == 2")
    browser.wait_for(ANSWERED)
    reached = []
    for _ in range(20):
        browser.press("Tab", 9)
        name = browser.evaluate(
            "(e => e == document.body ? '' : e.id || e.name || e.className)(document.activeElement)"
        )
        if not name:
            break
        reached.append(name)
        outline = "getComputedStyle((e => e.matches('fieldset input') ? e.parentElement : e)"
        outline += "(document.activeElement)).outlineStyle"
        assert browser.evaluate(outline) == "solid", name
    assert reached == ["skip", "choose", "camera", "download", "clear", "source", "person"]
    # arrows choose another person
    name = "document.querySelector('#persons :checked').parentElement.textContent"
    browser.evaluate("document.querySelector('#persons :checked').focus()")
    assert browser.evaluate(name) == "Person 1"
    browser.press("ArrowRight", 39)
    assert browser.evaluate(name) == "Person 2"
    browser.wait_for("getComputedStyle(document.getElementById('dot')).fill == 'rgb(185, 98, 15)'")
    # Enter opens the camera
    browser.evaluate("document.getElementById('camera').focus()")
    browser.press("Enter", 13, "\r")
    browser.wait_for("document.getElementById('camera').ariaPressed == 'true'")
    browser.press("Enter", 13, "\r")
    browser.wait_for("document.getElementById('camera').ariaPressed == 'false'")


def test_every_control_has_a_name(browser, constructed):
    opened(browser, constructed, ASTRONAUT)
    browser.wait_for(ANSWERED)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    controls = ("button", "radio", "slider", "checkbox", "combobox", "textbox", "image")
    named = [
        (node["role"]["value"], node["name"]["value"])
        for node in nodes
        if node.get("role", {}).get("value") in controls and not node["ignored"]
    ]
    assert len(named) > 6
    assert all(name.strip() for _, name in named), named
    assert ("image", "Valence +0.59 ± 0.20 Arousal +0.07 ± 0.20") in named


def test_dropped_files_are_analysed(browser, constructed):
    opened(browser, constructed)
    browser.evaluate(
        "(async () => { const picture = await new Promise(done => {"
        "  const c = document.createElement('canvas'); const d = c.getContext('2d');"
        "  d.fillStyle = 'white'; d.fillRect(0, 0, 300, 150); c.toBlob(done); });"
        "const data = new DataTransfer();"
        "data.items.add(new File([picture], 'dropped.png', { type: 'image/png' }));"
        "document.dispatchEvent(new DragEvent('drop', { dataTransfer: data })); })(); null"
    )
    browser.wait_for(ANSWERED)
    assert table(browser)["source"].tolist() == ["dropped.png"] * 2


def test_a_token(browser):
    token = "a-long-secret-of-tests"
    with serving(ConstructedModel(), token=token) as served:
        plain = served.address.partition("#")[0]
        browser.open(plain, width=390)
        browser.wait_for("!document.getElementById('login').hidden")
        enter = (
            "(t => { document.getElementById('token').value = t;"
            "document.querySelector('#login button').click(); })"
        )
        browser.evaluate(f"{enter}('wrong-wrong-wrong')")
        browser.wait_for("document.getElementById('login-error').textContent")
        browser.evaluate(f"{enter}('{token}')")
        browser.wait_for(READY)
        browser.call("Network.clearBrowserCookies")
        browser.open(served.address, width=390)
        browser.wait_for(READY)
        assert browser.evaluate("location.href") == plain
        assert token not in browser.evaluate("document.cookie + JSON.stringify(history.state)")
        browser.choose_files("#files", ASTRONAUT)
        browser.wait_for(ANSWERED)
        click(browser, "camera")
        browser.wait_for("document.getElementById('speed').textContent")
        click(browser, "camera")
    # the browser's log has the two refusals, and nothing else
    assert all("401" in text for text in browser.complaints), browser.complaints
    assert len(browser.complaints) == 2
    browser.complaints.clear()
