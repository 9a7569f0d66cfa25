"""SCRAM: the vector of RFC 7677, scramp as the other side, and ClientKey out of a login that passes by."""

import base64
import hashlib
import hmac

import pytest
import scramp
from hypothesis import given
from hypothesis import strategies as st

from verdigris.wire.postgres.errors import RemoteProtocolError
from verdigris.wire.postgres.login import CannotLogIn, ClientLogin, Credential, LoginWatch, Method, dial_parameters
from verdigris.wire.postgres.scram import KeyClient, Verifier, read_transcript

# RFC 7677, section 3.
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def verifier_of(password: str, salt: bytes = b"salt of 16 bytes", iterations: int = 4096) -> Verifier:
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return Verifier(iterations, salt, hashlib.sha256(client_key).digest(), server_key)


RFC_VERIFIER = verifier_of("pencil", base64.b64decode(b"W22ZaJ0SNY7soEsUEjb6gQ=="))


def text_of(verifier: Verifier) -> str:
    salt, stored, server = (
        base64.b64encode(part).decode() for part in (verifier.salt, verifier.stored_key, verifier.server_key)
    )
    return f"SCRAM-SHA-256${verifier.iterations}:{salt}${stored}:{server}"


def test_client_key_out_of_the_rfc_exchange() -> None:
    key = read_transcript(CLIENT_FIRST, SERVER_FIRST, CLIENT_FINAL).client_key(RFC_VERIFIER.stored_key)
    assert key is not None
    assert hashlib.sha256(key).digest() == RFC_VERIFIER.stored_key
    client = KeyClient(key, RFC_VERIFIER, username="user", nonce="rOprNGfwEbeRWgbNEkqO")
    assert client.first() == CLIENT_FIRST
    assert client.final(SERVER_FIRST) == CLIENT_FINAL
    client.check(SERVER_FINAL)


@pytest.mark.parametrize("header", [b"n,,", b"y,,"])
def test_channel_binding_flag_does_not_matter(header: bytes) -> None:
    transcript = read_transcript(header + CLIENT_FIRST[3:], SERVER_FIRST, CLIENT_FINAL)
    assert transcript == read_transcript(CLIENT_FIRST, SERVER_FIRST, CLIENT_FINAL)


def test_another_password_gives_no_key() -> None:
    transcript = read_transcript(CLIENT_FIRST, SERVER_FIRST, CLIENT_FINAL)
    assert transcript.client_key(verifier_of("pen").stored_key) is None


def test_a_server_without_the_verifier_is_not_believed() -> None:
    client = KeyClient(bytes(32), RFC_VERIFIER, username="user", nonce="rOprNGfwEbeRWgbNEkqO")
    client.first()
    client.final(SERVER_FIRST)
    with pytest.raises(RemoteProtocolError, match="signature"):
        client.check(b"v=" + base64.b64encode(bytes(32)))


def test_nonce_of_the_server_must_continue_ours() -> None:
    client = KeyClient(bytes(32), RFC_VERIFIER, nonce="mine")
    with pytest.raises(RemoteProtocolError, match="nonce"):
        client.final(SERVER_FIRST)


@given(st.text(min_size=1, max_size=20, alphabet=st.characters(min_codepoint=33, max_codepoint=126)))
def test_a_login_is_watched_and_repeated_against_scramp(password: str) -> None:
    mechanism = scramp.ScramMechanism("SCRAM-SHA-256")
    salt, stored_key, server_key, iterations = mechanism.make_auth_info(password, iteration_count=4096)
    verifier = Verifier(iterations, salt, stored_key, server_key)

    def server() -> scramp.core.ScramServer:
        return mechanism.make_server(lambda _user: (salt, stored_key, server_key, iterations))

    client, blue = scramp.ScramClient(["SCRAM-SHA-256"], "alice", password), server()
    first = client.get_client_first()
    blue.set_client_first(first)
    challenge = blue.get_server_first()
    client.set_server_first(challenge)
    final = client.get_client_final()
    blue.set_client_final(final)
    client.set_server_final(blue.get_server_final())

    key = read_transcript(first.encode(), challenge.encode(), final.encode()).client_key(stored_key)
    assert key is not None
    again, green = KeyClient(key, verifier, username="alice"), server()
    green.set_client_first(again.first().decode())
    green.set_client_final(again.final(green.get_server_first().encode()).decode())
    again.check(green.get_server_final().encode())


@pytest.mark.parametrize(
    "messages",
    [
        (b"", SERVER_FIRST, CLIENT_FINAL),
        (CLIENT_FIRST, SERVER_FIRST, b"c=biws,r=x"),
        (CLIENT_FIRST, SERVER_FIRST, b"c=biws,r=x,p=!!!!"),
        (CLIENT_FIRST, SERVER_FIRST, b"c=biws,r=x,p=AAAA"),
        (CLIENT_FIRST, b"x" * 5000, CLIENT_FINAL),
    ],
)
def test_malformed_logins_are_refused(messages: tuple[bytes, bytes, bytes]) -> None:
    with pytest.raises(RemoteProtocolError):
        read_transcript(*messages)


def test_verifier_text() -> None:
    assert Verifier.parse(text_of(RFC_VERIFIER)) == RFC_VERIFIER
    for text in ("", "md5abc", "SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA", text_of(RFC_VERIFIER) + "x\xe9"):
        with pytest.raises(ValueError, match=r"SCRAM|base64|ASCII|padding"):
            Verifier.parse(text)


# -------------------------------------------------------------------------------------------------------------- login


def watched() -> LoginWatch:
    watch = LoginWatch()
    watch.server_message(b"\0\0\0\x0aSCRAM-SHA-256\0\0", 0)
    watch.client_message(b"SCRAM-SHA-256\0" + len(CLIENT_FIRST).to_bytes(4, "big") + CLIENT_FIRST, 0)
    watch.server_message(b"\0\0\0\x0b" + SERVER_FIRST, 0)
    watch.client_message(CLIENT_FINAL, 0)
    watch.server_message(b"\0\0\0\x0c" + SERVER_FINAL, 0)
    watch.server_message(b"\0\0\0\0", 0)
    return watch


def test_watched_login_makes_a_credential() -> None:
    watch = watched()
    assert watch.method is Method.SCRAM
    login = ClientLogin(Credential(b"user", watch, text_of(RFC_VERIFIER)))
    assert login.receive(ord("R"), b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0").startswith(b"p")
    with pytest.raises(CannotLogIn):
        login.receive(ord("R"), b"\0\0\0\x05salt")
    with pytest.raises(CannotLogIn):
        login.receive(ord("R"), b"\0\0\0\x03")


@pytest.mark.parametrize("verifier", [None, "md5" + "0" * 32, text_of(verifier_of("other")), "nonsense"])
def test_credential_needs_the_matching_verifier(verifier: str | None) -> None:
    with pytest.raises(CannotLogIn):
        Credential(b"user", watched(), verifier)


def test_md5_is_answered_from_the_stored_hash() -> None:
    watch = LoginWatch()
    watch.server_message(b"\0\0\0\x05salt", 0)
    watch.client_message(b"md5whatever\0", 0)
    stored = hashlib.md5(b"secret" + b"alice").hexdigest()  # noqa: S324  the protocol's choice
    login = ClientLogin(Credential(b"alice", watch, "md5" + stored))
    answer = login.receive(ord("R"), b"\0\0\0\x05SALT")
    expected = hashlib.md5(stored.encode() + b"SALT").hexdigest()  # noqa: S324
    assert answer == b"p" + (4 + 36).to_bytes(4, "big") + b"md5" + expected.encode() + b"\0"


def test_cleartext_cannot_be_repeated() -> None:
    watch = LoginWatch()
    watch.server_message(b"\0\0\0\x03", 0)
    with pytest.raises(CannotLogIn, match="cannot be repeated"):
        Credential(b"alice", watch, None)


@pytest.mark.parametrize(
    ("client", "options"),
    [
        ({}, b"-c default_transaction_read_only=off"),
        ({b"options": b"-c x=1"}, b"-c default_transaction_read_only=off -c x=1"),
        ({b"default_transaction_read_only": b"on"}, None),
    ],
)
def test_dialled_connections_may_write_unless_the_client_said_otherwise(
    client: dict[bytes, bytes], options: bytes | None
) -> None:
    parameters = dial_parameters({b"user": b"alice", b"_pq_.x": b"1", **client})
    assert parameters.get(b"options") == options
    assert b"_pq_.x" not in parameters
