"""Noise on valence and arousal that grows with the yaw, behind a setting."""

import json

import numpy as np
import pytest

from data_pipeline.rendered_faces import annotate, generate, layout
from data_pipeline.rendered_faces.plan import make_plan
from mtl_face.errors import ConfigError, WorkdirError

ARGUMENTS = {"num_videos": 60, "frames_per_video": 40, "seed": 3}


@pytest.fixture(scope="module")
def plans():
    return make_plan(**ARGUMENTS), make_plan(**ARGUMENTS, va_noise="yaw")


def test_only_valence_and_arousal_differ(plans):
    for plain, turned in zip(*plans, strict=True):
        assert (plain.name, plain.split, plain.scene) == (turned.name, turned.split, turned.scene)
        np.testing.assert_array_equal(plain.motion.poses["yaw"], turned.motion.poses["yaw"])
        for name in ("au_FU", "expr_F", "has_FK"):
            np.testing.assert_array_equal(
                getattr(plain.annotations, name), getattr(turned.annotations, name)
            )
        np.testing.assert_array_equal(plain.truth.va_F2, turned.truth.va_F2)
        assert (plain.va_std_F == annotate.VA_NOISE_STD).all()


def test_noise_has_the_stated_size(plans):
    rows = [
        (
            np.abs(video.motion.poses["yaw"]),
            video.annotations.va_F2 - video.truth.va_F2,
            video.va_std_F,
        )
        for video in plans[1]
    ]
    yaw_N, noise_N2, std_N = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    ahead, turned = annotate.VA_NOISE_YAW_STD
    np.testing.assert_allclose(
        std_N, np.interp(yaw_N, [0, annotate.VA_NOISE_YAW_DEG], [ahead, turned]), rtol=1e-9
    )
    inside_N2 = np.abs(np.concatenate([v.truth.va_F2 for v in plans[1]])) < 0.4  # clips little
    for low, high in ((0, 3), (6, 9), (15, 90)):
        chosen = (yaw_N >= low) & (yaw_N < high)
        scaled = (noise_N2 / std_N[:, None])[chosen][inside_N2[chosen]]
        assert len(scaled) > 80
        assert np.std(scaled) == pytest.approx(1, abs=0.2)


def test_files_and_description(tmp_path, monkeypatch):
    """The default writes what it always wrote; the other says what it is, and is not mixed up."""
    monkeypatch.setattr(generate, "_render_all", lambda *arguments: None)
    small = {"num_videos": 4, "frames_per_video": 3, "seed": 1}
    generate.ensure(tmp_path / "plain", **small)
    generate.ensure(tmp_path / "yaw", **small, va_noise="yaw")
    plain, yaw = (json.loads((tmp_path / n / "dataset.json").read_text()) for n in ("plain", "yaw"))
    assert plain["arguments"] == small
    assert plain["noise"]["va_std"] == 0.15
    assert yaw["arguments"] == small | {"va_noise": "yaw"}
    assert yaw["noise"]["va_std_ahead_and_turned"] == [0.05, 0.3]
    for split, name in layout.NOISE_FILES.items():
        assert not (tmp_path / "plain" / name).exists()
        header, *lines = (tmp_path / "yaw" / name).read_text().splitlines()
        labels = (tmp_path / "yaw" / layout.ANNOTATION_FILES[split]).read_text().splitlines()[1:]
        assert header == "image,va_std"
        assert [line.split(",")[0] for line in lines] == [line.split(",")[0] for line in labels]
    for name, asked in (("plain", "yaw"), ("yaw", "constant")):
        generate.ensure(tmp_path / name, **small, va_noise="yaw" if name == "yaw" else "constant")
        with pytest.raises(WorkdirError, match="va_noise is"):
            generate.ensure(tmp_path / name, **small, va_noise=asked)
    with pytest.raises(ConfigError, match="va_noise"):
        generate.generate(tmp_path / "other", **small, va_noise="pitch")
