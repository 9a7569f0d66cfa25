"""What a request is refused with."""

from verdigris.aws.model import Blame, ErrorShape, load_service

# Errors of every Query service, which its model does not list (RDS API reference, "Common Errors"). Statuses are the
# reference's, but for MalformedQueryString: 404 there would tell SDKs that a resource does not exist.
# MalformedInput, RequestEntityTooLarge, SignatureDoesNotMatch and NotImplemented are not in that list; AWS's front ends
# answer with the first three all the same. 501 for the last because SDKs repeat a call after 500, 502, 503 and 504.
_COMMON = {
    code: ErrorShape(code, code, status, Blame.SENDER if status < 500 else Blame.RECEIVER)
    for code, status in {
        "AccessDenied": 403,
        "IncompleteSignature": 400,
        "InternalFailure": 500,
        "InvalidAction": 400,
        "InvalidClientTokenId": 403,
        "InvalidParameterCombination": 400,
        "InvalidParameterValue": 400,
        "MalformedInput": 400,
        "MalformedQueryString": 400,
        "MissingAction": 400,
        "MissingAuthenticationToken": 403,
        "MissingParameter": 400,
        "NotImplemented": 501,
        "RequestEntityTooLarge": 413,
        "RequestExpired": 400,
        "ServiceUnavailable": 503,
        "SignatureDoesNotMatch": 403,
        "Throttling": 400,
        "ValidationError": 400,
    }.items()
}


class Fault(Exception):
    """A refusal as the client will see it.

    ``name`` is the model's shape name (``DBInstanceNotFoundFault``) or one of the common errors (``ValidationError``);
    code and status come from there. A name that is neither raises :class:`verdigris.aws.model.UnknownError`.
    """

    def __init__(self, name: str, message: str, *, service: str = "rds") -> None:
        super().__init__(name, message)
        self.shape = _COMMON.get(name) or load_service(service).error(name)
        self.message = message

    @property
    def name(self) -> str:
        return self.shape.name

    @property
    def code(self) -> str:
        """``Error.Code`` on the wire."""
        return self.shape.code

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.shape.status

    @property
    def blame(self) -> Blame:
        """``Error.Type`` on the wire."""
        return self.shape.blame

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def __reduce__(self) -> tuple[type["Fault"], tuple[str, str]]:
        return type(self), (self.name, self.message)


def common_error_names() -> frozenset[str]:
    return frozenset(_COMMON)


def validation_error(message: str) -> Fault:
    return Fault("ValidationError", message)


def invalid_parameter_value(message: str) -> Fault:
    return Fault("InvalidParameterValue", message)


def invalid_parameter_combination(message: str) -> Fault:
    return Fault("InvalidParameterCombination", message)


def missing_parameter(name: str) -> Fault:
    return Fault("MissingParameter", f"The request must contain the parameter {name}")


def missing_action() -> Fault:
    return Fault("MissingAction", "The request is missing an Action parameter")


def invalid_action(action: str, version: str) -> Fault:
    return Fault("InvalidAction", f"Could not find operation {action} for version {version}")


def not_implemented(operation: str) -> Fault:
    """The service's API has it, this server does not yet."""
    return Fault("NotImplemented", f"The operation {operation} is not implemented by this server")


def malformed_query_string(message: str) -> Fault:
    """The form cannot be read at all."""
    return Fault("MalformedQueryString", message)


def malformed_input(message: str) -> Fault:
    """The form can be read, but its nesting is not that of the operation's input."""
    return Fault("MalformedInput", message)


def request_too_large(limit_bytes: int) -> Fault:
    return Fault("RequestEntityTooLarge", f"The request body is larger than {limit_bytes} bytes")


def access_denied(message: str) -> Fault:
    return Fault("AccessDenied", message)


def missing_authentication_token() -> Fault:
    return Fault("MissingAuthenticationToken", "Request is missing Authentication Token")


def incomplete_signature(message: str) -> Fault:
    return Fault("IncompleteSignature", message)


def invalid_client_token_id(message: str = "The security token included in the request is invalid") -> Fault:
    return Fault("InvalidClientTokenId", message)


def signature_does_not_match(message: str) -> Fault:
    return Fault("SignatureDoesNotMatch", message)


def request_expired(message: str) -> Fault:
    return Fault("RequestExpired", message)


def throttling(message: str = "Rate exceeded") -> Fault:
    return Fault("Throttling", message)


def internal_failure() -> Fault:
    """What went wrong is for the log; the client gets the request id to ask with."""
    return Fault("InternalFailure", "The request processing has failed because of an internal error")
