"""Evaluation of the clients of a host on their own images, and on phantoms that they scan."""

from pathlib import Path

import numpy as np
import torch

from physfed_ray.data.store import ClientData
from physfed_ray.errors import at_work
from physfed_ray.federation.client.network import ClientNetwork
from physfed_ray.federation.client.phantoms import (
    full_dose_scores,
    phantom_scans,
    phantoms,
    score_phantom,
)
from physfed_ray.federation.client.scoring import score
from physfed_ray.federation.examples import kept
from physfed_ray.federation.orders import ClientEvaluation, ClientTurn
from physfed_ray.metrics.base import Scores


class SeenEvaluation:
    """Evaluates personalised models under the protocols that they were trained on.

    Args:
        network: The host's.
    """

    def __init__(self, network: ClientNetwork) -> None:
        self._network, self._spec = network, network.spec

    def evaluate(
        self,
        vector: np.ndarray,
        turn: ClientTurn,
        split: str,
        other_code: np.ndarray | None = None,
        detail: bool = False,
        pictured: int = 0,
    ) -> ClientEvaluation:
        """Evaluate a client's personalised model on its own validation or test images.

        Args:
            vector: Shared parameters.
            turn: The client.
            split: "validation" or "test".
            other_code: Protocol code (code_dim,) to use instead of the client's own.
            detail: Also score the undenoised input (names with ``input/``), and score with the
                optional metrics.
            pictured: Also return the images of so many slices, see ``examples.kept``.
        """
        name = self._spec.clients[turn.client].id
        with at_work(f"while evaluating client {name} on {split} images"):
            self._network.load(vector, turn)
            data = self._images(turn.client, split)
            denoised = self._network.inference.denoise(
                data, None if other_code is None else torch.tensor(other_code)
            )
            protocol = self._spec.clients[turn.client].protocol
            scores = score(self._spec, denoised, data, protocol, optional=detail)
            examples: dict[str, np.ndarray] = {}
            if detail:
                low = np.asarray(data.low)
                before = score(self._spec, low, data, protocol, optional=detail)
                scores |= {f"input/{name}": values for name, values in before.items()}
            if pictured:
                images = {
                    "low": np.asarray(data.low),
                    "full": np.asarray(data.full),
                    "denoised": denoised,
                }
                examples = kept(images, pictured, self._spec.window_hu)
            return ClientEvaluation(
                list(data.patient),
                [int(s) for s in data.slice],
                scores,
                examples,
                self._network.inspect(data),
            )

    def phantoms(self, vector: np.ndarray, turn: ClientTurn) -> dict[str, Scores]:
        """Measure what a client's model does to phantoms, scanned under its protocol.

        Returns:
            Each number, (1,), by kind of phantom; with ``input/`` in front that of the undenoised
            scans, and with ``full/`` in front that of undenoised scans with the full dose.
        """
        self._network.load(vector, turn)
        data, info = self._images(turn.client, "test"), self._spec.clients[turn.client]
        found: dict[str, Scores] = {}
        for phantom in phantoms(self._spec):
            scans = phantom_scans(self._spec, info, data, phantom)
            denoised = self._network.inference.denoise(scans, None)
            scores = found.setdefault(phantom.kind, {})
            scores |= score_phantom(self._spec, info.protocol, phantom, denoised)
            before = score_phantom(self._spec, info.protocol, phantom, np.asarray(scans.low))
            scores |= {f"input/{name}": value for name, value in before.items()}
            full = full_dose_scores(self._spec, info, data, phantom)
            scores |= {f"full/{name}": value for name, value in full.items()}
        return found

    def _images(self, client: int, split: str) -> ClientData:
        path: Path | None = getattr(self._spec.files[client], split)
        return self._network.data(*([path] if path else []))
