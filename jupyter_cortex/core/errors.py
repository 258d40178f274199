"""Every refusal of the house, once.

The family::

    CortexError
    ├── Refused                 the caller must change something (400)
    │   ├── SpecError           cortex.yaml
    │   ├── ProjectError        the files beside it
    │   │   └── EnvFileError    .env
    │   ├── HandlerError        the author's class: load, validate, init
    │   ├── NotebookError       the notebook that it is in
    │   ├── GateFailed          a check before the deploy
    │   ├── RequirementsError   requirements.txt and its like, before anything is installed
    │   ├── InstallationFailed  the commands that install them
    │   ├── PayloadError        bytes and Content-Type
    │   ├── RequestIdError      x-request-id
    │   ├── BodyTooLarge 413, UrlTooLong 414, HeadTooLarge 431, RequestTimeout 408
    │   └── BadRequest          anything else in a request
    ├── ResultError             what handle_async returned (a failed workload, never an HTTP answer)
    ├── MetricError             a reserved metric name
    ├── Unauthorized 401, Forbidden 403
    ├── ApiNotFound, WorkloadNotFound, PayloadGone, NotebookGone, DeploymentNotFound, NotebookNotFound, RouteNotFound 404, MethodNotAllowed 405
    ├── IdConflict, Conflict    409
    ├── NotebookUnreadable      422
    ├── NotLive, QueueFull, TooManyConnections, TooManyBodies, TooManyPages, BodyCheckFailed, StoreUnavailable 503
    │   ├── StoreFull              its memory is needed for what was accepted
    │   └── ArtifactsUnavailable   the disk or URL that holds artifacts
    ├── EnvironmentDown, EnvironmentProblem, DeployFailed   the client's side
    └── KernelProblem           the kernel of the notebook that is published from JupyterLab (409)
        └── NoKernel, KernelLacksCortex, KernelEnded, Interrupted

A class's docstring is the title of its problem document; the message says what, where and what to do.
"""

from __future__ import annotations

from typing import Any, ClassVar


class CortexError(Exception):
    """Something went wrong inside the runtime"""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    #: Of a deploy of several APIs: those that were deployed all the same.
    deployed: tuple[Any, ...] = ()

    def __init__(self, message: str = "", **details: Any) -> None:
        super().__init__(message or self.title())
        self.message = message or self.title()
        #: Machine-readable facts beside the sentence: ``path``, ``line``, ``kind``... They travel in problem documents.
        self.details: dict[str, Any] = {key: value for key, value in details.items() if value is not None}

    def __str__(self) -> str:
        return self.message

    @classmethod
    def title(cls) -> str:
        return (cls.__doc__ or cls.__name__).strip().splitlines()[0]

    def problem(self) -> dict[str, Any]:
        """This error as an RFC 9457 problem document."""
        return {
            "type": "about:blank",
            "title": self.title(),
            "status": self.status,
            "detail": self.message,
            "code": self.code,
            **self.details,
        }


class Refused(CortexError):
    """The request was refused"""

    code = "refused"
    status = 400


class SpecError(Refused):
    """The API's spec is not valid"""

    code = "invalid_spec"


class ProjectError(Refused):
    """The project's files cannot be published"""

    code = "invalid_project"


class EnvFileError(ProjectError):
    """The project's .env file is not valid"""

    code = "invalid_env_file"


class HandlerError(Refused):
    """The Handler cannot be used"""

    code = "invalid_handler"


class NotebookError(Refused):
    """The notebook cannot be published"""

    code = "invalid_notebook"


class GateFailed(Refused):
    """The checks before the deploy failed"""

    code = "gate_failed"


class RequirementsError(Refused):
    """The project's requirements cannot be satisfied"""

    code = "unsatisfied_requirements"


class InstallationFailed(Refused):
    """The project's requirements could not be installed"""

    code = "installation_failed"


class PayloadError(Refused):
    """The payload cannot be parsed"""

    code = "invalid_payload"


class RequestIdError(Refused):
    """The x-request-id header is not valid"""

    code = "invalid_request_id"


class BodyTooLarge(Refused):
    """The request body is too large"""

    code = "body_too_large"
    status = 413


class UrlTooLong(Refused):
    """The request's URL is too long"""

    code = "url_too_long"
    status = 414


class HeadTooLarge(Refused):
    """The request's headers are too large"""

    code = "headers_too_large"
    status = 431


class RequestTimeout(Refused):
    """The request came too slowly"""

    code = "request_timeout"
    status = 408


class BadRequest(Refused):
    """The request is not valid"""

    code = "bad_request"


class ResultError(CortexError):
    """The Handler's result is not a JSON object"""

    code = "invalid_result"

    def __init__(self, message: str = "", *, alike: str = "", **details: Any) -> None:
        """``alike``: the mistake without what is of one result only; results with the same one are one failure in the failures page."""
        super().__init__(message, **details)
        self.alike = alike


class MetricError(CortexError):
    """The metric's name is reserved"""

    code = "reserved_metric"
    status = 400


class Unauthorized(CortexError):
    """A token is needed"""

    code = "unauthorized"
    status = 401


class Forbidden(CortexError):
    """This request is not allowed here"""

    code = "forbidden"
    status = 403


class ApiNotFound(CortexError):
    """No such API"""

    code = "api_not_found"
    status = 404


class WorkloadNotFound(CortexError):
    """No such workload"""

    code = "workload_not_found"
    status = 404


class PayloadGone(CortexError):
    """The workload's payload is not kept any more"""

    code = "payload_gone"
    status = 404


class NotebookGone(CortexError):
    """There is no executed notebook of this workload"""

    code = "notebook_gone"
    status = 404


class NotebookUnreadable(CortexError):
    """The executed notebook cannot be shown as a page"""

    code = "notebook_unreadable"
    status = 422


class DeploymentNotFound(CortexError):
    """No such deployment"""

    code = "deployment_not_found"
    status = 404


class NotebookNotFound(CortexError):
    """No such notebook"""

    code = "notebook_not_found"
    status = 404


class RouteNotFound(CortexError):
    """Nothing is published at this path"""

    code = "route_not_found"
    status = 404


class MethodNotAllowed(CortexError):
    """This method is not allowed here"""

    code = "method_not_allowed"
    status = 405


class IdConflict(CortexError):
    """The request id belongs to another request"""

    code = "request_id_conflict"
    status = 409


class Conflict(CortexError):
    """The request conflicts with what is there"""

    code = "conflict"
    status = 409


class NotLive(CortexError):
    """The API is not live"""

    code = "not_live"
    status = 503


class QueueFull(CortexError):
    """Too many workloads of the API are waiting"""

    code = "queue_full"
    status = 503


class TooManyConnections(CortexError):
    """Too many connections are open"""

    code = "too_many_connections"
    status = 503


class TooManyBodies(CortexError):
    """Too many large bodies are on their way"""

    code = "too_many_bodies"
    status = 503


class TooManyPages(CortexError):
    """Too many notebooks wait to be made pages"""

    code = "too_many_pages"
    status = 503


class BodyCheckFailed(CortexError):
    """The body could not be checked"""

    code = "body_check_failed"
    status = 503


class StoreUnavailable(CortexError):
    """The store is away"""

    code = "store_unavailable"
    status = 503


class StoreFull(StoreUnavailable):
    """The store is almost full"""

    code = "store_full"


class ArtifactsUnavailable(StoreUnavailable):
    """The artifacts cannot be stored or fetched now"""

    code = "artifacts_unavailable"


class EnvironmentDown(CortexError):
    """The environment does not answer"""

    code = "environment_down"
    status = 503


class EnvironmentProblem(CortexError):
    """The local environment cannot run"""

    code = "environment_problem"
    status = 503


class DeployFailed(CortexError):
    """The deployment did not become live"""

    code = "deploy_failed"
    status = 409


class KernelProblem(CortexError):
    """The notebook's kernel cannot do this"""

    code = "kernel_problem"
    status = 409


class NoKernel(KernelProblem):
    """The notebook has no kernel"""

    code = "no_kernel"


class KernelLacksCortex(KernelProblem):
    """The kernel's Python lacks jupyter-cortex"""

    code = "kernel_lacks_cortex"


class KernelEnded(KernelProblem):
    """The notebook's kernel ended"""

    code = "kernel_ended"


class Interrupted(KernelProblem):
    """The kernel was interrupted"""

    code = "interrupted"


def _family(cls: type[CortexError]) -> dict[str, type[CortexError]]:
    members = {cls.code: cls}
    for child in cls.__subclasses__():
        members = {**_family(child), **members}  # one without a code of its own stands behind its parent
    return members


def from_problem(document: dict[str, Any]) -> CortexError:
    """Rebuild the error that a problem document was made from; an unknown ``code`` gives a plain CortexError."""
    details = {k: v for k, v in document.items() if k not in ("type", "title", "status", "detail", "code")}
    cls = _family(CortexError).get(str(document.get("code")), CortexError)
    return cls(str(document.get("detail") or document.get("title") or ""), **details)
