"""The functions of `journey_rules`: who may do what, as an app would say it."""

from serve.authorise import (
    AllowConnect,
    AllowPublish,
    AllowRpc,
    AllowSubscribe,
    ConnectRequest,
    Deny,
    Disconnect,
    PublishRequest,
    RpcRequest,
    SubscribeRequest,
)


def connect(request: ConnectRequest) -> AllowConnect | Disconnect:
    """Let in who has the password."""
    match request.data:
        case {"user": str(user), "password": "rose"}:
            return AllowConnect(
                user=user,
                info={"nick": user.title()},
                meta={"chair": user == "bob"},
                data={"welcome": user},
                channels=["ruled:all"],
            )
    return Disconnect(4501, "log in first")


def subscribe(request: SubscribeRequest) -> AllowSubscribe | Deny | Disconnect:
    """Keep all out of the cellar, and those who knock at the gate out of everything."""
    match request.channel:
        case "ruled:cellar":
            return Deny(403, "not in there")
        case "ruled:gate":
            return Disconnect(4502, "do not knock")
    return AllowSubscribe(info={"role": "guest"}, data={"asked": request.data})


async def publish(request: PublishRequest) -> AllowPublish | Deny:
    """Sign what is published; keep the board for the chair."""
    if request.channel == "ruled:board" and not request.meta["chair"]:
        return Deny(401, "only the chair writes here")
    return AllowPublish(data={"text": request.data, "by": request.user})


async def rpc(request: RpcRequest) -> AllowRpc | Deny:
    """Add numbers; know nothing else."""
    if request.method == "add":
        return AllowRpc({"sum": sum(request.data)})
    return Deny(104)
