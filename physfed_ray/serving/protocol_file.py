"""A protocol in a file of its own: the keys that `protocol` has in an experiment."""

from pathlib import Path
from typing import Any

from physfed_ray.ct.protocol import FURTHER, SEVEN, Protocol
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.explain import did_you_mean
from physfed_ray.experiment.file import read_yaml

ENDINGS = (".yaml", ".yml", ".json")
_KEYS = (*SEVEN, *FURTHER)


def named_or_read(given: str) -> str | Protocol:
    """Return the protocol of a file, or what was given where that is a name and no file.

    Raises:
        PhysFedError: See ``read_protocol``.
    """
    is_file = given.lower().endswith(ENDINGS) or "/" in given
    return read_protocol(Path(given)) if is_file else given


def read_protocol(path: Path) -> Protocol:
    """Read a protocol; its keys may stand alone, or below a key ``protocol``.

    Raises:
        PhysFedError: There is no such file, or it holds no protocol.
    """
    if not path.is_file():
        raise PhysFedError(
            f"there is no file {path} with a protocol: write one, or name a protocol "
            "(`physfed protocols` prints them)"
        )
    content = read_yaml(path)
    given: Any = content.get("protocol", content) if set(content) == {"protocol"} else content
    if not isinstance(given, dict):
        raise PhysFedError(f"{path}: a protocol has the keys {', '.join(SEVEN)}; write them")
    for key in given:
        if key not in _KEYS:
            raise PhysFedError(f"{path}: unknown key '{key}'; {did_you_mean(str(key), _KEYS)}")
    if missing := [key for key in SEVEN if key not in given]:
        raise PhysFedError(f"{path}: a protocol has seven numbers; missing: {', '.join(missing)}")
    try:
        return Protocol(**given)
    except PhysFedError as error:
        raise PhysFedError(f"{path}: {error}") from None
