"""Which reader of a cluster becomes its writer."""

from collections.abc import Iterable

from msgspec import Struct


class Candidate(Struct, frozen=True, kw_only=True):
    """``lag_bytes``: what it has not replayed; None: it does not follow, and never becomes the writer by itself."""

    resource_id: str
    identifier: str
    tier: int  # PromotionTier, the lowest first
    lag_bytes: int | None


def choose(readers: Iterable[Candidate]) -> Candidate | None:
    """Of equal tiers the one that is least behind, for it is the first to be there. None: nobody can."""
    following = [(each.tier, each.lag_bytes, each.identifier, each) for each in readers if each.lag_bytes is not None]
    return min(following, key=lambda entry: entry[:3])[-1] if following else None
