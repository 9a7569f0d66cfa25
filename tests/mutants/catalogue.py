"""Faults planted into the product, one at a time, and the tests that have to notice each.

A mutant is an exact replacement of text: when the text is no longer there the mutant has to be looked at again, and the
command fails loudly rather than test nothing.
"""

from msgspec import Struct

# Suites, as pytest's node ids. Most mutants need no real server.
SIMULATION = "tests/simulation/test_every_fault.py"
LOGICAL = f"{SIMULATION}::test_every_single_fault[switchover, logical]"
PHYSICAL = f"{SIMULATION}::test_every_single_fault[switchover, physical]"
UNDISTURBED = f"{SIMULATION}::test_undisturbed[switchover, logical]"
CREATION = f"{SIMULATION}::test_every_single_fault[creation, logical]"
DELETION = f"{SIMULATION}::test_undisturbed[deletion during creation, 0.2 s]"
CLEANING = "tests/integration/replication/test_cleaning.py"
STORE = "tests/unit/store/test_store.py"
CLUSTER_DEPLOYMENTS = "tests/unit/workflows/test_cluster_deployments.py"
BACKUPS = "tests/unit/rds/test_automated_backups.py"
TRACKER = "tests/wire/test_session.py"
UPGRADE = "tests/integration/replication/test_logical.py::test_major_upgrade_under_load_loses_nothing"
OVERTAKEN = "tests/integration/replication/test_overtaken.py"
PARK = "tests/integration/router/test_park.py"
CONTROL = "tests/integration/router/test_control.py"
DEMOTION = "tests/integration/replication/test_demotion.py"
FENCE_TRIES = "tests/integration/replication/test_fence_tries.py"
WORKERS = "tests/integration/replication/test_background_workers.py"

PLANNER = "domain/switchover.py"
CARRYING = "tests/integration/replication/test_carrying"
EXECUTOR = "workflows/switch_over.py"
STEPS = "workflows/switchover_steps.py"
KNOWN = "workflows/switchover_known.py"
RECORDS = "workflows/switchover_records.py"
SAGA = "workflows/saga.py"


class Mutant(Struct, frozen=True, kw_only=True):
    """``old`` stands in ``file`` (below ``src/verdigris``) exactly once. ``slow``: its suites need real servers."""

    name: str
    file: str
    old: str
    new: str
    suites: tuple[str, ...]
    slow: bool = False


_COMMITTING = (
    "        generation = self._known.require_park().generation\n"
    "        try:\n            await self._services.router.commit("
)
_COMPLETED = "tx.put_workflow(structs.replace(self._workflow, status=WorkflowStatus.COMPLETED))"


def _planner(name: str, old: str, new: str, *suites: str) -> Mutant:
    return Mutant(name=name, file=PLANNER, old=old, new=new, suites=suites)


def _step(name: str, old: str, new: str, *suites: str) -> Mutant:
    return Mutant(name=name, file=STEPS, old=old, new=new, suites=suites)


MUTANTS: tuple[Mutant, ...] = (
    # -- the order of a switchover
    _planner("blue is not fenced", "    if not facts.fence_complete:", "    if False:", UNDISTURBED),
    _planner("committed before green has caught up", "    elif not facts.caught_up:", "    elif False:", UNDISTURBED),
    _planner(
        "marker written before the fence is complete",
        "    elif not facts.caught_up:",
        "    if not facts.caught_up:",
        LOGICAL,
    ),
    _planner(
        "green opened to newcomers before blue's sessions are released",
        "    if not facts.target_open and (facts.released or not facts.released_first):",
        "    if not facts.target_open and facts.released:",
        f"{SIMULATION}::test_undisturbed[switchover, physical]",
    ),
    _planner(
        "the park ends while blue is fenced",
        "    if facts.fenced:\n        return Step.UNFENCE_SOURCE\n    if facts.park is not Park.NONE:",
        "    if facts.fenced and facts.park is Park.NONE:\n"
        "        return Step.UNFENCE_SOURCE\n    if facts.park is not Park.NONE:",
        LOGICAL,
    ),
    _planner("what was dialled is left", "    if facts.dialled:", "    if False:", LOGICAL),
    _planner("old blue is not retired", "    if not facts.source_retired:", "    if False:", UNDISTURBED),
    _planner("names are not exchanged", "    if not facts.renamed:", "    if False:", UNDISTURBED),
    _planner(
        "an attempt goes on although the lease was lost",
        "facts.setback is not None or facts.park is Park.BROKEN",
        "facts.setback is not None",
        "tests/unit/domain/test_switchover_plan.py::test_a_broken_park_leads_back_by_itself",
    ),
    # -- what the executor makes of it
    _step(
        "green opened before the commit",
        _COMMITTING,
        "        generation = self._known.require_park().generation\n"
        "        await self._services.switchover.open_target(self._known.pair)\n"
        "        try:\n            await self._services.router.commit(",
        LOGICAL,
    ),
    _step(
        "slots dropped before the commit",
        "        await self._services.switchover.catch_up(self._known.pair)\n",
        "        await self._services.switchover.catch_up(self._known.pair)\n"
        "        await self._services.switchover.retire_source(self._known.pair)\n",
        LOGICAL,
    ),
    _step(
        "names exchanged before the route",
        _COMMITTING,
        "        generation = self._known.require_park().generation\n"
        "        routes = await self._services.router.routes()\n"
        "        left = {source.resource_id for source, _ in self._known.moving}\n"
        "        olds = [r for r in routes if r.backend.resource_id in left]\n"
        "        self._known.records.rename([structs.replace(r, name=r.name + '-old1', port=1) for r in olds])\n"
        "        try:\n            await self._services.router.commit(",
        LOGICAL,
    ),
    _step(
        "a commit that was not heard of counts as none",
        "            await self._settled()\n",
        "            pass\n",
        LOGICAL,
    ),
    Mutant(
        name="a deadline that nobody keeps",
        file=KNOWN,
        old="self.deadline = asyncio.get_running_loop().time() + max(remaining_s, 0.0)",
        new="self.deadline = asyncio.get_running_loop().time() + 3600.0",
        suites=(f"{SIMULATION}::test_undisturbed[switchover, stragglers to the end]",),
    ),
    Mutant(
        name="a deadline measured by a dead process",
        file=KNOWN,
        old="            remaining_s = (self._workflow.deadline_at - self._services.clock.now()).total_seconds()\n",
        new='            remaining_s = float("inf")\n',
        suites=("tests/unit/workflows/test_switch_over.py",),
    ),
    Mutant(
        name="a lease that outlives the deadline",
        file="workflows/lease.py",
        old="return min(self._length_s, max(left_s + _BEYOND_S, 0.0))",
        new="return self._length_s + 10 + 0 * left_s",
        suites=(f"{SIMULATION}::test_every_single_fault[switchover, replication stalled]",),
    ),
    _step(
        "a fence that was half built is forgotten",
        "        # Known before it is true: what was half done has to be undone as well.\n"
        "        self._known.learn(fenced=True)\n",
        "",
        LOGICAL,
    ),
    Mutant(
        name="a fence is not looked for after a restart",
        file=EXECUTOR,
        old="fenced=route is Side.SOURCE and await",
        new="fenced=False and await",
        suites=(LOGICAL,),
    ),
    _step(
        "newcomers are not let in again",
        "        await self._services.router.admit(self._known.name)\n        self._known.learn(fenced=False",
        "        self._known.learn(fenced=False",
        f"{SIMULATION}::test_undisturbed[switchover, set back by stragglers]",
    ),
    Mutant(
        name="sessions kept for the pause are never closed",
        file=EXECUTOR,
        old="                await self._services.switchover.stand_down(self._known.pair)\n",
        new="                pass\n",
        suites=(UNDISTURBED,),
    ),
    Mutant(
        name="the loop is kept busy until both steps are done",
        file="workflows/joint.py",
        old="asyncio.wait(pending | self._lease, return_when",
        new="asyncio.wait({*pending, *self._tasks.values(), *self._lease}, return_when",
        suites=(UNDISTURBED,),
    ),
    Mutant(
        name="a clock set back lengthens the deadline",
        file=KNOWN,
        old="            remaining_s = min(remaining_s, told.timeout_s)\n",
        new="",
        suites=("tests/unit/workflows/test_switch_over.py",),
    ),
    Mutant(
        name="a deadline by the clock of the wall, which can be set",
        file=KNOWN,
        old="told.accepted is not None and told.accepted.boot == now.boot",
        new="told.accepted is not None and told.accepted.boot != now.boot",
        suites=("tests/unit/workflows/test_switch_over.py",),
    ),
    Mutant(
        name="a way back while it is asked whether the route was committed",
        file=STEPS,
        old="                if self._known.is_left:\n                    raise\n",
        new="                raise\n",
        suites=("tests/simulation/test_seeds.py::test_what_broke_a_promise_once",),
    ),
    Mutant(
        name="a lease begins when it is heard of",
        file="router/control.py",
        old="    return max(lease_s - max(passed_s, 0.0), 0.0)\n",
        new="    return max(lease_s - 0 * max(passed_s, 0.0), 0.0)\n",
        suites=("tests/simulation/test_seeds.py::test_what_broke_a_promise_once",),
    ),
    Mutant(
        name="readers are not committed with production",
        file=STEPS,
        old="along=self._known.readers.require_parks(),",
        new="along=(),",
        suites=(f"{SIMULATION}::test_undisturbed[switchover with a replica, logical]",),
    ),
    Mutant(
        name="names exchanged twice",
        file=RECORDS,
        old="            if self._green_names(tx):\n                return\n",
        new="",
        suites=(LOGICAL,),
    ),
    Mutant(
        name="the record does not say that old blue is read-only",
        file=RECORDS,
        old="port=old.port, read_only=True",
        new="port=old.port, read_only=False",
        suites=(UNDISTURBED,),
    ),
    # -- the journal
    Mutant(
        name="effect before journal",
        file=SAGA,
        old='            self._record(step, "started", step.begun)\n'
        '            log.info("workflow.step_started", **self._context(step))\n'
        "            await self._do(step)\n",
        new='            await self._do(step)\n            self._record(step, "started", step.begun)\n',
        suites=(CREATION,),
    ),
    Mutant(
        name="undone in the wrong order",
        file=SAGA,
        old="        for step in reversed(self._steps):\n            if step.undo is None or",
        new="        for step in self._steps:\n            if step.undo is None or",
        suites=(CREATION,),
    ),
    Mutant(
        name="the decision to undo is not recorded",
        file=SAGA,
        old="            tx.put_workflow(self._workflow)\n            self._outcome.failing(tx, reason)",
        new="            self._outcome.failing(tx, reason)",
        suites=(f"{SIMULATION}::test_a_death_while_undoing",),
    ),
    Mutant(
        name="what cannot be repeated is repeated",
        file=SAGA,
        old='            if state == "started" and step.restart_from is not None:',
        new="            if False:",
        suites=(CREATION,),
    ),
    Mutant(
        name="a completion that was recorded is undone",
        file=SAGA,
        old="                if self._is_completed():\n                    return\n",
        new="",
        suites=(CREATION,),
    ),
    Mutant(
        name="a deletion does not replace a creation",
        file="workflows/runner.py",
        old="            if workflow.kind is WorkflowKind.DELETE_DEPLOYMENT:\n                await",
        new="            if False:\n                await",
        suites=(DELETION,),
    ),
    # -- the receivers
    Mutant(
        name="the store does not check the epoch",
        file="store/sql_store.py",
        old="            if self._own_epoch is not None and current != self._own_epoch:",
        new="            if False:",
        suites=(f"{STORE}::TestEpoch",),
    ),
    Mutant(
        name="the router does not check the epoch",
        file="router/control.py",
        old="        if hello.epoch < service.epoch:",
        new="        if False:",
        suites=(f"{CONTROL}::test_stale_controller_is_refused",),
        slow=True,
    ),
    Mutant(
        name="the servers' side does not check the epoch",
        file="engines/control.py",
        old="            raise ControllerSuperseded(f",
        new="            print(f",
        suites=("tests/unit/engines/test_control.py", OVERTAKEN),
        slow=True,
    ),
    Mutant(
        name="a takeover in the middle of a change",
        file="engines/control.py",
        old="            fcntl.flock(descriptor, fcntl.LOCK_SH)\n",
        new="",
        suites=("tests/unit/engines/test_control.py",),
    ),
    Mutant(
        name="a lease that never ends",
        file="router/park.py",
        old="self._lease = self._loop.call_later(lease_s, self._expire)",
        new="self._lease = self._loop.call_later(lease_s + 1e6, self._expire)",
        suites=(f"{SIMULATION}::test_every_single_fault[switchover, replication stalled]",),
    ),
    Mutant(
        name="commit of a broken generation",
        file="router/service.py",
        old="parks = [self._holding(each) for each in (generation, *along)]",
        new="parks = [self._parks[each] for each in (generation, *along)]\n"
        "            self._holding = self._parks.__getitem__",
        suites=(LOGICAL,),
    ),
    Mutant(
        name="newcomers are let through to a fenced blue when the lease ends",
        file="router/park.py",
        old="            self.endpoint.doubt()\n            self.end()\n        elif",
        new="            self.end()\n        elif",
        suites=(f"{PARK}::test_newcomers_wait_after_a_lost_lease_until_the_control_plane_is_back",),
        slow=True,
    ),
    Mutant(
        name="released before the route is durable",
        file="router/routes.py",
        old="            await asyncio.to_thread(self._replace, table)\n        except",
        new="            await asyncio.sleep(0)\n        except",
        suites=(UNDISTURBED,),
    ),
    Mutant(
        name="a route that could not be written counts",
        file="router/service.py",
        old="                park.undo_commit()\n                raise\n",
        new="                pass\n",
        suites=(LOGICAL,),
    ),
    Mutant(
        name="newcomers are let through when a commit failed behind the fence",
        file="router/service.py",
        old="                if admit:\n                    park.endpoint.trust()\n",
        new="                park.endpoint.trust()\n",
        suites=(LOGICAL,),
    ),
    # -- the servers, which only real ones show
    Mutant(
        name="sequences are not carried",
        file="engines/postgres/carrying/sequences.py",
        old="    if moved:\n        await target.run(_SET,",
        new="    if False:\n        await target.run(_SET,",
        suites=(UPGRADE,),
        slow=True,
    ),
    Mutant(
        name="replica identities are not put back",
        file="engines/postgres/carrying/identity.py",
        old="        await _take_back_one(connection, schema, table, was)\n",
        new="        pass\n",
        suites=(f"{CARRYING}_identity.py::test_a_publication_interrupted_anywhere_is_undone",),
        slow=True,
    ),
    Mutant(
        name="large objects of a transaction that was under way are missed",
        file="engines/postgres/carrying/large_objects.py",
        old="    SELECT pg_snapshot_xmin(pg_current_snapshot())::text,\n",
        new="    SELECT pg_snapshot_xmax(pg_current_snapshot())::text,\n",
        suites=(f"{CARRYING}_large_objects.py::test_a_transaction_that_was_under_way_at_the_look",),
        slow=True,
    ),
    Mutant(
        name="memberships are given and never taken away",
        file="engines/postgres/carrying/roles.py",
        old="    await _run(target, (role_changes.revocation(key) for key in gone))\n",
        new="",
        suites=(f"{CARRYING}_roles.py::test_whatever_is_changed_on_blue_is_changed_on_green",),
        slow=True,
    ),
    Mutant(
        name="what is left on a server that does not run is forgotten",
        file="engines/postgres/dismantling.py",
        old="    server.save(to_clean=tuple({*server.record.to_clean, names.deployment_id}))\n",
        new="",
        suites=(f"{CLEANING}::test_a_source_that_does_not_run_is_cleaned_when_it_does",),
        slow=True,
    ),
    Mutant(
        name="a fence that was half lifted cannot be seen",
        file="engines/postgres/fence.py",
        old="            back.rename(hba)\n",
        new="            back.rename(hba)\n            aside.unlink()\n",
        suites=(f"{CLEANING}::test_a_fence_that_was_half_lifted_can_be_seen_and_is_lifted",),
        slow=True,
    ),
    Mutant(
        name="what the server begins again behind the fence may write",
        file="engines/postgres/fence.py",
        old="        await _make_read_only(source)\n",
        new="",
        suites=(f"{WORKERS}::test_it_writes_nothing_behind_the_fence_and_goes_on_when_that_is_lifted",),
        slow=True,
    ),
    Mutant(
        name="who comes in behind the fence is not looked for",
        file="engines/postgres/switchover.py",
        old="        if came:\n",
        new="        if False:\n",
        suites=(f"{FENCE_TRIES}::test_who_comes_in_behind_the_fence_sets_a_minor_upgrade_back",),
        slow=True,
    ),
    Mutant(
        name="parked with an open transaction",
        file="wire/postgres/session.py",
        old="return self.status == IDLE and self.quiet",
        new="return self.quiet",
        suites=(TRACKER,),
    ),
    Mutant(
        name="what a client says before it is asked for its token is passed on",
        file="router/session.py",
        old="        if self._may_speak:\n            self._speak()",
        new="        if True:\n            self._speak()",
        suites=("tests/integration/router/test_unasked.py",),
        slow=True,
    ),
    Mutant(
        name="a cancellation is granted while the route is being committed",
        file=EXECUTOR,
        old="        async with self._known.deciding:\n            if self._known.facts.route is Side.TARGET or",
        new="        async with asyncio.Lock():\n            if self._known.facts.route is Side.TARGET or",
        suites=(LOGICAL,),
    ),
    Mutant(
        name="a cancellation is refused before it is known which side production is on",
        file=EXECUTOR,
        old="        await self._known.observed.wait()\n",
        new="",
        suites=("tests/unit/workflows/test_switch_over.py",),
    ),
    Mutant(
        name="a cancellation is told that was not written down",
        file="workflows/cancellation.py",
        old="    records.note_cancellation()",
        new="    try:\n        records.note_cancellation()\n    except Exception:\n        pass",
        suites=("tests/unit/workflows/test_switch_over.py",),
    ),
    Mutant(
        name="a final snapshot is taken away although it was recorded",
        file="workflows/snapshot_taking.py",
        old="        if not taken:\n",
        new="        if True:\n",
        suites=(f"{SIMULATION}::test_every_single_fault[instance deleted with a final snapshot]",),
    ),
    Mutant(
        name="a final snapshot is taken while clients write",
        file="workflows/instance_deletion.py",
        old='            Step(name="close", do=self.close_endpoint, undo=self._open_again, patience_s=PATIENCE_S),\n',
        new="",
        suites=(f"{SIMULATION}::test_undisturbed[instance deleted with a final snapshot]",),
    ),
    Mutant(
        name="a stopped instance is left running when its final snapshot fails",
        file="workflows/instance_deletion.py",
        old="            if self.told.was_stopped and not self._has_final_snapshot():\n",
        new="            if False:\n",
        suites=(f"{SIMULATION}::test_every_single_fault[stopped instance deleted with a final snapshot]",),
    ),
    Mutant(
        name="an instance is available without its first backup",
        file="workflows/instances.py",
        old="events.instance_created(instance, self.services.clock.now()))\n        backups.begin_first(",
        new="events.instance_created(instance, self.services.clock.now()))\n        (lambda *_: None)(",
        suites=(f"{SIMULATION}::test_undisturbed[instance created with its first backup]", BACKUPS),
    ),
    Mutant(
        name="a workflow begins with the next one before it has ended",
        file="workflows/saga.py",
        old=f"            {_COMPLETED}\n            self._outcome.completed(tx)\n",
        new=f"            self._outcome.completed(tx)\n            {_COMPLETED}\n",
        suites=(f"{SIMULATION}::test_undisturbed[instance created with its first backup]",),
    ),
    Mutant(
        name="backups stay when their instance goes",
        file="workflows/instance_deletion.py",
        old="        if not self.told.keeps_backups:\n",
        new="        if False:\n",
        suites=(f"{SIMULATION}::test_undisturbed[instance deleted with its backups]", BACKUPS),
    ),
    Mutant(
        name="manual snapshots go with their instance",
        file="workflows/backups.py",
        old="        if snapshot.type is SnapshotType.AUTOMATED:\n",
        new="        if True:\n",
        suites=(f"{SIMULATION}::test_undisturbed[instance deleted with its backups]", BACKUPS),
    ),
    Mutant(
        name="a member is backed up in the middle of a switchover",
        file="workflows/services.py",
        old="        and not any(each.status in HANDS_OFF for each in tx.deployments_of([instance.resource_id]))\n",
        new="",
        suites=(BACKUPS,),
    ),
    Mutant(
        name="a snapshot goes while an instance is made of it",
        file="workflows/backups.py",
        old="                if not user_of(tx, each):\n",
        new="                if True:\n",
        suites=(BACKUPS,),
    ),
    Mutant(
        name="the last backup goes although no other can be taken",
        file="domain/backups.py",
        old="(days == 0 or each is not newest)",
        new="True",
        suites=("tests/unit/domain/test_backups.py",),
    ),
    Mutant(
        name="a backup that failed is tried again all the time",
        file="domain/backups.py",
        old="now - begun_at(each) >= _TRIED_AGAIN",
        new="True",
        suites=("tests/unit/domain/test_backups.py",),
    ),
    Mutant(
        name="the endpoints of a green cluster are left after its switchover",
        file="workflows/cluster_switchover.py",
        old="        await services.router.remove_route(name)\n",
        new="        pass\n",
        suites=(f"{SIMULATION}::test_undisturbed[switchover of a cluster, logical]",),
    ),
    Mutant(
        name="a green cluster listens where blue's clients are not",
        file="workflows/cluster_switchover.py",
        old="            port=blue.port,\n            master",
        new="            master",
        suites=(f"{SIMULATION}::test_undisturbed[switchover of a cluster, logical]",),
    ),
    Mutant(
        name="a green cluster whose creation fails stays in the records",
        file="workflows/green_cluster.py",
        old="            tx.delete_cluster(member.target_resource_id)\n",
        new="            pass\n",
        suites=(f"{SIMULATION}::test_every_single_fault[creation for a cluster]",),
    ),
    Mutant(
        name="a green cluster that is deleted leaves its endpoints",
        file="workflows/delete_deployment.py",
        old="        await green_cluster.close_endpoints(self.services, self.identifier)\n",
        new="        pass\n",
        suites=(f"{SIMULATION}::test_undisturbed[deletion, of a cluster, with green]",),
    ),
    Mutant(
        name="a custom endpoint of a green cluster leads to blue's servers",
        file="workflows/green_cluster.py",
        old="return tuple(members.get(each) or each for each in listed)",
        new="return tuple(listed)",
        suites=(f"{SIMULATION}::test_undisturbed[creation for a cluster]",),
    ),
    Mutant(
        name="endpoints of a cluster are led back between the commit and the swap of names",
        file="workflows/cluster_routes.py",
        old="                kept = [each for each in kept if each.resource_id not in ahead]\n",
        new="",
        suites=(CLUSTER_DEPLOYMENTS,),
    ),
    Mutant(
        name="a reader endpoint goes on leading to a reader that stays with blue",
        file="workflows/cluster_switchover.py",
        old="        for route in cluster_routes.cluster_routes(tx, ports, green)\n",
        new="        for route in cluster_routes.cluster_routes(tx, ports, blue)\n",
        suites=(CLUSTER_DEPLOYMENTS,),
    ),
    Mutant(
        name="a custom endpoint that could not be opened keeps a cluster from being switched over",
        file="workflows/cluster_switchover.py",
        old='            del names[custom_endpoint_name(each.target_identifier or "")]\n',
        new="            pass\n",
        suites=(CLUSTER_DEPLOYMENTS,),
    ),
    Mutant(
        name="a reader is promoted without the writer's last checkpoint",
        file="engines/postgres/demotion.py",
        old="await standby.wait_for_replay(reader, _beyond(checkpoint))",
        new="pass",
        suites=(f"{DEMOTION}::test_a_reader_that_does_not_get_the_rest",),
        slow=True,
    ),
    Mutant(
        name="a reader is promoted beside a writer that can be written to",
        file="engines/postgres/demotion.py",
        old="        if not _is_standby(writer):\n            raise EngineError(",
        new="        if False:\n            raise EngineError(",
        suites=(f"{DEMOTION}::test_a_writer_that_does_not_end_in_time",),
        slow=True,
    ),
    Mutant(
        name="a writer comes back beside a reader that has been promoted",
        file="engines/postgres/demotion.py",
        old="promoted = not _is_standby(reader)",
        new="promoted = False",
        suites=(f"{DEMOTION}::test_there_is_no_way_back_from_a_promotion",),
        slow=True,
    ),
    Mutant(
        name="a reader that does not follow becomes the writer",
        file="domain/failover.py",
        old=" if each.lag_bytes is not None]",
        new="]",
        suites=("tests/unit/domain/test_failover.py",),
    ),
)
