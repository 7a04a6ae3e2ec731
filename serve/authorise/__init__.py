"""What your functions are asked about clients, and what they may answer.

For modules of yours that the settings name in `authorise`; docs/authorisation.md is the manual.
"""

from serve.authorise.questions import (
    SERVER_API,
    UNCHANGED,
    AllowConnect,
    AllowPublish,
    AllowRefresh,
    AllowRpc,
    AllowSubRefresh,
    AllowSubscribe,
    Answer,
    ClientRequest,
    ConnectRequest,
    Deny,
    Disconnect,
    PublishRequest,
    RefreshRequest,
    Request,
    RpcRequest,
    SubRefreshRequest,
    SubscribeRequest,
)

__all__ = [
    "SERVER_API",
    "UNCHANGED",
    "AllowConnect",
    "AllowPublish",
    "AllowRefresh",
    "AllowRpc",
    "AllowSubRefresh",
    "AllowSubscribe",
    "Answer",
    "ClientRequest",
    "ConnectRequest",
    "Deny",
    "Disconnect",
    "PublishRequest",
    "RefreshRequest",
    "Request",
    "RpcRequest",
    "SubRefreshRequest",
    "SubscribeRequest",
]
