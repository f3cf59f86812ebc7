// Renewing the token of a live connection before it ends.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { Unauthorized } from "../wsgate.js";
import { refusal, start, startFake, test, tokenOf, until } from "./support/client.js";
import { settle } from "./support/clock.js";
import { startOpen } from "./support/scripted.js";

const EXPIRING = { type: "expiring", in: 60 };

/** A client that is open, and whose next tokens come from `next`. */
const startRenewing = async (t, next, options) => {
  const asked = [];
  const token = (ask) => {
    asked.push(ask.fresh);
    return asked.length === 1 ? "first" : next(asked.length - 1);
  };
  const client = await startOpen(t, { token, ...options });
  /** Lets time pass on a connection that is in use, so that silence is no matter. */
  const busy = async (ms) => {
    for (let left = ms; left > 0; left -= 1_000) {
      await client.clock.pass(Math.min(left, 1_000));
      client.ws.says({ type: "event", event: "busy" });
    }
  };
  return Object.assign(client, { asked, busy, renewals: () => client.ws.all("auth").slice(1) });
};

describe("a renewal", () => {
  test("comes after a random part of half of the time that is left", async (t) => {
    let random;
    t.mock.method(Math, "random", () => random);
    for (const [part, seconds, ms] of [[0.5, 60, 15_000], [0, 60, 0], [0.9999, 60, 29_997], [0.5, 4, 1_000]]) {
      random = part;
      const { ws, busy, asked, renewals, socket } = await startRenewing(t, () => "second");
      ws.says({ type: "expiring", in: seconds });
      if (ms) {
        await busy(ms - 1);
        assert.deepEqual(asked, [false], `too early with ${part}`);
      }
      await busy(3);
      assert.deepEqual(asked, [false, true]);
      assert.deepEqual(renewals().map(({ token }) => token), ["second"]);
      socket.close();
    }
  });

  test("is not made without a function, and a string is not sent again", async (t) => {
    for (const token of ["t", { ticket: "t" }, null]) {
      const { ws, clock, socket } = await startOpen(t, { token });
      const before = ws.sent.length;
      ws.says(EXPIRING);
      await clock.pass(20_000);
      assert.equal(ws.sent.length, before);
      socket.close();
    }
  });

  test("that fails is tried again while the token still holds", async (t) => {
    t.mock.method(Math, "random", () => 0.9);
    const { ws, busy, renewals, states } = await startRenewing(t, (times) => {
      if (times < 3) throw new Error("no network");
      return "at last";
    });
    ws.says(EXPIRING);
    await busy(59_000);
    assert.deepEqual(renewals().map(({ token }) => token), ["at last"]);
    assert.deepEqual(states.map(({ state }) => state), ["open"]);
  });

  test("that the gateway refuses does not end the connection", async (t) => {
    const { ws, busy, socket } = await startRenewing(t, () => "a bad one");
    ws.says(EXPIRING);
    await busy(31_000);
    ws.refuses("auth", "token_refused", { field: "token" });
    await settle();
    assert.equal(socket.state, "open");
    const asked = socket.publish({ self: true }, "e");
    ws.replies("publish");
    assert.equal((await asked).ok, true);
  });

  test("for which there is no token to be had closes the socket", async (t) => {
    const { ws, busy, socket, clock } = await startRenewing(t, () => {
      throw new Unauthorized("logged out elsewhere");
    });
    const underWay = assert.rejects(socket.call("e"), refusal("disconnected"));
    ws.says(EXPIRING);
    await busy(31_000);
    assert.deepEqual([socket.state, socket.status.reason], ["closed", "logged out elsewhere"]);
    await underWay;
    assert.equal(clock.timers, 0);
    assert.equal(ws.closed, 1);
  });

  test("whose token comes when the connection is gone is not sent on the next one", async (t) => {
    let give;
    const { ws, busy, clock, made, asked } = await startRenewing(
      t,
      (times) => (times === 1 ? new Promise((resolve) => (give = resolve)) : "third"),
      { backoff: { min: 10, max: 10 } },
    );
    ws.says(EXPIRING);
    await busy(31_000);
    ws.says({ type: "closing", code: 4401, reason: "the token has expired", retry: "fresh_token" });
    await clock.pass(10);
    made[1].welcomes();
    give("second, too late");
    await settle();
    assert.deepEqual(made[1].sent.map(({ token }) => token), ["third"]);
    assert.deepEqual(asked, [false, true, true]);
  });

  test("that was to come is not made on the next connection", async (t) => {
    t.mock.method(Math, "random", () => 0.9);
    const { ws, clock, made, asked } = await startRenewing(t, () => "other", { backoff: { min: 10, max: 10 } });
    ws.says(EXPIRING);
    ws.ends(1006);
    await clock.pass(10);
    made[1].welcomes();
    await clock.pass(24_000);
    assert.deepEqual(made[1].types().filter((type) => type === "auth"), ["auth"]);
    assert.equal(asked.length, 2);
  });

  test("under way when the socket is closed leaves nothing behind", async (t) => {
    let give;
    const { ws, busy, socket, clock, made } = await startRenewing(t, () => new Promise((resolve) => (give = resolve)));
    ws.says(EXPIRING);
    await busy(31_000);
    socket.close();
    const sent = ws.sent.length;
    assert.equal(clock.timers, 0);
    give("too late");
    await settle();
    assert.deepEqual([ws.sent.length, made.length, clock.timers], [sent, 1, 0]);
  });

  test("that waits its turn when the socket is closed leaves no timer", async (t) => {
    t.mock.method(Math, "random", () => 0.9);
    const { ws, socket, clock } = await startRenewing(t, () => "second");
    ws.says(EXPIRING);
    socket.close();
    assert.equal(clock.timers, 0);
  });
});

test("a renewal keeps the connection and what it is in", async (t) => {
  const fake = await startFake(t, { expiryWarning: 60 });
  let asked = 0;
  const { socket, states } = start(t, fake.url, () => tokenOf("alice", { seconds: ++asked === 1 ? 1 : 60 }));
  await socket.join("a").ready;
  await until(() => fake.connection.frames.filter(({ type }) => type === "auth").length === 2);
  await socket.publish({ self: true }, "e");
  assert.equal(fake.connections.length, 1);
  assert.deepEqual(states.map(({ state }) => state), ["open"]);
});
