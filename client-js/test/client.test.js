// The client against a real gateway: WSGATE_BIN, or what `cargo build` has made. Where it matters
// what the client does when nothing real would do it in time, it gets a WebSocket made for that.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { describe, test as testWith } from "node:test";
import { fileURLToPath } from "node:url";

import { connect } from "../wsgate.js";

const BINARY = process.env.WSGATE_BIN ?? fileURLToPath(new URL("../../target/debug/wsgate", import.meta.url));
const JWT_SECRET = "a secret of the tests, longer than 32 bytes";
const API_KEY = "an API key of the tests";
/** Nothing here takes a fifth of it; what hangs fails. */
const test = (name, run) => testWith(name, { timeout: 10_000 }, run);
const QUICK = { min: 50, max: 100 };

/** Starts a gateway, which ends with the test if not before. */
const startGateway = async (t, { listen = "127.0.0.1:0", options = [] } = {}) => {
  const child = spawn(BINARY, ["serve", "--listen", listen, "--backend-listen", "127.0.0.1:0", ...options], {
    env: { WSGATE_JWT_SECRET: JWT_SECRET, WSGATE_API_KEY: API_KEY },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill); // Should the tests fail so badly that nothing after them runs.
  const ended = new Promise((resolve) => child.once("close", resolve));
  ended.then(() => process.off("exit", kill));
  const end = async (signal = "SIGKILL") => {
    child.kill(signal);
    await ended;
  };
  t.after(() => end());
  const log = [];
  const [at, backend] = await new Promise((resolve, reject) => {
    // It is read to its end, so that the gateway never waits for somebody to read its log.
    createInterface({ input: child.stderr }).on("line", (line) => {
      log.push(line);
      const found = line.match(/listening public=(\S+) backend=(\S+)/);
      if (found) resolve(found.slice(1));
    });
    child.on("error", reject);
    child.on("exit", () => reject(new Error(`the gateway ended:\n${log.join("\n")}`)));
  });
  return { at, url: `http://${at}/ws`, backend, end };
};

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

const tokenOf = (sub, { seconds = 60, grants = { "*": ["join", "publish"] } } = {}) => {
  const claims = { sub, exp: Date.now() / 1000 + seconds, grants };
  const signed = `${base64url({ alg: "HS256", typ: "JWT" })}.${base64url(claims)}`;
  return `${signed}.${createHmac("sha256", JWT_SECRET).update(signed).digest("base64url")}`;
};

const push = async ({ backend }, path, body = {}) => {
  const answer = await fetch(`http://${backend}${path}`, {
    method: "POST",
    headers: { authorization: `Bearer ${API_KEY}` },
    body: JSON.stringify(body),
  });
  assert.equal(answer.status, 200, `${path} was answered with ${answer.status}`);
  return answer.json();
};

/** Connects, keeps all changes of state, and closes with the test. */
const start = (t, url, token, options) => {
  const socket = connect(url, { token, backoff: QUICK, ...options });
  t.after(() => socket.close());
  const states = [];
  const waiting = [];
  socket.onState((state, info) => {
    states.push({ state, ...info });
    for (const look of [...waiting]) look();
  });
  /** Waits until the changes so far hold one that is looked for, not counting the first `from`. */
  const reaches = (state, from = 0) =>
    new Promise((resolve) => {
      const look = () => {
        const found = states.slice(from).find((change) => change.state === state);
        if (found) resolve(found);
        return found;
      };
      if (!look()) waiting.push(look);
    });
  return { socket, states, reaches };
};

/** A list of what was heard, and a way to wait until there are so many. */
const hearing = (source, event) => {
  const heard = [];
  let look = () => {};
  source.on(event, (data, info) => {
    heard.push({ data, ...info });
    look();
  });
  const upTo = (count) =>
    new Promise((resolve) => {
      look = () => heard.length >= count && resolve(heard);
      look();
    });
  return { heard, upTo };
};

/** Checks an error against what it should have, for `assert.rejects`. */
const refusal = (code, more) => (error) => {
  assert.ok(error instanceof Error);
  for (const [field, value] of Object.entries({ code, ...more })) assert.equal(error[field], value);
  return true;
};

describe("rooms and events", () => {
  test("two users talk in a room", async (t) => {
    const gateway = await startGateway(t);
    const alice = start(t, gateway.url, tokenOf("alice")).socket;
    const bob = start(t, gateway.url, async () => tokenOf("bob")).socket;
    assert.equal(alice.state, "connecting");

    const [hers, his] = [alice.join("chat"), bob.join("chat")];
    const [sheHears, heHears] = [hearing(hers, "message"), hearing(his, "message")];
    assert.deepEqual(await hers.ready, { type: "reply", id: 1, ok: true, room: "chat" });
    await his.ready;
    assert.equal(alice.state, "open");

    await hers.publish("message", { text: "not for me" }, { echo: false });
    assert.equal((await his.publish("message", { text: "for both" })).ok, true);
    assert.deepEqual(await heHears.upTo(2), [
      { data: { text: "not for me" }, room: "chat", from: "alice" },
      { data: { text: "for both" }, room: "chat", from: "bob" },
    ]);
    assert.deepEqual(await sheHears.upTo(1), [{ data: { text: "for both" }, room: "chat", from: "bob" }]);
  });

  test("a room hears its own events only, a socket hears all of a name", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice"));
    const [a, b] = [socket.join("a"), socket.join("b")];
    const [inA, all] = [hearing(a, "message"), hearing(socket, "message")];
    await b.ready;
    await b.publish("message", 1);
    await a.publish("other", 2);
    await socket.publish({ self: true }, "message", 3);
    await socket.publish({ user: "alice" }, "message");
    await a.publish("message", 5);
    assert.deepEqual(await inA.upTo(1), [{ data: 5, room: "a", from: "alice" }]);
    assert.deepEqual(await all.upTo(4), [
      { data: 1, room: "b", from: "alice" },
      { data: 3, room: undefined, from: "alice" },
      { data: null, room: "user:alice", from: "alice" },
      { data: 5, room: "a", from: "alice" },
    ]);
  });

  test("who listens twice hears twice, and what is taken back hears nothing more", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice"));
    const room = socket.join("a");
    const calls = [];
    const listener = (data) => calls.push(data);
    const undo = room.on("e", listener);
    room.on("e", listener);
    const last = hearing(room, "e");
    await room.ready;
    await room.publish("e", 1);
    await last.upTo(1);
    undo();
    undo();
    await room.publish("e", 2);
    await last.upTo(2);
    assert.deepEqual(calls, [1, 1, 2]);
  });

  test("joining twice is one membership, which the last to leave ends", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice"));
    const [first, second] = [socket.join("a"), socket.join("a")];
    const [one, two] = [hearing(first, "e"), hearing(second, "e")];
    assert.equal(await first.ready, await second.ready);
    first.leave();
    first.leave();
    await second.publish("e", 1);
    await two.upTo(1);
    assert.deepEqual(one.heard, []);
    second.leave();
    await assert.rejects(second.publish("e", 2), refusal("not_joined", { field: "to", temporary: false }));
    const third = socket.join("a");
    await third.ready;
    await third.publish("e", 3);
    assert.deepEqual(two.heard.length, 1);
  });

  test("a room that is left before its answer comes says so, and can be joined at once again", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice"));
    const early = socket.join("a");
    early.leave();
    await assert.rejects(early.ready, refusal("left"));
    await socket.join("b").ready;
    const hasty = socket.join("a");
    hasty.leave();
    const again = socket.join("a");
    await again.ready;
    const heard = hearing(again, "e");
    await again.publish("e", 1);
    await heard.upTo(1);
  });

  test("a backend pushes to a room, a user and all, and takes users in and out", async (t) => {
    const gateway = await startGateway(t);
    const { socket, reaches } = start(t, gateway.url, tokenOf("alice"));
    const all = hearing(socket, "news");
    await reaches("open");
    const room = socket.join("a");
    await room.ready;
    await push(gateway, "/v1/publish", { to: { room: "a" }, event: "news", data: 1 });
    await push(gateway, "/v1/publish", { to: { user: "alice" }, event: "news", data: 2 });
    await push(gateway, "/v1/publish", { to: { all: true }, event: "news", data: 3 });
    await push(gateway, "/v1/users/alice/join", { room: "b" });
    await push(gateway, "/v1/publish", { to: { room: "b" }, event: "news", data: 4 });
    await push(gateway, "/v1/users/alice/leave", { room: "a" });
    await push(gateway, "/v1/publish", { to: { user: "alice" }, event: "news", data: 5 });
    assert.deepEqual(await all.upTo(5), [
      { data: 1, room: "a", from: undefined },
      { data: 2, room: "user:alice", from: undefined },
      { data: 3, room: undefined, from: undefined },
      { data: 4, room: "b", from: undefined },
      { data: 5, room: "user:alice", from: undefined },
    ]);
    await assert.rejects(room.publish("e"), refusal("not_joined"));
    await socket.join("a").ready; // A new join counts again.
    await room.publish("e");
  });
});

describe("errors", () => {
  test("are those of the gateway, with their code and field", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice", { grants: { a: ["join"] } }));
    const room = socket.join("a");
    await room.ready;
    const secrets = socket.join("secrets");
    await assert.rejects(secrets.ready, refusal("forbidden", { field: "room", temporary: false }));
    await assert.rejects(room.publish("e"), refusal("forbidden", { field: "to", temporary: false }));
    await assert.rejects(socket.publish({ all: true }, "e"), refusal("forbidden", { field: "to.all" }));
    await assert.rejects(socket.publish({ rooms: ["a", ""] }, "e"), refusal("invalid_field", { field: "to.rooms[1]" }));
    await assert.rejects(socket.join("").ready, refusal("invalid_field", { field: "room" }));
  });

  test("a join that was refused is asked again by the next join", async (t) => {
    const gateway = await startGateway(t);
    const { socket, reaches } = start(t, gateway.url, tokenOf("alice", { grants: {} }));
    const room = socket.join("a");
    await assert.rejects(room.ready, refusal("forbidden"));
    await push(gateway, "/v1/users/alice/join", { room: "a" });
    await socket.join("a").ready;
    await reaches("open");
  });

  test("a join that was refused is over once a backend has put the user into the room", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice", { grants: {} }));
    const room = socket.join("a");
    await assert.rejects(room.ready, refusal("forbidden"));
    await push(gateway, "/v1/users/alice/join", { room: "a" });
    // What was said before this answer has been heard with it.
    await socket.publish({ self: true }, "e");
    await room.ready;
    await socket.join("a").ready;
  });

  test("an error without an id is of the oldest request", async (t) => {
    const gateway = await startGateway(t);
    const { socket, reaches } = start(t, gateway.url, tokenOf("alice"));
    await reaches("open");
    let deep = [];
    for (let level = 0; level < 100; level++) deep = [deep];
    const outcomes = await Promise.allSettled([
      socket.publish({ self: true }, "e"),
      socket.publish({ self: true }, "e", deep),
      socket.publish({ self: true }, "e"),
    ]);
    assert.deepEqual(outcomes.map((it) => it.reason?.code), [undefined, "too_deep", undefined]);
  });

  test("come at once where there is no connection, but for a join, which is remembered", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice"));
    const room = socket.join("a");
    await assert.rejects(room.publish("e"), refusal("disconnected", { temporary: true }));
    await assert.rejects(socket.publish({ self: true }, "e"), refusal("disconnected"));
    await room.ready;
    const cyclic = {};
    cyclic.self = cyclic;
    await assert.rejects(room.publish("e", cyclic), TypeError);
    const inFlight = room.publish("e");
    socket.close();
    await assert.rejects(inFlight, refusal("disconnected", { temporary: false }));
    await assert.rejects(socket.join("b").ready, refusal("disconnected", { temporary: false }));
    assert.equal(socket.state, "closed");
  });

  test("a promise that nobody looks at is none of the process's business, for `ready`", async (t) => {
    const unhandled = [];
    const note = (error) => unhandled.push(error);
    process.on("unhandledRejection", note);
    t.after(() => process.off("unhandledRejection", note));
    const gateway = await startGateway(t);
    const { socket, reaches } = start(t, gateway.url, tokenOf("alice", { grants: {} }));
    socket.join("a");
    await reaches("open");
    await assert.rejects(socket.join("b").ready);
    socket.join("c");
    socket.join("d").leave();
    socket.close();
    socket.join("e");
    await new Promise(setImmediate);
    assert.deepEqual(unhandled, []);
  });

  test("what can never work fails at once", () => {
    assert.throws(() => connect("/ws", { token: "t" }), TypeError); // There is no page to be relative to.
    assert.throws(() => connect("ws://127.0.0.1/ws", { token: "t", WebSocket: null }), /no WebSocket/);
  });
});

describe("reconnection", () => {
  test("after a crash rooms are joined again, in order", async (t) => {
    const gateway = await startGateway(t);
    const { socket, states, reaches } = start(t, gateway.url, () => tokenOf("alice"));
    const rooms = ["b", "a", "c"].map((name) => socket.join(name));
    await Promise.all(rooms.map((room) => room.ready));
    const before = states.length;
    const first = rooms[0].ready;
    await gateway.end("SIGKILL");
    const { code, retryInMs } = await reaches("waiting", before);
    assert.equal(code, 1006);
    assert.ok(retryInMs >= 0 && retryInMs < 100, `${retryInMs}`);

    const next = await startGateway(t, { listen: gateway.at });
    await reaches("open", before);
    assert.notEqual(rooms[0].ready, first);
    await Promise.all(rooms.map((room) => room.ready));
    const known = await fetch(`http://${next.backend}/v1/users/alice`, { headers: { authorization: `Bearer ${API_KEY}` } });
    assert.deepEqual((await known.json()).connections[0].rooms, ["user:alice", "b", "a", "c"]);
    const heard = hearing(rooms[1], "e");
    await rooms[1].publish("e", "again");
    assert.equal((await heard.upTo(1))[0].data, "again");
  });

  test("a request that was in flight when the connection was lost rejects", async (t) => {
    const gateway = await startGateway(t);
    // What is published gets lost on the way, so that it is still in flight then.
    class Lossy extends WebSocket {
      send(text) {
        if (!text.includes("publish")) super.send(text);
      }
    }
    const { socket, reaches } = start(t, gateway.url, tokenOf("alice"), { WebSocket: Lossy });
    await reaches("open");
    const inFlight = assert.rejects(socket.publish({ self: true }, "e"), refusal("disconnected", { temporary: true }));
    await Promise.all([gateway.end(), inFlight]);
  });

  test("a restart says when to come back", async (t) => {
    const gateway = await startGateway(t, { options: ["--return-spread", "200ms"] });
    // With these waits of its own it would be away for days.
    const { states, reaches } = start(t, gateway.url, () => tokenOf("alice"), { backoff: { min: 1e9, max: 1e9 } });
    await reaches("open");
    const [{ code, reason, retryInMs }] = await Promise.all([reaches("waiting"), gateway.end("SIGTERM")]);
    assert.deepEqual({ code, reason }, { code: 4503, reason: "the gateway is restarting" });
    assert.ok(retryInMs >= 0 && retryInMs <= 200, `${retryInMs}`);
    // Its own waits begin if the gateway is not back by then.
    await reaches("connecting", states.findIndex((it) => it.state === "waiting"));
  });

  test("what a backend has taken a user out of is not joined again by itself", async (t) => {
    const gateway = await startGateway(t);
    const { socket, states, reaches } = start(t, gateway.url, () => tokenOf("alice"));
    const [a, b] = [socket.join("a"), socket.join("b")];
    await b.ready;
    const told = hearing(socket, "told");
    await push(gateway, "/v1/users/alice/leave", { room: "a" });
    await push(gateway, "/v1/publish", { to: { user: "alice" }, event: "told" });
    await told.upTo(1);
    const before = states.length;
    await gateway.end("SIGKILL");
    await reaches("waiting", before);
    await startGateway(t, { listen: gateway.at });
    await reaches("open", before);
    await b.publish("e");
    await assert.rejects(a.publish("e"), refusal("not_joined"));
  });

  test("a user who is disconnected by a backend stays away", async (t) => {
    const gateway = await startGateway(t);
    const { socket, states, reaches } = start(t, gateway.url, () => tokenOf("alice"));
    const room = socket.join("a");
    await room.ready;
    await push(gateway, "/v1/users/alice/disconnect");
    const { code, reason, retryInMs } = await reaches("closed");
    assert.deepEqual({ code, reason, retryInMs }, { code: 4403, reason: "disconnected by the backend", retryInMs: undefined });
    assert.deepEqual(states.map((it) => it.state), ["open", "closed"]);
    await assert.rejects(room.publish("e"), refusal("disconnected", { temporary: false }));
  });
});

describe("tokens", () => {
  test("a refused one is asked for once more", async (t) => {
    const gateway = await startGateway(t);
    const asked = [];
    const { socket, states } = start(t, gateway.url, ({ fresh }) => {
      asked.push(fresh);
      return tokenOf("alice", { seconds: fresh ? 60 : -60 });
    });
    await socket.join("a").ready;
    assert.deepEqual(asked, [false, true]);
    assert.deepEqual(states, [
      { state: "waiting", code: 4401, reason: "the token has expired", retryInMs: 0 },
      { state: "connecting" },
      { state: "open" },
    ]);
  });

  test("one that is refused twice in a row ends it, and a string at once", async (t) => {
    const gateway = await startGateway(t);
    let asked = 0;
    const stubborn = start(t, gateway.url, () => `nonsense ${++asked}`);
    const room = stubborn.socket.join("a");
    const fixed = start(t, gateway.url, "nonsense");
    assert.deepEqual(await stubborn.reaches("closed"), { state: "closed", code: 4401, reason: "this is not a JWT" });
    assert.deepEqual(await fixed.reaches("closed"), { state: "closed", code: 4401, reason: "this is not a JWT" });
    assert.equal(asked, 2);
    assert.deepEqual(fixed.states.length, 1);
    await assert.rejects(room.ready, refusal("disconnected", { temporary: false }));
  });

  test("a function that throws is called again after a wait", async (t) => {
    const gateway = await startGateway(t);
    let asked = 0;
    const { states, reaches } = start(t, gateway.url, () => {
      if (++asked < 3) throw new Error("no network");
      return tokenOf("alice");
    });
    await reaches("open");
    assert.equal(asked, 3);
    assert.equal(states[0].state, "waiting");
    assert.equal(states[0].reason, "Error: no network");
  });

  test("one that ends is renewed on the open connection", async (t) => {
    const gateway = await startGateway(t);
    const asked = [];
    const { states, socket, reaches } = start(t, gateway.url, ({ fresh }) => {
      asked.push(fresh);
      return tokenOf("alice", fresh ? {} : { seconds: 2, grants: { a: ["join"] } });
    });
    await reaches("open");
    const room = socket.join("a");
    const heard = hearing(room, "e");
    await room.ready;
    // The first token grants no publishing: it works as soon as the second is there.
    while (heard.heard.length === 0) await room.publish("e").catch((error) => assert.equal(error.code, "forbidden"));
    assert.deepEqual(asked, [false, true]);
    assert.deepEqual(states, [{ state: "open" }]);
  });

  test("one that ends and cannot be renewed is asked for again by the next connection", async (t) => {
    const gateway = await startGateway(t);
    let asked = 0;
    const { reaches } = start(t, gateway.url, () => {
      asked++;
      if (asked === 2) throw new Error("no network");
      return tokenOf("alice", { seconds: asked === 1 ? 2 : 60 });
    });
    await reaches("open");
    const { code, reason } = await reaches("waiting");
    assert.deepEqual({ code, reason }, { code: 4401, reason: "the token has expired" });
    await reaches("open", 2);
    assert.equal(asked, 3);
  });
});

describe("closing", () => {
  /** Runs a script in a process of its own, which has to end by itself; tells it when it is `time`. */
  const run = async (t, script, time = new Promise(() => {})) => {
    const module = JSON.stringify(new URL("../wsgate.js", import.meta.url).href);
    const source = `import { connect } from ${module};\n${script}`;
    const child = spawn(process.execPath, ["--experimental-websocket", "--no-warnings", "--input-type=module", "-e", source], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    t.after(() => child.kill("SIGKILL"));
    const exit = once(child, "exit");
    time.then(() => child.stdin.end("now"));
    let said = "";
    for await (const chunk of child.stdout) said += chunk;
    assert.deepEqual(await exit, [0, null]);
    return said.trim();
  };

  /** A server that takes connections and never says a word. */
  const startMute = async (t) => {
    const sockets = new Set();
    const server = createServer((socket) => sockets.add(socket.on("error", () => {})));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    t.after(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    return { server, url: `ws://127.0.0.1:${server.address().port}/ws` };
  };

  test("in the same breath opens nothing, and leaves nothing behind", async (t) => {
    const { server, url } = await startMute(t);
    let connections = 0;
    server.on("connection", () => connections++);
    const script = `
      const socket = connect("${url}", { token: () => console.log("asked") });
      socket.onState((state) => console.log(state));
      socket.close();
      socket.close();
    `;
    assert.equal(await run(t, script), "closed");
    assert.equal(connections, 0);
  });

  test("while the token is being asked for leaves nothing behind", async (t) => {
    const script = `
      const socket = connect("ws://127.0.0.1:1/ws", { token: () => new Promise(() => setImmediate(() => socket.close())) });
      socket.onState((state) => console.log(state));
    `;
    assert.equal(await run(t, script), "closed");
  });

  test("during the handshake leaves nothing behind", async (t) => {
    const { server, url } = await startMute(t);
    const arrived = once(server, "connection");
    const ran = run(t, `
      const socket = connect("${url}", { token: "t" });
      socket.onState((state) => console.log(state));
      process.stdin.once("data", () => { socket.close(); process.stdin.destroy(); });
    `, arrived);
    const [connection] = await arrived;
    await Promise.all([once(connection.resume(), "close"), ran]);
    assert.equal(await ran, "closed");
  });

  test("while waiting, and when open, leaves nothing behind", async (t) => {
    const gateway = await startGateway(t);
    const script = `
      const one = connect("ws://127.0.0.1:1/ws", { token: "t", backoff: { min: 1e9, max: 1e9 } });
      one.onState((state) => { if (state === "waiting") one.close(); });
      const two = connect("${gateway.url}", { token: "${tokenOf("alice")}" });
      two.onState((state) => { console.log(state); if (state === "open") two.close(); });
      two.join("a");
    `;
    assert.equal(await run(t, script), "open\nclosed");
  });
});

describe("with a WebSocket of its own", () => {
  /** A WebSocket that does nothing by itself. */
  const scripted = () => {
    const made = [];
    class Scripted {
      constructor(url) {
        this.url = url;
        this.sent = [];
        this.closed = 0;
        made.push(this);
      }
      send(text) {
        this.sent.push(JSON.parse(text));
      }
      close() {
        this.closed++;
      }
      says(message) {
        this.onmessage({ data: JSON.stringify(message) });
      }
    }
    return { made, Scripted };
  };
  const ticks = () => new Promise(setImmediate);
  const welcome = { type: "welcome", connection: "1", user: "alice", expires_at: 0, expires_in: 0, rooms: ["user:alice"] };

  test("addresses are mapped to ws and wss, relative ones included", async (t) => {
    globalThis.location = new URL("https://example.org/app/page.html?query#hash");
    t.after(() => delete globalThis.location);
    const { made, Scripted } = scripted();
    const urls = ["/ws", "ws", "http://a/ws", "https://a/ws#hash", "ws://a/ws", new URL("wss://a/ws?x=1")];
    for (const url of urls) start(t, url, "t", { WebSocket: Scripted });
    await ticks();
    assert.deepEqual(made.map((it) => it.url), [
      "wss://example.org/ws",
      "wss://example.org/app/ws",
      "ws://a/ws",
      "wss://a/ws",
      "ws://a/ws",
      "wss://a/ws?x=1",
    ]);
  });

  test("the token is in the first frame and not in the address", async (t) => {
    const { made, Scripted } = scripted();
    start(t, "ws://a/ws", "secret", { WebSocket: Scripted });
    await ticks();
    made[0].onopen({});
    assert.deepEqual(made[0].sent, [{ type: "auth", token: "secret" }]);
    assert.ok(!made[0].url.includes("secret"));
  });

  test("the wait is random from the first retry on, doubles up to a limit, and starts anew after a welcome", async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    const random = t.mock.method(Math, "random", () => 0.5);
    const { made, Scripted } = scripted();
    const { states } = start(t, "ws://a/ws", "t", { WebSocket: Scripted, backoff: undefined });
    const waits = () => states.filter((it) => it.state === "waiting").map((it) => it.retryInMs);
    for (let retry = 0; retry < 5; retry++) {
      await ticks();
      made.at(-1).onclose({ code: 1006, reason: "" });
      t.mock.timers.tick(15_000);
    }
    assert.deepEqual(waits(), [2_500, 5_000, 10_000, 15_000, 15_000]);
    await ticks();
    made.at(-1).says(welcome);
    random.mock.mockImplementation(() => 0.999);
    made.at(-1).onclose({ code: 1001, reason: "" });
    assert.equal(waits().at(-1), 4_995);
  });

  test("an attempt without a welcome ends after 10 seconds, one without a token too", async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    const { made, Scripted } = scripted();
    const token = t.mock.fn(() => (token.mock.callCount() ? new Promise(() => {}) : "t"));
    const { socket, states } = start(t, "ws://a/ws", token, { WebSocket: Scripted });
    await ticks();
    t.mock.timers.tick(9_999);
    assert.equal(socket.state, "connecting");
    t.mock.timers.tick(1);
    assert.equal(states.at(-1).reason, "no welcome came in time");
    assert.equal(made[0].closed, 1);
    made[0].says(welcome); // Nobody listens to it any more.
    assert.equal(socket.state, "waiting");
    t.mock.timers.tick(100);
    await ticks();
    assert.equal(socket.state, "connecting");
    t.mock.timers.tick(10_000);
    assert.equal(socket.state, "waiting");
    assert.equal(made.length, 1);
  });

  test("an error without a close is an end, and only one", async (t) => {
    const { made, Scripted } = scripted();
    const { socket, states } = start(t, "ws://a/ws", "t", { WebSocket: Scripted, backoff: { min: 1e9, max: 1e9 } });
    await ticks();
    made[0].onerror({});
    made[0].onclose({ code: 1006, reason: "" });
    assert.deepEqual(states.map((it) => it.state), ["waiting"]);
    assert.equal(socket.state, "waiting");
  });

  test("codes without a closing message mean what their band says, and a closing message what it says", async (t) => {
    const endsWith = async (end) => {
      const { made, Scripted } = scripted();
      const { socket } = start(t, "ws://a/ws", "t", { WebSocket: Scripted, backoff: { min: 1e9, max: 1e9 } });
      await ticks();
      made[0].says(welcome);
      end(made[0]);
      return socket.state;
    };
    const outcomes = {};
    for (const code of [1000, 1001, 1002, 1003, 1005, 1006, 1007, 1009, 1011, 1012, 4399, 4400, 4401, 4403, 4499, 4500, 4503]) {
      outcomes[code] = await endsWith((ws) => ws.onclose({ code, reason: "" }));
    }
    const [waiting, closed] = ["waiting", "closed"];
    assert.deepEqual(outcomes, {
      1000: waiting, 1001: waiting, 1002: closed, 1003: closed, 1005: waiting, 1006: waiting, 1007: closed, 1009: closed,
      1011: waiting, 1012: waiting, 4399: waiting, 4400: closed, 4401: closed, 4403: closed, 4499: closed, 4500: waiting, 4503: waiting,
    });
    assert.equal(await endsWith((ws) => ws.says({ type: "closing", code: 4503, reason: "", retry: "no" })), closed);
    assert.equal(await endsWith((ws) => ws.says({ type: "closing", code: 4499, reason: "", retry: "yes" })), waiting);
  });

  test("what a later gateway may say is passed over, and so is an event of a room that was left", async (t) => {
    const { made, Scripted } = scripted();
    const { socket } = start(t, "ws://a/ws", "t", { WebSocket: Scripted });
    const { heard } = hearing(socket, "e");
    const room = socket.join("a");
    await ticks();
    const [ws] = made;
    ws.says({ ...welcome, limits: {} });
    ws.says({ type: "weather", room: "a" });
    ws.says({ type: "reply", id: 99, ok: true });
    ws.onmessage({ data: "no JSON" });
    // One chunk of TCP: the event comes before any promise has been looked at.
    ws.says({ type: "reply", id: 1, ok: true, room: "a" });
    ws.says({ type: "event", room: "a", event: "e", data: 1, seq: 7 });
    room.leave();
    ws.says({ type: "event", room: "a", event: "e", data: 2 });
    ws.says({ type: "reply", id: 2, ok: true, room: "a" });
    ws.says({ type: "event", room: "a", event: "e", data: 3 });
    assert.deepEqual(heard.map((it) => it.data), [1, 2]);
    assert.deepEqual(ws.sent.map((it) => it.type), ["join", "leave"]);
  });

  test("a room that did not let us in is not left", async (t) => {
    const { made, Scripted } = scripted();
    const { socket } = start(t, "ws://a/ws", "t", { WebSocket: Scripted });
    const room = socket.join("a");
    await ticks();
    made[0].says(welcome);
    made[0].says({ type: "error", id: 1, code: "forbidden", field: "room", message: "no", temporary: false });
    await assert.rejects(room.ready, refusal("forbidden"));
    room.leave();
    assert.deepEqual(made[0].sent.map((it) => it.type), ["join"]);
  });

  test("a listener that throws is reported, and harms no other", async (t) => {
    const { made, Scripted } = scripted();
    const { socket } = start(t, "ws://a/ws", "t", { WebSocket: Scripted });
    const fail = () => {
      throw new Error("a listener's own");
    };
    const undo = socket.onState(fail);
    socket.on("e", fail);
    const { heard } = hearing(socket, "e");
    await ticks();
    // What the runtime would report, and end this process for.
    const reports = [];
    const mock = t.mock.method(globalThis, "queueMicrotask", (report) => reports.push(report));
    made[0].says(welcome);
    made[0].says({ type: "event", event: "e", data: 1 });
    mock.mock.restore();
    undo();
    assert.equal(heard.length, 1);
    assert.equal(reports.length, 2);
    for (const report of reports) assert.throws(report, /a listener's own/);
  });

  test("listeners of the state may do anything, and what they publish comes after the joins", async (t) => {
    const { made, Scripted } = scripted();
    const { socket } = start(t, "ws://a/ws", "t", { WebSocket: Scripted, backoff: { min: 1e9, max: 1e9 } });
    const room = socket.join("a");
    socket.onState((state) => {
      if (state === "open") room.publish("e").catch(() => {});
      if (state === "waiting") socket.close();
    });
    await ticks();
    made[0].says(welcome);
    made[0].onclose({ code: 1006, reason: "" });
    assert.deepEqual(made[0].sent.map((it) => it.type), ["join", "publish"]);
    assert.equal(socket.state, "closed");
    await assert.rejects(room.ready, refusal("disconnected"));
  });
});
