"""Settings, read once at start from the environment, and the access key of the API."""

import os
import re
import secrets
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import msgspec
import platformdirs
from msgspec import Struct

from verdigris.domain.errors import VerdigrisError
from verdigris.domain.policy import PinnedSessions, Stragglers, SwitchoverPolicy
from verdigris.domain.quotas import DEFAULTS, Quota
from verdigris.router.limits import Limits
from verdigris.webhooks import check_url

# 107 bytes hold a unix socket's path on Linux; the longest of ours is run/<resource id, 29>/.s.PGSQL.5432.
_LONGEST_SOCKET_SUFFIX = len("/run/") + 29 + len("/.s.PGSQL.5432")
HOME_MAX_BYTES = 107 - _LONGEST_SOCKET_SUFFIX
# TCP_KEEPIDLE takes no more.
_MOST = 32767


# A pause budget of less would give no request the time to end. More than the shortest SwitchoverTimeout would be no
# limit at all.
_PAUSE_BUDGET_MIN_MS = 10
_PAUSE_BUDGET_MAX_MS = 30_000

# pg_basebackup --max-rate takes no more.
_COPY_RATE_MAX_MIB = 1024

# As for SNS.
_TOPIC_NAME = re.compile(r"[A-Za-z0-9_-]{1,256}")

Choice = TypeVar("Choice", bound=StrEnum)


class ConfigurationError(VerdigrisError):
    """A setting is wrong; the text names it."""


class TlsFiles(Struct, frozen=True, kw_only=True):
    """In PEM; the certificate is followed by those of the authorities between it and its root."""

    certificate: Path
    key: Path


class Settings(Struct, frozen=True, kw_only=True):
    """``port_range``: first and last port given to endpoints that ask for none. ``copy_rate_mib``: what making a green
    may read of blue in a second; None: as much as it can. ``topics``: their webhooks, by name."""

    home: Path
    region: str = "us-east-1"
    account_id: str = "000000000000"
    endpoint_host: str = "127.0.0.1"
    reader_host: str | None = "127.0.0.2"
    custom_hosts: tuple[str, ...] = ()
    port_range: tuple[int, int] = (15400, 16399)
    engine_account: str | None = None
    engine_cache: Path | None = None
    engine_directory: Path | None = None
    copy_rate_mib: int | None = None
    switchover: SwitchoverPolicy = SwitchoverPolicy()
    limits: Limits = Limits()
    tls: TlsFiles | None = None
    topics: Mapping[str, str] = {}
    quotas: Mapping[Quota, int] = msgspec.field(default_factory=lambda: DEFAULTS)

    @property
    def credentials_path(self) -> Path:
        return self.home / "credentials.json"

    @property
    def keys_path(self) -> Path:
        return self.home / "keys.json"

    @property
    def log_directory(self) -> Path:
        return self.home / "log"


class Credentials(Struct, frozen=True, kw_only=True):
    """The root key."""

    access_key_id: str
    secret_access_key: str


def default_home() -> Path:
    """As root the state lies outside root's home directory, which an engine's own account could not enter."""
    if os.geteuid() == 0:
        return Path("/var/lib/verdigris")
    return Path(platformdirs.user_data_dir("verdigris"))


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Raises ``ConfigurationError`` naming the variable that is wrong."""
    home = Path(environment.get("VERDIGRIS_HOME") or default_home()).absolute()
    if len(os.fsencode(home)) > HOME_MAX_BYTES:
        raise ConfigurationError(
            f"VERDIGRIS_HOME={home} is longer than {HOME_MAX_BYTES} bytes: the paths of unix sockets in it would not"
            " fit. Choose a shorter one."
        )
    account_id = environment.get("VERDIGRIS_ACCOUNT_ID") or "000000000000"
    if not (len(account_id) == 12 and account_id.isascii() and account_id.isdigit()):
        raise ConfigurationError(f"VERDIGRIS_ACCOUNT_ID={account_id!r} is not twelve digits")
    endpoint_host = environment.get("VERDIGRIS_ENDPOINT_HOST") or "127.0.0.1"
    reader_host = _reader_host(environment.get("VERDIGRIS_READER_HOST"), endpoint_host)
    return Settings(
        home=home,
        region=environment.get("VERDIGRIS_REGION") or "us-east-1",
        account_id=account_id,
        endpoint_host=endpoint_host,
        reader_host=reader_host,
        custom_hosts=_custom_hosts(environment.get("VERDIGRIS_CUSTOM_HOSTS", ""), endpoint_host, reader_host),
        port_range=_port_range(environment.get("VERDIGRIS_PORT_RANGE") or "15400-16399"),
        engine_account=environment.get("VERDIGRIS_ENGINE_ACCOUNT") or None,
        engine_cache=_optional_path(environment.get("VERDIGRIS_ENGINE_CACHE")),
        engine_directory=_optional_path(environment.get("VERDIGRIS_ENGINE_DIRECTORY")),
        copy_rate_mib=_copy_rate(environment.get("VERDIGRIS_COPY_RATE")),
        switchover=_switchover_policy(environment),
        limits=_limits(environment),
        tls=_tls(environment),
        topics=_topics(environment),
        quotas=_quotas(environment.get("VERDIGRIS_QUOTAS", "")),
    )


def _reader_host(text: str | None, endpoint_host: str) -> str | None:
    """The loopback interface has all of 127.0.0.0/8; of another one only its owner knows a second address."""
    if not text:
        return "127.0.0.2" if endpoint_host in ("127.0.0.1", "localhost") else None
    if endpoint_host in (text, "0.0.0.0", "::"):  # noqa: S104 (not to listen there, but because somebody does)
        raise ConfigurationError(
            f"VERDIGRIS_READER_HOST={text!r} is an address of VERDIGRIS_ENDPOINT_HOST={endpoint_host!r}, too:"
            " reader endpoints need one of their own"
        )
    return text


def _custom_hosts(text: str, endpoint_host: str, reader_host: str | None) -> tuple[str, ...]:
    """As many as a cluster may have custom endpoints by default, where loopback addresses can be had for nothing."""
    if not text.strip():
        beside = endpoint_host in ("127.0.0.1", "localhost")
        return tuple(f"127.0.0.{number}" for number in range(3, 8)) if beside else ()
    hosts = tuple(dict.fromkeys(text.split()))
    if endpoint_host in ("0.0.0.0", "::") or {endpoint_host, reader_host} & set(hosts):  # noqa: S104 (likewise)
        raise ConfigurationError(
            f"VERDIGRIS_CUSTOM_HOSTS={text!r} has an address of other endpoints (VERDIGRIS_ENDPOINT_HOST, "
            "VERDIGRIS_READER_HOST): each custom endpoint needs one of its own"
        )
    return hosts


def _tls(environment: Mapping[str, str]) -> TlsFiles | None:
    certificate = _optional_path(environment.get("VERDIGRIS_TLS_CERTIFICATE"))
    key = _optional_path(environment.get("VERDIGRIS_TLS_KEY"))
    if certificate is not None and key is not None:
        return TlsFiles(certificate=certificate, key=key)
    if certificate is not None or key is not None:
        raise ConfigurationError("set both VERDIGRIS_TLS_CERTIFICATE and VERDIGRIS_TLS_KEY, or neither")
    return None


def _topics(environment: Mapping[str, str]) -> Mapping[str, str]:
    """An error does not show the URL: whoever knows it can write there."""
    topics = {}
    for entry in environment.get("VERDIGRIS_TOPICS", "").split():
        name, separator, url = entry.partition("=")
        if not separator or not _TOPIC_NAME.fullmatch(name) or name in topics:
            raise ConfigurationError("VERDIGRIS_TOPICS is not a list of distinct NAME=URL, with spaces between them")
        wrong = check_url(url, insecure=environment.get("VERDIGRIS_INSECURE_TOPICS") == "1")
        if wrong is not None:
            raise ConfigurationError(f"VERDIGRIS_TOPICS: the URL of {name} cannot be used: {wrong}")
        topics[name] = url
    return topics


def _quotas(text: str) -> Mapping[Quota, int]:
    quotas = dict(DEFAULTS)
    for entry in text.split():
        name, _, value = entry.partition("=")
        if name not in DEFAULTS or not (value.isascii() and value.isdigit() and len(value) < 10):
            raise ConfigurationError(
                f"VERDIGRIS_QUOTAS: {entry!r} is not NAME=NUMBER, with one of the names {', '.join(DEFAULTS)}"
            )
        quotas[Quota(name)] = int(value)
    return quotas


def _switchover_policy(environment: Mapping[str, str]) -> SwitchoverPolicy:
    return SwitchoverPolicy(
        pinned_sessions=_choice(environment, "VERDIGRIS_PINNED_SESSIONS", PinnedSessions.CLOSE),
        stragglers=_choice(environment, "VERDIGRIS_STRAGGLERS", Stragglers.FAIL),
        pause_budget_s=_pause_budget_ms(environment.get("VERDIGRIS_PAUSE_BUDGET_MS") or "1000") / 1000,
    )


def _choice(environment: Mapping[str, str], name: str, default: Choice) -> Choice:
    text = environment.get(name)
    if not text:
        return default
    try:
        return type(default)(text)
    except ValueError:
        raise ConfigurationError(f"{name}={text!r} is none of {', '.join(type(default))}") from None


def _pause_budget_ms(text: str) -> int:
    if not (text.isascii() and text.isdigit() and _PAUSE_BUDGET_MIN_MS <= int(text) <= _PAUSE_BUDGET_MAX_MS):
        raise ConfigurationError(
            f"VERDIGRIS_PAUSE_BUDGET_MS={text!r} is not a number of milliseconds from {_PAUSE_BUDGET_MIN_MS} to"
            f" {_PAUSE_BUDGET_MAX_MS}"
        )
    return int(text)


def _copy_rate(text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _COPY_RATE_MAX_MIB):
        raise ConfigurationError(f"VERDIGRIS_COPY_RATE={text!r} is not a number of MiB from 1 to {_COPY_RATE_MAX_MIB}")
    return int(text)


def _limits(environment: Mapping[str, str]) -> Limits:
    default = Limits()
    return Limits(
        max_connections=_positive(environment, "VERDIGRIS_MAX_CONNECTIONS", default.max_connections),
        max_wait_s=_positive(environment, "VERDIGRIS_MAX_WAIT", int(default.max_wait_s)),
        drain_s=_positive(environment, "VERDIGRIS_DRAIN", int(default.drain_s)),
        keepalive_s=_positive(environment, "VERDIGRIS_KEEPALIVE", default.keepalive_s),
    )


def _positive(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _MOST):
        raise ConfigurationError(f"{name}={text!r} is not a number from 1 to {_MOST}")
    return int(text)


def _optional_path(text: str | None) -> Path | None:
    return Path(text).absolute() if text else None


def _port_range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not (dash and first.isdigit() and last.isdigit() and 1024 <= int(first) <= int(last) <= 65535):
        raise ConfigurationError(f"VERDIGRIS_PORT_RANGE={text!r} is not FIRST-LAST within 1024-65535")
    return int(first), int(last)


def prepare_home(settings: Settings) -> None:
    """Make the state directory. Others may pass through it to what is theirs (as root: the engine account), but not
    list it; everything secret in it has a mode of its own."""
    settings.home.mkdir(mode=0o711, parents=True, exist_ok=True)
    settings.home.chmod(0o711 if os.geteuid() == 0 else 0o700)
    settings.log_directory.mkdir(mode=0o700, exist_ok=True)


def find_credentials(settings: Settings, environment: Mapping[str, str] = os.environ) -> Credentials | None:
    """The key from the environment if both variables are set, else the one of the state directory, else none."""
    key_id, secret = environment.get("VERDIGRIS_ACCESS_KEY_ID"), environment.get("VERDIGRIS_SECRET_ACCESS_KEY")
    if key_id and secret:
        return Credentials(access_key_id=key_id, secret_access_key=secret)
    if key_id or secret:
        raise ConfigurationError("set both VERDIGRIS_ACCESS_KEY_ID and VERDIGRIS_SECRET_ACCESS_KEY, or neither")
    try:
        return msgspec.json.decode(settings.credentials_path.read_bytes(), type=Credentials)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{settings.credentials_path} is damaged: {error}") from None


def make_credentials(settings: Settings) -> Credentials:
    """A new random key in ``credentials.json``."""
    credentials = random_credentials()
    write_private(settings.credentials_path, msgspec.json.encode(credentials))
    return credentials


def random_credentials() -> Credentials:
    return Credentials(
        access_key_id="VDKA" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16)),
        secret_access_key=secrets.token_urlsafe(30),
    )


def write_private(path: Path, content: bytes) -> None:
    """All of it or nothing, and mode 0600 from the first byte on."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
