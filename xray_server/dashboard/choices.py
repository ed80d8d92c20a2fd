"""What forms offer to choose from: labels, versions and environments, remembered for a moment.

Finding them reads an entry of an index for each run, which is too much for every view of a page.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from xray_server.api.answers import Service

REMEMBERED_S = 30.0
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


_remembered: WeakKeyDictionary[Service, tuple[float, Choices]] = WeakKeyDictionary()


async def choices(service: Service) -> Choices:
    """What there is to choose from, as it was at most ``REMEMBERED_S`` seconds ago; a first run shows at once.

    Raises:
        StoreError: The data could not be read.
    """
    known = _remembered.get(service)
    if known is not None and known[1].labels and time.monotonic() - known[0] < REMEMBERED_S:
        return known[1]
    pipelines = await service.store.pipelines(service.project)
    found = Choices(
        tuple(each.label for each in pipelines if each.label is not None)[:_MOST],
        tuple(sorted({version for each in pipelines for version in each.versions}))[:_MOST],
        tuple(sorted({name for each in pipelines for name in each.environments}))[:_MOST],
    )
    _remembered[service] = time.monotonic(), found
    return found
