"""Decoding: every frame keeps its number, whatever is odd or damaged about the file."""

import contextlib
import io
import itertools
import os
import sys
import wave
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import small_videos
from PIL import ExifTags, Image, ImageOps

from mtl_face.faces import video


def levels(path):
    """Brightness step of each decoded frame, by number, and the video after decoding."""
    opened = video.open_video(path)
    steps = {}
    for frame in opened:
        mean = np.asarray(frame.picture).astype(float).mean()
        steps[frame.number] = (mean - 4) / 8
    return steps, opened


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mp4", "libx264", "yuv420p"),  # B-frames: packets are not in the order of showing
        ("a.mkv", "libx264", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mp4", "libx264", "gray"),
        ("a.mkv", "libx264", "yuv420p10le"),
        ("a.mkv", "ffv1", "bgr0"),
    ],
)
def test_frames_in_the_order_of_showing(tmp_path, name, codec, pixel_format):
    path = small_videos.write(
        tmp_path / name, small_videos.grey_steps(24), codec=codec, pixel_format=pixel_format
    )
    steps, opened = levels(path)
    assert list(steps) == list(range(1, 25))
    # The encoder writes grey in full range without saying so, which is read with more contrast.
    tolerance = 2.0 if pixel_format == "gray" else 0.45
    np.testing.assert_allclose(list(steps.values()), range(24), atol=tolerance)
    assert (opened.frames, opened.damaged, opened.orientation) == (24, 0, 1)
    assert not opened.variable_rate
    assert not opened.numbered_by_count
    assert video.estimate_frames(path) == pytest.approx(24, abs=8)


def test_uneven_frame_rate_counts_frames_and_keeps_times(tmp_path):
    times = [0, 40, 80, 500, 540, 2000]
    path = small_videos.write(tmp_path / "a.mkv", small_videos.grey_steps(6), times_ms=times)
    opened = video.open_video(path)
    frames = [(frame.number, frame.seconds) for frame in opened]
    assert frames == [(number, ms / 1000) for number, ms in enumerate(times, start=1)]
    assert opened.variable_rate


def upright(pixels, orientation):
    """The pixels as a photograph with this EXIF orientation is shown."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    return np.asarray(ImageOps.exif_transpose(Image.open(buffer)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_frames_are_upright_and_not_mirrored(tmp_path, orientation):
    """A light corner at the top left of the stored frame goes where a player shows it."""
    pixels = np.full((64, 128, 3), 30, np.uint8)
    pixels[:32, :32] = 220
    path = small_videos.write(tmp_path / "a.mp4", [pixels] * 3)
    small_videos.turn(path, orientation, 128, 64)
    opened = video.open_video(path)
    frames = [np.asarray(frame.picture).astype(int) for frame in opened]
    expected = upright(pixels, orientation)
    assert len(frames) == 3
    assert frames[0].shape == expected.shape
    assert np.abs(frames[0] - expected).mean() < 4
    assert opened.orientation == orientation


@pytest.mark.parametrize(("degrees", "orientation"), [(0, 1), (90, 8), (180, 3), (-90, 6)])
def test_orientation_where_pyav_refuses_what_frames_carry(degrees, orientation):
    """It names the kinds of data that it knows, and fails for all of them at one that is newer."""

    class Frame:
        rotation = degrees

        @property
        def side_data(self):
            raise ValueError("37 is not a valid Type")

    assert video._orientation(Frame(), b"") == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_motion_jpeg_with_exif_data(tmp_path, orientation):
    pixels = np.full((64, 128, 3), 30, np.uint8)
    pixels[:32, :32] = 220
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif, quality=95)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuvj420p"
        for number in range(20):
            packet = av.Packet(buffer.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            container.mux(packet)
    frames = [np.asarray(frame.picture) for frame in video.open_video(tmp_path / "a.avi")]
    expected = upright(pixels, orientation)
    assert len(frames) == 20
    for frame in frames:
        assert frame.shape == expected.shape
        assert np.abs(frame.astype(int) - expected).mean() < 4


def test_a_display_matrix_that_is_no_quarter_turn():
    frame = SimpleNamespace(side_data={})
    for degrees, expected in [(0, 1), (44, 1), (46, 6), (100, 6), (170, 3), (-80, 8)]:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        matrix = np.array([c, s, 0, -s, c, 0, 0, 0, 1]) * 65536
        frame.side_data["DISPLAYMATRIX"] = matrix.astype(np.int32).tobytes()
        assert video._orientation(frame, b"") == expected, degrees
    frame.side_data["DISPLAYMATRIX"] = bytes(36)
    assert video._orientation(frame, b"") == 1


def test_odd_names_and_texts_of_a_file(tmp_path, monkeypatch):
    """A colon is no protocol, a byte that is not UTF-8 no fault, and a title may be in Latin-1."""
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"12:30 caf\xe9.mp4")
    path = small_videos.write(tmp_path / "a.mp4", small_videos.grey_steps(3), title="caf\xe9 12")
    content = path.read_bytes()
    assert content.count("caf\xe9 ".encode()) == 1
    path.write_bytes(content.replace("caf\xe9 ".encode(), b"caf\xe9  "))
    path.rename(tmp_path / name)
    for place in (tmp_path / name, name):
        steps, _ = levels(place)
        assert sorted(steps) == [1, 2, 3]


def test_pixels_that_are_not_square(tmp_path):
    path = small_videos.write(tmp_path / "a.mp4", small_videos.grey_steps(2), aspect=Fraction(4, 3))
    (first, *_) = video.open_video(path)
    assert first.picture.size == (128, 64)


def test_a_damaged_frame_leaves_a_gap_and_shifts_nothing(tmp_path):
    path = small_videos.write(
        tmp_path / "a.avi", small_videos.grey_steps(12), codec="mjpeg", pixel_format="yuvj420p"
    )
    content = bytearray(path.read_bytes())
    place = 0
    for _ in range(5):
        place = content.find(b"\xff\xd8\xff", place + 1)
    end = content.find(b"\xff\xd8\xff", place + 1) - 8  # the next chunk's header stays
    content[place:end] = bytes(end - place)
    path.write_bytes(content)
    steps, opened = levels(path)
    assert sorted(steps) == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]
    np.testing.assert_allclose(
        [steps[number] for number in steps], [number - 1 for number in steps], atol=0.45
    )
    assert opened.frames == 12
    assert opened.damaged == 1


def test_a_video_that_was_cut_off(tmp_path):
    path = small_videos.write(
        tmp_path / "a.mkv", small_videos.grey_steps(30), codec="ffv1", pixel_format="bgr0"
    )
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    steps, _ = levels(path)
    assert 8 < len(steps) < 25
    assert list(steps) == list(range(1, len(steps) + 1))
    np.testing.assert_allclose(list(steps.values())[:-1], range(len(steps) - 1), atol=0.45)


def test_threads_of_ffmpeg_report_nothing_to_python(tmp_path):
    """They would wait for the interpreter, and a decoder that is closed early waits for them."""
    path = small_videos.write(tmp_path / "a.mp4", small_videos.grey_steps(3))
    av.logging.set_level(av.logging.ERROR)
    next(iter(video.open_video(path)))
    assert av.logging.get_level() is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{path}\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "ffconcat version 1.0\nfile {path.name}\n"),
        ("list.mp4", "ffconcat version 1.0\nfile list.mp4\n"),
    ],
)
def test_a_list_of_other_files_is_no_video(tmp_path, name, text):
    path = small_videos.write(tmp_path / "other.ts", small_videos.grey_steps(3))
    (tmp_path / name).write_text(text.format(path=path))
    with pytest.raises(video.VideoError, match="this is no video"):
        video.open_video(tmp_path / name)


class BreaksOff:
    """A container whose file cannot be read beyond some packets, as of a disk that fails."""

    def __init__(self, container, packets):
        self._container, self._packets = container, packets
        self.format = container.format

    def demux(self, stream):
        yield from itertools.islice(self._container.demux(stream), self._packets)
        raise av.error.OSError(5, "Input/output error")


def test_a_file_that_cannot_be_read_to_its_end(tmp_path, monkeypatch):
    path = small_videos.write(tmp_path / "a.mkv", small_videos.grey_steps(24))
    opened = video._opened

    @contextlib.contextmanager
    def broken(path):
        with opened(path) as (library, container, stream):
            yield library, BreaksOff(container, 13), stream

    monkeypatch.setattr(video, "_opened", broken)
    steps, opened = levels(path)
    assert opened.frames == 13
    assert len(steps) == 13  # those that the decoder held back too
    np.testing.assert_allclose(list(steps.values())[:8], range(8), atol=0.45)


def write_sound(path):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "no video, or its header is damaged"),
        (lambda path: path.write_text("words " * 200), "no video, or its header is damaged"),
        (write_sound, "no video stream, only audio"),
        (lambda path: None, "does not exist"),
    ],
)
def test_files_that_are_no_videos(tmp_path, make, message):
    path = tmp_path / "a.mp4"
    make(path)
    for look in (video.open_video, video.estimate_frames):
        with pytest.raises(video.VideoError, match=message) as caught:
            look(path)
        assert caught.value.path == str(path)
        assert caught.value.remedy


@pytest.mark.parametrize("name", ["notes.txt", "list.nfo", "a.idf"])
def test_text_is_not_drawn_as_pictures(tmp_path, name):
    path = tmp_path / name
    path.write_text("video_1.mp4 looks away from the camera\n" * 400)
    for look in (video.open_video, video.estimate_frames):
        with pytest.raises(video.VideoError, match="this is text, no video"):
            look(path)


def test_an_mp4_without_its_end(tmp_path):
    """The index of an MP4 file lies at its end: without it nothing can be read."""
    path = small_videos.write(tmp_path / "a.mp4", small_videos.grey_steps(30))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(video.VideoError, match="header is damaged"):
        video.open_video(path)


def test_without_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(video.MissingExtraError, match=r"mtl_face\[video\]"):
        video.open_video(tmp_path / "a.mp4")


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.mkv"])
def test_frames_that_are_stored_in_another_order(tmp_path, codec, name):
    """With B-frames, numbers and times are those of showing, even where a file has none."""
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"bf": "2"})
        stream.codec_context.max_b_frames = 2
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for level in range(20):
            pixels = np.full((64, 64, 3), 12 * level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    frames = list(video.open_video(path))
    assert [frame.number for frame in frames] == list(range(1, 21))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(20) / 25, atol=1e-3)
    levels = [np.asarray(frame.picture).mean() / 12 for frame in frames]
    np.testing.assert_allclose(levels, np.arange(20), atol=0.6)
