"""The curve and the price of a session, drawn anew from all of its history.

With most messages this is not needed: the curve and its priced part are extended (`readings`).  It
is where a reading overturns what was settled, and after a restart.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from ..tariffs.tariff import Terms
from .curve import Point
from .curve_fitting import fit_curve
from .energy import total_current
from .energy_curve import EnergyCurve
from .history import entries
from .pricing import Pricing, States
from .session import Session, states_of


def with_terms(session: Session, terms: Terms) -> Session:
    """The same session on other terms, to be priced anew."""
    return refitted(
        attrs.evolve(
            session,
            opening=attrs.evolve(session.opening, terms=terms),
            states=states_of(terms, session.statuses),
        )
    )


def refitted(session: Session) -> Session:
    """The session with its curve drawn anew from all of its history; unpriced."""
    curve, _ = _fitted(session)
    currents = tuple(
        (entry.at, total_current(entry.currents))
        for entry in entries(session.history)
        if entry.currents
    )
    published = max(session.published_nwh, published_energy(curve))
    return attrs.evolve(
        session, curve=curve, pricing=None, currents=currents, published_nwh=published
    )


def pricing_of(session: Session) -> Pricing:
    """The pricing at the newest settled point; to be copied before it is advanced."""
    if session.pricing is not None:
        return session.pricing
    _, points = _fitted(session)
    return priced_along(session, points, session.states)


def priced_along(session: Session, points: Iterable[Point], states: States) -> Pricing:
    """A new pricing along all of these points."""
    pricing = Pricing(session.opening.terms, session.opening.start)
    pricing.use(states, session.currents)
    for point in points:
        pricing.advance(*point)
    return pricing


def published_energy(curve: EnergyCurve) -> int:
    """nWh, as telemetry has it while the session is open."""
    return curve.last.nwh if curve.low is None else curve.resolved(None).last.nwh


def _fitted(session: Session) -> tuple[EnergyCurve, list[Point]]:
    opening = session.opening
    return fit_curve(
        entries(session.history),
        start=opening.start,
        base=opening.meter_start,
        policy=session.metering_policy,
    )
