import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdigris.domain.versions import PostgresVersion
from verdigris.engines import classes
from verdigris.engines.postgres import config

GIB = 1024**3
V18 = PostgresVersion(18, 6)


@pytest.mark.parametrize(
    ("instance_class", "gib"),
    [
        ("db.t4g.micro", 1), ("db.t3.small", 2), ("db.t3.medium", 4), ("db.m7g.large", 8), ("db.r7g.xlarge", 32),
        ("db.r6g.2xlarge", 64), ("db.r7g.4xlarge", 128), ("db.m5.24xlarge", 384), ("db.x2g.large", 32),
    ],
)  # fmt: skip
def test_memory_of_classes(instance_class: str, gib: int) -> None:
    assert classes.memory_bytes(instance_class) == gib * GIB


@pytest.mark.parametrize("name", ["", "db.t3", "t3.micro", "db.q9.large", "db.r7g.hugexlarge", "db.r7g.large\n"])
def test_unknown_classes(name: str) -> None:
    assert classes.memory_bytes(name) is None


def test_formulas_of_rds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "machine_memory_bytes", lambda: 1024 * GIB)
    settings = config.class_settings("db.r7g.large")
    assert settings["max_connections"] == "1802"
    assert settings["shared_buffers"] == str(4 * 1024**2 // 8)
    assert settings["effective_cache_size"] == str(8 * 1024**2 // 8)
    assert config.class_settings("db.r7g.16xlarge")["max_connections"] == "5000"


def test_large_class_on_a_small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "machine_memory_bytes", lambda: 2 * GIB)
    settings = config.class_settings("db.r7g.4xlarge")
    assert settings["shared_buffers"] == str(128 * 1024 // 8)
    assert settings["max_connections"] == "56"


def test_a_groups_values_go_before_but_for_what_verdigris_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "machine_memory_bytes", lambda: 1024 * GIB)
    parameters = {"shared_buffers": "{DBInstanceClassMemory/65536}", "work_mem": "64", "wal_level": "minimal"}
    settings = config.server_settings(V18, "db.r7g.large", parameters)
    assert settings["shared_buffers"] == str(2 * 1024**2 // 8)
    assert settings["work_mem"] == "64"
    assert settings["wal_level"] == "logical"


def test_unknown_class_gets_the_smallest() -> None:
    assert config.class_settings("db.serverless") == config.class_settings("db.t4g.micro")


def test_origins_are_limited_by_their_own_setting_from_18_on() -> None:
    assert "max_active_replication_origins" in config.server_settings(V18, "db.t4g.micro")
    assert "max_active_replication_origins" not in config.server_settings(PostgresVersion(17, 10), "db.t4g.micro")


names = st.from_regex(r"[a-z_][a-z0-9_]{0,20}(\.[a-z][a-z0-9_]{0,20})?", fullmatch=True)
values = st.text(st.characters(exclude_characters="\n\r\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", codec="utf-8"))


@given(st.dictionaries(names, values))
def test_settings_read_back_as_written(settings: dict[str, str]) -> None:
    assert config.parse_settings(config.render_settings(settings)) == settings


@pytest.mark.parametrize("settings", [{"work mem": "1"}, {"work_mem": "1\nfsync = off"}, {"a = 1 #": "x"}, {"a": "\0"}])
def test_nothing_can_be_smuggled_in(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not a setting"):
        config.render_settings(settings)


def test_include_line_is_added_once_and_last() -> None:
    text = config.managed("a = 1\n")
    assert text.splitlines()[-1] == config.INCLUDE_LINE
    assert config.managed(text) == text


def test_comments_are_left_out_and_settings_are_not() -> None:
    text = config.managed("# a\n\n  # b = 2\na = '# 1'  # of them\n\tinclude_dir = 'conf.d'\n#c = 3\n")
    assert text.splitlines() == ["a = '# 1'  # of them", "\tinclude_dir = 'conf.d'", config.INCLUDE_LINE]
