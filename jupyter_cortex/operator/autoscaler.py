"""How many replicas an API should have: a pure function of its load, its policy and its recent past.

Nothing here reads a clock, a machine or a store; whoever calls :meth:`Autoscaler.tick` brings the time and the load.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, fields
from fractions import Fraction

from ..core.spec import Autoscaling

#: Seconds between two samples of the queue, and between two ticks.
TICK_SECONDS = 10.0


@dataclass(frozen=True)
class Policy:
    """What of the spec's ``autoscaling`` decides; periods are in seconds. The defaults are the spec's."""

    min_replicas: int = 1
    max_replicas: int = 100
    target_replica_concurrency: float = 1.0
    max_downscale_factor: float = 0.75
    max_upscale_factor: float = 1.5
    downscale_tolerance: float = 0.05
    upscale_tolerance: float = 0.05
    downscale_stabilization_period: float = 300.0
    upscale_stabilization_period: float = 60.0

    @classmethod
    def from_spec(cls, autoscaling: Autoscaling) -> Policy:
        return cls(**{field.name: getattr(autoscaling, field.name) for field in fields(cls)})


def average(samples: Iterable[float]) -> float | None:
    """Load over a window: the mean of its samples (waiting + in progress each). None, so no decision, without one."""
    values = list(samples)
    return sum(values) / len(values) if values else None


class Autoscaler:
    """Decides for one deployment. Its memory begins empty at every deploy and at every start of the operator."""

    def __init__(self, policy: Policy, current: int) -> None:
        self.policy = policy
        self.current = current  #: replicas after the last tick
        self.recommendation: int | None = None  #: of the last tick, before stabilization; None without data
        self._started: float | None = None
        self._past: deque[tuple[float, int]] = deque()

    def tick(self, now: float, in_flight: float | None) -> int:
        """The number of replicas from ``now`` (seconds) on, given the average load; it becomes ``current``.

        ``in_flight`` None, or a number that no load can be, changes nothing; the first tick starts the clock anyway.
        """
        if self._started is None:
            self._started = now
        if in_flight is None or not math.isfinite(in_flight) or in_flight < 0:
            self.recommendation = None
            return self.current
        self.recommendation = self._recommend(in_flight)
        self._remember(now, self.recommendation)
        self.current = self._stabilize(now, now - self._started, self.recommendation)
        return self.current

    def _recommend(self, in_flight: float) -> int:
        """What the load asks for, within the factors and the limits of the policy."""
        policy, current = self.policy, self.current
        raw = in_flight / policy.target_replica_concurrency
        tolerated = current * (1 - policy.downscale_tolerance) < raw < current or current < raw < current * (1 + policy.upscale_tolerance)
        # Beyond the largest limit the exact number no longer matters, and a tiny target could make it infinite.
        wanted = current if tolerated else math.ceil(min(raw, 2.0**31))
        # One less and one more are always allowed, however close to 1 the factors are.
        wanted = max(wanted, min(current - 1, math.ceil(current * policy.max_downscale_factor)))
        wanted = min(wanted, max(current + 1, math.ceil(min(current * policy.max_upscale_factor, 2.0**31))))
        return min(max(wanted, 1, policy.min_replicas), policy.max_replicas)

    def _remember(self, now: float, recommendation: int) -> None:
        self._past.append((now, recommendation))
        longest = max(self.policy.downscale_stabilization_period, self.policy.upscale_stabilization_period)
        while now - self._past[0][0] > longest:
            self._past.popleft()

    def _stabilize(self, now: float, running: float, request: int) -> int:
        """Scale down only to the highest, and up only to the lowest, of what was recommended in that period."""
        policy, current = self.policy, self.current
        if request < current:
            period = policy.downscale_stabilization_period
            recent = [value for at, value in self._past if now - at <= period]
            # Never above current: a spike in the period must not turn a downscale into an upscale.
            request = current if running < period else min(current, max(request, *recent))
        if request > current:
            period = policy.upscale_stabilization_period
            recent = [value for at, value in self._past if now - at <= period]
            # Never below current: a dip in the period must not turn an upscale into a downscale.
            request = current if running < period else max(current, min(request, *recent))
        return request


def cap(
    wanted: int,
    *,
    cpus: int,
    memory_available: int,
    replica_memory: int | None,
    per_cpu: int = 2,
    replica_cpus: Fraction | None = None,
    gpus: int = 0,
    replica_gpus: int = 0,
) -> tuple[int, str | None]:
    """How many of ``wanted`` replicas this machine should hold (at least 1), and why it is fewer, if it is.

    ``memory_available`` is in bytes and must count what running replicas hold already, or they would cap themselves;
    ``replica_memory`` is None when nothing is known of it. ``replica_cpus`` is the share that the spec gives a replica, None when it gives none;
    ``replica_gpus`` are the GPUs that each must have.
    """
    machine = f"{cpus} CPU" if cpus == 1 else f"{cpus} CPUs"
    limits = [(cpus * per_cpu, machine)]
    if replica_cpus:
        limits.append((int(cpus / replica_cpus), f"{machine}, {float(replica_cpus):g} for each"))
    if replica_gpus:
        limits.append((gpus // replica_gpus, f"{gpus} GPU{'' if gpus == 1 else 's'}, {replica_gpus} for each"))
    if replica_memory is not None and replica_memory > 0:
        limits.append((max(memory_available, 0) // replica_memory, f"{_size(memory_available)} of memory free"))
    most, reason = min(limits, key=lambda limit: limit[0])
    most = max(most, 1)
    if wanted <= most:
        return max(wanted, 1), None
    return most, f"wanted {wanted}, capped at {most}: {reason}"


def _size(size: int) -> str:
    return f"{max(size, 0) / 1e9:.1f} GB" if size >= 1e9 else f"{max(size, 0) / 1e6:.0f} MB"
