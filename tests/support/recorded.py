"""Fakes that stand for what use cases call, and remember in which order."""

from typing import Any

import trio

from node.domain.actors import Actor


class Recorded:
    """Answers each method with what the test gave for it, and notes the call."""

    def __init__(self, **answers: Any) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._answers:
            raise AttributeError(name)

        async def call(*args: Any, **more: Any) -> Any:
            await trio.lowlevel.checkpoint()
            self.calls.append((name, (*args, *more.values())))
            answer = self._answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    @property
    def names(self) -> list[str]:
        """The methods that were called, in order."""
        return [name for name, _ in self.calls]


class RecordedTrail:
    """The audit log, in memory; `log` may be another fake's calls, to see what came first."""

    def __init__(self, log: list[tuple[str, tuple[Any, ...]]] | None = None) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = [] if log is None else log

    async def append(self, kind: str, facts: dict[str, object], actor: Actor) -> None:
        await trio.lowlevel.checkpoint()
        self.calls.append((kind, (facts, actor)))

    async def note_list(self, kind: str, facts: dict[str, object], actor: Actor) -> None:
        await self.append(kind, facts, actor)
