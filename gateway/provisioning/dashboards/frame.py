"""A whole dashboard: its pages, and the aliases and filters that they use.

ThingsBoard stores the configuration as it is given; its browser code reads it, fills what is
missing (`dashboard-utils.service.ts`) and has no version number for it.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from .devices import ALIASES, FILTERS, filter_info
from .ids import Json, stable_id

COLUMNS = 24


@attrs.frozen
class Place:
    """A widget in the grid of 24 columns; a row is about as high as a column is wide."""

    widget: Json
    row: int
    column: int
    width: int
    height: int


@attrs.frozen
class State:
    """One page.  name: in the breadcrumbs; ${entityName} is the device it was opened for."""

    id: str
    name: str
    places: tuple[Place, ...]


def dashboard(title: str, description: str, timewindow: Json, states: Iterable[State]) -> Json:
    """The first state is the one that the dashboard opens with."""
    pages = list(states)
    widgets: Json = {}
    for page in pages:
        for place in page.places:
            ident = _widget_id(title, page, place)
            if ident in widgets:
                raise ValueError(f"two widgets of {page.id!r} have the same title")
            size = {"sizeX": place.width, "sizeY": place.height, "row": 0, "col": 0}
            widgets[ident] = {**place.widget, **size, "id": ident}
    said = str(widgets)
    return {
        "title": title,
        "configuration": {
            "description": description,
            "widgets": widgets,
            "states": {page.id: _state(title, page, root=page is pages[0]) for page in pages},
            "entityAliases": {
                one.id: {"id": one.id, "alias": one.name, "filter": dict(one.where)}
                for one in ALIASES
                if one.id in said
            },
            "filters": {one.id: filter_info(one) for one in FILTERS if one.id in said},
            "timewindow": timewindow,
            "settings": {
                "stateControllerId": "entity",  # breadcrumbs, and a device for each state
                "showTitle": False,
                "showDashboardsSelect": True,
                "showEntitiesSelect": False,
                "showFilters": False,
                "showDashboardTimewindow": True,
                "showDashboardExport": True,
                "toolbarAlwaysOpen": True,
            },
        },
    }


def _widget_id(title: str, page: State, place: Place) -> str:
    return stable_id(title, page.id, place.widget["config"]["title"])


def _state(title: str, page: State, *, root: bool) -> Json:
    return {
        "name": page.name,
        "root": root,
        "layouts": {
            "main": {
                "widgets": {
                    _widget_id(title, page, place): {
                        "sizeX": place.width,
                        "sizeY": place.height,
                        "row": place.row,
                        "col": place.column,
                    }
                    for place in page.places
                },
                "gridSettings": {
                    "backgroundColor": "#eeeeee",
                    "columns": COLUMNS,
                    "margin": 10,
                    "outerMargin": True,
                    "backgroundSizeMode": "100%",
                    "autoFillHeight": False,
                    "mobileAutoFillHeight": False,
                    "mobileRowHeight": 70,
                },
            }
        },
    }
