"""Logging in: watching a client do it, and doing it without the password."""

import hashlib
from collections.abc import Mapping
from enum import Enum, auto
from struct import Struct as Packing

from verdigris.wire.postgres import messages, scram
from verdigris.wire.postgres.errors import LocalProtocolError, RemoteProtocolError

_INT32 = Packing("!I")


class Authentication(Enum):
    """Codes of the ``Authentication...`` messages that matter here."""

    OK = 0
    CLEARTEXT_PASSWORD = 3
    MD5_PASSWORD = 5
    SASL = 10
    SASL_CONTINUE = 11
    SASL_FINAL = 12


def read_authentication(body: bytes) -> tuple[Authentication | None, bytes]:
    """The code (None: one that we do not know) and what follows it."""
    if len(body) < 4:
        raise RemoteProtocolError("Authentication message cut short")
    (code,) = _INT32.unpack_from(body)
    try:
        return Authentication(code), body[4:]
    except ValueError:
        return None, body[4:]


class Method(Enum):
    """How a client proved who it is."""

    TRUST = auto()
    SCRAM = auto()
    MD5 = auto()
    OTHER = auto()


class LoginWatch:
    """Keeps of a login that passes through what a second login as the same user needs."""

    __slots__ = ("_client_first", "_server_first", "method", "protocol_minor", "transcript")

    def __init__(self) -> None:
        self.method = Method.TRUST
        self.transcript: scram.Transcript | None = None
        self.protocol_minor: int | None = None  # what the server came down to, if it did
        self._client_first: bytes | None = None
        self._server_first: bytes | None = None

    def server_message(self, body: bytes, _size: int) -> bool:
        """An Authentication message."""
        code, payload = read_authentication(body)
        match code:
            case Authentication.SASL:
                self.method = Method.SCRAM
            case Authentication.SASL_CONTINUE:
                self._server_first = payload
            case Authentication.MD5_PASSWORD:
                self.method = Method.MD5
            case Authentication.OK:
                self._client_first = self._server_first = None
            case Authentication.SASL_FINAL:
                pass
            case _:
                self.method = Method.OTHER
        return False

    def client_message(self, body: bytes, _size: int) -> bool:
        """A password message, whatever it carries."""
        if self.method is not Method.SCRAM:
            return False
        if self._client_first is None:
            mechanism, _, rest = body.partition(b"\0")
            self._client_first = rest[4:]
            if mechanism != scram.MECHANISM:
                self.method = Method.OTHER
        elif self._server_first is not None and self.transcript is None:
            self.transcript = scram.read_transcript(self._client_first, self._server_first, body)
        return False

    def negotiated(self, body: bytes, _size: int) -> bool:
        """NegotiateProtocolVersion: the server names the newest version it speaks."""
        if len(body) >= 4:
            self.protocol_minor = _INT32.unpack_from(body)[0] & 0xFFFF
        return False


class CannotLogIn(LocalProtocolError):
    """What is known of the user does not suffice for what the server asks."""


class Credential:
    """What stands in for a password: made of a watched login and the role's stored verifier."""

    __slots__ = ("_client_key", "_md5", "_scram", "_username")

    def __init__(self, username: bytes, watch: LoginWatch, verifier: str | None) -> None:
        """Raises ``CannotLogIn`` when the two do not fit together."""
        self._username = username
        self._client_key: bytes | None = None
        self._scram: scram.Verifier | None = None
        self._md5: bytes | None = None
        if watch.method is Method.OTHER:
            raise CannotLogIn("the client used a method of authentication that cannot be repeated")
        if verifier is None:
            if watch.method is Method.TRUST:
                return
            raise CannotLogIn("the target has no password for the role")
        if verifier.startswith("md5"):
            self._use_md5(watch, verifier)
        else:
            self._use_scram(watch, verifier)

    def _use_md5(self, watch: LoginWatch, verifier: str) -> None:
        if watch.method is Method.TRUST:
            return
        if watch.method is not Method.MD5:
            raise CannotLogIn("the client proved another kind of password than the one stored")
        self._md5 = verifier[3:].encode()

    def _use_scram(self, watch: LoginWatch, verifier: str) -> None:
        try:
            self._scram = scram.Verifier.parse(verifier)
        except ValueError as error:
            raise CannotLogIn(str(error)) from None
        if watch.transcript is None:
            if watch.method is Method.TRUST:
                return
            raise CannotLogIn("the client did not log in with SCRAM-SHA-256")
        self._client_key = watch.transcript.client_key(self._scram.stored_key)
        if self._client_key is None:
            raise CannotLogIn("the password has changed since the client logged in")

    def md5_answer(self, salt: bytes) -> bytes:
        if self._md5 is None:
            raise CannotLogIn("the target asks for an MD5 password")
        return b"md5" + hashlib.md5(self._md5 + salt).hexdigest().encode() + b"\0"  # noqa: S324  the protocol's choice

    def scram_client(self) -> scram.KeyClient:
        if self._scram is None or self._client_key is None:
            raise CannotLogIn("the target asks for SCRAM-SHA-256")
        return scram.KeyClient(self._client_key, self._scram)


class ClientLogin:
    """The client's side of a login, up to the first ReadyForQuery. Feed it messages, send what it returns."""

    __slots__ = ("_credential", "_scram", "done", "key", "parameters")

    def __init__(self, credential: Credential) -> None:
        self._credential = credential
        self._scram: scram.KeyClient | None = None
        self.done = False
        self.key: messages.BackendKey | None = None
        self.parameters: dict[bytes, bytes] = {}

    def receive(self, code: int, body: bytes) -> bytes:
        """What to send in answer, often nothing.

        Raises ``CannotLogIn``, ``LoginRefused`` with the server's error, or ``RemoteProtocolError``.
        """
        match code:
            case 0x52:  # R
                return self._authenticate(body)
            case 0x45:  # E
                raise LoginRefused(messages.read_error(body))
            case 0x4B:  # K
                self.key = messages.read_backend_key(body)
            case 0x53:  # S
                name, value = messages.read_parameter_status(body)
                self.parameters[name] = value
            case 0x5A:  # Z
                self.done = True
            case 0x4E | 0x76:  # N, v: a notice, or a version that we offered and may do without
                pass
            case _:
                raise RemoteProtocolError(f"message of type 0x{code:02x} during login")
        return b""

    def _authenticate(self, body: bytes) -> bytes:
        code, payload = read_authentication(body)
        match code:
            case Authentication.OK:
                return b""
            case Authentication.MD5_PASSWORD:
                return messages.password(self._credential.md5_answer(payload[:4]))
            case Authentication.SASL:
                if scram.MECHANISM not in payload.split(b"\0"):
                    raise CannotLogIn("the target does not offer SCRAM-SHA-256")
                self._scram = self._credential.scram_client()
                return messages.sasl_initial_response(scram.MECHANISM, self._scram.first())
            case Authentication.SASL_CONTINUE if self._scram is not None:
                return messages.password(self._scram.final(payload))
            case Authentication.SASL_FINAL if self._scram is not None:
                self._scram.check(payload)
                return b""
            case _:
                raise CannotLogIn("the target asks for a method of authentication that cannot be repeated")


class LoginRefused(RemoteProtocolError):
    """The server answered a login with an error."""

    def __init__(self, error: messages.ServerError) -> None:
        super().__init__(str(error))
        self.error = error


# What a dialled connection may be started with besides the client's own parameters.
READ_WRITE = b"-c default_transaction_read_only=off"


def dial_parameters(client: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The client's start-up parameters for a second login on a target whose ordinary sessions are read-only.

    The override goes before the client's own options, which therefore win, as a parameter of the same name does.
    Protocol extensions (``_pq_.``) are left out: what the first server did not take, the client does not expect.
    """
    parameters = {name: value for name, value in client.items() if not name.startswith(b"_pq_.")}
    if b"default_transaction_read_only" not in parameters:
        options = parameters.get(b"options", b"")
        parameters[b"options"] = READ_WRITE + b" " + options if options else READ_WRITE
    return parameters
