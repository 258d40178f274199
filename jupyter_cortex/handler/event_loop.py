"""One long-lived event loop for one Handler, and a way out of a loop that is already running."""

from __future__ import annotations

import asyncio
import asyncio.tasks
import concurrent.futures
import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jupyter_cortex.core.errors import HandlerError

from . import log_context

#: Seconds that close() waits for cancelled coroutines before it leaves the daemon thread behind.
PATIENCE = 5.0


class EventLoopThread:
    """An event loop in a thread of its own, so that it also works under a kernel's running loop and for many threads.

    Clients (connection pools, sessions) that a coroutine makes stay bound to it and usable for every later call, and
    their background tasks go on between calls.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._closing = False
        self._waiting: set[concurrent.futures.Future[Any]] = set()
        started = threading.Event()
        self._loop.call_soon(started.set)
        self._thread = threading.Thread(target=self._main, name="cortex-event-loop", daemon=True)
        self._thread.start()
        started.wait()  # a loop that is stopped before it runs would stop its own winding up instead

    def run(self, function: Callable[[], Any], *, settle: bool = True) -> Any:
        """Call ``function`` on the loop and, with ``settle``, await what it returns if that is awaitable.

        The caller's context variables hold inside, so log lines keep their request id. What it raises is raised
        here, SystemExit and KeyboardInterrupt included; an interrupt of the waiting thread cancels the coroutine.
        """
        if self._closing:
            raise _closed()
        outcome = _outcome(function, settle)
        try:
            future = asyncio.run_coroutine_threadsafe(outcome, self._loop)
        except RuntimeError:  # closed in between
            outcome.close()
            raise _closed() from None
        self._waiting.add(future)
        try:
            value, exc = future.result()
        except concurrent.futures.CancelledError:
            raise _closed() from None
        except BaseException:  # KeyboardInterrupt in a kernel, a time limit in a replica
            future.cancel()
            raise
        finally:
            self._waiting.discard(future)
        if exc is None:
            return value
        if self._closing and isinstance(exc, asyncio.CancelledError):
            raise _closed()
        raise exc

    def close(self) -> None:
        """Cancel what runs and end the thread; calling it again does nothing."""
        if self._closing:
            return
        self._closing = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(PATIENCE)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._closing:
            try:
                self._loop.run_forever()
            except BaseException:  # SystemExit in an author's background task stops a loop: every later call would hang
                logging.getLogger("cortex").exception("a background task of the handler ended the event loop")
        try:
            self._loop.run_until_complete(_wind_up(self._loop))
        finally:
            for future in list(self._waiting):  # of coroutines that would not be cancelled: nobody else answers them
                future.cancel()
            self._loop.close()


async def _outcome(function: Callable[[], Any], settle: bool) -> tuple[Any, BaseException | None]:
    """Value or exception as a value: SystemExit out of a task would end the loop, StopIteration cannot leave one."""
    if (request := log_context.current()) is not None:
        request.task = asyncio.current_task()  # for who wants to end it
    try:
        value = function()
        return (await value if settle and inspect.isawaitable(value) else value), None
    except BaseException as exc:
        return None, exc


async def _wind_up(loop: asyncio.AbstractEventLoop) -> None:
    tasks = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=PATIENCE / 2) if tasks else None
    await loop.shutdown_asyncgens()


@contextmanager
def outside_running_loop() -> Iterator[None]:
    """Make this thread look as if no loop ran in it, as in a replica.

    A kernel runs cells inside its own loop, where ``asyncio.run`` refuses to work. A sync handler blocks that loop
    anyway while it runs, so a loop of its own inside harms nothing.
    """
    running = asyncio._get_running_loop()
    if running is None:
        yield
        return
    task = asyncio.current_task(running)
    if task is not None:
        asyncio.tasks._leave_task(running, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(running)
        if task is not None:
            asyncio.tasks._enter_task(running, task)
        asyncio.set_event_loop(running)  # asyncio.run leaves None behind


def _closed() -> HandlerError:
    return HandlerError("the handler was closed while a call waited; construct it again", stage="call", kind="closed")
