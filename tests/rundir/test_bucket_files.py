"""Files in a bucket that goes out of reach, refuses, or was never there."""

import json
import sys
import threading
from collections.abc import Iterator

import pytest
import s3fs
import torch

from physfed_ray.errors import PhysFedError
from physfed_ray.rundir import bucket_files
from physfed_ray.rundir.run_directory import (
    Manifest,
    RunDirectory,
    client_file,
    round_name,
)
from tests.s3_bucket import How, Proxy, s3_bucket


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    with s3_bucket("results") as proxy:
        yield proxy


@pytest.fixture
def proxy(server: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way to the bucket; waiting goes by tenths of a second instead of seconds."""
    monkeypatch.setattr(bucket_files, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(bucket_files, "LONGEST_WAIT_S", 0.3)
    yield server
    server.restore()


@pytest.fixture
def directory(proxy: Proxy, request: pytest.FixtureRequest) -> RunDirectory:
    return RunDirectory(f"s3://results/{request.node.name}/run")


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == bucket_files.__name__]


def test_a_checkpoint_comes_back_from_s3(directory: RunDirectory) -> None:
    directory.check()
    assert directory.last_manifest() is None
    clients = [f"c{i}" for i in range(20)]
    for number in (1, 2, 3):
        for client in clients[number:]:
            tensors = {"w": torch.full((3,), float(number))}
            directory.write_tensors(client_file(number, client), tensors, later=True)
        directory.write_tensors(f"{round_name(number)}/server.safetensors", {"s": torch.ones(1)})
    private = {client: min(3, i) for i, client in enumerate(clients)}
    manifest = Manifest(3, private, bases=(2,))
    directory.commit(manifest)
    directory.prune(manifest, keep=1)
    elsewhere = RunDirectory(directory.root)
    assert elsewhere.last_manifest() == manifest
    kept = {name.rsplit("/run/", 1)[1] for name in all_names(directory)}
    files = {client_file(number, c) for c, number in private.items() if number}
    servers = {f"{round_name(number)}/server.safetensors" for number in (2, 3)}
    assert kept == files | servers | {f"{round_name(3)}/state.json"}
    assert elsewhere.read_tensors(client_file(3, "c9"))["w"].tolist() == [3.0, 3.0, 3.0]


def all_names(directory: RunDirectory) -> list[str]:
    return list(s3fs.S3FileSystem(use_listings_cache=False).find(directory.root))


@pytest.mark.parametrize("how", ["gone", "silent", "busy"])
def test_an_unreachable_bucket_is_waited_for(
    directory: RunDirectory,
    proxy: Proxy,
    how: How,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bucket_files, "SILENCE_S", 4.0)
    directory.write("before", b"1")
    proxy.cut(how)
    back = threading.Timer(1.5, proxy.restore)
    back.start()
    for number in range(12):  # more than are under way at once
        directory.write_later(f"checkpoints/{number}", bytes([number]))
    directory.sync()
    back.join()
    assert [directory.read(f"checkpoints/{n}")[0] for n in range(12)] == list(range(12))
    assert directory.read("before") == b"1"
    began, ended = warnings_of(caplog)
    assert f"{directory.root} is out of reach" in began
    assert f"{directory.root} answers again" in ended
    assert how == "gone" or proxy.refused > 0


@pytest.mark.parametrize("operation", ["exists", "read", "write", "list", "prune"])
def test_a_bucket_out_of_reach_for_too_long_is_one_sentence(
    directory: RunDirectory, proxy: Proxy, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.write("a", b"1")
    manifest = Manifest(1, {"c": 1})
    directory.commit(manifest)
    monkeypatch.setenv("PHYSFED_BUCKET_RETRY_S", "0.5")
    proxy.cut()
    with pytest.raises(PhysFedError) as raised:
        {
            "exists": lambda: directory.exists("a"),
            "read": lambda: directory.read("a"),
            "write": lambda: directory.write("a", b"2"),
            "list": directory.last_manifest,
            "prune": lambda: directory.prune(manifest, 1),
        }[operation]()
    assert directory.root in str(raised.value)
    assert "--resume" in str(raised.value)
    proxy.restore()
    monkeypatch.delenv("PHYSFED_BUCKET_RETRY_S")
    assert directory.read("a") == b"1"
    assert RunDirectory(directory.root).last_manifest() == manifest


def test_a_bucket_that_does_not_exist_is_refused_at_once(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(PhysFedError, match="no such bucket"):
        RunDirectory("s3://misspelt/run").check()
    assert not warnings_of(caplog)


def test_missing_credentials_are_refused_at_once(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(PhysFedError, match="needs credentials"):
        RunDirectory("s3://results/run").check()
    s3fs.S3FileSystem.clear_instance_cache()
    assert not warnings_of(caplog)


def test_a_refusing_bucket_is_not_waited_for(
    directory: RunDirectory, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.cut("forbidden")
    with pytest.raises(PhysFedError, match=r"refuses a .*credentials may list, read, write"):
        directory.write("a", b"1")
    assert not warnings_of(caplog)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
    with pytest.raises(PhysFedError, match=r"pip install 'physfed_ray\[gcs\]'"):
        RunDirectory("gs://results/run")


def test_an_unknown_kind_of_url_is_refused() -> None:
    with pytest.raises(PhysFedError, match="Protocol not known: nowhere"):
        RunDirectory("nowhere://results/run")


def test_a_wrong_waiting_time_is_one_sentence(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHYSFED_BUCKET_RETRY_S", "soon")
    with pytest.raises(PhysFedError, match="PHYSFED_BUCKET_RETRY_S is 'soon'"):
        directory.exists("a")


def test_log_lines_are_gathered_until_flush_commit_or_close(directory: RunDirectory) -> None:
    elsewhere = RunDirectory(directory.root)

    def lines() -> list[int]:
        return [json.loads(line) for line in elsewhere.read("run.log").splitlines()]

    for number in range(50):
        directory.append_line("run.log", str(number))
    assert len(lines()) < 50  # not one upload a line
    directory.flush()
    assert lines() == list(range(50))
    directory.append_line("run.log", "50")
    directory.commit(Manifest(1, {}))
    assert lines() == list(range(51))
    directory.append_line("run.log", "51")
    assert directory.read("run.log").endswith(b"51\n")  # its own reader sees them at any time
    directory.append_line("run.log", "52")
    directory.close()
    resumed = RunDirectory(directory.root)
    resumed.append_line("run.log", "53")
    resumed.close()
    assert lines() == list(range(54))
