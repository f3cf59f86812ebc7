// Getting a proof for each attempt: what may be given, what may go wrong, and when it has to be fresh.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { Unauthorized } from "../wsgate.js";
import { againstBoth, NEVER, refusal, start, startFake, test, tokenOf, until } from "./support/client.js";
import { settle } from "./support/clock.js";
import { scripted, startOpen, startScripted } from "./support/scripted.js";

againstBoth("tokens", (startGateway) => {
  test("one that is refused is asked for once more, as a fresh one", async (t) => {
    const gateway = await startGateway(t);
    const asked = [];
    const { socket, states } = start(t, gateway.url, ({ fresh }) => {
      asked.push(fresh);
      return tokenOf("alice", { seconds: fresh ? 60 : -60 });
    });
    const now = Date.now();
    await socket.join("a").ready;
    assert.deepEqual(asked, [false, true]);
    assert.deepEqual(states.map(({ state }) => state), ["waiting", "connecting", "open"]);
    const { code, reason, retryAt } = states[0];
    assert.deepEqual({ code, reason }, { code: 4401, reason: "the token has expired" });
    assert.ok(retryAt >= now && retryAt <= Date.now(), "at once");
  });

  test("one that is refused twice in a row ends it, and a string at once", async (t) => {
    const gateway = await startGateway(t);
    let asked = 0;
    const stubborn = start(t, gateway.url, () => `nonsense ${++asked}`);
    const room = stubborn.socket.join("a");
    const fixed = start(t, gateway.url, "nonsense");
    const ended = { state: "closed", code: 4401, reason: "this is not a JWT" };
    assert.deepEqual({ ...(await stubborn.reaches("closed")) }, ended);
    assert.deepEqual({ ...(await fixed.reaches("closed")) }, ended);
    assert.equal(asked, 2);
    assert.equal(fixed.states.length, 1);
    await assert.rejects(room.ready, refusal("not_sent", { temporary: false }));
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
    await room.ready;
    // The first token grants no publishing: it works as soon as the second is there.
    const works = () => room.publish("e").then(({ ok }) => ok, (error) => void assert.equal(error.code, "forbidden"));
    await until(works, "the renewal");
    assert.deepEqual(asked, [false, true]);
    assert.deepEqual(states.map(({ state }) => state), ["open"]);
  });

  test("one that ends and cannot be renewed is asked for again by the next connection", async (t) => {
    const gateway = await startGateway(t);
    const asked = [];
    const { reaches } = start(t, gateway.url, ({ fresh }) => {
      asked.push(fresh);
      if (asked.length === 1) return tokenOf("alice", { seconds: 1 });
      // Neither now nor later, as a login that hangs.
      return asked.length === 2 ? new Promise(() => {}) : tokenOf("alice");
    });
    await reaches("open");
    const { code, reason } = await reaches("waiting");
    assert.deepEqual({ code, reason }, { code: 4401, reason: "the token has expired" });
    await reaches("open", 2);
    assert.deepEqual(asked, [false, true, true]);
  });
});

test("a token that counts, and is refused once all the same, does not end anything", async (t) => {
  const fake = await startFake(t);
  fake.tokensRefused = 1;
  const { socket, reaches } = start(t, fake.url, () => tokenOf("alice"));
  await socket.join("a").ready;
  fake.tokensRefused = 1; // After a welcome a token may be refused once more.
  fake.connection.drop();
  await reaches("waiting", 3);
  await until(() => socket.state === "open");
});

describe("a proof", () => {
  const PROOFS = [
    ["a string", "secret", { token: "secret" }],
    ["a ticket", { ticket: "secret" }, { ticket: "secret" }],
    ["no token at all", { anonymous: true }, { anonymous: true }],
    ["a function", () => "secret", { token: "secret" }],
    ["an async function", async () => "secret", { token: "secret" }],
    ["a function that gives a ticket", () => ({ ticket: "secret" }), { ticket: "secret" }],
  ];
  for (const [name, token, fields] of PROOFS) {
    test(`may be ${name}, which is in the first frame and not in the address`, async (t) => {
      const { ws } = await startScripted(t, { token });
      assert.deepEqual(ws.sent, []);
      ws.opens();
      const [{ id, ...frame }, ...more] = ws.sent;
      assert.deepEqual(frame, { type: "auth", ...fields });
      assert.deepEqual(more, []);
      assert.ok(!ws.url.includes("secret"));
    });
  }

  test("may be none, where a cookie proves it", async (t) => {
    const { ws, socket } = await startScripted(t, { token: null });
    ws.welcomes();
    assert.deepEqual(ws.sent, []);
    assert.equal(socket.state, "open");
  });
});

describe("a token function", () => {
  test("that throws is called again after a wait, with growing limits", async (t) => {
    t.mock.method(Math, "random", () => 0.5);
    let asked = 0;
    const token = () => {
      if (++asked < 4) throw new Error("no network");
      return "t";
    };
    const { states, clock, made } = await startScripted(t, { token });
    await clock.pass(17_500);
    const waits = states.filter(({ state }) => state === "waiting");
    assert.equal(asked, 4);
    assert.equal(made.length, 1);
    assert.deepEqual(waits.map(({ code }) => code).slice(0, 3), [1006, 1006, 1006]);
    assert.match(waits[0].reason, /no network/);
    const began = waits[0].retryAt - 2_500;
    assert.deepEqual(waits.slice(0, 3).map(({ retryAt }) => retryAt - began), [2_500, 7_500, 17_500]);
  });

  test("may throw anything", async (t) => {
    for (const thrown of ["a string", null, undefined, 7, { message: "an object" }]) {
      const token = () => Promise.reject(thrown);
      const { socket } = await startScripted(t, { token, backoff: NEVER });
      assert.equal(socket.state, "waiting", String(thrown));
      assert.equal(typeof socket.status.reason, "string");
      socket.close();
    }
  });

  test("that hangs is given up after 10 seconds, and what it gives later is of no use", async (t) => {
    t.mock.method(Math, "random", () => 0.5);
    const given = [];
    const token = () => new Promise((resolve) => given.push(resolve));
    const { clock, made, socket } = await startScripted(t, { token, backoff: { min: 100, max: 100 } });
    await clock.pass(9_999);
    assert.equal(socket.state, "connecting");
    await clock.pass(1);
    assert.equal(socket.state, "waiting");
    await clock.pass(100);
    assert.equal(given.length, 2);
    given[0]("late");
    await settle();
    assert.equal(made.length, 0);
    given[1]("in time");
    await settle();
    made[0].opens();
    assert.equal(made[0].sent[0].token, "in time");
  });

  test("that throws `Unauthorized` closes the socket for good, with its words", async (t) => {
    class LoggedOut extends Unauthorized {}
    for (const Thrown of [Unauthorized, LoggedOut]) {
      let asked = 0;
      const token = async () => {
        asked++;
        throw new Thrown("log in again");
      };
      const { clock, made, socket, states } = await startScripted(t, { token });
      const room = socket.join("a");
      assert.deepEqual([socket.state, socket.status.reason], ["closed", "log in again"]);
      await assert.rejects(room.ready, refusal("not_sent", { temporary: false }));
      assert.equal(clock.timers, 0);
      await clock.pass(3_600_000);
      assert.deepEqual([asked, made.length, states.length], [1, 0, 1]);
    }
    assert.ok(new Unauthorized("x") instanceof Error);
    assert.equal(new Unauthorized("x").message, "x");
  });

  test("is asked for a fresh one after a refusal, until there is a welcome", async (t) => {
    const asked = [];
    const token = ({ fresh }) => {
      asked.push(fresh);
      return "t";
    };
    const { clock, made } = await startScripted(t, { token, backoff: { min: 100, max: 100 } });
    made[0].opens();
    made[0].ends(4401, "expired");
    await clock.pass(100);
    made[1].ends(1006); // Nobody has seen the fresh one.
    await clock.pass(100);
    made[2].welcomes();
    made[2].ends(1006);
    await clock.pass(100);
    made[3].welcomes();
    made[3].says({ type: "closing", code: 4401, reason: "the token has expired", retry: "fresh_token" });
    await clock.pass(100);
    assert.deepEqual(asked, [false, true, true, false, true]);
  });

  test("is not asked for fresh ones where the network is at fault", async (t) => {
    const asked = [];
    const token = ({ fresh }) => {
      asked.push(fresh);
      return "t";
    };
    const { clock, made } = await startScripted(t, { token, backoff: { min: 10, max: 10 } });
    for (let attempt = 0; attempt < 5; attempt++) {
      made.at(-1).ends([1006, 4503, 1011, 1001, 4504][attempt]);
      await clock.pass(10);
    }
    assert.deepEqual(asked, Array(6).fill(false));
  });
});

test("addresses are mapped to ws and wss, relative ones included", async (t) => {
  globalThis.location = new URL("https://example.org/app/page.html?query#hash");
  t.after(() => delete globalThis.location);
  const { made, Scripted } = scripted();
  const urls = ["/ws", "ws", "http://a/ws", "https://a/ws", "ws://a/ws", new URL("wss://a/ws?x=1")];
  for (const url of urls) start(t, url, "t", { WebSocket: Scripted });
  await settle();
  assert.deepEqual(made.map((it) => it.url), [
    "wss://example.org/ws",
    "wss://example.org/app/ws",
    "ws://a/ws",
    "wss://a/ws",
    "ws://a/ws",
    "wss://a/ws?x=1",
  ]);
});

test("with `open: false` nothing is asked for until `open` is called", async (t) => {
  const token = t.mock.fn(() => "t");
  const { socket, made, states, clock } = await startScripted(t, { token, open: false });
  const room = socket.join("a");
  await clock.pass(60_000);
  assert.deepEqual([socket.state, made.length, token.mock.callCount(), states.length], ["connecting", 0, 0, 0]);
  assert.equal(clock.timers, 0);
  socket.open();
  socket.open();
  await settle();
  assert.equal(made.length, 1);
  made[0].welcomes();
  made[0].replies("join");
  await room.ready;
  socket.open();
  assert.deepEqual(states.map(({ state }) => state), ["connecting", "open"]);
});
