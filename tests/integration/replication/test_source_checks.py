"""What forbids a deployment is found beforehand, and named."""

import pytest

from tests.conftest import BLUE_VERSION, GREEN_VERSION, CreateServer
from tests.integration.replication.conftest import MakePair, run_sql, traces
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.servers import PostgresServers


async def test_every_obstacle_is_named_at_once(
    green: PostgresGreenBuilder, create_server: CreateServer, make_pair: MakePair
) -> None:
    source = await create_server(version=BLUE_VERSION)
    await run_sql(
        source,
        "CREATE TABLE public.keyless (x text)",
        "CREATE TABLE public.deferred (id int PRIMARY KEY DEFERRABLE)",
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
        "CREATE ROLE somebody",
        "CREATE TABLE public.forced (id int PRIMARY KEY)",
        "ALTER TABLE public.forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY, OWNER TO somebody",
        "SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')",
        "CREATE DATABASE shut ALLOW_CONNECTIONS false",
    )
    pair = make_pair(source, GREEN_VERSION)
    findings = await green.check_source(pair)
    text = "\n".join(finding.message for finding in findings)
    for name in ("public.keyless", "public.deferred", "public.full_json", "public.fleeting,", "public.forced", "shut"):
        assert name.rstrip(",") in text
    assert "always on public.triggered" in text
    assert "replication slot cdc" in text
    for innocent in ("fleeting_empty", "full_text"):
        assert innocent not in text
    assert {finding.check for finding in findings} == {
        "external-replication",
        "closed-databases",
        "unlogged-tables",
        "tables-without-key",
        "incomparable-identity",
        "replica-triggers",
        "forced-row-security",
    }


async def test_an_extension_that_no_target_has_is_named(
    servers: PostgresServers, green: PostgresGreenBuilder, create_server: CreateServer, make_pair: MakePair
) -> None:
    source = await create_server(version=BLUE_VERSION)
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
    await run_sql(source, "CREATE TABLE public.keyless (x text)", "INSERT INTO public.keyless VALUES ('a')")
    with pytest.raises(Exception, match=r"public\.keyless"):
        await green.align(pair)
    await run_sql(source, "UPDATE public.keyless SET x = 'b'")
    await green.dismantle(pair)
    assert await traces(source, pair) == []
