"""Twenty databases of many shapes, each with an ordinary load: nothing about them is in the way of a switchover."""

from typing import NamedTuple


class Shape(NamedTuple):
    """``definition``: what is there before green is made. ``load``: what its application does while green waits."""

    definition: str
    load: str


_LONG_NAME = "ñ" * 31  # 62 of the 63 bytes that a name may have

SHAPES = {
    "empty": Shape("SELECT 1", "SELECT 1"),
    'Quoted "name" ünï': Shape(
        f"""
        CREATE SCHEMA "Sche""ma; --";
        CREATE TABLE "Sche""ma; --"."select" ("Key %s" int PRIMARY KEY, "{_LONG_NAME}" text, " " text);
        CREATE TABLE "{_LONG_NAME}" (id int PRIMARY KEY, "'" text);
        """,
        f"""
        INSERT INTO "Sche""ma; --"."select" SELECT n, 'ß' || n, NULL FROM generate_series(1, 50) n;
        UPDATE "Sche""ma; --"."select" SET "Key %s" = -"Key %s";
        INSERT INTO "{_LONG_NAME}" VALUES (1, '"'), (2, NULL);
        DELETE FROM "{_LONG_NAME}" WHERE id = 1;
        """,
    ),
    "partitions": Shape(
        """
        CREATE TABLE by_date (at date, id int, v text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
        CREATE TABLE by_date_25 PARTITION OF by_date FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
        CREATE TABLE by_date_26 PARTITION OF by_date FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')
          PARTITION BY HASH (id);
        CREATE TABLE by_date_26_0 PARTITION OF by_date_26 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE by_date_26_1 PARTITION OF by_date_26 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE TABLE by_date_rest PARTITION OF by_date DEFAULT;
        CREATE TABLE by_list (kind text PRIMARY KEY, n int) PARTITION BY LIST (kind);
        CREATE TABLE by_list_ab PARTITION OF by_list FOR VALUES IN ('a', 'b');
        CREATE TABLE by_list_null PARTITION OF by_list DEFAULT;
        INSERT INTO by_date SELECT date '2025-06-01' + n, n, 'v' FROM generate_series(1, 400) n;
        """,
        """
        INSERT INTO by_date SELECT date '2026-06-01' + n, 1000 + n, 'w' FROM generate_series(1, 400) n;
        UPDATE by_date SET at = at + 365 WHERE id % 3 = 0;
        DELETE FROM by_date WHERE id % 7 = 0;
        INSERT INTO by_list VALUES ('a', 1), ('z', 2);
        UPDATE by_list SET kind = 'b' WHERE kind = 'z';
        TRUNCATE by_date_25;
        """,
    ),
    "inheritance": Shape(
        """
        CREATE TABLE animal (id int PRIMARY KEY, name text);
        CREATE TABLE dog (tricks int, PRIMARY KEY (id)) INHERITS (animal);
        CREATE TABLE puppy (age int, PRIMARY KEY (id)) INHERITS (dog);
        """,
        """
        INSERT INTO animal VALUES (1, 'a'); INSERT INTO dog VALUES (2, 'd', 3); INSERT INTO puppy VALUES (3, 'p', 1, 2);
        UPDATE animal SET name = name || '!'; DELETE FROM ONLY animal;
        """,
    ),
    "generated": Shape(
        """
        CREATE TABLE g (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED,
                        words tsvector GENERATED ALWAYS AS (to_tsvector('english', coalesce(t, ''))) STORED, t text);
        CREATE INDEX ON g (twice);
        CREATE TABLE f (a int, b int GENERATED ALWAYS AS (a + 1) STORED);
        ALTER TABLE f REPLICA IDENTITY FULL;
        INSERT INTO g (id, a, t) SELECT n, n, 'text ' || n FROM generate_series(1, 20) n;
        """,
        """
        INSERT INTO g (id, a) VALUES (100, 7); UPDATE g SET a = a + 1, t = t || ' more'; DELETE FROM g WHERE twice > 30;
        INSERT INTO f VALUES (1), (2), (2); UPDATE f SET a = 9 WHERE a = 1; DELETE FROM f WHERE b = 3;
        """,
    ),
    "types": Shape(
        """
        CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad');
        CREATE TYPE point3 AS (x float8, y float8, z float8);
        CREATE TYPE span AS RANGE (subtype = float8);
        CREATE DOMAIN percent AS int CHECK (VALUE BETWEEN 0 AND 100);
        CREATE DOMAIN trail AS point3[] CHECK (cardinality(VALUE) < 100);
        CREATE TABLE t (id uuid PRIMARY KEY, m mood, s span, ms nummultirange, p percent, w trail, b bit varying(9),
                        j jsonb, i inet, a int[][], v interval, c "char", e mood[]);
        """,
        """
        INSERT INTO t VALUES ('00000000-0000-0000-0000-000000000001', 'ok', '[1,2)', '{[1,2],[5,)}', 50,
          ARRAY[ROW(1,2,3)::point3, NULL], B'101', '{"a": [1, null]}', '::1', '{{1,2},{3,4}}', '1 mon', 'q',
          '{sad,glad}');
        UPDATE t SET m = 'glad', w = w || ROW('NaN', 'Infinity', 0)::point3, p = 100;
        """,
    ),
    "row security": Shape(
        """
        CREATE TABLE notes (id int PRIMARY KEY, who name DEFAULT current_user, note text);
        ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON notes USING (who = current_user) WITH CHECK (who = current_user);
        CREATE TABLE strict (id int PRIMARY KEY);
        ALTER TABLE strict ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY, OWNER TO bypasser;
        CREATE TABLE audit (id int PRIMARY KEY, line text);
        ALTER TABLE audit OWNER TO keeper;
        REVOKE UPDATE, DELETE ON audit FROM keeper;  -- nobody else may either
        GRANT INSERT ON audit TO clerk;
        """,
        """
        INSERT INTO notes (id, note) VALUES (1, 'x'), (2, 'y'); UPDATE notes SET who = 'nobody'; INSERT INTO strict
        VALUES (1); INSERT INTO audit VALUES (1, 'x');
        """,
    ),
    "foreign keys": Shape(
        """
        CREATE TABLE a (id int PRIMARY KEY, b int);
        CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a DEFERRABLE INITIALLY DEFERRED);
        ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b DEFERRABLE INITIALLY DEFERRED;
        CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES child ON DELETE CASCADE,
                            a int REFERENCES a ON DELETE SET NULL ON UPDATE CASCADE);
        CREATE TABLE unchecked (id int PRIMARY KEY, a int, n int);
        INSERT INTO unchecked VALUES (1, 999, -1);
        ALTER TABLE unchecked ADD CONSTRAINT ref FOREIGN KEY (a) REFERENCES a NOT VALID;
        ALTER TABLE unchecked ADD CONSTRAINT positive CHECK (n > 0) NOT VALID;
        """,
        """
        BEGIN; INSERT INTO a VALUES (1, 1), (2, 2); INSERT INTO b VALUES (1, 1), (2, 2); COMMIT;
        INSERT INTO child VALUES (1, NULL, 1), (2, 1, 2), (3, 2, 2);
        UPDATE a SET id = 22 WHERE id = 2 AND false; DELETE FROM child WHERE id = 1;
        INSERT INTO unchecked VALUES (2, 1, 5); DELETE FROM unchecked WHERE id = 1;
        TRUNCATE a, b, child, unchecked; INSERT INTO child VALUES (7, NULL, NULL);
        """,
    ),
    "constraints": Shape(
        """
        CREATE TABLE rooms (id int PRIMARY KEY, during tsrange, place box, EXCLUDE USING gist (during WITH &&),
                            EXCLUDE USING gist (place WITH &&) DEFERRABLE INITIALLY DEFERRED);
        CREATE TABLE ranks (id int PRIMARY KEY, rank int UNIQUE DEFERRABLE, name text NOT NULL CHECK (name <> ''));
        CREATE TABLE plain_key (a int NOT NULL, b text NOT NULL, c int);
        CREATE UNIQUE INDEX plain_key_ab ON plain_key (a, b);
        ALTER TABLE plain_key REPLICA IDENTITY USING INDEX plain_key_ab;
        INSERT INTO ranks SELECT n, n, 'r' FROM generate_series(1, 10) n;
        """,
        """
        INSERT INTO rooms VALUES (1, '[2026-01-01,2026-01-02)', '((0,0),(1,1))'), (2, NULL, '((5,5),(6,6))');
        UPDATE ranks SET rank = rank + 1; INSERT INTO plain_key VALUES (1, 'x', 1); UPDATE plain_key SET b = 'y', c = 2;
        """,
    ),
    "indexes": Shape(
        """
        CREATE FUNCTION shout(text) RETURNS text IMMUTABLE LANGUAGE sql RETURN upper($1);
        CREATE TABLE d (id int PRIMARY KEY, t text, n int, p point, j jsonb);
        CREATE INDEX ON d (shout(t)); CREATE INDEX ON d (n DESC NULLS LAST) WHERE n > 5;
        CREATE INDEX ON d USING gin (j);
        CREATE INDEX ON d USING brin (id); CREATE INDEX ON d USING hash (t); CREATE INDEX ON d USING spgist (p);
        CREATE UNIQUE INDEX ON d (t, n) INCLUDE (p) NULLS NOT DISTINCT;
        CREATE STATISTICS d_stats (mcv, ndistinct) ON t, n FROM d;
        CREATE TABLE clustered (id int PRIMARY KEY, v int) WITH (fillfactor = 50);
        CLUSTER clustered USING clustered_pkey;
        """,
        """
        INSERT INTO d SELECT n, 't' || n, n, point(n, n), jsonb_build_object('n', n) FROM generate_series(1, 100) n;
        UPDATE d SET n = n + 1 WHERE id < 50; DELETE FROM d WHERE t = 't3';
        REINDEX TABLE d; INSERT INTO clustered VALUES (1, 1); VACUUM FULL clustered; CLUSTER clustered; ANALYZE;
        """,
    ),
    "views and rules": Shape(
        """
        CREATE TABLE base (id int PRIMARY KEY, v text, deleted bool DEFAULT false);
        CREATE VIEW alive AS SELECT id, v FROM base WHERE NOT deleted WITH CHECK OPTION;
        CREATE VIEW alive2 WITH (security_invoker) AS SELECT * FROM alive;
        CREATE RULE soft AS ON DELETE TO base DO INSTEAD UPDATE base SET deleted = true WHERE id = old.id;
        CREATE RECURSIVE VIEW numbers (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < 10;
        """,
        """
        INSERT INTO alive VALUES (1, 'a'), (2, 'b'); UPDATE alive SET v = 'c' WHERE id = 1;
        DELETE FROM base WHERE id = 2;
        """,
    ),
    "materialised": Shape(
        """
        CREATE TABLE sales (id int PRIMARY KEY, who text, amount int);
        INSERT INTO sales SELECT n, 'w' || n % 3, n FROM generate_series(1, 30) n;
        CREATE MATERIALIZED VIEW totals AS SELECT who, sum(amount) AS total FROM sales GROUP BY who;
        CREATE UNIQUE INDEX ON totals (who);
        CREATE MATERIALIZED VIEW top AS SELECT * FROM totals ORDER BY total DESC LIMIT 1;
        CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS x WITH NO DATA;
        """,
        "INSERT INTO sales VALUES (100, 'w9', 5); DELETE FROM sales WHERE id < 5",
    ),
    "sequences": Shape(
        """
        CREATE SEQUENCE down INCREMENT -7 MINVALUE -1000 MAXVALUE 1000 START 1000;
        CREATE SEQUENCE round_ AS smallint MINVALUE 1 MAXVALUE 3 CYCLE;
        CREATE SEQUENCE near_end AS int START 2147483640;
        CREATE SEQUENCE at_end AS smallint MAXVALUE 3;
        CREATE SEQUENCE cached CACHE 50; CREATE SEQUENCE untouched; CREATE SEQUENCE put_back;
        CREATE UNLOGGED SEQUENCE unlogged_;
        CREATE SEQUENCE shared_;
        CREATE TABLE one (id int PRIMARY KEY DEFAULT nextval('shared_'));
        CREATE TABLE two (id int PRIMARY KEY DEFAULT nextval('shared_'));
        CREATE TABLE owner_ (id bigserial PRIMARY KEY, n int GENERATED BY DEFAULT AS IDENTITY (INCREMENT 5));
        CREATE TABLE always (id int GENERATED ALWAYS AS IDENTITY (START -5 MINVALUE -5) PRIMARY KEY);
        """,
        """
        SELECT nextval('down'), nextval('near_end'), nextval('cached'), nextval('unlogged_') FROM generate_series(1, 5);
        SELECT nextval('round_') FROM generate_series(1, 4); SELECT nextval('at_end') FROM generate_series(1, 3);
        SELECT setval('put_back', 40, false);
        INSERT INTO one DEFAULT VALUES; INSERT INTO two DEFAULT VALUES; INSERT INTO one DEFAULT VALUES;
        INSERT INTO owner_ DEFAULT VALUES; INSERT INTO owner_ DEFAULT VALUES; INSERT INTO always DEFAULT VALUES;
        ALTER SEQUENCE down RESTART WITH 1000; SELECT nextval('down'), nextval('down');
        """,
    ),
    "extensions": Shape(
        """
        CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION pg_trgm; CREATE EXTENSION btree_gist;
        CREATE EXTENSION ltree; CREATE EXTENSION pg_stat_statements; CREATE EXTENSION pg_prewarm;
        CREATE TABLE x (id citext PRIMARY KEY, h hstore, tree ltree);
        CREATE INDEX ON x USING gist (tree); CREATE INDEX ON x USING gin (h);
        """,
        "INSERT INTO x VALUES ('Key', 'a=>1', 'top.sub'); UPDATE x SET h = h || 'b=>2' WHERE id = 'KEY'",
    ),
    "privileges": Shape(
        """
        CREATE SCHEMA hr AUTHORIZATION keeper;
        CREATE TABLE hr.people (id int PRIMARY KEY, name text, pay int);
        ALTER TABLE hr.people OWNER TO keeper;
        GRANT SELECT (id, name) ON hr.people TO reader; GRANT SELECT, UPDATE (pay) ON hr.people TO clerk;
        ALTER DEFAULT PRIVILEGES FOR ROLE keeper IN SCHEMA hr GRANT SELECT ON TABLES TO reader;
        ALTER DEFAULT PRIVILEGES FOR ROLE keeper REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
        COMMENT ON SCHEMA hr IS 'human resources'; COMMENT ON COLUMN hr.people.pay IS 'a month';
        COMMENT ON DATABASE privileges IS 'a comment';
        ALTER DATABASE privileges SET work_mem = '7MB'; ALTER ROLE clerk IN DATABASE privileges SET lock_timeout = '9s';
        """,
        "INSERT INTO hr.people VALUES (1, 'n', 2); GRANT ALL ON hr.people TO pg_monitor;"
        " REVOKE ALL ON hr.people FROM pg_monitor",
    ),
    "toast": Shape(
        """
        CREATE TABLE big (id int PRIMARY KEY, body text, raw bytea, n int);
        ALTER TABLE big ALTER COLUMN raw SET STORAGE EXTERNAL, ALTER COLUMN body SET COMPRESSION pglz;
        INSERT INTO big SELECT n, repeat(md5(n::text), 2000), decode(repeat(md5(n::text), 1000), 'hex'), 0
          FROM generate_series(1, 10) n;
        CREATE TABLE big_full (body text, n int);
        ALTER TABLE big_full REPLICA IDENTITY FULL;
        INSERT INTO big_full SELECT repeat(md5(n::text), 1000), n FROM generate_series(1, 5) n;
        """,
        """
        UPDATE big SET n = n + 1; UPDATE big SET body = body || 'x' WHERE id = 3; UPDATE big_full SET n = n + 10;
        DELETE FROM big_full WHERE n = 12; SELECT lo_get(5000);
        """,
    ),
    "publications": Shape(
        """
        CREATE TABLE p (id int PRIMARY KEY, v text); CREATE TABLE q (id int PRIMARY KEY);
        CREATE PUBLICATION for_some FOR TABLE p WHERE (id > 5), q; CREATE PUBLICATION for_all FOR ALL TABLES;
        CREATE PUBLICATION columns FOR TABLE p (id);
        """,
        "INSERT INTO p SELECT n, 'v' FROM generate_series(1, 10) n; UPDATE p SET v = 'w'; DELETE FROM p WHERE id = 7",
    ),
    "triggers": Shape(
        """
        CREATE TABLE log (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
        CREATE TABLE t (id int PRIMARY KEY, v int);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
          'BEGIN INSERT INTO public.log (what) VALUES (tg_op); RETURN NULL; END';
        CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS
          $$ BEGIN INSERT INTO public.log (what) VALUES (tg_tag); END $$;
        CREATE TRIGGER rows AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note();
        CREATE CONSTRAINT TRIGGER late AFTER DELETE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
          EXECUTE FUNCTION note();
        CREATE TRIGGER off BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION note();
        ALTER TABLE t DISABLE TRIGGER off;
        CREATE EVENT TRIGGER ddl ON ddl_command_end EXECUTE FUNCTION watch();
        """,
        """
        INSERT INTO t VALUES (1, 1), (2, 2); UPDATE t SET v = 0; DELETE FROM t WHERE id = 2;
        SET session_replication_role = replica; INSERT INTO t VALUES (3, 3); SET session_replication_role = origin;
        """,
    ),
    "foreign tables": Shape(
        """
        CREATE EXTENSION postgres_fdw;
        CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere.invalid');
        CREATE USER MAPPING FOR clerk SERVER elsewhere OPTIONS (user 'u', password 'p');
        CREATE FOREIGN TABLE far (id int, v text) SERVER elsewhere;
        CREATE TABLE mixed (id int, v text) PARTITION BY RANGE (id);
        CREATE TABLE mixed_near PARTITION OF mixed (PRIMARY KEY (id)) FOR VALUES FROM (0) TO (100);
        CREATE FOREIGN TABLE mixed_far PARTITION OF mixed FOR VALUES FROM (100) TO (200) SERVER elsewhere;
        """,
        """
        INSERT INTO mixed VALUES (1, 'near'), (2, 'near'); UPDATE mixed_near SET v = 'n';
        DELETE FROM mixed_near WHERE id = 2;
        """,
    ),
    "code": Shape(
        """
        CREATE FUNCTION add_(int, int) RETURNS int IMMUTABLE STRICT LANGUAGE sql RETURN $1 + $2;
        CREATE AGGREGATE total(int) (SFUNC = add_, STYPE = int, INITCOND = '0');
        CREATE OPERATOR @+@ (LEFTARG = int, RIGHTARG = int, FUNCTION = add_);
        CREATE PROCEDURE nothing() LANGUAGE plpgsql AS 'BEGIN COMMIT; END';
        CREATE TYPE wrapped AS (n int);
        CREATE FUNCTION wrap(int) RETURNS wrapped IMMUTABLE LANGUAGE sql RETURN ROW($1)::wrapped;
        CREATE CAST (int AS wrapped) WITH FUNCTION wrap(int);
        CREATE COLLATION mine FROM "C"; CREATE COLLATION built (provider = builtin, locale = 'C.UTF-8');
        CREATE TEXT SEARCH CONFIGURATION mine (COPY = simple);
        CREATE TEXT SEARCH DICTIONARY stem (TEMPLATE = snowball, language = english);
        ALTER TEXT SEARCH CONFIGURATION mine ALTER MAPPING FOR asciiword WITH stem, simple;
        CREATE TABLE c (id text COLLATE mine PRIMARY KEY, other text COLLATE built UNIQUE, w wrapped);
        CREATE UNLOGGED TABLE scratch (id int); CREATE UNLOGGED TABLE scratch_key (id int PRIMARY KEY);
        """,
        """
        INSERT INTO c VALUES ('a', 'b', 5::wrapped); CALL nothing();
        CREATE TEMP TABLE passing (x int); DROP TABLE passing;
        INSERT INTO scratch VALUES (1); TRUNCATE scratch;
        """,
    ),
}
