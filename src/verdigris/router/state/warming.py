"""Plans for what a session has prepared, made on the target before anybody waits for them.

A new server process reads the catalogues for the first statement that it plans, loads the languages of functions, and
so on: several times what the statement itself takes, for every session, at the moment when all of them want to go on.
So it plans beforehand what it is likely to be asked. Nothing is executed, and nothing comes of it if that fails.
"""

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

from verdigris.router.state.pieces import quoted_identifier, statement_batch
from verdigris.router.state.prepared import Prepared
from verdigris.router.state.private import RUN
from verdigris.wire.postgres import messages

if TYPE_CHECKING:
    from verdigris.router.dial import Dialled

# A session that has prepared more has all its catalogues after so many.
MOST: Final = 32

# For this transaction, which ends with the Sync. A plan for any value of the parameters: a NULL could be decided
# without a look at the tables. Nobody waits here for whoever has locked them.
_SETTINGS: Final = statement_batch(
    b"SELECT pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', true),"
    b" pg_catalog.set_config('lock_timeout', '50ms', true)"
)
# What fails is passed over up to its Sync, and would leave the router's own statement behind.
_END: Final = messages.SYNC + messages.close_statement(RUN)


async def warm_plans(dialled: "Dialled", prepared: Mapping[bytes, Prepared]) -> None:
    """Raises ``ProtocolError`` or ``ConnectionError`` when the target stops answering."""
    explained = [_explain(name, len(one.parameter_types)) for name, one in islice(prepared.items(), MOST)]
    if explained:
        batches = (_SETTINGS + statement_batch(statement) + _END for statement in explained)
        await dialled.ask(b"".join(batches) + messages.SYNC, len(explained) + 1)


def _explain(name: bytes, parameters: int) -> bytes:
    arguments = b"(%s)" % b", ".join([b"NULL"] * parameters) if parameters else b""
    return b"EXPLAIN (COSTS OFF) EXECUTE %s%s" % (quoted_identifier(name), arguments)
