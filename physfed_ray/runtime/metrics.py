"""What a running federation shows in Ray's dashboard, Prometheus and Grafana.

Ray's agent on every node exports each metric with ``ray_`` before its name, a counter with
``_total`` behind it, every ``metrics_report_interval_ms`` (10 s). Every label value is a series of
its own, so a run has series a client only while it is small (``NAMED_CLIENTS``); the mean, minimum
and maximum over the clients are always there.
"""

import math
from collections.abc import Mapping
from threading import Event, Lock, Thread
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from physfed_ray.federation.client.training import ClientResult

NAMED_CLIENTS = 64
REPEAT_S = 1.0  # Ray's shortest report interval
SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0]

GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "physfed_round": ("Last completed round.", ()),
    "physfed_rounds_planned": ("Rounds that the run is to have.", ()),
    "physfed_eta_seconds": ("Expected time until the last round is complete.", ()),
    "physfed_clients": ("Clients of the federation.", ()),
    "physfed_hosts": ("Hosts that they live on.", ()),
    "physfed_participants": ("Clients that completed the last round.", ()),
    "physfed_missing": ("Clients that were sampled for the last round and are missing.", ()),
    "physfed_round_seconds": ("Duration of the last round without its evaluation.", ()),
    "physfed_slices_per_second": ("Training slices in a second of the last round.", ()),
    "physfed_bytes_up": ("Bytes that clients sent in the last round.", ()),
    "physfed_bytes_down": ("Bytes that clients received in the last round.", ()),
    "physfed_scans_done": ("Scans simulated or found in the cache.", ()),
    "physfed_scans_planned": ("Scans that the run needs.", ()),
    "physfed_loss": ("Mean training loss of a client in its last round.", ("client",)),
    "physfed_loss_summary": ("Training loss over the participants.", ("statistic",)),
    "physfed_psnr": ("Mean PSNR of a client's images, dB.", ("client", "split")),
    "physfed_psnr_summary": ("PSNR over the clients, dB.", ("statistic", "split")),
    "physfed_ssim": ("Mean SSIM of a client's images.", ("client", "split")),
    "physfed_ssim_summary": ("SSIM over the clients.", ("statistic", "split")),
}
HOST_GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "physfed_clients_waiting": ("Clients that wait for their turn on a host.", ()),
    "physfed_training": ("1 while a client trains.", ("client",)),
}


class Gauges:
    """Gauges of one process whose last values are set again every second.

    Ray forgets a gauge that was not set for two report intervals, which is shorter than many a
    round.

    Args:
        definitions: What each means, and its labels beside those of ``tags``, by name.
        tags: Labels of all of them.
    """

    def __init__(
        self, definitions: Mapping[str, tuple[str, tuple[str, ...]]], tags: dict[str, str]
    ) -> None:
        self._gauges = {
            name: Gauge(name, text, (*tags, *labels)).set_default_tags(tags)
            for name, (text, labels) in definitions.items()
        }
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self._lock, self._closed = Lock(), Event()
        Thread(target=self._repeat, name="metrics", daemon=True).start()

    def set(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge, named without ``physfed_``, until it is set again."""
        key = f"physfed_{name}", frozenset(tags.items())
        with self._lock:
            self._values[key] = value
            self._gauges[key[0]].set(value, tags)

    def set_once(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge that is soon to vanish."""
        key = f"physfed_{name}", frozenset(tags.items())
        with self._lock:
            self._values.pop(key, None)
            self._gauges[key[0]].set(value, tags)

    def close(self) -> None:
        """Let all values vanish."""
        self._closed.set()

    def _repeat(self) -> None:
        while not self._closed.wait(REPEAT_S):
            with self._lock:
                for (name, tags), value in self._values.items():
                    self._gauges[name].set(value, dict(tags))


class RunMetrics:
    """Turns the progress events of a run into metrics, in the driver.

    Args:
        run: Name of the run, the label ``run`` of every metric.
    """

    def __init__(self, run: str) -> None:
        self._gauges = Gauges(GAUGES, {"run": run})
        self._clients = 0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take up an event; kinds that carry no numbers are ignored."""
        match event["event"]:
            case "prepare":
                self._set(scans_done=event["done"], scans_planned=event["total"])
            case "start":
                self._start(event)
            case "round":
                self._round(event)
            case "evaluation":
                for name in ("psnr", "ssim"):
                    values = {client: s[name] for client, s in event["scores"].items()}
                    self._spread(name, values, split=event["split"])
            case "done":
                self.close()

    def close(self) -> None:
        """Let the run vanish from what is exported."""
        self._gauges.close()

    def _start(self, event: Mapping[str, Any]) -> None:
        self._clients = len(event["clients"])
        self._set(
            clients=self._clients,
            hosts=event["hosts"],
            round=event["from_round"],
            rounds_planned=event["rounds"],
        )

    def _round(self, event: Mapping[str, Any]) -> None:
        self._set(
            round=event["round"],
            rounds_planned=event["rounds"],
            eta_seconds=event["eta_s"],
            participants=event["participants"],
            missing=len(event["missing"]),
            round_seconds=event["seconds"],
            slices_per_second=event["slices_per_s"],
            bytes_up=event["bytes_up"],
            bytes_down=event["bytes_down"],
        )
        self._spread("loss", event["loss"])

    def _set(self, **values: float) -> None:
        for name, value in values.items():
            self._gauges.set(name, value)

    def _spread(self, name: str, values: Mapping[str, float], **tags: str) -> None:
        """Set a metric's summary over the clients, and each client's where they are few."""
        finite = {client: float(v) for client, v in values.items() if math.isfinite(v)}
        if not finite:
            return
        numbers = finite.values()
        summary = {
            "mean": math.fsum(numbers) / len(finite),
            "min": min(numbers),
            "max": max(numbers),
        }
        for statistic, value in summary.items():
            self._gauges.set(f"{name}_summary", value, statistic=statistic, **tags)
        if max(self._clients, len(finite)) <= NAMED_CLIENTS:
            for client, value in finite.items():
                self._gauges.set(name, value, client=client, **tags)


class HostMetrics:
    """Shows what a host is at, from inside its process.

    Args:
        run: Name of the run.
        host: Name of the host.
    """

    def __init__(self, run: str, host: str) -> None:
        tags, keys = {"run": run, "host": host}, ("run", "host")
        self._gauges = Gauges(HOST_GAUGES, tags)
        self._done = Counter(
            "physfed_clients_done", "Client rounds completed.", keys
        ).set_default_tags(tags)
        self._seconds = Histogram(
            "physfed_client_seconds", "Duration of a client's round.", SECONDS, keys
        ).set_default_tags(tags)

    def begin(self, client_id: str, waiting: int) -> None:
        """Note that a client begins to train.

        Args:
            client_id: Id of the client.
            waiting: Clients of this host whose turn is still to come in this round.
        """
        self._gauges.set("clients_waiting", waiting)
        self._gauges.set("training", 1, client=client_id)

    def done(self, result: ClientResult) -> None:
        """Note that a client ended its round; one that is missing does not count as done."""
        self._gauges.set_once("training", 0, client=result.client)
        if not result.missing:
            self._done.inc()
            self._seconds.observe(result.seconds)
