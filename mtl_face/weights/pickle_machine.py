"""The pickle machine: interprets a pickle's opcodes and runs nothing of what they name.

A pickle is a program: it names classes and functions, calls them, and sets attributes on what they
return. Here a name is a text. A call of a known one gives what its builder makes of the arguments;
a call of any other gives a `Record`, which keeps what the pickle gave it and does nothing.

Time and memory follow the size of the pickle: a hash is taken of plain keys alone, no value is
compared, copied or shown, and no number of the pickle is the size of anything.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

MOST_VALUES = 2_000_000
"""Opcodes of a pickle, and values that are looked at for tensors; a ResNet50 has some thousands."""

MOST_ARGUMENTS = 16

_MOST_NAMES = 1000
_LONGEST_NAME = 200
_MOST_BITS = 512

_HARMFUL_MODULES = {"os", "posix", "nt", "subprocess", "runpy"}
_HARMFUL = {"io.open", "_io.open"} | {
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")
    for name in ("eval", "exec", "execfile", "compile", "open", "__import__")
}
"""What no weights need, and attacks do: a file that names it is refused, though nothing runs."""

Builders = Mapping[str, Callable[..., Any] | None]
"""What a call of a known name gives; None: a record, although the name is known."""


class RefusedNameError(Exception):
    """A pickle names what would do harm where it were run."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)


class MalformedError(Exception):
    """A pickle is damaged, describes an array that cannot be, or is beyond the limits."""


class Global(NamedTuple):
    """A class or a function that a pickle names."""

    name: str


class Record:
    """Stands for an object of a class: its name, and what the pickle gave it, in that order."""

    def __init__(self, name: str, *parts: Any) -> None:
        self.name = name
        self.parts = list(parts)

    def build(self, state: Any) -> None:
        """Takes the state of the object."""
        self.parts.append(state)


class Pickle(NamedTuple):
    """A pickle that was read.

    Attributes:
        value: numbers, text, lists (sets too), tuples, dicts, `Global`, `Record`, and what builders
            made.
        passed_over: names of the classes and functions that are not known, each once.
    """

    value: Any
    passed_over: list[str]


def load(
    file: BinaryIO, builders: Builders, persistent: Callable[[Any], Any] | None = None
) -> Pickle:
    """Reads one pickle from where the file stands, and leaves the file behind its end.

    `persistent` resolves a reference to something outside of the pickle.

    Raises:
        RefusedNameError: it names what would do harm.
        MalformedError: it is damaged, or beyond the limits.
    """
    begin = file.tell()
    size = file.seek(0, 2) - begin
    file.seek(begin)
    machine = _Machine(builders, persistent, size)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            machine.step(opcode.name, argument)
        return Pickle(machine.stack.pop(), list(machine.passed_over))
    except (RefusedNameError, MalformedError):
        raise
    except Exception as error:  # a damaged pickle fails in whatever its bytes happen to mean
        raise MalformedError(str(error) or type(error).__name__) from error


def words(value: Any) -> str:
    """The kind of a value, which alone is shown of it."""
    return value.name if isinstance(value, Global | Record) else f"a {type(value).__name__}"


def as_dict(pairs: Any) -> dict[Any, Any]:
    """A dict of pairs; a key that would take time to hash is named by its place."""

    def plain(key: Any, place: int) -> Any:
        short = isinstance(key, str | bytes | int | float) or key is None
        return key if short else f"<{words(key)} {place}>"

    return {plain(key, place): value for place, (key, value) in enumerate(pairs)}


_PLAIN = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list}
_PUT, _GET = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}


class _Machine:
    """A stack with marks, and a memory."""

    def __init__(
        self, builders: Builders, persistent: Callable[[Any], Any] | None, size: int
    ) -> None:
        self.stack: list[Any] = []
        self.passed_over: dict[str, None] = {}
        self._marks: list[int] = []
        self._memory: dict[int, Any] = {}
        self._builders = builders
        self._persistent = persistent
        self._values = MOST_VALUES
        self._bytes = 4 * size

    def step(self, name: str, argument: Any) -> None:
        """Takes one opcode."""
        self._spend(1)
        push, pop = self.stack.append, self.stack.pop
        if name in _PLAIN:
            if isinstance(argument, int) and argument.bit_length() > _MOST_BITS:
                raise MalformedError(f"a number of {argument.bit_length():,} bits")
            push(argument)
        elif name in _PUT:
            self._memory[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self._memory[len(self._memory)] = self.stack[-1]
        elif name in _GET:
            push(self._memory[argument])
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in _EMPTY:
            push(_EMPTY[name]())
        elif name == "MARK":
            self._marks.append(len(self.stack))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            push(tuple([pop() for _ in range(int(name[-1]))][::-1]))
        elif name == "TUPLE":
            push(tuple(self._marked()))
        elif name in ("LIST", "FROZENSET"):
            push(self._marked())
        elif name == "DICT":
            push(_filled({}, self._marked()))
        elif name in ("SETITEM", "SETITEMS"):
            items = [pop(), pop()][::-1] if name == "SETITEM" else self._marked()
            _filled(self.stack[-1], items)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [pop()] if name == "APPEND" else self._marked()
            target = self.stack[-1]
            if not isinstance(target, list | Record):
                raise MalformedError(f"it appends to {words(target)}")
            (target.parts if isinstance(target, Record) else target).extend(items)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            push(self._named(*(argument.split(" ", 1) if argument else (pop(), pop())[::-1])))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = pop()
            push(self._call(pop(), arguments))
        elif name == "NEWOBJ_EX":
            keywords, arguments = pop(), pop()
            push(Record(words(pop()), arguments, keywords))
        elif name in ("OBJ", "INST"):
            items = self._marked()
            kind = self._named(*argument.split(" ", 1)) if name == "INST" else items.pop(0)
            push(self._call(kind, tuple(items)))
        elif name == "BUILD":
            state, target = pop(), self.stack[-1]
            if isinstance(target, Record):
                target.build(state)
            elif not isinstance(target, dict):  # on which PyTorch hangs the versions of modules
                raise MalformedError(f"it changes {words(target)}")
        elif name in ("PERSID", "BINPERSID"):
            if self._persistent is None:
                raise MalformedError("it refers to something outside of it")
            push(self._persistent(argument if name == "PERSID" else pop()))
        elif name == "POP_MARK" or (name == "POP" and self._marks[-1:] == [len(self.stack)]):
            self._marked()
        elif name == "POP":
            pop()
        elif name == "DUP":
            push(self.stack[-1])
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise MalformedError(f"it uses the opcode {name}")

    def _spend(self, values: int) -> None:
        self._values -= values
        if self._values < 0:
            raise MalformedError(f"it has more than {MOST_VALUES:,} values")

    def _marked(self) -> list[Any]:
        """Takes all above the last mark."""
        begin = self._marks.pop()
        items = self.stack[begin:]
        del self.stack[begin:]
        return items

    def _named(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise MalformedError("a name that is no text")
        found = Global(f"{module}.{name}")
        if found.name in _HARMFUL or module.partition(".")[0] in _HARMFUL_MODULES:
            raise RefusedNameError(found.name[:_LONGEST_NAME])
        if found.name not in self._builders:
            self._pass_over(found.name)
        return found

    def _pass_over(self, name: str) -> None:
        self.passed_over[name] = None
        if len(name) > _LONGEST_NAME or len(self.passed_over) > _MOST_NAMES:
            raise MalformedError("it names more or longer classes than any checkpoint has")

    def _call(self, what: Any, arguments: Any) -> Any:
        """What a class or a function gives."""
        if not isinstance(what, Global | Record):
            raise MalformedError(f"it calls {words(what)}")
        builder = self._builders.get(what.name) if isinstance(what, Global) else None
        if builder is None:
            return Record(what.name, arguments)
        if not isinstance(arguments, tuple) or len(arguments) > MOST_ARGUMENTS:
            raise MalformedError(f"unknown description of {what.name}")
        value = builder(*arguments)
        if isinstance(value, dict):  # a copy, as bytes are
            self._spend(len(value))
        elif isinstance(value, bytes):
            self._bytes -= len(value)
            if self._bytes < 0:
                raise MalformedError("it makes more bytes than it has")
        elif isinstance(value, Record) and value.name not in self._builders:
            self._pass_over(value.name)
        return value


def _filled(target: Any, items: list[Any]) -> Any:
    """A dict or a record, with keys and values, one after the other, put into it."""
    pairs = as_dict(zip(items[::2], items[1::2], strict=True))
    if isinstance(target, dict):
        target |= pairs
    elif isinstance(target, Record):
        target.parts.append(pairs)
    else:
        raise MalformedError(f"it sets items of {words(target)}")
    return target
