"""Bytes → text: the encoding of a file, and its characters a chunk at a time.

A byte-order mark decides the encoding. Without a mark, the encoding is UTF-8 if all bytes are valid. If not, it is the
guess of charset-normalizer, with a notice. A file of any size is read in chunks of a few MiB.
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
from charloom.data.sources import CHUNK, BinaryFile, Source, share
from charloom.errors import SettingsError, TextError

Notify = Callable[[str], None]

MARK = "\ufeff"  # decoded; inside a text it comes from joined files and is invisible
# UTF-32 first: its little-endian mark begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Python lists these as text encodings too, but they are for host names or source code, or allow lone surrogates.
NOT_FOR_FILES = {"idna", "punycode", "undefined", "utf-7", "unicode-escape", "raw-unicode-escape"}
# The encodings of the WHATWG Encoding Standard, §4.2, by Python's names. A longer list adds wrong guesses: with all of
# Python's encodings, the guess for German in cp1252 is mac_turkish.
CANDIDATES = [
    *("cp866", "cp874", "cp932", "cp949", *(f"cp{number}" for number in range(1250, 1259))),
    *(f"iso8859_{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
    *("koi8_r", "koi8_u", "mac_roman", "mac_cyrillic", "gb18030", "big5", "big5hkscs", "euc_jp", "shift_jis"),
]
SAMPLE = 256 << 10  # bytes around the first one that is not UTF-8, for the guess
LEAD = 64 << 10  # bytes of the sample before that one
CONTEXT = 64  # bytes of those that the detector reads
WORDS = re.compile(r"\b\w*[^\W\x00-\x7f]\w*")  # with a letter that is not ASCII
SHOWN_WORDS, SHOWN_LETTERS = 3, 20
# This error handler replaces each invalid byte sequence by a character that decoded text cannot have, to count them.
FAULT = "\udfff"
COUNTED = "charloom.counted"
codecs.register_error(COUNTED, lambda error: (FAULT, error.end) if isinstance(error, UnicodeDecodeError) else ("", 0))


def ignore(_line: str) -> None:
    """A `Notify` that does nothing."""


@dataclass(frozen=True)
class TextEncoding:
    """How bytes become characters. name: Python's codec; errors: its error handler; skip: bytes of the mark to skip."""

    name: str = "utf-8"
    errors: str = "strict"
    skip: int = 0

    @property
    def wide(self) -> bool:
        """Whether it is UTF-16 or UTF-32; their text contains NUL bytes."""
        return self.name.startswith(("utf-16", "utf-32"))


@dataclass(frozen=True)
class DecodingFault:
    """The first byte that an encoding cannot decode."""

    offset: int
    byte: int

    def __str__(self) -> str:
        return f"byte 0x{self.byte:02X} at offset {self.offset:,}"


@dataclass(frozen=True)
class FileDocument:
    """A document that is a file.

    keep_newlines: whether CRLF and CR stay, as for byte-level models; if not, each becomes LF.
    """

    source: Source
    codec: TextEncoding
    keep_newlines: bool = False

    @property
    def name(self) -> str:
        """For messages."""
        return self.source.shown

    @property
    def binary(self) -> bool:
        """Whether bytes that are not UTF-8 become surrogate escapes (PEP 383)."""
        return self.codec.errors == "surrogateescape"

    def chunks(self, size: int = CHUNK) -> Iterator[str]:
        """The text from its start, `size` bytes at a time; except in binary data, marks inside it are left out.

        Raises:
            TextError: the file changed or vanished since it was opened.
        """
        decoding = _Decoding(self.source, self.codec, size)
        chunks = decoding.chunks() if self.binary else _unmarked(decoding.chunks())
        yield from chunks if self.keep_newlines else unix_newlines(chunks)
        if decoding.fault:
            raise TextError(f"{self.name} changed while it was read: {decoding.fault} is not {self.codec.name}")


def open_document(
    source: Source, settings: TextSettings | None = None, notice: Notify = ignore, size: int = CHUNK
) -> FileDocument:
    """A source as text; the whole source is checked.

    Args:
        source: the bytes.
        settings: `encoding`: use this one; a mark at the start that agrees with it is skipped. `errors`: whether
            invalid bytes are an error, replaced or ignored. `vocabulary`: with bytes, line ends stay. `binary`: the
            bytes are read as UTF-8, and each invalid byte becomes a surrogate escape (PEP 383). So no byte is lost.
        notice: called with one line if the encoding is a guess, and with one if bytes are replaced or ignored.
        size: bytes in a chunk.

    Raises:
        SettingsError: the encoding is unknown.
        TextError: bytes are invalid in it, with file and offset; `BinaryFile` if the file does not look like text.
    """
    settings = settings or TextSettings()
    if settings.binary:
        for _ in source.blocks(size):  # a damaged `.gz` is an error now
            pass
        codec = TextEncoding(errors="surrogateescape")
    else:
        codec = _text_codec(source, settings, size, notice)
    return FileDocument(source, codec, keep_newlines=settings.vocabulary == "bytes")


def _unmarked(chunks: Iterable[str]) -> Iterator[str]:
    return filter(None, (chunk.replace(MARK, "") for chunk in chunks))


def unix_newlines(chunks: Iterable[str]) -> Iterator[str]:
    """CRLF and CR as LF, also where two chunks share a CRLF. A chunk without CR is not copied."""
    decoder, held = io.IncrementalNewlineDecoder(None, translate=True), False  # held: whether the decoder holds a CR
    for chunk in filter(None, chunks):
        plain = not held and "\r" not in chunk
        held = chunk.endswith("\r")
        if converted := chunk if plain else decoder.decode(chunk):
            yield converted
    if held:
        yield decoder.decode("", final=True)


def _text_codec(source: Source, settings: TextSettings, size: int, notice: Notify) -> TextEncoding:
    refuse_packed(source)
    head = source.bytes_at(0, 4)
    marked = _marked(head)
    codec = _chosen(settings.encoding, head) if settings.encoding is not None else marked or TextEncoding()
    checked = _checked(source, codec, size, refuse_nul=True)
    if checked.fault and not codec.wide:
        _refuse_nul(source, size)
    if checked.fault and settings.encoding is None and marked is None:
        checked = _guessed(checked, settings.errors == "strict", notice)
        codec = checked.codec
    if checked.fault:
        checked = _lenient(checked, settings.errors, notice)
        codec = replace(codec, errors=settings.errors)
    if checked.marks:
        notice(f"{source.shown}: left out {checked.marks:,} U+FEFF inside the text (byte-order marks)")
    return codec


def _lenient(checked: _Decoding, errors: str, notice: Notify) -> _Decoding:
    """Counts the invalid bytes that will be replaced or ignored.

    Raises:
        TextError: `errors` is `strict`.
    """
    source, codec, first = checked.source, checked.codec, checked.fault
    if errors == "strict":
        raise TextError(
            f"{source.shown}: {first} is not {codec.name}; pass `errors='replace'` or `errors='ignore'` to read it "
            "anyway, or `encoding` if the text is in another encoding"
        )
    decoding = _Decoding(source, replace(codec, errors=COUNTED), checked.size)
    faults = characters = 0
    for text in decoding.chunks():
        faults += text.count(FAULT)
        characters += len(text)
    done = "replaced by U+FFFD" if errors == "replace" else "left out"
    notice(
        f"{source.shown}: {done} because they are not {codec.name}: {faults:,} of {characters:,} characters "
        f"({share(faults, characters)}), the first at {first}"
    )
    return decoding


def _marked(head: bytes) -> TextEncoding | None:
    """The encoding of a byte-order mark."""
    return next((TextEncoding(name, skip=len(mark)) for mark, name in MARKS if head.startswith(mark)), None)


def _chosen(encoding: str, head: bytes) -> TextEncoding:
    """The encoding from the settings; `utf-16` and `utf-32` without a mark are little-endian, as on most machines."""
    try:
        info = codecs.lookup(encoding)
    except (LookupError, ValueError):
        raise SettingsError(
            f"`encoding` must be one that Python knows, such as utf-8 or cp1252; got {encoding!r}"
        ) from None
    name = info.name.removesuffix("-sig")
    if not info._is_text_encoding or name in NOT_FOR_FILES:
        raise SettingsError(f"`encoding` must be one for text files, such as utf-8 or cp1252; got {encoding!r}")
    marked = _marked(head)
    if marked and name in (marked.name, marked.name[:6]):
        return marked
    return TextEncoding({"utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(name, name))


class _Decoding:
    """One pass over a source. Afterwards `fault` is the first invalid byte, if any; `marks` counts U+FEFF."""

    def __init__(self, source: Source, codec: TextEncoding, size: int) -> None:
        self.source, self.codec, self.size = source, codec, size
        self.fault: DecodingFault | None = None
        self.marks = 0
        self.begin = codec.skip  # offset of the first byte after the latest chunk of text

    def chunks(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(self.codec.name)(self.codec.errors)
        position = self.codec.skip
        for block in chain(self.source.blocks(self.size, position), [b""]):
            self.begin = position - len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                self.fault = DecodingFault(self.begin + error.start, error.object[error.start])
                return
            position += len(block)
            self.marks += text.count(MARK)
            if text:
                yield text


def _checked(source: Source, codec: TextEncoding, size: int, refuse_nul: bool = False) -> _Decoding:
    """Decodes up to the first invalid byte; with `refuse_nul`, a NUL character is an error."""
    decoding = _Decoding(source, codec, size)
    for text in decoding.chunks():
        if refuse_nul and (at := text.find("\0")) >= 0:
            raise _binary(source, decoding.begin + len(text[:at].encode(codec.name)))
    return decoding


def _binary(source: Source, offset: int) -> BinaryFile:
    return BinaryFile(
        f"{source.shown} looks binary: a NUL byte at offset {offset:,}; only a model trained with `binary=True` "
        "reads bytes; for UTF-16 without a byte-order mark pass `encoding='utf-16-le'` or `encoding='utf-16-be'`"
    )


def _guessed(checked: _Decoding, strict: bool, notice: Notify) -> _Decoding:
    """A pass over a file that is not UTF-8, with a guessed encoding; bytes may be invalid in this encoding too.

    Raises:
        BinaryFile: no encoding fits.
    """
    source, fault = checked.source, checked.fault
    assert fault is not None
    start = max(0, fault.offset - LEAD)
    sample = source.bytes_at(start, SAMPLE)
    if _damaged(sample):
        return checked
    sample = sample[_word_before(sample, fault.offset - start) :]
    name = _detected(sample)
    if name is None:
        raise BinaryFile(
            f"{source.shown} looks binary: {fault} is not UTF-8, and no other encoding fits; only a model trained "
            "with `binary=True` reads bytes; pass `encoding` with `errors='replace'` to read it anyway"
        )
    guessed = _checked(source, TextEncoding(name), checked.size)
    if guessed.fault is None or not strict:
        notice(
            f"{source.shown} is not UTF-8; reading it as {name}{_words(sample.decode(name, 'ignore'))} "
            "(pass `encoding` to choose another)"
        )
    return guessed


def _words(text: str) -> str:
    """The first words with letters that are not ASCII: they show whether the guess is right. May be empty."""
    found = dict.fromkeys(word[:SHOWN_LETTERS] for word in WORDS.findall(text) if word.isprintable())
    return f", with words such as {', '.join(map(repr, [*found][:SHOWN_WORDS]))}" if found else ""


def _refuse_nul(source: Source, size: int) -> None:
    position = 0
    for block in source.blocks(size):
        if (at := block.find(0)) >= 0:
            raise _binary(source, position + at)
        position += len(block)


def _damaged(sample: bytes) -> bool:
    """Whether this is UTF-8 with a few invalid bytes: more multi-byte characters than invalid bytes."""
    begin = next((i for i in range(min(4, len(sample))) if sample[i] & 0xC0 != 0x80), 0)
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(sample[begin:])
    bad = len(re.findall("[\udc80-\udcff]", text))
    return len(re.findall("[^\0-\x7f]", text)) - bad > bad


def _word_before(sample: bytes, at: int) -> int:
    """The start of a word shortly before `at`. The detector samples only a few positions, so ASCII before it is short.

    It is the start of a word: a space or newline is never a part of a multi-byte character.
    """
    return max(sample.rfind(space, 0, max(0, at - CONTEXT)) for space in (b" ", b"\n")) + 1


def _detected(sample: bytes) -> str | None:
    """charset-normalizer's guess; but cp1252, which is far more common, if it is about as likely as the best guess.

    None for data that is not text: control characters and noise fit no encoding.
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
