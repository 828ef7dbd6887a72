"""A run directory as a model: ``load_run(path).denoiser(client="c1")``."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from physfed_ray.ct.protocol import PRESETS, Protocol
from physfed_ray.errors import DamagedError, PhysFedError
from physfed_ray.experiment import Reports
from physfed_ray.federation.client.inference import Inference
from physfed_ray.federation.flat import flat_network
from physfed_ray.methods.base import Method
from physfed_ray.reports.base import Described
from physfed_ray.reports.describer import Describer
from physfed_ray.rundir.assets import know_assets
from physfed_ray.rundir.manifest import PART_CURE, manifest_name
from physfed_ray.rundir.model import ModelCard, read_card
from physfed_ray.rundir.run_directory import Manifest, RunDirectory, client_file, round_name
from physfed_ray.serving.choice import Choice, Policy, choose, own_model
from physfed_ray.serving.denoiser import Denoiser
from physfed_ray.serving.enrol.card import (
    EnrolledCard,
    base_of,
    check_base,
    enrolled_names,
    read_enrolled,
    read_private,
)
from physfed_ray.serving.enrol.newcomer import for_newcomer
from physfed_ray.serving.rebuild import fill, read_weights, rebuild


def load_run(path: str | Path) -> "TrainedRun":
    """Load the model of a run's last completed round; nothing but the run directory is read.

    Args:
        path: A run directory: local path or fsspec URL. The run may have been interrupted.

    Raises:
        PhysFedError: There is no run, no round of it was completed, its newest checkpoint is
            gone, or what it needs is not installed.
    """
    directory = RunDirectory(path)
    card = read_card(directory)
    manifest = directory.last_manifest()
    if manifest is None or manifest.round == 0:
        raise PhysFedError(
            f"{path} holds no completed round yet; let the run go on, or resume it with --resume"
        )
    if manifest.round < _finished_round(directory):
        name = manifest_name(_finished_round(directory))
        raise DamagedError(f"{path}/{name}", PART_CURE, "is gone")
    know_assets(directory, card.assets)
    return TrainedRun(directory, card, manifest)


def _finished_round(directory: RunDirectory) -> int:
    """Return the round after which the run was finished, 0 where nothing says that it was."""
    try:
        finished = directory.read_json("summary.json")["rounds"]
    except (FileNotFoundError, DamagedError, KeyError, TypeError):
        return 0
    return finished if isinstance(finished, int) else 0


class TrainedRun:
    """The model of a run.

    Args:
        directory: The run directory.
        card: Its ``model.json``.
        manifest: The checkpoint to take.

    Attributes:
        card: What the model is.
        round: The round that it was trained to.
        method: The method, rebuilt.
    """

    def __init__(self, directory: RunDirectory, card: ModelCard, manifest: Manifest) -> None:
        self._directory, self._manifest = directory, manifest
        self.card, self.round = card, manifest.round
        self.method: Method = rebuild(card)

    def __repr__(self) -> str:
        return f"<TrainedRun {self._directory.root}: {self.method.title}, round {self.round}>"

    @property
    def clients(self) -> tuple[str, ...]:
        """Names of the training clients, in the order of the codebook; not the enrolled ones."""
        return tuple(client.id for client in self.card.clients)

    @property
    def enrolled(self) -> tuple[str, ...]:
        """Names of the clients that were enrolled after the run (``physfed enrol``), sorted."""
        return enrolled_names(self._directory)

    def enrolled_client(self, name: str) -> EnrolledCard | None:
        """Return the card of an enrolled client, None where none has that name.

        Raises:
            PhysFedError: It was enrolled to another round of the run.
            DamagedError: Its card is damaged.
        """
        found = read_enrolled(self._directory, name)
        if found is not None:
            check_base(found, base_of(self._directory, self._manifest))
        return found

    @cached_property
    def codes(self) -> np.ndarray | None:
        """The codebook, (K, code_dim) float32, None for a method that keeps none."""
        name = f"{round_name(self.round)}/codebook.safetensors"
        if name not in self._manifest.parts and not self._directory.exists(name):
            return None
        found = read_weights(self._directory, self._manifest, name).get("codes")
        return None if found is None else found.numpy()

    def protocol(self, name: str) -> Protocol:
        """Return the protocol of a client, enrolled or not, of an unseen scanner, or a preset.

        Raises:
            PhysFedError: Nothing has that name.
        """
        named = {p.id: p.protocol for p in (*self.card.unseen, *self.card.clients)}
        found = named.get(name)
        if found is None and (enrolled := read_enrolled(self._directory, name)) is not None:
            return enrolled.protocol
        found = found or PRESETS.get(name)
        if found is None:
            known = ", ".join(dict.fromkeys((*named, *PRESETS)))
            raise PhysFedError(f"no protocol is named '{name}'; there are: {known}")
        return found

    def denoiser(
        self,
        client: str | None = None,
        *,
        protocol: Protocol | str | None = None,
        policy: Policy | None = None,
        device: str | None = None,
        threads: int | None = None,
    ) -> Denoiser:
        """Return the network of a client, or that which serves a protocol nobody trained on.

        Args:
            client: Name of a training client or of an enrolled one, or else of a protocol; or
            protocol: A protocol, or a name as ``protocol`` takes it.
            policy: How a protocol is served: ``shared``, ``pvqs`` or ``nearest_protocol``; by
                default the first of them that the method can (see ``serving.choice``).
            device: ``cpu`` or ``cuda``; by default CUDA where it is.
            threads: CPU threads; by default those of the run, whose bits it then gives.

        Raises:
            PhysFedError: There is no such client, the policy does not go with the method, or
                the protocol's detector or arc is one that the run knew nothing of.
        """
        if (client is None) == (protocol is None):
            raise PhysFedError("a denoiser is that of a client or of a protocol: give one of them")
        enrolled = None if client is None else self.enrolled_client(client)
        if client is not None and enrolled is None and client not in self.clients:
            protocol = self._other_name(client)
            client = None
        if client is not None and policy is not None:
            raise PhysFedError("a client is served by its own model: leave 'policy' out")
        method = self.method
        if enrolled is not None:
            method = for_newcomer(method, one_shot=enrolled.one_shot)
        network, (shared, private) = flat_network(method, self.card.seed, "cpu")
        if shared.entries:
            name = f"{round_name(self.round)}/server.safetensors"
            fill(shared, read_weights(self._directory, self._manifest, name), name)
        if enrolled is not None:
            known = enrolled.protocol
            g = known.normalised(self.card.further)
            choice = Choice("own", enrolled.id, g, protocol=known)
            fill(private, read_private(self._directory, enrolled), f"the weights of {enrolled.id}")
        elif client is not None:
            known = self.card.client(client).protocol
            choice = own_model(self.method, self.card.client(client))
        else:
            assert protocol is not None
            known = self.protocol(protocol) if isinstance(protocol, str) else protocol
            choice = choose(self.method, network, self.card.clients, self.codes, known, policy)
        number = self._manifest.private_rounds.get(choice.client or "", 0)
        if choice.client is not None and number > 0 and private.entries and enrolled is None:
            name = client_file(number, choice.client)
            fill(private, read_weights(self._directory, self._manifest, name), name)
        network.requires_grad_(False)
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        inference = Inference(method, network.to(where).eval(), where, self.card.precision)
        return Denoiser(self.card, inference, choice, known, self.describe, threads)

    def _other_name(self, name: str) -> Protocol:
        """Return the protocol of a name that is no client's.

        Raises:
            PhysFedError: It is no protocol's either.
        """
        try:
            return self.protocol(name)
        except PhysFedError:
            raise PhysFedError(
                f"the run has no client '{name}'; it has: {', '.join(self.clients)}; and no "
                "protocol has that name (`physfed protocols` prints them)"
            ) from None

    def describe(self, hu: np.ndarray) -> Described:
        """Return reports and embeddings of N images, as the run made those that it trained on.

        Args:
            hu: (N, n, n), HU, on the run's grid.

        Raises:
            PhysFedError: The reporter's or the encoder's model is not there.
        """
        from physfed_ray.data.scanning import HU_RANGE  # with the scanner, which little else needs

        shown = np.clip(np.rint(hu), *HU_RANGE).astype(np.float32)
        return self._describer.describe(shown)

    @cached_property
    def _describer(self) -> Describer:
        """Kept, because its model takes longer to load than to write a report."""
        return Reports.model_validate(self.card.reports).make()
