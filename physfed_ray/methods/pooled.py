"""Pooled: one network trained on all clients' data in one place, the bound that privacy costs.

Not a federated method: no parameters travel, and the raw images of every client lie where the
network is trained. So it counts no bytes of rounds; what it costs is the data themselves.

* A round is one pass (``training.local_epochs`` passes) over the slices of all clients, so that a
  slice is seen as often as under FedAvg with full participation. A batch is drawn from all
  clients; it has no common protocol g, which neither backbone looks at.
* It is centralised training, so that nothing is averaged and the optimiser's moments persist
  over rounds: ``persist_private``, the default, keeps all of them (``fresh`` is obeyed).
* Participation, availability, speeds, simulated deadlines and asynchronous rounds do not apply.
* Losses, the state of the optimiser and the turn itself are those of the first client by name.
* Evaluation is that of FedAvg: the one network, on the test images of each client.

On Ray, ``workers`` processes of one Ray Train job train data-parallel: each takes its part of
every batch, and they add their gradients up. One worker gives the bits of the inline runtime.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from physfed_ray.methods.base import Method, NoSettings

MOST_WORKERS = 4096


def _workers(value: Any) -> Any:
    if value == "auto" or (
        isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_WORKERS
    ):
        return value
    raise ValueError(f"must be 'auto' or a whole number from 1 to {MOST_WORKERS}, not {value!r}")


class PooledSettings(NoSettings):
    """Keys under ``method:``."""

    workers: Annotated[int | Literal["auto"], BeforeValidator(_workers)] = Field(
        "auto",
        description="processes that share every batch, on Ray; auto: one a GPU, or a single one on "
        "CPUs. Another number changes the last bits of the result; the inline runtime has one",
    )


class Pooled(Method):
    """All is shared, and trained on everybody's data at once."""

    name = "pooled"
    title = "Pooled"
    paper = "no federation"
    group = "bound"
    diffusion = True
    pooled = True
    shared = ("encoder", "decoder")
    Settings = PooledSettings

    def bytes_up(self, shared: int, upload: Mapping[str, np.ndarray]) -> int:
        """Return 0: no client sends an update."""
        return 0

    def bytes_down(self, shared: int, extras: Mapping[str, np.ndarray]) -> int:
        """Return 0: no client is sent parameters."""
        return 0
