"""The limits of the server: every number that bounds what a client can ask of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerLimits:
    """Limits of a server. A request above one of them is refused with a line that names it.

    body_bytes: of a request. prompt_tokens: of all prompts of a request. sequences: prompts times `n`.
    generated_tokens: sequences times `max_tokens`. logprobs: log-probabilities in a response: 7 MB of memory.
    stop_strings, stop_characters: `stop`. trace_numbers: in a trace: 5 MB of JSON. look_tokens: of a text that the page
    shows. connections: open at the same time. request_seconds: to receive a request whole, headers and body.
    send_seconds: without progress of a client that reads slowly. memory_bytes: of all requests together, beside what
    each may take (`memory.py`). chunk_seconds: between two chunks of a stream. grace_seconds: for running requests when
    the server stops.
    """

    body_bytes: int = 4 << 20
    prompt_tokens: int = 2**18
    sequences: int = 128
    generated_tokens: int = 2**18
    logprobs: int = 2**16
    stop_strings: int = 4
    stop_characters: int = 1000
    trace_numbers: int = 2**18
    look_tokens: int = 4000
    connections: int = 2048
    memory_bytes: int = 512 << 20
    request_seconds: float = 30.0
    send_seconds: float = 60.0
    chunk_seconds: float = 0.1
    grace_seconds: float = 20.0
