"""What waits in the open packages of an intake, and in which of them the most does.

Packages are kept in classes by how much waits, each class up to twice the one before. So noting an
amount and finding one of the largest cost the same however many packages are open.
"""

_CLASSES = 64  # sizes below 2**64


class Filling:
    """How many bytes wait in each of many packages.

    Attributes:
        total_bytes: What waits in all of them.
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
