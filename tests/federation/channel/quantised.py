"""A channel from outside: updates of bounded length, in integers, whose sums are exact."""

from collections.abc import Mapping

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from physfed_ray.federation.channel.base import Arrival, Cargo, Channel, Packed, Passage


class QuantisedSettings(BaseModel):
    """Its keys under ``federation.channel:``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    clip: float = Field(1.0, gt=0, description="length of an update in the first round")
    bits: int = Field(24, ge=1, le=40, description="binary digits behind the point")


class Quantised(Channel):
    """Sends round(2^bits x) as int64, and one number more: whether the update was too long.

    The bound grows where most updates were too long and shrinks where they were not; it is the
    channel's state on the server, and clients are told it.
    """

    name = "quantised"
    Settings = QuantisedSettings
    differences = True
    settings: QuantisedSettings

    def refuses(self, cargo: Cargo) -> str | None:
        """Refuse what is not a sum."""
        if cargo.uploads or cargo.publishes:
            what = ", ".join(cargo.uploads) or "arrays before the first round"
            return f"method {cargo.method} sends {what}, which the channel 'quantised' cannot carry"
        return super().refuses(cargo)

    def packed(self, size: int) -> Packed:
        """Return one number more, in 64 bits."""
        return Packed(size + 1, "int64")

    def outgoing(self, update: Tensor, passage: Passage) -> Tensor:
        """Clip, weigh, round."""
        length, clip = float(update.double().norm()), float(passage.told["clip"])
        factor = min(1.0, clip / length) if length else 1.0
        scaled = update.double() * (factor * passage.weight * 2**self.settings.bits)
        return torch.cat((scaled.round().long(), torch.tensor([int(length > clip)])))

    def losses(self, values: Mapping[str, float], passage: Passage) -> dict[str, float]:
        """Keep the loss alone."""
        return {"loss": values["loss"]}

    def initial(self) -> dict[str, np.ndarray]:
        """Return the first bound."""
        return {"clip": np.array(self.settings.clip)}

    def tell(self, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the bound."""
        return dict(state)

    def incoming(self, total: Tensor, mean: Tensor, arrival: Arrival) -> Mapping[str, np.ndarray]:
        """Undo the rounding, and move the bound."""
        mean.copy_(total[:-1].double() / (arrival.weight * 2**self.settings.bits))
        too_long = int(total[-1]) / len(arrival.clients) > 0.5
        return {"clip": arrival.state["clip"] * (1.25 if too_long else 0.8)}

    def account(self, arrival: Arrival) -> dict[str, float]:
        """Return the next round's bound."""
        return {"clip": float(arrival.state["clip"])}

    def bytes_down(self, participants: int) -> int:
        """Return 16 bytes a participant, as a channel would that introduces them to each other."""
        return 16 * participants
