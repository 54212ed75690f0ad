"""Lease lines from spillq and settle them.

``Consumer`` is for threads, ``AsyncConsumer`` for asyncio. Both have the same names; the README shows them in twelve lines.
"""

from ._aio import AsyncBatch, AsyncConsumer
from ._core import BadLine, FieldMissing, LeaseLost, Line, Refused, Settled
from ._sync import Batch, Consumer

__all__ = [
    "AsyncBatch",
    "AsyncConsumer",
    "BadLine",
    "Batch",
    "Consumer",
    "FieldMissing",
    "LeaseLost",
    "Line",
    "Refused",
    "Settled",
]
__version__ = "0.1.0"
