// A client under Node: calls come as lines of JSON on stdin, results and events go to stdout.

import { createInterface } from "node:readline";
import EventSource from "eventsource";
import WebSocket from "ws";
import { drive, encode } from "./drive.mjs";

const { transports, options, protobuf } = JSON.parse(process.argv[2]);
const { Centrifuge } = await import(protobuf ? "centrifuge/build/protobuf" : "centrifuge");
const say = (line) => process.stdout.write(encode(line) + "\n");
const call = drive(
  Centrifuge,
  transports,
  { ...options, websocket: WebSocket, eventsource: EventSource, fetch, readableStream: ReadableStream },
  { protobuf, tell: (name, event) => say({ name, event }) });

for await (const line of createInterface({ input: process.stdin })) {
  const { id, name, args } = JSON.parse(line);
  call(name, ...args).then(
    (result) => say({ id, result }),
    (error) => say({ id, error: { code: error.code ?? -1, message: error.message } }));
}
process.exit();
