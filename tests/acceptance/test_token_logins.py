"""IAM database authentication: boto3 makes the token, psycopg brings it, a real server has members of ``rds_iam``."""

import os
import signal
from datetime import timedelta
from typing import Any

import boto3
import psycopg
import pytest
from botocore import auth

from tests.acceptance.installation import Installation, wait_until
from verdigris.router.process import RouterProcess

ROLE, ROLE_PASSWORD = "reporter", "a-password-of-its-own"
REFUSED = f'PAM authentication failed for user "{ROLE}"'


def token(
    verdigris: Installation,
    instance: str = "app",
    *,
    user: str = ROLE,
    region: str = "us-east-1",
    key: tuple[str, str] | None = None,
    port: int | None = None,
) -> str:
    return signed(verdigris.instance(instance)["Endpoint"], key or verdigris.access_key, user, region, port)


def signed(
    endpoint: dict[str, Any], key: tuple[str, str], user: str = ROLE, region: str = "us-east-1", port: int | None = None
) -> str:
    client = boto3.client("rds", region_name=region, aws_access_key_id=key[0], aws_secret_access_key=key[1])
    return str(client.generate_db_auth_token(endpoint["Address"], port or endpoint["Port"], user))


def enter(verdigris: Installation, password: str, instance: str = "app", **more: str) -> psycopg.Connection[Any]:
    return verdigris.connect(instance, user=ROLE, password=password, connect_timeout=20, **more)


def is_refused(
    verdigris: Installation, password: str, instance: str = "app", *, why: str = REFUSED, **more: str
) -> None:
    with pytest.raises(psycopg.OperationalError) as refused:
        enter(verdigris, password, instance, **more).close()
    assert why in str(refused.value)
    assert password not in str(refused.value)


def can_enter(verdigris: Installation, password: str) -> bool:
    try:
        enter(verdigris, password).close()
    except psycopg.OperationalError:
        return False
    return True


def give_role(verdigris: Installation, instance: str = "app") -> None:
    """As a script for RDS does."""
    with verdigris.connect(instance) as master:
        master.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE_PASSWORD}'")
        master.execute(f"GRANT rds_iam TO {ROLE}")


def test_who_gets_in(verdigris: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    verdigris.create_instance("app", "17.10", EnableIAMDatabaseAuthentication=True)
    assert verdigris.instance("app")["IAMDatabaseAuthenticationEnabled"]
    give_role(verdigris)
    good = token(verdigris)
    with enter(verdigris, good) as connection:
        assert connection.execute("SELECT session_user, current_user").fetchone() == (ROLE, ROLE)
    is_refused(verdigris, ROLE_PASSWORD)
    is_refused(verdigris, token(verdigris, user="somebody"))
    is_refused(verdigris, token(verdigris, region="eu-west-1"))
    is_refused(verdigris, token(verdigris, port=1))
    is_refused(verdigris, token(verdigris, key=(verdigris.access_key[0], "another secret")))
    is_refused(verdigris, good[:-1] + ("0" if good[-1] != "0" else "1"))
    is_refused(verdigris, "x" * 20_000)
    is_refused(verdigris, good, sslmode="disable", why="no encryption")
    then, endpoint = auth.get_current_datetime() - timedelta(minutes=16), verdigris.instance("app")["Endpoint"]
    with monkeypatch.context() as patched:
        patched.setattr(auth, "get_current_datetime", lambda *_, **__: then)
        late = signed(endpoint, verdigris.access_key)
    assert then.strftime("%Y%m%dT%H%M") in late
    is_refused(verdigris, late)
    # The master user has granted the role, and keeps its password; others have nothing to do with tokens.
    with verdigris.connect("app") as master:
        master.execute("CREATE ROLE plain LOGIN PASSWORD 'plain-password'")
        master.execute("GRANT plain TO master")
    verdigris.connect("app").close()
    verdigris.connect("app", user="plain", password="plain-password").close()

    router = RouterProcess(verdigris.home)
    first = router.pid
    assert verdigris.command("router", "restart").returncode == 0
    assert router.pid != first
    enter(verdigris, good).close()
    os.kill(router.pid or 0, signal.SIGKILL)
    wait_until(lambda: can_enter(verdigris, good), "the router that has been started has keys")

    verdigris.rds.modify_db_instance(DBInstanceIdentifier="app", EnableIAMDatabaseAuthentication=False)
    wait_until(lambda: not verdigris.instance("app")["IAMDatabaseAuthenticationEnabled"], "tokens are off")
    verdigris.await_instance("app")
    enter(verdigris, ROLE_PASSWORD, sslmode="disable").close()
    is_refused(verdigris, token(verdigris), why="password authentication failed")


def test_keys_that_are_allowed_less(verdigris: Installation) -> None:
    verdigris.create_instance("app", "18.6")
    verdigris.rds.modify_db_instance(DBInstanceIdentifier="app", EnableIAMDatabaseAuthentication=True)
    wait_until(lambda: verdigris.instance("app")["IAMDatabaseAuthenticationEnabled"], "tokens are on")
    give_role(verdigris)
    users = f"arn:aws:rds-db:us-east-1:*:dbuser:{verdigris.resource_id('app')}"
    other, own = (make_key(verdigris, f"{users}/{name}") for name in ("somebody", ROLE))
    wait_until(lambda: can_enter(verdigris, token(verdigris, key=own)), "the router has the new keys")
    is_refused(verdigris, token(verdigris, key=other))
    assert verdigris.command("keys", "delete", own[0]).returncode == 0
    wait_until(lambda: not can_enter(verdigris, token(verdigris, key=own)), "the deleted key is gone")
    # While no control plane runs, those that are left go on.
    good = token(verdigris)
    dsn = verdigris.dsn("app", user=ROLE, password=good)
    verdigris.kill()
    psycopg.connect(dsn).close()
    verdigris.start()


def make_key(verdigris: Installation, resource: str) -> tuple[str, str]:
    made = verdigris.command("keys", "create", "dev", "--action", "rds-db:connect", "--resource", resource)
    assert made.returncode == 0, made.stderr
    _, access_key_id, _, secret = made.stdout.split()
    return access_key_id, secret


def test_a_session_goes_through_a_switchover(verdigris: Installation) -> None:
    verdigris.create_instance("app", "17.10", EnableIAMDatabaseAuthentication=True)
    give_role(verdigris)
    with enter(verdigris, token(verdigris)) as session:
        session.execute("SET app.number = 7")
        deployment, green = verdigris.build_green("app", TargetEngineVersion="18.6")
        assert verdigris.instance(green)["IAMDatabaseAuthenticationEnabled"]
        is_refused(verdigris, ROLE_PASSWORD, green)
        enter(verdigris, token(verdigris, green), green).close()
        verdigris.switch_over(deployment)
        shown = session.execute("SELECT current_setting('app.number'), session_user, current_setting('server_version')")
        number, user, version = shown.fetchall()[0]
        assert (number, user, version[:2]) == ("7", ROLE, "18")
    enter(verdigris, token(verdigris)).close()
    is_refused(verdigris, ROLE_PASSWORD)
