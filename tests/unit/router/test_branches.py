"""Routes that lead to other routes, in the table."""

from verdigris.domain.ports import NOWHERE, BackendAddress, Branches, Route
from verdigris.router.routes import Table


def route(name: str, port: int) -> Route:
    return Route(name=name, host="127.0.0.1", port=port, backend=BackendAddress(f"db-{name}", f"/run/{name}"))


def table(*members: str, otherwise: tuple[str, ...] = ()) -> Table:
    branches = Branches(members=members, otherwise=otherwise)
    shop = Route(name="shop", host="127.0.0.1", port=1, backend=NOWHERE, branches=branches)
    return Table(routes=(route("one", 2), route("two", 3), shop))


def branches(of: Table) -> Branches | None:
    shop = of.named("shop")
    assert shop is not None
    return shop.branches


def test_whoever_is_gone_is_no_branch_any_more() -> None:
    after = table("one", "two", otherwise=("one",)).without("one")
    assert branches(after) == Branches(members=("two",))
    assert after.named("one") is None


def test_a_new_name() -> None:
    after = table("one", "two", otherwise=("one",)).renamed("one", "first")
    assert branches(after) == Branches(members=("first", "two"), otherwise=("first",))
    first = after.named("first")
    assert first is not None
    assert first.backend == route("one", 2).backend
    assert after.named("one") is None
    assert after.renamed("shop", "store").named("store") is not None
