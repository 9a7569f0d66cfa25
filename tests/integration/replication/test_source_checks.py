"""What forbids a deployment is found beforehand, and named."""

from pathlib import Path

import pytest

from tests.conftest import BLUE_VERSION, GREEN_VERSION, CreateServer
from tests.integration.replication.conftest import MakePair, run_sql, traces
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.servers import PostgresServers


async def test_every_obstacle_is_named_at_once(
    green: PostgresGreenBuilder, create_server: CreateServer, make_pair: MakePair
) -> None:
    source = await create_server(version=BLUE_VERSION)
    elsewhere = source.directory / "elsewhere"
    source.account.make_directory(elsewhere)
    await run_sql(
        source,
        "CREATE TABLE public.keyless (x text)",
        "CREATE TABLE public.keyless_json (x text, j json)",
        "CREATE TABLE public.deferred (id int PRIMARY KEY DEFERRABLE, at point)",
        "CREATE TABLE public.full_json (j json)",
        "ALTER TABLE public.full_json REPLICA IDENTITY FULL",
        "CREATE TABLE public.full_text (t text, v varchar(3), a int[], e name)",
        "ALTER TABLE public.full_text REPLICA IDENTITY FULL",
        "CREATE UNLOGGED TABLE public.fleeting (id int PRIMARY KEY)",
        "CREATE UNLOGGED TABLE public.fleeting_empty (id int PRIMARY KEY)",
        "INSERT INTO public.fleeting VALUES (1)",
        "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TABLE public.triggered (id int PRIMARY KEY)",
        "CREATE TRIGGER always BEFORE INSERT ON public.triggered FOR EACH ROW EXECUTE FUNCTION public.f()",
        "ALTER TABLE public.triggered ENABLE ALWAYS TRIGGER always",
        "CREATE TRIGGER mirrored BEFORE INSERT ON public.triggered FOR EACH ROW EXECUTE FUNCTION public.f()",
        "ALTER TABLE public.triggered ENABLE REPLICA TRIGGER mirrored",
        "CREATE ROLE somebody",
        "CREATE TABLE public.forced (id int PRIMARY KEY)",
        "ALTER TABLE public.forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY, OWNER TO somebody",
        "CREATE TABLE public.generated (a int, b int GENERATED ALWAYS AS (a) STORED PRIMARY KEY)",
        "CREATE TABLE public.taken_away (id int PRIMARY KEY)",
        "ALTER TABLE public.taken_away OWNER TO somebody",
        "REVOKE UPDATE ON public.taken_away FROM somebody",
        "GRANT UPDATE ON public.taken_away TO pg_monitor",
        "CREATE FUNCTION public.hello() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE EVENT TRIGGER hello ON login EXECUTE FUNCTION public.hello()",
        "CREATE EVENT TRIGGER silent ON login EXECUTE FUNCTION public.hello()",
        "ALTER EVENT TRIGGER silent DISABLE",
        "CREATE EVENT TRIGGER loud ON sql_drop EXECUTE FUNCTION public.hello()",
        "ALTER EVENT TRIGGER loud ENABLE ALWAYS",
        "CREATE SUBSCRIPTION other CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)",
        "SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')",
        # As good as an extension of that name, for whoever reads the catalogue.
        "CREATE EXTENSION pg_prewarm SCHEMA public",
        "UPDATE pg_extension SET extname = 'pg_cron' WHERE extname = 'pg_prewarm'",
        f"CREATE TABLESPACE elsewhere LOCATION '{elsewhere}'",
        "CREATE DATABASE shut ALLOW_CONNECTIONS false",
    )
    source.change_settings({"max_replication_slots": "3"})
    await source.restart()
    pair = make_pair(source, GREEN_VERSION)
    findings = await green.check_source(pair)
    text = "\n".join(finding.message for finding in findings)
    for name in (
        "public.keyless_json",
        "public.deferred",
        "public.full_json",
        "public.fleeting,",
        "public.forced",
        "shut",
    ):
        assert name.rstrip(",") in text
    assert "always on public.triggered, mirrored on public.triggered" in text
    for name in ("replication slot cdc", "subscription other", "public.generated", "public.taken_away", "elsewhere"):
        assert name in text
    assert ": hello. Disable them" in text
    for innocent in ("fleeting_empty", "full_text", "keyless,"):
        assert innocent not in text
    assert {finding.check for finding in findings} == {
        "external-replication",
        "closed-databases",
        "slots-and-senders",
        "engine-not-available",  # for want of that extension
        "extensions-with-workers",
        "generated-key",
        "login-triggers",
        "replica-event-triggers",
        "powerless-owner",
        "tablespaces",
        "unlogged-tables",
        "tables-without-key",
        "incomparable-identity",
        "replica-triggers",
        "forced-row-security",
    }


async def test_an_extension_or_a_feature_that_no_target_has_is_named(
    servers: PostgresServers, green: PostgresGreenBuilder, create_server: CreateServer, make_pair: MakePair
) -> None:
    source = await create_server(version=BLUE_VERSION)
    # 18.6 as a wheel cannot read XML.
    await run_sql(source, "CREATE TABLE public.documents (id int PRIMARY KEY, body xml)")
    installation = await servers.catalogue.installation(
        GREEN_VERSION, extensions=await servers.extensions_in_use(source)
    )
    findings = await green.check_source(make_pair(source, GREEN_VERSION))
    if b"xmlInitParser" in Path(installation.program("postgres")).read_bytes():
        assert findings == []
    else:
        assert [finding.check for finding in findings] == ["features-missing"]
        assert "column body of public.documents (xml)" in findings[0].message
    await run_sql(source, "DROP TABLE public.documents")
    await run_sql(source, "CREATE EXTENSION pgcrypto SCHEMA public")
    pair = make_pair(source, GREEN_VERSION)
    findings = await green.check_source(pair)
    # Another source of the same version has it, or none has: either way nothing is left to chance.
    extensions = await servers.extensions_in_use(source)
    if not findings:
        installation = await servers.catalogue.installation(GREEN_VERSION, extensions=extensions)
        assert "pgcrypto" in installation.extensions()
    await run_sql(source, "UPDATE pg_extension SET extname = 'nobody_has_this' WHERE extname = 'pgcrypto'")
    findings = await green.check_source(pair)
    assert [finding.guardrail for finding in findings] == ["Target engine version"]
    assert "nobody_has_this" in findings[0].message


async def test_a_table_without_key_made_after_the_check_stops_the_build_not_blue(
    green: PostgresGreenBuilder, create_server: CreateServer, make_pair: MakePair
) -> None:
    source = await create_server(version=BLUE_VERSION)
    pair = make_pair(source, GREEN_VERSION)
    await green.copy(pair)
    await run_sql(source, "CREATE TABLE public.keyless (x text, j json)", "INSERT INTO public.keyless VALUES ('a')")
    with pytest.raises(Exception, match=r"public\.keyless"):
        await green.align(pair)
    await run_sql(source, "UPDATE public.keyless SET x = 'b'")
    await green.dismantle(pair)
    assert await traces(source, pair) == []
