"""Reports by a multimodal large language model, as in SCAN-PhysFed (Yang et al. 2025)."""

import json
from functools import cached_property
from hashlib import blake2b
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from physfed_ray.code_version import code_version
from physfed_ray.errors import PhysFedError
from physfed_ray.reports.base import Reporter
from physfed_ray.reports.mllm_model import (
    Mllm,
    MllmSettings,
    find_mllm,
    fits_in_memory,
    load_mllm,
)
from physfed_ray.reports.windows import Channels, to_rgb

MAX_IMAGE_SIZE = 1024
"""Pixels per side: some processors would make tens of thousands of tokens of a larger slice."""

PROMPT = (
    "You are an experienced radiologist. This is one axial low-dose CT slice; noise and streaks "
    "are due to the low dose and are no findings. Write a short radiology report: first the body "
    "region and level, then the organs, bones, vessels and soft tissues that are seen, with their "
    "side and relative size, then abnormalities if there are any. Write plain sentences only, "
    "without headings, measurements or advice."
)

_CONTROL_CHARACTERS = dict.fromkeys({*range(32), 127} - {ord("\n"), ord("\t")})
"""What a terminal or a page would obey instead of showing."""


class MllmReporterSettings(MllmSettings):
    """Keys of ``reports.reporter`` with the name ``mllm``."""

    prompt: str = Field(PROMPT, min_length=1, description="what the model is asked")
    channels: Channels = Field(
        "lung_soft_bone",
        description="what the model sees: three CT windows as red, green and blue, or one window "
        "as grey: lung, soft, bone or [low, high] in HU",
    )
    image_size: int | None = Field(
        None,
        ge=16,
        le=4096,
        description="pixels per side that slices are resampled to before the model's own "
        f"processor; null: as they are, at most {MAX_IMAGE_SIZE}",
    )
    max_new_tokens: int = Field(200, ge=1, le=8192, description="tokens of a report, at most")
    do_sample: bool = Field(
        False, description="draw tokens at random instead of taking the likeliest"
    )
    temperature: float = Field(1.0, gt=0, le=10, description="of drawing tokens")
    seed: int = Field(0, ge=0, description="of drawing tokens, along with the image itself")

    @model_validator(mode="after")
    def _only_if_sampling(self) -> Self:
        given = {"temperature", "seed"} & self.model_fields_set
        defaults = all(
            getattr(self, name) == type(self).model_fields[name].default for name in given
        )
        if not self.do_sample and not defaults:
            raise ValueError(f"without do_sample: true, remove {' and '.join(sorted(given))}")
        return self


class MllmReporter(Reporter):
    """What an image-text-to-text model of the Hugging Face layout says about a slice.

    The same image always gets the same text, drawn or not, whatever is in its batch (in bf16 and
    fp16, but for rounding that depends on the shape of the batch).

    Args:
        settings: The model, what it sees, what it is asked and how it answers.
    """

    name = "mllm"
    Settings = MllmReporterSettings
    uses_gpu = True
    settings: MllmReporterSettings

    def __init__(self, settings: MllmReporterSettings) -> None:
        super().__init__(settings)
        self._files = find_mllm(settings)

    @cached_property
    def version(self) -> str:
        """See ``Reporter``."""
        # Where the model lies and which devices it fills do not change what it says.
        settings = self.settings.model_dump(
            mode="json", exclude={"model", "revision", "device_map", "trust_remote_code"}
        )
        code = code_version("reports/mllm.py", "reports/mllm_model.py", "reports/windows.py")
        return json.dumps({"code": code, "model": self._files.version, **settings}, sort_keys=True)

    @cached_property
    def _mllm(self) -> Mllm:
        return load_mllm(self._files, self.settings)

    def report(self, hu: np.ndarray) -> list[str]:
        """See ``Reporter``.

        Raises:
            PhysFedError: If the model cannot be loaded, takes no image, or does not fit.
        """
        if not len(hu):
            return []
        import torch

        mllm, rgb = self._mllm, to_rgb(hu, self.settings.channels)
        advice = (
            "lower reports.pool.max_batch, raise reports.pool.gpus_per_reporter, or give "
            "reports.reporter `dtype: bf16` or a smaller `image_size`"
        )
        with torch.inference_mode(), fits_in_memory(self.settings.model, advice):
            inputs = self._inputs(rgb).to(mllm.model.device, mllm.model.dtype)
            tokens = mllm.model.generate(
                **inputs,
                max_new_tokens=self.settings.max_new_tokens,
                logits_processor=[self._draw(rgb, mllm.model.device)]
                if self.settings.do_sample
                else [],
            )
        new = tokens[:, inputs["input_ids"].shape[1] :]
        texts = mllm.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [text.translate(_CONTROL_CHARACTERS).strip() for text in texts]

    def _inputs(self, rgb: np.ndarray) -> Any:
        """Return the processor's tensors for B pictures (B, n, n, 3) uint8."""
        from jinja2 import TemplateError

        mllm = self._mllm
        parts = [{"type": "image"}, {"type": "text", "text": self.settings.prompt}]
        try:
            text = mllm.processor.apply_chat_template(
                [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
            )
            start = mllm.tokenizer.bos_token
            return mllm.processor(
                images=[[image] for image in self._pictures(rgb)],
                text=[text] * len(rgb),
                padding=True,
                return_tensors="pt",
                # Some templates write the first token themselves.
                add_special_tokens=start is None or not text.startswith(start),
            )
        except (TemplateError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise PhysFedError(
                f"The processor of {self.settings.model} does not take one image and a prompt "
                f"({reason}): complete its processor_config.json and chat template, or name "
                "another model."
            ) from error

    def _pictures(self, rgb: np.ndarray) -> list[Any]:
        """Return PIL images of the size that the settings ask for."""
        from PIL import Image

        size = self.settings.image_size or min(rgb.shape[1], MAX_IMAGE_SIZE)
        images = (Image.fromarray(picture) for picture in rgb)
        return [image.resize((size, size), Image.Resampling.BICUBIC) for image in images]

    def _draw(self, rgb: np.ndarray, device: Any) -> "_Draw":
        start = str(self.settings.seed).encode()
        seeds = [blake2b(start + picture.tobytes(), digest_size=7) for picture in rgb]
        return _Draw([int(seed.hexdigest(), 16) for seed in seeds], self.settings, device)


class _Draw:
    """Draws each text's tokens from its own random stream, which no other text of a batch moves.

    The likeliest token after adding Gumbel noise is a draw from the softmax (Gumbel 1954).
    """

    def __init__(self, seeds: list[int], settings: MllmReporterSettings, device: Any) -> None:
        import torch

        self._streams = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self._temperature = settings.temperature

    def __call__(self, _: Any, scores: Any) -> Any:
        """Return the scores (B, vocabulary) of the next tokens with noise."""
        import torch

        noise = torch.empty_like(scores, dtype=torch.float32)
        for row, stream in zip(noise, self._streams, strict=True):
            row.exponential_(generator=stream)
        return scores.float() / self._temperature - noise.clamp_min(1e-30).log()
