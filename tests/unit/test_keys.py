"""The file of access keys, and the commands that write it."""

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from verdigris.aws.sigv4 import signing_key
from verdigris.cli import app
from verdigris.config import ConfigurationError, Credentials
from verdigris.domain.access import AccessKey, Rule
from verdigris.domain.errors import VerdigrisError
from verdigris.keys import KeyRing, allow, create_key, delete_key, read_keys

ROOT = Credentials(access_key_id="VDKAROOT", secret_access_key="root-secret")
READING = Rule(actions=("rds:Describe*",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


class TestFile:
    def test_what_is_changed_holds_for_the_next_request(self, path: Path) -> None:
        ring = KeyRing(ROOT, path)
        assert ring.find("VDKANOBODY") is None
        ann = create_key(path, "ann", READING)
        assert ring.find(ann.access_key_id) == ann
        ben = create_key(path, "ben", READING)
        rebooting = Rule(actions=("rds:RebootDBInstance",), resources=("arn:aws:rds:*:*:db:dev-*",))
        allow(path, ben.access_key_id, rebooting)
        found = ring.find(ben.access_key_id)
        assert found is not None
        assert found.rules == (READING, rebooting)
        delete_key(path, ann.access_key_id)
        assert ring.find(ann.access_key_id) is None
        assert [key.user for key in read_keys(path)] == ["ben"]

    def test_nobody_else_may_read_it(self, path: Path) -> None:
        before = os.umask(0)
        try:
            create_key(path, "ann", READING)
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_one_that_others_can_read_holds_no_keys_until_it_is_mended(self, path: Path) -> None:
        ann = create_key(path, "ann", READING)
        path.chmod(0o640)
        ring = KeyRing(ROOT, path)
        assert ring.find(ann.access_key_id) is None
        with pytest.raises(ConfigurationError, match="0640"):
            read_keys(path)
        path.chmod(0o600)
        assert ring.find(ann.access_key_id) == ann

    def test_a_damaged_one_leaves_the_root_key(self, path: Path) -> None:
        path.touch(mode=0o600)
        path.write_text('[{"access_key_id": "VDKA", "secret_access_key": 7}]')
        ring = KeyRing(ROOT, path)
        assert ring.find("VDKA") is None
        root = ring.find("VDKAROOT")
        assert root is not None
        assert root.allows("rds:DeleteDBInstance", "arn:aws:rds:us-east-1:000000000000:db:app")
        with pytest.raises(ConfigurationError, match="damaged"):
            create_key(path, "ann", READING)

    def test_no_key_of_the_file_is_the_root_key(self, path: Path) -> None:
        path.touch(mode=0o600)
        path.write_text('[{"access_key_id": "VDKA", "secret_access_key": "s", "user": "eve", "is_root": true}]')
        assert read_keys(path) == [AccessKey(access_key_id="VDKA", secret_access_key="s", user="eve")]

    @pytest.mark.parametrize(
        ("user", "rule", "part"),
        [
            ("", READING, "name for a user"),
            ("a/b", READING, "name for a user"),
            ("ann", Rule(actions=("rds:DescribeDBInstance",)), "no action of RDS"),
            ("ann", Rule(actions=("s3:*",)), "no action of RDS"),
            ("ann", Rule(actions=("rds:*",), resources=("app",)), "no resource"),
        ],
    )
    def test_a_rule_that_allows_nothing_is_a_slip(self, path: Path, user: str, rule: Rule, part: str) -> None:
        with pytest.raises(VerdigrisError, match=part):
            create_key(path, user, rule)
        assert not path.exists()


class TestCommands:
    @pytest.fixture
    def path(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="vg-keys-", dir="/tmp") as home:  # socket paths are short
            monkeypatch.setenv("VERDIGRIS_HOME", home)
            monkeypatch.setenv("COLUMNS", "200")
            yield Path(home) / "keys.json"

    def run(self, *arguments: str) -> Sequence[str]:
        result = CliRunner().invoke(app, ["keys", *arguments])
        assert result.exception is None, result.output
        return result.stdout.split()

    def test_the_secret_is_shown_once(self, path: Path) -> None:
        shown = self.run("create", "ann", "--action", "rds:Describe*", "--action", "rds:RebootDBInstance")
        (key,) = read_keys(path)
        assert shown == ["AWS_ACCESS_KEY_ID", key.access_key_id, "AWS_SECRET_ACCESS_KEY", key.secret_access_key]
        self.run("allow", key.access_key_id, "--action", "rds:StopDBInstance", "--resource", "arn:aws:rds:*:*:db:dev-*")
        listed = self.run("list")
        assert {key.access_key_id, "ann", "rds:StopDBInstance", "arn:aws:rds:*:*:db:dev-*"} <= set(listed)
        assert key.secret_access_key not in listed
        self.run("delete", key.access_key_id)
        assert read_keys(path) == []

    @pytest.mark.usefixtures("path")
    def test_a_key_that_is_not_there(self) -> None:
        result = CliRunner().invoke(app, ["keys", "delete", "VDKANOBODY"])
        assert str(result.exception) == "there is no access key VDKANOBODY"


class TestTokenKeys:
    """What a router gets: enough to verify tokens, and nothing that leads back to a secret."""

    TODAY = date(2026, 3, 1)

    def test_whose_and_for_how_long(self, path: Path) -> None:
        reader = create_key(path, "ann", Rule(actions=("rds:Describe*",)))
        anybody = create_key(
            path, "bob", Rule(actions=("rds:*", "rds-db:*"), resources=("arn:aws:rds-db:*:*:dbuser:*/x",))
        )
        ring = KeyRing(ROOT, path)
        given = ring.token_keys(region="us-east-1", account_id="1", today=self.TODAY)
        assert [key.access_key_id for key in given.keys] == [ROOT.access_key_id, anybody.access_key_id]
        root, other = given.keys
        assert min(root.days) == "20260228"
        assert max(root.days) == "20260308"
        assert root.rules[0].allows("rds-db:connect", "arn:aws:rds-db:us-east-1:1:dbuser:db-A/x")
        assert other.rules == anybody.rules
        assert other.days["20260301"] == signing_key(anybody.secret_access_key, "20260301", "us-east-1", "rds-db")
        for secret in (reader.secret_access_key, anybody.secret_access_key, ROOT.secret_access_key):
            assert secret.encode() not in msgspec.msgpack.encode(given)

    def test_another_revision_with_other_keys(self, path: Path) -> None:
        ring = KeyRing(ROOT, path)
        before = ring.revision()
        assert ring.revision() == before
        create_key(path, "ann", Rule(actions=("rds-db:connect",)))
        assert ring.revision() != before
