"""Where a model's files are: a local folder, or a pinned revision of the Hugging Face hub."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo

from physfed_ray.errors import PhysFedError

SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.py")
"""What tokenizer, processor and configuration are made of."""
INDEX = "model.safetensors.index.json"
WEIGHT_FILES = ("model.safetensors", "model-*.safetensors", INDEX)
"""Weights as pickles are not read: whoever wrote them could run code here."""

SAMPLED_BYTES = 4096
SAMPLES = 1024


def _absolute_if_folder(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    folder = Path((info.context or {}).get("base", Path.cwd()), Path(value).expanduser())
    is_path = value.startswith((".", "/", "~")) or value.count("/") > 1 or folder.is_dir()
    return str(folder.resolve()) if is_path else value


ModelName = Annotated[str, BeforeValidator(_absolute_if_folder)]
"""A folder, relative to the experiment's file and absolute once validated, or a hub id."""


@dataclass(frozen=True)
class ModelFiles:
    """A model's files on this machine; those of the hub may still lack their weights.

    Attributes:
        model: Folder or hub id, as the user named it.
        folder: Where the files lie.
        commit: Commit of the hub's repository; None for a local folder.
    """

    model: str
    folder: Path
    commit: str | None

    @cached_property
    def version(self) -> str:
        """What changes when the files do: the commit, or a fingerprint of the folder."""
        return self.commit or fingerprint(self.folder)

    def has(self, *patterns: str) -> bool:
        """Return whether some file's name fits one of the glob patterns."""
        return any(path.is_file() for pattern in patterns for path in self.folder.glob(pattern))

    def read(self, name: str) -> dict[str, Any]:
        """Return a JSON file's object; an empty one if there is no such file.

        Raises:
            PhysFedError: If the file is damaged.
        """
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise PhysFedError(
                f"{path} is not valid JSON ({error}): copy or download the model again."
            ) from None
        return content if isinstance(content, dict) else {}

    def require(self, what: str, *patterns: str) -> None:
        """Raise unless some file's name fits.

        Args:
            what: What the file is for, in the user's words.
            patterns: Glob patterns, the usual name first.

        Raises:
            PhysFedError: If there is none.
        """
        if not self.has(*patterns):
            raise PhysFedError(
                f"The model {self.model} has no {' or '.join(patterns)} ({what}): "
                "copy or download the complete model, or name another one."
            )

    def require_weights(self) -> None:
        """Raise if weights are missing, a shard of many included.

        Raises:
            PhysFedError: If a file of the weights is missing.
        """
        index = self.read(INDEX)
        if not index:
            self.require("its weights", "model.safetensors", INDEX)
        for shard in sorted(set(index.get("weight_map", {}).values())):
            self.require("a part of its weights", shard)

    def with_weights(self) -> Path:
        """Return the folder once it holds the weights too; from the hub they are downloaded.

        Raises:
            PhysFedError: If there are no weights, or they cannot be had.
        """
        if self.commit is not None:
            _download(self.model, self.commit, WEIGHT_FILES)
        self.require_weights()
        return self.folder


def find_model(model: str, revision: str | None) -> ModelFiles:
    """Find a model; from the hub, only its small files are downloaded.

    Args:
        model: A validated ``ModelName``.
        revision: Commit, tag or branch of the hub; None for its newest commit.

    Raises:
        PhysFedError: If it is nowhere, cannot be reached or needs a licence that is not accepted.
    """
    if not Path(model).is_absolute():
        return _find_on_hub(model, revision)
    if revision is not None:
        raise PhysFedError(
            f"revision is for models of the Hugging Face hub, but {model} is a folder: remove it."
        )
    if not Path(model).is_dir():
        raise PhysFedError(
            f"The model's folder {model} does not exist: correct the path, which is relative to "
            "the experiment's file, or give a Hugging Face id."
        )
    files = ModelFiles(model, Path(model), None)
    files.require_weights()
    return files


@cache
def _find_on_hub(model: str, revision: str | None) -> ModelFiles:
    folder = _download(model, revision, SMALL_FILES)
    # The hub's cache names a snapshot's folder by its commit.
    return ModelFiles(model, folder, folder.name)


def _download(model: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    at = f"{model} at revision {revision}" if revision else model
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns)))
    except errors.GatedRepoError:
        reason = "needs a licence: accept it on the model's page and log in with `hf auth login`"
    except errors.RevisionNotFoundError:
        reason = "does not exist: copy the revision's commit from the model's page"
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        reason = (
            "is neither a folder nor known to the Hugging Face hub: correct the name, or log in "
            "with `hf auth login` if it is private"
        )
    except Exception:  # the HTTP library's own errors too, which change with its name
        reason = (
            "is no folder, not complete in this machine's cache, and the Hugging Face hub cannot "
            "be reached: correct the path, go online, or fetch it elsewhere with "
            f"`hf download {model} --local-dir FOLDER` and give that folder"
        )
    raise PhysFedError(f"The model {at} {reason}.")


def fingerprint(folder: Path) -> str:
    """Return a hash of a model's files: small ones whole, weights by size and sampled blocks.

    Weights of gigabytes cannot be read whole whenever a run starts; a thousand blocks of each file
    meet any retraining of the model.
    """
    digest = blake2b(digest_size=16)
    for path in _model_files(folder):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        for block in _blocks(path):
            digest.update(block)
    return digest.hexdigest()


def _model_files(folder: Path) -> list[Path]:
    found = {p for pattern in (*SMALL_FILES, *WEIGHT_FILES) for p in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file())


def _blocks(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if not path.name.endswith(".safetensors") or size <= SAMPLES * SAMPLED_BYTES:
            yield file.read()
            return
        for sample in range(SAMPLES):
            file.seek((size - SAMPLED_BYTES) * sample // (SAMPLES - 1))
            yield file.read(SAMPLED_BYTES)
