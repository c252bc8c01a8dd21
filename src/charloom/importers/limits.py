"""How much a stranger's file may unfold to: a few bytes must not fill the memory."""

from __future__ import annotations

from charloom.errors import ModelError

RATIO = 16  # float weights hardly compress; zlib's own limit is 1032
SPARE = 1 << 20  # bytes; compressed zeros, such as fresh biases, beat any ratio


def check_room(unfolded: int, size: int) -> None:
    """Refuses a file of `size` bytes that claims to hold `unfolded` bytes.

    Raises:
        ModelError: if that is far more than weights can be compressed.
    """
    if unfolded > RATIO * size + SPARE:
        raise ModelError(
            f"the file must hold about as much as its {size:,} bytes; it unfolds to {unfolded:,}: damaged, or a bomb"
        )
