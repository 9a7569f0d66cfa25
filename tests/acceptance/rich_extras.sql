-- More kinds of objects than the rich schema has, to be loaded after it by the same master user into database "app".

CREATE ROLE "Röle ""quoted""" LOGIN NOINHERIT CREATEDB CONNECTION LIMIT 3 VALID UNTIL '2042-01-01 00:00+00';
CREATE ROLE rich_auditor LOGIN PASSWORD 'auditor-password';
GRANT rich_clerk TO rich_auditor WITH ADMIN OPTION;
GRANT pg_monitor TO rich_auditor;
COMMENT ON ROLE rich_auditor IS 'looks, and does not touch';
ALTER ROLE rich_clerk SET statement_timeout = '50s';
ALTER ROLE rich_clerk IN DATABASE app SET work_mem = '7MB';
ALTER ROLE "Röle ""quoted""" SET search_path = 'Odd "name"', public;
ALTER ROLE CURRENT_USER SET lock_timeout = '20s';
ALTER DATABASE app SET timezone = 'Europe/Berlin';
GRANT CREATE, TEMPORARY ON DATABASE app TO rich_clerk WITH GRANT OPTION;
COMMENT ON DATABASE app IS 'all of it';

CREATE EXTENSION pgcrypto SCHEMA public;
CREATE EXTENSION unaccent SCHEMA public;

GRANT rich_reader, rich_clerk TO CURRENT_USER;
CREATE SCHEMA extras AUTHORIZATION rich_reader;
GRANT ALL ON SCHEMA extras TO CURRENT_USER;
SET search_path = extras, public;

CREATE TEXT SEARCH CONFIGURATION plain (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION plain ALTER MAPPING FOR hword, word WITH unaccent, simple;
CREATE TYPE point3 AS (x float8, y float8, z float8);
CREATE FUNCTION add3(point3, point3) RETURNS point3 IMMUTABLE LANGUAGE sql
  AS $$ SELECT ROW($1.x + $2.x, $1.y + $2.y, $1.z + $2.z)::extras.point3 $$;
CREATE OPERATOR + (LEFTARG = point3, RIGHTARG = point3, FUNCTION = add3, COMMUTATOR = +);
CREATE FUNCTION norm3(point3) RETURNS float8 IMMUTABLE LANGUAGE sql AS $$ SELECT sqrt($1.x^2 + $1.y^2 + $1.z^2) $$;
CREATE CAST (point3 AS float8) WITH FUNCTION norm3(point3) AS ASSIGNMENT;
CREATE DOMAIN positive AS numeric(20, 5) DEFAULT 1 NOT NULL CHECK (VALUE > 0) CHECK (VALUE < 1e9);
CREATE TYPE status AS ENUM ('a', 'c');
ALTER TYPE status ADD VALUE 'b' BEFORE 'c';

CREATE FUNCTION guarded(IN a int, INOUT b text DEFAULT 'x', VARIADIC rest int[] DEFAULT '{}') RETURNS text
  LANGUAGE plpgsql SECURITY DEFINER STABLE PARALLEL SAFE COST 7 SET search_path = pg_catalog, extras
  AS $body$ BEGIN b := b || a || coalesce(array_length(rest, 1), 0); END $body$;
CREATE PROCEDURE committing() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'changed'; RETURN NULL; END $$;

CREATE TABLE every_type (
  id bigint GENERATED ALWAYS AS IDENTITY (START 1000 INCREMENT 7 MAXVALUE 1000000 CYCLE) PRIMARY KEY,
  i2 smallint, i4 integer, i8 bigint, n numeric, f4 real, f8 double precision, m money, b boolean,
  c "char", c5 char(5), v varchar(20), t text, nm name, by bytea, bi bit(5), vb bit varying,
  d date, ti time, tz timetz, ts timestamp, tstz timestamptz, iv interval,
  ip inet, net cidr, mac macaddr, mac8 macaddr8, u uuid, j json, jb jsonb, jp jsonpath, lsn pg_lsn,
  p point, l line, s lseg, bx box, pa path, po polygon, ci circle, tv tsvector, tq tsquery,
  r int4range, mr int4multirange, a2 text[][], p3 point3, pos positive, st status[], x8 xid8,
  g1 numeric GENERATED ALWAYS AS (i4 * 2.0) STORED
) WITH (fillfactor = 70);
INSERT INTO every_type VALUES
  (DEFAULT, -32768, 2147483647, -9223372036854775808, 'NaN', '-Infinity', 1e-300, '-12.34', true,
   'x', 'ab', 'späť', E'tab\there \\ back''quote\nnewline 🦊', 'nm', '\x00ff5c27', '10101', '0',
   '0044-03-15 BC', '24:00', '12:00+05:30', 'infinity', '-infinity', '-1 year 2 mons -3 days 04:05:06.789',
   '::ffff:1.2.3.4/96', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
   'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a":  1, "a": 2}', '{"a": [null, 1e400, "\u00e9"]}', '$.a[*] ? (@ > 1)',
   '16/B374D848', '(1,2)', '{1,2,3}', '[(0,0),(1,1)]', '((0,0),(1,1))', '[(0,0),(1,1)]', '((0,0),(1,0),(1,1))',
   '<(0,0),5>', '''a b'':1A fat:2', 'fat & (rat | !cat)', '(,5]', '{[1,3), [7,)}', '{{a,NULL},{"c,d",""}}',
   '(1,2,3)', 3.14159, '{a,NULL,c}', '18446744073709551615', DEFAULT);
INSERT INTO every_type (pos) VALUES (DEFAULT);

CREATE TABLE parent (
  a int, b int, note text COLLATE "C" NOT NULL DEFAULT 'n', CONSTRAINT parent_key PRIMARY KEY (a, b) INCLUDE (note)
);
CREATE TABLE child (
  id int PRIMARY KEY, a int, b int, other int UNIQUE DEFERRABLE INITIALLY DEFERRED,
  CONSTRAINT child_parent FOREIGN KEY (a, b) REFERENCES parent MATCH FULL ON UPDATE CASCADE ON DELETE SET NULL DEFERRABLE,
  CONSTRAINT odd CHECK (a % 2 = 1 OR a IS NULL) NO INHERIT
);
ALTER TABLE child ADD CONSTRAINT self FOREIGN KEY (other) REFERENCES child (id) NOT VALID;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON child DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION shout();
CREATE TRIGGER off AFTER DELETE ON child REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION shout();
ALTER TABLE child DISABLE TRIGGER off;
ALTER TABLE child ALTER COLUMN a SET STATISTICS 500;
ALTER TABLE child CLUSTER ON child_pkey;
CREATE INDEX child_where ON child (abs(a) DESC NULLS LAST, b) WHERE a > 0;
INSERT INTO parent SELECT 2 * i + 1, i FROM generate_series(1, 50) i;
INSERT INTO child SELECT i, 2 * i + 1, i FROM generate_series(1, 50) i;

CREATE TABLE by_index (k int NOT NULL, v text);
CREATE UNIQUE INDEX by_index_k ON by_index (k);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_k;
INSERT INTO by_index SELECT i, repeat('long', 3000) || i FROM generate_series(1, 30) i;
CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY);
CREATE TABLE typed OF point3 (PRIMARY KEY (x));
CREATE TABLE lists (tenant text, id int, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
CREATE TABLE lists_ab PARTITION OF lists FOR VALUES IN ('a', 'b');
CREATE TABLE lists_null_or_other PARTITION OF lists DEFAULT;
INSERT INTO lists SELECT chr(97 + i % 5), i FROM generate_series(1, 100) i;

CREATE VIEW updatable AS SELECT id, a FROM child WHERE a > 10 WITH CASCADED CHECK OPTION;
CREATE VIEW invoking WITH (security_invoker = true) AS SELECT * FROM child;
CREATE RECURSIVE VIEW counting (n) AS SELECT 1 UNION ALL SELECT n + 1 FROM counting WHERE n < 5;
CREATE MATERIALIZED VIEW empty_view AS SELECT * FROM parent WHERE false;
CREATE SEQUENCE small AS smallint MINVALUE -5 MAXVALUE 5 CYCLE;
CREATE SEQUENCE owned OWNED BY child.id;
SELECT nextval('small'), nextval('owned'), setval('owned', 4711);
CREATE POLICY nobody ON parent AS RESTRICTIVE FOR SELECT TO "Röle ""quoted""" USING (a > 5);
ALTER TABLE parent ENABLE ROW LEVEL SECURITY;
CREATE PUBLICATION of_users FOR TABLE parent WITH (publish = 'insert');

ALTER TABLE lists OWNER TO rich_clerk;
ALTER VIEW updatable OWNER TO rich_reader;
GRANT ALL ON ALL TABLES IN SCHEMA extras TO rich_auditor;
GRANT SELECT (a, b), REFERENCES (a) ON parent TO PUBLIC;
REVOKE EXECUTE ON FUNCTION guarded FROM PUBLIC;
GRANT EXECUTE ON FUNCTION guarded TO rich_clerk WITH GRANT OPTION;
GRANT USAGE ON TYPE status TO rich_clerk;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
COMMENT ON COLUMN child.other IS 'ein Kommentar';
COMMENT ON CONSTRAINT odd ON child IS 'odd numbers';
COMMENT ON TRIGGER later ON child IS 'later';
COMMENT ON POLICY nobody ON parent IS 'none';
SELECT lo_from_bytea(4711, 'kept as it is');
SELECT lo_from_bytea(4712, decode(repeat('ab', 5000), 'hex'));
GRANT SELECT ON LARGE OBJECT 4711 TO rich_clerk;
COMMENT ON LARGE OBJECT 4711 IS 'a large one';
RESET search_path;
