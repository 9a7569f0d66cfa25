"""The API over the network: TLS for SDKs and for our own command line, and no plain HTTP by mistake."""

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import trustme
from botocore.exceptions import SSLError

from tests.acceptance.installation import Installation


class TlsInstallation(Installation):
    def __init__(self, home: Path, authority: trustme.CA) -> None:
        super().__init__(home)
        self.bundle = home / "authority.pem"
        authority.cert_pem.write_to_path(self.bundle)
        issued = authority.issue_cert("127.0.0.1")
        certificate, key = home / "api.pem", home / "api.key"
        key.touch(mode=0o600)
        key.write_bytes(issued.private_key_pem.bytes())
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.environment |= {"VERDIGRIS_TLS_CERTIFICATE": str(certificate), "VERDIGRIS_TLS_KEY": str(key)}
        self.rds = self.client(str(self.bundle))

    def client(self, verify: str | None) -> object:
        key_id, secret = self.access_key
        return boto3.client(
            "rds",
            endpoint_url=f"https://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            verify=verify,
        )

    def _is_healthy(self) -> bool:
        context = ssl.create_default_context(cafile=str(self.bundle))
        try:
            with urllib.request.urlopen(f"https://127.0.0.1:{self.port}/healthz", timeout=5, context=context) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


@pytest.fixture
def verdigris(verdigris_home: Path) -> Iterator[TlsInstallation]:
    installation = TlsInstallation(verdigris_home, trustme.CA())
    try:
        installation.start()
        yield installation
    finally:
        installation.remove()


def test_sdk_and_command_line(verdigris: TlsInstallation) -> None:
    assert verdigris.rds.describe_db_instances()["DBInstances"] == []
    with pytest.raises(SSLError):
        verdigris.client(None).describe_db_instances()  # type: ignore[attr-defined]  # boto3 has no types
    cancelled = verdigris.command("deployments", "cancel", "bgd-nobody")
    assert cancelled.stderr.strip() == "verdigris: there is no blue/green deployment bgd-nobody"
    assert f"https://127.0.0.1:{verdigris.port}" in verdigris.command("credentials").stdout
    # Who else should hold that port is not told anything that is signed.
    other = trustme.CA().issue_cert("127.0.0.1")
    certificate = verdigris.home / "api.pem"
    certificate.write_bytes(other.cert_chain_pems[0].bytes())
    assert "CERTIFICATE_VERIFY_FAILED" in verdigris.command("deployments", "cancel", "bgd-nobody").stderr


def test_plain_http_beyond_loopback_is_refused_before_anything_starts(verdigris_home: Path) -> None:
    plain = Installation(verdigris_home)
    refused = plain.command("serve", "--host", "0.0.0.0", "--port", str(plain.port))  # noqa: S104 - what is refused
    assert refused.returncode == 1
    assert "set VERDIGRIS_TLS_CERTIFICATE and VERDIGRIS_TLS_KEY" in refused.stderr
    assert list(verdigris_home.iterdir()) == []
