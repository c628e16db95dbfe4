"""Which instances of a study are other images, and which are versions of one.

A SOP Instance UID ought to name one image, and does not always: scanners use it again in another
series, and copies of a study have several images under it. So an image is known by its series,
too, and only a later package (another import, another delivery) replaces what an earlier one has.
Where one package has several under a name, nobody can say which a later one replaces: all stay.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from node.domain.manifest import InstanceEntry


@dataclass(frozen=True, slots=True)
class Namesake:
    """An instance that is here under the SOP Instance UID of one that is being imported.

    Attributes:
        is_of_import: Whether this same import brought it.
    """

    series_instance_uid: str
    digest: bytes
    is_of_import: bool


def doubt_about(
    series_instance_uid: str, digest: bytes, namesakes: Iterable[Namesake], *, is_repeated: bool
) -> str:
    """Return what is odd about an instance beside those of the same name; empty for nothing.

    Args:
        series_instance_uid: Its series.
        digest: Its content's; the same content is no other version.
        namesakes: What is here.
        is_repeated: Whether this import has met its SOP Instance UID before.
    """
    others = [found for found in namesakes if found.digest != digest]
    if is_repeated or any(found.is_of_import for found in others):
        return "another image of this import has the same SOP Instance UID; both are kept"
    if any(found.series_instance_uid == series_instance_uid for found in others):
        return "another version of an instance in the store; both are kept"
    if others:
        return "an image of another series has the same SOP Instance UID; both are kept"
    return ""


def older_versions(packages: Sequence[Sequence[InstanceEntry]]) -> set[bytes]:
    """Return the digests of those instances that a later package replaces.

    Args:
        packages: The instances of one study and origin by package, oldest first.
    """
    newest: dict[tuple[str, str], bytes] = {}
    several: set[tuple[str, str]] = set()
    for instances in packages:
        here: dict[tuple[str, str], bytes] = {}
        for instance in instances:
            name = (instance.series_instance_uid, instance.sop_instance_uid)
            if here.setdefault(name, instance.digest) != instance.digest:
                several.add(name)
        newest |= here
    return {
        instance.digest
        for instances in packages
        for instance in instances
        if (name := (instance.series_instance_uid, instance.sop_instance_uid)) not in several
        and newest[name] != instance.digest
    }
