"""The AWS Query protocol for any service that speaks it, from botocore's service models. No HTTP framework, no I/O.

The order in which a server uses it::

    sigv4.verify(...)                      who is asking
    fields = query.parse_form(body)        the form, bounded
    operation = query.select_operation(service, fields)
    params = query.parse_input(operation, fields)
    validate.validate_input(operation, params)
    serialize.serialize_output(service, operation, result, request_id)

Each refuses a bad request with :class:`verdigris.aws.errors.Fault`; ``serialize.serialize_fault`` makes a body of it.
"""
