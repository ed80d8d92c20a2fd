"""What forms offer to choose from: labels, versions and environments, remembered for a moment.

Finding them reads an entry of an index for each run, which is too much for every view of a page: what was found is
shown again, and looked up anew beside that once it is old.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from xray.exceptions import StoreError
from xray_server.api.answers import Service

REMEMBERED_S = 30.0
"""What is older is looked up anew, beside the answer that shows it once more."""

FORGOTTEN_S = 600.0
"""What is older still is not shown: nobody has looked for a while, and whoever does now waits for it."""

_MOST = 500


@dataclass(frozen=True, slots=True)
class Choices:
    """What there is to choose from, sorted; the first ones of very many.

    Args:
        labels: Labels of pipelines, the one with the latest run first.
        versions: Versions of all of them.
        environments: Environments of all of them.
    """

    labels: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()


@dataclass(slots=True)
class _Memory:
    found: Choices
    found_at: float
    renewal: asyncio.Task[None] | None = None


_remembered: WeakKeyDictionary[Service, _Memory] = WeakKeyDictionary()


async def choices(service: Service) -> Choices:
    """What there is to choose from, as it was a short while ago; a first run shows at once.

    Raises:
        StoreError: The data could not be read.
    """
    known = _remembered.get(service)
    age_s = float("inf") if known is None else time.monotonic() - known.found_at
    if known is None or not known.found.labels or age_s > FORGOTTEN_S:
        return await _find(service)
    if age_s > REMEMBERED_S and (known.renewal is None or known.renewal.done()):
        known.renewal = asyncio.create_task(_renew(service))
    return known.found


async def _renew(service: Service) -> None:
    with contextlib.suppress(StoreError):  # the next view tries again, and says so once there is nothing left to show
        await _find(service)


async def _find(service: Service) -> Choices:
    pipelines = await service.store.pipelines(service.project)
    found = Choices(
        tuple(each.label for each in pipelines if each.label is not None)[:_MOST],
        tuple(sorted({version for each in pipelines for version in each.versions}))[:_MOST],
        tuple(sorted({name for each in pipelines for name in each.environments}))[:_MOST],
    )
    _remembered[service] = _Memory(found, time.monotonic())
    return found
