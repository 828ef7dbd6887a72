"""A network of a trained run as a function from noisy to denoised images in HU."""

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
import torch
from torch import nn

from physfed_ray.ct.protocol import Protocol
from physfed_ray.data.dataset import whole_batches
from physfed_ray.data.store import ClientData
from physfed_ray.device import torch_threads
from physfed_ray.errors import PhysFedError
from physfed_ray.federation.client.inference import EVALUATION_BATCH, Inference
from physfed_ray.fields import extra_fields, field_of
from physfed_ray.methods.base import Method
from physfed_ray.reports.base import Described
from physfed_ray.rundir.model import ModelCard
from physfed_ray.serving.choice import Choice
from physfed_ray.serving.frame import beyond_the_field
from physfed_ray.serving.identity import model_hash
from physfed_ray.serving.own_fields import made_for, report_images
from physfed_ray.serving.own_grid import NetworkGrid, Rule, network_grid
from physfed_ray.window import denormalise, normalise

SERIES_BATCH, SERIES_BATCH_GPU = 1, 4
"""Slices of a series that go through the network at a time: more are not faster on a CPU."""


class Denoiser:
    """Denoises images of one scanner; made by ``TrainedRun.denoiser``.

    On a CPU it gives the bits of the run's own evaluation, for the same images in the same order.

    Args:
        card: The run's.
        inference: The network, ready.
        choice: Which network that is.
        protocol: How the images were scanned.
        describe: Returns reports and embeddings of images (N, n, n) in HU on the run's grid.
        threads: CPU threads; None: as many as a client of the run had, which decides the last
            bits.

    Attributes:
        choice: Which of the run's models this is, and why.
        protocol: How the images were scanned.
        threads: CPU threads.
    """

    def __init__(
        self,
        card: ModelCard,
        inference: Inference,
        choice: Choice,
        protocol: Protocol,
        describe: Callable[[np.ndarray], Described],
        threads: int | None = None,
    ) -> None:
        self._card, self._inference, self.choice = card, inference, choice
        self.protocol, self._describe = protocol, describe
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

    @cached_property
    def model_hash(self) -> str:
        """Hex digits that stand for all that decides its images but the images themselves."""
        return model_hash(self._card, self.network, self.choice)

    @property
    def reads_report(self) -> bool:
        """Whether the network reads the report of each image."""
        return "embedding" in self._inference.method.reads()

    def __call__(
        self,
        hu: np.ndarray,
        spacing_mm: tuple[float, float] | None = None,
        *,
        rule: Rule = "own",
        embedding: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        fields: Mapping[str, np.ndarray] | None = None,
        batch: int = SERIES_BATCH,
    ) -> np.ndarray:
        """Denoise images in HU.

        The network sees, and returns, values within the run's window. A pixel outside the window
        comes back unchanged: the network never saw its value.

        Args:
            hu: With a spacing (N, h, w) or (h, w), HU: slices as a scanner has them. Without one
                (N, n, n), HU, on the run's grid: n pixels over the protocol's field of view.
            spacing_mm: Distance between rows and between columns, as DICOM's PixelSpacing.
            rule: On which grid the network sees slices with a spacing (``serving.own_grid``).
            embedding: f_t of each image's report, (N, T, d), not standardised; only methods that
                read reports want it. Of slices with a spacing it is made here if it is not given.
            mask: True where a token is real, (N, T); by default everywhere.
            fields: What else the network reads of each image, by name, (N, ...); without a spacing.
            batch: Slices with a spacing that go through the network at a time.

        Returns:
            float32, HU, of the shape of ``hu``.

        Raises:
            PhysFedError: The images, embeddings or fields do not fit, or are missing.
        """
        hu = np.asarray(hu)
        if spacing_mm is not None:
            if fields:
                raise PhysFedError("with a spacing, the fields are made here: leave 'fields' out")
            slices = hu[None] if hu.ndim == 2 else hu
            return self._series(slices, spacing_mm, rule, embedding, mask, batch).reshape(hu.shape)
        self._require_run_grid(hu)
        low, high = self._card.window_hu
        denoised = self.denormalise(self.denoise(self.normalise(hu), embedding, mask, fields))
        outside = (hu < low) | (hu > high)
        return np.where(outside, hu, denoised).astype(np.float32)

    def _series(
        self,
        hu: np.ndarray,
        spacing_mm: tuple[float, float],
        rule: Rule,
        embedding: np.ndarray | None,
        mask: np.ndarray | None,
        batch: int,
    ) -> np.ndarray:
        """Denoise slices of a series, (N, h, w)."""
        if hu.ndim != 3 or not hu.size:
            raise PhysFedError(
                f"slices must have the shape (N, h, w) or (h, w), not {hu.shape}: give those of "
                "one matrix together, and others apart"
            )
        if batch < 1:
            raise PhysFedError(f"a batch has at least one slice, not {batch}")
        _require_finite(hu)
        n = self._card.image_size
        grid = network_grid(hu.shape[1:], spacing_mm, rule, self.protocol.pixel_at(n))
        parts = []
        for start in range(0, len(hu), batch):
            rows = slice(start, start + batch)
            given = (
                None if embedding is None else embedding[rows],
                mask if mask is None else mask[rows],
            )
            parts.append(self._batch(hu[rows].astype(np.float32), spacing_mm, grid, *given))
        return np.concatenate(parts)

    def _batch(
        self,
        hu: np.ndarray,
        spacing_mm: tuple[float, float],
        grid: NetworkGrid,
        embedding: np.ndarray | None,
        mask: np.ndarray | None,
    ) -> np.ndarray:
        """Denoise some slices of a series, (B, h, w) float32, all at a time."""
        card, (low, high) = self._card, self._card.window_hu
        if self.reads_report and embedding is None:
            described = self._describe(report_images(hu, spacing_mm, card.image_size))
            embedding, mask = described.embedding, described.mask
        seen = grid.there(self.normalise(hu))
        fields = made_for(self._inference.method, seen, grid, self.protocol, card.window_hu)
        residual = grid.back(self.denoise(seen, embedding, mask, fields, len(hu)) - seen)
        denoised = np.clip(hu + residual * np.float32(high - low), low, high)
        outside = (hu < low) | (hu > high) | beyond_the_field(hu)
        return np.where(outside, hu, denoised).astype(np.float32)

    def denoise(
        self,
        images: np.ndarray,
        embedding: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        fields: Mapping[str, np.ndarray] | None = None,
        batch: int = EVALUATION_BATCH,
    ) -> np.ndarray:
        """Do the same with normalised images, (N, s, s) float32 in [0, 1] of the window.

        The network takes them as they are, on whatever grid.
        """
        extra = self._extra(len(images), fields or {})
        data = self._as_data(images, *self._embedding(len(images), embedding, mask), extra)
        with torch_threads(self.threads):
            if self.choice.code is None:
                return self._inference.denoise(data, batch_size=batch)
            code = torch.tensor(self.choice.code)
            batches = (part for _, part in whole_batches(data, batch))
            return np.concatenate(
                [self._inference.decode(self._inference.features(part, code)) for part in batches]
            )

    def _require_run_grid(self, images: np.ndarray) -> None:
        n = self._card.image_size
        if images.ndim != 3 or images.shape[1:] != (n, n) or not len(images):
            raise PhysFedError(
                f"images must have the shape (N, {n}, {n}), N at least 1, and not {images.shape}: "
                f"the run was trained on {n} x {n} pixels over the protocol's field of view; give "
                "the spacing of the pixels in mm beside images of another matrix"
            )

    def _as_data(
        self,
        images: np.ndarray,
        embedding: np.ndarray,
        mask: np.ndarray,
        extra: dict[str, np.ndarray],
    ) -> ClientData:
        if images.ndim != 3 or images.shape[1] != images.shape[2] or not len(images):
            raise PhysFedError(f"images must have the shape (N, s, s), not {images.shape}")
        _require_finite(images)
        low = np.asarray(images, np.float32)
        nothing = [""] * len(low)
        return ClientData(
            low=low,
            full=low,  # what is not there; nothing looks at it
            body=np.zeros(low.shape[:1], np.uint8),
            embedding=embedding,
            embedding_mask=mask,
            g=np.tile(self.choice.g, (len(low), 1)),
            patient=nothing,
            slice=np.arange(len(low), dtype=np.int32),
            scale=np.ones(len(low), np.float32),
            report=nothing,
            extra=extra,
            protocol=self.choice.protocol,
        )

    def _extra(self, images: int, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the fields that the network reads beside those that every batch has."""
        method = self._inference.method
        found = {}
        of_front_end = method.task.front_end.fields if self.choice.protocol is not None else ()
        for name in extra_fields((*of_front_end, *method.task.backbone.fields, *method.reads())):
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


def _require_finite(images: np.ndarray) -> None:
    if not np.isfinite(images).all():
        raise PhysFedError("images must be finite numbers in HU; some are not")
