"""Delayed refusals: a caller that is refused pays with time, and in the end with its connections.

A refused call costs this node about a millisecond and costs the caller nothing. So the refusal is
delayed; meanwhile the call occupies one of its connection's streams. A caller that is nevertheless
refused many times a second is delayed longer, and if it cancels such a call to make another, its
connection is closed.

*Measured*: a peer that was answered at once made 626 calls a second and used 0.94 of a core; a
stranger made 1,155 and used a whole core. A peer that was blocked for ten seconds returned at once
with all its connections and calls, 520 a second, which used 0.8. With delays it uses 0.02 to 0.1.
"""

from typing import Protocol

import trio

from node.pace import Pace

REFUSAL_SECONDS = 1.0
FLOOD_SECONDS = 5.0
REFUSALS_A_SECOND, REFUSALS_AT_ONCE = 5.0, 150.0
"""Of one caller. A peer's hundred urgent transfers that find no room ask again each half minute."""

_OF_PLACES = 2  # held refusals take at most the half of the places for calls


class Door(Protocol):
    """Bounds the connections of a port; `node.rpc.warden` does."""

    def drop(self, address: str) -> None:
        """End the connection that an address names."""


class Refusals:
    """Holds the refusals of one server before they are answered."""

    def __init__(self, door: Door, *, max_calls: int) -> None:
        self._door = door
        self._most = max_calls // _OF_PLACES
        self._held = 0
        self._calm = Pace(REFUSALS_A_SECOND, burst=REFUSALS_AT_ONCE)

    async def hold(self, address: str, account: str) -> None:
        """Delay the refusal of a call from an address, which counts for an account.

        Cancellation: the place among those that are held is given back.
        """
        is_flood = self._calm.wait_seconds(account) > 0
        if self._held >= self._most:
            self._door.drop(address)
            return
        self._held += 1
        try:
            await trio.sleep(FLOOD_SECONDS if is_flood else REFUSAL_SECONDS)
        except trio.Cancelled:
            if is_flood:
                self._door.drop(address)
            raise
        finally:
            self._held -= 1
