import base64

import pytest
from scramp import ScramClient, ScramMechanism

from verdigris.engines.postgres.password import ITERATIONS, scram_verifier


def parts(verifier: str) -> tuple[bytes, bytes, bytes, int]:
    """(salt, StoredKey, ServerKey, iterations) of the stored form."""
    mechanism, iterations_and_salt, keys = verifier.split("$")
    assert mechanism == "SCRAM-SHA-256"
    iterations, salt = iterations_and_salt.split(":")
    stored_key, server_key = keys.split(":")
    return base64.b64decode(salt), base64.b64decode(stored_key), base64.b64decode(server_key), int(iterations)


def log_in(verifier: str, password: str) -> None:
    """A whole exchange: scramp plays both ends, its server knowing only our verifier. Raises if either refuses."""
    server = ScramMechanism("SCRAM-SHA-256").make_server(lambda _: parts(verifier))
    client = ScramClient(["SCRAM-SHA-256"], "anyone", password)
    server.set_client_first(client.get_client_first())
    client.set_server_first(server.get_server_first())
    server.set_client_final(client.get_client_final())
    client.set_server_final(server.get_server_final())


@pytest.mark.parametrize(
    "password",
    ["secret", "with $ and : and '", "Ümläut", "ﬁne ①", "soft\u00adhyphen", "no\u00a0break", "密码", "אבג", " edge "],
)
def test_login_with_an_independent_implementation(password: str) -> None:
    log_in(scram_verifier(password), password)


def test_wrong_password_is_refused() -> None:
    with pytest.raises(Exception, match="invalid-proof"):
        log_in(scram_verifier("right"), "wrong")


def test_salts_differ_and_iterations_are_postgres_default() -> None:
    first, second = scram_verifier("same"), scram_verifier("same")
    assert first != second
    assert len(parts(first)[0]) == 16
    assert parts(first)[3] == ITERATIONS == 4096


@pytest.mark.parametrize(("one", "other"), [("a\u00adb", "ab"), ("ﬁ", "fi"), ("a\u00a0b", "a b"), ("ａ", "a")])
def test_equal_after_preparation(one: str, other: str) -> None:
    salt = b"0123456789abcdef"
    assert scram_verifier(one, salt=salt) == scram_verifier(other, salt=salt)
