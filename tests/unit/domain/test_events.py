"""Texts of events that tools read (RDS-EVENT numbers are not shown by DescribeEvents; categories and texts are)."""

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from tests.unit.store.test_store import a_deployment, an_instance
from verdigris.domain import events
from verdigris.domain.model import BlueGreenDeployment, Event, Member
from verdigris.domain.statuses import MemberStatus, SourceType

NOW = datetime(2026, 5, 4, tzinfo=UTC)


@pytest.fixture
def deployment() -> BlueGreenDeployment:
    deployment = a_deployment()
    member = replace(deployment.primary, target_resource_id="db-G", target_identifier="app-green-abc123")
    return replace(deployment, members=(member,))


def told(found: list[Event]) -> list[tuple[str, tuple[str, ...], str]]:
    return [(event.event_id[-4:], event.categories, event.message) for event in found]


def test_an_instance_tells_who_it_was_then() -> None:
    event = events.instance_deleted(an_instance("app"), NOW)
    assert (event.source_type, event.source_identifier, event.source_resource_id, event.at) == (
        SourceType.DB_INSTANCE,
        "app",
        "db-APP",
        NOW,
    )


def test_one_event_per_change() -> None:
    found = events.instance_modified(an_instance("next"), ["new_identifier", "instance_class", "unheard_of"], NOW)
    assert told(found) == [
        ("0014", ("configuration change",), "Finished applying modification to DB instance class"),
        ("0044", ("notification",), "DB instance renamed to next"),
    ]


def test_a_switchover_from_begin_to_end(deployment: BlueGreenDeployment) -> None:
    assert told(events.switchover_started(deployment, NOW)) == [
        ("0247", ("notification",), "Switchover from app to app-green-abc123 started."),
        ("0250", ("notification",), "Switchover from primary app to app-green-abc123 started."),
    ]
    member = replace(deployment.primary, source_identifier="app-old1", target_identifier="app")
    after = replace(deployment, members=(member,))
    assert told(events.switchover_completed(after, NOW, greens={"app": "app-green-abc123"}))[0] == (
        "0251",
        ("notification",),
        (
            "Switchover from primary app to app-green-abc123 completed. "
            "Renamed app to app-old1 and app-green-abc123 to app."
        ),
    )
    assert "app-old1" in events.switchover_completed(after, NOW)[0].message


def test_replicas_have_events_of_their_own(deployment: BlueGreenDeployment) -> None:
    """But for one that has lost a side, which stays behind."""
    reader = Member(
        source_resource_id="db-R",
        source_identifier="reader",
        target_resource_id="db-S",
        target_identifier="reader-green-abc124",
    )
    lost = replace(reader, source_identifier="lost", status=MemberStatus.MISSING_TARGET)
    deployment = replace(deployment, members=(*deployment.members, reader, lost))
    assert [message for _, _, message in told(events.switchover_started(deployment, NOW))] == [
        "Switchover from app to app-green-abc123 started.",
        "Switchover from primary app to app-green-abc123 started.",
        "Switchover from read replica reader to reader-green-abc124 started.",
    ]
    assert [number for number, _, _ in told(events.switchover_canceled(deployment, "lag", NOW))] == [
        "0252",
        "0252",
        "0249",
    ]


def test_a_reason_fits_into_the_sentence(deployment: BlueGreenDeployment) -> None:
    canceled = events.switchover_canceled(deployment, "replication lag.", NOW)
    assert told(canceled) == [
        (
            "0252",
            ("failure",),
            "Switchover from primary app to app-green-abc123 was canceled due to replication lag.",
        ),
        ("0249", ("failure",), "Switchover canceled on blue/green deployment."),
    ]
    failed = events.deployment_creation_failed(deployment, "Table x has no key.", NOW)
    assert failed.message == "Creation of blue/green deployment failed because Table x has no key."


# ------------------------------------------------------------------------------------------------------------ clusters


@pytest.fixture
def of_a_cluster(deployment: BlueGreenDeployment) -> BlueGreenDeployment:
    """With a reader: of members nothing is told."""
    reader = replace(deployment.primary, source_identifier="reader", target_identifier="reader-green-abc124")
    cluster = replace(deployment.primary, source_identifier="shop", target_identifier="shop-green-abc125")
    return replace(deployment, members=(*deployment.members, reader), cluster=cluster)


def switched_over(deployment: BlueGreenDeployment) -> BlueGreenDeployment:
    assert deployment.cluster is not None
    cluster = replace(deployment.cluster, source_identifier="shop-old1", target_identifier="shop")
    return replace(deployment, cluster=cluster)


GREENS = {"shop": "shop-green-abc125"}


def test_of_a_cluster_the_whole_is_told(of_a_cluster: BlueGreenDeployment) -> None:
    assert told(events.switchover_started(of_a_cluster, NOW)) == [
        ("0247", ("notification",), "Switchover from shop to shop-green-abc125 started."),
        ("0259", ("notification",), "Switchover from DB cluster shop to shop-green-abc125 started."),
    ]
    assert told(events.switchover_completed(switched_over(of_a_cluster), NOW, greens=GREENS)) == [
        (
            "0260",
            ("notification",),
            (
                "Switchover from DB cluster shop to shop-green-abc125 completed. "
                "Renamed shop to shop-old1 and shop-green-abc125 to shop."
            ),
        ),
        ("0248", ("notification",), "Switchover completed on blue/green deployment."),
    ]
    assert told(events.switchover_canceled(of_a_cluster, "replication lag.", NOW)) == [
        (
            "0261",
            ("failure",),
            "Switchover from DB cluster shop to shop-green-abc125 was canceled due to replication lag.",
        ),
        ("0249", ("failure",), "Switchover canceled on blue/green deployment."),
    ]


def test_sequences_of_a_cluster_are_told_as_its_own(of_a_cluster: BlueGreenDeployment) -> None:
    synced = "Sequence sync for switchover of DB cluster shop to shop-green-abc125"
    assert told(events.sequences_synchronised(switched_over(of_a_cluster), NOW, greens=GREENS)) == [
        ("0311", ("notification",), f"{synced} has initiated."),
        ("0312", ("notification",), f"{synced} has completed."),
    ]


def test_of_a_cluster_whose_green_name_is_not_known(of_a_cluster: BlueGreenDeployment) -> None:
    after = switched_over(of_a_cluster)
    moved = "Switchover of DB cluster shop completed. Renamed the former shop to shop-old1."
    assert events.switchover_completed(after, NOW)[0].message == moved
    assert " shop to its green DB cluster has " in events.sequences_synchronised(after, NOW)[0].message
