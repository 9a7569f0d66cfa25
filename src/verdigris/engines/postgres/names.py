"""What the objects of a deployment, or of a read replica, are called on the servers. Everything of ours can be found
again by its name."""

from msgspec import Struct

# What makes a target, and later a retired source, read-only for ordinary sessions.
READ_ONLY = "default_transaction_read_only"

PREFIX = "verdigris_"
# What every name of a read replica begins with: its resource id is ``db-...``.
READ_REPLICA = f"{PREFIX}db_"


class ObjectNames(Struct, frozen=True):
    """Names for one deployment: ``bgd-0a1b...`` -> ``verdigris_bgd_0a1b...``, 30 of the 63 bytes a name may have. A
    read replica, which is no part of one, has its resource id here: ``verdigris_db_0a1b...``, 42 bytes.

    Slot names allow lower case letters, digits and underscores only (replication slots, PostgreSQL manual 26.2.6).
    """

    deployment_id: str

    @property
    def base(self) -> str:
        return PREFIX + self.deployment_id.replace("-", "_").lower()

    @property
    def publication(self) -> str:
        return self.base

    @property
    def subscription(self) -> str:
        return self.base

    @property
    def schema(self) -> str:
        """Holds the marker table and the router's functions (both sides), and what green remembers of its making."""
        return self.base

    @property
    def physical_slot(self) -> str:
        return self.base

    def logical_slot(self, database_oid: int) -> str:
        """Slots are the cluster's, so the database is in the name; by oid, because names may have any character."""
        return f"{self.base}_{database_oid}"

    def own_writes_slot(self, database_oid: int) -> str:
        """A slot of green's own, in one of its databases."""
        return f"{self.base}_own_{database_oid}"
