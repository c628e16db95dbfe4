"""The admin service of a directory, for the users who may open its socket."""

from collections.abc import Callable, Sequence
from typing import Any

from emix.directory.v1 import admin_pb2 as pb

from directory_service.alarms import Alarms
from directory_service.relay.service import Relay
from directory_service.replica import Replica
from node.crypto.certificates import validity
from node.documents.network import Membership
from node.domain.network import Standing
from node.rpc.pages import write_list
from node.rpc.serving import Call, Handler, Service, allow_all
from node.version import SOFTWARE

_SERVICE = pb.DESCRIPTOR.services_by_name["DirectoryAdminService"]
_SOON_SECONDS = 2 * 86400
_CERTIFICATE_SECONDS = 30 * 86400


class AdminServer:
    """Handlers of the admin service."""

    def __init__(
        self,
        name: str,
        replica: Replica,
        endpoint: str,
        certificate: bytes,
        clock: Callable[[], float],
        relay: Relay | None,
        alarms: Alarms,
        unnamed_relays: Sequence[str],
    ) -> None:
        self._relay = relay
        self._noted = alarms
        self._unnamed_relays = unnamed_relays
        self._name = name
        self._replica = replica
        self._registry = replica.registry
        self._endpoint = endpoint
        self._certificate_expires = validity(certificate)[1]
        self._clock = clock
        self._started = clock()

    def service(self) -> Service:
        """Return the service to serve."""
        handlers: dict[str, Handler] = {
            "GetStatus": self._get_status,
            "ListFacilities": self._list_facilities,
            "AcknowledgeAlarms": self._acknowledge,
        }
        return Service(_SERVICE, handlers, allow_all)

    async def _get_status(self, _: Call[Any]) -> pb.GetStatusResponse:
        latest = self._registry.view.latest
        counts: dict[str, Any] = dict(self._registry.counts)
        if self._relay is not None:
            counts["relay_endpoint"] = self._relay.address
            counts |= {f"relay_{k}": v for k, v in self._relay.figures.counts.items()}
        return pb.GetStatusResponse(
            name=self._name,
            network_id=str(self._registry.network),
            endpoint=self._endpoint,
            software=SOFTWARE,
            list_epoch=self._registry.view.place[0],
            list_number=self._registry.view.place[1],
            list_expires_seconds=int(latest.expires_time) if latest else 0,
            certificate_expires_seconds=int(self._certificate_expires),
            started_seconds=int(self._started),
            alarms=self._alarms(),
            **counts,
        )

    def _alarms(self) -> list[str]:
        now = self._clock()
        alarms = []
        if self._replica.is_database_away:
            alarms.append(
                "the database does not answer: nobody can join or log in; look-ups still work from"
                " memory. Check that PostgreSQL runs and can be reached"
            )
        latest = self._registry.view.latest
        sign = "`emix-directory list sign --network-key FILE`"
        if latest is None:
            alarms.append(f"no list has been signed yet, so nobody is a member: {sign}")
        elif latest.expires_time <= now:
            alarms.append(f"the network's list has expired, so nobody is a member: {sign}")
        elif latest.expires_time - now < _SOON_SECONDS:
            alarms.append(f"the network's list expires soon: {sign}")
        if self._certificate_expires - now < _CERTIFICATE_SECONDS:
            alarms.append(
                "the TLS certificate expires soon: `emix-directory renew --network-key FILE`"
            )
        if self._unnamed_relays:
            relays = ", ".join(self._unnamed_relays)
            alarms.append(
                f"the network key has not named these relays, so nodes do not use them: {relays}."
                " Run `emix-directory renew --network-key FILE`, then restart"
            )
        waiting = sum(
            self._standing(m) is Standing.PROVISIONAL for m in self._registry.memberships()
        )
        others = {
            m.invitation.display_name
            for m in self._registry.memberships()
            if self._standing(m) is Standing.OTHER_FACILITY
        }
        alarms += [
            f"another facility used the invitation of {name}, too: its letter was leaked. Revoke it"
            " and make a new one; see `emix-directory facilities`"
            for name in sorted(others)
        ]
        if latest is not None and waiting:
            alarms.append(f"{waiting} facilities wait to be confirmed: {sign}")
        return alarms + self._noted.texts()

    async def _acknowledge(self, _: Call[Any]) -> pb.AcknowledgeAlarmsResponse:
        return pb.AcknowledgeAlarmsResponse(alarms=self._noted.acknowledge())

    def _standing(self, membership: Membership) -> Standing:
        return self._registry.view.standing(
            membership.invitation.id, membership.facility_id, self._clock()
        )

    async def _list_facilities(self, call: Call[Any]) -> None:
        found = [self._facility(m) for m in self._registry.memberships()]
        latest = self._registry.view.latest
        known = {f.facility_id for f in found}
        found += [
            # This directory has lost what it knew of it, and it has not come back.
            pb.Facility(facility_id=str(facility), name="(has not come back)", standing="member")
            for facility in set(latest.members.values() if latest else ())
            if str(facility) not in known
        ]
        found.sort(key=lambda f: (f.name.casefold(), f.facility_id))
        await write_list(call, pb.ListFacilitiesResponse(), "facilities", found)

    def _facility(self, membership: Membership) -> pb.Facility:
        records = self._registry.records(membership.facility_id)
        return pb.Facility(
            facility_id=str(membership.facility_id),
            name=membership.invitation.display_name,
            standing=self._standing(membership).name.lower().replace("_", "-"),
            joined_seconds=membership.joined_seconds,
            nodes=len(records),
            online=sum(self._registry.is_online(r.node) for r in records),
            city=records[0].city if records else "",
            software=sorted({r.software for r in records}),
        )
