"""A CLIP that says how well words fit an image, where there is a folder of one.

LEDA has PubMedCLIP (Eslami, de Melo and Meinel 2021). The image goes through it as in LEDA's
script: the window of [-160, 240] HU, at the size that the model takes, as three equal channels.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from physfed_ray.errors import PhysFedError
from physfed_ray.reports.hub import find_model
from physfed_ray.reports.transformer import is_clip
from physfed_ray.window import denormalise, normalise

SOFT_TISSUE_HU = (-160.0, 240.0)
AT_ONCE = 256


class Clip:
    """Vectors of images and texts in one space.

    Args:
        model: Folder or hub id.

    Raises:
        PhysFedError: It is not there, or no CLIP with both towers.
    """

    def __init__(self, model: str) -> None:
        self.files = find_model(model, None)
        if not is_clip(self.files) or "vision_config" not in self.files.read("config.json"):
            raise PhysFedError(
                f"The model {model} is no CLIP with an image and a text tower: name one as "
                "asset.clip, or leave the key out."
            )

    @property
    def version(self) -> str:
        """What changes when the model does."""
        return f"clip-{self.files.version}"

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of N texts, (N, d) float32 of unit length."""
        found = []
        for first in range(0, len(texts), AT_ONCE):
            words = self._processor(
                text=list(texts[first : first + AT_ONCE]),
                padding=True, truncation=True, return_tensors="pt",
            )  # fmt: skip
            with torch.inference_mode():
                found.append(self._unit(self._model.get_text_features(**words)))
        return np.concatenate(found)

    def images(self, full: Tensor, window_hu: tuple[float, float]) -> np.ndarray:
        """Return the vectors of B slices, (B, d) float32 of unit length.

        Args:
            full: (B, 1, h, w), 0 and 1 are the ends of the window.
            window_hu: In HU.
        """
        hu = denormalise(full[:, 0].cpu().numpy(), window_hu)
        grey = np.rint(255 * normalise(hu, SOFT_TISSUE_HU)).astype(np.uint8)
        colours = [np.repeat(image[..., None], 3, axis=-1) for image in grey]
        pixels = self._processor(images=colours, return_tensors="pt")
        with torch.inference_mode():
            return self._unit(self._model.get_image_features(**pixels))

    def _unit(self, features: Any) -> np.ndarray:
        # Newer versions return the tower's whole output, the projected vector as its pooled one.
        vectors = features if isinstance(features, Tensor) else features.pooler_output
        unit: np.ndarray = functional.normalize(vectors.float(), dim=-1).cpu().numpy()
        return unit

    @cached_property
    def _model(self) -> Any:
        from transformers import CLIPModel

        return self._load(CLIPModel, self.files.with_weights()).eval()

    @cached_property
    def _processor(self) -> Any:
        from transformers import CLIPProcessor

        return self._load(CLIPProcessor, self.files.folder)

    def _load(self, kind: Any, folder: Any) -> Any:
        try:
            return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (ImportError, OSError, ValueError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise PhysFedError(
                f"The CLIP {self.files.model} cannot be read ({reason[:200]}): copy or download "
                "it again, or leave asset.clip out."
            ) from error
