// What the tests may have a client do, and what they are told: the same under Node and in a page.

const CONNECTION = ["connecting", "connected", "disconnected", "error"];
const SUBSCRIPTION = [
  "subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error"];
const DELAYS = { minResubscribeDelay: 50, maxResubscribeDelay: 200 };

/** JSON of anything; bytes, as the Protobuf build has them for data, are JSON already. */
export function encode(value) {
  return JSON.stringify(value, (_, part) =>
    part instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(part)) : part);
}

/**
 * Make a client, and return what calls one of its methods.
 *
 * Events go to `tell(name, event)`. Those of a subscription that the server made begin with
 * `server_`; errors of a subscription with `subscription_`. A client or subscription that
 * `asks` has a function for tokens: it tells `token_wanted`, and returns what is given. For the
 * connection, `channel` is empty.
 */
export function drive(Centrifuge, transports, options, { protobuf = false, tell }) {
  const pack = protobuf ? (data) => new TextEncoder().encode(JSON.stringify(data)) : (data) => data;
  const packed = (data) => (data === undefined ? {} : { data: pack(data) });
  const wanted = {};
  const ask = ({ channel = "" }) => new Promise((take) => {
    wanted[channel] = take;
    tell("token_wanted", { channel });
  });
  const asking = (asks) => (asks ? { getToken: ask } : {});

  const { asks = false, data, ...own } = options;
  const client = new Centrifuge(transports, { ...own, ...packed(data), ...asking(asks) });
  for (const name of CONNECTION) client.on(name, (event) => tell(name, event));
  for (const name of SUBSCRIPTION.slice(0, -1)) {
    client.on(name, (event) => tell(`server_${name}`, event));
  }

  function subscription(channel, wishes) {
    const { join_leave: joinLeave, tags_filter: tagsFilter, asks = false, data, ...own } = wishes;
    const found = client.newSubscription(channel, {
      ...own, ...packed(data), ...asking(asks), ...DELAYS,
      joinLeave, tagsFilter });
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
    give: (channel, token) => wanted[channel](token),
    set_token: (token) => client.setToken(token),
    rpc: (method, data) => client.rpc(method, pack(data)),
  };
  return async (name, ...args) => (await calls[name](...args)) ?? null;
}
