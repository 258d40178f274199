"""The control routes of artifacts: asking for a content by its sha256, and sending it."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterable

import redis
from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from ..core.errors import ArtifactsUnavailable, SpecError
from ..core.readers import printable
from ..core.spec import Artifact
from ..project.files import megabytes
from ..serving.artifacts import CHUNK, Artifacts
from ..store import artifacts as ledger
from .described import takes

#: What must stay free on the disk for everything else that writes to it.
RESERVE = 64 * 1024 * 1024
DIGEST = Path(pattern="^[0-9a-f]{64}$")


class Shelf:
    """The artifacts as the gateway uses them: where they lie, and the store's memory of when they were of use."""

    def __init__(self, client: redis.Redis, artifacts: Artifacts) -> None:
        self._client, self.artifacts = client, artifacts

    def held(self, sha256: str) -> int | None:
        """Bytes of a content that is here, and stays for a day; None for one that is not."""
        self.note([sha256])  # before the look: what is noted is not removed
        return self.artifacts.held(sha256)

    def note(self, digests: Iterable[str]) -> None:
        ledger.note(self._client, digests, int(time.time() * 1000))

    def resolve(self, name: str, artifacts: list[Artifact], before: list[dict[str, object]]) -> list[dict[str, object]]:
        """The artifacts of a spec with what each one is. ``before``: those of the version that is there, whose content stands in where the spec
        names only the path. Raises SpecError for one whose content is not here."""
        known = {artifact["path"]: artifact["sha256"] for artifact in before}
        resolved: list[dict[str, object]] = []
        for index, artifact in enumerate(artifacts):
            sha256 = artifact.sha256 or known.get(artifact.path)
            size = self.held(str(sha256)) if sha256 else None
            if size is None or artifact.bytes not in (None, size):
                raise _not_here(name, index, artifact, size)
            resolved.append({"path": artifact.path, "sha256": sha256, "bytes": size})
        return resolved


def _not_here(name: str, index: int, artifact: Artifact, size: int | None) -> SpecError:
    shown, at = printable(artifact.path), f"artifacts[{index}]"
    if size is not None:
        key, kind, sentence = "bytes", "conflict", f"{shown} has {size:,} bytes here, not {artifact.bytes:,}; deploy again."
    elif artifact.sha256:
        key, kind = "sha256", "artifact_missing"
        sentence = f"the content of {shown} ({artifact.sha256[:12]}…) is not here; deploy from the project's directory, which uploads it."
    else:
        key, kind = "sha256", "required"
        sentence = f"{shown} has no sha256, which says what it is; `cortex deploy` fills it in and uploads the file."
    return SpecError(f"cortex.yaml: [0].{at}.{key} ({name}): {sentence}", api=0, path=f"{at}.{key}", kind=kind)


def add_artifact_routes(router: APIRouter, shelf: Shelf) -> None:
    @router.get("/artifacts/{sha256}")
    def has_artifact(sha256: str = DIGEST) -> Response:
        size = shelf.held(sha256)
        return _json({"present": size is not None, "bytes": size})

    @router.put("/artifacts/{sha256}", openapi_extra=takes("application/octet-stream"))
    async def put_artifact(request: Request, sha256: str = DIGEST) -> Response:
        """The content as the body, of any size: what is in memory is one CHUNK of it."""
        await run_in_threadpool(_check_room, shelf.artifacts, request.headers.get("content-length", ""))
        with contextlib.suppress(ClientDisconnect):
            size = await _receive(request, shelf, sha256)
            return _json({"present": True, "bytes": size})
        return Response(status_code=400)  # nobody is there to read it


async def _receive(request: Request, shelf: Shelf, sha256: str) -> int:
    """Bytes of the body, which is stored when it is what it should be. Hashing and writing are done in threads, in pieces that are worth the way."""
    size, piece = 0, bytearray()
    incoming = await run_in_threadpool(shelf.artifacts.receive)
    with incoming:
        async for chunk in request.stream():
            piece += chunk
            size += len(chunk)
            if len(piece) >= CHUNK:
                await run_in_threadpool(incoming.write, piece)
                piece = bytearray()
        await run_in_threadpool(incoming.write, piece)
        await run_in_threadpool(shelf.note, [sha256])
        await run_in_threadpool(incoming.keep, sha256)
    return size


def _check_room(artifacts: Artifacts, said: str) -> None:
    """Refuse what cannot fit before it is sent. Raises ArtifactsUnavailable."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(artifacts.directory).free
        if said.isdigit() and len(said) < 20 and int(said) > free - RESERVE:
            raise ArtifactsUnavailable(
                f"the disk of {artifacts.directory} has {megabytes(free)} left, too few for an artifact of {megabytes(int(said))}; make room there"
            )


def _json(content: dict[str, object]) -> Response:
    return Response(json.dumps(content), media_type="application/json")
