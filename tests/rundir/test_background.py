"""Writing files while the caller goes on."""

import threading
import time

import pytest

from physfed_ray.rundir.background import WRITERS, BackgroundWrites


def test_few_files_are_under_way_and_all_arrive() -> None:
    lock, now, most = threading.Lock(), [0], [0]
    written: dict[str, bytes] = {}

    def write(name: str, content: bytes) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.002)
        with lock:
            now[0] -= 1
            written[name] = content

    writes = BackgroundWrites(write)
    for number in range(5 * WRITERS):
        writes.submit(str(number), bytes([number]))
    writes.finish_all()
    writes.close()
    assert written == {str(n): bytes([n]) for n in range(5 * WRITERS)}
    assert 1 < most[0] <= WRITERS


def test_a_file_written_twice_keeps_the_later_content() -> None:
    written: dict[str, bytes] = {}

    def write(name: str, content: bytes) -> None:
        time.sleep(0.02 if content == b"first" else 0)
        written[name] = content

    writes = BackgroundWrites(write)
    writes.submit("a", b"first")
    writes.submit("a", b"second")
    writes.finish("a")
    assert written == {"a": b"second"}


def test_a_failure_is_raised_after_the_others_are_done() -> None:
    written: set[str] = set()

    def write(name: str, content: bytes) -> None:
        if not content:
            raise OSError("no room")
        time.sleep(0.02)
        written.add(name)

    writes = BackgroundWrites(write)
    for name, content in (("a", b""), ("b", b"1"), ("c", b"1")):
        writes.submit(name, content)
    with pytest.raises(OSError, match="no room"):
        writes.finish_all()
    assert written == {"b", "c"}
    writes.finish_all()  # it was raised once
