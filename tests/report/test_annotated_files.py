"""Annotated files: frame times and sound as in the source, and whole files or none."""

import itertools
import resource
import signal
from fractions import Fraction

import av
import face_rows
import numpy as np
import pytest
import small_videos
from PIL import ExifTags, Image

from mtl_face.errors import UserError, WorkdirError
from mtl_face.faces import video
from mtl_face.faces.video import MissingExtraError, VideoError, VideoFrame
from mtl_face.report import annotated_files
from mtl_face.report.annotate import layout
from mtl_face.report.annotated_files import (
    AnnotatedVideo,
    AnnotationOutputError,
    write_annotated_photo,
)

UNEVEN = [0, 40, 80, 200, 233, 1000, 1001, 1400]


def with_sound(path, *, codec="aac", times_ms=UNEVEN, sound_from_s=0.0, seconds=2.0):
    """A video with a tone that begins `sound_from_s` after the first frame."""
    rate = 48_000
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream(codec, rate=rate, layout="mono")
        sound.bit_rate = 64_000
        for pixels, time in zip(
            itertools.cycle(small_videos.grey_steps(8)), times_ms, strict=False
        ):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        wave = 8000 * np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * 440 / rate)
        frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = round(sound_from_s * rate)
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path


def annotate(source, target, **options):
    with AnnotatedVideo(target, source, **options) as out:
        for frame in video.open_video(source):
            out.write(frame, face_rows.faces(number=frame.number, seconds=frame.seconds))
    return out


def times(path):
    return [frame.seconds for frame in video.open_video(path)]


def packets_of(path, kind):
    with av.open(str(path)) as container:
        (stream,) = (stream for stream in container.streams if stream.type == kind)
        return [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux(stream)
            if packet.size
        ]


def sound_packets(path):
    """Time after the first picture, and bytes, of each packet of sound."""
    start = min(time for time, _ in packets_of(path, "video"))
    return [(float(time - start), data) for time, data in packets_of(path, "audio")]


@pytest.mark.parametrize("ending", annotated_files.VIDEO_ENDINGS)
@pytest.mark.parametrize("anonymise", [False, True])
def test_times_and_sound_are_those_of_the_source(tmp_path, ending, anonymise):
    source = with_sound(tmp_path / "a.mp4")
    out = annotate(source, tmp_path / f"b{ending}", anonymise=anonymise)
    np.testing.assert_allclose(times(tmp_path / f"b{ending}"), np.array(UNEVEN) / 1000, atol=1e-6)
    before, after = sound_packets(source), sound_packets(tmp_path / f"b{ending}")
    assert [packet for _, packet in after] == [packet for _, packet in before]
    np.testing.assert_allclose(
        [time for time, _ in after], [time for time, _ in before], atol=0.0011
    )
    assert out.notes == []
    with av.open(str(tmp_path / f"b{ending}")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert [stream.type for stream in container.streams] == ["video", "audio"]


@pytest.mark.parametrize("shift", [-0.3, 0.7])
def test_sound_stays_with_the_pictures(tmp_path, shift):
    """A source that begins with pictures alone, or with sound alone."""
    first = max(0, round(-1000 * shift))
    source = with_sound(
        tmp_path / "a.mkv",
        codec="pcm_s16le",
        times_ms=[first + time for time in UNEVEN],
        sound_from_s=max(0.0, shift),
    )
    annotate(source, tmp_path / "b.mkv")
    before, after = sound_packets(source), sound_packets(tmp_path / "b.mkv")
    assert before[0][0] == pytest.approx(shift, abs=1e-3)
    assert after[0][0] == pytest.approx(shift, abs=2e-3)
    assert [packet for _, packet in after] == [packet for _, packet in before]


def test_frames_that_were_not_decoded_shift_nothing(tmp_path):
    source = with_sound(tmp_path / "a.mkv", codec="pcm_s16le")
    frames = list(video.open_video(source))[3:]
    with AnnotatedVideo(tmp_path / "b.mkv", source) as out:
        for frame in frames:  # whose times count from the first that was decoded
            seconds = frame.seconds - frames[0].seconds
            out.write(VideoFrame(frame.number, seconds, frame.picture), face_rows.faces())
    after = sound_packets(tmp_path / "b.mkv")
    assert after[0][0] == pytest.approx(-0.2, abs=0.03)
    assert [data for _, data in after] == [data for _, data in sound_packets(source)]


@pytest.mark.parametrize(
    ("codec", "source", "target"),
    [
        ("adpcm_ima_wav", "a.avi", "b.mp4"),
        ("wmav2", "a.avi", "b.mp4"),  # whose packets have coarse times
        ("libopus", "a.mkv", "b.mov"),  # a codec of MP4 that MOV refuses
    ],
)
def test_sound_that_the_file_cannot_hold_is_encoded(tmp_path, codec, source, target):
    with_sound(tmp_path / source, codec=codec, times_ms=range(0, 2000, 40))
    out = annotate(tmp_path / source, tmp_path / target)
    assert out.notes == [f"sound encoded as AAC, was {codec.removeprefix('lib')}"]
    with av.open(str(tmp_path / target)) as container:
        frames = list(container.decode(audio=0))
        samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    assert len(samples) / 48_000 == pytest.approx(2.0, abs=0.15)
    spectrum = np.abs(np.fft.rfft(samples[4800:52800]))
    assert spectrum.argmax() == 440
    assert len(times(tmp_path / target)) == 50


def test_sound_that_breaks_leaves_the_pictures(tmp_path, monkeypatch):
    source = with_sound(tmp_path / "a.mp4")
    write, count = annotated_files._Sound._write, iter(range(1000))

    def breaks(sound, packet):
        if next(count) == 30:
            raise av.error.ArgumentError(22, "Invalid argument")
        write(sound, packet)

    monkeypatch.setattr(annotated_files._Sound, "_write", breaks)
    out = annotate(source, tmp_path / "b.mp4")
    (note,) = out.notes
    assert note.startswith("sound ends after 0.6 s")
    np.testing.assert_allclose(times(tmp_path / "b.mp4"), np.array(UNEVEN) / 1000, atol=1e-6)
    assert len(sound_packets(tmp_path / "b.mp4")) == 30


def test_without_an_encoder_of_h264(tmp_path, monkeypatch):
    monkeypatch.setattr(annotated_files, "_ENCODERS", ("mpeg4",))
    source = with_sound(tmp_path / "a.mp4")
    annotate(source, tmp_path / "b.mp4")
    np.testing.assert_allclose(times(tmp_path / "b.mp4"), np.array(UNEVEN) / 1000, atol=2e-5)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"


def test_colours_survive(tmp_path):
    """Fields of strong colours, away from the face, come back as they were."""
    colours = [(200, 30, 30), (30, 160, 40), (40, 60, 200), (240, 240, 240), (16, 16, 16)]
    pixels = np.zeros((480, 640, 3), np.uint8)
    for place, colour in enumerate(colours):
        pixels[240:, 128 * place : 128 * place + 128] = colour
    with AnnotatedVideo(tmp_path / "b.mp4", None) as out:
        for number in range(3):
            frame = VideoFrame(number + 1, number / 25, Image.fromarray(pixels))
            out.write(frame, face_rows.faces(seconds=number / 25))
    (*_, last) = video.open_video(tmp_path / "b.mp4")
    for place, colour in enumerate(colours):
        part = np.asarray(last.picture)[300:460, 128 * place + 20 : 128 * place + 108]
        np.testing.assert_allclose(part.reshape(-1, 3).mean(axis=0), colour, atol=4)


def test_a_camera_has_no_source(tmp_path):
    seconds = [0.0, 0.1, 0.15, None, 0.4]
    with AnnotatedVideo(tmp_path / "b.mp4", None) as out:
        for number, time in enumerate(seconds, start=1):
            frame = VideoFrame(number, time, Image.new("RGB", (96, 64)))
            out.write(frame, face_rows.faces())
    found = times(tmp_path / "b.mp4")
    assert found == sorted(found)
    np.testing.assert_allclose(np.array(found)[[0, 1, 2, 4]], [0, 0.1, 0.15, 0.4], atol=2e-5)


def test_pictures_of_another_size_are_fitted_in(tmp_path):
    with AnnotatedVideo(tmp_path / "b.mp4", None) as out:
        for number, size in enumerate([(640, 480), (480, 640), (1280, 960)], start=1):
            frame = VideoFrame(number, number / 25, Image.new("RGB", size, "white"))
            out.write(frame, face_rows.faces(seconds=number / 25))
    frames = [frame.picture.size for frame in video.open_video(tmp_path / "b.mp4")]
    assert frames == [layout(640, 480).canvas] * 3


class StopError(Exception):
    pass


def write_frames(path, source, pictures, error=None):
    with AnnotatedVideo(path, source) as out:
        for number, picture in enumerate(pictures):
            seconds = number / 25
            out.write(VideoFrame(number + 1, seconds, picture), face_rows.faces(seconds=seconds))
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [StopError, KeyboardInterrupt])
def test_no_file_where_the_block_fails(tmp_path, error):
    with pytest.raises(error):
        write_frames(tmp_path / "b.mp4", None, [Image.new("RGB", (96, 64))], error)
    assert list(tmp_path.iterdir()) == []


def test_no_file_without_frames(tmp_path):
    with pytest.raises(VideoError, match="no frame"), AnnotatedVideo(tmp_path / "b.mp4", None):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.avi", "a.webm", "a", "a.gif"])
def test_kinds_of_files_that_are_not_written(tmp_path, name):
    for make in (
        lambda: AnnotatedVideo(tmp_path / name, None),
        lambda: write_annotated_photo(tmp_path / name, Image.new("RGB", (9, 9)), None),
    ):
        with pytest.raises(AnnotationOutputError, match="end its name in"):
            make()


def test_the_source_is_not_overwritten(tmp_path):
    source = with_sound(tmp_path / "a.mp4")
    (tmp_path / "link.mp4").symlink_to(source)
    content = source.read_bytes()
    for target in (source, tmp_path / "link.mp4", tmp_path / "." / "a.mp4"):
        with pytest.raises(UserError, match="video to annotate"):
            AnnotatedVideo(target, source)
    assert source.read_bytes() == content


@pytest.mark.parametrize("audio", [False, True])
def test_a_full_disk_is_an_error_in_a_sentence(tmp_path, audio):
    """A limit on the size of files stands for the disk."""
    source = with_sound(tmp_path / "a.mp4", seconds=20.0) if audio else None
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    pictures = [Image.fromarray(np.roll(noise, number, axis=0)) for number in range(40)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        with pytest.raises(WorkdirError, match="cannot be written"):
            write_frames(tmp_path / "b.mp4", source, pictures)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {path.name for path in tmp_path.iterdir()} <= {"a.mp4"}


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with (
        pytest.raises(MissingExtraError, match="writing videos needs PyAV"),
        AnnotatedVideo(tmp_path / "b.mp4", None) as out,
    ):
        out.write(VideoFrame(1, 0.0, Image.new("RGB", (96, 64))), face_rows.faces())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.png", "a.webp"])
def test_photos(tmp_path, name):
    picture = Image.new("RGB", (640, 480), (90, 120, 150))
    exif = picture.getexif()
    exif[ExifTags.Base.ImageDescription] = "at home"
    write_annotated_photo(tmp_path / name, picture, face_rows.faces(), anonymise=True)
    with Image.open(tmp_path / name) as written:
        assert written.size == layout(640, 480).canvas
        assert not written.getexif()
        assert written.convert("RGB").getpixel((600, 400)) == pytest.approx((90, 120, 150), abs=4)
