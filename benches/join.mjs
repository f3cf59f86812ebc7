// What a join costs that the backend decides, when it answers at once, in 1 ms, in 200 ms and never; and what
// others notice meanwhile. Takes about half a minute:
//
//     WSGATE_BIN=target/release/wsgate node --experimental-websocket benches/join.mjs

import { spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const SECRET = randomBytes(32).toString("hex");
const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
function token(sub) {
  const message = `${part({ alg: "HS256" })}.${part({ sub, exp: Math.floor(Date.now() / 1000) + 3600 })}`;
  return `${message}.${createHmac("sha256", SECRET).update(message).digest("base64url")}`;
}
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The backend: yes to everything, after a while.
let delay = 0;
let asked = 0;
const backend = createServer((request, response) => {
  asked++;
  request.resume().on("end", () => {
    const answer = () => response.end(JSON.stringify({ allow: true }));
    if (delay !== Infinity) delay ? setTimeout(answer, delay) : answer();
  });
});
await new Promise((resolve) => backend.listen(0, "127.0.0.1", resolve));

const folder = mkdtempSync(join(tmpdir(), "wsgate-join-"));
const file = join(folder, "wsgate.toml");
const url = `http://127.0.0.1:${backend.address().port}/`;
const rule = (pattern, access) => `[[rooms]]\npattern = "${pattern}"\njoin = "${access}"\n\n`;
writeFileSync(file, `${rule("ask:*", "ask")}${rule("free:*", "allow")}[backend]\naccess_url = "${url}"\n`);
const anywhere = ["--listen", "127.0.0.1:0", "--backend-listen", "127.0.0.1:0", "--max-rooms", "10000"];
const gateway = spawn(process.env.WSGATE_BIN ?? "target/release/wsgate", ["serve", "--config", file, ...anywhere], {
  env: { WSGATE_JWT_SECRET: SECRET, WSGATE_API_KEY: SECRET, WSGATE_LOG_FORMAT: "text" },
  stdio: ["ignore", "inherit", "pipe"],
});
process.on("exit", () => {
  gateway.kill();
  rmSync(folder, { recursive: true });
});
const address = await new Promise((resolve) => {
  createInterface(gateway.stderr).on("line", (line) => {
    const found = line.match(/public=(\S+)/);
    if (found) resolve(found[1]);
  });
});

/** Connects, and gives what sends a request and waits for its answer. */
function connect(user) {
  return new Promise((resolve) => {
    const socket = new WebSocket(`ws://${address}/ws?token=${token(user)}`);
    const waiting = new Map();
    let last = 0;
    const ask = (request) =>
      new Promise((answered) => {
        waiting.set(++last, answered);
        socket.send(JSON.stringify({ ...request, id: last }));
      });
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "welcome") resolve(ask);
      waiting.get(message.id)?.(message);
    };
  });
}

async function time(what) {
  const begun = performance.now();
  await what();
  return performance.now() - begun;
}
const at = (times, share) => `${times.sort((a, b) => a - b)[Math.floor((times.length - 1) * share)].toFixed(2)} ms`;
let rooms = 0;
async function joins(ask, kind, count) {
  const times = [];
  for (let n = 0; n < count; n++) times.push(await time(() => ask({ type: "join", room: `${kind}:${rooms++}` })));
  return times;
}
/** What others notice while something goes on: a ping of the same connection, a join of another. */
async function meanwhile(what) {
  const [pings, others] = [[], []];
  let over = false;
  const watching = (async () => {
    while (!over) {
      pings.push(await time(() => alice({ type: "ping" })));
      others.push(...(await joins(bob, "free", 1)));
      await pause(5);
    }
  })();
  const result = await what();
  over = true;
  await watching;
  return [result, `ping ${at(pings, 0.5)}, join of another ${at(others, 0.5)}`];
}

const [alice, bob] = [await connect("alice"), await connect("bob")];
await joins(alice, "free", 500);
const free = await joins(alice, "free", 500);
console.log(`without a question: median ${at(free, 0.5)}, p99 ${at(free, 0.99)}`);
for (delay of [0, 1, 200]) {
  const [times, noticed] = await meanwhile(() => joins(alice, "ask", delay === 200 ? 25 : 500));
  console.log(`answer in ${delay} ms: median ${at(times, 0.5)}, p99 ${at(times, 0.99)}; meanwhile ${noticed}`);
}
const many = await Promise.all(Array.from({ length: 200 }, (_, n) => connect(`user${n}`)));
const crowd = await time(() => Promise.all(many.map((ask) => ask({ type: "join", room: "ask:crowd" }))));
console.log(`answer in 200 ms, 200 users at once: all are in after ${crowd.toFixed(0)} ms`);
const tabs = await Promise.all(Array.from({ length: 200 }, () => connect("same")));
const before = asked;
const same = await time(() => Promise.all(tabs.map((ask) => ask({ type: "join", room: "ask:same" }))));
console.log(`answer in 200 ms, 200 tabs of one user: all are in after ${same.toFixed(0)} ms, by ${asked - before} question`);
delay = Infinity;
const [never, noticed] = await meanwhile(() => joins(alice, "ask", 5));
console.log(`no answer: refused after ${at(never, 0.5)}; meanwhile ${noticed}`);
const alone = await joins(alice, "ask", 500);
console.log(`no answer, once it is left alone: refused after ${at(alone, 0.5)}`);
delay = 1;
await pause(5100);
console.log(`answer in 1 ms, after the pause: median ${at(await joins(alice, "ask", 100), 0.5)}`);
process.exit(0);
