"""What a host does for unseen protocols: encode, decode, denoise, serve, score."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from physfed_ray.data.dataset import whole_batch
from physfed_ray.data.store import ClientData
from physfed_ray.federation.client.inference import EVALUATION_BATCH
from physfed_ray.federation.client.network import ClientNetwork
from physfed_ray.federation.client.phantoms import (
    full_dose_scores,
    phantom_scans,
    score_phantom,
)
from physfed_ray.federation.client.scoring import score
from physfed_ray.federation.orders import ClientEvaluation, ClientTurn
from physfed_ray.federation.tree import Node, TreeSum
from physfed_ray.metrics.base import Scores
from physfed_ray.metrics.phantoms import Phantom


class UnseenService:
    """Serves protocols that no client trained on.

    Args:
        network: The host's.
    """

    def __init__(self, network: ClientNetwork) -> None:
        self._network = network
        self._scans: tuple[tuple[int, Phantom], ClientData] | None = None

    def _data(self, unseen: int, phantom: Phantom | None) -> ClientData:
        """Return the test images of an unseen protocol, or its scans of a phantom."""
        info = self._network.spec.unseen[unseen]
        data = self._network.data(info.test)
        if phantom is None:
            return data
        if self._scans is None or self._scans[0] != (unseen, phantom):
            scans = phantom_scans(self._network.spec, info, data, phantom)
            self._scans = (unseen, phantom), scans
        return self._scans[1]

    def features(
        self,
        vector: np.ndarray,
        unseen: int,
        code: np.ndarray,
        start: int,
        phantom: Phantom | None = None,
    ) -> tuple[np.ndarray, ...]:
        """Compute the modulated features of a batch of an unseen protocol's images.

        Only shared parameters are used: this is what the unseen scanner itself can do.

        Args:
            vector: Shared parameters.
            unseen: Index of the unseen protocol.
            code: Codebook entry to modulate with, (code_dim,).
            start: First slice of the batch of ``EVALUATION_BATCH``.
            phantom: What was scanned in place of patients.
        """
        self._network.load_shared(vector)
        data = self._data(unseen, phantom)
        batch = whole_batch(data, slice(start, start + EVALUATION_BATCH))
        features = self._network.inference.features(batch, torch.tensor(code))
        return tuple(f.cpu().numpy() for f in features)

    def decode(
        self, vector: np.ndarray, turn: ClientTurn, features: tuple[np.ndarray, ...]
    ) -> np.ndarray:
        """Decode features with a client's private decoder, which does not leave its host.

        Returns:
            Denoised images, (B, n, n) float32.
        """
        self._network.load(vector, turn)
        return self._network.inference.decode(tuple(from_dlpack(f) for f in features))

    def denoise(
        self, vector: np.ndarray, unseen: int, phantom: Phantom | None = None
    ) -> np.ndarray:
        """Denoise an unseen protocol's images by shared parameters alone, (N, n, n) float32."""
        self._network.load_shared(vector)
        return self._network.inference.denoise(self._data(unseen, phantom), None)

    def denoise_locally(
        self, vector: np.ndarray, turn: ClientTurn, unseen: int, phantom: Phantom | None
    ) -> np.ndarray:
        """Denoise them by a client's whole local model, which is told its own g."""
        data = self._data(unseen, phantom)
        self._network.load(vector, turn)
        g = np.array([self._network.spec.clients[turn.client].g], np.float32)
        told = replace(data, g=g.repeat(len(data), axis=0))
        return self._network.inference.denoise(told, None)

    def score_phantom(self, unseen: int, phantom: Phantom, denoised: np.ndarray | None) -> Scores:
        """Measure scans of a phantom under an unseen protocol.

        Args:
            unseen: Index of the unseen protocol.
            phantom: What was scanned.
            denoised: (N, n, n) float32; None measures the scans themselves.
        """
        images = np.asarray(self._data(unseen, phantom).low) if denoised is None else denoised
        spec = self._network.spec
        return score_phantom(spec, spec.unseen[unseen].protocol, phantom, images)

    def full_dose(self, unseen: int, phantom: Phantom) -> Scores:
        """Measure scans of a phantom with its full dose; nothing where it has none."""
        spec = self._network.spec
        data = self._network.data(spec.unseen[unseen].test)
        return full_dose_scores(spec, spec.unseen[unseen], data, phantom)

    def serve(
        self, vector: np.ndarray, turns: Sequence[ClientTurn], unseen: int
    ) -> tuple[dict[int, Scores], dict[Node, np.ndarray | None]]:
        """Denoise an unseen protocol's images with each client's whole local model.

        Returns:
            Per client the scores, and the pieces of the tree sum of the denoised images.
        """
        info = self._network.spec.unseen[unseen]
        data = self._network.data(info.test)
        scores: dict[int, Scores] = {}
        tree = TreeSum()
        for turn in turns:
            denoised = self.denoise_locally(vector, turn, unseen, None)
            scores[turn.client] = score(
                self._network.spec, denoised, data, info.protocol, optional=True
            )
            tree.add(turn.client, torch.from_numpy(denoised))
        return scores, {n: None if v is None else v.numpy() for n, v in tree.pieces().items()}

    def score(
        self, unseen: int, denoised: np.ndarray | None, detail: bool = False
    ) -> ClientEvaluation:
        """Score denoised images of an unseen protocol; None scores the input itself.

        Args:
            unseen: Index of the unseen protocol.
            denoised: (N, n, n) float32, or None.
            detail: Return examples, and score with the optional metrics.
        """
        info = self._network.spec.unseen[unseen]
        data = self._network.data(info.test)
        images = np.asarray(data.low) if denoised is None else denoised
        middle = len(images) // 2
        examples = {"denoised": images[middle]} if detail and denoised is not None else {}
        if detail:
            examples["low"] = np.asarray(data.low)[middle]
            examples["full"] = np.asarray(data.full)[middle]
        return ClientEvaluation(
            list(data.patient),
            [int(s) for s in data.slice],
            score(self._network.spec, images, data, info.protocol, optional=detail),
            examples,
            {},
        )
