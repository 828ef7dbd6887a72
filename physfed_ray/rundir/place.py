"""Whether a place can be a run directory, found out without torch."""

from pathlib import Path

from physfed_ray.errors import PhysFedError


def no_run(root: str | Path) -> PhysFedError:
    """Return the error that says that a place holds no run."""
    return PhysFedError(
        f"{root} is not a run directory (it has no experiment.yaml); "
        "give the folder that `physfed run` printed"
    )


def require_run(root: Path) -> None:
    """Refuse a path of this machine that holds no run.

    Raises:
        PhysFedError: It does not. A URL is left to whoever opens it.
    """
    url = root.parts[0].endswith(":") if root.parts else False
    try:
        if not url and not (root / "experiment.yaml").is_file():
            raise no_run(root)
    except (OSError, ValueError) as error:
        raise PhysFedError(f"{str(root)[:60]!r} is no path: {error}") from None
