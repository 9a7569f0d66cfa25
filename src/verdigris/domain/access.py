"""Who may call which operation on what: IAM's allowing statements, and nothing else of IAM."""

import re
from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct


class Rule(Struct, frozen=True, kw_only=True):
    """Allows each of ``actions`` (``rds:Describe*``) on each of ``resources`` (ARNs). ``*`` stands for any characters,
    ``?`` for one. Actions are the same in any case, as in IAM."""

    actions: tuple[str, ...]
    resources: tuple[str, ...] = ("*",)

    def allows(self, action: str, resource: str) -> bool:
        return any(matches(pattern.lower(), action.lower()) for pattern in self.actions) and any(
            matches(pattern, resource) for pattern in self.resources
        )


class AccessKey(Struct, frozen=True, kw_only=True):
    """``user``: whom a refusal names. The root key is allowed everything; any other one what its rules allow."""

    access_key_id: str
    secret_access_key: str
    user: str = ""
    is_root: bool = False
    rules: tuple[Rule, ...] = ()

    def allows(self, action: str, resource: str) -> bool:
        return self.is_root or any(rule.allows(action, resource) for rule in self.rules)

    def __repr__(self) -> str:
        """Without the secret: this is what logs and tracebacks show."""
        return f"AccessKey({self.access_key_id}, {'root' if self.is_root else self.user})"


def matches(pattern: str, text: str) -> bool:
    return _compiled(pattern).fullmatch(text) is not None


def matches_any(pattern: str, texts: Iterable[str]) -> bool:
    return any(matches(pattern.lower(), text.lower()) for text in texts)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    wild = {"*": ".*", "?": "."}
    pieces = re.split(r"(\*+|\?)", pattern)
    return re.compile("".join(wild.get(piece[:1]) or re.escape(piece) for piece in pieces), re.DOTALL)
