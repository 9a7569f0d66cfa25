"""Finding the text of the statement that an event trigger fires for: functions in the source's schema.

An event trigger is not told the text of its statement, only the client's whole string (``current_query()``). The rules
are those of psql's own lexer (PostgreSQL's fe_utils/psqlscan.l): quotes, dollar quotes, nested comments, parentheses
(``CREATE RULE ... DO (a; b)``) and ``BEGIN ATOMIC ... END`` keep a semicolon from ending a statement.

``words`` of a statement are its identifiers in their order: keywords and names in lower case, quoted ones with their
quotes, ``(`` where it follows one at once, and string constants that name a moment (``'now'``). ``statement`` is
without the word CONCURRENTLY, which nothing may say inside a transaction.
"""

from psycopg import sql

from verdigris.engines.postgres.names import ObjectNames

# The statement that begins after ``start`` characters, and how many characters have then been read; no words: there is
# none. Empty ones are passed over.
#
# The text is looked at through a window, because each regular expression converts the whole of its argument. A token
# that is longer than the window, and therefore does not match, has all the rest let in.
_NEXT_STATEMENT = sql.SQL(r"""
    CREATE FUNCTION {schema}.next_statement(
        source text, start integer, OUT statement text, OUT words text[], OUT reached integer
    )
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
    SET standard_conforming_strings = 'on'
    AS $function$
    DECLARE
        -- Everything but ASCII's other characters, as in scan.l: whatever is beyond ASCII may be part of a name.
        name CONSTANT text := '[^\x01-\x40\x5b-\x5e\x60\x7b-\x7f][^\x01-\x23\x25-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]*';
        token_pattern CONSTANT text := '^(?:--[^\n\r]*|/\*|"(?:[^"]|"")*"|[eE]''(?:[^''\\]|\\.|'''')*'''
            '|''(?:[^'']|'''')*''|\$(?:[^\x01-\x40\x5b-\x5e\x60\x7b-\x7f][^\x01-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]*)?\$'
            '|[0-9.]+|' || name || '|[\x01-\x21\x23\x25\x26\x2a-\x2c\x3a\x3c-\x40\x5b-\x5e\x60\x7b-\x7f]+)';
        opening CONSTANT text := '^(?:[eE]?''|"|/\*|\$)';
        the_length CONSTANT integer := length(source);
        ahead text := '';
        let_in integer := start;
        token text;
        word text;
        ends integer;
        parentheses integer := 0;
        blocks integer := 0;
        comments integer;
        is_routine boolean := false;
        after_name boolean := false;
    BEGIN
        statement := '';
        words := '{{}}';
        reached := start;
        LOOP
            IF length(ahead) < 500 AND let_in < the_length THEN
                ahead := ahead || substr(source, let_in + 1, 2000);
                let_in := least(let_in + 2000, the_length);
            END IF;
            EXIT WHEN ahead = '';
            token := substring(ahead FROM token_pattern);
            ends := length(token);
            IF token = '/*' THEN
                comments := 1;
                WHILE comments > 0 LOOP
                    word := substring(substr(ahead, ends + 1) FROM '^(?:[^/*]|/(?!\*)|\*(?!/))*(?:/\*|\*/)');
                    ends := ends + length(word);
                    EXIT WHEN ends IS NULL;
                    comments := comments + CASE right(word, 2) WHEN '/*' THEN 1 ELSE -1 END;
                END LOOP;
            ELSIF token ~ '^\$' THEN
                ends := nullif(strpos(substr(ahead, ends + 1), token), 0) + 2 * ends - 1;
            END IF;
            IF let_in < the_length AND (ends = length(ahead) OR ends IS NULL AND ahead ~ opening) THEN
                ahead := ahead || substr(source, let_in + 1);
                let_in := the_length;
                CONTINUE;
            ELSIF ends IS NULL AND ahead ~ opening AND ahead !~ '^\$' THEN
                RAISE EXCEPTION 'a quoted text or a comment has no end' USING ERRCODE = 'syntax_error';
            END IF;
            ends := coalesce(ends, 1);
            token := left(ahead, ends);
            ahead := substr(ahead, ends + 1);
            reached := reached + ends;

            IF token = ';' AND parentheses = 0 AND blocks = 0 THEN
                EXIT WHEN words <> '{{}}';
                statement := '';
                CONTINUE;
            END IF;
            IF token = '(' THEN
                parentheses := parentheses + 1;
                IF after_name THEN
                    words := words || token;
                END IF;
            ELSIF token = ')' THEN
                parentheses := greatest(parentheses - 1, 0);
            END IF;
            after_name := token ~ ('^(?:' || name || '|".*")$');
            IF token ~ '^"' THEN
                words := words || token;
            ELSIF after_name THEN
                word := lower(token);
                words := words || word;
                IF word = 'concurrently' THEN
                    token := '';
                ELSIF cardinality(words) <= 4 AND word IN ('function', 'procedure') THEN
                    is_routine := words[1] = 'create';
                ELSIF is_routine AND parentheses = 0 THEN
                    blocks := CASE WHEN word = 'begin' OR word = 'case' AND blocks > 0 THEN blocks + 1
                                   WHEN word = 'end' THEN greatest(blocks - 1, 0)
                                   ELSE blocks END;
                END IF;
            ELSIF token ~* '^''\s*(?:now|today|tomorrow|yesterday)\s*''$' THEN
                words := words || $$'now'$$::text;
            END IF;
            statement := statement || token;
        END LOOP;
    END
    $function$
""")

# The statement that an event trigger fires for: out of the frame that ran it, if it was a function's, or else out of
# the client's string, behind the one before. How far we have come is remembered as long as this string runs. One that
# rolls back could run the same stretch twice.
_THE_STATEMENT = sql.SQL("""
    CREATE FUNCTION {schema}.the_statement(
        tag text, context text, OUT statement text, OUT words text[], OUT refused text
    )
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET standard_conforming_strings = 'on'
    AS $function$
    DECLARE
        noise CONSTANT text[] :=
            '{{or,replace,global,local,temp,temporary,unlogged,unique,constraint,recursive}}';
        source text := current_query();
        this_string text := md5(source) || statement_timestamp();
        place CONSTANT text := {place};
        reached integer := 0;
        first_words text;
    BEGIN
        IF context <> '' THEN
            source := substring(context FROM '^SQL statement "(.*)$');
            source := left(source, strpos(source, E'"\\nPL/pgSQL function ') - 1);
            IF coalesce(source, '') = '' THEN
                refused := 'it was run by a function that is not in PL/pgSQL';
                RETURN;
            END IF;
        ELSIF split_part(coalesce(current_setting(place, true), ''), ' at ', 1) = this_string THEN
            reached := split_part(current_setting(place), ' at ', 2)::integer;
        END IF;
        IF length(source) > 1000000 THEN
            refused := 'it came in a string of more than a million characters';
            RETURN;
        ELSIF context = '' AND tag !~ 'FUNCTION|PROCEDURE' AND source ~* '\\mrollback\\M' THEN
            refused := 'it came in one string with ROLLBACK';
            RETURN;
        END IF;
        LOOP
            SELECT n.* INTO statement, words, reached FROM {schema}.next_statement(source, reached) n;
            EXIT WHEN words = '{{}}';
            SELECT string_agg(word, ' ' ORDER BY place_of) INTO first_words
              FROM (SELECT word, place_of FROM unnest(words[:8]) WITH ORDINALITY AS w (word, place_of)
                     WHERE word <> ALL (noise) OR place_of > 5) AS w;
            IF starts_with(first_words || ' ', lower(replace(tag, ' AS', '')) || ' ') THEN
                IF context = '' THEN
                    PERFORM set_config(place, this_string || ' at ' || reached, false);
                ELSIF (SELECT cardinality(n.words) FROM {schema}.next_statement(source, reached) n) > 0 THEN
                    refused := 'a function ran it as one of several statements in a string';
                    statement := NULL;
                END IF;
                RETURN;
            END IF;
            EXIT WHEN context <> '';
        END LOOP;
        statement := NULL;
        words := NULL;
        refused := 'its text was not found in what the client sent';
    END
    $function$
""")

# Named as values that differ from call to call, or from session to session, without being functions to the parser.
_MOMENTS = (
    "current_catalog", "current_date", "current_role", "current_schema", "current_time", "current_timestamp",
    "current_user", "localtime", "localtimestamp", "session_user", "system_user", "user", "'now'",
)  # fmt: skip

# Whether a statement's outcome for existing rows may be another one elsewhere or later: it names a function that is not
# immutable. Conversions (a function named as a type) follow the settings that are carried.
_IS_DOUBTFUL = sql.SQL("""
    CREATE FUNCTION {schema}.is_doubtful(words text[]) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT words && {moments}
            OR words && ARRAY['serial', 'bigserial', 'smallserial', 'serial2', 'serial4', 'serial8', 'identity']
            OR EXISTS (SELECT FROM unnest(words, words[2:]) AS w (word, next)
                         JOIN pg_proc p ON p.proname = trim(both '"' FROM w.word) AND p.provolatile <> 'i'
                        WHERE w.next = '('
                          AND NOT EXISTS (SELECT FROM pg_type t WHERE t.oid < 16384 AND t.typname = p.proname));
    END
""")

FUNCTIONS = {"next_statement": _NEXT_STATEMENT, "the_statement": _THE_STATEMENT, "is_doubtful": _IS_DOUBTFUL}


def parts(names: ObjectNames) -> dict[str, sql.Composable]:
    """What these functions' texts leave open, but for the schema."""
    return {
        "place": sql.Literal(f"{names.base}.place"),
        "moments": sql.Literal(list(_MOMENTS)),
    }
