"""The metadata database's schema, as numbered migrations that are never edited once released.

All of it is inside SQLCipher: this is where patient data may stand in the clear.
"""

import sqlite_utils
from sqlite_utils import Migrations

from node.domain.query import name_forms

migrations = Migrations("emix-node")


@migrations(name="0001_initial")
def _initial(db: sqlite_utils.Database) -> None:
    # One statement at a time: executescript would commit the migration's own transaction.
    for statement in _INITIAL.split(";\n"):
        if statement.strip():
            db.execute(statement)


_INITIAL = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT;

-- Imports that run, or ended before their time: one row each, from its beginning to its end.
CREATE TABLE imports (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sources TEXT NOT NULL,
    operator TEXT NOT NULL,
    begun_time REAL NOT NULL,
    problem TEXT NOT NULL DEFAULT ''
) STRICT;

-- One package per (origin, package id), ever: a second manifest for it is equivocation.
CREATE TABLE packages (
    -- Names a study to people, so it is never given twice.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    package_id BLOB NOT NULL,
    origin BLOB NOT NULL,
    study_uid TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'held', 'arriving', 'closed', 'deleting')),
    epoch INTEGER NOT NULL,
    wrapped_key BLOB NOT NULL,
    next_number INTEGER NOT NULL DEFAULT 0,
    created_time REAL NOT NULL,
    -- Of all its chunks, kept with them: the quota looks at the sum with every offer.
    sealed_bytes INTEGER NOT NULL DEFAULT 0,
    -- Likewise: to say how many are here nobody counts them.
    instances INTEGER NOT NULL DEFAULT 0,
    manifest BLOB,
    manifest_digest BLOB,
    received_from BLOB,
    -- The import that fills it, or has left it open.
    import_id INTEGER REFERENCES imports (id) ON DELETE SET NULL,
    -- When somebody looked at it here, exported it or sent it on; retention deletes nothing else.
    looked_time REAL,
    -- From when on retention deletes it; announced a week before.
    expiring_time REAL,
    UNIQUE (origin, package_id)
) STRICT;
CREATE INDEX packages_import ON packages (import_id) WHERE import_id IS NOT NULL;
CREATE INDEX packages_study ON packages (study_uid, origin);
-- What is here, newest first: a list ends after its first page.
CREATE INDEX packages_newest ON packages (created_time, study_uid, origin) WHERE state = 'closed';
CREATE INDEX packages_arrived ON packages (created_time, study_uid, origin)
    WHERE state = 'closed' AND received_from IS NOT NULL;
-- Few at any time, and looked for with every status and removal.
CREATE INDEX packages_open ON packages (study_uid) WHERE state = 'open';
CREATE INDEX packages_held ON packages (id) WHERE state = 'held';
CREATE INDEX packages_deleting ON packages (id) WHERE state = 'deleting';
CREATE INDEX packages_expiring ON packages (expiring_time) WHERE expiring_time IS NOT NULL;
CREATE INDEX packages_closed ON packages (study_uid, instances) WHERE state = 'closed';
CREATE INDEX packages_arriving ON packages (received_from) WHERE state = 'arriving';
CREATE INDEX packages_sizes ON packages (sealed_bytes, LENGTH(manifest));

CREATE TABLE chunks (
    package INTEGER NOT NULL REFERENCES packages (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    number INTEGER NOT NULL,
    chunk_id BLOB NOT NULL,
    plaintext_bytes INTEGER NOT NULL,
    sealed_bytes INTEGER NOT NULL,
    pieces_digest BLOB NOT NULL,
    present INTEGER NOT NULL,
    PRIMARY KEY (package, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX chunks_id ON chunks (chunk_id);
-- Not here yet, or missing or damaged since: few, and asked for often.
CREATE INDEX chunks_absent ON chunks (package, position) WHERE present = 0;

CREATE TABLE instances (
    id INTEGER PRIMARY KEY,
    package INTEGER NOT NULL REFERENCES packages (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    series_uid TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    digest BLOB NOT NULL,
    extents BLOB NOT NULL,
    UNIQUE (package, position)
) STRICT;
CREATE INDEX instances_sop ON instances (sop_instance_uid);
CREATE INDEX instances_digest ON instances (digest);

-- What people search by, merged over a package's instances.
CREATE TABLE study_index (
    package INTEGER PRIMARY KEY REFERENCES packages (id) ON DELETE CASCADE,
    patient_name TEXT NOT NULL DEFAULT '',
    patient_id TEXT NOT NULL DEFAULT '',
    study_date TEXT NOT NULL DEFAULT '',
    study_description TEXT NOT NULL DEFAULT '',
    accession_number TEXT NOT NULL DEFAULT '',
    modalities TEXT NOT NULL DEFAULT '',
    birth_date TEXT NOT NULL DEFAULT '',
    sex TEXT NOT NULL DEFAULT '',
    referring_physician TEXT NOT NULL DEFAULT '',
    institution TEXT NOT NULL DEFAULT '',
    search TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX study_index_accession ON study_index (accession_number COLLATE NOCASE)
    WHERE accession_number != '';

-- Whom a package's instances are of: one, as it ought to be, or several.
CREATE TABLE patients (
    id INTEGER PRIMARY KEY,
    package INTEGER NOT NULL REFERENCES packages (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    birth_date TEXT NOT NULL,
    sex TEXT NOT NULL,
    UNIQUE (package, patient_id, name, birth_date, sex)
) STRICT;

-- What is said of a package's series, merged over their instances.
CREATE TABLE series_index (
    package INTEGER NOT NULL REFERENCES packages (id) ON DELETE CASCADE,
    series_uid TEXT NOT NULL,
    series_number TEXT NOT NULL DEFAULT '',
    modality TEXT NOT NULL DEFAULT '',
    description TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (package, series_uid)
) STRICT, WITHOUT ROWID;

-- What this node's own examination says of instances. What is on hold waits for a person: import
-- keeps it in a package of its own (state held); what arrived is part of its sender's package,
-- and left out where that is exported or sent on.
CREATE TABLE findings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    package INTEGER NOT NULL REFERENCES packages (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('flag', 'hold')),
    reasons TEXT NOT NULL,
    label TEXT NOT NULL,
    found_time REAL NOT NULL,
    UNIQUE (package, position)
) STRICT;

CREATE TABLE peers (
    facility BLOB PRIMARY KEY,
    statements BLOB NOT NULL,
    endpoint TEXT NOT NULL,
    pinned_how TEXT NOT NULL,
    pinned_by TEXT NOT NULL,
    pinned_time REAL NOT NULL,
    removed_time REAL,
    last_seen_time REAL NOT NULL DEFAULT 0
) STRICT;

-- Node ids and digests of TLS certificates: each is one peer's alone.
CREATE TABLE claims (
    digest BLOB PRIMARY KEY,
    facility BLOB NOT NULL REFERENCES peers (facility) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX claims_facility ON claims (facility);

CREATE TABLE transfers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    transfer_id BLOB NOT NULL,
    direction TEXT NOT NULL CHECK (direction IN ('send', 'receive')),
    peer BLOB NOT NULL,
    origin BLOB NOT NULL,
    package_id BLOB NOT NULL,
    study_uid TEXT NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    accepted INTEGER NOT NULL DEFAULT 0,
    delivery BLOB NOT NULL,
    delivery_digest BLOB NOT NULL,
    sealed_key BLOB NOT NULL,
    receipt BLOB,
    manifest_digest BLOB REFERENCES transfer_manifests (digest),
    bytes_total INTEGER NOT NULL,
    bytes_done INTEGER NOT NULL DEFAULT 0,
    bytes_carried INTEGER NOT NULL DEFAULT 0,
    instances INTEGER NOT NULL,
    plaintext_bytes INTEGER NOT NULL DEFAULT 0,
    recipient TEXT NOT NULL DEFAULT '',
    note TEXT NOT NULL DEFAULT '',
    -- What an offer is, as its sender says, while it waits here for a person: JSON.
    summary TEXT NOT NULL DEFAULT '',
    created_time REAL NOT NULL,
    updated_time REAL NOT NULL,
    expires_time REAL NOT NULL,
    received_time REAL NOT NULL DEFAULT 0,
    untold INTEGER NOT NULL DEFAULT 0,
    -- When the receiver deleted what it gave a receipt for, as it says; 0 where it says nothing.
    deleted_time REAL NOT NULL DEFAULT 0,
    UNIQUE (peer, transfer_id, direction)
) STRICT;
CREATE INDEX transfers_state ON transfers (state, direction);
CREATE INDEX transfers_id ON transfers (transfer_id);
CREATE INDEX transfers_package ON transfers (origin, package_id);
-- Each of these is for one question that is asked often, and holds no more than its answer: what
-- was delivered over the years makes no difference to it. The conditions are those of the
-- questions, word for word (node.store.transfer_rows), or SQLite does not use them.
CREATE INDEX transfers_open ON transfers (id)
    WHERE state IN ('pending', 'held', 'carrying', 'checking');
CREATE INDEX transfers_waiting ON transfers (peer)
    WHERE direction = 'send'
    AND (state IN ('pending', 'held', 'carrying', 'checking') OR untold = 1);
CREATE INDEX transfers_ended ON transfers (updated_time)
    WHERE untold = 0 AND state IN ('delivered', 'declined', 'cancelled', 'failed');
CREATE INDEX transfers_manifest ON transfers (manifest_digest) WHERE manifest_digest IS NOT NULL;
CREATE INDEX transfers_sent ON transfers (study_uid, origin, peer)
    WHERE direction = 'send' AND state = 'delivered';
-- What a peer has offered and got no receipt for is counted with every offer.
CREATE INDEX transfers_offers ON transfers (peer, state, LENGTH(delivery))
    WHERE direction = 'receive' AND receipt IS NULL;

-- The third document of a proof: large, so it is kept once, however many transfers name it.
CREATE TABLE transfer_manifests (
    digest BLOB PRIMARY KEY,
    manifest BLOB NOT NULL
) STRICT;

-- What was deleted here of that which a peer had sent, until the peer confirms that it knows.
CREATE TABLE deletions (
    id INTEGER PRIMARY KEY,
    peer BLOB NOT NULL,
    transfer_id BLOB NOT NULL,
    deleted_time REAL NOT NULL,
    UNIQUE (peer, transfer_id)
) STRICT;

-- Bytes of deliveries with receipts that were kept for a peer on one day.
CREATE TABLE receipt_days (
    peer BLOB NOT NULL,
    day INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (peer, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    time_milliseconds INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    operator TEXT NOT NULL,
    salt BLOB NOT NULL,
    digest BLOB NOT NULL
) STRICT;
CREATE INDEX audit_study ON audit (json_extract(body, '$.study'));
CREATE INDEX audit_peer ON audit (
    COALESCE(json_extract(body, '$.peer'), json_extract(body, '$.facility'))
);
CREATE INDEX audit_alarms ON audit (sequence) WHERE kind >= 'alarm.' AND kind < 'alarm/';
CREATE INDEX audit_acknowledged ON audit (sequence) WHERE kind = 'audit.acknowledged';

-- Heads of other facilities' audit logs, kept for them; a few of each, see node.domain.heads.
CREATE TABLE kept_heads (
    facility BLOB NOT NULL,
    node BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    digest BLOB NOT NULL,
    time_milliseconds INTEGER NOT NULL,
    taken_time REAL NOT NULL,
    contradicted INTEGER NOT NULL DEFAULT 0,
    settled INTEGER NOT NULL DEFAULT 0,
    document BLOB NOT NULL,
    PRIMARY KEY (facility, node, sequence, digest)
) STRICT, WITHOUT ROWID;

-- What others told that they keep of ours, to show it while they are away. It lies beside the log,
-- so it proves nothing to whoever may have changed that.
CREATE TABLE told_heads (
    witness BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    digest BLOB NOT NULL,
    taken_time REAL NOT NULL,
    told_time REAL NOT NULL,
    PRIMARY KEY (witness, sequence, digest)
) STRICT, WITHOUT ROWID;
"""


@migrations(name="0002_networks")
def _networks(db: sqlite_utils.Database) -> None:
    for statement in _NETWORKS.split(";\n"):
        if statement.strip():
            db.execute(statement)


_NETWORKS = """
CREATE TABLE networks (
    network BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    network_key BLOB NOT NULL,
    endpoints TEXT NOT NULL,
    root_certificate BLOB NOT NULL,
    membership BLOB NOT NULL,
    list BLOB,
    joined_time REAL NOT NULL
) STRICT;

-- Every revocation that stands: a later list without it changes nothing. One that is final was in
-- a list that the network key signed; the others end with their epoch.
CREATE TABLE revocations (
    network BLOB NOT NULL REFERENCES networks (network) ON DELETE CASCADE,
    invitation BLOB NOT NULL,
    seen_time REAL NOT NULL,
    is_final INTEGER NOT NULL,
    PRIMARY KEY (network, invitation)
) STRICT;

-- A peer that nobody pinned: it is trusted as long as it is a member.
ALTER TABLE peers ADD COLUMN network BLOB;
ALTER TABLE peers ADD COLUMN invitation BLOB;
-- What it is called here: as it called itself when it was pinned, or as its network calls it.
ALTER TABLE peers ADD COLUMN name TEXT NOT NULL DEFAULT '';
"""


@migrations(name="0003_routes")
def _routes(db: sqlite_utils.Database) -> None:
    # How the peer was reached at last, and for how long bytes were carried in all.
    db.execute("ALTER TABLE transfers ADD COLUMN route TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE transfers ADD COLUMN carried_seconds REAL NOT NULL DEFAULT 0")
    # Finds the last transfer with each peer, from which its speed is computed.
    db.execute(
        "CREATE INDEX transfers_rates ON transfers (peer, updated_time) WHERE carried_seconds > 0"
    )


@migrations(name="0004_records")
def _records(db: sqlite_utils.Database) -> None:
    # Records of members as directories showed them, for when none answers. Each is signed as a
    # whole, and verified again when it is read.
    db.execute(
        "CREATE TABLE records ("
        "    network BLOB NOT NULL REFERENCES networks (network) ON DELETE CASCADE,"
        "    facility BLOB NOT NULL,"
        "    statements BLOB NOT NULL,"
        "    listing BLOB NOT NULL,"
        "    membership BLOB NOT NULL,"
        "    generation INTEGER NOT NULL,"
        "    profile_seconds INTEGER NOT NULL,"
        "    listing_seconds INTEGER NOT NULL,"
        "    texts TEXT NOT NULL,"
        "    seen_time REAL NOT NULL,"
        "    PRIMARY KEY (network, facility)"
        ") STRICT"
    )


@migrations(name="0005_catalogue")
def _catalogue(db: sqlite_utils.Database) -> None:
    for statement in _CATALOGUE.split(";\n"):
        if statement.strip():
            db.execute(statement)
    rows = db.execute("SELECT id, name FROM patients").fetchall()
    db.conn.executemany(
        "INSERT INTO patient_names VALUES (?, ?)",
        [(form, patient) for patient, name in rows for form in name_forms(name)],
    )


_CATALOGUE = """
-- What every word of a search has to occur in: apart, since a search may read all of it.
CREATE TABLE study_words (
    package INTEGER PRIMARY KEY REFERENCES packages (id) ON DELETE CASCADE,
    words TEXT NOT NULL
) STRICT;
INSERT INTO study_words SELECT package, search FROM study_index;
ALTER TABLE study_index DROP COLUMN search;
ALTER TABLE study_index ADD COLUMN study_time TEXT NOT NULL DEFAULT '';
ALTER TABLE study_index ADD COLUMN study_id TEXT NOT NULL DEFAULT '';
CREATE INDEX study_index_date ON study_index (study_date);
-- What is here, newest first, and nothing beside: a package's row is wide.
CREATE INDEX packages_listed ON packages (id, study_uid, origin, received_from)
    WHERE state = 'closed';
DROP INDEX packages_newest;
DROP INDEX packages_arrived;

-- How each patient's name is compared: narrow, since a search for a part of one reads all of it.
CREATE TABLE patient_names (
    form TEXT NOT NULL,
    patient INTEGER NOT NULL REFERENCES patients (id) ON DELETE CASCADE,
    PRIMARY KEY (form, patient)
) STRICT, WITHOUT ROWID;
CREATE INDEX patient_names_patient ON patient_names (patient);
CREATE INDEX patients_id ON patients (patient_id);

ALTER TABLE series_index ADD COLUMN step_start_date TEXT NOT NULL DEFAULT '';
ALTER TABLE series_index ADD COLUMN step_start_time TEXT NOT NULL DEFAULT '';
ALTER TABLE series_index ADD COLUMN body_part TEXT NOT NULL DEFAULT '';
CREATE INDEX instances_series ON instances (series_uid, package);

ALTER TABLE instances ADD COLUMN instance_number INTEGER;
ALTER TABLE instances ADD COLUMN pixel_rows INTEGER;
ALTER TABLE instances ADD COLUMN pixel_columns INTEGER;
ALTER TABLE instances ADD COLUMN bits_allocated INTEGER;
ALTER TABLE instances ADD COLUMN number_of_frames INTEGER;

-- What is no flag keeps its instance out, however the verdict is called.
CREATE TABLE new_findings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    package INTEGER NOT NULL REFERENCES packages (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    reasons TEXT NOT NULL,
    label TEXT NOT NULL,
    found_time REAL NOT NULL,
    UNIQUE (package, position)
) STRICT;
INSERT INTO new_findings SELECT * FROM findings;
-- A number that was shown is never given again, though its row is gone.
DELETE FROM sqlite_sequence WHERE name = 'new_findings';
INSERT INTO sqlite_sequence SELECT 'new_findings', seq FROM sqlite_sequence WHERE name = 'findings';
DROP TABLE findings;
ALTER TABLE new_findings RENAME TO findings;

-- Files of a package that are not DICOM; `about` is UIDs with spaces between.
CREATE TABLE attachments (
    package INTEGER NOT NULL REFERENCES packages (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    digest BLOB NOT NULL,
    extents BLOB NOT NULL,
    about TEXT NOT NULL,
    PRIMARY KEY (package, position)
) STRICT, WITHOUT ROWID;
"""


@migrations(name="0006_transfers")
def _transfers(db: sqlite_utils.Database) -> None:
    db.execute("ALTER TABLE transfers RENAME COLUMN untold TO withdrawal_pending")
    # `transfers_state` answers what is open: SQLite never chose this one.
    db.execute("DROP INDEX transfers_open")


@migrations(name="0007_opened")
def _opened(db: sqlite_utils.Database) -> None:
    # When a chunk was opened and checked last; 0 for never since it was made.
    db.execute("ALTER TABLE chunks ADD COLUMN opened_time REAL NOT NULL DEFAULT 0")
    db.execute("CREATE INDEX chunks_unopened ON chunks (package, position) WHERE opened_time = 0")


@migrations(name="0008_needs")
def _needs(db: sqlite_utils.Database) -> None:
    # Capabilities that opening its chunks takes, as in its manifest; separated by spaces.
    db.execute("ALTER TABLE packages ADD COLUMN needs TEXT NOT NULL DEFAULT ''")
    db.execute("CREATE INDEX packages_needs ON packages (needs) WHERE needs != ''")


@migrations(name="0009_reported_heads")
def _reported_heads(db: sqlite_utils.Database) -> None:
    db.execute("ALTER TABLE told_heads RENAME TO reported_heads")
    db.execute("ALTER TABLE reported_heads RENAME COLUMN told_time TO reported_time")
