"""The one way in for clients: a relay in its own process, which parks sessions and hands them over.

It outlives the control plane, which talks to it through a control socket (``client.RouterClient``). Nothing of a
session is interpreted but what ``verdigris.wire.postgres.session`` needs to know whether it may be moved.
"""
