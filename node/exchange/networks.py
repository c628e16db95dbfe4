"""Networks: joining one, taking over its signed lists, finding and meeting its members.

A directory is asked and never believed: what it shows is verified first, and what contradicts
what was seen before raises an alarm and changes nothing.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from node.documents.identity import Identity
from node.documents.network import JoinLetter, Membership, Network, Record, claim, open_list
from node.domain.ids import FacilityId, NetworkId
from node.domain.network import ListProblem, NetworkList
from node.errors import (
    Conflict,
    DocumentError,
    NodeError,
    NotFound,
    PeerUntrusted,
    UsageError,
)

log = structlog.get_logger()


class NetworkBook(Protocol):
    """What networks need of the store."""

    async def all(self) -> list[Network]:
        """Return all networks that the facility has joined."""

    async def add(self, letter: JoinLetter, membership: Membership, operator: str) -> None:
        """Keep a network that the facility has joined."""

    async def keep_list(self, network: NetworkId, shown: NetworkList, encoded: bytes) -> None:
        """Keep a newer list, and what it revokes."""

    async def leave(self, network: NetworkId, operator: str) -> None:
        """Forget a network."""

    async def alarm(self, network: NetworkId, problem: str) -> None:
        """Record that a directory showed what it should not have."""


class Directories(Protocol):
    """Asks networks' directories; `node.federation.directory` does."""

    async def join(self, letter: JoinLetter, membership: Membership) -> None:
        """Use an invitation at the letter's directory."""

    async def find(self, network: Network, words: str, limit: int) -> Sequence[Record]:
        """Return verified records that fit, best first."""

    async def lookup(self, network: Network, facilities: Sequence[FacilityId]) -> Sequence[Record]:
        """Return verified records of the nodes of facilities."""


@dataclass(frozen=True)
class Found:
    """A record, and the network in which it was found."""

    network: Network
    record: Record


class Networks:
    """The networks of this facility. `on_change` is awaited after each change of them."""

    def __init__(
        self,
        book: NetworkBook,
        directories: Directories,
        facility_key: bytes,
        take_statements: Callable[[Identity], Awaitable[None]],
    ) -> None:
        self._book = book
        self._directories = directories
        self._facility_key = facility_key
        self._take_statements = take_statements
        self._alarmed: set[tuple[NetworkId, str]] = set()
        self.on_change: Callable[[], Awaitable[None]] = _nothing

    async def all(self) -> list[Network]:
        """Return all networks."""
        return await self._book.all()

    # -- joining --------------------------------------------------------------------------

    async def join(self, text: str, operator: str) -> Network:
        """Join a network with its operator's letter; durable once this returns.

        Raises:
            DocumentError: it is no join letter.
            PeerUntrusted: the invitation has expired, or was revoked.
            Conflict: another facility has used it.
            PeerUnreachable: no directory answers.
        """
        letter = JoinLetter.decode(text)
        now = time.time()
        if now >= letter.invitation.expires_seconds:
            raise PeerUntrusted("the join letter has expired; ask the network for a new one")
        membership = claim(letter, self._facility_key, now)
        await self._directories.join(letter, membership)
        await self._book.add(letter, membership, operator)
        await self.on_change()
        return await self._get(letter.invitation.network)

    async def leave(self, text: str, operator: str) -> Network:
        """Leave a network, by its name, id or the id's beginning. Its operator can revoke it too.

        Raises:
            NotFound: this facility is in no such network.
        """
        wanted = text.strip().casefold()
        found = [
            n
            for n in await self._book.all()
            if n.name.casefold() == wanted or (len(wanted) >= 4 and str(n.id).startswith(wanted))
        ]
        if not found:
            raise NotFound(f"this facility is in no network called {text!r}; `emix networks`")
        if len(found) > 1:
            raise Conflict("several networks are called so; use the network's id")
        await self._book.leave(found[0].id, operator)
        await self.on_change()
        return found[0]

    # -- what directories show ------------------------------------------------------------

    async def took_list(self, network_id: NetworkId, encoded: bytes) -> None:
        """Take over a list that a directory shows, if it is the network's and newer."""
        network = await self._get(network_id)
        try:
            shown = open_list(encoded, network.network_key, time.time())
        except DocumentError as exc:
            await self._alarm(network_id, f"a list that is not the network's: {exc}")
            return
        following = network.view.after(shown)
        if isinstance(following, ListProblem):
            await self._alarm(network_id, following.value)
            return
        if following is network.view:
            return
        await self._book.keep_list(network_id, shown, encoded)
        log.info("list taken over", network=network_id.short(), number=shown.number)
        await self.on_change()

    async def took_record(self, record: Record) -> None:
        """Take over what a member states anew, if it is pinned here."""
        await self._take_statements(record.identity)

    async def was_fooled(self, network_id: NetworkId, problem: str) -> None:
        """Note that a directory showed what is not signed by whom it should be."""
        await self._alarm(network_id, problem)

    async def _alarm(self, network_id: NetworkId, problem: str) -> None:
        log.error("directory alarm", network=network_id.short(), problem=problem)
        # Once for each problem while the node runs: a directory must not fill the log.
        if (network_id, problem) not in self._alarmed and len(self._alarmed) < 1000:
            self._alarmed.add((network_id, problem))
            await self._book.alarm(network_id, problem)

    # -- finding --------------------------------------------------------------------------

    async def find(self, words: str, limit: int) -> list[Found]:
        """Return members of all networks that fit, best first.

        Raises:
            UsageError: this facility is in no network, or no word is asked for.
            NodeError: no directory answered.
        """
        if not words.strip():
            raise UsageError("say what to look for: words of a name, city or department")
        return await self._ask_all(
            lambda network: self._directories.find(network, words, limit), limit
        )

    async def lookup(self, facility: FacilityId) -> Found:
        """Return a facility's newest record.

        Raises:
            UsageError: this facility is in no network.
            NotFound: no directory knows that facility.
            NodeError: no directory answered.
        """
        found = await self._ask_all(
            lambda network: self._directories.lookup(network, [facility]), 100
        )
        if not found:
            raise NotFound(
                f"no directory knows facility {facility.short()}; say where it is with --at"
            )
        return max(found, key=lambda f: f.record.identity.profile.issued_seconds)

    async def _ask_all(
        self, ask: Callable[[Network], Awaitable[Sequence[Record]]], limit: int
    ) -> list[Found]:
        networks = await self._book.all()
        if not networks:
            raise UsageError("this facility has joined no network: `emix join LETTER`")
        found: list[Found] = []
        error: NodeError | None = None
        for network in networks:
            try:
                found += [Found(network, record) for record in await ask(network)]
            except NodeError as exc:
                error = exc
        if error is not None and not found:
            raise error
        return found[:limit]

    async def _get(self, network_id: NetworkId) -> Network:
        for network in await self._book.all():
            if network.id == network_id:
                return network
        raise NotFound("this facility is not in that network")


async def _nothing() -> None:
    return
