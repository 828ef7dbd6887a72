"""The manifest of a completed round: what it consists of, with a checksum of every part."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from physfed_ray.checksum import seal, unseal
from physfed_ray.errors import DamagedError
from physfed_ray.rundir.long_table import METRICS_FILE

PART_CURE = (
    "run again with --resume, which goes on from the newest intact round, or copy the run "
    "directory again"
)


@dataclass(frozen=True)
class Manifest:
    """What a completed round consists of; a round exists when its manifest does.

    Attributes:
        round: The completed round; 0 is the start.
        private_rounds: For every client, the round after which its private state stood and whose
            folder holds its file (0: none yet, the initial state). That folder need not have a
            manifest.
        bases: Earlier rounds whose shared parameters are still in use, because clients of an
            asynchronous schedule train on them.
        parts: The checksum of every file that the round needs, by its name below the run
            directory; empty where an earlier version wrote the manifest.
    """

    round: int
    private_rounds: dict[str, int]
    bases: tuple[int, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict, compare=False)

    def files(self) -> set[str]:
        """Return the names of all files that the round may need, its manifest among them."""
        shared = {
            f"{round_name(number)}/{name}.safetensors"
            for number in (self.round, *self.bases)
            for name in ("server", "codebook", "channel")
        }
        private = {client_file(number, client) for client, number in self.private_rounds.items()}
        own = {manifest_name(self.round), f"{round_name(self.round)}/{METRICS_FILE}"}
        return shared | private | own

    def supersedes(self, name: str, number: int) -> bool:
        """Say whether a file (also an unfinished one) of a round's folder is older than this."""
        folder, _, file = name.rpartition("/")
        if not folder.endswith("/clients"):
            return number < self.round
        client = file.split(".safetensors")[0]
        return number <= self.private_rounds.get(client, self.round)

    def to_json(self) -> bytes:
        """Return the bytes of its file."""
        return seal(asdict(self))

    @classmethod
    def from_json(cls, content: bytes, number: int, where: str) -> Self:
        """Read the bytes of a round's manifest.

        Args:
            content: The bytes.
            number: The round whose folder it lies in.
            where: The file, for the message.

        Raises:
            DamagedError: It is not as it was written, or belongs to another round.
        """
        # Earlier versions wrote neither checksums of parts nor their own.
        state = unseal(content, where, PART_CURE, required=b'"parts"' in content)
        try:
            manifest = cls(
                int(state["round"]),
                {str(client): int(n) for client, n in state["private_rounds"].items()},
                tuple(int(base) for base in state.get("bases", ())),
                dict(state.get("parts", {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DamagedError(where, PART_CURE) from None
        if manifest.round != number:
            raise DamagedError(where, PART_CURE, f"is that of round {manifest.round}")
        return manifest


def manifest_name(number: int) -> str:
    """Return the file of a round's manifest."""
    return f"{round_name(number)}/state.json"


def round_name(number: int) -> str:
    """Return the folder of a round's checkpoint, below the run directory."""
    return f"checkpoints/round-{number:04d}"


def client_file(number: int, client: str) -> str:
    """Return the file of a client's private state."""
    return f"{round_name(number)}/clients/{client}.safetensors"
