"""Embeddings of reports by the language model that wrote them."""

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from physfed_ray.code_version import code_version
from physfed_ray.errors import PhysFedError
from physfed_ray.reports.base import PartSettings, TextEncoder
from physfed_ray.reports.hub import ModelName
from physfed_ray.reports.mllm_model import (
    Mllm,
    MllmSettings,
    find_mllm,
    fits_in_memory,
    load_mllm,
)
from physfed_ray.reports.pooling import pool_tokens

BATCH_SIZE = 16
MAX_TOKENS = 8192
"""Longer texts are cut here, or at the model's own limit."""


class MllmEncoderSettings(MllmSettings):
    """Keys of ``reports.encoder`` with the name ``mllm``."""

    model: ModelName | None = Field(  # type: ignore[assignment]
        None,
        description="image-text-to-text model: a folder or a Hugging Face id; null: the "
        "reporter's, loaded as the reporter loads it",
    )
    tokens: int = Field(
        1, ge=1, le=4096, description="vectors of a report, at most; 1: the mean over its tokens"
    )

    @model_validator(mode="after")
    def _loaded_as_the_reporter_loads(self) -> Self:
        fields = MllmSettings.model_fields
        changed = [
            name for name in fields if getattr(self, name) != type(self).model_fields[name].default
        ]
        if self.model is None and changed:
            raise ValueError(
                f"without a model of its own, {' and '.join(changed)} is the reporter's"
            )
        return self

    def with_model(self, reporter: PartSettings) -> Self:
        """Return these settings with the reporter's model if they name none.

        Args:
            reporter: Settings of the experiment's reporter.

        Raises:
            PhysFedError: If neither names a model.
        """
        if self.model is not None:
            return self
        if not isinstance(reporter, MllmSettings):
            raise PhysFedError(
                "reports.encoder.model is missing: the reporter has no language model, so give "
                "one or name another encoder."
            )
        fields = MllmSettings.model_fields
        return self.model_copy(update={name: getattr(reporter, name) for name in fields})


class MllmEncoder(TextEncoder):
    """The last hidden states of an image-text-to-text model over the tokens of a report.

    The language model reads the report alone, in one forward pass and without the image, so that
    an embedding depends on the text only: a report from the cache needs no image, and no second
    generation, to be embedded. (Yang et al. 2025 embed with the text features of their MLLM.)

    Args:
        settings: The model and how many vectors of a report are kept; ``with_model`` first.

    Raises:
        PhysFedError: If no model is named or it is none that can do this.
    """

    name = "mllm"
    Settings = MllmEncoderSettings
    uses_gpu = True
    settings: MllmEncoderSettings

    def __init__(self, settings: MllmEncoderSettings) -> None:
        super().__init__(settings.with_model(PartSettings()))
        self._files = find_mllm(self.settings)

    @cached_property
    def version(self) -> str:
        """See ``TextEncoder``."""
        code = code_version(
            "reports/mllm_encoder.py", "reports/mllm_model.py", "reports/pooling.py"
        )
        settings = self.settings.model_dump(include={"dtype", "attn_implementation", "tokens"})
        return json.dumps({"code": code, "model": self._files.version, **settings}, sort_keys=True)

    @property
    def tokens(self) -> int:
        """See ``TextEncoder``."""
        return self.settings.tokens

    @cached_property
    def dim(self) -> int:
        """See ``TextEncoder``."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(
            self._files.folder,
            trust_remote_code=self.settings.trust_remote_code,
            local_files_only=True,
        )
        return int(config.get_text_config().hidden_size)

    @cached_property
    def _mllm(self) -> Mllm:
        return load_mllm(self._files, self.settings)

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """See ``TextEncoder``.

        Args:
            texts: N reports in any language, possibly empty.

        Raises:
            PhysFedError: If the model cannot be loaded, or does not fit.
        """
        import torch

        vectors = np.zeros((len(texts), self.tokens, self.dim), np.float32)
        mask = np.zeros((len(texts), self.tokens), np.uint8)
        ids = [self._tokenize(text) for text in texts]
        # Neighbours in length share a batch, so that little of it is padding.
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        advice = (
            "raise reports.pool.gpus_per_reporter, give `dtype: bf16`, or choose another encoder"
        )
        with torch.inference_mode(), fits_in_memory(str(self.settings.model), advice):
            for start in range(0, len(order), BATCH_SIZE):
                rows = order[start : start + BATCH_SIZE]
                found, real = pool_tokens(*self._states([ids[i] for i in rows]), self.tokens)
                vectors[rows], mask[rows] = found.cpu().numpy(), real.cpu().numpy()
        return vectors, mask

    def _tokenize(self, text: str) -> list[int]:
        """Return a text's token numbers, at least one; what looks like a special token is text."""
        tokenizer = self._mllm.tokenizer
        # A lone surrogate, which no UTF-8 file can hold, becomes a question mark.
        clean = text.encode("utf-8", "replace").decode()
        ids = tokenizer(clean, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        config = self._mllm.model.config.get_text_config()
        limit = min(MAX_TOKENS, getattr(config, "max_position_embeddings", MAX_TOKENS) - 1)
        return list(ids[:limit]) or [tokenizer.eos_token_id]

    def _states(self, ids: list[list[int]]) -> tuple[Any, Any]:
        """Return the states (N, L, d) of N token lists and the mask (N, L) of their own tokens."""
        import torch

        mllm = self._mllm
        first = mllm.tokenizer.bos_token_id
        # Models heap up huge values on their very first token: it is none of the report's.
        first = mllm.tokenizer.pad_token_id if first is None else first
        shape = (len(ids), 1 + max(map(len, ids)))
        tokens = torch.full(shape, mllm.tokenizer.pad_token_id)
        seen = torch.zeros(shape, dtype=torch.long)
        for row, own in enumerate(ids):
            tokens[row, : 1 + len(own)] = torch.tensor([first, *own])
            seen[row, : 1 + len(own)] = 1
        device = mllm.model.device
        states = mllm.model.base_model(
            input_ids=tokens.to(device), attention_mask=seen.to(device), use_cache=False
        ).last_hidden_state
        return states[:, 1:], seen[:, 1:].to(states.device)
