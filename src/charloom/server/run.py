"""Runs the server in this process, until a signal stops it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvicorn

from charloom.errors import CharloomError, SettingsError
from charloom.inference.backend import Precision
from charloom.inference.scheduler import SLOTS, WAITING
from charloom.server.app import create_app
from charloom.server.app_folder import AppFolder
from charloom.server.connection import connection_class
from charloom.server.errors import ApiError
from charloom.server.guard import Access
from charloom.server.limits import ServerLimits
from charloom.server.memory import release_large_blocks
from charloom.server.metrics import Metrics
from charloom.server.served_models import ModelSource, ServedModels
from charloom.server.training import Training
from charloom.server.uploads import UploadLimits

log = logging.getLogger("charloom.server")

BACKLOG = 1024
"""Connections that wait until they are accepted."""

OWN_FILES = 64
"""Files that the server needs beside its connections."""

SWITCH_SECONDS = 0.0005
"""Seconds for which a thread may go on in Python while another one waits: the event loop, or the thread of a model.
With Python's default, ten times as long, 64 streams of a fast model get about 5% fewer characters (LOG.md).
"""


@dataclass(frozen=True)
class ServerOptions:
    """How to serve. sources: the models; host, port: where; port 0 is any free port; insecure: also without a key on an
    address that other machines reach; app_folder: of the web app, with which clients can train; any_port: take a free
    port if `port` is in use; the others: see `ServedModels`, `Access`, `ServerLimits` and `UploadLimits`.
    """

    sources: Sequence[ModelSource]
    host: str = "127.0.0.1"
    port: int = 8000
    slots: int = SLOTS
    waiting: int = WAITING
    precision: Precision = "auto"
    access: Access = field(default_factory=Access)
    insecure: bool = False
    limits: ServerLimits = field(default_factory=ServerLimits)
    app_folder: Path | None = None
    any_port: bool = False
    upload_limits: UploadLimits = field(default_factory=UploadLimits)


def serve(options: ServerOptions, tell: Callable[[str], None], ready: Callable[[str], None] | None = None) -> None:
    """Serves until SIGINT or SIGTERM. SIGHUP loads the models again.

    Args:
        options: what and how.
        tell: called with one line when the server is ready, and for each reload.
        ready: called with the server's URL after that line.

    Raises:
        SettingsError: if the address needs a key, or cannot be used.
        CharloomError: if a model cannot be loaded.
    """
    check_names(options.sources)
    check_address(options)
    options = replace(options, limits=replace(options.limits, connections=allowed(options.limits.connections)))
    release_large_blocks()
    sys.setswitchinterval(SWITCH_SECONDS)
    with _listener(options) as listener:
        Running(options, listener, tell, ready).run()


def allowed(connections: int) -> int:
    """Raises the limit of open files of this process, which is often 1,024, for so many connections.

    Returns:
        The connections that the limit allows. asyncio accepts all that wait before one too many can be refused. If it
        has no file for one, it accepts none for a second, and uses a whole core.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = BACKLOG + OWN_FILES
    if soft == resource.RLIM_INFINITY:
        return connections
    if soft < connections + spare:
        soft = connections + spare if hard == resource.RLIM_INFINITY else min(connections + spare, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(connections, max(soft - spare, soft // 2)))


def check_names(sources: Sequence[ModelSource]) -> None:
    """Checks that the models have different names.

    Raises:
        SettingsError: if two have one name.
    """
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"each model must have a name of its own; two are called {name!r}; give NAME=MODEL")


def check_address(options: ServerOptions) -> None:
    """Checks that an open server is reached from this machine only.

    Raises:
        SettingsError: if it is not.
    """
    if options.access.key is None and not options.insecure and not _is_loopback(options.host):
        raise SettingsError(
            f"`host` must be 127.0.0.1 or localhost without a key; got {options.host!r}; pass `api_key_file`, set "
            "CHARLOOM_API_KEY, or pass `insecure=True` if everyone who reaches this machine may use it"
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bound(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        SettingsError: if the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        raise SettingsError(
            f"`host` and `port` must be a free address of this machine; {host} port {port}: {reason}; choose another"
        ) from None


def _listener(options: ServerOptions) -> socket.socket:
    try:
        return bound(options.host, options.port)
    except SettingsError:
        if not options.any_port:
            raise
        return bound(options.host, 0)


class Running(uvicorn.Server):
    """A server that runs: it loads its models after it has bound its port, and stops in an orderly way."""

    def __init__(
        self,
        options: ServerOptions,
        listener: socket.socket,
        tell: Callable[[str], None],
        ready: Callable[[str], None] | None = None,
    ) -> None:
        limits = options.limits
        super().__init__(
            uvicorn.Config(
                app=self._create,
                factory=True,
                http=connection_class(limits, uploads=options.app_folder is not None),
                ws="none",
                backlog=BACKLOG,
                lifespan="off",
                log_config=None,
                log_level="error",  # a client could fill the log with warnings about its own requests
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=int(limits.grace_seconds) + 5,
            )
        )
        self._options, self._listener, self._tell, self._ready = options, listener, tell, ready
        self._folder: AppFolder | None = None
        self._training: Training | None = None
        self._models: ServedModels | None = None
        self._failure: CharloomError | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Runs until a signal.

        Raises:
            CharloomError: if a model cannot be loaded, or the folder of the app cannot be used.
        """
        with contextlib.ExitStack() as stack:
            if self._options.app_folder is not None:
                self._folder = stack.enter_context(AppFolder(self._options.app_folder, self._options.upload_limits))
            super().run([self._listener])
        if self._failure:
            raise self._failure

    def _create(self) -> Any:
        options, metrics = self._options, Metrics()
        self._models = ServedModels(options.sources, metrics, options.precision, options.slots, options.waiting)
        # A request that never fits into the queue would be told to come again for ever.
        limits = replace(options.limits, sequences=min(options.limits.sequences, options.waiting))
        if self._folder is not None:
            self._training = Training(self._folder, self._models)
        return create_app(self._models, metrics, limits, options.access, self._training)

    @property
    def models(self) -> ServedModels:
        """The models; they exist once the server runs."""
        assert self._models is not None
        return self._models

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to answer, then loads the models."""
        await super().startup(sockets)
        self._later(self._load())
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, lambda: self._later(self._reload()))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuses new requests. Running ones get the grace time, then an error. A run that trains saves everything."""
        self.models.refuse()
        if self._training is not None:
            self._training.ask_to_stop()
        self._later(self._end_requests())
        await super().shutdown(sockets)
        if self._training is not None:
            await self._training.ended(lambda: self.force_exit)
        for task in self._tasks:
            task.cancel()
        await asyncio.to_thread(self.models.stop)

    async def _load(self) -> None:
        try:
            await self.models.load()
        except CharloomError as error:
            self._failure, self.should_exit = error, True
            return
        names = ", ".join(self.models.models)
        await self._load_runs()
        host, port = self._listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._tell(f"serving {names + ' ' if names else ''}at {url} (Ctrl-C stops)")
        if self._ready is not None:
            self._ready(url)

    async def _load_runs(self) -> None:
        """Loads the models of earlier runs. One that cannot be loaded is left out."""
        if self._training is None:
            return
        for name in self._training.folder.with_models():
            if failure := await self._training.serve(name):
                self._tell(f"the run {name} is left out: {failure}")

    async def _reload(self) -> None:
        try:
            self._tell(f"loaded again: {', '.join(await self.models.reload(None))}")
        except (ApiError, CharloomError) as error:
            self._tell(f"not loaded again: {error}")

    async def _end_requests(self) -> None:
        """Ends requests after the grace time, then the connections of clients that do not read."""
        await asyncio.sleep(self._options.limits.grace_seconds)
        self.models.fail_all()
        await asyncio.sleep(1)
        for connection in [*self.server_state.connections]:
            connection.transport.abort()

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
