"""Keys under ``federation``: who takes part when, where the clients live, when a round fails."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from physfed_ray.experiment.channel import ChannelSpec
from physfed_ray.experiment.explain import shown
from physfed_ray.experiment.settings import LONGEST_S, MOST, RelativePath, Settings, operational

if TYPE_CHECKING:
    from physfed_ray.methods.base import Method


MOST_GPUS = 64


def _hosts(value: Any) -> Any:
    if value == "auto" or (
        isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST
    ):
        return value
    raise ValueError(f"must be 'auto' or a whole number from 1 to {MOST}, not {shown(value)}")


def _gpus(value: Any) -> Any:
    number = not isinstance(value, bool) and isinstance(value, int | float)
    if value == "auto" or (number and (0 <= value <= 1 or value in range(2, MOST_GPUS + 1))):
        return value
    raise ValueError(
        f"must be 'auto', a share of a GPU up to 1, or a whole number up to {MOST_GPUS}, not "
        f"{shown(value)}"
    )


class Availability(Settings):
    """When clients can be reached: from a file, or drawn as alternating periods."""

    csv: RelativePath | None = Field(
        None,
        description="columns client, from_round, to_round (both included): when a client that is "
        "named there can be reached; clients without a line always can",
    )
    on_rounds: float | None = Field(
        None,
        ge=1,
        le=MOST,
        description="mean length of the periods in which a client can be reached",
    )
    off_rounds: float | None = Field(
        None, ge=1, le=MOST, description="mean length of the periods in which it cannot"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        drawn = self.on_rounds is not None and self.off_rounds is not None
        if (self.csv is None) == (not drawn) or (self.on_rounds is None) != (
            self.off_rounds is None
        ):
            raise ValueError("give either 'csv' (a file) or both 'on_rounds' and 'off_rounds'")
        return self


class Federation(Settings):
    """Who takes part, where the clients live, and when a round fails."""

    participation: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the clients drawn for each round; async: share that trains at once",
    )
    sampling: Literal["uniform", "by_size"] = Field(
        "uniform", description="chance of a client to be drawn: equal, or by its training slices"
    )
    availability: Availability | None = Field(
        None, description="when clients can be reached; null: always"
    )
    schedule: Literal["sync", "async"] = Field(
        "sync",
        description="sync: rounds; async: clients train without waiting for each other, and "
        "'buffer' updates make a round (FedBuff, Nguyen et al. 2022)",
    )
    buffer: int = Field(10, ge=1, le=MOST, description="async: updates that make a round")
    deadline_steps: float | None = Field(
        None,
        gt=0,
        le=1e9,
        description="sync: simulated time, in local steps of a client of speed 1, after which a "
        "client is late; null: none is",
    )
    late: Literal["drop", "merge"] = Field(
        "drop",
        description="what becomes of a late client's update: left out, or merged into the round "
        "in which it arrives",
    )
    staleness_exponent: float = Field(
        0.5,
        ge=0,
        le=100,
        description="a: an update trained on a shared vector that is s rounds old weighs "
        "(1 + s)^-a (async, and late: merge)",
    )
    max_staleness: int = Field(
        20, ge=0, le=MOST, description="updates older than so many rounds are left out"
    )
    channel: ChannelSpec = Field(
        default_factory=lambda: ChannelSpec.model_validate("plain"),
        description="what happens to an update between its client and the server: a name, or a "
        "name with that channel's own keys. plain: nothing, the server sees the sum",
    )
    clients_per_host: Annotated[int | Literal["auto"], BeforeValidator(_hosts)] = operational(
        "auto", description="clients that share a host, one process; auto: from the resources"
    )
    gpus_per_host: Annotated[float | Literal["auto"], BeforeValidator(_gpus)] = operational(
        "auto",
        description="GPUs of a host, a share or a whole number; auto: what the cluster has, "
        "divided evenly. Name it where the GPU machines are yet to be started by the autoscaler",
    )
    wait_s: float = operational(
        1800.0, gt=0, le=LONGEST_S, description="seconds to wait for machines that the hosts need"
    )
    replace_s: float = operational(
        120.0,
        ge=0,
        le=LONGEST_S,
        description="seconds to wait for a machine in the place of a lost one, before its clients "
        "move to the other hosts",
    )
    private_memory_mb: float = operational(
        2048.0,
        ge=0,
        le=1e9,
        description="memory of a host for private states of its clients, MB; those used least "
        "recently lie in files on its disk",
    )
    deadline_s: float | None = operational(
        None,
        gt=0,
        le=LONGEST_S,
        description="real seconds after which a round goes on without hosts that hang; null: none",
    )
    quorum: float = operational(
        1.0, gt=0, le=1, description="share of the drawn clients without which the run stops"
    )
    checkpoint_every: int = operational(
        1,
        ge=1,
        le=MOST,
        description="rounds between two checkpoints; a crash repeats the rounds since",
    )
    keep_checkpoints: int = operational(
        2, ge=1, le=MOST, description="checkpoints that are kept, at least 2"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.schedule == "async" and self.deadline_steps is not None:
            raise ValueError("'deadline_steps' belongs to 'schedule: sync'; async waits for nobody")
        if self.late == "merge" and self.deadline_steps is None:
            raise ValueError("'late: merge' needs 'deadline_steps', after which a client is late")
        return self

    def refuses(self, method: "type[Method]", clients: int) -> str | None:
        """Return why the channel cannot carry what a method sends, None when it can.

        Args:
            method: The method.
            clients: How many clients there are.
        """
        from physfed_ray.federation.channel.base import Cargo
        from physfed_ray.methods.base import Method

        return self.channel.make().refuses(
            Cargo(
                method=method.name,
                uploads=method.uploads,
                publishes=method.publish is not Method.publish,
                linear=method.linear,
                compresses=method.compresses,
                pooled=method.pooled,
                stale=self.schedule == "async" or self.late == "merge",
                clients=clients,
                participation=self.participation,
            )
        )
