"""`charloom app`."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from pathlib import Path

import click
from pydantic import Field

from charloom.cli.options import field_options
from charloom.cli.screen import tell_line
from charloom.config import Section
from charloom.errors import DeviceError, SettingsError
from charloom.validation import validated

FOLDER = "charloom-app"
"""The default folder, in the home of the user."""


class Port(Section):
    """Where to listen."""

    port: int | None = Field(None, ge=0, le=65535, description="the port  [8000, or any free one if it is in use]")


@click.command(
    epilog="""\b
    Examples:
      charloom app
      charloom app runs/my-1 --folder texts-and-runs
    """
)
@click.argument("models", metavar="[[NAME=]MODEL...]", nargs=-1)
@click.option("--folder", metavar="DIR", type=Path, help=f"where uploads and runs are  [{FOLDER} in your home folder]")
@field_options(Port.model_fields)
@click.option("--no-browser", is_flag=True, help="do not open the page in a browser")
def command(models: tuple[str, ...], folder: Path | None, port: str | None, no_browser: bool) -> None:
    """Open a web page on which you train models on your texts and generate with them.

    Only this machine reaches the page. It also has each MODEL, a model folder or a run folder. One run trains at a
    time. SIGTERM and Ctrl-C save it, and it can be resumed on the page or with `charloom train --resume`.
    """
    try:
        from charloom.server.run import ServerOptions, serve
        from charloom.server.served_models import ModelSource
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("charloom"):
            raise
        raise DeviceError(
            f"charloom app needs the package {error.name}; pip install fastapi uvicorn prometheus-client"
        ) from None
    asked = validated(Port, {} if port is None else {"port": port}).port
    options = ServerOptions(
        sources=[ModelSource.parsed(each) for each in models],
        port=8000 if asked is None else asked,
        any_port=asked is None,
        app_folder=_home() if folder is None else folder.absolute(),
    )
    try:
        serve(options, lambda line: tell_line(f"charloom: {line}"), None if no_browser else _open)
    except KeyboardInterrupt:  # uvicorn raises the signal again after an orderly end
        tell_line("charloom: stopped")


def _home() -> Path:
    try:
        return Path.home() / FOLDER
    except RuntimeError:
        raise SettingsError("`folder` must be given: this user has no home folder") from None


def _open(url: str) -> None:
    """Opens the page. A browser may start slowly, or not at all: the line with the address is enough.

    Without a display there may be a browser for the terminal, which would take the terminal of the server.
    """
    graphical = sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if not graphical:
        return
    threading.Thread(target=_try_to_open, args=[url], daemon=True).start()


def _try_to_open(url: str) -> None:
    try:
        webbrowser.open(url)
    except Exception as error:  # a program of the system that is missing or damaged
        tell_line(f"charloom: no browser opened: {error}")
