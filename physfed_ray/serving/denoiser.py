"""A network of a trained run as a function from noisy to denoised images in HU."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from physfed_ray.data.dataset import whole_batches
from physfed_ray.data.store import ClientData
from physfed_ray.device import torch_threads
from physfed_ray.errors import PhysFedError
from physfed_ray.federation.client.inference import EVALUATION_BATCH, Inference
from physfed_ray.fields import extra_fields, field_of
from physfed_ray.methods.base import Method
from physfed_ray.rundir.model import ModelCard
from physfed_ray.serving.choice import Choice
from physfed_ray.window import denormalise, normalise


class Denoiser:
    """Denoises images of one scanner; made by ``TrainedRun.denoiser``.

    On a CPU it gives the bits of the run's own evaluation, for the same images in the same order.

    Args:
        card: The run's.
        inference: The network, ready.
        choice: Which network that is.
        threads: CPU threads; None: as many as a client of the run had, which decides the last
            bits.

    Attributes:
        choice: Which of the run's models this is, and why.
        threads: CPU threads.
    """

    def __init__(
        self, card: ModelCard, inference: Inference, choice: Choice, threads: int | None = None
    ) -> None:
        self._card, self._inference, self.choice = card, inference, choice
        self.threads = card.training.threads if threads is None else threads

    def __repr__(self) -> str:
        return f"<Denoiser {self._inference.method.title}: {self.choice}>"

    @property
    def card(self) -> ModelCard:
        """The run's."""
        return self._card

    @property
    def method(self) -> Method:
        """The run's method."""
        return self._inference.method

    @property
    def network(self) -> nn.Module:
        """The torch module; ``Method.denoise`` of the run's method says how it is called."""
        return self._inference.module

    @property
    def device(self) -> str:
        """Where the network is: ``cpu`` or ``cuda``."""
        return self._inference.device

    def normalise(self, hu: np.ndarray) -> np.ndarray:
        """Map HU to float32 in [0, 1] of the run's window, clipped."""
        return normalise(hu, self._card.window_hu)

    def denormalise(self, images: np.ndarray) -> np.ndarray:
        """Map values in [0, 1] of the run's window back to float32 HU."""
        return denormalise(images, self._card.window_hu)

    def __call__(
        self,
        hu: np.ndarray,
        embedding: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        fields: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Denoise images in HU.

        The network sees, and returns, values within the run's window. A pixel outside the window
        comes back unchanged: the network never saw its value.

        Args:
            hu: (N, n, n), HU, on the run's grid: n pixels over the protocol's field of view.
            embedding: f_t of each image's report, (N, T, d), not standardised; only methods that
                read reports want it.
            mask: True where a token is real, (N, T); by default everywhere.
            fields: What else the network reads of each image, by name, (N, ...).

        Returns:
            (N, n, n) float32, HU.

        Raises:
            PhysFedError: The images, embeddings or fields do not fit, or are missing.
        """
        hu = np.asarray(hu)
        low, high = self._card.window_hu
        denoised = self.denormalise(self.denoise(self.normalise(hu), embedding, mask, fields))
        outside = (hu < low) | (hu > high)
        return np.where(outside, hu, denoised).astype(np.float32)

    def denoise(
        self,
        images: np.ndarray,
        embedding: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        fields: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Do the same with normalised images, (N, n, n) float32 in [0, 1] of the window."""
        extra = self._extra(len(images), fields or {})
        data = self._as_data(images, *self._embedding(len(images), embedding, mask), extra)
        with torch_threads(self.threads):
            if self.choice.code is None:
                return self._inference.denoise(data)
            code = torch.tensor(self.choice.code)
            batches = (batch for _, batch in whole_batches(data, EVALUATION_BATCH))
            return np.concatenate(
                [self._inference.decode(self._inference.features(batch, code)) for batch in batches]
            )

    def _as_data(
        self,
        images: np.ndarray,
        embedding: np.ndarray,
        mask: np.ndarray,
        extra: dict[str, np.ndarray],
    ) -> ClientData:
        n = self._card.image_size
        if images.ndim != 3 or images.shape[1:] != (n, n) or not len(images):
            raise PhysFedError(
                f"images must have the shape (N, {n}, {n}), N at least 1, and not {images.shape}: "
                f"the run was trained on {n} x {n} pixels over the protocol's field of view"
            )
        if not np.isfinite(images).all():
            raise PhysFedError("images must be finite numbers in HU; some are not")
        low = np.asarray(images, np.float32)
        nothing = [""] * len(low)
        return ClientData(
            low=low,
            full=low,  # what is not there; nothing looks at it
            body=np.zeros(low.shape[:1], np.uint8),
            embedding=embedding,
            embedding_mask=mask,
            g=self.choice.g,
            patient=nothing,
            slice=np.arange(len(low), dtype=np.int32),
            scale=np.ones(len(low), np.float32),
            report=nothing,
            extra=extra,
        )

    def _extra(self, images: int, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the fields that the network reads beside those that every batch has."""
        method = self._inference.method
        found = {}
        for name in extra_fields((*method.task.backbone.fields, *method.reads())):
            if name not in given:
                raise PhysFedError(
                    f"{method.title} reads the field '{name}' of each image: give it as "
                    f"fields={{'{name}': ...}}, {images} of them"
                )
            found[name] = np.asarray(given[name], field_of(name).stored)
            if len(found[name]) != images:
                raise PhysFedError(
                    f"there are {images} images and {len(found[name])} of their field '{name}'; "
                    "give one for each image"
                )
        return found

    def _embedding(
        self, images: int, embedding: np.ndarray | None, mask: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return embeddings and their mask as the network takes them; zeros where none is read."""
        method, statistics = self._inference.method, self._card.statistics
        wanted = images, statistics.tokens, statistics.dim
        if "embedding" not in method.reads():
            return np.zeros(wanted, np.float32), np.ones(wanted[:2], np.uint8)
        if embedding is None:
            raise PhysFedError(
                f"{method.title} reads the report of each image: give its embedding, "
                f"{wanted} float32, such as run.describe(hu) makes it"
            )
        mask = np.ones(wanted[:2]) if mask is None else np.asarray(mask)
        embedding = np.asarray(embedding, np.float32)
        if embedding.shape != wanted or mask.shape != wanted[:2]:
            raise PhysFedError(
                f"the embeddings of {images} images must have the shape {wanted} and their mask "
                f"{wanted[:2]}, not {embedding.shape} and {mask.shape}"
            )
        return embedding, mask.astype(np.uint8)
