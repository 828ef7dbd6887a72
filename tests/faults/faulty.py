"""SCAN-PhysFed with clients that fail in a chosen round: a method as a third party would bring it.

A file ``CLIENT-ROUND`` in a folder says how; it is gone once it has happened.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from physfed_ray.fields import Batch
from physfed_ray.methods.given import RoundInput, Task
from physfed_ray.methods.scan_physfed import RoundState, ScanPhysFed, ScanPhysFedSettings

OTHER_VERSION = "FAULTY_OTHER_VERSION"
"""Environment variable of a node on which the method builds a larger network."""
HOURS_S = 7200


class FaultySettings(ScanPhysFedSettings):
    """Where the faults are named, and how large the shared vector is."""

    folder: str = Field(description="files CLIENT-ROUND that hold 'kill', 'nan' or 'hang'")
    ballast: int = Field(0, ge=0, description="thousands of shared parameters without effect")


class Faulty(ScanPhysFed):
    """Trains as its parent does, but for the faults."""

    name = "faulty"
    Settings = FaultySettings
    settings: FaultySettings

    def __init__(self, settings: BaseModel, task: Task) -> None:
        super().__init__(settings, task)
        if "ballast" in self.children():
            self.shared = (*self.shared, "ballast")
        self._fault = ""

    def children(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Add the ballast."""
        rows = self.settings.ballast
        children = dict(super().children())
        if rows:
            children["ballast"] = lambda: nn.Linear(1000, rows, bias=False)
        if OTHER_VERSION in os.environ:
            encoder = children["encoder"]
            children["encoder"] = lambda: _with_more(encoder())
        return children

    def begin(self, network: nn.Module, round_input: RoundInput) -> RoundState:
        """Look whether the client is to fail in this round."""
        place = Path(self.settings.folder) / f"{round_input.client.id}-{round_input.round}"
        self._fault = place.read_text() if place.exists() else ""
        place.unlink(missing_ok=True)
        return super().begin(network, round_input)

    def loss(
        self, network: nn.Module, batch: Batch, state: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Fail, or return the parent's loss."""
        loss, parts = super().loss(network, batch, state)
        if self._fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fault == "hang":
            time.sleep(HOURS_S)
        if self._fault == "nan":  # the loss stays finite, its gradient is 0 / 0
            loss = loss + (0 * next(network.parameters()).sum()).sqrt()
        return loss, parts


def _with_more(encoder: nn.Module) -> nn.Module:
    """Return an encoder with parameters that other versions do not have."""
    encoder.register_parameter("more", nn.Parameter(torch.zeros(8)))
    return encoder
