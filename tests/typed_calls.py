"""Calls that a type checker must refuse. Nothing here is run: `make check` gives this file to mypy, which reports each
`type: ignore` that it does not need.
"""

from __future__ import annotations

import charloom


def mistakes(model: charloom.Model) -> None:
    """Catches: keywords of any name and type, and names that the package does not have."""
    charloom.train("my.txt", hiden=3)  # type: ignore[call-arg]
    charloom.train("my.txt", hidden="3")  # type: ignore[arg-type]
    charloom.train("my.txt", cell="lstn")  # type: ignore[arg-type]
    charloom.plan("my.txt", minutes="5")  # type: ignore[arg-type]
    charloom.resume("runs/my-1", hidden=3)  # type: ignore[call-arg]
    charloom.tain("my.txt")  # type: ignore[attr-defined]
    model.generate(123)  # type: ignore[call-overload]
    model.generate("a", lenght=3)  # type: ignore[call-overload]
    model.generate("a").append("b")  # type: ignore[attr-defined]
    model.generate(["a"]).upper()  # type: ignore[attr-defined]
    model.next_token("a").index("b")  # type: ignore[attr-defined]
