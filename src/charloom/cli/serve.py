"""`charloom serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from pydantic import Field

from charloom.cli.options import field_options
from charloom.cli.screen import tell_line
from charloom.config import Section
from charloom.errors import DeviceError, SettingsError
from charloom.inference.options import GenerationOptions
from charloom.inference.scheduler import Limits
from charloom.validation import validated

KEY = "CHARLOOM_API_KEY"
"""The environment variable with the key. An argument would show in the list of processes."""


class Address(Section):
    """Where to listen."""

    host: str = Field("127.0.0.1", description="the address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="the port; 0 takes any free one")


@click.command(
    epilog="""\b
    Examples:
      charloom serve runs/my-1
      charloom serve small=runs/my-1 large=runs/my-2 --port 8080
      charloom serve runs/my-1 --host 0.0.0.0 --api-key-file key.txt
    """
)
@click.argument("models", metavar="[NAME=]MODEL...", nargs=-1, required=True)
@field_options(Address.model_fields | Limits.model_fields | {"precision": GenerationOptions.model_fields["precision"]})
@click.option(
    "--api-key-file", metavar="FILE", help=f"the file with the key that clients must send  [the variable {KEY}]"
)
@click.option("--insecure", is_flag=True, help="without a key, also listen on an address that other machines reach")
@click.option(
    "--allowed-host", "allowed_hosts", metavar="NAME", multiple=True, help="a name of this server in the Host header"
)
@click.option(
    "--cors-origin", "cors_origins", metavar="ORIGIN", multiple=True, help="a web page that may use the server"
)
def command(
    models: tuple[str, ...],
    api_key_file: str | None,
    insecure: bool,
    allowed_hosts: tuple[str, ...],
    cors_origins: tuple[str, ...],
    **options: Any,
) -> None:
    """Serve each MODEL, a model folder or a run folder, by HTTP, with the protocol of OpenAI's completions.

    A client names a model by NAME, or by the name of its folder. Requests share one batch, and each gets the text that
    it gets alone. SIGHUP loads newer weights; requests in progress end on the earlier ones. SIGTERM and Ctrl-C refuse
    new requests and wait up to 20 seconds for running ones.
    """
    try:
        from charloom.server.guard import Access
        from charloom.server.run import ServerOptions, serve
        from charloom.server.served_models import ModelSource
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("charloom"):
            raise
        raise DeviceError(
            f"charloom serve needs the package {error.name}; pip install fastapi uvicorn prometheus-client"
        ) from None
    given = {name: value for name, value in options.items() if value is not None}
    precision = validated(GenerationOptions, {"precision": given.pop("precision", "auto")}).precision
    address = validated(Address, {name: given.pop(name) for name in Address.model_fields if name in given})
    limits = validated(Limits, given)
    access = Access(_key(api_key_file), allowed_hosts, tuple(map(_origin, cors_origins)))
    asked = ServerOptions(
        sources=[ModelSource.parsed(each) for each in models],
        host=address.host,
        port=address.port,
        slots=limits.slots,
        waiting=limits.waiting,
        precision=precision,
        access=access,
        insecure=insecure,
    )
    try:
        serve(asked, lambda line: tell_line(f"charloom: {line}"))
    except KeyboardInterrupt:  # uvicorn raises the signal again after an orderly end
        tell_line("charloom: stopped")


def _key(path: str | None) -> str | None:
    """The key from the file, or from the environment; None without both."""
    try:
        text = os.environ.get(KEY) if path is None else Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise SettingsError(f"--api-key-file must name a file that can be read; {path}: {reason}") from None
    if text is None:
        return None
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(f"the key in {path or KEY} must be one line of ASCII characters without spaces; it is not")
    return key


def _origin(origin: str) -> str:
    """A checked origin."""
    scheme, separator, host = origin.partition("://")
    if scheme not in ("http", "https") or not separator or not host or set(host) & set("/*? "):
        raise SettingsError(f"--cors-origin must be such as https://example.org, without a path; got {origin!r}")
    return origin
