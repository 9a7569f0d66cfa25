"""Settings come from the environment once, and a wrong one is named."""

import pytest

from verdigris.config import ConfigurationError, load_settings
from verdigris.domain.policy import PinnedSessions, Stragglers, SwitchoverPolicy
from verdigris.domain.quotas import Quota


def test_a_switchover_without_settings_is_as_documented() -> None:
    policy = load_settings({}).switchover
    assert policy == SwitchoverPolicy()
    assert (policy.pinned_sessions, policy.stragglers, policy.pause_budget_s) == (
        PinnedSessions.CLOSE,
        Stragglers.FAIL,
        1.0,
    )


def test_the_load_of_a_copy_is_a_setting() -> None:
    assert load_settings({}).copy_rate_mib is None
    assert load_settings({"VERDIGRIS_COPY_RATE": "20"}).copy_rate_mib == 20


@pytest.mark.parametrize(
    ("endpoints", "readers", "found"),
    [
        ("", "", "127.0.0.2"),
        ("localhost", "", "127.0.0.2"),
        ("10.0.0.5", "", None),
        ("0.0.0.0", "", None),  # noqa: S104 (nobody listens)
        ("10.0.0.5", "10.0.0.6", "10.0.0.6"),
        ("", "127.1.1.1", "127.1.1.1"),
    ],
)
def test_readers_have_an_address_of_their_own(endpoints: str, readers: str, found: str | None) -> None:
    environment = {"VERDIGRIS_ENDPOINT_HOST": endpoints, "VERDIGRIS_READER_HOST": readers}
    assert load_settings(environment).reader_host == found


@pytest.mark.parametrize(
    ("endpoints", "custom", "found"),
    [
        ("", "", tuple(f"127.0.0.{number}" for number in range(3, 8))),
        ("10.0.0.5", "", ()),
        ("10.0.0.5", "10.0.0.7 10.0.0.8 10.0.0.7", ("10.0.0.7", "10.0.0.8")),
    ],
)
def test_custom_endpoints_have_addresses_of_their_own(endpoints: str, custom: str, found: tuple[str, ...]) -> None:
    environment = {"VERDIGRIS_ENDPOINT_HOST": endpoints, "VERDIGRIS_CUSTOM_HOSTS": custom}
    assert load_settings(environment).custom_hosts == found


@pytest.mark.parametrize("endpoints", ["10.0.0.5", "10.0.0.4", "0.0.0.0"])  # noqa: S104 (likewise)
def test_which_are_no_other_endpoints(endpoints: str) -> None:
    environment = {"VERDIGRIS_ENDPOINT_HOST": "10.0.0.5", "VERDIGRIS_READER_HOST": "10.0.0.4"}
    if endpoints == "0.0.0.0":  # noqa: S104 (likewise)
        environment = {"VERDIGRIS_ENDPOINT_HOST": endpoints}
    with pytest.raises(ConfigurationError, match="VERDIGRIS_CUSTOM_HOSTS"):
        load_settings({**environment, "VERDIGRIS_CUSTOM_HOSTS": endpoints})


@pytest.mark.parametrize("endpoints", ["10.0.0.5", "0.0.0.0"])  # noqa: S104 (nobody listens)
def test_which_is_no_other_endpoints(endpoints: str) -> None:
    with pytest.raises(ConfigurationError, match="VERDIGRIS_READER_HOST"):
        load_settings({"VERDIGRIS_ENDPOINT_HOST": endpoints, "VERDIGRIS_READER_HOST": "10.0.0.5"})


def test_the_policies_of_a_switchover_are_settings() -> None:
    environment = {
        "VERDIGRIS_PINNED_SESSIONS": "refuse",
        "VERDIGRIS_STRAGGLERS": "close",
        "VERDIGRIS_PAUSE_BUDGET_MS": "250",
    }
    policy = load_settings(environment).switchover
    assert policy.pinned_sessions is PinnedSessions.REFUSE
    assert policy.stragglers is Stragglers.CLOSE
    assert policy.pause_budget_s == 0.25


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("VERDIGRIS_PINNED_SESSIONS", "kill", "is none of wait, close, refuse"),
        ("VERDIGRIS_PINNED_SESSIONS", "Close", "is none of wait, close, refuse"),
        ("VERDIGRIS_STRAGGLERS", "wait", "is none of fail, close"),
        ("VERDIGRIS_COPY_RATE", "0", "is not a number of MiB from 1 to 1024"),
        ("VERDIGRIS_COPY_RATE", "1025", "is not a number of MiB"),
        ("VERDIGRIS_COPY_RATE", "20M", "is not a number of MiB"),
        ("VERDIGRIS_PAUSE_BUDGET_MS", "1s", "is not a number of milliseconds from 10 to 30000"),
        ("VERDIGRIS_PAUSE_BUDGET_MS", "9", "is not a number of milliseconds"),
        ("VERDIGRIS_PAUSE_BUDGET_MS", "30001", "is not a number of milliseconds"),
        ("VERDIGRIS_PAUSE_BUDGET_MS", "-5", "is not a number of milliseconds"),
        ("VERDIGRIS_PAUSE_BUDGET_MS", "²", "is not a number of milliseconds"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}='{value}' {told}"):
        load_settings({name: value})


@pytest.mark.parametrize("name", ["VERDIGRIS_PINNED_SESSIONS", "VERDIGRIS_STRAGGLERS", "VERDIGRIS_PAUSE_BUDGET_MS"])
def test_an_empty_setting_is_none(name: str) -> None:
    assert load_settings({name: ""}).switchover == SwitchoverPolicy()


class TestTopics:
    def test_names_and_their_webhooks(self) -> None:
        topics = load_settings(
            {"VERDIGRIS_TOPICS": "alerts=https://hooks.example/T1?x=a=b  ops=http://127.0.0.1:9000/ me=http://[::1]/"}
        ).topics
        assert topics == {
            "alerts": "https://hooks.example/T1?x=a=b",
            "ops": "http://127.0.0.1:9000/",
            "me": "http://[::1]/",
        }
        assert load_settings({}).topics == {}

    def test_plain_http_leaves_the_machine_only_on_request(self) -> None:
        given = {"VERDIGRIS_TOPICS": "alerts=http://hooks.example/"}
        with pytest.raises(ConfigurationError, match="in clear"):
            load_settings(given)
        assert load_settings({**given, "VERDIGRIS_INSECURE_TOPICS": "1"}).topics

    @pytest.mark.parametrize(
        "text",
        [
            "alerts",
            "a/b=https://hooks.example/token",
            "a=https://hooks.example/token a=https://hooks.example/token",
            "a=ftp://hooks.example/token",
            "a=https:///token",
            "a=https://hooks.example:port/token",
            "a=https://user:pass@hooks.example/token",
            "a=https://hooks.example/\u00fctoken",
            "a=http://127.0.0.1.hooks.example/token",
        ],
    )
    def test_refused_without_telling_the_url(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="VERDIGRIS_TOPICS") as caught:
            load_settings({"VERDIGRIS_TOPICS": text})
        assert "token" not in str(caught.value)


def test_quotas() -> None:
    quotas = load_settings({"VERDIGRIS_QUOTAS": "DBInstances=2 AllocatedStorage=0"}).quotas
    assert (quotas[Quota.DB_INSTANCES], quotas[Quota.ALLOCATED_STORAGE]) == (2, 0)
    assert quotas[Quota.EVENT_SUBSCRIPTIONS] == 20
    for wrong in ("DBInstances", "DBInstances=-1", "dbinstances=1", "Ponies=1", "DBInstances=1,AllocatedStorage=2"):
        with pytest.raises(ConfigurationError, match="VERDIGRIS_QUOTAS"):
            load_settings({"VERDIGRIS_QUOTAS": wrong})
