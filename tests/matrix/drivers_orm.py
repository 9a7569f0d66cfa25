"""SQLAlchemy and Django, each with its own way of keeping connections."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing

import django
import sqlalchemy as sa
from django.conf import settings
from django.db import connection, connections, models, transaction
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.matrix.case import case
from tests.matrix.stage import BLUE, GREEN, LIMIT_S, Stage

SQLALCHEMY, DJANGO = "SQLAlchemy", "Django"


class Base(DeclarativeBase):
    pass


class Gadget(Base):
    __tablename__ = "gadgets"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def _engine(stage: Stage, driver: str) -> sa.Engine:
    members = stage.address()
    url = sa.URL.create(
        f"postgresql+{driver}",
        username=members["user"],
        password=members["password"],
        host=members["host"],
        port=members["port"],
        database=members["dbname"],
        query={"sslmode": "require"},
    )
    return sa.create_engine(url, pool_size=3)


@case("idle pool", SQLALCHEMY)
def idle_pool(stage: Stage) -> Iterator[None]:
    for_each = [_engine(stage, driver) for driver in ("psycopg", "psycopg2")]
    for engine in for_each:
        with engine.connect() as one, engine.connect() as two:
            pids = {one.scalar(sa.text("SELECT pg_backend_pid()")), two.scalar(sa.text("SELECT pg_backend_pid()"))}
            assert len(pids) == 2
    yield
    for engine in for_each:
        with engine.connect() as one, engine.connect() as two:
            for held in (one, two):
                assert held.scalar(sa.text("SHOW server_version")) == GREEN
        assert engine.pool.status().startswith("Pool size: 3  Connections in pool: 2")  # none was made anew
        engine.dispose()


@case("session of the ORM", SQLALCHEMY, straggles=True)
def orm(stage: Stage) -> Iterator[None]:
    engine = _engine(stage, "psycopg")
    with Session(engine) as session:
        gadget = Gadget(name="flushed before")
        session.add(gadget)
        session.flush()
        rows = session.execute(sa.select(sa.func.generate_series(1, 1000)).execution_options(yield_per=10))
        first = rows.fetchmany(10)

        def end() -> int:
            count = len(first) + len(rows.fetchall())
            gadget.name = "changed while it waits"
            session.commit()
            return count

        ending = stage.once_attempted(end)
        yield
        assert ending.result(LIMIT_S) == 1000
        assert gadget.name == "changed while it waits"
        session.add(Gadget(name="after"))
        session.commit()
        names = session.scalars(sa.select(Gadget.name).where(Gadget.id >= gadget.id).order_by(Gadget.id)).all()
        assert names == ["changed while it waits", "after"]
        assert session.scalar(sa.text("SHOW server_version")) == GREEN
    engine.dispose()


@case("busy engine", SQLALCHEMY)
def busy(stage: Stage) -> Iterator[None]:
    engine = _engine(stage, "psycopg")

    def go(worker: int) -> int:
        n = 0
        while stage.goes_on():
            with engine.begin() as held:
                held.execute(
                    sa.text("INSERT INTO written VALUES (:by, :n)"),
                    [{"by": f"sqlalchemy {worker}", "n": 10 * n + i} for i in range(10)],
                )
            n += 1
        return n

    working = [stage.meanwhile(go, worker) for worker in range(2)]
    yield
    with engine.connect() as held:
        for worker, task in enumerate(working):
            count = held.scalar(sa.text("SELECT count(*) FROM written WHERE by = :by"), {"by": f"sqlalchemy {worker}"})
            assert count == 10 * task.result(LIMIT_S)
    engine.dispose()


def _start_django(stage: Stage) -> None:
    """Once a process: its settings cannot be changed."""
    members = stage.address()
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": members["dbname"],
        "USER": members["user"],
        "PASSWORD": members["password"],
        "HOST": members["host"],
        "PORT": members["port"],
        "CONN_MAX_AGE": None,
        "TIME_ZONE": "Europe/Berlin",
        "OPTIONS": {"sslmode": "require"},
    }
    binding = database | {"OPTIONS": {"sslmode": "require", "server_side_binding": True}}
    settings.configure(DATABASES={"default": database, "binding": binding}, USE_TZ=True)
    django.setup()


@case("persistent connections", DJANGO)
def persistent(stage: Stage) -> Iterator[None]:
    _start_django(stage)

    class Device(models.Model):
        id: "models.BigAutoField[int, int]" = models.BigAutoField(primary_key=True)
        name: "models.TextField[str, str]" = models.TextField()

        class Meta:
            app_label = "matrix"
            db_table = "gadgets"
            managed = False

    pids = {}
    for alias in ("default", "binding"):
        Device.objects.using(alias).create(name=f"django {alias}")
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            pids[alias] = cursor.fetchone()
    made = {alias: connections[alias].connection for alias in pids}
    yield
    for alias in pids:
        with transaction.atomic(using=alias):
            Device.objects.using(alias).create(name=f"django {alias} after")
        found = Device.objects.using(alias).filter(name__startswith=f"django {alias}").order_by("id")
        assert [device.name for device in found] == [f"django {alias}", f"django {alias} after"]
        assert connections[alias].connection is made[alias]
        with connections[alias].cursor() as cursor:
            cursor.execute("SHOW server_version")
            assert cursor.fetchone() == (GREEN,)
            cursor.execute("SHOW timezone")
            assert cursor.fetchone() == ("Europe/Berlin",)
            cursor.execute("SELECT pg_backend_pid()")
            assert cursor.fetchone() != pids[alias]
        connections[alias].close()


@case("atomic block", DJANGO, straggles=True)
def atomic(stage: Stage) -> Iterator[None]:
    """Django's connections belong to the thread that made them: this one has its own."""

    def block() -> str:
        with closing(connection), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("INSERT INTO written VALUES ('django', 1)")
            entered.set_result(None)
            assert stage.attempted.wait(LIMIT_S)
            with transaction.atomic():
                cursor.execute("INSERT INTO written VALUES ('django', 2)")
            cursor.execute("SELECT current_setting('server_version')")
            version: str = cursor.fetchone()[0]
        return version

    entered: Future[None] = Future()
    going = stage.spawn(block)
    entered.result(LIMIT_S)
    yield
    assert going.result(LIMIT_S) == BLUE
    with stage.connect() as other:
        assert other.execute("SELECT count(*) FROM written WHERE by = 'django'").fetchone() == (2,)
