"""A router's process that takes over from another one, up to a point: then it, or the other one, is killed.

``python sabotage.py POINT VICTIM NUMBER`` and then a router's arguments. POINT is the name of a message, or ``start``;
VICTIM dies as the NUMBERth such message has been read (or is about to be sent, for those of the new process): ``new``,
``old``, or ``frozen``, which is the new one, and only stopped: whoever watches kills it when the time has come.
"""

import os
import signal
import sys

from verdigris.router import __main__ as router
from verdigris.router.succession import accession
from verdigris.router.succession.channel import Channel

point, victim, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
del sys.argv[1:4]


def strike(predecessor: int | None) -> None:
    if victim == "fail":
        raise SystemExit("it does not come up")
    pid = predecessor if victim == "old" else os.getpid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP if victim == "frozen" else signal.SIGKILL)


seen = 0
predecessor: int | None = None


def count(name: str) -> None:
    global seen
    if name == point:
        seen += 1
        if seen == number:
            strike(predecessor)


original_receive = accession.Accession._receive
original_send = Channel.send


def receive(self, message, descriptors):  # type: ignore[no-untyped-def]  # as the original
    global predecessor
    predecessor = getattr(message, "pid", predecessor)  # a Grant has it
    count(type(message).__name__)
    original_receive(self, message, descriptors)


def send(self, message, descriptors=()):  # type: ignore[no-untyped-def]  # as the original
    count(type(message).__name__)
    original_send(self, message, descriptors)


accession.Accession._receive = receive  # type: ignore[method-assign]  # that is what this is for
Channel.send = send  # type: ignore[method-assign]  # that is what this is for

count("start")
sys.exit(router.main())
