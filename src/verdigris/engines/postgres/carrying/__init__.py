"""What replication leaves behind, carried from the source to the target: a module for each kind.

While green waits, :meth:`Tending.tend` brings it nearer every few seconds; ``prepare`` of a switchover does the same
once more, and only what is done behind the fence has to be exact. So each module offers

* a part for before the fence: idempotent, resumable, cheap when nothing has changed; and
* a part for behind it, on one session of each side of one database, which is one short question when nothing has
  changed.

What a module has to remember of the source is in tables of the deployment's schema: on the target, written with what it
describes; only what the source has to have back is remembered on the source itself.

Of a large object, a role or a database everything is carried here, privileges and comments too. A table that is to be
published goes through :func:`identity.give` first.
"""
