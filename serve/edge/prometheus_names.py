"""What Prometheus calls our numbers, and says of each.

https://prometheus.io/docs/practices/naming/: the unit stands at the end, before a counter's
`_total`, and a sum over all labels has a meaning. So what two kinds of parts count has two names.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Name(NamedTuple):
    """A metric's name, without `raywire_` and `_total`, and the text of HELP."""

    name: str
    help: str


NAMES: Final[Mapping[str, Mapping[str, Name]]] = {
    "nozzle": {
        "entries": Name("entries_read", "Entries read from the queue."),
        "batches": Name("batches_read", "Batches read from the queue."),
        "committed": Name("entries_committed", "Entries whose results are committed."),
        "rewinds": Name("rewinds", "Times that a nozzle began again at its checkpoint."),
        "crashes": Name("crashes", "Transformers' processes that an entry, sent alone, ended."),
        "window_used": Name("batches_under_way", "Batches read and not committed yet."),
        "queue": Name("queue_wait_seconds", "From an entry's arrival until it was read."),
        "pipeline": Name("read_to_commit_seconds", "From a batch's reading until its commit."),
    },
    "transformer": {
        "in": Name("messages_in", "Messages that went into a stage."),
        "out": Name("messages_out", "Messages that came out of a stage."),
        "dropped": Name("messages_dropped", "Messages of which a stage left nothing."),
        "dead": Name("messages_failed", "Messages of which a stage made dead letters."),
        "retries": Name("message_retries", "Messages that a stage tried again."),
        "batches": Name("batches_transformed", "Batches that went through a stage."),
        "transform": Name("transform_seconds", "A batch's way through a stage."),
    },
    "publisher": {
        "publications": Name("publications_committed", "Publications committed."),
        "commits": Name("commits", "Commits: one for each partition of a batch."),
        "conflicts": Name("commit_conflicts", "Commits that another publisher had done before."),
        "dead": Name("dead_letters_written", "Dead letters written."),
        "batches": Name("batches_committed", "Batches committed."),
        "commit": Name("commit_seconds", "A batch's way to Valkey and back."),
    },
    "edge": {
        "records": Name("feed_records_read", "Records read from the feed."),
        "publications": Name("feed_publications_read", "Publications read from the feed."),
        "delivered": Name("deliveries", "Publications, each as often as it had subscribers."),
        "delivered_bytes": Name("delivered_bytes", "Bytes of the deliveries."),
        "slow": Name("slow_clients_closed", "Clients closed because they read too slowly."),
        "api_publishes": Name("publishes_accepted", "Publishes put into the queue."),
        "api_refused": Name("publishes_refused", "Publishes that the queue did not take."),
        "api_waiting": Name("publishes_waiting", "Publishes that wait for their result."),
        "num_clients": Name("clients", "Clients connected to the edge."),
        "num_users": Name("users", "Users that the edge's clients are."),
        "num_subs": Name("subscriptions", "Subscriptions of the edge's clients."),
        "num_channels": Name("channels", "Channels that have subscribers at the edge."),
        "uptime_s": Name("edge_uptime_seconds", "Time since the edge began."),
        "authorise_calls": Name("authorise_calls", "Calls of functions of the user's."),
        "authorise_under_way": Name("authorise_calls_under_way", "Such calls that go on."),
        "authorise": Name("authorise_seconds", "Such a call until its answer."),
        "end_to_end": Name(
            "end_to_end_seconds", "From the arrival in the queue until the sockets were written."
        ),
    },
}
"""Kind of part -> what it calls a number -> what Prometheus does."""
