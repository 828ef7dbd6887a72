"""What a prepared data set consists of, and the manifest that declares it whole."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from physfed_ray.atomic import atomic_file
from physfed_ray.checksum import seal, unseal
from physfed_ray.ct.protocol import Protocol
from physfed_ray.data.store import client_data_sums
from physfed_ray.data.verified import CURE
from physfed_ray.errors import DamagedError, PhysFedError
from physfed_ray.front_ends.base import Choice
from physfed_ray.rundir.data_record import DataRecord
from physfed_ray.rundir.model import Statistics

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class PreparedClient:
    """Where one client's files lie, and how much they hold.

    Attributes:
        id: The client's name, or the name of an unseen protocol.
        protocol: How its scanner scans.
        train: Training file; None for an unseen protocol.
        validation: Validation file; None without validation patients, or for an unseen protocol.
        test: Test file; None without test patients.
        slices: Training slices (of an unseen protocol: test slices).
        patients: Training patients (of an unseen protocol: test patients).
        checksums: Of what each of its files holds, by split.
        images: Checksums of the images alone.
        front: What a fixed front end has chosen for its protocol.
    """

    id: str
    protocol: Protocol
    train: Path | None
    validation: Path | None
    test: Path | None
    slices: int
    patients: int
    checksums: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    front: Choice = field(default_factory=dict)


@dataclass(frozen=True)
class PreparedServer:
    """The server's paired images, by the scanners of all clients, in one file.

    Attributes:
        path: The file.
        slices: Slices in it: every patient's under every client's protocol.
        patients: Patients.
        checksum: Of what the file holds.
        images: Checksum of the images alone.
    """

    path: Path
    slices: int
    patients: int
    checksum: str = ""
    images: str = ""


@dataclass(frozen=True)
class Prepared:
    """A prepared data set, as its manifest describes it.

    Attributes:
        root: Folder of the files.
        image_size: Side n of the images in pixels.
        window_hu: HU that 0 and 1 stand for.
        clients: The training clients, in the experiment's order.
        unseen: The unseen protocols, in the experiment's order.
        statistics: Standardisation constants.
        data_summary: What was found, kept and left out, and why; pseudonyms only.
        record: What identifies the data set; None until ``prepare`` returns it.
        server: The server's paired images; None without patients of the server.
    """

    root: Path
    image_size: int
    window_hu: tuple[float, float]
    clients: tuple[PreparedClient, ...]
    unseen: tuple[PreparedClient, ...]
    statistics: Statistics
    data_summary: dict[str, Any]
    record: DataRecord | None = field(default=None, compare=False)
    server: PreparedServer | None = None

    def save(self) -> None:
        """Write the manifest, atomically; to be done last, because it declares all files whole."""
        values = asdict(self)
        del values["root"], values["record"]
        for client in (*values["clients"], *values["unseen"]):
            for split in ("train", "validation", "test"):
                if client[split] is not None:
                    client[split] = client[split].relative_to(self.root).as_posix()
        if self.server is not None:
            values["server"]["path"] = self.server.path.relative_to(self.root).as_posix()
        with atomic_file(self.root / MANIFEST) as temporary:
            temporary.write_bytes(seal(values))

    @classmethod
    def load(cls, root: Path) -> Self:
        """Read the manifest of a prepared folder.

        Every file is read once in a process, to compare it with its checksum.

        Raises:
            PhysFedError: There is no manifest.
            DamagedError: The manifest, or a file that it names, is gone or not as it was written.
        """
        try:
            content = (root / MANIFEST).read_bytes()
        except OSError as error:
            raise PhysFedError(
                f"{root} holds no finished data set; run `physfed prepare` first."
            ) from error
        values = unseal(content, str(root / MANIFEST), CURE)
        return cls(
            root=root,
            image_size=values["image_size"],
            window_hu=(values["window_hu"][0], values["window_hu"][1]),
            clients=tuple(_load_client(root, client) for client in values["clients"]),
            unseen=tuple(_load_client(root, client) for client in values["unseen"]),
            statistics=Statistics(**values["statistics"]),
            data_summary=values["data_summary"],
            server=_load_server(root, values["server"]),
        )


def _load_server(root: Path, values: dict[str, Any] | None) -> PreparedServer | None:
    if values is None:
        return None
    server = PreparedServer(**values | {"path": root / values["path"]})
    _check_file(server.path, server.checksum)
    return server


def _check_file(file: Path, checksum: str | None) -> None:
    if not file.is_file():
        raise DamagedError(str(file), CURE, "is gone")
    own = client_data_sums(file)[0]
    if checksum and own != checksum:
        raise DamagedError(str(file), CURE, "is another client's, or of another data set")


def _load_client(root: Path, values: dict[str, Any]) -> PreparedClient:
    files = {
        split: None if values[split] is None else root / values[split]
        for split in ("train", "validation", "test")
    }
    for split, file in files.items():
        if file is not None:
            _check_file(file, values["checksums"].get(split))
    return PreparedClient(
        id=values["id"],
        protocol=Protocol(**values["protocol"]),
        slices=values["slices"],
        patients=values["patients"],
        checksums=values["checksums"],
        images=values["images"],
        front=values["front"],
        **files,
    )
