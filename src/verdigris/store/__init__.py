"""The control plane's own database: schema, migrations, and ``domain.ports.Store`` on top of them.

``open_store(url)`` is the one way in. It creates or migrates the database and returns a store that is safe to use from
any thread. Where things are:

* ``schema``: the tables as they are now, with the rules that they keep;
* ``migrations``: how a database of any earlier version becomes that, run by ``migrate`` each time a store is opened;
* ``database``: what differs between SQLite (the default, embedded) and PostgreSQL;
* ``records``: rows to the immutable records of ``domain.model`` and back;
* ``transaction`` (with ``subscriptions``), ``sql_store``: the two protocols of ``domain.ports``.
"""

from verdigris.store.database import StoreError, sqlite_url
from verdigris.store.sql_store import SqlStore, open_store

__all__ = ["SqlStore", "StoreError", "open_store", "sqlite_url"]
