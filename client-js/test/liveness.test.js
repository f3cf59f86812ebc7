// Noticing that the connection is dead though nobody said so, and that this machine was asleep.

import assert from "node:assert/strict";
import { describe } from "node:test";

// Node's own class has timers of its own, which a clock of ours would disturb.
import { WebSocket as OfPackage } from "ws";

import { start, startFake, test, tokenOf, until } from "./support/client.js";
import { settle, virtualTime } from "./support/clock.js";
import { startOpen, startScripted } from "./support/scripted.js";

/** It does not wait for half a minute to be answered when it is closed. */
class WebSocket extends OfPackage {
  constructor(url) {
    super(url, { closeTimeout: 100 });
  }
}

/** How exact the client's clock has to be. */
const TICK = 1_000;
const MINUTES = 60_000;

const askedFresh = () => {
  const asked = [];
  const token = ({ fresh }) => {
    asked.push(fresh);
    return "t";
  };
  return { asked, token };
};

describe("a connection", () => {
  test("without a word for 25 s is asked whether it is there, and given up after 10 more", async (t) => {
    const { ws, clock, states, made } = await startOpen(t, { backoff: { min: 10, max: 10 } });
    await clock.pass(25_000 - TICK);
    assert.deepEqual(ws.types(), ["auth"]);
    await clock.pass(2 * TICK);
    assert.deepEqual(ws.types(), ["auth", "ping"]);
    await clock.pass(10_000 - 3 * TICK);
    assert.deepEqual(states.map(({ state }) => state), ["open"]);
    await clock.pass(3 * TICK);
    assert.ok(states.some(({ state, code }) => state === "waiting" && code === 1006));
    assert.equal(ws.closed, 1);
    await clock.pass(10);
    assert.equal(made.length, 2);
    assert.deepEqual(ws.types(), ["auth", "ping"]);
  });

  test("that answers is kept, however quiet it is, and asked every 25 s", async (t) => {
    const { ws, clock, states } = await startOpen(t);
    for (let ping = 1; ping <= 20; ping++) {
      await clock.pass(25_000 + TICK);
      assert.ok(Math.abs(ws.all("ping").length - ping) <= 1, `${ws.all("ping").length} of ${ping}`);
      ws.replies("ping");
    }
    assert.deepEqual(states.map(({ state }) => state), ["open"]);
  });

  test("that is busy is not asked, whatever it says", async (t) => {
    const { ws, clock } = await startOpen(t);
    for (let second = 0; second < 300; second += 20) {
      await clock.pass(20_000);
      ws.says(second % 40 ? { type: "event", event: "e" } : { type: "weather" });
    }
    assert.deepEqual(ws.types(), ["auth"]);
  });

  test("that we only talk to is asked all the same", async (t) => {
    const { ws, clock, socket } = await startOpen(t, { timeout: 0 });
    for (let second = 0; second < 26; second++) {
      socket.publish({ self: true }, "e").catch(() => {});
      await clock.pass(1_000);
    }
    assert.equal(ws.all("ping").length, 1);
    await clock.pass(10_000);
    assert.notEqual(socket.state, "open");
  });

  test("of which nobody says welcome is given up after 10 s, and tried again", async (t) => {
    const clock = virtualTime(t);
    const fake = await startFake(t);
    fake.mute = true;
    const { reaches } = start(t, fake.url, () => tokenOf("alice", { seconds: 3_600 }), { WebSocket });
    const first = await fake.connected();
    await first.frame("auth");
    fake.mute = false;
    await clock.pass(10_000);
    assert.match((await reaches("waiting")).reason, /no answer/);
    await clock.pass(100);
    await reaches("open");
    await until(() => first.ended, "the first connection to end");
  });

  test("that went silent far away is noticed, and left for another", async (t) => {
    const clock = virtualTime(t);
    const fake = await startFake(t);
    const { socket, reaches } = start(t, fake.url, () => tokenOf("alice", { seconds: 3_600 }), { WebSocket });
    const room = socket.join("a");
    await room.ready;
    fake.connection.silence();
    await clock.pass(36_500);
    await reaches("waiting");
    await until(async () => {
      await clock.pass(10);
      return socket.state === "open";
    });
    await room.ready;
    assert.equal(fake.connections.length, 2);
    await room.publish("e");
  });
});

describe("a machine that slept", () => {
  test("for minutes tries again within a second of waking, with a fresh token", async (t) => {
    const { asked, token } = askedFresh();
    const { clock, made, states } = await startOpen(t, { token });
    await clock.pass(3_000);
    clock.sleep(10 * MINUTES);
    await clock.pass(1_000);
    assert.deepEqual(asked, [false, true]);
    assert.equal(made.length, 2);
    assert.equal(made[0].closed, 1);
    assert.ok(states.some(({ state }) => state === "waiting"));
    made[1].welcomes();
    made[1].ends(1006);
    await clock.pass(5_001);
    assert.deepEqual(asked, [false, true, false], "only once");
  });

  test("while a retry was far away does not wait for it", async (t) => {
    const { asked, token } = askedFresh();
    const { clock, made, wait } = await startScripted(t, { token });
    t.mock.method(Math, "random", () => 0.999);
    while (made.length < 5) {
      made.at(-1).ends(1006);
      await clock.pass(wait());
    }
    made.at(-1).ends(1006);
    assert.ok(wait() > 29_000);
    await clock.pass(2_000);
    clock.sleep(10 * MINUTES);
    await clock.pass(1_000);
    assert.equal(made.length, 6);
    assert.equal(asked.at(-1), true);
  });

  test("during an attempt ends it, or waits for it as long as always", async (t) => {
    const { clock, made } = await startScripted(t, { backoff: { min: 10, max: 10 } });
    clock.sleep(10 * MINUTES);
    await clock.pass(10_100);
    assert.equal(made.length, 2);
  });

  test("and was closed before stays closed", async (t) => {
    const { clock, made, socket } = await startOpen(t);
    socket.close();
    clock.sleep(10 * MINUTES);
    await clock.pass(5_000);
    assert.equal(made.length, 1);
    assert.equal(clock.timers, 0);
  });

  test("for two seconds, or was busy for as long, keeps its connection", async (t) => {
    const { clock, made, states } = await startOpen(t);
    for (let nap = 0; nap < 10; nap++) {
      clock.sleep(2_000);
      await clock.pass(1_000);
    }
    assert.equal(made.length, 1);
    assert.deepEqual(states.map(({ state }) => state), ["open"]);
  });
});

describe("a clock that is set back", () => {
  test("ends no connection, and the next silence is noticed in time", async (t) => {
    const { clock, ws, states, made } = await startOpen(t, { backoff: { min: 10, max: 10 } });
    clock.date -= 3_600_000;
    await clock.pass(2_000);
    assert.deepEqual(states.map(({ state }) => state), ["open"]);
    await clock.pass(24_000);
    assert.equal(ws.all("ping").length, 1);
    await clock.pass(11_000);
    assert.equal(made.length, 2);
  });

  test("does not keep a retry from coming, nor a request from its limit", async (t) => {
    const { clock, made, ws, socket } = await startOpen(t, { backoff: { min: 1_000, max: 1_000 } });
    const codes = [];
    socket.call("e").catch(({ code }) => codes.push(code));
    ws.ends(1006);
    socket.call("e", 1, { timeout: 1_500 }).catch(({ code }) => codes.push(code));
    clock.date -= 24 * 3_600_000;
    await clock.pass(1_500);
    assert.equal(made.length, 2);
    assert.deepEqual(codes, ["disconnected", "not_sent"]);
  });

  test("after it was ahead, as a machine that asks for the time, is no second sleep", async (t) => {
    const { clock, made, ws } = await startOpen(t);
    clock.sleep(10 * MINUTES);
    await clock.pass(1_000);
    assert.equal(made.length, 2);
    made[1].welcomes();
    clock.date -= 10 * MINUTES;
    await clock.pass(20_000);
    assert.equal(made.length, 2);
    assert.equal(ws.closed, 1);
    await settle();
  });
});
