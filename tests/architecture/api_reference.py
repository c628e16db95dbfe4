"""Generate the reference pages of the admin services from the comments of their .proto files.

`python -m tests.architecture.api_reference --write` renews them; the test beside this file proves
that they are fresh.
"""

import importlib.resources
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
WIDTH = 110
_Said = Mapping[tuple[int, ...], str]
"""Comments by where they stand: numbers of fields, and places, in FileDescriptorProto."""

_MESSAGE, _ENUM, _SERVICE, _SYNTAX = 4, 5, 6, 12  # in FileDescriptorProto
_NESTED, _NESTED_ENUM = 3, 4  # in DescriptorProto
_PART = 2  # a service's methods, a message's fields, an enum's values


@dataclass(frozen=True)
class Page:
    """A page, and the .proto files of one package whose services it describes."""

    name: str
    title: str
    sources: str


PAGES = (
    Page("admin-api.md", "The admin services of a node", "emix/admin/v1/*.proto"),
    Page(
        "directory-admin-api.md",
        "The admin service of a directory",
        "emix/directory/v1/admin.proto",
    ),
)


@dataclass
class Api:
    """What the .proto files of one package declare, and the comment of each by its name."""

    package: str
    introduction: str = ""
    services: list[ServiceDescriptorProto] = field(default_factory=list)
    messages: dict[str, DescriptorProto] = field(default_factory=dict)
    enums: dict[str, EnumDescriptorProto] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)


def read_api(files: Sequence[FileDescriptorProto]) -> Api:
    """Return what files of one package declare."""
    api = Api(files[0].package)
    introductions = []
    for file in files:
        said = {
            tuple(at.path): _plain(at.leading_comments) for at in file.source_code_info.location
        }
        introductions.append(said.get((_SYNTAX,), ""))
        for i, service in enumerate(file.service):
            api.services.append(service)
            api.comments[service.name] = said[_SERVICE, i]
            for j, method in enumerate(service.method):
                api.comments[f"{service.name}.{method.name}"] = said[_SERVICE, i, _PART, j]
        for i, message in enumerate(file.message_type):
            _add_message(api, said, message, (_MESSAGE, i), message.name)
        for i, enum in enumerate(file.enum_type):
            _add_enum(api, said, enum, (_ENUM, i), enum.name)
    api.introduction = "\n\n".join(text for text in introductions if text)
    return api


def _add_message(
    api: Api, said: _Said, message: DescriptorProto, path: tuple[int, ...], name: str
) -> None:
    api.messages[name] = message
    api.comments[name] = said.get(path, "")  # a map's entries are nobody's words
    for i, one in enumerate(message.field):
        api.comments[f"{name}.{one.name}"] = said.get((*path, _PART, i), "")
    for i, nested in enumerate(message.nested_type):
        _add_message(api, said, nested, (*path, _NESTED, i), f"{name}.{nested.name}")
    for i, enum in enumerate(message.enum_type):
        _add_enum(api, said, enum, (*path, _NESTED_ENUM, i), f"{name}.{enum.name}")


def _add_enum(
    api: Api, said: _Said, enum: EnumDescriptorProto, path: tuple[int, ...], name: str
) -> None:
    api.enums[name] = enum
    api.comments[name] = said[path]
    for i, value in enumerate(enum.value):
        api.comments[f"{name}.{value.name}"] = said[(*path, _PART, i)]


def _plain(comment: str) -> str:
    paragraphs = re.split(r"\n\s*\n", comment.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def page(title: str, api: Api) -> str:
    """Return a page in Markdown."""
    lines = [
        f"# {title}",
        "",
        "Made from the comments of the .proto files by `make proto`: edit those, not this page.",
        "",
        *_paragraphs(api.introduction),
        "",
        f"The package is `{api.package}`. A field that is not set is 0, false or empty.",
    ]
    shown: set[str] = set()
    for service in api.services:
        lines += ["", f"## {service.name}", "", *_paragraphs(api.comments[service.name])]
        for method in service.method:
            lines += ["", *_method(api, method, api.comments[f"{service.name}.{method.name}"])]
            shown |= {_local(api, method.input_type), _local(api, method.output_type)}
    shown -= {_local(api, one.type_name) for m in api.messages.values() for one in m.field}
    others = [name for name in api.messages if name not in shown and not _is_map(api, name)]
    if others or api.enums:
        lines += ["", "## Messages of these"]
    for name in others:
        lines += ["", f"### {name}", "", *_paragraphs(api.comments[name])]
        lines += ["", *_fields(api, name)]
    for name, enum in api.enums.items():
        lines += ["", f"### {name}", "", *_paragraphs(api.comments[name]), ""]
        for value in enum.value:
            said = api.comments[f"{name}.{value.name}"]
            lines += _item(f"`{value.name}` ({value.number})", said)
    return "\n".join(lines) + "\n"


def _method(api: Api, method: MethodDescriptorProto, said: str) -> Iterator[str]:
    yield f"### {method.name}"
    yield ""
    yield from _paragraphs(said)
    sides = (
        ("Request", method.input_type, method.client_streaming),
        ("Response", method.output_type, method.server_streaming),
    )
    for side, type_name, is_stream in sides:
        name = _local(api, type_name)
        stream = ", a stream" if is_stream else ""
        fields = list(_fields(api, name))
        yield ""
        yield from _paragraphs(f"{side}{stream}: `{name}`. {api.comments[name]}")
        if fields:
            yield ""
            yield from fields


def _fields(api: Api, name: str) -> Iterator[str]:
    message = api.messages[name]
    for one in message.field:
        choice = ""
        if one.HasField("oneof_index") and not one.proto3_optional:
            choice = f", one of `{message.oneof_decl[one.oneof_index].name}`"
        yield from _item(
            f"`{one.name}` ({_type(api, one)}{choice})", api.comments[f"{name}.{one.name}"]
        )


def _type(api: Api, one: FieldDescriptorProto) -> str:
    names = FieldDescriptorProto.Type.Name(one.type).removeprefix("TYPE_").lower()
    if one.type in (FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.TYPE_ENUM):
        name = _local(api, one.type_name)
        if _is_map(api, name):
            key, value = api.messages[name].field
            return f"map of {_type(api, key)} to {_type(api, value)}"
        names = f"[{name}](#{re.sub(r'[^a-z0-9]', '', name.lower())})"
    is_list = one.label == FieldDescriptorProto.LABEL_REPEATED
    return f"list of {names}" if is_list else ("optional " * one.proto3_optional + names)


def _is_map(api: Api, name: str) -> bool:
    return name in api.messages and api.messages[name].options.map_entry


def _local(api: Api, type_name: str) -> str:
    return type_name.removeprefix(f".{api.package}.")


def _item(head: str, comment: str) -> list[str]:
    text = f"- {head}: {comment}"
    return textwrap.wrap(
        text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        wrapped = textwrap.wrap(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False)
        lines += ["", *wrapped] if lines else wrapped
    return lines


def generate() -> dict[str, str]:
    """Return the text of each page by its name."""
    return {one.name: page(one.title, read_api(_described(one.sources))) for one in PAGES}


def _described(pattern: str) -> list[FileDescriptorProto]:
    """Return the files that match, as protoc describes them, comments included."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob(pattern))
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as temp:
        out = Path(temp) / "described"
        subprocess.run(
            [
                sys.executable,
                "-m",
                "grpc_tools.protoc",
                f"--proto_path={PROTO}",
                f"--proto_path={well_known}",
                f"--descriptor_set_out={out}",
                "--include_source_info",
                *sources,
            ],
            check=True,
            cwd=PROTO,
        )
        return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def main() -> None:
    """Write the pages, or check them without `--write`."""
    pages = {ROOT / "docs" / name: text for name, text in generate().items()}
    if "--write" in sys.argv:
        for path, text in pages.items():
            path.write_text(text)
        return
    stale = [
        path.name for path, text in pages.items() if not path.exists() or path.read_text() != text
    ]
    if stale:
        sys.exit(f"stale reference, run `make proto`: {', '.join(stale)}")


if __name__ == "__main__":
    main()
