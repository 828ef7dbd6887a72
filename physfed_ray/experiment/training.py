"""Keys under ``training``: local training, the same for every method."""

from typing import Literal, Self

from pydantic import Field, model_validator

from physfed_ray.experiment.data import LARGEST_IMAGE, SMALLEST_IMAGE
from physfed_ray.experiment.objective import ObjectiveSpec
from physfed_ray.experiment.settings import MOST, Settings


class Training(Settings):
    """Local training, the same for every method."""

    rounds: int = Field(200, ge=1, le=MOST, description="federated rounds")
    local_epochs: int = Field(
        1, ge=1, le=MOST, description="passes over a client's slices in a round"
    )
    batch_size: int = Field(20, ge=1, le=MOST, description="slices or patches in a step")
    objective: ObjectiveSpec = Field(
        default_factory=lambda: ObjectiveSpec.model_validate("mse"),
        description="what training minimises: a name, or {name: ..., its settings}",
    )
    optimizer: Literal["adam", "sgd"] = Field("adam", description="of every client")
    lr: float = Field(1e-3, gt=0, lt=1, description="learning rate of the optimizer")
    momentum: float = Field(0.0, ge=0, lt=1, description="of sgd; without a dampening")
    adam_eps: float = Field(
        1e-8,
        gt=0,
        lt=1e-3,
        description="Adam's epsilon; gradients far below it hardly move their weights, and those "
        "of hypernetworks can be (docs/results/real_ct.md)",
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        "fp32", description="bf16: autocast; auto: bf16 where the device is made for it"
    )
    patch: int | None = Field(
        None,
        ge=SMALLEST_IMAGE,
        le=LARGEST_IMAGE,
        description="side of the training patches in pixels; null: whole images",
    )
    patches_per_slice: int = Field(
        1, ge=1, le=MOST, description="patches of each slice in an epoch"
    )
    warmup_rounds: int = Field(
        0, ge=0, le=MOST, description="rounds over which the learning rate rises linearly"
    )
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="learning rate after the warm-up; cosine falls to 0"
    )
    optimizer_state: Literal["persist_private", "persist_all", "fresh"] = Field(
        "persist_private", description="which moments of the optimizer survive a round"
    )
    threads: int = Field(
        1, ge=1, le=256, description="CPU threads of a client; part of the result's bits"
    )
    evaluate_every: int = Field(
        10, ge=1, le=MOST, description="rounds between two evaluations on validation patients"
    )

    def steps_per_round(self, slices: int) -> int:
        """Return the steps of a client with so many training slices in a round."""
        return self.local_epochs * -(-slices * self.patches_per_slice // self.batch_size)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.patches_per_slice > 1 and self.patch is None:
            raise ValueError("'patches_per_slice' above 1 needs 'patch', the patches' side")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError("'momentum' is of 'optimizer: sgd'; Adam has its own")
        if self.warmup_rounds >= self.rounds:
            raise ValueError(
                f"'warmup_rounds' ({self.warmup_rounds}) must be below 'rounds' ({self.rounds})"
            )
        return self
