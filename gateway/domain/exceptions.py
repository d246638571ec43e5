"""What went wrong, out of the groups of groups that nested nurseries raise."""

from __future__ import annotations


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception that is not itself a group."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def first_reason(group: BaseExceptionGroup[BaseException]) -> str:
    """The text of the first cause, or its repr where it has none."""
    cause = first_cause(group)
    return str(cause) or repr(cause)
