"""The operator's side: lists that only go forward, whatever a directory shows."""

import base64
import json
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any

import pytest
from click.testing import CliRunner

from directory_service import operator_commands
from directory_service.cli import cli
from directory_service.issued_invitations import letters_beside
from directory_service.operator import (
    CONFIRM_SECONDS,
    OperatorKey,
    find_facility,
    known_list,
    newest,
)
from node.crypto.signing import SigningKey
from node.documents.lists import open_list
from node.documents.network import INVITATION_SECONDS, JoinLetter, Membership, claim, invite
from node.domain.ids import InvitationId
from node.domain.network import NetworkList
from node.errors import (
    ConfigError,
    Conflict,
    DocumentError,
    KeysError,
    NotFound,
    PeerUnreachable,
    UsageError,
)

NOW = time()
KEY = OperatorKey.new("Montana", ("127.0.0.1:1",), NOW)


def join(name: str, *, letter_of: str = "", joined: float = NOW) -> Membership:
    """Return a membership of a new facility, by a letter of its own or another's."""
    letter = LETTERS.setdefault(letter_of or name, KEY.invite(letter_of or name, NOW))
    return claim(letter, SigningKey.new().public, joined)


LETTERS: dict[str, JoinLetter] = {}


@pytest.fixture(autouse=True)
def _new_letters() -> None:
    LETTERS.clear()


def opened(encoded: bytes) -> NetworkList:
    return open_list(encoded, KEY.network_key, NOW)


def test_next_list_adds_who_joined_keeps_who_was_listed_and_drops_who_is_revoked() -> None:
    a, b = join("A"), join("B")
    first = opened(KEY.next_list(None, [a], (), NOW))
    assert (first.number, dict(first.members)) == (1, {a.invitation.id: a.facility_id})
    # A directory that hides a member does not take it off the list.
    second = opened(KEY.next_list(first, [b], (), NOW))
    assert set(second.members) == {a.invitation.id, b.invitation.id}
    third = opened(KEY.next_list(second, [a, b], [a.invitation.id], NOW))
    assert (set(third.members), set(third.revoked)) == ({b.invitation.id}, {a.invitation.id})
    fourth = opened(KEY.next_list(third, [a, b], (), NOW))
    assert (set(fourth.members), set(fourth.revoked)) == ({b.invitation.id}, {a.invitation.id})


def test_invitation_that_two_have_used_confirms_neither_and_keeps_who_was_listed() -> None:
    honest = join("A")
    thief = join("thief", letter_of="A", joined=NOW - 60)  # backdated: it claims to be the first
    assert not opened(KEY.next_list(None, [honest, thief], (), NOW)).members
    first = opened(KEY.next_list(None, [honest], (), NOW))
    second = opened(KEY.next_list(first, [honest, thief], (), NOW))
    assert dict(second.members) == {honest.invitation.id: honest.facility_id}


def test_list_key_signs_lists_only_and_for_its_time_only() -> None:
    list_key = KEY.list_key(NOW + 60)
    assert opened(list_key.next_list(None, [join("A")], (), NOW)).number == 1
    with pytest.raises(ConfigError, match="has expired"):
        list_key.next_list(None, [], (), NOW + 61)
    with pytest.raises(UsageError):
        list_key.invite("B", NOW)
    with pytest.raises(UsageError):
        list_key.list_key(NOW + 60)


def test_key_file_is_for_its_owner_and_comes_out_as_it_went_in(tmp_path: Path) -> None:
    for n, key in enumerate((KEY, KEY.list_key(NOW + 60))):
        path = tmp_path / f"key{n}"
        key.write(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
        assert OperatorKey.read(path) == key or OperatorKey.read(path).key.seed == key.key.seed
        with pytest.raises(ConfigError, match="exists already"):
            key.write(path)
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(ConfigError, match="not a network key"):
        OperatorKey.read(path)


def test_older_list_that_a_directory_shows_is_found_out_and_another_of_one_number_refused() -> None:
    a = join("A")
    first = opened(KEY.next_list(None, [], (), NOW))
    second = opened(KEY.next_list(first, [a], (), NOW))
    other = opened(KEY.next_list(first, [], (), NOW))
    assert newest(None, None, NOW) == (None, False)
    assert newest(second, first, NOW) == (second, True)
    assert newest(second, None, NOW) == (second, True)
    assert newest(first, second, NOW) == (second, False)
    assert newest(None, second, NOW) == (second, False)
    with pytest.raises(Conflict, match="a different list 2"):
        newest(second, other, NOW)


def test_list_by_a_list_key_whose_time_is_over_is_a_question_and_not_the_newest() -> None:
    list_key = KEY.list_key(NOW + 60)
    first = opened(KEY.next_list(None, [], (), NOW))
    by_list_key = opened(list_key.next_list(first, [join("A")], (), NOW))
    assert newest(first, by_list_key, NOW + 59) == (by_list_key, False)
    for ours in (first, None):
        with pytest.raises(Conflict, match="list recover"):
            newest(ours, by_list_key, NOW + 60)


def test_new_epoch_overrules_every_list_key_and_only_the_network_key_begins_one() -> None:
    a, stolen = join("A"), KEY.list_key(NOW + 86400)
    first = opened(KEY.next_list(None, [a], (), NOW))
    thiefs = opened(stolen.next_list(first, [], [a.invitation.id], NOW))
    with pytest.raises(UsageError, match="network key"):
        stolen.next_list(first, [], (), NOW, begins_epoch=True)
    recovered = opened(KEY.next_list(first, [], (), NOW, above=[thiefs], begins_epoch=True))
    assert recovered.place == (2, 1) > thiefs.place
    assert dict(recovered.members) == {a.invitation.id: a.facility_id}
    assert not recovered.revoked
    with pytest.raises(ConfigError, match="ended this list key"):
        stolen.next_list(recovered, [], (), NOW)
    following = opened(KEY.list_key(NOW + 60, 2).next_list(recovered, [], (), NOW))
    assert following.place == (2, 2)


def test_facility_is_found_by_name_or_id_with_all_that_it_has() -> None:
    a, again, b = join("Great Falls"), join("GF again"), join("Billings")
    key = a.facility_key
    again = claim(LETTERS["GF again"], key, NOW)
    everyone = [a, again, b]
    beginning = str(a.facility_id)[:20]
    for text in ("great falls", str(a.facility_id), beginning, beginning.lower()):
        assert find_facility(everyone, [], text) == a.facility_id
    for text in (a.facility_id.short(), str(a.facility_id)[:15]):  # anybody can have these
        with pytest.raises(NotFound, match="16 characters"):
            find_facility(everyone, [], text)
    for text in ("Nobody", str(a.facility_id)):
        with pytest.raises(NotFound, match="no facility"):
            find_facility([b], [], text)
    # One that is listed, and that the directory does not know.
    assert find_facility([b], [a.facility_id], beginning) == a.facility_id


def test_no_letter_is_made_for_a_name_that_looks_like_an_id() -> None:
    for name in (str(join("A").facility_id), str(join("A").facility_id)[:20]):
        with pytest.raises(UsageError, match="look like a Facility ID"):
            KEY.invite(name, NOW)
        # Nor is one believed that a network's key has signed all the same.
        with pytest.raises(DocumentError, match="looks like a Facility ID"):
            invite(KEY.key, name, NOW)


def test_operator_means_an_id_by_an_id_and_one_facility_by_a_name() -> None:
    a, b = join("Great Falls"), join("Billings")
    called = replace(b.invitation, display_name=str(a.facility_id))
    thief = replace(b, invitation=called)
    assert find_facility([a, thief], [], str(a.facility_id)) == a.facility_id
    with pytest.raises(NotFound):
        find_facility([thief], [], str(a.facility_id))
    alike = replace(b, invitation=replace(b.invitation, display_name="Great Fa11s"))
    with pytest.raises(Conflict, match="use the Facility ID") as caught:
        find_facility([a, alike], [], "Great Falls")
    assert all(str(one.facility_id) in str(caught.value) for one in (a, alike))
    with pytest.raises(NotFound, match=f"looks like it.*{alike.facility_id}"):
        find_facility([alike], [], "Great Falls")


class Directory:
    """A directory as the operator's commands see it, one that somebody broke into."""

    def __init__(self, *memberships: Membership) -> None:
        self.joined = list(memberships)
        self.list = b""
        self.took: list[bytes] = []
        self.fails = False

    def members(self) -> tuple[bytes, list[Membership]]:
        return self.list, self.joined

    def publish(self, encoded: bytes) -> None:
        self.took.append(encoded)
        if self.fails:  # it has taken it, and says that it has not
            raise PeerUnreachable("the connection broke")
        self.list = encoded


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Run, Path, Directory]]:
    directory, path = Directory(join("A"), join("B")), tmp_path / "network.key"
    KEY.write(path)

    @contextmanager
    def client(_: OperatorKey) -> Iterator[Directory]:
        yield directory

    monkeypatch.setattr(operator_commands, "open_operator_client", client)

    def invoke(*arguments: str, key: Path = path) -> tuple[int, str]:
        done = CliRunner().invoke(cli, [*arguments, "--network-key", str(key)])
        return done.exit_code, done.output

    return invoke, path, directory  # type: ignore[return-value]


def kept(path: Path) -> NetworkList:
    found = known_list(path, KEY, NOW)
    assert found is not None
    return found


def test_revocation_survives_a_directory_that_takes_the_list_and_says_it_failed(
    run: tuple[Run, Path, Directory],
) -> None:
    invoke, path, directory = run
    assert invoke("list", "sign")[0] == 0
    before = directory.list
    directory.fails = True
    assert invoke("revoke", "A")[0] == 20
    revoked = kept(path).revoked
    assert len(revoked) == 1
    directory.fails, directory.list = False, before
    status, output = invoke("list", "sign")
    assert status == 0
    assert "older list" in output
    assert (kept(path).number, kept(path).revoked) == (3, revoked)


def test_revoking_and_withdrawing_confirm_nobody_who_waits(
    run: tuple[Run, Path, Directory],
) -> None:
    invoke, path, directory = run
    assert invoke("list", "sign")[0] == 0
    assert invoke("token", "create", "Lost")[0] == 0
    waiting = join("Waiting")
    directory.joined.append(waiting)
    listed = set(kept(path).members)
    assert invoke("token", "withdraw", "Lost")[0] == 0
    assert set(kept(path).members) == listed
    assert invoke("revoke", "A")[0] == 0
    assert set(kept(path).members) == {directory.joined[1].invitation.id}
    status, output = invoke("list", "sign")
    assert (status, "confirmed  Waiting" in output) == (0, True)
    assert waiting.invitation.id in kept(path).members


def test_facility_that_a_directory_hides_is_revoked_all_the_same(
    run: tuple[Run, Path, Directory],
) -> None:
    invoke, path, directory = run
    a = directory.joined[0]
    other = claim(KEY.invite("A, too", NOW), a.facility_key, NOW)
    directory.joined.append(other)
    assert invoke("list", "sign")[0] == 0
    directory.joined = [other]  # the first of the two is hidden
    assert invoke("revoke", "A, too")[0] == 0
    assert kept(path).revoked == {a.invitation.id, other.invitation.id}


def test_list_key_revokes_nobody_and_a_second_signer_is_warned(
    run: tuple[Run, Path, Directory], tmp_path: Path
) -> None:
    invoke, path, _ = run
    assert invoke("list", "key", "--out", str(tmp_path / "list.key"))[0] == 0
    assert invoke("list", "sign")[0] == 0
    status, output = invoke("revoke", "A", key=tmp_path / "list.key")
    assert (status, "use the network key file" in output) == (2, True)
    status, output = invoke("list", "sign", key=tmp_path / "list.key")
    assert (status, "is missing, so the directory's list" in output) == (0, True)
    assert not kept(path).revoked


def test_letter_used_twice_is_told_and_damaged_memory_stops_everything(
    run: tuple[Run, Path, Directory],
) -> None:
    invoke, path, directory = run
    thief = join("thief", letter_of="A")
    directory.joined.append(thief)
    status, output = invoke("list", "sign")
    assert status == 0
    assert str(thief.facility_id) in output
    assert dict(kept(path).members) == {
        InvitationId(directory.joined[1].invitation.id.digest): directory.joined[1].facility_id
    }
    path.with_name(path.name + ".list").write_bytes(b"nonsense")
    status, output = invoke("list", "sign")
    assert (status, "damaged" in output) == (3, True)


@pytest.mark.parametrize("wrong", [("--name", ""), ("--listen", "nowhere")])
def test_key_is_written_only_when_all_that_was_asked_for_is_right(
    wrong: tuple[str, str], tmp_path: Path
) -> None:
    asked = {"--name": "Montana", "--endpoint": "127.0.0.1:1", "--listen": "127.0.0.1:1"}
    path = tmp_path / "key"

    def init(options: dict[str, str]) -> int:
        words = [word for option in options.items() for word in option]
        home = ["--home", str(tmp_path / "home")]
        return (
            CliRunner().invoke(cli, [*home, "init", "--network-key", str(path), *words]).exit_code
        )

    assert init({**asked, wrong[0]: wrong[1]}) == 3
    assert not path.exists()
    assert init(asked) == 0
    assert path.exists()
    assert init({**asked, "--name": "Another"}) == 2


def test_facility_that_the_directory_has_forgotten_is_revoked_by_its_id(
    run: tuple[Run, Path, Directory],
) -> None:
    invoke, path, directory = run
    assert invoke("list", "sign")[0] == 0
    gone = directory.joined.pop(0)
    status, output = invoke("revoke", str(gone.facility_id))
    assert status == 0, output
    assert kept(path).revoked == {gone.invitation.id}
    assert gone.invitation.id not in kept(path).members


def test_revocation_is_not_lost_where_another_machine_signed_without_it(
    run: tuple[Run, Path, Directory],
) -> None:
    invoke, path, directory = run
    assert invoke("list", "sign")[0] == 0
    first = kept(path)
    assert invoke("revoke", "A")[0] == 0
    revoked = kept(path).revoked
    later = replace(first, number=2)
    directory.list = KEY.next_list(later, directory.joined, (), NOW)  # list 3, without it
    status, output = invoke("list", "sign")
    assert status == 0
    assert "lacks revocations" in output
    assert (kept(path).number, kept(path).revoked) == (4, revoked)


def test_thief_of_a_listed_members_letter_is_named(run: tuple[Run, Path, Directory]) -> None:
    invoke, path, directory = run
    assert "network's first" in invoke("list", "sign")[1]
    a = directory.joined[0]
    stolen = claim(LETTERS["A"], SigningKey.new().public, NOW)
    directory.joined[0] = stolen
    status, output = invoke("list", "sign")
    assert status == 0
    assert f"{stolen.facility_id} has used the invitation of A" in output
    assert kept(path).members[a.invitation.id] == a.facility_id


def test_letter_that_ended_long_ago_confirms_nobody_and_is_told_of(
    run: tuple[Run, Path, Directory], monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke, path, directory = run
    ended = INVITATION_SECONDS + CONFIRM_SECONDS
    letter = KEY.invite("Stray", NOW - ended - 3600)
    stray = claim(letter, SigningKey.new().public, NOW - ended - 1800)  # it says that it was then
    late = claim(
        KEY.invite("Late", NOW - ended + 3600), SigningKey.new().public, NOW - ended + 3700
    )
    directory.joined += [stray, late]
    status, output = invoke("list", "sign")
    assert status == 0
    assert f"{stray.facility_id} joined with a letter for Stray that expired" in output
    assert stray.invitation.id not in kept(path).members
    assert kept(path).members[late.invitation.id] == late.facility_id
    # Whom a list names stays, however old its letter.
    monkeypatch.setattr("time.time", lambda: NOW + 400 * 86400)
    status, output = invoke("list", "sign")
    assert kept_then(path, NOW + 400 * 86400).members[late.invitation.id] == late.facility_id
    assert "Late" not in output


def kept_then(path: Path, now: float) -> NetworkList:
    found = known_list(path, KEY, now)
    assert found is not None
    return found


def test_revocation_covers_letters_that_were_never_used(
    run: tuple[Run, Path, Directory],
) -> None:
    invoke, path, directory = run
    letters = []
    for name in ("Badlands Clinic", "badlands clinic", "Other"):
        status, output = invoke("token", "create", name)
        assert status == 0
        letters.append(JoinLetter.decode(output.splitlines()[-1]))
    used, unused, others = letters
    directory.joined.append(claim(used, SigningKey.new().public, NOW))
    invoke("list", "sign")
    assert invoke("revoke", "Badlands Clinic")[0] == 0
    assert {used.invitation.id, unused.invitation.id} <= kept(path).revoked
    directory.joined.append(claim(unused, SigningKey.new().public, NOW))
    directory.joined.append(claim(others, SigningKey.new().public, NOW))
    invoke("list", "sign")
    assert unused.invitation.id not in kept(path).members
    assert others.invitation.id in kept(path).members
    # Made after it, one lets the facility in again.
    _, output = invoke("token", "create", "Badlands Clinic")
    again = JoinLetter.decode(output.splitlines()[-1])
    directory.joined.append(claim(again, SigningKey.new().public, NOW))
    invoke("list", "sign")
    assert again.invitation.id in kept(path).members
    assert invoke("revoke", "Badlands Clinic")[0] == 0  # that one, not who was called so before
    assert again.invitation.id in kept(path).revoked
    letters_beside(path).write_text("noise")
    assert invoke("revoke", "Other")[0] == 3  # not without knowing them


def test_preview_shows_whom_a_list_would_confirm_and_signs_nothing(
    run: tuple[Run, Path, Directory],
) -> None:
    invoke, path, directory = run
    status, output = invoke("list", "sign", "--preview")
    assert status == 0
    assert output.count("would be confirmed") == 2
    assert "Nothing was signed. List 1 would have 2 members." in output
    assert (directory.took, directory.list, known_list(path, KEY, NOW)) == ([], b"", None)
    status, output = invoke("list", "sign")
    assert output.count("confirmed") == 2
    assert "would be" not in invoke("list", "sign", "--preview")[1]


def test_what_is_signed_and_made_is_told_in_json(
    run: tuple[Run, Path, Directory], tmp_path: Path
) -> None:
    invoke, path, directory = run
    words = tmp_path / "words"
    words.write_text("six random words make a passphrase\n")

    def told(*arguments: str) -> dict[str, Any]:
        status, output = invoke(*arguments, "--json")
        assert status == 0, output
        found: dict[str, Any] = json.loads(output[output.index("{\n") :])
        return found

    made = told("token", "create", "C")
    letter = JoinLetter.decode(made["letter"])
    assert (made["name"], made["id"]) == ("C", str(letter.invitation.id))
    assert made["expires_seconds"] == letter.invitation.expires_seconds
    written = told("token", "create", "C", "--out", str(tmp_path / "letter"))
    assert ("letter" in written, written["path"]) == (False, str(tmp_path / "letter"))
    assert told("list", "sign")["number"] == 1
    withdrawn = told("token", "withdraw", "C")
    assert {one["id"] for one in withdrawn["withdrawn"]} == {made["id"], written["id"]}
    assert (withdrawn["number"], kept(path).number) == (2, 2)
    a = directory.joined[0]
    revoked = told("revoke", "A")
    assert (revoked["facility_id"], revoked["names"]) == (str(a.facility_id), ["A"])
    assert revoked["letters"] == [str(a.invitation.id)]
    key = told("list", "key", "--out", str(tmp_path / "list.key"), "--days", "1")
    assert (key["path"], key["epoch"]) == (str(tmp_path / "list.key"), 1)
    assert told("key", "protect", "--new-passphrase-file", str(words)) == {"path": str(path)}


def test_directory_that_is_made_or_renewed_says_so_in_json(tmp_path: Path) -> None:
    home, key = tmp_path / "home", ("--network-key", str(tmp_path / "key"))

    def told(*arguments: str) -> dict[str, Any]:
        done = CliRunner().invoke(cli, ["--home", str(home), *arguments, *key, "--json"])
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    made = ("init", "--name", "Montana", "--listen", "127.0.0.1:1")
    first = told(*made, "--endpoint", "h:1")
    assert (first["home"], first["is_new_network"]) == (str(home), True)
    assert told("renew") == {"home": str(home), "is_all_keys": False}
    assert told("renew", "--all-keys")["is_all_keys"]
    home.rename(tmp_path / "lost")
    again = told(*made)
    assert (again["network_id"], again["is_new_network"]) == (first["network_id"], False)


def test_members_are_listed_with_their_names(run: tuple[Run, Path, Directory]) -> None:
    invoke, _, directory = run
    assert invoke("list", "members")[0] == 4
    invoke("list", "sign")
    lost = directory.joined.pop()  # a directory that has lost what it knew
    status, output = invoke("list", "members")
    assert status == 0
    assert "2 members" in output
    found = json.loads(invoke("list", "members", "--json")[1])
    assert {m["name"] for m in found["members"]} == {"A", "(name not known here)"}
    assert str(lost.facility_id) in {m["facility_id"] for m in found["members"]}


def test_letters_that_wait_are_listed_and_withdrawn(run: tuple[Run, Path, Directory]) -> None:
    invoke, path, directory = run
    letters = {}
    for name in ("Used", "Lost", "Waiting"):
        letters[name] = JoinLetter.decode(invoke("token", "create", name)[1].splitlines()[-1])
    directory.joined.append(claim(letters["Used"], SigningKey.new().public, NOW))
    found = json.loads(invoke("token", "list", "--json")[1])
    assert [(one["name"], one["state"]) for one in found] == [
        ("Lost", "unused"),
        ("Waiting", "unused"),
    ]
    assert invoke("token", "withdraw", "Used")[0] == 4  # that is for `revoke`
    assert invoke("token", "withdraw", "Nobody")[0] == 4
    assert directory.took == []
    status, output = invoke("token", "withdraw", letters["Lost"].invitation.id.short())
    assert status == 0
    assert "withdrawn  Lost" in output
    directory.joined.append(claim(letters["Lost"], SigningKey.new().public, NOW))
    invoke("list", "sign")
    assert letters["Lost"].invitation.id not in kept(path).members
    assert letters["Used"].invitation.id in kept(path).members
    states = json.loads(invoke("token", "list", "--all", "--json")[1])
    assert {one["name"]: one["state"] for one in states} == {
        "Used": "used",
        "Lost": "revoked",
        "Waiting": "unused",
    }
    assert "Waiting" in invoke("token", "list")[1]


def test_key_with_a_passphrase_signs_nothing_without_it(
    run: tuple[Run, Path, Directory], tmp_path: Path
) -> None:
    invoke, path, directory = run
    words, others = tmp_path / "words", tmp_path / "others"
    words.write_text("six random words make a passphrase\n")
    others.write_text("and these are six other ones\n")
    (tmp_path / "short").write_text("secret\n")
    short = ("--new-passphrase-file", str(tmp_path / "short"))
    assert invoke("key", "protect", *short)[0] == 11
    assert invoke("key", "protect", "--new-passphrase-file", str(words))[0] == 0
    data = path.read_bytes()
    assert base64.b64encode(KEY.key.seed) not in data
    assert b"PRIVATE KEY" not in data
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    status, said = invoke("list", "sign")
    assert (status, "has a passphrase: give --key-passphrase-file" in said) == (11, True)
    assert invoke("list", "sign", "--key-passphrase-file", str(others))[0] == 11
    assert directory.took == []
    assert invoke("list", "sign", "--key-passphrase-file", str(words))[0] == 0
    change = ("--key-passphrase-file", str(words), "--new-passphrase-file", str(others))
    assert invoke("key", "protect", *change)[0] == 0
    found = OperatorKey.read(path, lambda: others.read_bytes().strip())
    assert (found.key.seed, found.root) == (KEY.key.seed, KEY.root)
    with pytest.raises(KeysError, match="has a passphrase"):
        OperatorKey.read(path)


def test_new_network_has_a_protected_key_on_request(tmp_path: Path) -> None:
    words, key = tmp_path / "words", tmp_path / "key"
    words.write_text("six random words make a passphrase\n")
    protected = ("--network-key", str(key), "--key-passphrase-file", str(words))
    made = ("--name", "Montana", "--endpoint", "h:1", "--listen", "127.0.0.1:1")
    done = CliRunner().invoke(cli, ["--home", str(tmp_path / "home"), "init", *made, *protected])
    assert done.exit_code == 0, done.output
    assert b"locked" in key.read_bytes()
    assert OperatorKey.read(key, lambda: words.read_bytes().strip()).name == "Montana"
