"""What worker-seconds cost, and how many of them a budget buys.

Workers are paid for from an attempt's start to its end, whatever they do in it; waiting in the queue is free.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.core.ledger import Ledger, TimeClass
from orchestrator.core.scheduling.fit import GangShape

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Prices:
    """Of one hour; 0 everywhere: this server knows no prices."""

    cpu_hour: float = 0.0
    gpu_hour: float = 0.0
    currency: str = "USD"

    @property
    def known(self) -> bool:
        return self.cpu_hour > 0 or self.gpu_hour > 0


NO_PRICES = Prices()


@dataclass(frozen=True)
class Amount:
    amount: float
    currency: str


def worker_price_s(shape: GangShape, prices: Prices) -> float:
    """What one worker costs a second."""
    return (shape.cpu * prices.cpu_hour + shape.gpu * prices.gpu_hour) / _HOUR_S


def paid_s(ledgers: Iterable[Ledger]) -> float:
    """Worker-seconds that cost something."""
    return sum(ledger.total_ns / 1e9 - ledger.seconds(TimeClass.QUEUED) for ledger in ledgers)


def cannot_hold(shape: GangShape, currency: str, prices: Prices) -> str | None:
    """Why a limit in `currency` could not be held for this gang; None where it can."""
    if not prices.known:
        return (
            "this server knows no prices: set EVERTRAIN_PRICE_CPU_HOUR or EVERTRAIN_PRICE_GPU_HOUR, or use max_duration"
        )
    if currency != prices.currency:
        return f"this server counts in {prices.currency}: give the limit in {prices.currency}"
    if not worker_price_s(shape, prices):
        return "what this gang asks for has no price here: use max_duration"
    return None


def affordable_s(budget: float, shape: GangShape, prices: Prices, used_worker_s: float) -> float:
    """Seconds for which the whole gang may still run: what the rest of the budget buys. Never negative.

    `used_worker_s`: what earlier attempts have used, of `paid_s`. Raises ValueError where nothing has a price.
    """
    price = worker_price_s(shape, prices)
    if price <= 0:
        raise ValueError("a gang without a price can run for ever: ask cannot_hold first")
    return max(0.0, (budget / price - used_worker_s) / shape.workers)


def cost(shape: GangShape, prices: Prices, whole: Ledger) -> Amount | None:
    """What a run of that gang has cost so far, by the account of all its time; None where nothing is known of prices."""
    return Amount(paid_s([whole]) * worker_price_s(shape, prices), prices.currency) if prices.known else None
