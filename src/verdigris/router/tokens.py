"""Whether a token lets its bearer in: asked for of whoever a server has let in without asking them anything.

What is given here are signing keys for a few days and one service, and what each access key may connect to: no secret
that would be good for anything else. They stay in this process's memory, and go over to its successor.
"""

from datetime import UTC, datetime

from msgspec import Struct

from verdigris.aws import auth_token
from verdigris.aws.auth_token import Login, TokenRefused
from verdigris.domain.ports import Route, TokenKey, TokenKeys


class Verifier:
    """With the keys that there are at the moment."""

    def __init__(self) -> None:
        self.given: TokenKeys | None = None

    def check(self, token: bytes, user: bytes, route: Route) -> str:
        """The id of the access key that signed it. Raises ``TokenRefused``."""
        given = self.given
        if not route.token_logins:
            raise TokenRefused("the endpoint takes no tokens")
        if given is None:
            raise TokenRefused("the control plane has given no keys yet")
        keys = {key.access_key_id: key for key in given.keys}
        login = Login(endpoint=f"{route.host}:{route.port}", user=user, region=given.region)
        signer = auth_token.verify(token, login, _Days(keys), now=datetime.now(UTC))
        resource = f"arn:aws:rds-db:{given.region}:{given.account_id}:dbuser:{route.backend.resource_id}/"
        try:
            resource += user.decode()
        except UnicodeDecodeError:
            raise TokenRefused("the user's name is not UTF-8, and no rule can name it") from None
        if not any(rule.allows(auth_token.ACTION, resource) for rule in keys[signer].rules):
            raise TokenRefused(f"{signer} is not allowed {auth_token.ACTION} on {resource}")
        return signer


class _Days(Struct, frozen=True):
    keys: dict[str, TokenKey]

    def __call__(self, access_key_id: str, day: str) -> bytes | None:
        key = self.keys.get(access_key_id)
        return None if key is None else key.days.get(day)
