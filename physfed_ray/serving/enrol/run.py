"""Enrolling: a new client trains its private part against a run, and the gain is measured."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from physfed_ray.ct.protocol import Protocol
from physfed_ray.data.dataset import whole_batch
from physfed_ray.data.prepare import Prepared, prepare
from physfed_ray.data.store import ClientData, read_client_data
from physfed_ray.device import torch_threads
from physfed_ray.errors import PhysFedError
from physfed_ray.events import Event
from physfed_ray.experiment import Experiment
from physfed_ray.federation.names import split_told
from physfed_ray.federation.spec import ClientFiles, Spec
from physfed_ray.methods.given import ClientInfo
from physfed_ray.rundir.data_record import read_record
from physfed_ray.rundir.lock import alone
from physfed_ray.rundir.long_table import SLICE_COLUMNS, LongTable
from physfed_ray.rundir.run_directory import RunDirectory, client_file, round_name
from physfed_ray.serving.choice import Policy
from physfed_ray.serving.enrol.card import (
    FOLDER,
    SCORES,
    WEIGHTS,
    EnrolledCard,
    Result,
    base_of,
    file_of,
    write_card,
)
from physfed_ray.serving.enrol.fitting import Fit, Fitting, read_fields
from physfed_ray.serving.enrol.measure import Row, scored
from physfed_ray.serving.enrol.newcomer import for_newcomer, keeps_private, trained_parts
from physfed_ray.serving.enrol.patients import (
    client_experiment,
    dealt,
    fitted,
    known_before,
    of_patients,
    order_of_patients,
    phantom_seed,
)
from physfed_ray.serving.enrol.wish import Wish, curve, free_name
from physfed_ray.serving.protocol_file import named_or_read
from physfed_ray.serving.rebuild import read_weights, rebuild
from physfed_ray.serving.trained import TrainedRun, load_run

OnEvent = Callable[[Event], None]
TELL_S = 20.0
"""Between two messages about rounds."""


def enrol(run_dir: str | Path, wish: Wish, on_event: OnEvent = lambda event: None) -> EnrolledCard:
    """Train a new client's private part against a finished run, and measure what it gains.

    Nothing appears below ``enrolled/`` until all is done: after an interruption, the same call
    begins anew, with the scans that were made. No other file of the run directory is written.

    Args:
        run_dir: A run directory, local path or fsspec URL.
        wish: What is asked for.
        on_event: Receives the events of ``prepare``, and messages.

    Raises:
        PhysFedError: For anything a user can mend.
    """
    run = load_run(run_dir)
    named = named_or_read(wish.protocol)
    protocol = run.protocol(named) if isinstance(named, str) else named
    protocol.normalised(run.card.further)  # refuses what the run's networks cannot be told
    for_newcomer(run.method, one_shot=wish.one_shot)
    with closing(RunDirectory(run_dir)) as directory:
        name = free_name(run, directory, wish)
        work = _Work(run, directory, wish, name, protocol, on_event)
        experiment, source, known = work.before_any_scan()
        lock = f"{directory.root.rstrip('/')}/{FOLDER}"
        with alone(lock, work.tell), torch_threads(work.threads):
            free_name(run, directory, wish)  # nobody else took it meanwhile
            prepared = prepare(experiment, progress=on_event, source=source)
            card = work.enrol(experiment, prepared, known)
            write_card(directory, card)
    return card


@dataclass(frozen=True)
class _Data:
    """A new client's slices by split."""

    train: ClientData
    validation: ClientData
    test: ClientData

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the slices of each patient by pseudonym, by split."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {
            split: {name: part.patient.count(name) for name in dict.fromkeys(part.patient)}
            for split, part in parts.items()
        }


class _Work:
    """One enrolment."""

    def __init__(
        self,
        run: TrainedRun,
        directory: RunDirectory,
        wish: Wish,
        name: str,
        protocol: Protocol,
        on_event: OnEvent,
    ) -> None:
        self.run, self.directory, self.wish = run, directory, wish
        self.name, self.protocol, self.on_event = name, protocol, on_event
        self.threads = wish.threads or run.card.training.threads
        self.device = wish.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.manifest = directory.manifest(run.round)

    def tell(self, text: str) -> None:
        """Tell the user something."""
        self.on_event({"event": "message", "text": text})

    def before_any_scan(self) -> tuple[Experiment, Any, str]:
        """Return what prepares the patients, their source, and what is known of them.

        Raises:
            PhysFedError: There are too few, or the run had some of them.
        """
        dealing = self.wish.dealing
        if dealing.folder is None:
            dealing = replace(dealing, seed=phantom_seed(dealing.seed, self.name))
        settings = self.directory.read_yaml("experiment.yaml")
        experiment = client_experiment(settings, self.run.card, self.name, self.protocol, dealing)
        experiment, source = dealt(experiment, dealing)
        held = experiment.data.test_patients, experiment.data.validation_patients
        curve(len(source.ids()) - sum(n for n in held if isinstance(n, int)), self.wish.curve)
        record = read_record(self.directory)
        known = known_before(source, record, allowed=self.wish.known_patients)
        self.tell(f"patients: {known}")
        self._check_start()
        return experiment, source, known

    def _check_start(self) -> None:
        if self.wish.start == "nearest" and not self._private:
            raise PhysFedError(
                f"{self.run.method.title} shares its whole network, so a new client starts from a "
                "copy of the shared decoder: leave --start out"
            )

    @cached_property
    def _private(self) -> bool:
        return keeps_private(self.run.method)

    def enrol(self, experiment: Experiment, prepared: Prepared, known: str) -> EnrolledCard:
        """Train, score, write weights and scores, and return the card."""
        spec = self._spec(experiment, prepared)
        data = self._read(spec, prepared)
        start, says = self._start()
        served = list(self._served(spec, data.test))
        how = self._one_shot if self.wish.one_shot else self._curve
        learnt = list(how(spec, data, start))
        results = [result for result, _ in served] + [result for result, _, _ in learnt]
        rows = [row for _, found in served for row in found]
        rows += [row for _, found, _ in learnt for row in found]
        fit = learnt[-1][2]  # of all training patients
        weights = self.directory.write_tensors(file_of(self.name, WEIGHTS), fit.private)
        self.directory.write_table(file_of(self.name, SCORES), LongTable(SLICE_COLUMNS, rows))
        return EnrolledCard(
            id=self.name,
            protocol=self.protocol,
            trained=trained_parts(spec.method),
            start=says,
            base=base_of(self.directory, self.manifest),
            weights=weights,
            patients=data.counts(),
            source=prepared.data_summary["source"],
            known=known,
            settings=self._settings(spec),
            results=tuple(results),
            versions={"physfed_ray": version("physfed_ray"), "torch": torch.__version__},
        )

    def _spec(self, experiment: Experiment, prepared: Prepared) -> Spec:
        """Return the federation of one client that trains."""
        card, training = self.run.card, experiment.training
        rounds = self.wish.rounds or card.training.rounds
        training = training.model_copy(
            update={"rounds": rounds, "warmup_rounds": min(training.warmup_rounds, rounds - 1),
                    "threads": self.threads}
        )  # fmt: skip
        (client,) = prepared.clients
        info = ClientInfo(
            len(card.clients),
            self.name,
            self.protocol,
            client.slices,
            further=card.further,
            front=client.front,
        )
        return Spec(
            seed=self.wish.dealing.seed,
            method=for_newcomer(
                rebuild(card, training.objective.make()), one_shot=self.wish.one_shot
            ),
            training=training,
            precision=card.precision,
            clients=(info,),
            files=(ClientFiles(client.train, client.validation, client.test),),
            unseen=(),
            window_hu=card.window_hu,
            clinical_windows=dict(experiment.data.clinical_windows),
            run_root=None,
            simulation=experiment.data.simulation,
            device=self.device,
            noise=experiment.data.noise,
        )

    def _read(self, spec: Spec, prepared: Prepared) -> _Data:
        (client,) = prepared.clients
        parts = {}
        for split in ("train", "validation", "test"):
            path = getattr(client, split)
            extra = read_fields(spec) if split == "train" else spec.method.extra_fields
            parts[split] = fitted(read_client_data(path, extra), self.run.card, self.protocol)
        return _Data(**parts)

    def _start(self) -> tuple[Mapping[str, Tensor] | None, Literal["initial", "nearest", "shared"]]:
        """Return the private weights to start from, None for initial ones, and what they are."""
        if self.wish.one_shot:
            return None, "initial"
        if not self._private:
            return self._shared, "shared"
        if self.wish.start == "initial":
            return None, "initial"
        client = self.run.denoiser(protocol=self.protocol, device="cpu").choice.client
        assert client is not None  # a method with a private part is served by a client's
        number = self.manifest.private_rounds[client]
        if number == 0:
            return None, "nearest"
        name = client_file(number, client)
        return read_weights(self.directory, self.manifest, name), "nearest"

    @cached_property
    def _shared(self) -> Mapping[str, Tensor]:
        """The run's shared tensors, none for a method that shares nothing."""
        if not self.run.method.shared:
            return {}
        name = f"{round_name(self.run.round)}/server.safetensors"
        return read_weights(self.directory, self.manifest, name)

    @cached_property
    def _extras(self) -> dict[str, np.ndarray]:
        """What the run's server broadcasts beside the shared vector: codes, what was published."""
        name = f"{round_name(self.run.round)}/codebook.safetensors"
        if name not in self.manifest.parts and not self.directory.exists(name):
            return {}
        found = read_weights(self.directory, self.manifest, name)
        return split_told({key: value.numpy() for key, value in found.items()})[1]

    def _served(self, spec: Spec, test: ClientData) -> Iterator[tuple[Result, list[Row]]]:
        """Score the test patients' input, and each way to serve the protocol unseen."""
        yield scored("input", "the images as they are", spec, test, np.asarray(test.low))
        policies: list[Policy | None] = [None]
        if self.run.codes is not None:
            policies.append("nearest_protocol")
        for policy in policies:
            denoiser = self.run.denoiser(
                protocol=self.protocol, policy=policy, device=self.device, threads=self.threads
            )
            images = denoiser.denoise(test.low, test.embedding, test.embedding_mask, test.extra)
            choice = denoiser.choice
            yield scored(f"unseen/{choice.policy}", str(choice), spec, test, images)

    def _curve(
        self, spec: Spec, data: _Data, start: Mapping[str, Tensor] | None
    ) -> Iterator[tuple[Result, list[Row], Fit]]:
        """Train on growing numbers of patients, each time from the start, and score.

        Passes over fewer slices are made more often, so that each point makes about as many steps.
        """
        order = order_of_patients(data.train, spec.seed)
        for count in curve(len(order), self.wish.curve):
            train = of_patients(data.train, order[:count])
            epochs = round(spec.training.local_epochs * len(data.train) / len(train))
            own = replace(
                spec, training=spec.training.model_copy(update={"local_epochs": max(1, epochs)})
            )
            fitting = Fitting(
                own, self.run.card.seed, self._shared, start, self._extras, self.wish.patience
            )
            says = f"enrolled with {count} patient{'s' * (count > 1)}"
            fit = fitting.fit(train, data.validation, self._rounds(says))
            if fit.stopped:
                self.tell(f"{says}: ended after round {len(fit.validation) - 1}: {fit.stopped}")
            images = fitting.denoise(data.test)
            result, rows = scored(f"enrolled/{count}", says, spec, data.test, images)
            psnr = np.mean(list(result.scores["psnr"].values()))
            self.tell(f"{says}: round {fit.round} by validation, test PSNR {psnr:.2f} dB")
            learnt = {
                "patients": count,
                "slices": len(train),
                "round": fit.round,
                "rounds": len(fit.validation) - 1,
                "validation": fit.validation,
            }
            yield result.model_copy(update=learnt), rows, fit

    def _one_shot(
        self, spec: Spec, data: _Data, start: Mapping[str, Tensor] | None
    ) -> Iterator[tuple[Result, list[Row], Fit]]:
        """Weight the steps after the middle slice of the first training patient, and score."""
        first = of_patients(data.train, order_of_patients(data.train, spec.seed)[:1])
        fitting = Fitting(
            spec, self.run.card.seed, self._shared, start, self._extras, self.wish.patience
        )
        fit = fitting.fit_steps(
            whole_batch(first, slice(len(first) // 2, len(first) // 2 + 1)), data.validation
        )
        says = "enrolled with 1 slice, which weights the steps"
        images = fitting.denoise(data.test)
        result, rows = scored("enrolled/1", says, spec, data.test, images)
        weights = ", ".join(f"{w:.3f}" for w in next(iter(fit.private.values())).softmax(0))
        self.tell(f"weights of the steps, the last step last: {weights}")
        learnt = {"patients": 1, "slices": 1, "round": 1, "rounds": 1, "validation": fit.validation}
        yield result.model_copy(update=learnt), rows, fit

    def _rounds(self, says: str) -> Callable[[int, float], None]:
        """Return what tells of a round, now and then."""
        told = time.monotonic()

        def tell(number: int, psnr: float) -> None:
            nonlocal told
            if time.monotonic() - told > TELL_S:
                told = time.monotonic()
                self.tell(f"{says}: after round {number}, validation PSNR {psnr:.2f} dB")

        return tell

    def _settings(self, spec: Spec) -> dict[str, Any]:
        return {
            "seed": spec.seed,
            "rounds": spec.training.rounds,
            "patience": self.wish.patience,
            "one_shot": self.wish.one_shot,
            "threads": self.threads,
            "device": torch.device(self.device).type,
            "precision": spec.precision,
            "noise": spec.noise,
            "training": spec.training.model_dump(mode="json"),
            "simulation": asdict(spec.simulation),
        }
