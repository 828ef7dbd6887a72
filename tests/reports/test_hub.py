"""Models in folders and on a hub, which here is a small server that the real client talks to."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from pydantic import BaseModel

from physfed_ray.errors import PhysFedError
from physfed_ray.reports.hub import (
    SAMPLED_BYTES,
    SAMPLES,
    ModelName,
    _find_on_hub,
    find_model,
    fingerprint,
)
from physfed_ray.reports.mllm import MllmReporter
from tests.reports.tiny_models import make_tiny_llava

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEWER = "fedcba9876543210fedcba9876543210fedcba98"


class Hub:
    """What the server holds and has been asked.

    Attributes:
        files: Content of each file of the one repository ``lab/model``.
        head: Commit that ``main`` points at.
        gated: Whether files need a licence.
        fetched: Names of the files that were downloaded.
    """

    def __init__(self) -> None:
        self.files = {"config.json": b"{}", "model.safetensors": b"weights", "notes.md": b"-"}
        self.head = COMMIT
        self.gated = False
        self.fetched: list[str] = []

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body, as the hub would."""
        parts = path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            if parts[2:4] != ["lab", "model"]:
                return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
            if parts[4] == "tree":
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": f"oid-{name}"}
                    for name, data in self.files.items()
                ]
                return 200, {}, json.dumps(tree).encode()
            revision = parts[5] if len(parts) > 5 else "main"
            if revision not in ("main", self.head):
                return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
            return 200, {}, json.dumps({"id": "lab/model", "sha": self.head}).encode()
        if parts[:2] != ["lab", "model"]:
            return 404, {}, b"{}"  # what the library asks for its own purposes
        if self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
        self.fetched.append(parts[-1])
        data = self.files[parts[-1]]
        return 200, {"ETag": f'"{parts[-1]}"', "X-Repo-Commit": parts[-2]}, data


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of this machine, with an empty cache before it."""
    content = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, headers, body = content.answer(self.path)
            self.send_response(code)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    _find_on_hub.cache_clear()
    yield content
    _find_on_hub.cache_clear()
    server.shutdown()
    server.server_close()


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _find_on_hub.cache_clear()


def folder_with(path: Path, **files: bytes) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in {"config_json": b"{}", "model_safetensors": b"w", **files}.items():
        (path / name.replace("_", ".", 1)).write_bytes(content)
    return path


def test_an_id_without_revision_is_pinned_to_its_commit(hub):
    files = find_model("lab/model", None)
    assert (files.commit, files.version) == (COMMIT, COMMIT)
    assert files.read("config.json") == {}


def test_weights_are_fetched_only_when_they_are_needed(hub):
    files = find_model("lab/model", None)
    assert set(hub.fetched) == {"config.json"}
    assert (files.with_weights() / "model.safetensors").read_bytes() == b"weights"
    assert set(hub.fetched) == {"config.json", "model.safetensors"}


def test_the_newest_commit_is_another_version(hub):
    old = find_model("lab/model", None).version
    hub.head = NEWER
    _find_on_hub.cache_clear()
    assert old == COMMIT
    assert find_model("lab/model", None).version == NEWER


def test_what_was_fetched_before_is_found_offline(hub, monkeypatch):
    find_model("lab/model", None).with_weights()
    go_offline(monkeypatch)
    for revision in (None, COMMIT):
        files = find_model("lab/model", revision)
        assert files.commit == COMMIT
        assert (files.with_weights() / "model.safetensors").is_file()


def test_weights_missing_offline_are_one_sentence(hub, monkeypatch):
    find_model("lab/model", None)
    go_offline(monkeypatch)
    files = find_model("lab/model", None)
    with pytest.raises(PhysFedError, match=r"lab/model .* cannot be reached.*hf download"):
        files.with_weights()


def test_an_id_never_fetched_is_one_sentence_offline(hub, monkeypatch):
    go_offline(monkeypatch)
    with pytest.raises(PhysFedError, match=r"lab/model .* cannot be reached.*hf download"):
        find_model("lab/model", None)


def test_a_licence_is_asked_for(hub):
    hub.gated = True
    with pytest.raises(PhysFedError, match=r"lab/model needs a licence.*hf auth login"):
        find_model("lab/model", None)


@pytest.mark.parametrize("name", ["lab/modle", "nothing", "not allowed", "a/b--c"])
def test_an_unknown_name_is_one_sentence(hub, name):
    with pytest.raises(PhysFedError, match=f"{name} is neither a folder nor known"):
        find_model(name, None)


def test_an_unknown_revision_is_one_sentence(hub):
    with pytest.raises(PhysFedError, match=r"revision v9 does not exist"):
        find_model("lab/model", "v9")


def test_a_model_of_the_hub_says_what_it_says_from_a_folder(hub, tmp_path):
    folder = make_tiny_llava(tmp_path / "tiny")
    hub.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hu = np.random.default_rng(0).normal(0, 300, (2, 32, 32)).astype(np.float32)
    common = {"max_new_tokens": 8}
    online = MllmReporter(MllmReporter.Settings(model="lab/model", **common))
    assert "model.safetensors" not in hub.fetched
    local = MllmReporter(MllmReporter.Settings(model=str(folder), **common))
    assert online.report(hu) == local.report(hu)
    assert COMMIT in online.version
    assert COMMIT not in local.version


class Settings(BaseModel):
    """A model's key of an experiment."""

    model: ModelName


def test_a_folder_is_relative_to_the_experiments_file(tmp_path):
    folder = folder_with(tmp_path / "models" / "mine")
    for written in ("models/mine", "./models/mine", str(folder)):
        settings = Settings.model_validate({"model": written}, context={"base": tmp_path})
        assert settings.model == str(folder)
        assert find_model(settings.model, None).folder == folder
        # Settings that were written out and read again elsewhere mean the same folder.
        assert Settings.model_validate({"model": settings.model}) == settings


def test_what_is_no_folder_is_an_id(tmp_path):
    settings = Settings.model_validate({"model": "lab/model"}, context={"base": tmp_path})
    assert settings.model == "lab/model"


def test_a_missing_folder_is_one_sentence(tmp_path):
    settings = Settings.model_validate({"model": "./missing"}, context={"base": tmp_path})
    with pytest.raises(PhysFedError, match=r"missing does not exist"):
        find_model(settings.model, None)


def test_a_folder_has_no_revision(tmp_path):
    with pytest.raises(PhysFedError, match="revision"):
        find_model(str(folder_with(tmp_path)), COMMIT)


def test_every_shard_must_be_there(tmp_path):
    shards = [f"model-{i}-of-2.safetensors" for i in (1, 2)]
    folder = folder_with(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with pytest.raises(PhysFedError, match=r"no model\.safetensors"):
        find_model(str(folder), None)
    index = {"weight_map": dict(zip("ab", shards, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / shards[0]).write_bytes(b"w")
    with pytest.raises(PhysFedError, match=rf"no {shards[1]}"):
        find_model(str(folder), None)
    (folder / shards[1]).write_bytes(b"w")
    assert find_model(str(folder), None).with_weights() == folder


def test_the_fingerprint_follows_the_files_not_their_place(tmp_path):
    first = fingerprint(folder_with(tmp_path / "a"))
    assert fingerprint(folder_with(tmp_path / "b")) == first
    changes = [{"config_json": b"{ }"}, {"model_safetensors": b"v"}, {"chat_template.jinja": b"x"}]
    others = [fingerprint(folder_with(tmp_path / f"c{i}", **c)) for i, c in enumerate(changes)]
    assert len({first, *others}) == 4


def test_large_weights_are_sampled_over_their_whole_length(tmp_path):
    size = 3 * SAMPLES * SAMPLED_BYTES
    folder = folder_with(tmp_path / "m", model_safetensors=bytes(size))
    path, seen = folder / "model.safetensors", {fingerprint(folder)}
    # Any changed stretch longer than the gap between samples must be seen.
    for place in (0, size // 2, size - 3 * SAMPLED_BYTES):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"\1" * 3 * SAMPLED_BYTES)
        seen.add(fingerprint(folder))
    with path.open("ab") as file:
        file.write(b"\0")
    seen.add(fingerprint(folder))
    assert len(seen) == 5


def test_damaged_json_is_one_sentence(tmp_path):
    files = find_model(str(folder_with(tmp_path, config_json=b"{")), None)
    with pytest.raises(PhysFedError, match=r"config\.json is not valid JSON"):
        files.read("config.json")
