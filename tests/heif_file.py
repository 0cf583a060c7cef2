"""A HEIF file around one HEVC picture, which PyAV encodes: a camera's photograph in small."""

import re
import struct
from fractions import Fraction

import av

_SETS = (32, 33, 34)
_SEQUENCE = 33


def _box(kind, *parts):
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def _full(kind, version, *parts):
    return _box(kind, bytes([version, 0, 0, 0]), *parts)


def _units(pixels):
    """The picture as units of HEVC (ITU-T H.265, 7.3.1): parameter sets and slices."""
    encoder = av.CodecContext.create("libx265", "w")
    encoder.height, encoder.width = pixels.shape[:2]
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 25)
    encoder.options = {"x265-params": "log-level=none:info=0:qp=4:repeat-headers=1"}
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    stream = b"".join(bytes(packet) for each in (frame, None) for packet in encoder.encode(each))
    return [unit for unit in re.split(rb"\x00{2,3}\x01", stream) if unit]


def _configuration(sets):
    """What a decoder is set up with (ISO/IEC 14496-15, 8.3.3.1), from the parameter sets."""
    sequence = sets[_SEQUENCE][2:].replace(b"\0\0\3", b"\0\0")
    profile = sequence[1:13]
    common = struct.pack(">HBBBBHB", 0xF000, 0xFC, 0xFD, 0xF8, 0xF8, 0, 0x0F)  # 4:2:0, 8 bits
    arrays = [bytes([kind]) + struct.pack(">HH", 1, len(u)) + u for kind, u in sets.items()]
    return b"\1" + profile + common + bytes([len(arrays)]) + b"".join(arrays)


def encode(pixels, *, quarters=0):
    """RGB uint8 [H, W, 3], even sides of 64 or more; shown turned left by `quarters`."""
    units = _units(pixels)
    sets = {unit[0] >> 1: unit for unit in units if unit[0] >> 1 in _SETS}
    slices = [unit for unit in units if unit[0] >> 1 < min(_SETS)]
    data = b"".join(struct.pack(">I", len(unit)) + unit for unit in slices)
    properties = (
        _box(b"hvcC", _configuration(sets)),
        _full(b"ispe", 0, struct.pack(">II", pixels.shape[1], pixels.shape[0])),
        _box(b"irot", bytes([quarters])),
    )

    def meta(offset):
        place = struct.pack(">HHHHHII", 0x4400, 1, 1, 0, 1, offset, len(data))
        entry = _full(b"infe", 2, struct.pack(">HH", 1, 0), b"hvc1\0")
        have = struct.pack(">IHBBBB", 1, 1, 3, 0x81, 2, 0x83)  # those with 0x80 must be understood
        return _full(
            b"meta",
            0,
            _full(b"hdlr", 0, bytes(4), b"pict", bytes(13)),
            _full(b"pitm", 0, struct.pack(">H", 1)),
            _full(b"iloc", 0, place),
            _full(b"iinf", 0, struct.pack(">H", 1), entry),
            _box(b"iprp", _box(b"ipco", *properties), _full(b"ipma", 0, have)),
        )

    start = _box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    return start + meta(len(start) + len(meta(0)) + 8) + _box(b"mdat", data)
