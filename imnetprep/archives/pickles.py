"""CIFAR-10's published pickles, read without executing them.

A pickle is a program. This reads only what the published files are made of (dicts, lists, tuples,
strings, numbers and one numpy array of bytes), calls nothing, and refuses all else.
"""

import pickletools
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

from imnetprep.messages import WrongBytes

SIDE_PX = 32
_IMAGE_BYTES = 3 * SIDE_PX * SIDE_PX
_GLOBALS = {
    "numpy.core.multiarray _reconstruct",
    "numpy._core.multiarray _reconstruct",
    "numpy ndarray",
    "numpy dtype",
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    "INT", "LONG", "LONG1", "BININT", "BININT1", "BININT2", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES",
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_EMPTY: dict[str, Any] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_NO_OPS = {"PROTO", "FRAME"}
_MARK = object()

T = TypeVar("T")


class Global(NamedTuple):
    """The name of something that is not imported."""

    name: str


class CallResult:
    """The object that a call of `function` would make; BUILD sets its `state`."""

    def __init__(self, function: Global, arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments
        self.state: tuple[Any, ...] = ()


def cifar_images(body: bytes | memoryview, *, name: str) -> Iterator[tuple[int, bytes]]:
    """The images of a batch in order: the label of each and its planes, red, green and blue.

    Raises WrongBytes on a pickle of anything else.
    """
    try:
        table = {_text(key): value for key, value in _load(bytes(body)).items()}
        labels, planes = table["labels"], _array(table["data"])
        if len(planes) != len(labels) * _IMAGE_BYTES or not all(0 <= each < 10 for each in labels):
            raise ValueError("its labels and its images do not fit")
    except Exception as error:  # pickletools meets foreign bytes with many exceptions
        raise WrongBytes(
            f"{name} is not a batch of CIFAR-10: {error}",
            hint="this is not the published archive; fetch it again from its source",
        ) from error
    for at, label in enumerate(labels):
        yield label, planes[at * _IMAGE_BYTES : (at + 1) * _IMAGE_BYTES]


def _array(call: CallResult) -> bytes:
    """The bytes of an n x 3072 array of bytes, row after row."""
    if call.function.name.split(" ")[1] != "_reconstruct":
        raise ValueError("its data is no array")
    _, shape, dtype, by_columns, raw = call.state
    if isinstance(raw, str):  # Python 2 had no bytes
        raw = raw.encode("latin-1")
    rows, columns = shape
    if columns != _IMAGE_BYTES or len(raw) != rows * columns or dtype.arguments[0] != "u1":
        raise ValueError(f"its data is an array of {shape}")
    if by_columns:
        return b"".join(raw[row::rows] for row in range(rows))
    return bytes(raw)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _load(body: bytes) -> dict[Any, Any]:
    """The value that the pickle describes. Raises ValueError on what it may not contain."""
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(body):
        if opcode.name == "STOP":
            return _of(dict, machine.stack.pop())
        machine.step(opcode.name, argument)
    raise ValueError("it does not end")


class _Machine:
    """The stack and the memo of a pickle (the instructions are those of `pickletools`)."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name not in _NO_OPS:
            self._gather(name, argument)

    def _gather(self, name: str, argument: Any) -> None:
        """Run an instruction that puts values of the stack together."""
        stack = self.stack
        match name:
            case "TUPLE":
                stack.append(tuple(self._from_mark()))
            case "APPEND" | "APPENDS":
                items = [stack.pop()] if name == "APPEND" else self._from_mark()
                _of(list, stack[-1]).extend(items)
            case "SETITEM" | "SETITEMS":
                items = [stack.pop(), stack.pop()][::-1] if name == "SETITEM" else self._from_mark()
                _of(dict, stack[-1]).update(zip(items[::2], items[1::2], strict=True))
            case "GLOBAL":
                stack.append(_global(argument))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_global(f"{module} {name}"))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(CallResult(_of(Global, function), _of(tuple, arguments)))
            case "BUILD":
                state = stack.pop()
                _of(CallResult, stack[-1]).state = _of(tuple, state)
            case _:
                raise ValueError(f"it has the instruction {name}")

    def _from_mark(self) -> list[Any]:
        at = next(at for at in range(len(self.stack) - 1, -1, -1) if self.stack[at] is _MARK)
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items


def _of(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise ValueError(f"it has a {type(value).__name__} where a {kind.__name__} must be")
    return value


def _global(name: str) -> Global:
    if name not in _GLOBALS:
        raise ValueError(f"it names {name.replace(' ', '.')}")
    return Global(name)
