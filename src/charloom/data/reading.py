"""Bytes → text: which encoding a file is in, and its characters a piece at a time.

A byte-order mark decides; else UTF-8, which nothing else looks like by accident; else charset-normalizer's guess,
which is said aloud. Everything streams: a file of any size passes in pieces of a few MiB.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from charloom.config import TextSettings
from charloom.data.packed import refuse_packed
from charloom.data.sources import PIECE, BinaryFile, Source, share
from charloom.errors import SettingsError, TextError

Notice = Callable[[str], None]

MARK = "\ufeff"  # decoded; inside a text it is left from files that were joined, and shows as nothing
# UTF-32 first: its little-endian mark begins with UTF-16's.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Python calls these text encodings too, but they are made for host names and source code, or write half characters.
NOT_FOR_FILES = {"idna", "punycode", "undefined", "utf-7", "unicode-escape", "raw-unicode-escape"}
# What a browser may take a page for (WHATWG Encoding Standard, §4.2), by Python's names. A longer list only adds
# mistakes: with all of Python's encodings, German in cp1252 is taken for Turkish on a Macintosh.
CANDIDATES = [
    *("cp866", "cp874", "cp932", "cp949", *(f"cp{number}" for number in range(1250, 1259))),
    *(f"iso8859_{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
    *("koi8_r", "koi8_u", "mac_roman", "mac_cyrillic", "gb18030", "big5", "big5hkscs", "euc_jp", "shift_jis"),
]
SAMPLE = 256 << 10  # bytes looked at around the first one that is not UTF-8
LEAD = 64 << 10  # how many of them lie before it
CONTEXT = 64  # how many of those the detector gets to see
WORDS = re.compile(r"\b\w*[^\W\x00-\x7f]\w*")  # with a letter that is not ASCII
SHOWN_WORDS, SHOWN_LETTERS = 3, 20
# Decoding with this error handler, each fault becomes a character that no decoded text can hold, so it can be counted.
FAULT = "\udfff"
COUNTED = "charloom.counted"
codecs.register_error(COUNTED, lambda error: (FAULT, error.end) if isinstance(error, UnicodeDecodeError) else ("", 0))


def unheard(_line: str) -> None:
    """A `Notice` for those who want none."""


@dataclass(frozen=True)
class Codec:
    """How bytes become characters: Python's codec, its error handler, and the length of the mark to skip."""

    name: str = "utf-8"
    errors: str = "strict"
    skip: int = 0

    @property
    def wide(self) -> bool:
        """Whether it is UTF-16 or UTF-32, where NUL bytes are part of ordinary text."""
        return self.name.startswith(("utf-16", "utf-32"))


@dataclass(frozen=True)
class Fault:
    """The first byte that a codec cannot decode."""

    offset: int
    byte: int

    def __str__(self) -> str:
        return f"byte 0x{self.byte:02X} at offset {self.offset:,}"


@dataclass(frozen=True)
class FileDocument:
    """One text of a corpus that is a file.

    keep_newlines: whether CRLF and CR stay as they are, as models of bytes read them; else each becomes LF.
    """

    source: Source
    codec: Codec
    keep_newlines: bool = False

    @property
    def name(self) -> str:
        """For messages."""
        return self.source.shown

    @property
    def binary(self) -> bool:
        """Whether bytes that are no UTF-8 come as surrogate escapes (PEP 383)."""
        return self.codec.errors == "surrogateescape"

    def pieces(self, size: int = PIECE) -> Iterator[str]:
        """The text, from its start, `size` bytes at a time; marks inside it are left out, but for binary data.

        Raises:
            TextError: the file changed or vanished since it was opened.
        """
        decoding = _Decoding(self.source, self.codec, size)
        pieces = decoding.pieces() if self.binary else _unmarked(decoding.pieces())
        yield from pieces if self.keep_newlines else unix_newlines(pieces)
        if decoding.fault:
            raise TextError(f"{self.name} changed since it was opened: {decoding.fault} is not {self.codec.name}")


def open_document(
    source: Source, settings: TextSettings | None = None, notice: Notice = unheard, size: int = PIECE
) -> FileDocument:
    """A source as text, checked to its end.

    Args:
        source: the bytes.
        settings: `encoding`: insist on this one; a mark at the start that agrees with it is skipped. `errors`: whether
            bytes that the encoding does not know are an error, replaced or ignored. `vocabulary`: for bytes, line ends
            stay as they are. `binary`: nothing is decoded, guessed or refused: the bytes are taken for
            UTF-8, and every other one becomes a surrogate escape (PEP 383), so that any file comes out byte for byte.
        notice: told in one line where the encoding was guessed, and in one where something was replaced or ignored.
        size: bytes a piece.

    Raises:
        SettingsError: there is no such encoding.
        TextError: bytes that are not text in it, with file and offset; `BinaryFile` where it looks like no text at all.
    """
    settings = settings or TextSettings()
    if settings.binary:
        for _ in source.blocks(size):  # so that a damaged `.gz` is found now
            pass
        codec = Codec(errors="surrogateescape")
    else:
        codec = _text_codec(source, settings, size, notice)
    return FileDocument(source, codec, keep_newlines=settings.vocabulary == "bytes")


def _unmarked(pieces: Iterable[str]) -> Iterator[str]:
    return filter(None, (piece.replace(MARK, "") for piece in pieces))


def unix_newlines(pieces: Iterable[str]) -> Iterator[str]:
    """CRLF and lone CR as LF, also where a CRLF is cut in two."""
    decoder = io.IncrementalNewlineDecoder(None, translate=True)
    yield from filter(None, (decoder.decode(piece) for piece in pieces))
    yield from filter(None, (decoder.decode("", final=True),))


def _text_codec(source: Source, settings: TextSettings, size: int, notice: Notice) -> Codec:
    refuse_packed(source)
    head = source.sample(0, 4)
    marked = _marked(head)
    codec = _insisted(settings.encoding, head) if settings.encoding is not None else marked or Codec()
    checked = _checked(source, codec, size, refuse_nul=True)
    if checked.fault and not codec.wide:
        _refuse_nul(source, size)
    if checked.fault and settings.encoding is None and marked is None:
        checked = _guessed(checked, settings.errors == "strict", notice)
        codec = checked.codec
    if checked.fault:
        checked = _forgiving(checked, settings.errors, notice)
        codec = replace(codec, errors=settings.errors)
    if checked.marks:
        notice(f"{source.shown}: left out {checked.marks:,} U+FEFF, byte-order marks where files were joined")
    return codec


def _forgiving(checked: _Decoding, errors: str, notice: Notice) -> _Decoding:
    """Counts what is about to be replaced or ignored.

    Raises:
        TextError: nothing is to be.
    """
    source, codec, first = checked.source, checked.codec, checked.fault
    if errors == "strict":
        raise TextError(
            f"{source.shown}: {first} is not {codec.name}; pass --errors replace or ignore to read it all the same, or "
            "--encoding if the text is in another encoding"
        )
    decoding = _Decoding(source, replace(codec, errors=COUNTED), checked.size)
    faults = characters = 0
    for text in decoding.pieces():
        faults += text.count(FAULT)
        characters += len(text)
    done = "replaced by U+FFFD" if errors == "replace" else "left out"
    notice(
        f"{source.shown}: {done} because not {codec.name}: {faults:,} of {characters:,} characters "
        f"({share(faults, characters)}), the first at {first}"
    )
    return decoding


def _marked(head: bytes) -> Codec | None:
    """The encoding that a byte-order mark names."""
    return next((Codec(name, skip=len(mark)) for mark, name in MARKS if head.startswith(mark)), None)


def _insisted(encoding: str, head: bytes) -> Codec:
    """The encoding a person names; `utf-16` and `utf-32` without a mark are little-endian, as on nearly any machine."""
    try:
        info = codecs.lookup(encoding)
    except (LookupError, ValueError):
        raise SettingsError(
            f"encoding {encoding!r} is unknown; pass a name that Python knows, such as utf-8 or cp1252"
        ) from None
    name = info.name.removesuffix("-sig")
    if not info._is_text_encoding or name in NOT_FOR_FILES:
        raise SettingsError(f"encoding {encoding!r} is not for text files; pass one such as utf-8 or cp1252")
    marked = _marked(head)
    if marked and name in (marked.name, marked.name[:6]):
        return marked
    return Codec({"utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(name, name))


class _Decoding:
    """One pass over a source; afterwards `fault` tells whether and where it had to stop, `marks` counts U+FEFF."""

    def __init__(self, source: Source, codec: Codec, size: int) -> None:
        self.source, self.codec, self.size = source, codec, size
        self.fault: Fault | None = None
        self.marks = 0
        self.begin = codec.skip  # offset of the first byte behind the latest piece of text

    def pieces(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(self.codec.name)(self.codec.errors)
        position = self.codec.skip
        for block in chain(self.source.blocks(self.size, position), [b""]):
            self.begin = position - len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                self.fault = Fault(self.begin + error.start, error.object[error.start])
                return
            position += len(block)
            self.marks += text.count(MARK)
            if text:
                yield text


def _checked(source: Source, codec: Codec, size: int, refuse_nul: bool = False) -> _Decoding:
    """Decodes everything up to the first fault; with `refuse_nul`, also makes sure that no NUL is in it."""
    decoding = _Decoding(source, codec, size)
    for text in decoding.pieces():
        if refuse_nul and (at := text.find("\0")) >= 0:
            raise _binary(source, decoding.begin + len(text[:at].encode(codec.name)))
    return decoding


def _binary(source: Source, offset: int) -> BinaryFile:
    return BinaryFile(
        f"{source.shown} looks binary: a NUL byte at offset {offset:,}; pass --binary to read it as bytes, "
        "or --encoding utf-16-le or utf-16-be if it is UTF-16 without a byte-order mark"
    )


def _guessed(checked: _Decoding, strict: bool, notice: Notice) -> _Decoding:
    """A pass with the encoding of a file that is not UTF-8; it may have faults in that one too.

    Raises:
        BinaryFile: no encoding fits.
    """
    source, fault = checked.source, checked.fault
    assert fault is not None
    start = max(0, fault.offset - LEAD)
    sample = source.sample(start, SAMPLE)
    if _damaged(sample):
        return checked
    sample = sample[_word_before(sample, fault.offset - start) :]
    name = _detected(sample)
    if name is None:
        raise BinaryFile(
            f"{source.shown} looks binary: {fault} is not UTF-8, and no other encoding fits; pass --binary to read it "
            "as bytes, or --encoding and --errors replace to read it all the same"
        )
    guessed = _checked(source, Codec(name), checked.size)
    if guessed.fault is None or not strict:
        notice(
            f"{source.shown} is not UTF-8; reading it as {name}{_words(sample.decode(name, 'ignore'))} "
            "(pass --encoding to insist on another)"
        )
    return guessed


def _words(text: str) -> str:
    """The first words that tell a right guess from a wrong one; for a sample without any, nothing."""
    found = dict.fromkeys(word[:SHOWN_LETTERS] for word in WORDS.findall(text) if word.isprintable())
    return f", with words such as {', '.join(map(repr, [*found][:SHOWN_WORDS]))}" if found else ""


def _refuse_nul(source: Source, size: int) -> None:
    position = 0
    for block in source.blocks(size):
        if (at := block.find(0)) >= 0:
            raise _binary(source, position + at)
        position += len(block)


def _damaged(sample: bytes) -> bool:
    """Whether this is UTF-8 with a few bad bytes: more whole multi-byte characters than bytes outside of any."""
    begin = next((i for i in range(min(4, len(sample))) if sample[i] & 0xC0 != 0x80), 0)
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(sample[begin:])
    bad = len(re.findall("[\udc80-\udcff]", text))
    return len(re.findall("[^\0-\x7f]", text)) - bad > bad


def _word_before(sample: bytes, at: int) -> int:
    """The start of a word a little before `at`: the detector looks at a few places only, so plain ASCII dilutes them.

    A word's start, because a space or newline is never half of a character.
    """
    return max(sample.rfind(space, 0, max(0, at - CONTEXT)) for space in (b" ", b"\n")) + 1


def _detected(sample: bytes) -> str | None:
    """charset-normalizer's guess; where cp1252 reads as well as its first choice, cp1252, the commonest by far.

    None for what is not text: control characters and noise speak against every encoding.
    """
    from charset_normalizer import from_bytes

    matches = from_bytes(sample, cp_isolation=CANDIDATES, enable_fallback=False)
    best = matches.best()
    if best is None:
        return None
    for match in matches:
        if "cp1252" in match.could_be_from_charset:
            near = match.chaos <= best.chaos + 0.02 and match.coherence >= best.coherence - 0.1
            return "cp1252" if near else best.encoding
    return best.encoding
