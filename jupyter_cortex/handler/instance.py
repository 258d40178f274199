"""A constructed Handler and the one way to call it."""

from __future__ import annotations

import copy
import inspect
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_cortex.core.errors import HandlerError

from . import memory, origin
from .errors_text import describe, line_in
from .signature import check_class, constructor_arguments, is_async, named_arguments

if TYPE_CHECKING:
    from .event_loop import EventLoopThread


def tensorflow_client(section: dict[str, Any], project_dir: Path) -> Any:
    """What a constructor gets as ``tensorflow_client``; None for a Handler of another type. ``section``: ``handler`` of a resolved spec.

    Raises :class:`HandlerError` (stage ``init``) when its models cannot be had, TensorFlow being absent included.
    """
    if section["type"] != "tensorflow":
        return None
    from .tensorflow import open_client

    return open_client(section, project_dir)


class Instance:
    """One Handler, constructed once and called for every workload.

    Sync handlers: constructor and calls run on the caller's thread. ``async def`` handlers: the constructor and every
    coroutine run on one loop thread of the instance with the loop running, so ``asyncio.get_running_loop()`` and
    clients that need it (an aiohttp session) work in the constructor and stay valid for every call; the price is that
    such a constructor cannot use ``asyncio.run``. Safe to call from several threads if the author's code is.
    """

    def __init__(
        self,
        cls: type,
        *,
        config: dict[str, Any] | None = None,
        metrics_client: Any = None,
        handler_type: str = "python",
        tensorflow_client: Any = None,
        path: str = "handler.py",
    ) -> None:
        """Check the class and construct it with the arguments its constructor declares; ``config`` is deep-copied.

        Raises :class:`HandlerError`: stage ``validate`` as :func:`check_class` does, or stage ``init`` with kind
        ``raised`` or ``exit`` (SystemExit, KeyboardInterrupt), ``line`` and ``traceback``.
        """
        check_class(cls, handler_type=handler_type, path=path)
        # Here and not at the top: reading Content-Type and log lines does not need an event loop's 30 ms of imports.
        import asyncio

        self._running_loop = asyncio._get_running_loop
        self._lock = threading.Lock()
        self._closed = False
        self._async = is_async(cls)
        self._loop: EventLoopThread | None = None
        offered = {"config": config, "metrics_client": metrics_client}
        if handler_type == "tensorflow":
            offered["tensorflow_client"] = tensorflow_client
        try:
            offered["config"] = copy.deepcopy(config) if config else {}
            wanted = constructor_arguments(cls)
            build = partial(cls, **{name: value for name, value in offered.items() if name in wanted})
            self.handler = self._event_loop().run(build, settle=False) if self._async else self._outside(build)
        except BaseException as exc:
            self.close()
            raise _init_error(cls, path, exc) from exc
        self._invoke = _caller(self.handler, cls)

    def call(self, payload: Any, request_id: str) -> Any:
        """What ``handle_async`` returns for this payload, awaited if awaitable; it gets the arguments it declares.

        Whatever the author's code raises comes out unchanged, BaseExceptions such as SystemExit included: a caller
        that must survive catches BaseException. Raises :class:`HandlerError` of kind ``closed`` after :meth:`close`.
        """
        if self._async:
            return self._event_loop().run(partial(self._invoke, payload, request_id))
        if self._running_loop() is None:
            result = self._invoke(payload, request_id)
        else:
            result = self._outside(partial(self._invoke, payload, request_id))
        if type(result) is dict or not inspect.isawaitable(result):
            return result
        return self._event_loop().run(lambda: result)  # a plain def that hands a coroutine on

    def close(self) -> None:
        """End the instance's event loop, cancelling what runs on it. Nothing of the author's is called."""
        with self._lock:
            self._closed, loop = True, self._loop
        if loop is not None:
            loop.close()

    def __enter__(self) -> Instance:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _event_loop(self) -> EventLoopThread:
        if self._loop is None or self._closed:
            with self._lock:
                if self._closed:
                    raise HandlerError("the handler is closed; construct it again", stage="call", kind="closed")
                if self._loop is None:
                    from .event_loop import EventLoopThread

                    self._loop = EventLoopThread()
        return self._loop

    @staticmethod
    def _outside(function: Callable[[], Any]) -> Any:
        from .event_loop import outside_running_loop

        with outside_running_loop():
            return function()


def _caller(handler: Any, cls: type) -> Callable[[Any, str], Any]:
    """``handle_async`` with the wanted arguments decided once: a call costs two plain function calls.

    The method is looked up at each call, so that one patched in a notebook is the one that runs.
    """
    names = named_arguments(cls.handle_async)  # type: ignore[attr-defined]
    if "payload" in names and "request_id" in names:
        return lambda payload, request_id: handler.handle_async(payload=payload, request_id=request_id)
    if "payload" in names:
        return lambda payload, request_id: handler.handle_async(payload=payload)
    if "request_id" in names:
        return lambda payload, request_id: handler.handle_async(request_id=request_id)
    return lambda payload, request_id: handler.handle_async()


def _init_error(cls: type, path: str, exc: BaseException) -> HandlerError:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    root, line = None, None
    if isinstance(file, str):
        line = line_in(exc, file)
        # handler.path may lie below the root (src/handler.py): the root is what is left without it.
        root = file.removesuffix(path) if file.endswith(path) else str(Path(file).parent)
    text = describe(exc, root)
    where = f"{path}, line {line}{origin.beside(path, line)}" if line else origin.deepest(exc) or path
    problem = f"{text['type']}: {text['message']}" if text["message"] else text["type"]
    kind, remedy = "raised", "correct the constructor or the config it reads"
    if memory.note(exc):
        kind, remedy = "memory", "the checks before a deploy have all of the machine's"
    elif not isinstance(exc, Exception):
        kind, remedy = "exit", "a constructor must return or raise an ordinary exception"
    return HandlerError(
        f"error in {where}: {cls.__name__}.__init__: {problem}; {remedy}",
        stage="init",
        kind=kind,
        path=path,
        line=line,
        traceback=text["traceback"],
    )
