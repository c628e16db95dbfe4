"""Text from outside, made safe to show and to keep, and to be found."""

import codecs
import re
import unicodedata
from collections.abc import Iterable
from itertools import chain

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


def printable(text: str, instead: str = "?") -> str:
    """Return text without control, direction and format characters, safe to show on a terminal."""
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

_MOST_TEXT = 194
"""Characters of one text that are searched: a name in three groups of 64, DICOM's longest value."""
MOST_FINDABLE = 32_768
"""Characters in which one package is searched: 200 patients with names as long as names are."""


def folded(text: str) -> str:
    """Return text in the form in which it is compared: no case, no accents, one encoding.

    `Müller` is `muller`, whether it came composed or decomposed.
    """
    if text.isascii():
        return text.lower()
    # An accent takes one character more, a Hangul syllable two; some characters take 17.
    plain = unicodedata.normalize("NFKD", text.casefold())[: 64 + 4 * len(text)]
    bare = "".join(c for c in plain if not unicodedata.combining(c))
    # Syllables of Hangul were taken apart with the accents, and are no accents.
    return unicodedata.normalize("NFC", bare).translate(_LETTERS)


def forms(text: str) -> tuple[str, str]:
    """Return a text as a search finds it: without accents, and spelt out.

    `muller` and `mueller` both find `Müller`. Of a long text the beginning counts.
    """
    begun = text[:_MOST_TEXT]
    spelt = unicodedata.normalize("NFC", begun.casefold()).translate(_SPELT_OUT)
    return folded(begun), folded(spelt)


def findable(found_forms: Iterable[tuple[str, str]], known: str = "") -> str:
    """Return what a search looks through for some texts; see `words_to_find`.

    Args:
        found_forms: Those of the texts. Where there are too many, the last are left out.
        known: What this returned for texts before them, to which they are added.
    """
    found = known
    for form in chain.from_iterable(found_forms):
        if form not in found and len(found) + len(form) < MOST_FINDABLE:
            found = f"{found} {form}" if found else form
    return found


def words_to_find(query: str) -> list[str]:
    """Return the words of a search, each of which has to occur in what `findable` returned.

    A day can be written 2026-11-24; DICOM has it without hyphens.
    """
    plain = _DAY.sub(r"\1\2\3", folded(query))
    return [word for word in _BETWEEN_WORDS.split(plain) if word]
