"""A connection with time limits: uvicorn itself waits without end for the rest of a request, and for a slow reader."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from charloom.server.errors import ApiError, body_of
from charloom.server.limits import ServerLimits
from charloom.server.wire import to_json


def connection_class(limits: ServerLimits, uploads: bool = False) -> type[H11Protocol]:
    """The class of the connections of a server with these limits. uploads: whether it takes files."""
    return type("Connection", (Connection,), {"limits": limits, "uploads": uploads})


class Connection(H11Protocol):
    """A connection of uvicorn that is closed if its client is too slow, or if there are too many."""

    limits = ServerLimits()
    uploads = False
    _receiving: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Refuses one connection too many. The first request must arrive in time."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(ApiError(503, f"at most {self.limits.connections:,} connections may be open; ask again later"))
        else:
            self._receiving = self.loop.call_later(self.limits.request_seconds, self._too_late)

    def data_received(self, data: bytes) -> None:
        """Watches the time while a request is incomplete. A file may take longer, as long as it goes on arriving."""
        super().data_received(data)
        if not self._is_receiving() or self._is_upload():
            self._stop_receiving()
        if self._is_receiving() and self._receiving is None:
            self._receiving = self.loop.call_later(self.limits.request_seconds, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends both clocks."""
        self._stop_receiving()
        self._stop_sending()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads too slowly: it must read on in time."""
        super().pause_writing()
        self._sending = self.loop.call_later(self.limits.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client read on."""
        super().resume_writing()
        self._stop_sending()

    def _is_receiving(self) -> bool:
        state = self.conn.their_state
        return state is h11.SEND_BODY or (state is h11.IDLE and bool(self.conn.trailing_data[0]))

    def _is_upload(self) -> bool:
        return self.uploads and bool(self.scope) and self.scope["method"] == "PUT"

    def _too_late(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            seconds = self.limits.request_seconds
            self._refuse(ApiError(408, f"a request must arrive within {seconds:g} seconds; it did not; send it again"))
        else:
            self.transport.abort()

    def _refuse(self, error: ApiError) -> None:
        """Answers before uvicorn does, and closes."""
        content = to_json(body_of(error))
        head = f"HTTP/1.1 {error.status} Refused\r\ncontent-type: application/json\r\ncontent-length: {len(content)}"
        self.transport.write(f"{head}\r\nconnection: close\r\n\r\n".encode() + content)
        self.transport.close()

    def _stop_receiving(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
