"""Seeded damage: to bytes, and to the nested values that YAML and JSON hold."""

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

Bytes = bytes
Change = Callable[[random.Random, bytes], bytes]

ODD_NUMBERS = (
    0, -1, 1, 2, 7, 255, 65_536, 2**31, 2**63, -(2**63) - 1, 10**30, 10**5000,
    0.0, -0.0, 0.5, 1e-300, 1e30, 1e308, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
ODD_TEXTS = (
    "", " ", "\n", "\0", "x", "0", "-1", "1e3", "nan", "null", "true", "*", "**", "paper-*", "..",
    "../../..", "/", "/proc/self/mem", "~", "a/b", "é", "漢字", "\u202egnp", "\ufeff", "🩻",
    "a" * 400, "%s%n", "{x}", "{0.__class__}", "$(id)", "'", '"', "server", "c1", "[1, 2]",
    "\ud800", "1_000", "0x1F", "1:30", "2020-01-01", "!!python/object:os.system",
)  # fmt: skip


def odd_value(rng: random.Random) -> Any:
    """Return a value that nobody expects where it lands."""
    simple: list[Any] = [
        rng.choice(ODD_NUMBERS),
        rng.choice(ODD_TEXTS),
        rng.choice([True, False, None]),
        [],
        {},
    ]
    nested: list[Any] = [
        [rng.choice(ODD_NUMBERS) for _ in range(rng.choice([1, 3, 50]))],
        [rng.choice(ODD_TEXTS), [[]]],
        {rng.choice(ODD_TEXTS): rng.choice(ODD_NUMBERS)},
        {rng.choice([1, 1.5, None, True]): 1},
    ]
    return copy.deepcopy(rng.choice(simple if rng.random() < 0.75 else nested))


def _place(rng: random.Random, content: bytes) -> int:
    """Return an offset; half of them lie near the beginning or the end, where headers are."""
    if not content:
        return 0
    near = min(len(content), 600)
    where = rng.random()
    if where < 0.35:
        return rng.randrange(near)
    if where < 0.5:
        return len(content) - 1 - rng.randrange(near)
    return rng.randrange(len(content))


def _length(rng: random.Random, content: bytes) -> int:
    return min(len(content), rng.choice([1, 2, 4, 8, 16, 64, 512, 4096]))


def _flip_bit(rng: random.Random, content: bytes) -> bytes:
    if not content:
        return content
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 4, 32])):
        changed[_place(rng, content)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(rng: random.Random, content: bytes, new: bytes) -> bytes:
    at = _place(rng, content)
    return (content[:at] + new + content[at + len(new) :])[: max(len(content), 1)]


def _zero(rng: random.Random, content: bytes) -> bytes:
    return _overwrite(rng, content, bytes(_length(rng, content)))


def _ones(rng: random.Random, content: bytes) -> bytes:
    return _overwrite(rng, content, b"\xff" * _length(rng, content))


def _noise(rng: random.Random, content: bytes) -> bytes:
    return _overwrite(rng, content, rng.randbytes(_length(rng, content)))


def _truncate(rng: random.Random, content: bytes) -> bytes:
    return content[: _place(rng, content)]


def _behead(rng: random.Random, content: bytes) -> bytes:
    return content[_length(rng, content) :]


def _empty(rng: random.Random, content: bytes) -> bytes:
    return b""


def _all_zeros(rng: random.Random, content: bytes) -> bytes:
    return bytes(len(content))


def _delete(rng: random.Random, content: bytes) -> bytes:
    at = _place(rng, content)
    return content[:at] + content[at + _length(rng, content) :]


def _insert(rng: random.Random, content: bytes) -> bytes:
    at = _place(rng, content)
    return content[:at] + rng.randbytes(_length(rng, content)) + content[at:]


def _append(rng: random.Random, content: bytes) -> bytes:
    return content + rng.choice([bytes(3), b"\n", rng.randbytes(100), content])


def _repeat_block(rng: random.Random, content: bytes) -> bytes:
    at, length = _place(rng, content), _length(rng, content)
    return content[: at + length] + content[at:]


def _move_block(rng: random.Random, content: bytes) -> bytes:
    at, length = _place(rng, content), _length(rng, content)
    block, rest = content[at : at + length], content[:at] + content[at + length :]
    to = _place(rng, rest)
    return rest[:to] + block + rest[to:]


BYTES: tuple[Change, ...] = (
    _flip_bit, _flip_bit, _flip_bit, _zero, _zero, _ones, _noise, _noise, _truncate, _truncate,
    _behead, _empty, _all_zeros, _delete, _insert, _append, _repeat_block, _move_block,
)  # fmt: skip
"""Ways to damage bytes; those that happen to real files most stand there more than once."""


def damage(rng: random.Random, content: bytes, said: list[str]) -> bytes:
    """Return damaged bytes, and say how in ``said``."""
    change = rng.choice(BYTES)
    said.append(change.__name__.strip("_"))
    return change(rng, content)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container of a nested value with each of its keys or indices."""
    if isinstance(value, dict):
        for key in list(value):
            yield value, key
            yield from places(value[key])
    elif isinstance(value, list):
        for index in range(len(value)):
            yield value, index
            yield from places(value[index])


def bend(rng: random.Random, content: Any, said: list[str]) -> Any:
    """Return a nested value with one of its parts replaced, lost, renamed, wrapped or moved."""
    content = copy.deepcopy(content)
    found = list(places(content))
    if not found:
        return odd_value(rng)
    node, key = rng.choice(found)
    old = node[key]
    how = rng.choice(
        ["replace"] * 4
        + ["nudge"] * 6
        + ["delete", "rename", "add", "wrap", "swap", "text", "deep"]
    )
    said.append(f"{how} {key!r:.40}")
    if how == "replace":
        node[key] = odd_value(rng)
    elif how == "nudge":
        node[key] = _nudged(rng, old)
    elif how == "delete":
        del node[key]
    elif how == "rename" and isinstance(node, dict):
        node[rng.choice([f"{key}s", str(key)[:-1], str(key).upper(), 1, None, ""])] = node.pop(key)
    elif how == "add" and isinstance(old, dict):
        old[rng.choice(["extra", "name", "seed", "<<", 7])] = odd_value(rng)
    elif how == "add" and isinstance(old, list):
        old.append(odd_value(rng))
    elif how == "wrap":
        node[key] = rng.choice([[old], {"value": old}, {str(key): old}, [[old]]])
    elif how == "swap":
        other, at = rng.choice(found)
        if not _inside(old, other) and not _inside(other[at], node):
            node[key], other[at] = other[at], old
    elif how == "text":
        node[key] = str(old)
    elif how == "deep":
        node[key] = _nested(rng.choice([5, 50, 150]), old)
    return content


def _nudged(rng: random.Random, old: Any) -> Any:
    """Return a value of the same type, not far from the old one."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return old + rng.choice([-1, 1, 1, 2, 10, old, -old, 2 * old, 1000 * old])
    if isinstance(old, float):
        return old * rng.choice([-1, 0, 0.5, 0.99, 1.01, 2, 3, 1000, 1e12])
    if isinstance(old, str) and old:
        at = rng.randrange(len(old))
        return old[:at] + rng.choice(["", "x", "2", "-", ".", old[at] * 2]) + old[at + 1 :]
    if isinstance(old, list):
        return rng.choice([old[:-1], old[::-1], old + old[-1:], old * 2])
    return old


def _inside(outer: Any, inner: Any) -> bool:
    return outer is inner or any(node[key] is inner or node is inner for node, key in places(outer))


def _nested(depth: int, value: Any) -> Any:
    for _ in range(depth):
        value = [value]
    return value
