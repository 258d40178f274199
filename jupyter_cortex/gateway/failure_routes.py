"""The control routes of failures: their groups, their way back into the queue, and who has sent them there."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, model_validator

from ..store import failures
from .answers import Json
from .control import Control, Said

#: Ids of one call; a larger group is requeued by several, so that whoever asks sees how far it is.
IDS_OF_A_CALL = 1000
FINGERPRINT = "^[0-9a-f]{12,16}$"
DAYS_MAX_S = 7 * 86400


class RequeueRequest(BaseModel):
    """The body of POST requeue: ``ids``, or a ``fingerprint`` with what bounds it. ``who`` and ``source`` (a notebook) are noted."""

    ids: list[Annotated[str, Field(pattern="^[A-Za-z0-9._-]{1,128}$")]] | None = Field(None, max_length=IDS_OF_A_CALL)
    fingerprint: str | None = Field(None, pattern=FINGERPRINT)
    since: int | None = Field(None, ge=1, le=DAYS_MAX_S)
    next: str = Field("", max_length=300)
    limit: int = Field(IDS_OF_A_CALL, ge=1, le=IDS_OF_A_CALL)
    who: Said = Field("", max_length=200)
    source: Said = Field("", max_length=1000)

    @model_validator(mode="after")
    def _one_of_both(self) -> RequeueRequest:
        if (self.ids is None) == (self.fingerprint is None):
            raise ValueError('name either "ids" or a "fingerprint"')
        return self


def _seconds(control: Control, name: str, since: int | None) -> int:
    """How far back to look: what is older than the spec's days is gone, though an index may name it still."""
    return min(since or DAYS_MAX_S, control.registry.get(name).spec["retain"]["days"] * 86400)


def add_failure_routes(router: APIRouter, control: Control, max_queued: int) -> None:
    @router.get("/apis/{name}/failures")
    def groups(name: str, since: int | None = Query(None, ge=1, le=DAYS_MAX_S), limit: int = Query(100, ge=1, le=1000)) -> Response:
        """``since``: seconds back."""
        return Json({"groups": failures.groups(control.client, name, _seconds(control, name, since), limit)})

    @router.post("/apis/{name}/requeue")
    def requeue(name: str, body: RequeueRequest) -> Response:
        """Failed workloads, back into the queue under their old ids. ``next`` and ``remaining`` say what a group still has."""
        since = _seconds(control, name, body.since)
        about = {"who": body.who, "source": body.source}
        if body.ids is not None:
            done = failures.requeue(control.client, name, body.ids, about, max_queued)
        else:
            done = failures.requeue_group(control.client, name, body.fingerprint or "", since, about, max_queued, body.limit, body.next)
        return Json(vars(done))

    @router.get("/apis/{name}/audit")
    def audit(name: str) -> Response:
        """Who requeued or rolled back what, the last 200 times, newest first."""
        control.registry.get(name)
        return Json({"entries": failures.audit(control.client, name)})
