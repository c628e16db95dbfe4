"""What opening the chunks here takes beyond what every installation has."""

from node.codec import jpeg_ls
from node.domain.capabilities import Capability
from node.errors import StoreError
from node.sql.database import Database, Db


def installed() -> frozenset[Capability]:
    """Return the capabilities of this installation."""
    missing = frozenset[Capability]() if jpeg_ls.is_available() else {Capability.JPEG_LS}
    return frozenset(Capability) - missing


def check_needs(database: Database) -> None:
    """Check that every chunk here can be opened; one that cannot would count as damaged.

    Raises:
        StoreError: something is not installed; the message says what.
    """
    missing = database.read_sync(_all_needs) - installed()
    if missing == {Capability.JPEG_LS}:
        raise StoreError(
            "the home holds chunks compressed with JPEG-LS, and its library is not installed:"
            " pip install 'emix[small]'"
        )
    if missing:
        raise StoreError(
            f"the home holds chunks that this version cannot open ({', '.join(sorted(missing))}):"
            " install the version that made them"
        )


def _all_needs(db: Db) -> set[str]:
    found = db.execute("SELECT DISTINCT needs FROM packages WHERE needs != ''")
    return {need for row in found for need in row[0].split()}
