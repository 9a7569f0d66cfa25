"""The Amazon RDS API: what it shows, what it accepts, and which durable work it starts.

A handler is ``def handler(context, params) -> result``: parsed and model-checked parameters in, a dictionary in the
operation's output shape out, :class:`verdigris.aws.errors.Fault` for a refusal. Handlers change records in one store
transaction, together with the workflow that does the work, and never wait for a server. ``operations`` lists them,
``asgi`` serves them; ``views`` alone spells the members of responses.
"""
