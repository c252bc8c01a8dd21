"""Clients of the web app for tests, and the command `charloom app` as a process."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from servers import PATIENCE, ServerCommand, eventually

ID = "0123456789abcdef"


class Client:
    """What the page of the app asks."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def put(self, data: str | bytes, number: int = 0, name: str = "text.txt") -> httpx.Response:
        content = data.encode("utf-8") if isinstance(data, str) else data
        return self.http.put(f"/app/uploads/{ID}/{number}", params={"name": name}, content=content)

    def post(self, path: str, **body: object) -> httpx.Response:
        return self.http.post(f"/app/{path}", json=body)

    def plan(self, minutes: float = 1.0, **more: object) -> httpx.Response:
        return self.post("plan", upload=ID, minutes=minutes, **more)

    def train(self, minutes: float, **more: object) -> httpx.Response:
        return self.post("train", upload=ID, minutes=minutes, **more)

    def runs(self) -> Any:
        return self.http.get("/app/runs").json()

    def events(self, run: str) -> list[dict[str, Any]]:
        return self.http.get(f"/app/runs/{run}").json()["events"]

    def steps(self, run: str) -> int:
        return sum(event["event"] == "step" for event in self.events(run))

    def wait_for(self, run: str, state: str) -> None:
        """Waits until a run has this state; it must not fail before."""

        def reached() -> bool:
            found = self.http.get(f"/app/runs/{run}").json()
            assert found["state"] in (state, "reading", "training"), found
            return found["state"] == state

        eventually(reached, f"{run} {state}")

    @staticmethod
    def server_log(run: Path) -> list[dict[str, Any]]:
        """The log of a run on the disk."""
        return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@contextlib.contextmanager
def client_of(url: str) -> Iterator[Client]:
    """A client that waits long enough, and reads no certificates."""
    with httpx.Client(base_url=url, timeout=PATIENCE, verify=False) as http:
        yield Client(http)


def app_command(folder: Path, *arguments: object, port: int | None = 0, **env: str) -> ServerCommand:
    """`charloom app` on any free port."""
    where = [] if port is None else ["--port", str(port)]
    command = ["-m", "charloom", "app", "--folder", str(folder), *where, *map(str, arguments)]
    return ServerCommand(command, env, new_session=True)
