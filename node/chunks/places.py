"""Where chunks are, as a person writes it: `s3://bucket/prefix?endpoint=https://host:port`."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self
from urllib.parse import parse_qsl, urlsplit

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_MOST_PREFIX = 200
_FORM = "a place such as s3://bucket/prefix?endpoint=https://s3.example.org&region=eu-central-1"


@dataclass(frozen=True)
class S3Place:
    """The part of a bucket that belongs to one node's chunks alone.

    Attributes:
        bucket: The bucket.
        prefix: The prefix of its object names, ending with a slash.
        endpoint: `http(s)://host[:port]` of the server; empty for Amazon's own.
        region: Of the signatures.
    """

    bucket: str
    prefix: str
    endpoint: str = ""
    region: str = "us-east-1"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the place; `ValueError` says what form it has."""
        parts = urlsplit(text)
        query = parse_qsl(parts.query, keep_blank_values=True)
        options, prefix = dict(query), parts.path.strip("/")
        ok = (
            parts.scheme == "s3"
            and not parts.fragment
            and _BUCKET.fullmatch(parts.netloc)
            and _PREFIX.fullmatch(prefix)
            and len(prefix) <= _MOST_PREFIX
            and len(query) == len(options)
            and options.keys() <= {"endpoint", "region"}
            and ("endpoint" not in options or _is_endpoint(options["endpoint"]))
            and ("region" not in options or _REGION.fullmatch(options["region"]))
        )
        if not ok:
            raise ValueError(_FORM)
        return cls(parts.netloc, f"{prefix}/", **options)

    @property
    def is_open(self) -> bool:
        """Whether others on the way see which requests are made: HTTP to another machine.

        They see no content, which is sealed, and no secret key.
        """
        host = urlsplit(self.endpoint).hostname or ""
        try:
            is_here = ip_address(host).is_loopback
        except ValueError:
            is_here = host == "localhost"
        return self.endpoint.startswith("http://") and not is_here


def _is_endpoint(text: str) -> bool:
    parts = urlsplit(text)
    host, _, port = parts.netloc.rpartition(":")
    if not port.isdigit():
        host, port = parts.netloc, "443"
    is_plain = not (parts.path.strip("/") or parts.query or parts.fragment)
    return (
        parts.scheme in ("http", "https")
        and is_plain
        and _HOST.fullmatch(host) is not None
        and 0 < int(port) < 2**16
    )
