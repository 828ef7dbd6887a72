"""Image-text-to-text models: what their folder must hold, and loading them."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field

from physfed_ray.errors import PhysFedError
from physfed_ray.reports.base import PartSettings
from physfed_ray.reports.hub import ModelFiles, ModelName, find_model

Precision = Literal["auto", "bf16", "fp16", "fp32"]


class MllmSettings(PartSettings):
    """Which model, and how it is loaded."""

    model: ModelName = Field(
        description="image-text-to-text model: a folder, relative to this file, or a Hugging Face "
        "id such as google/medgemma-4b-it"
    )
    revision: str | None = Field(
        None, description="commit of a Hugging Face id; null: its newest, which may change"
    )
    trust_remote_code: bool = Field(
        False, description="whether Python code that comes with the model may run here"
    )
    dtype: Precision = Field(
        "auto", description="numbers that the model computes in; auto: those of its weights"
    )
    attn_implementation: str | None = Field(
        None,
        description="eager, sdpa, flash_attention_2, ...; null: what transformers thinks best",
    )
    device_map: str | None = Field(
        None,
        description="null: one GPU, or the CPU where there is none; auto: spread over all GPUs of "
        "the actor (needs the package accelerate)",
    )


@dataclass(frozen=True)
class Mllm:
    """A model that is ready to compute.

    Attributes:
        model: ``AutoModelForImageTextToText``.
        processor: ``AutoProcessor``, whose tokenizer pads on the left.
    """

    model: Any
    processor: Any

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, which has a token to pad with."""
        return self.processor.tokenizer


def find_mllm(settings: MllmSettings) -> ModelFiles:
    """Find the model and check, by its small files alone, that it is one of images and text.

    Raises:
        PhysFedError: If it is not there, lacks a file, takes no image, has no chat template, or
            needs code of its own that may not run.
    """
    files = find_model(settings.model, settings.revision)
    files.require("its configuration", "config.json")
    config = files.read("config.json")
    has_images = files.has("preprocessor_config.json") or (
        "image_processor" in files.read("processor_config.json")
    )
    if not has_images and "vision_config" not in config:
        raise _takes_no_image(settings.model)
    if not has_images:
        files.require("its image processor", "preprocessor_config.json")
    files.require("its tokenizer", "tokenizer.json", "tokenizer.model", "vocab.json")
    if not _has_chat_template(files):
        raise PhysFedError(
            f"The model {settings.model} has no chat template (chat_template.jinja or "
            "chat_template.json), so it is not known how to ask it: name a model tuned to follow "
            "instructions, or add the template to a local copy."
        )
    if "auto_map" in config and not settings.trust_remote_code:
        _require_known_type(settings.model, str(config.get("model_type")))
    if settings.device_map is not None and importlib.util.find_spec("accelerate") is None:
        raise PhysFedError(
            "device_map needs the package accelerate: install it with `pip install accelerate`, "
            "or remove the key."
        )
    return files


def load_mllm(files: ModelFiles, settings: MllmSettings) -> Mllm:
    """Load the model, or return it if this process has loaded it last.

    So a reporter and an encoder of the same model hold its weights once.

    Raises:
        PhysFedError: If it has no weights, cannot be loaded or does not fit.
    """
    files.with_weights()
    # Its own settings alone: a reporter's and an encoder's differ in the rest.
    fields = MllmSettings.model_fields
    own = MllmSettings(**{name: getattr(settings, name) for name in fields})
    return _load(files, files.version, own)


@contextmanager
def fits_in_memory(model: str, advice: str) -> Iterator[None]:
    """Turn running out of memory into a sentence.

    Args:
        model: Named in it.
        advice: What to do.

    Raises:
        PhysFedError: If the GPU or the machine has no memory left.
    """
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        on_cpu = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
        on_gpu = isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in str(error)
        if not on_cpu and not on_gpu:
            raise
        device = "this machine" if on_cpu else "the GPU"
        raise PhysFedError(f"The model {model} does not fit in {device}: {advice}.") from None


@lru_cache(maxsize=1)
def _load(files: ModelFiles, _version: str, settings: MllmSettings) -> Mllm:
    """Load; the version is there so that a folder that has changed is loaded again."""
    import torch
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    advice = (
        "give reports.reporter `dtype: bf16`, raise reports.pool.gpus_per_reporter, spread it with "
        "`device_map: auto`, or name a smaller model"
    )
    options = {"trust_remote_code": settings.trust_remote_code, "local_files_only": True}
    try:
        with fits_in_memory(settings.model, advice):
            config = AutoConfig.from_pretrained(files.folder, **options)
            processor = _load_processor(files, config, options)
            model = _load_weights(files, config, settings, options)
            if settings.device_map is None:
                model.to("cuda" if torch.cuda.is_available() else "cpu")
    except PhysFedError:
        raise
    except Exception as error:  # each model's classes fail in their own way
        reason = " ".join(str(error).split())[:300]
        raise PhysFedError(
            f"The model {settings.model} cannot be loaded ({reason}): copy or download it again, "
            "or install what it asks for."
        ) from error
    _prepare(model, processor.tokenizer)
    return Mllm(model.eval(), processor)


def _load_weights(
    files: ModelFiles, config: Any, settings: MllmSettings, options: dict[str, Any]
) -> Any:
    import torch
    from transformers import AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    own_code = "AutoModelForImageTextToText" in (getattr(config, "auto_map", None) or {})
    if not own_code and type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise _takes_no_image(settings.model)
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    placement = {} if settings.device_map is None else {"device_map": settings.device_map}
    auto: Any = AutoModelForImageTextToText
    model, info = auto.from_pretrained(
        files.folder,
        dtype=dtypes.get(settings.dtype, "auto"),
        attn_implementation=settings.attn_implementation,
        use_safetensors=True,
        output_loading_info=True,
        **placement,
        **options,
    )
    # transformers would fill them with random numbers and only warn.
    if info["missing_keys"]:
        raise PhysFedError(
            f"The weights of {settings.model} lack {sorted(info['missing_keys'])[0]}: they belong "
            "to another model than its config.json, so copy or download it again."
        )
    return model


def _load_processor(files: ModelFiles, config: Any, options: dict[str, Any]) -> Any:
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    auto: Any = transformers.AutoProcessor
    try:
        return auto.from_pretrained(files.folder, **options)
    except ImportError as missing:
        # Video processors need torchvision, which nothing here has to do with.
        names = (
            files.read(f"{part}_config.json").get("processor_class")
            for part in ("processor", "preprocessor", "tokenizer")
        )
        name = next((name for name in names if name), "")
        kind: Any = getattr(transformers, name, PROCESSOR_MAPPING.get(type(config), None))
        if kind is None or "video_processor" not in kind.get_attributes():
            raise
        try:
            return _without_video(kind).from_pretrained(files.folder, **options)
        except TypeError:  # it cannot do without
            raise missing from None


def _without_video(kind: Any) -> Any:
    """Return a processor's class less its video part."""
    parts = [part for part in kind.get_attributes() if part != "video_processor"]
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda cls: parts)})


def _prepare(model: Any, tokenizer: Any) -> None:
    """Set padding, and forget the sampling that the model's authors suggest."""
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    generation = model.generation_config
    generation.do_sample, generation.pad_token_id = False, tokenizer.pad_token_id
    for name in ("temperature", "top_p", "top_k", "min_p", "typical_p"):
        setattr(generation, name, None)


def _has_chat_template(files: ModelFiles) -> bool:
    names = ("chat_template.json", "processor_config.json", "tokenizer_config.json")
    return files.has("*.jinja") or any(files.read(name).get("chat_template") for name in names)


def _require_known_type(model: str, model_type: str) -> None:
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise PhysFedError(
            f"The model {model} runs Python code of its own: read that code, and if you trust it, "
            "give `trust_remote_code: true`, or name another model."
        )


def _takes_no_image(model: str) -> PhysFedError:
    return PhysFedError(
        f"The model {model} takes no image: name an image-text-to-text model, such as "
        "google/medgemma-4b-it."
    )
