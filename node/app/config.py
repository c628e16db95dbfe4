"""The node's configuration: a commented TOML file, checked as a whole when loaded.

Only `node.app` reads it; everything else gets the values that it needs.
"""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from node.chunks.places import S3Place
from node.sandbox.confine import LAYERS
from node.settings import (
    address,
    addresses,
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
    told_addresses,
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
        tell_deletions: `[policy]` whether deletions here are reported to senders.
        required_layers: `[parsers] require` layers of confinement without which no parser runs.
        chunks: `[store]` the place in an object store where chunks are; empty for the home.
        chunks_before: `[store]` from where chunks move there: a place, or "home"; empty for none.
        chunks_credentials: `[store]` a file with credentials for both; empty for the environment,
            or a role of the machine.
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
        default=(), metadata={"section": "listen", "check": told_addresses}
    )
    announce_introduction: tuple[str, ...] = field(
        default=(), metadata={"section": "listen", "check": told_addresses}
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
    tell_deletions: str = field(
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
        "tell_deletions",
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
# What other facilities see. Not what looks like a Facility ID: it would be taken for one.
display_name = {name}
# How members of a network find it, beside the name. Never a patient's name.
# city = ""
# departments = ["Radiology", "Emergency"]
# Whom a study may be addressed to here.
# recipients = ["Radiology on call"]

[listen]
# Where other nodes connect (mutual TLS; open this port to your partners).
peer = "{peer}"
# Where nodes introduce themselves before they are paired (TLS, no patient data).
introduction = "{introduction}"
# What partners are told to connect to, where it differs from the above: public names. Without it,
# and where "peer" is bound to all addresses, they are told this machine's addresses as they are.
# announce = ["imaging.example.org:7410"]
# announce_introduction = ["imaging.example.org:7411"]

[federation]
# "paired": only facilities that a person paired with. "network": also members of the networks
# that this facility has joined, as long as the network's signed list names them.
# trust = "paired"
# Whether a relay may carry what cannot go directly: "allowed" or "never". It sees ciphertext only.
# relay = "allowed"
# Only these relays, for example ["relay.example.org:7421"]. Empty: all of the network.
# only_relays = []
# Whether relays are spoken to within TLS, for firewalls that let only TLS through: "always",
# "never", or "auto": where a relay's port is 443.
# relay_tls = "auto"
# Whether nodes of this network find each other by multicast DNS: "on" or "off". What they say is
# a hint where to try and no more.
# lan = "on"

[proxy]
# Where only an HTTP proxy leads out, for example "proxy.example.org:3128": all connections but
# those to this machine's own networks go through its CONNECT. Empty: none.
# address = ""
# Where it wants Basic authentication: a file that holds user:password, for this user alone.
# credentials = ""

[policy]
# "accept": a paired peer's packages arrive at once. "ask": a person accepts each offer.
# incoming = "accept"
# "sealed": an offer of ours tells whom and what it is of, sealed to the receiving facility, for the
# person there who accepts it. "none": it tells how many instances, and what you write with it.
# offer_summary = "sealed"
# For how many days a delivery of ours stands when the other side cannot be reached; 30 at most,
# since nobody takes an older one.
# offer_days = 30
# "senders": who sent a package here is told when it is deleted here, so that it does not count on
# it. "nobody": it is not.
# tell_deletions = "senders"

[parsers]
# Processes that look at foreign files give up what they do not need, as far as the kernel lets
# them (`emix doctor` shows it). What is named here has to hold, or the node does not start:
# "privileges", "network", "mounts", "files", "syscalls".
# require = []

[store]
# Where sealed chunks are kept. Empty: in the home. In an object store that speaks S3, one prefix a
# node: "s3://bucket/prefix?endpoint=https://s3.example.org&region=eu-central-1" (no endpoint:
# Amazon's). What is there is ciphertext. `emix init --chunks` takes the prefix for this node.
{chunks}
# Where chunks were before: "home", or a place as above. They move from there while the node serves;
# `emix doctor` says when all have moved, and this can be emptied. Empty: nothing moves.
# chunks_before = ""
# A file with [default], aws_access_key_id and aws_secret_access_key, for this user alone; it is
# read again with each call. Empty: AWS_ACCESS_KEY_ID and so on, or a role that the machine has.
{chunks_credentials}
# Above so many GiB of sealed data and database, senders are asked to come later. 0: no quota.
# quota_gib = 0
# Kept free on the disk, in MiB, so that a full disk can still record what happened.
# reserve_mib = 64
# Other programs may fill the disk all the same. Then a file of so many MiB is given up, so that
# deleting, stopping and starting work. 0: no such file.
# ballast_mib = 32
# Received packages that are older than so many days are announced, and deleted a week later, if
# somebody has looked at them or exported them: emix retention --dry-run. 0: never.
# retention_days = 0
# Transfers that ended so many days ago are forgotten, with their receipts, once their package is
# not here any more. 0: never.
# transfers_days = 0

[admin]
# A group of this machine whose people may use `emix` for this node, each under their own name. The
# node's user has to be in it. Empty: only the user that runs the node, and root.
# group = ""

[metrics]
# Where Prometheus may ask, for example "127.0.0.1:7412". Empty: nowhere.
# listen = ""

[log]
# "debug", "info", "warning" or "error". Logs hold no patient data at any level.
# level = "info"
"""
