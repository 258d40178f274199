"""Which API answers at which path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.errors import Conflict
from ..core.workload import staying
from ..store.registry import Api, Registry


@dataclass(frozen=True, slots=True)
class Route:
    """What the hot path needs of an API."""

    api: str
    endpoint: str
    origins: frozenset[str]
    ttl: int
    #: Of cancelled ones, as `staying` says it.
    keep_payload: str
    retain: str = "failed"
    retain_max: int = -1
    queue_timeout: float | None = None


def route_of(api: Api) -> Route:
    retain = api.spec["retain"]
    return Route(
        api=api.name,
        endpoint=api.endpoint,
        origins=frozenset(api.spec["networking"]["allow_origins"]),
        ttl=retain["days"] * 86400,
        # Only replicas and supervisors redact; a payload that would need it and ends without them goes.
        keep_payload=staying(retain["payload"] == "always" and not retain["redact"], retain["max_bytes"]),
        retain="never" if retain["redact"] else retain["payload"],
        retain_max=retain["max_bytes"],
        queue_timeout=api.spec.get("queue_timeout"),
    )


class RouteTable:
    """Looks paths up; refreshed when the registry's version has changed."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._version = -1
        self._by_path: dict[str, Route] = {}
        self._by_name: dict[str, Route] = {}

    def refresh(self) -> None:
        """Read the registry if it changed. Raises StoreUnavailable; the old table stays."""
        version = self._registry.version()
        if version == self._version:
            return
        # One that never came to be live gives way where it stands at the place of one that is.
        routes = [route_of(api) for api in sorted(self._registry.all(), key=lambda api: api.live > 0)]
        self._by_path = {route.endpoint: route for route in routes}
        self._by_name = {route.api: route for route in routes}
        self._version = version

    @property
    def loaded(self) -> bool:
        """False until the registry could be read once: an unknown path then means nothing."""
        return self._version >= 0

    def match(self, path: str) -> tuple[Route, str] | None:
        """The route with the longest endpoint that ``path`` lies at or below, and the rest of the path ("" or "/...")."""
        found = self._by_path.get(path)
        if found is not None:
            return found, ""
        end = len(path)
        while (end := path.rfind("/", 0, end)) > 0:
            if (found := self._by_path.get(path[:end])) is not None:
                return found, path[end:]
        return None

    def named(self, name: str) -> Route | None:
        return self._by_name.get(name)

    def names(self) -> list[str]:
        return sorted(self._by_name)


def check_endpoint(registry: Registry, name: str, spec: dict[str, Any]) -> None:
    """Refuse an endpoint that another API has. Raises Conflict."""
    endpoint = spec["networking"]["endpoint"]
    if owner := registry.owner_of(endpoint, name, coming=True):
        raise Conflict(f"networking.endpoint: {endpoint} belongs to the API {owner}; choose another one for {name}")
