"""How many bytes wait in memory in each open package of an intake, and which has the most.

Packages are kept in classes by size, each class twice as large as the one before. So noting a size
and finding one of the largest take constant time, however many packages are open.
"""

_CLASSES = 64  # sizes below 2**64


class Filling:
    """How many bytes wait in each of many packages.

    Attributes:
        total_bytes: The bytes that wait in all of them.
    """

    def __init__(self) -> None:
        self.total_bytes = 0
        self._sizes: dict[str, int] = {}
        # Dictionaries for their order: of one class, the one that was noted first comes first.
        self._classes: list[dict[str, None]] = [{} for _ in range(_CLASSES)]

    def note(self, name: str, size: int) -> None:
        """Note how much waits in a package now; 0 forgets it."""
        before = self._sizes.pop(name, 0)
        if before:
            del self._classes[before.bit_length()][name]
        if size:
            self._sizes[name] = size
            self._classes[size.bit_length()][name] = None
        self.total_bytes += size - before

    def largest(self) -> str:
        """Return a package in which at least half as much waits as in any other; "" for none."""
        return next((next(iter(some)) for some in reversed(self._classes) if some), "")
