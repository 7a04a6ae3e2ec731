"""A session in which the user's functions decide, where the settings say so. Sans-I/O."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import msgspec
from msgspec import Raw

from serve.auth.tokens import Claims, Grant
from serve.authorise.questions import (
    ConnectRequest,
    PublishRequest,
    Request,
    RpcRequest,
    SubscribeRequest,
)
from serve.authorise.ruling import Publishable, Ruling
from serve.protocol.messages import (
    Close,
    CommandBody,
    CommandError,
    Connect,
    DisconnectCode,
    DisconnectError,
    ErrorCode,
    OwnError,
    Publish,
    Rpc,
    RpcResult,
    Send,
    Subscribe,
)
from serve.session.approach import UNKNOWN, Approach, joined
from serve.session.asks import Ask, AskRuling
from serve.session.session import Session, State


class AuthorisedSession(Session):
    """Ask before commands take effect. Those that come after one wait until it is decided.

    What the settings and the session itself refuse is refused without asking, and once more after
    the answer, as the server may have done something meanwhile.
    """

    def __init__(self, *args: Any, approach: Approach = UNKNOWN, **options: Any) -> None:
        """See `Session`.

        Args:
            args: As there.
            approach: How the client came.
            options: As there.
        """
        super().__init__(*args, **options)
        self._approach = approach
        self._transport = approach.transport
        self._commands[Rpc] = self._rpc
        self._commands[Send] = self._refuse_send
        self._obey: dict[type[Any], Callable[[int, Any, Any], None]] = {
            Claims: self._enter,
            Grant: self._subscribe_by,
            Publishable: self._publish_by,
            RpcResult: self._return,
        }

    def ruled(self, ask: AskRuling, ruling: Ruling, now: float) -> None:
        """Answer a question to a function with what follows."""
        self._now = now
        self._waiting = None
        if self.close is None:
            try:
                self._follow(ask, ruling)
            except CommandError as error:
                self._error(ask.id, ask.command, error.code)
            except DisconnectError as error:
                self.shut(error.code)
        self._work()

    def failed(self, ask: Ask, code: ErrorCode, now: float) -> None:
        """See `Session.failed`."""
        if isinstance(ask, AskRuling):
            self.ruled(ask, code, now)
        else:
            super().failed(ask, code, now)

    def tick(self, now: float) -> None:
        """See `Session.tick`. While commands wait, nothing is read, and so no answer to a ping."""
        if self.busy:
            self._pulse.unheard(now)
        super().tick(now)

    def _follow(self, ask: AskRuling, ruling: Ruling) -> None:
        if isinstance(ruling, Close):
            self.shut(ruling)
        elif isinstance(ruling, ErrorCode | OwnError):
            self._error(ask.id, ask.command, ruling)
        else:
            self._obey[type(ruling)](ask.id, ask.command, ruling)

    def _ask(self, command_id: int, command: CommandBody, request: Request) -> None:
        self._wait(AskRuling(command_id, command, request))

    def _who(self) -> dict[str, Any]:
        claims = self._client.claims
        # Copies: whatever a function does to them is nobody else's concern.
        theirs = {"info": deepcopy(claims.info), "meta": deepcopy(claims.meta)}
        return {
            "client": self.client,
            "user": claims.user,
            "transport": self._transport,
            **theirs,
        }

    # --- commands

    def _connect(self, command_id: int, request: Connect) -> None:
        approach, self._approach = self._approach, UNKNOWN  # Not kept for as long as the client is.
        if request.token or not self._access.functions.connect:
            super()._connect(command_id, request)
            return
        self.state = State.CONNECTING
        asked = ConnectRequest(
            client=self.client,
            headers=approach.headers,
            sent_headers=joined(request.headers.items()),
            data=_value(request.data),
            name=request.name,
            version=request.version,
            transport=approach.transport,
        )
        self._ask(command_id, request, asked)

    def _subscribe(self, command_id: int, request: Subscribe) -> None:
        options = self._client.room_for(request, self.subscriptions)
        if request.token or not self._access.asks_subscribe(request.channel, options):
            super()._subscribe(command_id, request)
            return
        data = _value(request.data)
        asked = SubscribeRequest(channel=request.channel, data=data, **self._who())
        self._ask(command_id, request, asked)

    def _subscribe_by(self, command_id: int, request: Subscribe, grant: Grant) -> None:
        self._client.room_for(request, self.subscriptions)
        self._begin(command_id, self._client.granted(request, grant))

    def _publish(self, command_id: int, request: Publish) -> None:
        if not self._client.publish_options(request).authorise_publish:
            super()._publish(command_id, request)
            return
        data = _value(request.data)
        asked = PublishRequest(channel=request.channel, data=data, **self._who())
        self._ask(command_id, request, asked)

    def _publish_by(self, command_id: int, request: Publish, given: Publishable) -> None:
        if given.data is not None:
            request = Publish(request.channel, Raw(given.data))
        self._send_off(command_id, request)

    def _rpc(self, command_id: int, request: Rpc) -> None:
        if not self._access.functions.rpc:
            raise CommandError(ErrorCode.NOT_AVAILABLE)
        data = _value(request.data)
        self._ask(command_id, request, RpcRequest(method=request.method, data=data, **self._who()))

    def _return(self, command_id: int, _: Rpc, result: RpcResult) -> None:
        self._reply(command_id, result)

    def _refuse_send(self, command_id: int, request: Send) -> None:
        del command_id, request
        raise DisconnectError(DisconnectCode.NOT_AVAILABLE)


def _value(data: Raw) -> Any:
    """Return the JSON value that a client gave, None where it gave nothing.

    Raises:
        CommandError: It is no JSON.
    """
    text = bytes(data)
    try:
        return msgspec.json.decode(text) if text else None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CommandError(ErrorCode.BAD_REQUEST) from error
