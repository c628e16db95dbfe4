"""This node's statements, and its TLS certificate, which is renewed while the node runs.

The next certificate is made when the present one has 30 days left. From then on the statements name
both, and connected peers get them with the next Hello. The present one stays in use until it has 20
days left, so that hardly any peer meets a certificate that it does not know.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog
import trio

from node.app.current import Current
from node.app.home import Home, Unlocked, save_secrets
from node.crypto.certificates import TlsIdentity, make_tls_identity, validity
from node.documents.identity import Profile, make_statements
from node.documents.network import Listing
from node.documents.signed import MAX_CLOCK_SKEW_SECONDS
from node.errors import NodeError
from node.federation.connections.peer_service import PROTOCOL_VERSION
from node.federation.routes.dialing import reachable
from node.system import clock
from node.version import SOFTWARE

log = structlog.get_logger()
_DAY = 86400.0
RENEW_SECONDS = 30 * _DAY
SWITCH_SECONDS = 20 * _DAY
LOOK_SECONDS = 30.0


class OwnIdentity:
    """This node's keys and certificates. `keep_fresh` must run for the life of the node."""

    def __init__(self, home: Home, unlocked: Unlocked) -> None:
        """Prepare; renews the certificate if that is due, since it may have expired."""
        self._home = home
        self._unlocked = unlocked
        self._stated_seconds = int(clock.now())
        self._stated: Profile | None = None
        self.renew(clock.now())

    @property
    def stated_seconds(self) -> int:
        """The issue time of the present statements, in seconds since 1970."""
        return self._stated_seconds

    def tls(self) -> TlsIdentity:
        """Return the TLS identity to use now: the last until it has 20 days left, then the next."""
        # Peers look at it by their own time: after months off, by what a suspect clock shows.
        wall = clock.CLOCK.wall()
        newest, *older = self._unlocked.secrets.tls
        until = max(clock.now(), wall) + SWITCH_SECONDS
        if _is_to_come(newest, wall):
            until = wall
        return next((tls for tls in older if validity(tls.certificate_der)[1] > until), newest)

    def statements(self, profile: Profile) -> bytes:
        """Return the encoded statements of this node as they now are.

        A changed profile, for example with another address of this machine, gets a later issue
        time: peers accept later statements only.
        """
        secrets = self._unlocked.secrets
        stated = replace(profile, issued_seconds=0)
        if self._stated not in (None, stated):
            self._state_later(clock.now())
        self._stated = stated
        return make_statements(
            secrets.node_key,
            self._unlocked.signer.signer,
            [tls.certificate_der for tls in secrets.tls],
            secrets.seal_keys[0].public,
            replace(profile, issued_seconds=self._stated_seconds),
        )

    def renew(self, now: float) -> bool:
        """Make the next certificate if it is due; return whether it was. Blocks.

        Raises:
            NodeError: the keyring could not be written; the last certificate stays in use.
        """
        secrets, moments = self._unlocked.secrets, (now, clock.CLOCK.wall())
        is_usable = not _is_to_come(secrets.tls[0], max(moments))
        if is_usable and _left(secrets.tls[0], now) > RENEW_SECONDS:
            return False
        fresh = make_tls_identity(self._unlocked.signer.node_id, now)
        # While two times are in question, none goes that is good by either.
        kept = tuple(
            tls
            for tls in secrets.tls
            if _left(tls, min(moments)) > 0 and not _is_to_come(tls, max(moments))
        )
        changed = replace(secrets, tls=(fresh, *kept)[:2])
        self._unlocked = save_secrets(self._home, self._unlocked, changed)
        self._state_later(now)
        log.info("certificate renewed")
        return True

    def _state_later(self, now: float) -> None:
        self._stated_seconds = max(int(now), self._stated_seconds + 1)  # peers take later ones only

    async def keep_fresh(self, use: Callable[[TlsIdentity], None]) -> None:
        """Renew the certificate when it is due, and have the right one used, for ever."""
        while True:
            try:
                await trio.to_thread.run_sync(self.renew, clock.now())
            except NodeError as exc:  # a full disk, say: there are 30 days to mend it
                log.exception("certificate not renewed", code=exc.code.value)
            use(self.tls())
            await trio.sleep(LOOK_SECONDS)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the node's services are bound; empty before they are."""

    peer: str = ""
    introduction: str = ""


class Statements:
    """This node's present statements to peers and directories."""

    def __init__(self, own: OwnIdentity, current: Current) -> None:
        self._own = own
        self._current = current
        self._addresses = Addresses()

    def bound_at(self, addresses: Addresses) -> None:
        """Note where the services are bound."""
        self._addresses = addresses

    @property
    def addresses(self) -> Addresses:
        """Where the services are bound."""
        return self._addresses

    def bound(self) -> tuple[str, str]:
        """Return where the peer service and the introduction service are bound."""
        return self._addresses.peer, self._addresses.introduction

    def own_peer_service(self) -> str:
        """Return how this node itself reaches its peer service."""
        host, _, port = self._addresses.peer.rpartition(":")
        own = {"0.0.0.0": f"127.0.0.1:{port}", "[::]": f"[::1]:{port}"}  # noqa: S104
        return own.get(host, self._addresses.peer)

    def encoded(self) -> bytes:
        """Return the signed statements."""
        return self._own.statements(self._profile())

    def announced(self) -> dict[str, Sequence[str]]:
        """Return the addresses that peers are told, by service."""
        profile = self._profile()
        return {"peer service": profile.endpoints, "introduction": profile.introduction_endpoints}

    def listing(self) -> Listing:
        """Return how this facility wishes to be found in directories."""
        config = self._current.config
        return Listing(
            city=config.city,
            departments=config.departments,
            recipients=config.recipients,
            software=SOFTWARE,
            protocol_version=PROTOCOL_VERSION,
            issued_seconds=self._own.stated_seconds,
            relays=self._current.relay_policy(),
        )

    def _profile(self) -> Profile:
        config = self._current.config
        return Profile(
            display_name=config.display_name,
            endpoints=config.announce or reachable(self._addresses.peer),
            introduction_endpoints=config.announce_introduction
            or reachable(self._addresses.introduction),
            issued_seconds=self._own.stated_seconds,
        )


def _is_to_come(tls: TlsIdentity, now: float) -> bool:
    """Whether a certificate is not valid yet: it was made with a wrong clock."""
    return validity(tls.certificate_der)[0] > now + MAX_CLOCK_SKEW_SECONDS


def _left(tls: TlsIdentity, now: float) -> float:
    return validity(tls.certificate_der)[1] - now
