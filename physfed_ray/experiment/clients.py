"""Keys under ``clients`` and ``unseen``: who takes part, and under which protocol."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError, ValidationInfo

from physfed_ray.ct.protocol import FURTHER, PRESETS, SEVEN, Protocol, select_presets
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.explain import did_you_mean, explain
from physfed_ray.experiment.from_header import FROM_HEADER, PartlyKnown
from physfed_ray.experiment.generate import Generate, draw_protocols, draw_speeds
from physfed_ray.experiment.patients import patients
from physfed_ray.experiment.settings import LONGEST_NAME, NAME, Settings

PROTOCOL_KEYS = (*SEVEN, *FURTHER)
ID_PREFIX = {"clients": "g", "unseen": "u", "protocols": "p"}
"""Begins the ids of generated clients, unseen protocols and protocols of pretraining."""


def _protocol(value: Any) -> Any:
    if isinstance(value, str):
        if value not in PRESETS:
            raise ValueError(f"no protocol is called '{value}'; {did_you_mean(value, PRESETS)}")
        return PRESETS[value]
    if not isinstance(value, dict):
        return value
    for key in value:
        if key not in PROTOCOL_KEYS:
            raise ValueError(f"unknown key '{key}'; {did_you_mean(str(key), PROTOCOL_KEYS)}")
    missing = [key for key in SEVEN if key not in value]
    if missing and not set(missing) <= set(FROM_HEADER):
        raise ValueError(f"a protocol has seven numbers; missing: {', '.join(missing)}")
    try:
        return PartlyKnown.of(value) if missing else Protocol(**value)
    except PhysFedError as error:
        raise ValueError(str(error)) from None


def _written(protocol: Protocol) -> dict[str, Any]:
    return protocol.values()


def _patients(value: Any) -> Any:
    return None if value is None else patients(value, fewest=1)


class ClientSpec(Settings):
    """A client, or an unseen protocol that is only tested."""

    id: str = Field(
        pattern=NAME, max_length=LONGEST_NAME, description="name in logs, tables and files"
    )
    protocol: Annotated[Protocol, BeforeValidator(_protocol), PlainSerializer(_written)] = Field(
        description="name of a preset (`physfed protocols`), or the seven numbers and, unless "
        "they are flat and 360, `detector` and `arc_deg`; of measured pairs, `pixel_mm`, "
        "`source_mm` and `detector_mm` may be left to the DICOM headers"
    )
    patients: Annotated[int | tuple[str, ...] | None, BeforeValidator(_patients)] = Field(
        None,
        description="ids of its patients, or how many it is dealt; null: a share of those that "
        "remain",
    )
    labels: bool = Field(
        True,
        description="whether it has the full dose of its training patients; false: it trains only "
        "under methods that need none (docs/data.md)",
    )
    speed: float = Field(
        1.0,
        ge=1e-6,
        le=1e6,
        description="simulated local steps in the time in which a client of speed 1 makes one",
    )

    @property
    def listed_patients(self) -> tuple[str, ...]:
        """The patients that it lists by their ids."""
        return self.patients if isinstance(self.patients, tuple) else ()

    @property
    def needed_patients(self) -> int:
        """How many patients it cannot do without."""
        return self.patients if isinstance(self.patients, int) else len(self.listed_patients) or 1


def _expand(value: Any, info: ValidationInfo) -> Any:
    """Return a list of clients for names of protocols, patterns over them, or ``generate``."""
    key = str(info.field_name)
    if isinstance(value, str):
        return _named(value, key)
    if isinstance(value, dict):
        return list(_generated(value, key))
    if not isinstance(value, list | tuple):
        return value
    clients: list[Any] = []
    for place, entry in enumerate(value):
        clients += _named(entry, f"{key}.{place}") if isinstance(entry, str) else [entry]
    return clients


def _named(pattern: str, key: str) -> list[dict[str, str]]:
    """Return the clients called like the protocols that a name or a pattern stands for."""
    try:
        return [{"id": name, "protocol": name} for name in select_presets(pattern)]
    except PhysFedError as error:
        raise PhysFedError(f"{key}: {error}") from None


def _generated(value: dict[Any, Any], key: str) -> Iterator[ClientSpec]:
    """Yield the clients that ``{generate: ...}`` describes."""
    if set(value) != {"generate"} or not isinstance(value["generate"], dict):
        raise ValueError(
            "must be a list of clients ({id: ..., protocol: ...}, or names of protocols), a "
            "pattern such as 'paper-*', or {generate: {clients: 512}}"
        )
    try:
        chosen = Generate.model_validate(value["generate"])
        if key != "clients" and chosen.model_fields_set & {"patients_per_client", "speed_spread"}:
            raise ValueError(
                f"a protocol under '{key}' has neither patients of its own nor a speed; take "
                "'patients_per_client' and 'speed_spread' out of 'generate'"
            )
        protocols = list(draw_protocols(chosen, key))
    except ValidationError as error:
        raise PhysFedError(explain(error, Generate, f"{key}.generate.")) from None
    except PhysFedError as error:
        raise PhysFedError(f"{key}.generate.protocols: {error}") from None
    patients = chosen.patients_per_client if key == "clients" else None
    digits = len(str(chosen.clients))
    pairs = zip(protocols, draw_speeds(chosen, key), strict=True)
    for number, (protocol, speed) in enumerate(pairs, 1):
        name = f"{ID_PREFIX[key]}{number:0{digits}d}"
        yield ClientSpec(id=name, protocol=protocol, patients=patients, speed=speed)


Clients = Annotated[tuple[ClientSpec, ...], BeforeValidator(_expand)]
