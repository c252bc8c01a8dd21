"""What goes over the wire: JSON in ASCII, without surrogates."""

from __future__ import annotations

import json
import re

SURROGATE = re.compile("[\ud800-\udfff]")


def without_surrogates(text: str) -> str:
    """The text with U+FFFD in place of each lone surrogate: a raw byte, or a record separator. Its length stays."""
    return SURROGATE.sub("\ufffd", text)


def to_json(value: object) -> bytes:
    """JSON in ASCII. Some clients end a line at U+2028, or read another encoding than UTF-8."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")
