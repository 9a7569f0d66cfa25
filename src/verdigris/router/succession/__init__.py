"""One router takes over from another, and with it the clients: a restart that nobody notices.

The old process (``Retirement``) stops accepting and hands over what makes it the router: the lock on the directory, the
control socket, every endpoint's listening socket. The new one (``Accession``) accepts from then on. Sessions follow one
by one, each at a safe point, as two descriptors and a few words (``luggage``).

Who serves a session is decided like this. The old process stops reading it, offers it, and keeps its descriptors; the
new one answers that it has it, and touches it only when it is told that it is its own. A process that finds the other
one silent makes sure that it is dead before it goes on with what is between them. See docs/decisions/0015.
"""
