"""The rounds of a federation: broadcast, local training, aggregation, commit."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from physfed_ray.errors import PhysFedError
from physfed_ray.experiment import Federation
from physfed_ray.federation.host import Evaluation, Job
from physfed_ray.federation.run_directory import METRICS_SCHEMA, Manifest, RunDirectory
from physfed_ray.federation.runtime import Lost, Runtime
from physfed_ray.federation.spec import Spec
from physfed_ray.federation.training import ClientResult, learning_rate
from physfed_ray.seeds import generator

Row = tuple[int, str, str, str, float]
Event = dict[str, Any]
RETRIES = 3


@dataclass(frozen=True)
class RoundOutcome:
    """Who took part in a round, who did not and why, and the parts of the sum."""

    results: dict[int, ClientResult]
    missing: dict[int, str]
    pieces: dict[int, Any]


class Rounds:
    """Drives a runtime through the rounds, from wherever the run directory stands.

    Args:
        spec: The federation.
        settings: Participation, quorum, deadline.
        runtime: Where the hosts live.
        directory: The run directory, None when nothing is to be written.
        on_event: Receives progress events.
        on_rows: Receives the metrics of each round, for example TensorBoard.
    """

    def __init__(
        self,
        spec: Spec,
        settings: Federation,
        runtime: Runtime,
        directory: RunDirectory | None,
        on_event: Callable[[Event], None],
        on_rows: Callable[[Sequence[Row]], None],
    ) -> None:
        self.spec, self._settings, self.runtime = spec, settings, runtime
        self.directory, self._on_event, self._on_rows = directory, on_event, on_rows
        self.manifest = Manifest(0, {client.id: 0 for client in spec.clients})
        self.rows: list[Row] = []

    def resume(self) -> None:
        """Go to the last completed round of the run directory, if there is one."""
        manifest = self.directory.last_manifest() if self.directory else None
        if manifest is None or self.directory is None:
            return
        self.manifest = manifest
        self.rows = [
            row for row in self.directory.read_table("metrics.parquet") if row[0] <= manifest.round
        ]
        self.runtime.server("restore", manifest.round)

    def run(self) -> None:
        """Run all rounds that are left.

        Raises:
            PhysFedError: If fewer clients than the quorum completed a round.
        """
        for number in range(self.manifest.round + 1, self.spec.training.rounds + 1):
            self.run_round(number)

    def run_round(self, number: int) -> None:
        """Run one round and commit it."""
        began = time.monotonic()
        vector, extras = self.runtime.publish()
        sampled = self._sample(number)
        outcome = self._train(number, vector, extras, sampled)
        self._check_quorum(number, sampled, outcome)
        self._aggregate(number, outcome)
        seconds = time.monotonic() - began
        rows = self._training_rows(number, outcome, seconds)
        touched = {self.spec.clients[c].id: number for c in outcome.results}
        self.manifest = Manifest(number, self.manifest.private_rounds | touched)
        self._on_event(self._round_event(number, outcome, seconds))
        if number % self.spec.training.evaluate_every == 0:
            rows += self._curve_rows(number)
        self._commit(rows)

    def finish(self, rows: Sequence[Row]) -> None:
        """Write the rows of the last evaluation."""
        self.rows = list({row[:4]: row for row in [*self.rows, *rows]}.values())
        if self.directory is not None:
            self.directory.write_table("metrics.parquet", self.rows, METRICS_SCHEMA)

    def jobs(self, clients: Sequence[int]) -> list[Job]:
        """Return the clients' jobs, with the private state of the last completed round."""
        rounds = self.manifest.private_rounds
        return [Job(c, rounds[self.spec.clients[c].id]) for c in clients]

    def evaluate(
        self, split: str, number: int, *, detail: bool = False
    ) -> tuple[dict[int, Evaluation], list[Row]]:
        """Evaluate every client that has images of a split, on its own host."""
        clients = [
            c for c, files in enumerate(self.spec.files) if getattr(files, split) is not None
        ]
        vector, _ = self.runtime.publish()
        calls = [
            (self.runtime.host_of[job.client], "evaluate", (vector, job, split, None, detail))
            for job in self.jobs(clients)
        ]
        evaluations = dict(zip(clients, self.runtime.fetch(self.runtime.start(calls)), strict=True))
        rows: list[Row] = []
        for client, evaluation in evaluations.items():
            rows += score_rows(number, self.spec.clients[client].id, split, evaluation.scores)
        return evaluations, rows

    def announce(self, number: int, split: str, evaluations: Mapping[int, Evaluation]) -> None:
        """Send an evaluation's mean scores as an event."""
        scores = {
            self.spec.clients[client].id: {
                name: float(np.mean(evaluation.scores[name])) for name in ("psnr", "ssim")
            }
            for client, evaluation in evaluations.items()
        }
        self._on_event({"event": "evaluation", "round": number, "split": split, "scores": scores})

    def _sample(self, number: int) -> list[int]:
        clients = len(self.spec.clients)
        count = max(1, math.ceil(self._settings.participation * clients - 1e-9))
        if count >= clients:
            return list(range(clients))
        rng = generator(self.spec.seed, number, "participants")
        return sorted(int(c) for c in rng.choice(clients, count, replace=False))

    def _train(self, number: int, vector: Any, extras: Any, sampled: Sequence[int]) -> RoundOutcome:
        outcome = RoundOutcome({}, {}, {})
        rate = learning_rate(self.spec.training, number)
        deadline = self._settings.deadline_s
        waiting = {
            host: self.jobs([c for c in clients if c in set(sampled)])
            for host, clients in enumerate(self.runtime.assignment)
        }
        waiting = {host: jobs for host, jobs in waiting.items() if jobs}
        for attempt in range(1 + RETRIES):
            calls = {
                host: (number, rate, vector, extras, jobs, deadline)
                for host, jobs in waiting.items()
            }
            again = {}
            for host, answer in self.runtime.train(calls, deadline).items():
                if isinstance(answer, Lost):
                    self.runtime.restart(host)
                    if answer.dead and attempt < RETRIES:
                        text = (
                            f"round {number}: {answer.reason}; restarted, its clients train again"
                        )
                        self._on_event({"event": "message", "text": text})
                        again[host] = waiting[host]
                    else:
                        outcome.missing.update({j.client: answer.reason for j in waiting[host]})
                else:
                    self._sort_results(waiting[host], answer, host, outcome)
            waiting = again
            if not waiting:
                break
        return outcome

    def _sort_results(
        self, jobs: Sequence[Job], answer: tuple[Any, Any], host: int, outcome: RoundOutcome
    ) -> None:
        results, outcome.pieces[host] = answer
        for job, result in zip(jobs, results, strict=True):
            if result.missing:
                outcome.missing[job.client] = result.missing
            else:
                outcome.results[job.client] = result

    def _check_quorum(self, number: int, sampled: Sequence[int], outcome: RoundOutcome) -> None:
        needed = math.ceil(self._settings.quorum * len(sampled) - 1e-9)
        if len(outcome.results) >= max(1, needed):
            return
        why = "; ".join(f"{self.spec.clients[c].id}: {r}" for c, r in outcome.missing.items())
        raise PhysFedError(
            f"round {number} has {len(outcome.results)} of {len(sampled)} clients, fewer than the "
            f"quorum of {needed} ({why}); nothing of it was kept: mend the cause and run again "
            "with --resume, or lower federation.quorum"
        )

    def _aggregate(self, number: int, outcome: RoundOutcome) -> None:
        absent = [
            client
            for host, clients in enumerate(self.runtime.assignment)
            if host not in outcome.pieces
            for client in clients
        ]
        uploads = {self.spec.clients[c].id: r.uploads for c, r in sorted(outcome.results.items())}
        pieces = [handle for _, handle in sorted(outcome.pieces.items())]
        self.runtime.server("aggregate", number, sorted(outcome.results), uploads, absent, *pieces)

    def _training_rows(self, number: int, outcome: RoundOutcome, seconds: float) -> list[Row]:
        rows: list[Row] = []
        for client, result in sorted(outcome.results.items()):
            values = result.losses | {"steps": float(result.steps), "seconds": result.seconds}
            rows += [
                (number, self.spec.clients[client].id, "train", name, value)
                for name, value in values.items()
            ]
        down, up = self._bytes(outcome)
        system = {
            "seconds": seconds,
            "bytes_down": float(down),
            "bytes_up": float(up),
            "participants": float(len(outcome.results)),
            "missing": float(len(outcome.missing)),
        }
        rows += [(number, "server", "system", name, value) for name, value in system.items()]
        return rows

    def _bytes(self, outcome: RoundOutcome) -> tuple[int, int]:
        """Bytes that the participants would receive and send in a federation over a network."""
        shared, extras = self.runtime.server("sizes")
        uploads = sum(a.nbytes for r in outcome.results.values() for a in r.uploads.values())
        count = len(outcome.results)
        return count * (shared + extras), count * shared + uploads

    def _round_event(self, number: int, outcome: RoundOutcome, seconds: float) -> Event:
        down, up = self._bytes(outcome)
        images = sum(result.images for result in outcome.results.values())
        left = self.spec.training.rounds - number
        return {
            "event": "round",
            "round": number,
            "rounds": self.spec.training.rounds,
            "seconds": seconds,
            "loss": {
                self.spec.clients[c].id: r.losses.get("loss", math.nan)
                for c, r in sorted(outcome.results.items())
            },
            "participants": len(outcome.results),
            "missing": {self.spec.clients[c].id: r for c, r in sorted(outcome.missing.items())},
            "slices_per_s": images / max(seconds, 1e-9),
            "bytes_down": down,
            "bytes_up": up,
            "eta_s": seconds * left,
        }

    def _curve_rows(self, number: int) -> list[Row]:
        split = "validation" if any(f.validation for f in self.spec.files) else "test"
        if not any(getattr(files, split) for files in self.spec.files):
            return []
        evaluations, rows = self.evaluate(split, number)
        if number < self.spec.training.rounds:  # the last evaluation follows with all splits
            self.announce(number, split, evaluations)
        for client, evaluation in evaluations.items():
            name = self.spec.clients[client].id
            rows += [
                (number, name, "modulation", metric, value)
                for metric, value in evaluation.inspection.items()
            ]
        apart = self.runtime.server("inspect_codes")
        return rows + [(number, "server", "modulation", n, value) for n, value in apart.items()]

    def _commit(self, rows: Sequence[Row]) -> None:
        self.rows += rows
        self._on_rows(rows)
        if self.directory is None:
            return
        self.directory.write_table("metrics.parquet", self.rows, METRICS_SCHEMA)
        self.directory.commit(self.manifest)
        self.directory.prune(self.manifest, self._settings.keep_checkpoints)


def score_rows(number: int, client: str, split: str, scores: Mapping[str, np.ndarray]) -> list[Row]:
    """Return the mean of each metric; names with ``input/`` go to the split's input."""
    rows: list[Row] = []
    for name, values in scores.items():
        prefix, _, metric = name.rpartition("/")
        where = f"{split}/{prefix}" if prefix else split
        rows.append((number, client, where, metric, float(np.mean(values))))
    return rows
