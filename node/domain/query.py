"""Queries to the catalogue: attributes of studies, series and instances, and how they match.

The attributes are the keys of the Study Root model (PS3.4 C.6.2.1) and of QIDO-RS (PS3.18 10.6.1).
The ways of matching are those of PS3.4 C.2.2.2: single value, list of UIDs, universal, wildcards,
ranges. Names and descriptions match without regard to case and accents; identifiers and codes
match as they are written.
"""

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from rapidfuzz import process

from node.domain.display_text import folded, forms
from node.domain.uids import MAX_UID, is_loose_uid
from node.errors import UsageError

MAX_PATTERN = 324
"""Characters of what one key has to match: a person name in five components and three groups."""
MAX_WILDCARDS = 8
MAX_VALUES = 1000
"""UIDs or codes in one list."""
MAX_WORDS = 32


class Level(enum.StrEnum):
    """What is looked for; each is inside the one before it (PS3.4 C.6.2)."""

    STUDY = "study"
    SERIES = "series"
    IMAGE = "image"


class Kind(enum.Enum):
    """How an attribute matches."""

    UID = enum.auto()  # one of a list
    CODE = enum.auto()  # as written, one of a list, with wildcards
    TEXT = enum.auto()  # folded, with wildcards
    NAME = enum.auto()  # likewise, by component group
    DATE = enum.auto()  # a day or a range of days
    TIME = enum.auto()  # likewise
    NUMBER = enum.auto()
    COUNT = enum.auto()  # is answered, and matches nothing


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of the catalogue.

    Attributes:
        keyword: As PS3.6 has it.
        tag: Group and element.
    """

    keyword: str
    tag: int
    level: Level
    kind: Kind


def _of(level: Level, *rows: tuple[str, int, Kind]) -> dict[str, Attribute]:
    return {keyword: Attribute(keyword, tag, level, kind) for keyword, tag, kind in rows}


ATTRIBUTES: Mapping[str, Attribute] = {
    **_of(
        Level.STUDY,
        ("StudyInstanceUID", 0x0020000D, Kind.UID),
        ("PatientName", 0x00100010, Kind.NAME),
        ("PatientID", 0x00100020, Kind.CODE),
        ("PatientBirthDate", 0x00100030, Kind.DATE),
        ("PatientSex", 0x00100040, Kind.CODE),
        ("StudyDate", 0x00080020, Kind.DATE),
        ("StudyTime", 0x00080030, Kind.TIME),
        ("StudyID", 0x00200010, Kind.CODE),
        ("AccessionNumber", 0x00080050, Kind.CODE),
        ("StudyDescription", 0x00081030, Kind.TEXT),
        ("ReferringPhysicianName", 0x00080090, Kind.NAME),
        ("InstitutionName", 0x00080080, Kind.TEXT),
        ("ModalitiesInStudy", 0x00080061, Kind.CODE),
        ("NumberOfStudyRelatedSeries", 0x00201206, Kind.COUNT),
        ("NumberOfStudyRelatedInstances", 0x00201208, Kind.COUNT),
    ),
    **_of(
        Level.SERIES,
        ("SeriesInstanceUID", 0x0020000E, Kind.UID),
        ("Modality", 0x00080060, Kind.CODE),
        ("SeriesNumber", 0x00200011, Kind.NUMBER),
        ("SeriesDescription", 0x0008103E, Kind.TEXT),
        ("BodyPartExamined", 0x00180015, Kind.CODE),
        ("PerformedProcedureStepStartDate", 0x00400244, Kind.DATE),
        ("PerformedProcedureStepStartTime", 0x00400245, Kind.TIME),
        ("NumberOfSeriesRelatedInstances", 0x00201209, Kind.COUNT),
    ),
    **_of(
        Level.IMAGE,
        ("SOPInstanceUID", 0x00080018, Kind.UID),
        ("SOPClassUID", 0x00080016, Kind.UID),
        ("InstanceNumber", 0x00200013, Kind.NUMBER),
        ("Rows", 0x00280010, Kind.NUMBER),
        ("Columns", 0x00280011, Kind.NUMBER),
        ("BitsAllocated", 0x00280100, Kind.NUMBER),
        ("NumberOfFrames", 0x00280008, Kind.NUMBER),
        ("AvailableTransferSyntaxUID", 0x00083002, Kind.UID),
    ),
}
"""By keyword, in the order of their levels."""

_BY_KEYWORD = {keyword.casefold(): one for keyword, one in ATTRIBUTES.items()}
_LEVELS = list(Level)
_DATE = re.compile(r"[0-9]{8}")
_HYPHENATED = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_TIME = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9]|60)?(\.[0-9]{1,6})?)?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,10}")
_MOST_GROUPS = 3  # alphabetic, ideographic, phonetic: PS3.5 6.2.1.2
_LAST_DIGITS = "235959.999999"


def attribute(name: str) -> Attribute:
    """Return the attribute that a keyword or a tag, as 8 hexadecimal digits, names.

    Raises:
        UsageError: the catalogue has none of that name.
    """
    if found := _BY_KEYWORD.get(name.casefold()):
        return found
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        for one in ATTRIBUTES.values():
            if one.tag == int(name, 16):
                return one
    named = f" called {name}" if re.fullmatch(r"[A-Za-z0-9,()]{1,64}", name) else ""
    close = [
        known for known, *_ in process.extract(name, list(ATTRIBUTES), limit=3, score_cutoff=70)
    ]
    meant = f"; perhaps {' or '.join(close)}" if close and named else ""
    raise UsageError(
        f"the catalogue has no such key{named}{meant}. `emix query --help` lists its keys; a tag"
        " is 8 hexadecimal digits"
    )


@dataclass(frozen=True, slots=True)
class Criterion:
    """The condition on one attribute.

    Attributes:
        attribute: The attribute.
        values: For `UID`, `CODE` and `NUMBER` the accepted values; for `TEXT` and `NAME` the
            accepted patterns, folded.
        low: For `DATE` and `TIME` the earliest match; empty for no bound.
        high: The latest match.
        text: The key as it was given.
    """

    attribute: Attribute
    values: tuple[str, ...] = ()
    low: str = ""
    high: str = ""
    text: str = field(default="", compare=False)

    def matches(self, value: str) -> bool:
        """Return whether a value of the attribute matches; what is missing matches nothing."""
        if not value:
            return False
        match self.attribute.kind:
            case Kind.UID:
                return value in self.values
            case Kind.CODE:
                one_by_one = value.split() if self.attribute.keyword in _SEVERAL else [value]
                return any(wildcard_matches(p, one) for p in self.values for one in one_by_one)
            case Kind.TEXT:
                return any(wildcard_matches(p, form) for p in self.values for form in forms(value))
            case Kind.NAME:
                return any(
                    wildcard_matches(p, form) for p in self.values for form in name_forms(value)
                )
            case Kind.DATE:
                return bool(_DATE.fullmatch(value)) and self._is_between(value)
            case Kind.TIME:
                return bool(_TIME.fullmatch(value)) and self._is_between(full_time(value))
            case Kind.NUMBER:
                return bool(_INTEGER.fullmatch(value)) and str(int(value)) in self.values
            case Kind.COUNT:
                return False

    def _is_between(self, value: str) -> bool:
        return (not self.low or value >= self.low) and (not self.high or value <= self.high)


_SEVERAL = frozenset({"ModalitiesInStudy"})


def criterion(name: str, text: str) -> Criterion | None:
    """Return the criterion for a matching key in DICOM syntax; None if it matches anything.

    Raises:
        UsageError: there is no such key, or its value has the wrong syntax.
    """
    key = attribute(name)
    wanted = text.strip(" \0")
    if not wanted or set(wanted) == {"*"}:
        return None
    values: tuple[str, ...] = ()
    low = high = ""
    match key.kind:
        case Kind.UID:
            values = _uids(key, wanted)
        case Kind.CODE:
            values = _patterns(key, wanted.split("\\"))
        case Kind.TEXT:
            values = _patterns(key, [folded(wanted)])
        case Kind.NAME:
            values = _patterns(key, _name_patterns(wanted))
        case Kind.DATE:
            plain = _HYPHENATED.sub(r"\1\2\3", wanted)
            low, high = _range(key, plain, _DATE, "days are written 20261124, 20261101-20261130,")
            if not all(map(_is_day, filter(None, (low, high)))):
                raise UsageError(f"{key.keyword}: this day does not exist")
        case Kind.TIME:
            plain = wanted.replace(":", "")
            low, high = _range(key, plain, _TIME, "times are written 1030, 1000-1200,")
            low, high = low and full_time(low), high and _last_time(high)
        case Kind.NUMBER:
            values = tuple(_number(key, one) for one in wanted.split("\\"))
        case Kind.COUNT:
            raise UsageError(f"{key.keyword} appears in answers only and cannot be searched")
    return Criterion(key, values, low, high, wanted)


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _uids(key: Attribute, wanted: str) -> tuple[str, ...]:
    uids = tuple(uid.strip() for uid in re.split(r"[\\,]", wanted))
    if len(uids) > MAX_VALUES:
        raise UsageError(f"{key.keyword}: at most {MAX_VALUES} UIDs are allowed")
    if not all(len(uid) <= MAX_UID and is_loose_uid(uid) for uid in uids):
        raise UsageError(
            f"{key.keyword}: a UID has only digits and full stops, no wildcards; separate several"
            " UIDs by commas"
        )
    return uids


def _patterns(key: Attribute, patterns: Sequence[str]) -> tuple[str, ...]:
    if len(patterns) > MAX_VALUES:
        raise UsageError(f"{key.keyword}: at most {MAX_VALUES} values are allowed")
    shorter = tuple(re.sub(r"\*+", "*", p.strip()) for p in patterns if p.strip())
    if not shorter:
        raise UsageError(f"{key.keyword}: there is no value between the separators")
    if any(len(p) > MAX_PATTERN or p.count("*") > MAX_WILDCARDS for p in shorter):
        raise UsageError(
            f"{key.keyword}: a pattern has at most {MAX_PATTERN} characters and {MAX_WILDCARDS}"
            " asterisks"
        )
    return shorter


def _name_patterns(wanted: str) -> list[str]:
    """Return the patterns of a person name: of each component group one, or two.

    A family name alone, without a wildcard, is whoever is called so.
    """
    patterns = []
    for group in filter(None, (_ended(folded(group)) for group in _groups(wanted))):
        patterns.append(group)
        if not set(group) & set("^*?"):
            patterns.append(f"{group}^*")
    return patterns or ["^"]


def name_forms(name: str) -> list[str]:
    """Return how a person name is compared: each component group folded, and spelt out."""
    found = [form for group in _groups(name) for form in forms(_ended(group))]
    return list(dict.fromkeys(form for form in found if form))


def _groups(name: str) -> list[str]:
    return name.split("=")[:_MOST_GROUPS]


def _ended(group: str) -> str:
    """Return a component group without padding and what ends it (PS3.5 6.2, 6.2.1.1)."""
    return "^".join(component.strip() for component in group.split("^")).rstrip("^")


def _range(key: Attribute, wanted: str, form: re.Pattern[str], written: str) -> tuple[str, str]:
    low, dash, high = (part.strip() for part in wanted.partition("-"))
    if not dash:
        high = low
    if not (low or high) or any(end and not form.fullmatch(end) for end in (low, high)):
        raise UsageError(f"{key.keyword}: {written} or with one end left out")
    if low and high and low > high:
        raise UsageError(f"{key.keyword}: a range must begin with its lower end")
    return low, high


def full_time(time: str) -> str:
    """Return a TM value with all its digits: the first moment that it can mean."""
    digits, _, fraction = time.partition(".")
    return f"{digits.ljust(6, '0')}.{fraction.ljust(6, '0')}"


def _last_time(time: str) -> str:
    return time + _LAST_DIGITS[len(time) :] if "." not in time else full_time(time)


def _number(key: Attribute, text: str) -> str:
    if not _INTEGER.fullmatch(text.strip()):
        raise UsageError(f"{key.keyword} must be a whole number")
    return str(int(text))


def wildcard_matches(pattern: str, value: str) -> bool:
    """Return whether a value matches: `*` is any characters, `?` is one (PS3.4 C.2.2.2.4).

    It takes at most as many steps as the product of both lengths.
    """
    at = position = 0
    star, resume = -1, 0
    while position < len(value):
        if at < len(pattern) and pattern[at] == "*":
            star, resume, at = at, position, at + 1
        elif at < len(pattern) and pattern[at] in ("?", value[position]):
            at, position = at + 1, position + 1
        elif star >= 0:
            resume += 1
            at, position = star + 1, resume
        else:
            return False
    return not pattern[at:].strip("*")


@dataclass(frozen=True, slots=True)
class Query:
    """A query to the catalogue.

    Attributes:
        level: The level of the answers.
        criteria: All of them have to match.
        words: Each must occur in the searchable texts; see `display_text.words_to_find`.
        arrived_only: Only studies that came from other facilities.
        offset: How many of the newest answers are skipped.
        limit: At most so many answers; 0 for all.
    """

    level: Level = Level.STUDY
    criteria: Sequence[Criterion] = field(default_factory=tuple)
    words: Sequence[str] = ()
    arrived_only: bool = False
    offset: int = 0
    limit: int = 0

    def at(self, level: Level) -> list[Criterion]:
        """Return the criteria on attributes of one level."""
        return [one for one in self.criteria if one.attribute.level is level]


def make_query(
    level: Level,
    keys: Mapping[str, str],
    words: Sequence[str] = (),
    limit: int = 0,
    offset: int = 0,
) -> Query:
    """Return a question from keys as DICOM writes them.

    Raises:
        UsageError: a key is unknown, or belongs to a level below, or is written wrongly.
    """
    if len(words) > MAX_WORDS or any(len(word) > MAX_PATTERN for word in words):
        raise UsageError(f"at most {MAX_WORDS} words of {MAX_PATTERN} characters are allowed")
    criteria = [criterion(name, text) for name, text in keys.items()]
    found = [one for one in criteria if one is not None]
    if len({attribute(name).keyword for name in keys}) < len(keys):
        raise UsageError("a key is given twice, by its keyword and by its tag")
    for one in found:
        if _LEVELS.index(one.attribute.level) > _LEVELS.index(level):
            instead = ", or for ModalitiesInStudy" if one.attribute.keyword == "Modality" else ""
            raise UsageError(
                f"{one.attribute.keyword} is an attribute of the {one.attribute.level} level;"
                f" search at that level{instead}"
            )
    return Query(level, tuple(found), tuple(words), limit=limit, offset=offset)
