"""Keys under ``reports``: reporter, text encoder, and the pool of actors that they work in."""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from physfed_ray.experiment.named import Named, only_names
from physfed_ray.experiment.settings import LONGEST_S, MOST, Settings, operational
from physfed_ray.reports.base import PartSettings
from physfed_ray.reports.registry import ENCODERS, REPORTERS

if TYPE_CHECKING:
    from physfed_ray.reports.describer import Describer


class ReporterSpec(Named):
    """A reporter and its settings."""

    settings: SerializeAsAny[PartSettings]
    registry = REPORTERS
    key = "reports.reporter"
    example = "measured"


class EncoderSpec(Named):
    """A text encoder and its settings."""

    settings: SerializeAsAny[PartSettings]
    registry = ENCODERS
    key = "reports.encoder"
    example = "minilm"


Auto = Literal["auto"]


class Pool(Settings):
    """The actors that write reports; none of these keys changes what they write."""

    gpus_per_reporter: Annotated[float, Field(ge=0, le=64)] | Auto = Field(
        "auto",
        description="GPUs of each, may be a fraction; auto: one where the cluster has any and the "
        "reporter or the encoder gains by it",
    )
    cpus_per_reporter: float = Field(1, gt=0, le=4096, description="CPUs of each")
    min_size: int = Field(1, ge=1, le=MOST, description="actors that are always there")
    max_size: Annotated[int, Field(ge=1, le=MOST)] | Auto = Field(
        "auto", description="actors when there is much to do; auto: as many as the cluster carries"
    )
    max_batch: int = Field(16, ge=1, le=MOST, description="slices of one batch")
    max_wait_s: float = Field(
        0.05,
        ge=0,
        le=LONGEST_S,
        description="seconds that a request waits for others to join its batch",
    )
    max_queued: int = Field(
        256, ge=1, le=MOST, description="requests that may wait; who asks for more is held up"
    )
    timeout_s: float = Field(
        600, gt=0, le=LONGEST_S, description="seconds until a request that got no answer has failed"
    )
    retries: int = Field(
        3,
        ge=0,
        le=MOST,
        description="times that a request is repeated when its actor or machine died",
    )

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.max_size != "auto" and self.max_size < self.min_size:
            raise ValueError(f"max_size ({self.max_size}) is below min_size ({self.min_size})")
        return self


class Reports(Settings):
    """How a slice's anatomy becomes f_t."""

    reporter: ReporterSpec = Field(
        default_factory=lambda: ReporterSpec.model_validate("measured"),
        description="what writes a report from the low-dose slice",
    )
    encoder: EncoderSpec = Field(
        default_factory=lambda: EncoderSpec.model_validate("minilm"),
        description="what turns the report into its embedding f_t",
    )
    pool: Pool = operational(Pool(), description="the actors that do so on Ray")

    @model_validator(mode="after")
    def _encoder_has_a_model(self) -> Self:
        if not only_names():
            self._encoder_settings()
        return self

    def _encoder_settings(self) -> PartSettings:
        settings: PartSettings = self.encoder.settings.with_model(self.reporter.settings)
        return settings

    def make(self) -> "Describer":
        """Return the reporter and the encoder, which have read no weights yet.

        Raises:
            PhysFedError: A model is not there, or cannot do this.
        """
        from physfed_ray.reports.describer import Describer

        return Describer(
            REPORTERS[self.reporter.name](self.reporter.settings),
            ENCODERS[self.encoder.name](self._encoder_settings()),
        )
