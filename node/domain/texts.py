"""Text from outside, made safe to show and to keep, and to be found."""

import codecs
import re
import unicodedata
from collections.abc import Iterable

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def plain_text(data: bytes) -> str:
    """Return the text in a file that a person or an editor wrote: UTF-8, or as its mark says.

    Windows editors put a mark (BOM) before it, and PowerShell writes UTF-16.

    Raises:
        ValueError: it is no text.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding)
    return data.decode()


def shown(text: str, instead: str = "?") -> str:
    """Return text in which no character can fool a terminal: control, direction, format."""
    return "".join(c if c.isprintable() else instead for c in text)


def encodable(text: str) -> str:
    """Return text that SQLite and protobuf take: names of other encodings have bytes shown."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# Letters that have no accent to take away, and what people type for them.
_LETTERS = str.maketrans(
    {"ø": "o", "đ": "d", "ð": "d", "ł": "l", "æ": "ae", "œ": "oe", "\u0131": "i", "þ": "th"}
)
# How names with these are written where there is no such key.
_SPELT_OUT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})
_DAY = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
_BETWEEN_WORDS = re.compile(r"[\s^=,;]+")


def folded(text: str) -> str:
    """Return text in the form in which it is compared: no case, no accents, one encoding.

    `Müller` is `muller`, whether it came composed or decomposed.
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in plain if not unicodedata.combining(c)).translate(_LETTERS)


def findable(texts: Iterable[str]) -> str:
    """Return what a search looks through for some texts; see `words_to_find`.

    Names are in it without accents, and spelt out: `muller` and `mueller` both find `Müller`.
    """
    found = dict[str, None]()
    for text in texts:
        spelt = unicodedata.normalize("NFC", text.casefold()).translate(_SPELT_OUT)
        found |= {folded(text): None, folded(spelt): None}
    return " ".join(filter(None, found))


def words_to_find(query: str) -> list[str]:
    """Return the words of a search, each of which has to occur in what `findable` returned.

    A day can be written 2026-11-24; DICOM has it without hyphens.
    """
    plain = _DAY.sub(r"\1\2\3", folded(query))
    return [word for word in _BETWEEN_WORDS.split(plain) if word]
