"""Which deed a call is: the door identifies first, then the method's deed is held against roles."""

import enum
from types import SimpleNamespace
from typing import Any

import pytest
from emix.admin.v1 import admin_pb2 as pb

from node.access import deeds
from node.access.deeds import Deed
from node.admin.deeds import DEEDS, allowing
from node.errors import Denied

ADMIN = "emix.admin.v1."
SEEING = {Deed.SEE_NODE, Deed.SEE_STUDIES, Deed.SEE_AUDIT}
READS = {
    "NodeService/GetStatus",
    "NodeService/GetIdentity",
    "NodeService/Diagnose",
    "PeerService/ListPeers",
    "PeerService/ListStringPairings",
    "NetworkService/ListNetworks",
    "NetworkService/FindFacilities",
    "StudyService/ListStudies",
    "StudyService/Query",
    "StudyService/GetStudy",
    "StudyService/ListHeld",
    "StudyService/ListImports",
    "TransferService/ListTransfers",
    "TransferService/WatchTransfers",
    "AuditService/ListReceipts",
    "AuditService/ExportReceipt",
    "AuditService/ListAudit",
    "AuditService/VerifyAudit",
    "AuditService/GetAuditHead",
}
"""All that changes nothing; what is added here by mistake could be called by who may only look."""


class Clerk(enum.StrEnum):
    """A role for tests."""

    ROLE = "clerk"


def call_of(path: str) -> Any:
    return SimpleNamespace(method=SimpleNamespace(path=path), metadata={"emix-role": "admin"})


async def door(_: Any) -> Any:
    return SimpleNamespace(roles={Clerk.ROLE})


async def allowed(monkeypatch: pytest.MonkeyPatch, *may: Deed) -> set[str]:
    """Return the methods that a role with some deeds is let in to."""
    monkeypatch.setattr(deeds, "ALLOWED", {Clerk.ROLE: set(may)})
    found = set()
    for service in pb.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            try:
                await allowing(door)(call_of(path))
            except Denied:
                continue
            found.add(path.removeprefix(f"/{ADMIN}"))
    return found


async def test_who_may_only_look_calls_nothing_that_changes_or_gives_away_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await allowed(monkeypatch, *SEEING) == READS


async def test_lists_that_name_patients_need_more_than_the_nodes_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = await allowed(monkeypatch, Deed.SEE_NODE)
    assert {path.partition("/")[0] for path in found} == {
        "NodeService",
        "PeerService",
        "NetworkService",
    }


@pytest.mark.parametrize(
    ("deed", "methods"),
    [
        (Deed.BRING_IN, {"StudyService/Import"}),
        (
            Deed.SEND,
            {
                "TransferService/Send",
                "TransferService/SendStudies",
                "TransferService/CancelTransfer",
            },
        ),
        (Deed.TAKE_OUT, {"StudyService/ExportStudy"}),
        (Deed.DELETE, {"StudyService/DeleteStudy"}),
        (
            Deed.DECIDE,
            {
                "StudyService/DecideHeld",
                "StudyService/DiscardImport",
                "TransferService/DecideOffer",
            },
        ),
    ],
)
async def test_deed_with_studies_lets_in_to_its_own_methods_alone(
    monkeypatch: pytest.MonkeyPatch, deed: Deed, methods: set[str]
) -> None:
    assert await allowed(monkeypatch, deed) == methods


async def test_caller_whom_the_door_refuses_is_refused_before_the_method_is_looked_at() -> None:
    async def shut(_: Any) -> Any:
        raise Denied("this user may not use the socket")

    for path in (f"/{ADMIN}NodeService/GetStatus", "/no.Such/Method"):
        with pytest.raises(Denied, match="may not use the socket"):
            await allowing(shut)(call_of(path))


async def test_refusal_says_which_deed_the_role_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deeds, "ALLOWED", {Clerk.ROLE: {Deed.SEE_STUDIES}})
    with pytest.raises(Denied, match="your role here does not let you delete studies"):
        await allowing(door)(call_of(f"/{ADMIN}StudyService/DeleteStudy"))


@pytest.mark.parametrize(
    "path",
    ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"],
)
async def test_health_and_reflection_need_the_right_to_see_the_node(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(deeds, "ALLOWED", {Clerk.ROLE: {Deed.SEE_NODE}})
    assert (await allowing(door)(call_of(path))).roles == {Clerk.ROLE}
    monkeypatch.setattr(deeds, "ALLOWED", {Clerk.ROLE: set(Deed) - {Deed.SEE_NODE}})
    with pytest.raises(Denied):
        await allowing(door)(call_of(path))


@pytest.mark.parametrize(
    "path",
    [
        "/emix.admin.v1.StudyService/deletestudy",
        "/emix.admin.v1.StudyService/DeleteStudy/",
        "/emix.admin.v1.StudyServiceX/DeleteStudy",
        "/xgrpc.health.v1.Health/Check",
        "/emix.grpc.health.v1.Health/Check",
    ],
)
async def test_path_that_only_resembles_a_methods_is_nobodys(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(deeds, "ALLOWED", {Clerk.ROLE: set(Deed)})
    with pytest.raises(Denied, match="no deed"):
        await allowing(door)(call_of(path))


def test_deeds_cannot_be_changed_while_the_node_runs() -> None:
    table: Any = DEEDS
    with pytest.raises(TypeError):
        table[f"{ADMIN}StudyService/DeleteStudy"] = Deed.SEE_NODE
