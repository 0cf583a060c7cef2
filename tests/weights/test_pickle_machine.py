"""Pickles are read by their opcodes: whatever the class, nothing runs, and time and memory end."""

import argparse
import collections
import datetime
import enum
import functools
import io
import pathlib
import pickle
import pickletools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_face.weights import pickle_machine
from mtl_face.weights.pickle_machine import MalformedError, Record, RefusedNameError

KNOWN = {"collections.OrderedDict": lambda pairs=(): dict(pairs)} | {
    f"{module}.{name}": lambda items=(): list(items)
    for module in ("builtins", "__builtin__")
    for name in ("set", "frozenset")
}


def load(data):
    return pickle_machine.load(io.BytesIO(data), KNOWN)


def plain(value):
    """Sets as sorted lists, as the machine gives them but for the order."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    return type(value)(map(plain, value)) if isinstance(value, list | tuple) else value


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=4)
        | st.sets(st.integers(0, 99), max_size=1)
    ),
    max_leaves=20,
)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(values, st.integers(0, 5))
def test_same_as_pickle_itself(value, protocol):
    assert load(pickle.dumps(value, protocol)).value == plain(value)


class Meter:
    def __init__(self):
        self.average = 3.5
        self.myself = self


class Point(collections.namedtuple("Point", "x y")):
    pass


class Slots:
    __slots__ = ("a",)


class Colour(enum.Enum):
    RED = 1


class Words(list):
    pass


class Named(dict):
    pass


def objects():
    slots = Slots()
    slots.a = 1
    return {
        "argparse.Namespace": argparse.Namespace(lr=0.1, momentum=0.9),
        "Meter": Meter(),
        "Point": Point(1, 2),
        "Slots": slots,
        "Colour": Colour.RED,
        "Words": Words(["a", "b"]),
        "Named": Named(a=1),
        "datetime.date": datetime.date(2026, 11, 28),
        "defaultdict": collections.defaultdict(int, {"a": 2}),
        "deque": collections.deque([1, 2], 3),
        "partial": functools.partial(int, base=2),
        "Path": pathlib.PurePosixPath("/a/b"),
        "Random": random.Random(3),
        "ValueError": ValueError("x"),
        "complex": 1 + 2j,
    }


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("name", objects())
def test_unknown_classes_are_inert_and_listed(name, protocol):
    found = load(pickle.dumps({"before": 1, "object": objects()[name], "after": [2]}, protocol))
    assert isinstance(found.value["object"], Record)
    assert (found.value["before"], found.value["after"]) == (1, [2])
    assert any(name in one or "PurePosixPath" in one for one in found.passed_over)


def test_what_a_record_keeps():
    (found,) = load(pickle.dumps([argparse.Namespace(lr=0.1)], 2)).value
    assert found.parts == [(), {"lr": 0.1}]
    (found,) = load(pickle.dumps([Words(["a", "b"])], 2)).value
    assert found.parts == [(), "a", "b"]


@pytest.mark.parametrize("name", ["os.system", "posix.system", "subprocess.run", "builtins.eval"])
def test_what_would_do_harm_is_refused_before_it_is_called(name):
    module, _, function = name.partition(".")
    with pytest.raises(RefusedNameError, match=name):
        load(f"c{module}\n{function}\n.".encode())
    with pytest.raises(RefusedNameError, match=name):
        load(
            b"\x80\x04"
            + b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, function))
            + b"\x93."
        )


def nested_tuples(depth):
    """A tuple whose hash takes 2**depth steps: each holds the one before twice."""
    return b")q\x00" + b"0h\x00h\x00\x86q\x00" * depth


HOSTILE = {
    "hash of nested tuples": b"\x80\x02}" + nested_tuples(60) + b"K\x01s.",
    "set of nested tuples": b"\x80\x04\x8f(" + nested_tuples(60) + b"\x90.",
    "call of nested tuples": b"\x80\x02" + nested_tuples(60) + b")R.",
    "items of nested tuples": b"\x80\x02" + nested_tuples(60) + b"K\x01K\x02s.",
    "reference of nested tuples": b"\x80\x02" + nested_tuples(60) + b"Q.",
    "a far place in memory": b"\x80\x02}r\xff\xff\xff\x7f.",
    "a long number": b"\x80\x02\x8b" + (10**6).to_bytes(4, "little") + b"\x7f" * 10**6 + b".",
    "text of many gigabytes": b"\x80\x04\x8d" + (2**40).to_bytes(8, "little") + b"x.",
    "a register of extensions": b"\x80\x02\x82\x01.",
    "a name without end": b"cmodule\n" + b"x" * 10**5 + b"\n.",
    "many names": b"".join(b"cm\nn%d\n0" % number for number in range(2000)) + b"N.",
    "no stop": b"\x80\x02}",
    "an empty stack": b"\x80\x02.",
    "no mark": b"\x80\x02t.",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile(kind):
    """Read or refused, at once: none of them has a value that is shown, hashed or made room for."""
    if kind in ("hash of nested tuples", "set of nested tuples", "a far place in memory"):
        assert load(HOSTILE[kind]).value in ({}, {"<a tuple 0>": 1}) or "set" in kind
    else:
        with pytest.raises(MalformedError) as raised:
            load(HOSTILE[kind])
        assert len(str(raised.value)) < 200


def test_values_without_end(monkeypatch):
    monkeypatch.setattr(pickle_machine, "MOST_VALUES", 1000)
    assert load(pickle.dumps([0] * 900)).value == [0] * 900
    with pytest.raises(MalformedError, match="more than 1,000 values"):
        load(pickle.dumps([0] * 1100))
    # Copies count too: each call makes a dict of a hundred pairs.
    pairs = pickle.dumps([[number, 0] for number in range(50)], 2)[2:-1]
    copies = b"ccollections\nOrderedDict\nh\xff\x85R0" * 50
    with pytest.raises(MalformedError, match="more than 1,000 values"):
        load(b"\x80\x02" + pairs + b"q\xff0" + copies + b"N.")


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    st.sampled_from([pickle.dumps(list(objects().values()), protocol) for protocol in (2, 5)]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damage_is_never_a_crash(data, changes):
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        load(bytes(damaged))
    except (MalformedError, RefusedNameError):
        return


def test_the_file_is_left_behind_the_pickle():
    file = io.BytesIO(pickle.dumps([1], 2) + pickle.dumps({"a": 2}, 4) + b"rest")
    assert pickle_machine.load(file, {}).value == [1]
    assert pickle_machine.load(file, {}).value == {"a": 2}
    assert file.read() == b"rest"


def test_the_opcodes_are_known():
    """Every opcode of every protocol, but for those that point out of the file."""
    names = {opcode.name for opcode in pickletools.opcodes}
    outside = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}
    for name in names - outside:
        machine = pickle_machine._Machine({}, lambda reference: reference, 100)
        machine._memory = {0: 1}
        machine.stack = [{}, [], "m", "n", ["k", "v"], {}, "k", "v"]
        machine._marks = [6]
        argument = {"INT": 3, "GLOBAL": "m n", "INST": "m n"}.get(name, 0)
        problem = ""
        try:
            machine.step(name, argument)
        except (MalformedError, TypeError) as error:  # of a stack that does not fit
            problem = str(error)
        assert "uses the opcode" not in problem, name
    for name in outside:
        with pytest.raises(MalformedError, match="uses the opcode"):
            pickle_machine._Machine({}, None, 100).step(name, 0)
