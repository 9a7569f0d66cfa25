"""PostgreSQL's protocol, version 3, without any input or output of its own.

Sources of facts: the PostgreSQL manual, "Frontend/Backend Protocol", and the servers themselves.
"""
