"""Finding facilities by words that people type, their typing errors forgiven.

A directory searches the records of its nodes, and a node searches remembered records.

Every search word must be the beginning of a word of a record, or similar to one. Two steps keep the
search fast with ten thousand records: only the distinct words are compared, of which there are few,
and an index by word leads to the records.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from rapidfuzz import fuzz, process

from node.domain.display_text import folded

Key = TypeVar("Key")
MAX_WORDS = 8
MAX_CHARACTERS = 100
_LEAST_LIKENESS = 75.0
_WHOLE, _BEGINNING = 100.0, 95.0


class Search(Generic[Key]):
    """Texts that can be searched, by key."""

    def __init__(self) -> None:
        self._words: dict[Key, frozenset[str]] = {}
        self._keys: dict[str, set[Key]] = defaultdict(set)

    def put(self, key: Key, texts: Iterable[str]) -> None:
        """Make a key findable by these texts, and no longer by earlier ones."""
        self.remove(key)
        words = frozenset(word for text in texts for word in words_of(text))
        self._words[key] = words
        for word in words:
            self._keys[word].add(key)

    def remove(self, key: Key) -> None:
        """Make a key findable no longer."""
        for word in self._words.pop(key, ()):
            self._keys[word].discard(key)
            if not self._keys[word]:
                del self._keys[word]

    def find(self, asked: str, limit: int) -> list[Key]:
        """Return the keys that fit, best first."""
        asked_words = words_of(asked[:MAX_CHARACTERS])[:MAX_WORDS]
        total: dict[Key, float] | None = None
        for word in asked_words:
            best: dict[Key, float] = {}
            for known, likeness in self._likely(word):
                for key in self._keys[known]:
                    best[key] = max(best.get(key, 0.0), likeness)
            total = (
                best
                if total is None
                else {key: total[key] + best[key] for key in total.keys() & best.keys()}
            )
        found = total or {}
        # The fewer other words, the more the words asked for say of a record.
        order = sorted(found, key=lambda key: (-found[key], len(self._words[key]), repr(key)))
        return order[:limit]

    def _likely(self, word: str) -> list[tuple[str, float]]:
        likely = [
            (known, _WHOLE if known == word else _BEGINNING)
            for known in self._keys
            if known.startswith(word)
        ]
        if len(word) >= 4:  # shorter words resemble too many others
            likely += [
                (known, likeness)
                for known, likeness, _ in process.extract(
                    word,
                    list(self._keys),
                    scorer=fuzz.ratio,
                    score_cutoff=_LEAST_LIKENESS,
                    limit=50,
                )
            ]
        return likely


def words_of(text: str) -> Sequence[str]:
    """Return the words of a text in the form in which they are compared: no case, no accents."""
    return "".join(c if c.isalnum() else " " for c in folded(text)).split()
