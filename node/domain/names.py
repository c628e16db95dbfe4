"""Names of facilities: which ones resemble a Facility ID, and which ones look alike.

A person enters a name or an ID in the same place, so no name may be readable as an ID. Two
facilities with names that look the same must not go unnoticed.
"""

import re
import unicodedata
from collections.abc import Mapping

from node.domain.display_text import printable
from node.domain.ids import LEAST_CHARACTERS, FacilityId
from node.errors import Conflict, NotFound

OWN = "own"
"""How a person names this facility as an origin."""

MAX_NAME_CHARACTERS = 100
_MOST_NAMED = 4  # of several facilities, in a message of bounded length

_DASHES = re.compile(r"[\u2010-\u2015\u2212\ufe58\ufe63\uff0d-]")
_RUN = re.compile(rf"[A-Z2-7]{{{LEAST_CHARACTERS},}}")
_HYPHENATED = re.compile(r"[A-Z2-7]{7}-[A-Z2-7]{7}-[A-Z2-7]{2}")
_SPACED = re.compile(r"[A-Z2-7]{7}[ -]+[A-Z2-7]{7}[ -]+[A-Z2-7]{2}")
# What people type for a character that an ID lacks.
_TYPED = str.maketrans({"0": "O", "1": "I", "8": "B"})

# Letters of other scripts, and pairs, that look like Latin ones in most fonts. A choice from
# Unicode's confusables for the scripts in which hospitals have names; the rest of them are
# accents, widths and ligatures, which normalization takes away.
_CYRILLIC = dict(zip("авекмнорстухіјѕԁԛԝһґԍәӏ", "abekmhopctyxijsdqwhrgel", strict=True))
_GREEK = dict(zip("αβγεηικνορτυχω", "abyenikvoptuxw", strict=True))
_OTHERS = {"ı": "i", "ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe"}  # noqa: RUF001  # so it is
_TABLE = str.maketrans({**_CYRILLIC, **_GREEK, **_OTHERS})
_SHAPES = str.maketrans({"0": "o", "1": "l", "|": "l", "I": "l", "5": "s"})


def looks_like_id(name: str) -> bool:
    """Return whether a text is a Facility ID, or begins as one does.

    That is a whole ID, however it is spaced; or 16 characters of its alphabet: in groups of seven
    with hyphens, or with blanks or in one run if a digit is among them. Words have no digits, and
    "Western Montana Clinic" is no ID.
    """
    plain = _plain(name)
    try:
        FacilityId.parse(plain)
    except ValueError:
        pass
    else:
        return True
    if _HYPHENATED.match(plain):
        return True
    found = _RUN.match(plain) or _SPACED.match(plain)
    return found is not None and any(c.isdigit() for c in found.group())


def id_letters(text: str) -> str:
    """Return a typed Facility ID, or a part of one, as IDs are compared: in one run, folded."""
    return _plain(text).replace("-", "").replace(" ", "")


def beginning_of_id(text: str) -> str:
    """Return what of a Facility ID a text could spell, without hyphens; empty if nothing."""
    plain = id_letters(text)
    return plain if _RUN.fullmatch(plain) else ""


def same_name(a: str, b: str) -> bool:
    """Return whether two texts are one name: case, blanks and ways of encoding do not matter."""
    return _normal(a) == _normal(b)


def alike(a: str, b: str) -> bool:
    """Return whether two names look the same at a glance."""
    return _letters(a) == _letters(b) or _shapes(a) == _shapes(b)


def find_named(facilities: Mapping[FacilityId, str], text: str) -> FacilityId:
    """Return the facility that a person means by an ID, a long beginning of one, or a name.

    An ID takes precedence, and a text that looks like an ID is never read as a name. So a facility
    cannot receive another's studies by taking the other's ID as its name.

    Args:
        facilities: The candidates, and their local names.
        text: The text that was typed.

    Raises:
        NotFound: no facility matches.
        Conflict: several match, and all are named with their IDs; or another name looks alike.
    """
    wanted = text.strip()
    beginning = beginning_of_id(wanted)
    found = {f: n for f, n in facilities.items() if beginning and _run(f).startswith(beginning)}
    if not found and not looks_like_id(wanted):
        found = {f: n for f, n in facilities.items() if alike(n, wanted)}
        if len(found) == 1 and not any(same_name(name, wanted) for name in found.values()):
            raise NotFound(
                f"no paired facility is called {printable(wanted)!r}, but one has a name that looks"
                f" like it; if you mean that one, use its Facility ID: {facilities_text(found)}"
            )
    if not found:
        raise NotFound(
            f"no paired facility is called {printable(wanted)!r}; `emix peers` lists them. Give at"
            f" least {LEAST_CHARACTERS} characters of a Facility ID"
        )
    if len(found) > 1:
        raise several_named(found)
    (facility,) = found
    return facility


def several_named(found: Mapping[FacilityId, str]) -> Conflict:
    """Return the error for a name that several facilities have: their IDs are what is needed."""
    return Conflict(
        f"{len(found)} facilities have this name; use the Facility ID: {facilities_text(found)}"
    )


def facilities_text(found: Mapping[FacilityId, str]) -> str:
    """Return facilities as whole IDs, with what each is called."""
    first = sorted(found.items())[:_MOST_NAMED]
    more = f", and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return ", ".join(f"{facility} ({printable(name)!r})" for facility, name in first) + more


def _run(facility: FacilityId) -> str:
    return str(facility).replace("-", "")


def _letters(name: str) -> str:
    """Return a name without accents, in Latin letters as far as others look like them."""
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    plain = "".join(c for c in text if not unicodedata.combining(c)).translate(_TABLE)
    return "".join(c for c in plain if c.isalnum())


def _shapes(name: str) -> str:
    """Return the same with one character for those that have one shape: 1, l and I; 0 and O."""
    shapes = unicodedata.normalize("NFKC", name).translate(_SHAPES)
    return _letters(shapes).replace("rn", "m").replace("vv", "w")


def _normal(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _plain(text: str) -> str:
    latin = unicodedata.normalize("NFKC", text).casefold().translate(_TABLE)
    normal = _DASHES.sub("-", latin).upper()
    return " ".join(normal.split()).translate(_TYPED)
