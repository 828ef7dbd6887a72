"""Keys under ``clients`` and ``unseen``: who takes part, and under which protocol."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from physfed_ray.ct.protocol import PRESETS, Protocol, select_presets
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.file import did_you_mean
from physfed_ray.experiment.settings import Settings

PROTOCOL_KEYS = tuple(Protocol.__dataclass_fields__)


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
    missing = [key for key in PROTOCOL_KEYS if key not in value]
    if missing:
        raise ValueError(f"a protocol has seven numbers; missing: {', '.join(missing)}")
    try:
        return Protocol(**value)
    except PhysFedError as error:
        raise ValueError(str(error)) from None


class ClientSpec(Settings):
    """A client, or an unseen protocol that is only tested."""

    id: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name in logs, tables and files"
    )
    protocol: Annotated[Protocol, BeforeValidator(_protocol)] = Field(
        description="name of a preset (`physfed protocols`) or the seven numbers"
    )
    patients: tuple[str, ...] | None = Field(
        None, min_length=1, description="ids of its patients; null: dealt out"
    )
    speed: float = Field(
        1.0,
        gt=0,
        description="simulated local steps in the time in which a client of speed 1 makes one",
    )


def _expand(value: Any) -> Any:
    """Return a list of clients for a pattern over protocol names."""
    if isinstance(value, str):
        try:
            presets = select_presets(value)
        except PhysFedError as error:
            raise ValueError(str(error)) from None
        return [{"id": name, "protocol": name} for name in presets]
    if isinstance(value, dict):
        if "generate" in value:
            raise ValueError(
                "generated clients do not exist yet; list the clients or give a pattern "
                "over protocol names such as 'paper-*'"
            )
        raise ValueError("must be a list of clients or a pattern such as 'paper-*'")
    return value


Clients = Annotated[tuple[ClientSpec, ...], BeforeValidator(_expand)]
