"""How the settings of an objective or a backbone name an asset."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo

_NAME = re.compile(r"[a-z0-9_]+-[0-9a-f]{12}")
_ENDING = ".safetensors"


def _resolved(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    if value.endswith(_ENDING):
        base = (info.context or {}).get("base", Path.cwd())
        return str(Path(base, Path(value).expanduser()).resolve())
    if not _NAME.fullmatch(value):
        raise ValueError(
            "an asset is named as `physfed assets` prints it, for example leda-3f0a91c2d4e5, or by "
            f"the path of a {_ENDING} file, not {value[:60]!r}"
        )
    return value


AssetReference = Annotated[str, BeforeValidator(_resolved)]
"""An asset's name, or a path that is relative to the experiment's file and absolute once read."""
