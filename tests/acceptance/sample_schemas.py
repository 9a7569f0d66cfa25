"""Published schemas as their authors wrote them, made fit for a master user who is no superuser.

A directory holds ``NAME.sql``, or ``NAME-schema.sql`` with ``NAME-data.sql``; each NAME becomes a database.
"""

import re
import subprocess
from pathlib import Path

from msgspec import Struct
from psycopg.conninfo import conninfo_to_dict

from verdigris.engines.installations import Installation

_FOREIGN_KEY = re.compile(r"^ALTER TABLE [^;]*?\bFOREIGN KEY\b[^;]*;\n", re.MULTILINE)
_JSON_TABLE_VIEW = re.compile(r"^CREATE VIEW (\S+) AS[^;]*\bJSON_TABLE\b[^;]*;\n", re.MULTILINE)
_NEW_DATABASE = re.compile(r"^(DROP DATABASE .*|CREATE DATABASE .*|\\c .*)$", re.MULTILINE | re.IGNORECASE)


class SampleSchema(Struct, frozen=True):
    name: str
    files: tuple[Path, ...]

    def script(self, *, owner: str, version: str) -> str:
        """What psql is to run in an empty database. Changed, and nothing else:

        - objects belong to ``owner`` instead of the author's own superuser;
        - the database is there already;
        - ``DISABLE TRIGGER ALL`` needs a superuser: foreign keys are added after the rows instead, as pg_dump would;
        - a setting and a function that came with version 17 are not used on older ones.
        """
        text = "\n".join(path.read_text() for path in self.files)
        text = text.replace("OWNER TO postgres;", f"OWNER TO {owner};")
        text = _NEW_DATABASE.sub("", text)
        text = text.replace("TRIGGER ALL;", "TRIGGER USER;")
        if version < "17":
            text = text.replace("SET transaction_timeout = 0;", "")
            for view in _JSON_TABLE_VIEW.findall(text):
                text = text.replace(f"ALTER VIEW {view} OWNER TO {owner};", "")
            text = _JSON_TABLE_VIEW.sub("", text)
        if len(self.files) > 1:
            keys = _FOREIGN_KEY.findall(text)
            text = _FOREIGN_KEY.sub("", text) + "\n" + "".join(keys)
        return text


def find_samples(directory: Path) -> list[SampleSchema]:
    samples = []
    for path in sorted(directory.glob("*.sql")):
        if path.stem.endswith("-data"):
            continue
        name = path.stem.removesuffix("-schema")
        data = path.with_name(f"{name}-data.sql")
        samples.append(SampleSchema(name, (path, data) if data.exists() else (path,)))
    return samples


def load(sample: SampleSchema, dsn: str, programs: Installation, *, version: str) -> None:
    """With psql, which stops at the first error."""
    members = conninfo_to_dict(dsn)
    done = subprocess.run(
        [programs.program("psql"), "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "--file=-", dsn],
        input=sample.script(owner=str(members["user"]), version=version),
        env=programs.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{sample.name}: {done.stderr}"
