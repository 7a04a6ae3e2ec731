"""What a session needs of the world outside; each ask gets one answer."""

from dataclasses import dataclass
from typing import TypeAlias

from msgspec import Raw

from actors.message import Meta
from actors.store.interface import History
from serve.auth.keys import KeySet
from serve.auth.tokens import Claims
from serve.authorise.questions import Request
from serve.protocol.json_codec import publication
from serve.protocol.messages import CommandBody, CommandError, ErrorCode, HistoryResult
from serve.session.subscription import Subscription


@dataclass(frozen=True, slots=True, eq=False)
class AskJoin:
    """Register subscriptions and read what they need (`Subscription.read`).

    Answered by `Session.joined`, in the same step in which they begin to be served.
    """

    id: int
    subscriptions: tuple[Subscription, ...]
    connecting: bool


@dataclass(frozen=True, slots=True, eq=False)
class AskGrant(AskJoin):
    """Do the same for the one subscription that the server makes: the client has not asked.

    Others may be asked before it is answered.
    """

    data: Raw


@dataclass(frozen=True, slots=True, eq=False)
class AskLeave:
    """Take a subscription away. Answered by `UnsubscribeResult`."""

    id: int
    subscription: Subscription


@dataclass(frozen=True, slots=True, eq=False)
class AskPublish:
    """Publish. Answered by `PublishResult`; others may be asked before that."""

    id: int
    channel: str
    data: bytes
    meta: Meta


@dataclass(frozen=True, slots=True, eq=False)
class AskHistory:
    """Read (arguments of `EdgeStore.history`). Answered by what `result` makes of it."""

    id: int
    channel: str
    since: int | None
    limit: int
    reverse: bool
    meta_ttl_s: int
    epoch: str

    def result(self, history: History) -> HistoryResult:
        """Make the answer.

        Raises:
            CommandError: The epoch asked for is over.
        """
        if self.epoch and self.epoch != history.epoch:
            raise CommandError(ErrorCode.UNRECOVERABLE_POSITION)
        found = [publication(offset, body) for offset, body in history.publications]
        return HistoryResult(found, history.epoch, history.offset)


@dataclass(frozen=True, slots=True, eq=False)
class AskPresence:
    """Find who is in a channel. Answered by `PresenceResult`."""

    id: int
    channel: str


@dataclass(frozen=True, slots=True, eq=False)
class AskStats:
    """Count who is in a channel. Answered by `PresenceStatsResult`."""

    id: int
    channel: str


@dataclass(frozen=True, slots=True, eq=False)
class AskKeys:
    """Read the keys of tokens (`KeyReader.read`). Answered by `Session.keys_read`."""

    id: int
    keys: KeySet


@dataclass(frozen=True, slots=True, eq=False)
class AskRuling:
    """Ask a function of the user's (`Authoriser.rule`). Answered by `AuthorisedSession.ruled`."""

    id: int
    command: CommandBody
    request: Request


@dataclass(frozen=True, slots=True, eq=False)
class AskRefresh:
    """Ask a function whether something goes on. Answered by `ProlongedSession.prolonged`.

    Others may be asked before it is answered.
    """

    id: int
    request: Request
    about: Claims | Subscription


Ask: TypeAlias = (
    AskJoin
    | AskLeave
    | AskPublish
    | AskHistory
    | AskPresence
    | AskStats
    | AskKeys
    | AskRuling
    | AskRefresh
)
