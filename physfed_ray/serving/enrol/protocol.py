"""A protocol as a user names it: one of the run's, a preset, or a YAML file of its numbers."""

from pathlib import Path

from pydantic import ValidationError

from physfed_ray.ct.protocol import Protocol
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.clients import ClientSpec
from physfed_ray.experiment.explain import explain
from physfed_ray.experiment.file import read_yaml
from physfed_ray.experiment.from_header import PartlyKnown
from physfed_ray.serving.trained import TrainedRun


def read_protocol(text: str, run: TrainedRun) -> Protocol:
    """Return the protocol of a name or a file.

    Args:
        text: A name as ``run.protocol`` takes it, or the path of a YAML file with the seven
            numbers, at its top or under ``protocol:``.
        run: The run whose names count.

    Raises:
        PhysFedError: It is neither, or the numbers fit no scanner.
    """
    path = Path(text)
    if not path.is_file():
        try:
            return run.protocol(text)
        except PhysFedError as error:
            raise PhysFedError(f"{error}; nor is there a file {text}") from None
    keys = read_yaml(path)
    try:
        written = {"id": "new", "protocol": keys.get("protocol", keys)}
        protocol = ClientSpec.model_validate(written).protocol
    except ValidationError as error:
        raise PhysFedError(f"{path}: {explain(error, ClientSpec)}") from None
    if isinstance(protocol, PartlyKnown):
        missing = ", ".join(protocol.from_header)
        raise PhysFedError(f"{path}: a protocol has seven numbers; missing: {missing}")
    return protocol
