"""Access keys beside the root key: a file that ``verdigris keys`` writes and the control plane reads."""

import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import msgspec
import structlog
from msgspec import structs

from verdigris.aws import auth_token, sigv4
from verdigris.aws.model import load_service
from verdigris.config import ConfigurationError, Credentials, random_credentials, write_private
from verdigris.domain.access import AccessKey, Rule, matches_any
from verdigris.domain.errors import VerdigrisError
from verdigris.domain.ports import TokenKey, TokenKeys

log = structlog.get_logger(__name__)

# IAM's rule for the names of users.
_USER = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}")
# For as many days after this one tokens log in without a control plane.
TOKEN_DAYS_AHEAD = 7
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class KeyRing:
    """The root key and those of the file, as the file is at the moment: what is changed there holds for the next
    request. One that cannot be read, or that others can read, holds no keys; the log says why."""

    def __init__(self, root: Credentials, path: Path) -> None:
        self._root = AccessKey(
            access_key_id=root.access_key_id, secret_access_key=root.secret_access_key, user="root", is_root=True
        )
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._keys: dict[str, AccessKey] = {}

    def revision(self) -> object:
        """Another one whenever there are other keys."""
        self._read_if_changed()
        return self._seen

    def token_keys(self, *, region: str, account_id: str, today: date) -> TokenKeys:
        """What verifies tokens of yesterday (those from before midnight) to some days ahead: so long they log in while
        no control plane runs. Nothing in it leads back to a secret."""
        self._read_if_changed()
        days = [(today + timedelta(days=day)).strftime("%Y%m%d") for day in range(-1, TOKEN_DAYS_AHEAD + 1)]
        found = ((key, _connecting(key)) for key in (self._root, *self._keys.values()))
        return TokenKeys(
            region=region,
            account_id=account_id,
            keys=tuple(
                TokenKey(
                    access_key_id=key.access_key_id,
                    days={
                        day: sigv4.signing_key(key.secret_access_key, day, region, auth_token.SERVICE) for day in days
                    },
                    rules=rules,
                )
                for key, rules in found
                if rules
            ),
        )

    def find(self, access_key_id: str) -> AccessKey | None:
        if access_key_id == self._root.access_key_id:
            return self._root
        self._read_if_changed()
        return self._keys.get(access_key_id)

    def _read_if_changed(self) -> None:
        try:
            found = self._path.stat()
            now: tuple[int, ...] = (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode)
        except FileNotFoundError:
            now = ()
        if now == self._seen:
            return
        try:
            keys = read_keys(self._path)
        except ConfigurationError as error:
            log.warning("keys.unreadable", reason=str(error))
            keys = []
        self._keys, self._seen = {key.access_key_id: key for key in keys}, now


def _connecting(key: AccessKey) -> tuple[Rule, ...]:
    """Its rules about logging in to databases."""
    if key.is_root:
        return (Rule(actions=(auth_token.ACTION,)),)
    return tuple(rule for rule in key.rules if any(matches_any(action, [auth_token.ACTION]) for action in rule.actions))


def read_keys(path: Path) -> list[AccessKey]:
    """None of them is the root key, whatever the file says."""
    try:
        with path.open("rb") as file:
            mode, content = os.fstat(file.fileno()).st_mode, file.read()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    if mode & _OTHERS:
        raise ConfigurationError(
            f"{path} has mode {stat.S_IMODE(mode):04o}: others could read the keys. Set it to 0600"
        )
    try:
        keys = msgspec.json.decode(content, type=list[AccessKey])
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{path} is damaged: {error}") from None
    return [structs.replace(key, is_root=False) for key in keys]


def create_key(path: Path, user: str, rule: Rule) -> AccessKey:
    """A user may have several, so that one can take the place of another."""
    if not _USER.fullmatch(user):
        raise VerdigrisError(f"{user!r} is no name for a user: 1 to 64 letters, digits and _+=,.@-")
    _check(rule)
    made = random_credentials()
    key = AccessKey(
        access_key_id=made.access_key_id, secret_access_key=made.secret_access_key, user=user, rules=(rule,)
    )
    with _changing(path) as keys:
        keys.append(key)
    return key


def allow(path: Path, access_key_id: str, rule: Rule) -> None:
    """Something more."""
    _check(rule)
    with _changing(path) as keys:
        place = _place(keys, access_key_id)
        keys[place] = structs.replace(keys[place], rules=(*keys[place].rules, rule))


def delete_key(path: Path, access_key_id: str) -> None:
    with _changing(path) as keys:
        del keys[_place(keys, access_key_id)]


def _place(keys: Sequence[AccessKey], access_key_id: str) -> int:
    for place, key in enumerate(keys):
        if key.access_key_id == access_key_id:
            return place
    raise VerdigrisError(f"there is no access key {access_key_id}")


@contextmanager
def _changing(path: Path) -> Iterator[list[AccessKey]]:
    """One command at a time; the file is written if the block ends well."""
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = read_keys(path)
        yield keys
        write_private(path, msgspec.json.encode(keys))


def _check(rule: Rule) -> None:
    """A rule that could never allow anything is a slip."""
    known = [*(f"rds:{name}" for name in load_service("rds").operation_names), auth_token.ACTION]
    for action in rule.actions:
        if not matches_any(action, known):
            raise VerdigrisError(f"{action!r} is no action of RDS, such as rds:DescribeDBInstances or rds:Describe*")
    for resource in rule.resources:
        if not (resource == "*" or resource.startswith("arn:")):
            raise VerdigrisError(f"{resource!r} is no resource: give an ARN, such as arn:aws:rds:*:*:db:dev-*, or *")
