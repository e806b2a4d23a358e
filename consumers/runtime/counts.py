"""What happened to the records of one shard, counted; names are Lambda's opt-in metrics of event source mappings."""

from __future__ import annotations

from dataclasses import dataclass

EVENT_COUNTS = (
    "PolledEventCount",
    "FilteredOutEventCount",
    "InvokedEventCount",
    "FailedInvokeEventCount",
    "DroppedEventCount",
    "OnFailureDestinationDeliveredEventCount",
)


@dataclass(slots=True)
class ShardCounts:
    """Counts of records, but for ``retries``, ``dropped_windows`` and ``delivery_failures``.

    ``dropped_records`` are all that were given up; of these a destination was told of ``delivered``, and of
    ``dropped`` nobody (AWS: "Dropped events also excludes events that you send to an on-failure destination").
    ``invoked`` and ``failed_invoke`` count a record once an invocation, throttled ones included.
    """

    retries: int = 0
    dropped_records: int = 0
    dropped_windows: int = 0
    polled: int = 0
    filtered_out: int = 0
    invoked: int = 0
    failed_invoke: int = 0
    dropped: int = 0
    delivered: int = 0
    delivery_failures: int = 0

    def event_counts(self) -> dict[str, int]:
        """By CloudWatch's names."""
        values = (self.polled, self.filtered_out, self.invoked, self.failed_invoke, self.dropped, self.delivered)
        return dict(zip(EVENT_COUNTS, values, strict=True))
