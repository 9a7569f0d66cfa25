-- What the master user does on blue while green follows; each part, between two lines of -- ====, is one string to the
-- server. All of it is carried.
-- ====
CREATE TABLE public.a (id int PRIMARY KEY, note text)
-- ====
INSERT INTO public.a SELECT i, 'n' || i FROM generate_series(1, 100) i
-- ====
ALTER TABLE a ADD COLUMN made_at timestamptz NOT NULL DEFAULT now(); INSERT INTO a VALUES (1000, 'x'); CREATE INDEX concurrently_not ON a (note)
-- ====
CREATE INDEX CONCURRENTLY a_note ON a (note)
-- ====
DO $$ BEGIN IF true THEN CREATE TABLE nested (id serial PRIMARY KEY, a_id int REFERENCES a); INSERT INTO nested (a_id) VALUES (1), (2); END IF; CREATE TYPE mood AS ENUM ('sad', 'ok'); EXCEPTION WHEN duplicate_object THEN NULL; END $$
-- ====
ALTER TYPE mood ADD VALUE 'happy'
-- ====
CREATE TABLE keyless (m mood, n int); INSERT INTO keyless SELECT 'happy', i FROM generate_series(1,5) i; UPDATE keyless SET n = n + 1
-- ====
CREATE TEMP TABLE tt (x int); CREATE TABLE after_temp (x int primary key); INSERT INTO after_temp VALUES (1)
-- ====
CREATE VIEW v AS SELECT * FROM a; GRANT SELECT ON v TO PUBLIC; COMMENT ON VIEW v IS 'it''s'
-- ====
CREATE TABLE ctas AS SELECT * FROM a
-- ====
ALTER TABLE ctas ADD PRIMARY KEY (id)
-- ====
DROP TABLE ctas
-- ====
ALTER TABLE a RENAME TO b; ALTER TABLE b RENAME COLUMN note TO remark; UPDATE b SET remark = 'changed' WHERE id < 10
-- ====
DROP INDEX CONCURRENTLY a_note
-- ====
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT count(*)::int FROM b'
-- ====
ALTER TABLE b ADD COLUMN token uuid DEFAULT gen_random_uuid()
-- ====
DROP VIEW v; DROP FUNCTION f(); DROP TABLE after_temp
-- ====
CREATE TABLE small AS SELECT i AS id, 'x' || i AS t FROM generate_series(1, 300) i; UPDATE small SET t = 'y' WHERE id = 3
-- ====
SELECT * INTO small2 FROM small
-- ====
CREATE EXTENSION ltree; CREATE TABLE paths (id int PRIMARY KEY, path ltree); CREATE INDEX ON paths USING gist (path); INSERT INTO paths VALUES (1, 'a.b')
-- ====
 CREATE TABLE h (id int primary key, h hstore default 'a=>1'); INSERT INTO h VALUES (1)
-- ====
CREATE SCHEMA app CREATE TABLE inner_table (id int PRIMARY KEY) CREATE VIEW inner_view AS SELECT * FROM inner_table
-- ====
SET search_path = app, public
-- ====
CREATE TABLE things (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL DEFAULT 'a', at date DEFAULT '02/01/2026', price numeric CHECK (price > 0), total numeric GENERATED ALWAYS AS (price * 2) STORED); INSERT INTO things (kind, price) SELECT 'k' || i, i FROM generate_series(1, 500) i
-- ====
SET datestyle = 'SQL, DMY'
-- ====
ALTER TABLE things ADD COLUMN since date DEFAULT '02/01/2026', ADD COLUMN who name DEFAULT current_user
-- ====
SET datestyle = 'ISO, MDY'
-- ====
CREATE TABLE parts (id int, day date NOT NULL, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)
-- ====
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01'); CREATE TABLE parts_2 (LIKE parts INCLUDING ALL); INSERT INTO parts_2 VALUES (1, '2026-02-03')
-- ====
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01'); INSERT INTO parts VALUES (2, '2026-01-03'), (3, '2026-02-05')
-- ====
ALTER TABLE parts DETACH PARTITION parts_1; INSERT INTO parts_1 VALUES (9, '2026-01-09')
-- ====
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS things_kind ON things (kind) WHERE price > 3
-- ====
ALTER TABLE things ADD CONSTRAINT fk FOREIGN KEY (id) REFERENCES things (id) NOT VALID; ALTER TABLE things VALIDATE CONSTRAINT fk
-- ====
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.kind := 'stamped;'; RETURN NEW; END $$; CREATE TRIGGER stamp BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION stamp(); INSERT INTO things (kind, price) VALUES ('x', 5)
-- ====
CREATE DOMAIN posint AS int CHECK (VALUE > 0); CREATE TYPE pair AS (a int, b posint); CREATE TYPE span AS RANGE (subtype = int4); ALTER DOMAIN posint SET DEFAULT 3; ALTER TYPE pair ADD ATTRIBUTE c text
-- ====
ALTER TABLE things ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON things FOR SELECT USING (price > 0); ALTER POLICY p ON things USING (price > 1)
-- ====
CREATE STATISTICS st ON kind, price FROM things; ALTER STATISTICS st SET STATISTICS 100; CREATE RULE r AS ON UPDATE TO inner_table WHERE NEW.id = 7 DO INSTEAD (DELETE FROM inner_table WHERE id = 8; SELECT 1)
-- ====
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO rich_reader; CREATE TABLE with_default_acl (id int PRIMARY KEY); GRANT SELECT (kind), UPDATE (price) ON things TO rich_reader; REVOKE ALL ON FUNCTION stamp() FROM PUBLIC
-- ====
CREATE MATERIALIZED VIEW mv AS SELECT kind, count(*) FROM things GROUP BY 1; CREATE UNIQUE INDEX ON mv (kind); REFRESH MATERIALIZED VIEW mv
-- ====
CREATE SEQUENCE seq START 7 INCREMENT -2 MINVALUE -100 MAXVALUE 10; ALTER SEQUENCE seq RESTART 5 CACHE 3; ALTER SEQUENCE seq OWNED BY things.id
-- ====
CREATE UNLOGGED TABLE fast (id int PRIMARY KEY, x text)
-- ====
ALTER TABLE fast SET LOGGED; INSERT INTO fast VALUES (1, 'x')
-- ====
ALTER TABLE things ADD COLUMN n int DEFAULT 1
-- ====
CREATE TEMP TABLE parts (id int); ALTER TABLE parts ADD COLUMN x int; GRANT SELECT ON parts TO PUBLIC; CREATE INDEX ON parts (id); COMMENT ON TABLE parts IS 'temp'; DROP TABLE parts
-- ====
ALTER TABLE things RENAME COLUMN since TO "Since When"; COMMENT ON COLUMN things."Since When" IS $q$it's; odd$q$; ALTER TABLE things ALTER COLUMN "Since When" SET NOT NULL, ALTER kind SET STORAGE EXTERNAL
-- ====
ALTER SCHEMA app RENAME TO app2; SET search_path = app2, public; INSERT INTO things (kind, price) VALUES ('after rename', 2); UPDATE inner_table SET id = 1
-- ====
CREATE TABLE no_key (x int, y text, z int[]); INSERT INTO no_key VALUES (1, 'a', '{1}'), (2, 'b', '{2}'); UPDATE no_key SET y = 'c' WHERE x = 1; DELETE FROM no_key WHERE x = 2
-- ====
ALTER TABLE fast DROP CONSTRAINT fast_pkey; UPDATE fast SET x = 'y'
-- ====
DO $$ DECLARE i int; BEGIN FOR i IN 1..3 LOOP EXECUTE format('CREATE TABLE made_%s (id int PRIMARY KEY)', i); EXECUTE format('INSERT INTO made_%s VALUES (%s)', i, i); END LOOP; END $$
-- ====
CREATE PROCEDURE migrate() LANGUAGE plpgsql AS $$ BEGIN ALTER TABLE made_1 ADD COLUMN x int DEFAULT 4; COMMIT; ALTER TABLE made_2 ADD COLUMN y timestamptz DEFAULT clock_timestamp(); END $$
-- ====
CALL migrate()
-- ====
DROP TABLE made_3, inner_table CASCADE
