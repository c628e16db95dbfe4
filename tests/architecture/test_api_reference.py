"""The reference of the admin services is made from their protos."""

import re
from collections import Counter
from pathlib import Path

import pytest
from emix.admin.v1 import admin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from tests.architecture.api_reference import PAGES, generate, page, read_api

DOCS = Path(__file__).parents[2] / "docs"


def test_reference_is_fresh() -> None:
    for name, text in generate().items():
        assert (DOCS / name).read_text() == text, f"{name}: run `make proto`"


@pytest.mark.parametrize("name", [one.name for one in PAGES])
def test_every_link_leads_to_one_heading(name: str) -> None:
    text = (DOCS / name).read_text()
    headings = Counter(
        re.sub(r"[^a-z0-9]", "", h.lower()) for h in re.findall(r"^#+ (.*)", text, re.MULTILINE)
    )
    for link in set(re.findall(r"\]\(#([a-z0-9]+)\)", text)):
        assert headings[link] == 1, link


def test_every_method_and_field_of_the_node_stands_there() -> None:
    text = (DOCS / "admin-api.md").read_text()
    for service in admin_pb2.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            assert f"\n### {method.name}\n" in text
    for message in admin_pb2.DESCRIPTOR.message_types_by_name.values():
        for field in message.fields:
            assert f"\n- `{field.name}` (" in text


def test_what_a_proto_may_declare_later_is_described_too() -> None:
    """Enums, maps and nested messages: the admin services have none of them yet."""
    file = FileDescriptorProto(name="a.proto", package="a.v1", syntax="proto3")
    message = file.message_type.add(name="Thing")
    entry = message.nested_type.add(name="NamesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    entry.field.add(name="value", number=2, type="TYPE_UINT32", label="LABEL_OPTIONAL")
    message.field.add(
        name="names",
        number=1,
        type="TYPE_MESSAGE",
        label="LABEL_REPEATED",
        type_name=".a.v1.Thing.NamesEntry",
    )
    message.nested_type.add(name="Inner")
    message.field.add(
        name="inner",
        number=2,
        type="TYPE_MESSAGE",
        label="LABEL_OPTIONAL",
        type_name=".a.v1.Thing.Inner",
    )
    file.enum_type.add(name="Colour").value.add(name="RED", number=0)
    said = (
        ((4, 0), "A thing."),
        ((4, 0, 2, 0), "By name."),
        ((5, 0), "Colours."),
        ((5, 0, 2, 0), "Red."),
    )
    for path, comment in said:
        file.source_code_info.location.add(path=path, leading_comments=comment)
    text = page("A", read_api([file]))
    assert "- `names` (map of string to uint32): By name.\n" in text
    assert "- `inner` ([Thing.Inner](#thinginner)):\n" in text
    assert "### Colour\n\nColours.\n\n- `RED` (0): Red.\n" in text
    assert "NamesEntry" not in text
