"""What a user wants denoised by what: one description for this process and for actors elsewhere."""

from dataclasses import dataclass
from typing import Any

from physfed_ray import __version__
from physfed_ray.ct.protocol import Protocol
from physfed_ray.data.dicom.derived import Model
from physfed_ray.errors import PhysFedError
from physfed_ray.serving.choice import Choice, Policy
from physfed_ray.serving.denoiser import Denoiser
from physfed_ray.serving.own_grid import Rule
from physfed_ray.serving.trained import TrainedRun, load_run

PURPOSE = "Noise reduced by a neural network that was trained by federated learning on CT images"


@dataclass(frozen=True)
class Wanted:
    """Which model of which run, and how it is applied.

    Attributes:
        run: The run directory: a path or an fsspec URL.
        client: Whose own model; or
        protocol: How the images were scanned: a protocol, or a name of one.
        policy: How a protocol is served, None for the first that the method can.
        rule: As in ``serving.own_grid``.
        batch: Slices that go through the network at a time.
        threads: CPU threads.
        device: ``cpu`` or ``cuda``.
    """

    run: str
    client: str | None
    protocol: Protocol | str | None
    policy: Policy | None
    rule: Rule
    batch: int
    threads: int
    device: str

    def load(self) -> tuple[TrainedRun, Denoiser]:
        """Load the model.

        Raises:
            PhysFedError: As of ``load_run`` and ``TrainedRun.denoiser``; or the client is none.
        """
        run = load_run(self.run)
        denoiser = run.denoiser(
            self.client,
            protocol=self.protocol,
            policy=self.policy,
            device=self.device,
            threads=self.threads,
        )
        if self.client is not None and denoiser.choice.policy != "own":
            raise PhysFedError(
                f"the run has no client '{self.client}'; it has: {', '.join(run.clients)}; "
                f"for a scanner that is no client, give --protocol {self.client}"
            )
        return run, denoiser

    def pixels(self) -> dict[str, Any]:
        """Return what decides pixels beside the model and the images."""
        return {"rule": self.rule, "batch": self.batch, "threads": self.threads,
                "device": self.device}  # fmt: skip


def model_of(run: TrainedRun, denoiser: Denoiser, rule: Rule) -> Model:
    """Return what the files of a denoised series say of their model."""
    name = f"{run.method.title}, {_whose(denoiser.choice)}, round {run.round}"
    return Model(
        name=name,
        version=__version__,
        run_hash=denoiser.model_hash,
        purpose=f"{PURPOSE}, on {'its own' if rule == 'own' else 'the training'} grid",
    )


def _whose(choice: Choice) -> str:
    if choice.client is None:
        return "shared network"
    served = {"own": "", "pvqs": "PVQS, ", "nearest_protocol": "nearest protocol, "}
    return f"{served.get(choice.policy, '')}client {choice.client}"
