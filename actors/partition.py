"""Which partition a channel belongs to, and how the keys of a partition are named.

All keys of partition p carry the hash tag `{p}`, so that what one commit touches is one slot of
a Redis or Valkey Cluster (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).
"""

import zlib
from dataclasses import dataclass


def partition_of(channel: str, partitions: int) -> int:
    """Return the partition of a channel: crc32 of its UTF-8 bytes, modulo `partitions`."""
    return zlib.crc32(channel.encode()) % partitions


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of all keys of one app. `app` is the first part of every name."""

    app: str = "raywire"

    def queue(self, partition: int) -> str:
        """Name the stream that producers append to."""
        return f"{self.app}:{{{partition}}}:queue"

    def applied(self, partition: int) -> str:
        """Name the hash source partition -> last entry id applied here.

        Its field `seq` counts feed records.
        """
        return f"{self.app}:{{{partition}}}:applied"

    def feed(self, partition: int) -> str:
        """Name the capped stream of committed batches that edges follow."""
        return f"{self.app}:{{{partition}}}:feed"

    def dead(self, partition: int) -> str:
        """Name the capped stream of dead letters."""
        return f"{self.app}:{{{partition}}}:dead"

    def meta(self, partition: int, channel: str) -> str:
        """Name the hash with a channel's top offset (`o`), epoch (`e`) and version (`v`, `ve`)."""
        return f"{self.app}:{{{partition}}}:meta:{channel}"

    def history(self, partition: int, channel: str) -> str:
        """Name the list of a channel's retained publications, oldest first."""
        return f"{self.app}:{{{partition}}}:history:{channel}"

    def counters(self, partition: int, channel: str) -> str:
        """Name the hash of a channel's counters."""
        return f"{self.app}:{{{partition}}}:counters:{channel}"

    def first_result(self, partition: int, channel: str, key: str) -> str:
        """Name the string that holds the first result of an idempotency key."""
        # A blank, which no channel has: either may have a colon.
        return f"{self.app}:{{{partition}}}:once:{channel} {key}"

    def producer(self, partition: int, producer: str) -> str:
        """Name the string that holds the last number accepted of a numbered producer."""
        return f"{self.app}:{{{partition}}}:producer:{producer}"

    def presence(self, partition: int, channel: str) -> str:
        """Name the hash client id -> info of who is in a channel."""
        return f"{self.app}:{{{partition}}}:presence:{channel}"

    def presence_expiry(self, partition: int, channel: str) -> str:
        """Name the sorted set of client ids by the time at which each entry expires."""
        return f"{self.app}:{{{partition}}}:presence_expiry:{channel}"

    def box_open(self, edge: str) -> str:
        """Name the string that is there while an edge has a box."""
        return f"{self.app}:emulation:{{{edge}}}:open"

    def box(self, edge: str) -> str:
        """Name the stream of what other edges have left for an edge."""
        return f"{self.app}:emulation:{{{edge}}}"

    @property
    def layout(self) -> str:
        """Name the hash of facts that are fixed for the life of the data."""
        return f"{self.app}:layout"

    @property
    def control(self) -> str:
        """Name the capped stream by which edges tell one another what to do to clients."""
        return f"{self.app}:control"

    @property
    def marks(self) -> str:
        """Name the hash nozzle -> the mark of the batch that is being transformed alone for it."""
        return f"{self.app}:marks"

    @property
    def stats(self) -> str:
        """Name the hash part -> its latest numbers, as JSON."""
        return f"{self.app}:stats"
