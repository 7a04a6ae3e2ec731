// What the tests may have a client do, and what they are told: the same under Node and in a page.

const CONNECTION = ["connecting", "connected", "disconnected", "error"];
const SUBSCRIPTION = [
  "subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error"];

/** JSON of anything; bytes, as the Protobuf build has them for data, are JSON already. */
export function encode(value) {
  return JSON.stringify(value, (_, part) =>
    part instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(part)) : part);
}

/**
 * Make a client, and return what calls one of its methods.
 *
 * Events go to `tell(name, event)`. Those of a subscription that the server made begin with
 * `server_`; errors of a subscription with `subscription_`.
 */
export function drive(Centrifuge, transports, options, { protobuf = false, tell }) {
  const pack = protobuf ? (data) => new TextEncoder().encode(JSON.stringify(data)) : (data) => data;
  const client = new Centrifuge(transports, options);
  for (const name of CONNECTION) client.on(name, (event) => tell(name, event));
  for (const name of SUBSCRIPTION.slice(0, -1)) {
    client.on(name, (event) => tell(`server_${name}`, event));
  }

  function subscription(channel, { recoverable = false, join_leave: joinLeave = false }) {
    const found = client.newSubscription(channel, { recoverable, joinLeave });
    for (const name of SUBSCRIPTION) {
      const told = name === "error" ? "subscription_error" : name;
      found.on(name, (event) => tell(told, { channel, ...event }));
    }
    return found;
  }

  const calls = {
    connect: () => client.connect(),
    disconnect: () => client.disconnect(),
    subscribe: (channel, wishes) =>
      (client.getSubscription(channel) ?? subscription(channel, wishes)).subscribe(),
    unsubscribe: (channel) => client.getSubscription(channel).unsubscribe(),
    publish: (channel, data) => client.publish(channel, pack(data)),
    history: (channel, wishes) => client.history(channel, wishes),
    presence: (channel) => client.presence(channel),
    presence_stats: (channel) => client.presenceStats(channel),
    rpc: (method, data) => client.rpc(method, pack(data)),
  };
  return async (name, ...args) => (await calls[name](...args)) ?? null;
}
