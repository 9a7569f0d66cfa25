"""DescribeEvents."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from verdigris.aws.errors import invalid_parameter_combination, invalid_parameter_value
from verdigris.domain.events import CATEGORIES
from verdigris.domain.model import Event
from verdigris.rds import views
from verdigris.rds.checks import check_range
from verdigris.rds.context import Context
from verdigris.rds.filters import apply_filters
from verdigris.rds.pagination import Key, paginate

# Of RDS's (API reference, DescribeEvents). Of most of them nothing happens here.
_SOURCE_TYPES = (
    "db-instance", "db-parameter-group", "db-security-group", "db-snapshot", "db-cluster", "db-cluster-snapshot",
    "custom-engine-version", "db-proxy", "blue-green-deployment", "db-shard-group", "zero-etl",
)  # fmt: skip

DEFAULT_DURATION_MINUTES = 60
MAX_DURATION_MINUTES = 14 * 24 * 60  # events are kept for a fortnight


def describe_events(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    apply_filters(params.get("Filters"), (), {})  # "This parameter isn't currently supported", says the reference
    since, until = _time_range(params, context.clock.now())
    source_type, identifier = params.get("SourceType"), params.get("SourceIdentifier")
    if identifier is not None and source_type is None:
        raise invalid_parameter_combination("SourceType must be given together with SourceIdentifier")
    with context.store.transaction() as tx:
        found = tx.events(since=since, until=until)
    categories = set(params.get("EventCategories", ()))
    found = [
        event
        for event in found
        if source_type in (None, event.source_type)
        and (identifier is None or event.source_identifier == identifier.lower())
        and (not categories or categories.intersection(event.categories))
    ]
    page, marker = paginate("DescribeEvents", params, _numbered(found), lambda numbered: numbered[0])
    return {"Events": [views.event_view(context, event) for _, event in page], "Marker": marker}


def describe_event_categories(_context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """Those that events have here."""
    apply_filters(params.get("Filters"), (), {})  # "This parameter isn't currently supported", says the reference
    wanted = params.get("SourceType")
    if wanted is not None and wanted not in _SOURCE_TYPES:
        raise invalid_parameter_value(f"Invalid source type: {wanted}")
    return {
        "EventCategoriesMapList": [
            {"SourceType": source_type, "EventCategories": sorted(categories)}
            for source_type, categories in CATEGORIES.items()
            if wanted in (None, source_type)
        ]
    }


def _time_range(params: Mapping[str, Any], now: datetime) -> tuple[datetime, datetime]:
    """Both ends included. Two of start, end and duration say it all; what is missing is now and an hour."""
    start, end, minutes = params.get("StartTime"), params.get("EndTime"), params.get("Duration")
    check_range(params, "Duration", 1, MAX_DURATION_MINUTES)
    if start is not None and end is not None:
        if minutes is not None:
            raise invalid_parameter_combination("StartTime, EndTime and Duration cannot be given all at once")
        if start > end:
            raise invalid_parameter_value("StartTime must not be later than EndTime")
        return start, end
    duration = timedelta(minutes=DEFAULT_DURATION_MINUTES if minutes is None else minutes)
    if start is not None:
        return start, now if minutes is None else _shifted(start, duration)
    end = now if end is None else end
    return _shifted(end, -duration), end


def _shifted(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:
        raise invalid_parameter_value("The time range leaves the calendar") from None


def _numbered(events: Sequence[Event]) -> list[tuple[Key, Event]]:
    """With a distinct key for each: its moment, and its place among those of the same moment (new ones come last)."""
    return [
        ([at.isoformat(timespec="microseconds"), place], event)
        for at, group in groupby(events, key=lambda event: event.at)
        for place, event in enumerate(group)
    ]
