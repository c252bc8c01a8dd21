"""The thread of a model: it submits requests to the scheduler, updates it, and passes on what it returns."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Sequence as AnySequence
from dataclasses import dataclass

from charloom.errors import QueueFullError
from charloom.inference.request import Request
from charloom.inference.scheduler import Scheduler
from charloom.inference.sequence import Output, Sequence
from charloom.server.call import Call
from charloom.server.errors import ApiError, api_error
from charloom.server.metrics import Metrics

log = logging.getLogger("charloom.server")


@dataclass
class _Owner:
    """Whose sequence it is: the call, the number of the sequence in it, and when the call came."""

    call: Call
    number: int
    came: float
    started: bool = False


class Worker:
    """Runs the schedulers of one model in a thread: the current one, and an earlier one until its sequences have ended.

    Args:
        name: of the model.
        metrics: what it counts goes here.
        loop: the event loop of the calls.
    """

    def __init__(self, name: str, metrics: Metrics, loop: asyncio.AbstractEventLoop) -> None:
        self.failed = False
        self._name, self._metrics, self._loop = name, metrics, loop
        self._wake = threading.Condition()
        self._inbox: list[tuple[Scheduler, Call, AnySequence[Request], float]] = []
        self._busy: list[Scheduler] = []  # those that are not idle, the earliest first
        self._owners: dict[Sequence, _Owner] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"charloom {name}", daemon=True)
        metrics.watch(name, lambda: self._sum("running"), lambda: self._sum("waiting"))
        self._thread.start()

    async def submit(self, scheduler: Scheduler, requests: AnySequence[Request]) -> Call:
        """Starts requests on a scheduler of this model: all of them, or none.

        Raises:
            QueueFullError: if they do not fit into the queue.
        """
        call = Call(len(requests))
        with self._wake:
            if self.failed or self._stopping:
                raise ApiError(503, "the server is stopping; ask another one", retry_seconds=1)
            self._inbox.append((scheduler, call, requests, time.monotonic()))
            self._wake.notify()
        try:
            await call.accepted()
        except BaseException:
            call.cancel()
            raise
        return call

    def is_busy(self, scheduler: Scheduler) -> bool:
        """Whether sequences of this scheduler are in progress or waiting."""
        with self._wake:
            return scheduler in self._busy or any(job[0] is scheduler for job in self._inbox)

    def fail_all(self, error: Exception) -> None:
        """Ends all calls with this error. Runs on the event loop."""
        with self._wake:
            calls = {owner.call for owner in self._owners.values()} | {job[1] for job in self._inbox}
        for call in calls:
            call.fail(error)

    def stop(self) -> None:
        """Ends the thread after its update, and waits for it."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _sum(self, name: str) -> int:
        return sum(getattr(scheduler, name) for scheduler in [*self._busy])

    def _run(self) -> None:
        try:
            while self._take_jobs():
                self._update()
        except Exception as error:
            log.exception("the scheduler of %s failed", self._name)
            with self._wake:
                self.failed = True
            self._on_loop(self.fail_all, api_error(error))

    def _take_jobs(self) -> bool:
        """Submits the requests that came. Waits for one if there is nothing to do. False: the server stops."""
        with self._wake:
            while not (self._inbox or self._busy or self._stopping):
                self._wake.wait()
            jobs, self._inbox = self._inbox, []
            self._busy += [*{id(job[0]): job[0] for job in jobs if job[0] not in self._busy}.values()]
            for scheduler, call, requests, came in jobs:
                self._submit(scheduler, call, requests, came)
            return not self._stopping

    def _submit(self, scheduler: Scheduler, call: Call, requests: AnySequence[Request], came: float) -> None:
        try:
            call.sequences = scheduler.submit_all(requests)
        except QueueFullError as error:
            self._on_loop(call.fail, error)
            return
        for number, sequence in enumerate(call.sequences):
            self._owners[sequence] = _Owner(call, number, came)
        if call.cancelled:  # before it had sequences
            call.cancel()
        self._on_loop(call.accept)

    def _update(self) -> None:
        """One update of every scheduler that is not idle. All outputs of a call go to the event loop at once."""
        outputs: dict[Call, list[tuple[int, Output]]] = defaultdict(list)
        for scheduler in self._busy:
            new = scheduler.update()
            self._metrics.busy_slots.labels(self._name).observe(sum(output.tokens > 0 for output in new))
            for output in new:
                owner = self._owners[output.sequence]
                outputs[owner.call].append((owner.number, output))
                self._count(owner, output)
                if output.finish_reason:
                    del self._owners[output.sequence]
        with self._wake:
            self._busy = [scheduler for scheduler in self._busy if not scheduler.idle]
        if outputs:
            self._on_loop(_deliver, outputs)

    def _count(self, owner: _Owner, output: Output) -> None:
        self._metrics.generated_tokens.labels(self._name).inc(output.tokens)
        if output.tokens and not owner.started:
            owner.started = True
            self._metrics.first_token.labels(self._name).observe(time.monotonic() - owner.came)
        if output.finish_reason:
            self._metrics.ended.labels(self._name, output.finish_reason).inc()

    def _on_loop(self, function: Callable[..., None], *arguments: object) -> None:
        """Calls a function on the event loop; nothing happens if it is closed, because then nobody waits."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError as error:
            log.debug("the event loop is closed: %s", error)


def _deliver(outputs: dict[Call, list[tuple[int, Output]]]) -> None:
    for call, mine in outputs.items():
        call.deliver(mine)
