"""What replication leaves behind, carried from the source to the target: a module for each kind.

While green waits, :meth:`Tending.tend` brings it nearer every few seconds; ``prepare`` of a switchover does the same
once more, and only what is done behind the fence has to be exact. So each module offers

* a part for before the fence: idempotent, bounded, resumable, cheap when nothing has changed; and
* a part for behind it, on one session of each side of one database, which is one statement when nothing has changed.
"""
