"""The node's configuration: a commented TOML file, checked as a whole when loaded.

Only `node.app` reads it; everything else gets the values that it needs.
"""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from node.chunks.places import S3Place
from node.codec import jpeg_ls
from node.sandbox.confine import LAYERS
from node.settings import (
    address,
    addresses,
    announced_addresses,
    check_settings,
    choice,
    choices,
    facility_name,
    load_settings,
    names,
    optional_address,
    optional_name,
    optional_path,
    plain_address,
    quoted,
    whole,
)

HOME = "home"
"""The value of `chunks_before` that means the home's own chunk folder."""


def _chunk_place(value: Any) -> str:
    """Check a place for chunks, or an empty text for the home itself."""
    if value:
        S3Place.parse(str(value))
    return str(value)


def _earlier_place(value: Any) -> str:
    """Check a place for chunks, `home`, or an empty text for none."""
    return str(value) if value == HOME else _chunk_place(value)


def _compression(value: Any) -> str:
    """Check a compression, and that what it takes is installed."""
    found = choice("normal", "small")(value)
    if found == "small" and not jpeg_ls.is_available():
        raise ValueError("\"normal\" until an extra is installed: pip install 'emix[small]'")
    return found


@dataclass(frozen=True)
class Config:
    """All settings, checked.

    Attributes (by section of the file):
        display_name: `[facility]` what other facilities see.
        city: `[facility]` and departments, recipients: how members of a network find it.
        peer_listen: `[listen]` address of the peer service.
        introduction_listen: `[listen]` address of the introduction service.
        announce: `[listen]` addresses of the peer service that are told to peers.
        announce_introduction: `[listen]` the same for the introduction service.
        trust: `[federation]` who may exchange: paired facilities, or members of networks too.
        relay: `[federation]` whether relays may be used where no direct way is found.
        only_relays: `[federation]` only these; empty for all.
        relay_tls: `[federation]` where relays are spoken to within TLS.
        lan: `[federation]` whether nodes of the own network find each other.
        proxy: `[proxy] address` of an HTTP proxy that leads out; empty for none.
        proxy_credentials: `[proxy] credentials` a file with `user:password`; empty for none.
        incoming: `[policy]` whether a paired peer's packages arrive at once.
        offer_summary: `[policy]` whether offers include a sealed summary of the study.
        offer_days: `[policy]` for how long our deliveries stand.
        report_deletions: `[policy]` whether deletions here are reported to senders.
        required_layers: `[parsers] require` layers of confinement without which no parser runs.
        chunks: `[store]` the place in an object store where chunks are; empty for the home.
        chunks_before: `[store]` from where chunks move there: a place, or "home"; empty for none.
        chunks_credentials: `[store]` a file with credentials for both; empty for the environment,
            or a role of the machine.
        compression: `[store]` how what is sealed here is compressed: "normal" or "small".
        quota_gib: `[store]` above this, incoming packages are asked to come later; 0 for none.
        reserve_mib: `[store]` kept free on the disk.
        ballast_mib: `[store]` a file of that size is given up where the disk is full all the same.
        retention_days: `[store]` received packages older than this are deleted; 0 for never.
        transfers_days: `[store]` after so many days, ended transfers of packages that are no longer
            here are forgotten; 0 for never.
        admin_group: `[admin] group` whose people use the admin services; empty for the owner alone.
        metrics_listen: `[metrics]` address of the Prometheus page; empty for none.
        log_level: `[log]` how much is logged.
    """

    display_name: str = field(metadata={"section": "facility", "check": facility_name})
    city: str = field(default="", metadata={"section": "facility", "check": optional_name})
    departments: tuple[str, ...] = field(
        default=(), metadata={"section": "facility", "check": names}
    )
    recipients: tuple[str, ...] = field(
        default=(), metadata={"section": "facility", "check": names}
    )
    peer_listen: str = field(
        default="0.0.0.0:7410", metadata={"section": "listen", "key": "peer", "check": address}
    )
    introduction_listen: str = field(
        default="0.0.0.0:7411",
        metadata={"section": "listen", "key": "introduction", "check": address},
    )
    announce: tuple[str, ...] = field(
        default=(), metadata={"section": "listen", "check": announced_addresses}
    )
    announce_introduction: tuple[str, ...] = field(
        default=(), metadata={"section": "listen", "check": announced_addresses}
    )
    trust: str = field(
        default="paired", metadata={"section": "federation", "check": choice("paired", "network")}
    )
    relay: str = field(
        default="allowed",
        metadata={"section": "federation", "check": choice("allowed", "never")},
    )
    only_relays: tuple[str, ...] = field(
        default=(), metadata={"section": "federation", "check": addresses}
    )
    relay_tls: str = field(
        default="auto",
        metadata={"section": "federation", "check": choice("auto", "always", "never")},
    )
    lan: str = field(default="on", metadata={"section": "federation", "check": choice("on", "off")})
    proxy: str = field(
        default="", metadata={"section": "proxy", "key": "address", "check": plain_address}
    )
    proxy_credentials: str = field(
        default="", metadata={"section": "proxy", "key": "credentials", "check": optional_path}
    )
    incoming: str = field(
        default="accept", metadata={"section": "policy", "check": choice("accept", "ask")}
    )
    offer_summary: str = field(
        default="sealed", metadata={"section": "policy", "check": choice("sealed", "none")}
    )
    offer_days: int = field(default=30, metadata={"section": "policy", "check": whole(1, 30)})
    report_deletions: str = field(
        default="senders", metadata={"section": "policy", "check": choice("senders", "nobody")}
    )
    required_layers: tuple[str, ...] = field(
        default=(), metadata={"section": "parsers", "key": "require", "check": choices(*LAYERS)}
    )
    chunks: str = field(default="", metadata={"section": "store", "check": _chunk_place})
    chunks_before: str = field(default="", metadata={"section": "store", "check": _earlier_place})
    chunks_credentials: str = field(
        default="", metadata={"section": "store", "check": optional_path}
    )
    compression: str = field(default="normal", metadata={"section": "store", "check": _compression})
    quota_gib: int = field(default=0, metadata={"section": "store", "check": whole(0, 10**6)})
    reserve_mib: int = field(default=64, metadata={"section": "store", "check": whole(16, 10**6)})
    ballast_mib: int = field(default=32, metadata={"section": "store", "check": whole(0, 10_000)})
    retention_days: int = field(default=0, metadata={"section": "store", "check": whole(0, 36500)})
    transfers_days: int = field(default=0, metadata={"section": "store", "check": whole(0, 36500)})
    admin_group: str = field(
        default="", metadata={"section": "admin", "key": "group", "check": optional_name}
    )
    metrics_listen: str = field(
        default="",
        metadata={
            "section": "metrics",
            "key": "listen",
            "check": optional_address,
        },
    )
    log_level: str = field(
        default="info",
        metadata={
            "section": "log",
            "key": "level",
            "check": choice("debug", "info", "warning", "error"),
        },
    )


RELOADED = frozenset(
    {
        "relay",
        "only_relays",
        "incoming",
        "offer_days",
        "report_deletions",
        "compression",
        "quota_gib",
        "reserve_mib",
        "retention_days",
        "transfers_days",
        "log_level",
    }
)
"""Settings that a running node takes when it is asked to read them again."""


def changed_settings(before: Config, after: Config) -> list[str]:
    """Return the names of the settings that differ, as the file has them."""
    return [
        f"[{f.metadata['section']}] {f.metadata.get('key', f.name)}"
        for f in fields(Config)
        if getattr(before, f.name) != getattr(after, f.name)
    ]


def taken_while_running(before: Config, after: Config) -> Config:
    """Return the settings of a node that runs with `before` and has read `after`."""
    return replace(before, **{name: getattr(after, name) for name in RELOADED})


def load_config(path: Path) -> Config:
    """Return the settings in a file; `ConfigError` lists all its problems."""
    return load_settings(Config, path, "emix init")


def check_text(text: str) -> Config:
    """Return the settings in a text; `ConfigError` lists all its problems."""
    return check_settings(Config, text, "the configuration")


def default_text(
    display_name: str,
    peer_listen: str,
    introduction_listen: str,
    chunks: str = "",
    chunks_credentials: str = "",
) -> str:
    """Return the text of a new configuration file, with a comment on every setting."""
    chosen = {"chunks": chunks, "chunks_credentials": chunks_credentials}
    lines = {key: f"{key} = {quoted(value)}" for key, value in chosen.items()}
    return _TEMPLATE.format(
        name=quoted(display_name),
        peer=peer_listen,
        introduction=introduction_listen,
        **{key: line if chosen[key] else f"# {line}" for key, line in lines.items()},
    )


_TEMPLATE = """\
# emix node. After a change: `emix config check`, then restart the node, or reload it (SIGHUP).
# Lines that begin with # show the defaults.

[facility]
# The name that other facilities see. It must not look like a Facility ID.
display_name = {name}
# Members of a network can search for these, too. Never enter a patient's name.
# city = ""
# departments = ["Radiology", "Emergency"]
# The recipients here that senders may choose.
# recipients = ["Radiology on call"]

[listen]
# The address to which other nodes connect (mutual TLS; open this port to your partners).
peer = "{peer}"
# The address for nodes that are not paired yet (TLS, no patient data).
introduction = "{introduction}"
# The public addresses that partners connect to, if they differ from the above. Without them, and if
# "peer" listens on all addresses, partners get this machine's own addresses.
# announce = ["imaging.example.org:7410"]
# announce_introduction = ["imaging.example.org:7411"]

[federation]
# "paired": exchange with paired facilities only. "network": also with members of the networks that
# this facility has joined, as long as the network's signed list names them.
# trust = "paired"
# "allowed": use a relay if there is no direct way; it sees ciphertext only. "never": use none.
# relay = "allowed"
# Use only these relays, for example ["relay.example.org:7421"]. Empty: all of the network's.
# only_relays = []
# Speak TLS to relays, for firewalls that allow only TLS: "always", "never", or "auto", which does
# so if the relay's port is 443.
# relay_tls = "auto"
# Find nodes on the own LAN by multicast DNS: "on" or "off". Their answers are only hints where to
# connect; certificates decide.
# lan = "on"

[proxy]
# An HTTP proxy, for example "proxy.example.org:3128", if it is the only way out: all connections
# except those to this machine's own networks use its CONNECT. Empty: no proxy.
# address = ""
# For Basic authentication: a file with user:password that only this user may read.
# credentials = ""

[policy]
# "accept": packages of peers arrive without a question. "ask": a person accepts each offer.
# incoming = "accept"
# "sealed": our offers include the patient and the study, sealed to the receiving facility, for the
# person there who accepts them. "none": only the number of instances and your own note.
# offer_summary = "sealed"
# For how many days we try to deliver if the other side cannot be reached; at most 30, since no node
# accepts an older delivery.
# offer_days = 30
# "senders": the sender of a package is notified when it is deleted here, so that the sender does
# not rely on it. "nobody": no notice.
# report_deletions = "senders"

[parsers]
# Processes that read foreign files give up all rights that they do not need, as far as the kernel
# allows (`emix doctor` shows it). The node does not start unless the layers that are named here are
# in force: "privileges", "network", "mounts", "files", "syscalls".
# require = []

[store]
# The place of sealed chunks. Empty: the home. An object store with the S3 protocol, one prefix for
# each node: "s3://bucket/prefix?endpoint=https://s3.example.org&region=eu-central-1" (without an
# endpoint: Amazon's). It gets ciphertext only. `emix init --chunks` claims the prefix for a node.
{chunks}
# The earlier place of chunks: "home", or a place as above. The node moves them from there while it
# serves; `emix doctor` says when all have moved, then empty this. Empty: nothing to move.
# chunks_before = ""
# A file with [default], aws_access_key_id and aws_secret_access_key that only this user may read;
# it is read for each call. Empty: AWS_ACCESS_KEY_ID and so on, or the machine's role.
{chunks_credentials}
# "normal", or "small": with JPEG-LS, a tenth smaller; an import computes three times as much. It
# needs an extra, pip install 'emix[small]', here and wherever such packages are sent to.
# compression = "normal"
# Above so many GiB of sealed data and database, senders are asked to try later. 0: no quota.
# quota_gib = 0
# MiB that stay free on the disk, so that a full disk can still record what happened.
# reserve_mib = 64
# Size in MiB of a ballast file in the home. If other programs fill the disk, the node deletes it,
# so that deleting studies, stopping and starting still work. 0: no such file.
# ballast_mib = 32
# Received packages that are older than so many days are announced, and deleted a week later, if
# somebody has viewed or exported them: see emix retention --dry-run. 0: never.
# retention_days = 0
# Records of transfers that ended so many days ago are deleted, with their receipts, once their
# package is no longer here. 0: never.
# transfers_days = 0

[admin]
# A group of this machine whose members may use `emix` for this node, each under their own name. The
# node's user must be in it. Empty: only the node's user, and root.
# group = ""

[metrics]
# The address for Prometheus, for example "127.0.0.1:7412". Empty: no metrics.
# listen = ""

[log]
# "debug", "info", "warning" or "error". Logs hold no patient data at any level.
# level = "info"
"""
