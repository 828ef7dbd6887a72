"""Client data survive the disk, and come back as views of it."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from physfed_ray.data.store import ClientData, read_client_data, write_client_data
from physfed_ray.errors import PhysFedError


def make_data(slices: int = 3, size: int = 8, tokens: int = 2, dim: int = 5) -> ClientData:
    rng = np.random.default_rng(slices)
    image = rng.random((2, slices, size, size), np.float32)
    return ClientData(
        low=image[0],
        full=image[1],
        body=(image[1] > 0.5).astype(np.uint8),
        embedding=rng.standard_normal((slices, tokens, dim)).astype(np.float32),
        embedding_mask=np.array([[1, i % 2] for i in range(slices)], np.uint8),
        g=rng.random((slices, 7), np.float32),
        patient=[f"{i:012x}" for i in range(slices)],
        slice=np.arange(slices, dtype=np.int32)[::-1],
        scale=rng.random(slices, np.float32),
        report=["", "Lungs.", "Ünïcode, 3 µm."][:slices],
    )


@pytest.mark.parametrize("slices", [1, 3])
def test_round_trip_is_exact(tmp_path: Path, slices: int) -> None:
    data = make_data(slices)
    write_client_data(tmp_path / "c.arrow", data)
    again = read_client_data(tmp_path / "c.arrow")
    for name, value in vars(data).items():
        got = getattr(again, name)
        if isinstance(value, np.ndarray):
            assert got.dtype == value.dtype
            np.testing.assert_array_equal(got, value)
        else:
            assert got == value
    assert (len(again), again.image_size) == (slices, 8)


def test_arrays_are_views_of_the_mapped_file(tmp_path: Path) -> None:
    path = tmp_path / "c.arrow"
    write_client_data(path, make_data(3, 64))
    data = read_client_data(path)
    spans = [
        [int(address, 16) for address in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(path))
    ]
    assert spans
    for name in ("low", "full", "body", "embedding", "embedding_mask", "slice", "scale"):
        array = getattr(data, name)
        start = array.__array_interface__["data"][0]
        assert not array.flags.owndata, name
        assert not array.flags.writeable, name
        assert array.flags.c_contiguous, name
        assert any(low <= start and start + array.nbytes <= high for low, high in spans), name


def test_columns_are_fixed_shape_tensors(tmp_path: Path) -> None:
    import pyarrow as pa

    write_client_data(tmp_path / "c.arrow", make_data(3, 8))
    schema = pa.ipc.open_file(str(tmp_path / "c.arrow")).schema
    assert schema.field("low").type == pa.fixed_shape_tensor(pa.float32(), [8, 8])
    assert schema.field("g").type == pa.fixed_shape_tensor(pa.float32(), [7])


def test_no_slices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PhysFedError, match="no slices"):
        write_client_data(tmp_path / "c.arrow", make_data(0))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, b"", b"not Arrow at all" * 10])
def test_other_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "c.arrow"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PhysFedError, match="physfed prepare"):
        read_client_data(path)


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.arrow"
    write_client_data(path, make_data(3, 16))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PhysFedError, match="physfed prepare"):
        read_client_data(path)


def _write_often(path: Path, slices: int) -> None:
    for _ in range(30):
        write_client_data(path, make_data(slices, 32))


def test_readers_and_two_writers_at_once_see_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "c.arrow"
    write_client_data(path, make_data(1, 32))
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_often, args=(path, n)) for n in (2, 3)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        data = read_client_data(path)
        np.testing.assert_array_equal(data.low, make_data(len(data), 32).low)
        seen.add(len(data))
    assert seen - {1}
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert list(tmp_path.iterdir()) == [path]
