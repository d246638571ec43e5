"""Widgets that are tables: of devices, of instants, of alarms, of RPC."""

from __future__ import annotations

from collections.abc import Iterable

from .columns import GREY
from .devices import Alias, Filter
from .ids import Json
from .widgets import on_row_click, source, timed, widget
from .windows import DAY, last


def device_table(
    title: str,
    of: Alias,
    columns: Iterable[Json],
    *,
    only: Filter | None = None,
    name: str = "Device",
    opens: str | None = None,
    one: bool = False,
    sort: str = "entityName",
) -> Json:
    """A row for each device, its latest values (entities_table.json).

    name: title of the column with the device's name.  opens: state for a click on a row.
    one: for an alias that means a single device: no search, no pages.
    """
    settings = {
        "entitiesTitle": title,
        "enableSearch": not one,
        "enableSelectColumnDisplay": not one,
        "enableStickyHeader": True,
        "enableStickyAction": True,
        "reserveSpaceForHiddenAction": "true",
        "displayEntityName": True,
        "entityNameColumnTitle": name,
        "displayEntityLabel": False,
        "displayEntityType": False,
        "displayPagination": not one,
        "defaultPageSize": 20,
        "defaultSortOrder": sort,
        "useRowStyleFunction": False,
    }
    return widget(
        "cards.entities_table",
        "latest",
        title,
        settings,
        datasources=[source(of, columns, only)],
        displayTimewindow=False,
        actions={} if opens is None else on_row_click(opens),
    )


def row_table(title: str, of: Alias, columns: Iterable[Json], timewindow: Json) -> Json:
    """A row for each instant, newest first, a tab for each device (timeseries_table.json)."""
    settings = {
        "enableSearch": True,
        "enableSelectColumnDisplay": True,
        "enableStickyHeader": True,
        "enableStickyAction": True,
        "showCellActionsMenu": True,
        "reserveSpaceForHiddenAction": "true",
        "showTimestamp": True,
        "dateFormat": {"format": "yyyy-MM-dd HH:mm"},
        "displayPagination": True,
        "defaultPageSize": 20,
        "pageStepCount": 3,
        "pageStepIncrement": 20,
        "useEntityLabel": False,
        "hideEmptyLines": True,
        "disableStickyHeader": False,
        "useRowStyleFunction": False,
        "rowStyleFunction": "",
        "sortOrder": {"property": "createdTime", "direction": "DESC"},
    }
    return widget(
        "cards.timeseries_table",
        "timeseries",
        title,
        settings,
        datasources=[{**source(of, columns), "latestDataKeys": []}],
        configMode="advanced",
        **timed(timewindow),
    )


def alarm_table(title: str, of: Alias) -> Json:
    """Active alarms of the last 30 days (alarms_table.json)."""
    settings = {
        "alarmsTitle": title,
        "enableSelection": True,
        "enableSearch": True,
        "enableSelectColumnDisplay": True,
        "enableFilter": True,
        "enableStickyHeader": True,
        "enableStickyAction": False,
        "displayDetails": True,
        "allowAcknowledgment": True,
        "allowClear": True,
        "allowAssign": True,
        "displayActivity": True,
        "displayPagination": True,
        "defaultPageSize": 10,
        "defaultSortOrder": "-createdTime",
        "useRowStyleFunction": False,
        "entitiesTitle": None,
    }
    columns = {
        "createdTime": "Since",
        "originator": "Device",
        "type": "Alarm",
        "severity": "Severity",
        "status": "Status",
    }
    keys = [
        {
            "name": key,
            "type": "alarm",
            "label": label,
            "color": GREY,
            "settings": {"useCellStyleFunction": False, "useCellContentFunction": False},
            "_hash": number / 10,
        }
        for number, (key, label) in enumerate(columns.items())
    ]
    return widget(
        "alarm_widgets.alarms_table",
        "alarm",
        title,
        settings,
        alarmSource={
            "type": "entity",
            "name": "alarms",
            "entityAliasId": of.id,
            "filterId": None,
            "dataKeys": keys,
        },
        alarmFilterConfig={
            "statusList": ["ACTIVE"],
            "severityList": [],
            "typeList": [],
            "searchPropagatedAlarms": False,
        },
        **timed(last(30 * DAY, aggregation="NONE")),
    )


def rpc_table(title: str, of: Alias) -> Json:
    """Persistent RPC: sends any, and shows the result of each (persistent_rpc_table.json)."""
    settings = {
        "enableFilter": True,
        "enableStickyHeader": True,
        "enableStickyAction": True,
        "displayPagination": True,
        "defaultPageSize": 10,
        "defaultSortOrder": "-createdTime",
        "displayColumns": ["rpcId", "messageType", "status", "method", "createdTime",
                           "expirationTime"],
        "displayDetails": True,
        "allowSendRequest": True,
        "allowDelete": True,
    }  # fmt: skip
    return widget(
        "control_widgets.persistent_table",
        "rpc",
        title,
        settings,
        targetDevice={"type": "entity", "entityAliasId": of.id},
    )
