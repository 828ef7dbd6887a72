"""A length that a damaged header claims reserves no memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.dicom.within_file import MUCH_BYTES, WithinFile

CHILD = """
import resource, sys
from pathlib import Path
from physfed_ray.data.dicom.source import DicomSource
before = int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1])
resource.setrlimit(resource.RLIMIT_DATA, (before * 1024 + 2**30, -1))
source = DicomSource(Path(sys.argv[1]))
print(sum(len(source.load(patient, None).slices) for patient in source.ids()))
"""


def test_reads_as_the_file_does(tmp_path: Path) -> None:
    content = bytes(range(256)) * (MUCH_BYTES // 128)
    (tmp_path / "a").write_bytes(content)
    with (tmp_path / "a").open("rb") as file:
        within = WithinFile(file)
        assert within.read(3) == content[:3]
        within.seek(-2 * MUCH_BYTES, 2)
        assert within.read(MUCH_BYTES + 1) == content[-2 * MUCH_BYTES : -MUCH_BYTES + 1]
        assert within.read(2**40) == content[-MUCH_BYTES + 1 :]
        assert within.read(2**40) == within.read() == b""
        within.seek(len(content) + 5)
        assert within.read(2**40) == b""
        assert within.fileno() == file.fileno()


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_length_of_gigabytes_costs_its_file_and_no_memory(
    tmp_path: Path, write_ct, where: str
) -> None:
    write_ct(tmp_path / "whole", z_mm=5)
    path = write_ct(tmp_path / "lies", z_mm=10)
    # A private element of unknown kind, of 4 GB, before the patient's name or after the pixels.
    lie = (
        b"\x09\x00\x01\x10UN\0\0\xf0\xff\xff\xff"
        if where == "before"
        else (b"\xe1\x7f\x01\x10UN\0\0\xf0\xff\xff\xff")
    )
    content = path.read_bytes()
    at = content.index(b"\x10\x00\x10\x00PN") if where == "before" else len(content)
    path.write_bytes(content[:at] + lie + content[at:])
    printed = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    assert int(printed) == (1 if where == "before" else 2)
    assert DicomSource(tmp_path).summary()["files"] == 2
