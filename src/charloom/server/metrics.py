"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
SLOTS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of a server. All but the memory have the label `model`. Threads may share it."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._running = self._gauge("charloom_requests_running", "Sequences in a slot")
        self._waiting = self._gauge("charloom_requests_waiting", "Sequences that wait for a slot")
        self._memory = Gauge("charloom_request_memory_bytes", "Memory of requests in progress", registry=self._registry)
        self.prompt_tokens = self._counter("charloom_prompt_tokens", "Tokens of prompts that were accepted")
        self.generated_tokens = self._counter("charloom_generated_tokens", "Tokens that were generated")
        self.ended = self._counter("charloom_sequences", "Sequences that ended, by finish reason", "reason")
        self.refusals = self._counter("charloom_refusals", "Requests that were refused, by HTTP status", "status")
        self.first_token = self._histogram(
            "charloom_time_to_first_token_seconds", "From the arrival of a request to its first token", SECONDS
        )
        self.between_chunks = self._histogram(
            "charloom_time_between_chunks_seconds", "Between two chunks of a stream", SECONDS
        )
        self.busy_slots = self._histogram(
            "charloom_busy_slots", "Sequences that advanced in an update of the scheduler", SLOTS
        )

    def watch(self, model: str, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Reads both gauges of a model from these functions."""
        self._running.labels(model).set_function(running)
        self._waiting.labels(model).set_function(waiting)
        for counter in (self.prompt_tokens, self.generated_tokens):
            counter.labels(model)  # shown as 0 from the start

    def watch_memory(self, used: Callable[[], int]) -> None:
        """Reads the memory of requests from this function."""
        self._memory.set_function(used)

    def refuse(self, status: int, model: str = "") -> None:
        """Counts a refusal. model: if the request got as far as naming one."""
        self.refusals.labels(model, str(status)).inc()

    def text(self) -> bytes:
        """All values in Prometheus's text format."""
        return generate_latest(self._registry)

    def families(self) -> Iterable[Metric]:
        """All values, for programs."""
        return self._registry.collect()

    def _gauge(self, name: str, says: str) -> Gauge:
        return Gauge(name, says, ["model"], registry=self._registry)

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(name, says, ["model", *labels], registry=self._registry)

    def _histogram(self, name: str, says: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, says, ["model"], registry=self._registry, buckets=buckets)
