// What traces cost: processor time of the gateway for each event that a backend publishes over HTTP, into a room of
// one and of 1,000, without traces, with a trace that is not recorded, and with one that is. The gateway runs on core
// 0, the load and a collector on core 1. Takes about two minutes:
//
//     cargo build --release --features otel
//     WSGATE_BIN=target/release/wsgate taskset -c 1 node benches/traces.mjs
//
// WSGATE_BIN_WITHOUT names a binary without the feature, to be compared.

import { spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { Agent, createServer, request } from "node:http";
import { connect as dial } from "node:net";
import { createInterface } from "node:readline";

const RUNS = Number(process.env.RUNS ?? 5);
const SECRET = randomBytes(32).toString("hex");
const WITH = process.env.WSGATE_BIN ?? "target/release/wsgate";
const WITHOUT = process.env.WSGATE_BIN_WITHOUT;
const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const claims = { sub: "u", exp: Math.floor(Date.now() / 1000) + 3600, grants: { "*": ["join"] } };
const message = `${part({ alg: "HS256" })}.${part(claims)}`;
const token = `${message}.${createHmac("sha256", SECRET).update(message).digest("base64url")}`;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let collected = 0;
const collector = createServer((asked, answer) => {
  asked.on("data", (bytes) => (collected += bytes.length)).on("end", () => answer.end());
});
await new Promise((resolve) => collector.listen(0, "127.0.0.1", resolve));

const running = new Set();
process.on("exit", () => running.forEach((gateway) => gateway.kill()));

/** Starts a gateway, with somewhere to send traces or without. */
async function start(binary, traces) {
  const anywhere = ["--listen", "127.0.0.1:0", "--backend-listen", "127.0.0.1:0", "--workers", "1"];
  const endpoint = `http://127.0.0.1:${collector.address().port}`;
  const env = { WSGATE_JWT_SECRET: SECRET, WSGATE_API_KEY: SECRET, PATH: process.env.PATH };
  const gateway = spawn("taskset", ["-c", "0", binary, "serve", ...anywhere], {
    env: traces ? { ...env, OTEL_EXPORTER_OTLP_ENDPOINT: endpoint } : env,
    stdio: ["ignore", "inherit", "pipe"],
  });
  running.add(gateway);
  gateway.on("exit", () => running.delete(gateway));
  const log = createInterface(gateway.stderr);
  const [, host, backend] = await new Promise((resolve) => {
    log.on("line", (line) => {
      const found = line.match(/public=(\S+) backend=(\S+)/);
      if (found) resolve(found);
    });
  });
  return { gateway, port: host.split(":")[1], backend: backend.split(":")[1] };
}

let received = 0;
/** A member of the room, which does nothing but count the bytes that come. */
function member(port) {
  return new Promise((resolve) => {
    const socket = dial(port, "127.0.0.1");
    const head = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    socket.write(`GET /ws?token=${token} HTTP/1.1\r\nHost: x\r\n${head}Sec-WebSocket-Key: ${"A".repeat(22)}==\r\n\r\n`);
    const join = Buffer.from('{"type":"join","room":"chat","id":1}');
    // Masked with zeros.
    const frame = Buffer.concat([Buffer.from([0x81, 0x80 | join.length, 0, 0, 0, 0]), join]);
    let text = "";
    let joined = false;
    socket.on("data", (bytes) => {
      if (joined) return void (received += bytes.length);
      text += bytes.toString("latin1");
      if (text.includes('"welcome"')) {
        text = "";
        socket.write(frame);
      } else if (text.includes('"joined"') || text.includes('"ok":true')) {
        joined = true;
        resolve(socket);
      }
    });
  });
}

const body = JSON.stringify({ to: { room: "chat" }, event: "m", data: "x".repeat(60) });
const agent = new Agent({ keepAlive: true, maxSockets: 4 });
function publish(port, flags) {
  const headers = { Authorization: `Bearer ${SECRET}`, "Content-Length": body.length };
  // As long where there is none: what a longer request costs is not the question.
  const id = randomBytes(16).toString("hex");
  headers[flags ? "traceparent" : "x-parentage"] = `00-${id}-${randomBytes(8).toString("hex")}-${flags || "00"}`;
  return new Promise((resolve, reject) => {
    const asked = request({ port, host: "127.0.0.1", method: "POST", path: "/v1/publish", agent, headers });
    asked.on("response", (answer) => answer.resume().on("end", resolve)).on("error", reject);
    asked.end(body);
  });
}

/** Nanoseconds on a processor, of all threads. */
function processorTime(pid) {
  const threads = readdirSync(`/proc/${pid}/task`);
  const of = (thread) => Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "latin1").split(" ")[0]);
  return threads.map(of).reduce((sum, time) => sum + time);
}

/** Microseconds of the gateway for each event. */
async function measure({ binary, traces, flags }, members, events) {
  const { gateway, port, backend } = await start(binary, traces);
  const sockets = await Promise.all(Array.from({ length: members }, () => member(port)));
  await publish(backend, flags);
  await pause(300);
  received = 0;
  await publish(backend, flags);
  await pause(300);
  const all = received * events;
  received = 0;
  const before = processorTime(gateway.pid);
  let left = events;
  const publishAll = async () => {
    while (left-- > 0) await publish(backend, flags);
  };
  await Promise.all(Array.from({ length: 4 }, publishAll));
  while (received < all) await pause(1);
  // What is exported every few seconds belongs to it.
  if (flags === "01") await pause(5500);
  const took = processorTime(gateway.pid) - before;
  for (const socket of sockets) socket.destroy();
  gateway.kill();
  await new Promise((resolve) => gateway.on("exit", resolve));
  return took / events / 1000;
}

const modes = {
  "without the feature": WITHOUT && { binary: WITHOUT },
  "no endpoint": { binary: WITH },
  "not recorded": { binary: WITH, traces: true, flags: "00" },
  recorded: { binary: WITH, traces: true, flags: "01" },
};
for (const [members, events] of [
  [1, 20000],
  [1000, 1000],
]) {
  const figures = {};
  for (let run = 0; run < RUNS; run++) {
    for (const [name, mode] of Object.entries(modes)) {
      if (mode) (figures[name] ??= []).push(await measure(mode, members, events));
    }
  }
  for (const [name, all] of Object.entries(figures)) {
    all.sort((one, other) => one - other);
    const [least, median, most] = [all[0], all[all.length >> 1], all.at(-1)].map((figure) => figure.toFixed(1));
    console.log(`${members} members, ${name}: ${median} µs an event (${least} to ${most})`);
  }
}
console.log(`the collector has received ${(collected / 1e6).toFixed(1)} MB`);
process.exit();
