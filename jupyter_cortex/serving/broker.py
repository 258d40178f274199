"""Dramatiq's broker for this house: one I/O thread (Dramatiq's ConsumerThread), two connections, group commit.

As it comes, Dramatiq's Redis broker polls with sleeps, keeps lost messages for a minute and acknowledges each by itself. Here:

- an idle consumer blocks on a wake token and has its fetch already sent behind it on the same connection, so that between token and fetch there is
  no gap in which a death could lose the wake-up;
- ends of workloads, start marks and the next fetch travel together in one script, as many as have gathered while the last one was under way; a
  second one follows on its heels when many have, so that the store has work while the reply to the first is read;
- look-ahead is about 10 ms of work, and goes back to the queue when the threads turn out to be busy for longer than 20 ms.

Nothing else in the house knows how a workload reaches a replica.
"""

from __future__ import annotations

import logging
import os
import selectors
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import dramatiq
import hiredis
import redis
from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.errors import ActorNotFound

from ..core.errors import CortexError
from ..handler.live import Progress
from ..store import keys
from ..store.scripts import COMMIT, NOTEBOOK, PROGRESS, RESYNC
from .link import Argument, Link
from .news import News

log = logging.getLogger(__name__)

#: Look-ahead: as many workloads as 10 ms of handler time, at most 512. More would hoard work beside an idle replica, less leaves the thread waiting
#: while commits are on their way: with a store that syncs to disk each takes 2 to 4 ms and 30 µs a workload.
LOOK_AHEAD_MS = 10.0
LOOK_AHEAD_MAX = 512
#: ... and none while more than this lies in this process: 64 payloads of 10 MB are not worth 10 ms.
LOOK_AHEAD_BYTES = 1 << 20
#: After this long without an end, what waits in this process goes back to the queue's head.
GIVE_BACK_S = 0.020
#: Commits under way at once, and how many ends must have gathered for another to join the first: syncing to disk costs the same for one as for all.
FLIGHTS = 2
FLIGHT_SIZE = 64
#: A start mark waits this long for company (its own end, mostly) before it is committed alone.
START_MARK_S = 0.005
#: For so long, at most, the I/O thread makes way for the thread that it has woken.
MAKE_WAY_S = 0.001
#: The wait for a token ends after this long, and the fetch behind it looks at the queue anyway.
BLOCK_S = 5
#: A reply that is this late is taken for lost; the reconnect's resync makes that safe.
SILENCE_S = 30.0
#: Seconds before the first and the longest wait of reconnecting; stock Dramatiq waits 3 s and 5 s.
RECONNECT_S = (0.02, 1.0)


@dataclass(slots=True)
class Delivery:
    """One workload in a replica's hands, and how it ended."""

    id: str
    content_type: str
    body: bytes
    marked: bool  #: the fetch that brought it has marked its start already
    began: float = 0.0  #: perf_counter at the entry of the handler, 0 while it waits
    status: str = ""
    result: bytes = b""
    error: str = ""  #: JSON {"type", "message"}
    details: str = ""  #: JSON {"fingerprint", "frames", "traceback", "logs"}
    run_ms: float = 0.0
    run: int = 1  #: more after a requeue
    kept: bytes | None = None  #: the payload as it may stay, empty: as it came; None: nothing is said
    timeout: float = 0.0  #: seconds that its caller gives it, 0 = no matter
    notebook: bytes = b""  #: the executed notebook that it leaves

    @property
    def name(self) -> str:
        """Its id, with the run where the store would take it for the first."""
        return self.id if self.run == 1 else f"{self.id} {self.run}"


_NOTHING: dict[str, Any] = {}


class Workload(MessageProxy):
    """A delivery as Dramatiq's worker threads take it: they read only what is here, and reading it from a Message of its own behind a proxy
    would be a fifth of what a quick workload costs."""

    def __init__(self, queue_name: str, delivery: Delivery) -> None:
        self.failed = False
        self._exception: BaseException | None = None
        self.queue_name, self.actor_name, self.message_id = queue_name, "handle", delivery.id
        self.args, self.kwargs, self.options = (delivery,), _NOTHING, _NOTHING

    def __str__(self) -> str:
        return f"{self.queue_name} {self.message_id}"


@dataclass(frozen=True)
class Terms:
    """What a consumer tells the store of itself and its API with every commit."""

    api: str
    replica: str
    version: int
    retain: str = "failed"
    retain_max: int = -1
    ttl: int = 7 * 86400


@dataclass
class _Batch:
    """What one commit carries; kept until its reply has come, so that a lost connection repeats it."""

    done: list[Delivery] = field(default_factory=list)
    began: list[Delivery] = field(default_factory=list)
    back: list[Delivery] = field(default_factory=list)
    take: int = 0
    sent: float = 0.0

    @property
    def grows(self) -> int:
        """By how many workloads, at most, the replica holds more when its reply is there."""
        return self.take - len(self.done) - len(self.back)


class CortexConsumer(Consumer):
    """Feeds Dramatiq's worker from one API's queue. Everything but `ack`, `nack`, `began` and `drain` runs on the I/O thread.

    ``threads``: how many workloads run at once. ``feed``: hands one to the threads. ``buffered``: takes back what no thread has begun.
    """

    def __init__(self, url: str, terms: Terms, threads: int, feed: Callable[[Workload], None], buffered: Callable[[], list[Delivery]]) -> None:
        self._url, self._terms, self._threads, self._feed, self._buffered = url, terms, threads, feed, buffered
        self._hand: dict[str, Delivery] = {}
        self._done: deque[Delivery] = deque()
        self._began: deque[Delivery] = deque()
        self._back: list[Delivery] = []
        self._news = News()
        self._bytes = 0
        self._flights: deque[_Batch] = deque()
        self._armed_since = 0.0
        self._wait_link: Link | None = None
        self._link: Link | None = None
        #: Connections that were given up because nothing came any more: what lies in them may still reach the store, minutes later.
        self._given_up: list[tuple[str, int]] = []
        self._armed = False
        self._left = 1  # what the last fetch left in the queue; 1 = look
        self._source = "suspects"
        self._average_ms = LOOK_AHEAD_MS
        self._held_back = False
        self._last_end = time.monotonic()
        self._retry_s = RECONNECT_S[0]
        self._draining = False
        self._closed = False
        self.drained = threading.Event()
        self._sleeping = False
        self._selector = selectors.DefaultSelector()
        # A pipe rather than an eventfd: the same on macOS, and only written when the I/O thread sleeps.
        self._poke_r, self._poke_w = os.pipe()
        os.set_blocking(self._poke_r, False)
        os.set_blocking(self._poke_w, False)
        self._selector.register(self._poke_r, selectors.EVENT_READ)

    # Called by worker threads ------------------------------------------------------------------------------------------------------------

    def ack(self, message: MessageProxy) -> None:
        delivery: Delivery = message.args[0]
        if not delivery.status:  # the actor itself broke: our mistake, yet the workload must end
            delivery.status, delivery.error = "failed", '{"type": "InternalError", "message": "the runtime failed; see the log"}'
        self._done.append(delivery)
        if self._sleeping or len(self._done) == FLIGHT_SIZE:
            self.poke()

    nack = ack

    def began(self, delivery: Delivery) -> None:
        """A thread has entered the handler; called for deliveries that are not `marked`."""
        self._began.append(delivery)
        if self._sleeping:
            self.poke()

    def tell(self, request_id: str, progress: Progress) -> None:
        """A handler says how far it is."""
        self._news.put(request_id, progress)
        if self._sleeping:
            self.poke()

    def drain(self) -> None:
        """Take no more, give back what waits; `drained` is set when the last running workload is committed. Safe in a signal handler."""
        self._draining = True
        self.poke()

    def poke(self) -> None:
        try:
            os.write(self._poke_w, b"!")
        except (BlockingIOError, OSError):
            pass  # full: it will wake anyway; closed: nobody listens any more

    def close(self) -> None:
        """Idempotent: Dramatiq calls it twice after an error."""
        if self._closed:
            return
        self._closed = True
        self._disconnect()
        self._selector.close()
        os.close(self._poke_r)
        os.close(self._poke_w)

    # The I/O thread ----------------------------------------------------------------------------------------------------------------------

    def __next__(self) -> None:
        """One turn. Dramatiq is told of no message: they go straight to its threads, of which there is but one queue."""
        if not self._closed:
            try:
                self._turn()
                self._retry_s = RECONNECT_S[0]
            except (OSError, redis.RedisError, hiredis.HiredisError, EOFError) as error:
                self._lost(error)
            except Exception as error:
                # A mistake of ours must not make this replica deaf: Dramatiq would close the consumer for good.
                log.exception("unexpected trouble with the store's connection")
                self._lost(error)

    def _turn(self) -> None:
        if self._link is None:
            self._connect()
        now = time.monotonic()
        # A connection that died without a word (a cable, a firewall) never becomes readable.
        if (self._flights and now - self._flights[0].sent > SILENCE_S) or (self._armed and now - self._armed_since > BLOCK_S + SILENCE_S):
            raise TimeoutError("the store has not answered")
        self._give_back(now)
        self._commit(now)
        if self._news.waiting:
            self._tell(now)
        self._arm()
        if self._draining and not (self._hand or self._done or self._back or self._flights):
            self.drained.set()
        self._sleep(now)

    def _connect(self) -> None:
        """Connect, and settle what a lost reply may have left in the store under our name."""
        self._link = Link(self._url, (COMMIT, RESYNC, PROGRESS, NOTEBOOK))
        self._news.again()
        prefix = keys.prefix(self._terms.api)
        # First no fetch of before may run any more: what it took would lie under our name, and nobody would know of it.
        # (Of a server that has gone nothing lies in them, and another one's number may be a stranger's.)
        ended = [("CLIENT", "KILL", "ID", client_id) for server, client_id in self._given_up if server == self._link.server]
        self._link.send(*ended, ("EVALSHA", RESYNC.sha, 1, prefix, self._terms.replica, *(d.name for d in self._hand.values())))
        replies: list[Any] = []
        while len(replies) <= len(ended):
            replies += self._link.receive()
        self._checked(replies[-1])
        self._given_up.clear()
        self._selector.register(self._link, selectors.EVENT_READ)
        self._left = 1

    def _lost(self, error: BaseException) -> None:
        """The connection is gone or the store cannot write: keep what is finished, wait a little, begin anew."""
        if not self._closed:
            log.debug("connection to the store lost: %s", error)
        if isinstance(error, TimeoutError):
            self._given_up += [(link.server, link.id) for link in (self._link, self._wait_link) if link is not None and link.id]
        self._disconnect()
        time.sleep(self._retry_s)
        self._retry_s = min(self._retry_s * 2, RECONNECT_S[1])

    def _disconnect(self) -> None:
        for link in (self._link, self._wait_link):
            if link is not None:
                try:
                    self._selector.unregister(link)
                except (KeyError, ValueError):
                    pass
                link.close()
        self._link = self._wait_link = None
        self._armed = False
        while self._flights:
            # Repeating it is safe: a workload ends once, and a start mark of an ended one does nothing.
            batch = self._flights.pop()
            self._done.extendleft(reversed(batch.done))
            self._began.extendleft(reversed(batch.began))
            self._back[:0] = batch.back

    def _room(self) -> int:
        """How many more workloads may come into this process."""
        if self._draining:
            return 0
        if self._source == "suspects":
            return 0 if self._hand or self._flights else 1
        full = self._held_back or self._bytes > LOOK_AHEAD_BYTES
        ahead = 0 if full else min(LOOK_AHEAD_MAX, int(LOOK_AHEAD_MS / max(self._average_ms, 0.001)))
        return self._threads + ahead - self._expected()

    def _expected(self) -> int:
        """How many workloads are here, or will be by what is under way."""
        return len(self._hand) + self._armed + sum(batch.grows for batch in self._flights)

    def _commit(self, now: float) -> None:
        if self._link is None or not self._may_fly():
            return
        # The wait for company is over when an end is there, or the oldest mark is old enough.
        marks_due = bool(self._began) and (bool(self._done) or time.perf_counter() - self._began[0].began >= START_MARK_S)
        take = self._room()
        if self._source == "queue" and not self._draining:
            # The script finishes before it fetches: what ends with this commit makes room for it.
            take += len(self._done) + len(self._back)
        take = max(0, take)
        if not (self._done or marks_due or self._back or (take and self._left)):
            return
        batch = _Batch(back=self._back, take=take, sent=now)
        self._back = []
        while self._done:
            batch.done.append(self._done.popleft())
        while self._began:
            batch.began.append(self._began.popleft())
        # Most workloads begin and end within one batch: then the end says both.
        unmarked = {d.id for d in batch.began}
        ended = {d.id for d in batch.done}
        marks = [d.id for d in batch.began if d.id not in ended]
        terms = self._terms
        idle = max(0, self._threads - (self._expected() - len(batch.done) - len(batch.back)))
        args: list[Argument] = ["EVALSHA", COMMIT.sha, 1, keys.prefix(terms.api), terms.replica, terms.version, terms.ttl]
        args += [terms.retain, terms.retain_max, self._source, take, min(idle, take), len(marks), len(batch.done), len(batch.back)]
        args += marks
        for d in batch.done:
            began = int(d.id in unmarked)
            args += [d.id, d.status, d.result, d.error, d.details, f"{d.run_ms:.3f}", began if d.run == 1 else f"{began} {d.run}"]
        args += [d.id for d in batch.back]
        for d in batch.done:
            if d.kept is not None:
                args += [d.id, d.kept]
        # From here on it is repeated, should what is sent ahead of it fail already.
        self._flights.append(batch)
        if self._news.some:
            self._tell(now, ended)
        for d in batch.done:
            if d.notebook:
                self._send_notebook(d)
        self._link.send(tuple(args))

    def _tell(self, now: float, ended: Iterable[str] = ()) -> None:
        """What handlers have said goes ahead of the commit that ends them. Nobody waits for a reply: the next word says more than this one's fate."""
        if self._link is not None and (told := self._news.take(now, ended)):
            terms = self._terms
            call: tuple[Argument, ...] = ("EVALSHA", PROGRESS.sha, 1, keys.prefix(terms.api), terms.replica, terms.version, *told)
            self._link.send(("CLIENT", "REPLY", "SKIP"), call)

    def _send_notebook(self, d: Delivery) -> None:
        """Ahead of its end, so that who hears of that finds it. Nobody waits for a reply: where the store has no room, it ends without."""
        assert self._link is not None
        terms = self._terms
        about = (keys.prefix(terms.api), terms.replica, d.id, d.run, terms.ttl, len(d.notebook))
        call: tuple[Argument, ...] = ("EVALSHA", NOTEBOOK.sha, 1, *about, zlib.compress(d.notebook))
        self._link.send(("CLIENT", "REPLY", "SKIP"), call)

    def _may_fly(self) -> bool:
        return not self._flights or (len(self._flights) < FLIGHTS and len(self._done) >= FLIGHT_SIZE)

    def _committed(self, reply: list[Any]) -> None:
        batch = self._flights.popleft()
        for delivery in (*batch.done, *batch.back):
            # Not a later run of it, which may have come meanwhile.
            if self._hand.get(delivery.id) is delivery:
                del self._hand[delivery.id]
                self._bytes -= len(delivery.body)
        if batch.done:
            self._last_end = time.monotonic()
            self._held_back = False
            for delivery in batch.done:
                self._average_ms += 0.2 * (delivery.run_ms - self._average_ms)
        taken = self._take(reply)
        if self._source == "suspects" and not taken and not self._hand and not self._draining:
            self._source = "queue"
            self._left = 1

    def _take(self, reply: list[Any]) -> int:
        """Turn a fetch's reply into messages; returns how many."""
        self._left = int(reply[1])
        if len(reply) > 2:
            # What has just come must reach its thread before it can count as waiting.
            self._last_end = time.monotonic()
        for at in range(2, len(reply), 4):
            request_id, content_type, body, started = reply[at : at + 4]
            delivery = Delivery(request_id.decode(), content_type.decode("latin-1"), body, started[:1] == b"1")
            if len(started) > 1:
                run, timeout = started[2:].split()
                delivery.run, delivery.timeout = int(run), int(timeout) / 1000
            self._hand[delivery.id] = delivery
            self._bytes += len(body)
            self._feed(Workload(self._terms.api, delivery))
        return (len(reply) - 2) // 4

    def _arm(self) -> None:
        """With a thread idle and the queue seen empty: block on a token, the fetch already behind it."""
        if self._draining and self._wait_link is not None:
            # What its fetch may have brought in the meantime is not known here, so the resync of a new connection gives it back.
            self._disconnect()
            self._connect()
        if self._armed or self._flights or self._left or self._source != "queue" or self._draining or len(self._hand) >= self._threads:
            return
        if self._wait_link is None:
            self._wait_link = Link(self._url, (COMMIT,))
            self._selector.register(self._wait_link, selectors.EVENT_READ)
            self._wait_replies: list[Any] = []
        terms = self._terms
        prefix = keys.prefix(terms.api)
        fetch = ("EVALSHA", COMMIT.sha, 1, prefix, terms.replica, terms.version, terms.ttl, terms.retain, terms.retain_max, "queue", 1, 1, 0, 0, 0)
        self._wait_link.send(("BLPOP", keys.wake(terms.api), BLOCK_S), fetch)
        self._armed, self._armed_since = True, time.monotonic()

    def _give_back(self, now: float) -> None:
        waiting = len(self._hand) > self._threads
        if not self._draining and not (waiting and now - self._last_end > GIVE_BACK_S):
            return
        if taken_back := self._buffered():
            self._back.extend(taken_back)
            self._held_back = True
        elif waiting:
            self._held_back = True

    def _sleep(self, now: float) -> None:
        timeout = 1.0
        if self._began and not self._flights:
            timeout = START_MARK_S
        elif len(self._hand) > self._threads:
            timeout = GIVE_BACK_S
        # While a commit flies little can be sent, so few need to wake us: what gathers meanwhile is the next group.
        if self._news.waiting:
            timeout = min(timeout, self._news.wait(now))
        self._sleeping = not self._flights
        if self._may_fly() and (self._done or self._back or (self._began and timeout > START_MARK_S)):
            timeout = 0.0
        try:
            events = self._selector.select(timeout)
        finally:
            self._sleeping = False
        for key, _ in events:
            if key.fileobj is self._link:
                for reply in self._link.receive():  # type: ignore[union-attr]
                    self._committed(self._checked(reply))
            elif key.fileobj is self._wait_link:
                self._wait_replies += self._wait_link.receive()  # type: ignore[union-attr]
                while len(self._wait_replies) >= 2:
                    token, reply = self._wait_replies[:2]
                    del self._wait_replies[:2]
                    self._armed = False
                    self._checked(token)
                    if self._take(self._checked(reply)):
                        self._make_way()
            else:
                try:
                    os.read(self._poke_r, 4096)
                except BlockingIOError:
                    pass

    def _make_way(self) -> None:
        """A thread that was idle has something to do: let it have the interpreter, until it has done it or for a moment. Going about our own work
        before it is awake had it wake twice, the second time for the interpreter's lock: 0.1 ms of a pick-up."""
        self._sleeping = True
        if not self._done:
            self._selector.select(MAKE_WAY_S)  # what it finds is there for the next one, too
        self._sleeping = False

    @staticmethod
    def _checked(reply: Any) -> Any:
        """Error replies end the connection: the batch is kept and repeated, with growing waits, until the store takes it."""
        if isinstance(reply, hiredis.ReplyError):
            raise redis.ResponseError(str(reply))
        return reply


class CortexBroker(Broker):
    """One API's queue as Dramatiq sees it. Without middleware: stock Dramatiq's list retries for up to 7 days."""

    def __init__(self, url: str, terms: Terms, threads: int, feed: Callable[[Workload], None], buffered: Callable[[], list[Delivery]]) -> None:
        super().__init__(middleware=[])
        self.consumer = CortexConsumer(url, terms, threads, feed, buffered)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> Consumer:
        return self.consumer

    def declare_actor(self, actor: dramatiq.Actor) -> None:
        self.actors[actor.actor_name] = actor
        self.declare_queue(actor.queue_name)

    def declare_queue(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)

    def get_actor(self, actor_name: str) -> dramatiq.Actor:
        try:
            return self.actors[actor_name]
        except KeyError:
            raise ActorNotFound(actor_name) from None

    def enqueue(self, message: dramatiq.Message, *, delay: int | None = None) -> dramatiq.Message:
        raise CortexError("a message without its record would be lost: workloads are submitted through the intake")
