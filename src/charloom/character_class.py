"""The characters that `allow` lists, like a character class of a regular expression."""

from __future__ import annotations

import re
import sys
import warnings
from functools import cache

from charloom.errors import SettingsError

CLASS_SIGNS = re.compile(r"\\.|[\[\]&~|]", re.DOTALL)  # escapes, and signs with a meaning in a regular expression
LISTS_TOO_MUCH = {r"\w", r"\W", r"\D", r"\S"}


def listed_characters(listed: str) -> str:
    r"""The sorted characters of a regular expression's character class; `listed` is the part between the brackets.

    Ranges (`a-z`), `\d` (0 to 9), `\s` (ASCII white space), and the escapes of Python's `re`, such as `\n`, `\-`, `\\`
    and `\u00e9`. Brackets stand for themselves.

    Raises:
        SettingsError: if this is not such a list, for example because of an unknown escape or a range that ends before
            it begins; or if it lists all characters except those that it names, or all letters.
    """
    if not listed:
        return ""
    class_signs = CLASS_SIGNS.sub(lambda sign: sign[0] if len(sign[0]) > 1 else f"\\{sign[0]}", listed)
    try:
        if listed.startswith("^") or LISTS_TOO_MUCH.intersection(CLASS_SIGNS.findall(listed)):
            raise re.error(r"^ at the start, \w, \W, \D and \S list too much; a ^ itself is \^")
        with warnings.catch_warnings(action="ignore"):  # `+--` is a range, also if a later Python changes `--`
            kept = re.compile(f"[{class_signs}]", re.ASCII)
    except re.error as error:
        raise SettingsError(
            "`allow` must list characters as a regular expression's [] does, such as 'a-zA-Z .\\n', with \\- for a - "
            f"and \\\\ for a \\; got {listed!r}: {error.msg}"
        ) from None
    return "".join(kept.findall(_every()))


@cache
def _every() -> str:
    """All characters; surrogates are not characters."""
    return "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
