// When the next attempt comes: after each close code, with what jitter, and for 10,000 clients at once.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { connect } from "../wsgate.js";
import { NEVER, test } from "./support/client.js";
import { settle, virtualTime } from "./support/clock.js";
import { scripted, startOpen, startScripted } from "./support/scripted.js";

const STANDARD = [1000, 1001, 1004, 1005, 1006, 1008, 1010, 1011, 1012, 1013, 1014, 1015];
const YES = [...STANDARD, 3000, 3999, 4000, 4399, 4500, 4503, 4504, 4505, 4508, 4599, 4600, 4999];
const NO = [1002, 1003, 1007, 1009, 4400, 4402, 4403, 4408, 4409, 4450, 4499];

describe("after a Close", () => {
  for (const [codes, then] of [[YES, "waiting"], [NO, "closed"]]) {
    test(`${codes.join(", ")} without a \`closing\` message: ${then}`, async (t) => {
      for (const code of codes) {
        const { ws, socket } = await startOpen(t, { backoff: NEVER, token: () => "t" });
        ws.ends(code, `the ${code}`);
        assert.equal(socket.state, then, code);
        assert.deepEqual([socket.status.code, socket.status.reason], [code, `the ${code}`]);
        assert.equal(socket.status.retryAt === undefined, then === "closed");
        socket.close();
      }
    });
  }

  test("4401 asks once for another token, if there is a function to ask", async (t) => {
    const fixed = ["t", { ticket: "t" }, { anonymous: true }, null];
    for (const [token, then] of [[() => "t", "waiting"], ...fixed.map((token) => [token, "closed"])]) {
      const { ws, socket } = await startOpen(t, { token });
      ws.ends(4401);
      assert.equal(socket.state, then);
      socket.close();
    }
  });

  test("a `closing` message says what it says, whatever the code is", async (t) => {
    const outcomes = [[4503, "no", "closed"], [4499, "yes", "waiting"], [4500, "fresh_token", "waiting"]];
    for (const [code, retry, then] of outcomes) {
      const { ws, socket } = await startOpen(t, { backoff: NEVER, token: () => "t" });
      ws.says({ type: "closing", code, reason: "so it is", retry });
      assert.deepEqual([socket.state, socket.status.code, socket.status.reason], [then, code, "so it is"]);
      ws.ends(1006, "and nothing else");
      assert.deepEqual([socket.state, socket.status.code], [then, code]);
      socket.close();
    }
  });

  test("a `closing` message before the welcome counts as well", async (t) => {
    const { ws, socket } = await startScripted(t);
    ws.opens();
    ws.says({ type: "closing", code: 4408, reason: "no token came in time", retry: "no" });
    assert.deepEqual(socket.status, { state: "closed", code: 4408, reason: "no token came in time" });
  });

  test("`retry_after_ms` is obeyed exactly, 0 too, and does not make later waits longer", async (t) => {
    t.mock.method(Math, "random", () => 0.5);
    for (const ms of [0, 1, 1_234, 3_600_000]) {
      const { ws, socket, made, clock, wait } = await startOpen(t);
      ws.says({ type: "closing", code: 4503, reason: "", retry: "yes", retry_after_ms: ms });
      assert.equal(wait(), ms);
      if (ms) await clock.pass(ms - 1);
      assert.equal(made.length, ms ? 1 : made.length);
      await clock.pass(1);
      assert.equal(made.length, 2);
      made[1].ends(1006);
      assert.equal(wait(), 2_500);
      socket.close();
    }
  });

  test("an error without a close is an end, and only one", async (t) => {
    const { ws, socket, states } = await startScripted(t, { backoff: NEVER });
    ws.onerror({ type: "error" });
    ws.ends(1006);
    assert.deepEqual(states.map((it) => it.state), ["waiting"]);
    assert.equal(socket.status.code, 1006);
  });

  test("a WebSocket that cannot even be made is tried again", async (t) => {
    const refuses = class {
      constructor() {
        throw new DOMException("not from a page with TLS", "SecurityError");
      }
    };
    const { socket, clock, states } = await startScripted(t, { WebSocket: refuses, backoff: { min: 10, max: 10 } });
    assert.deepEqual([socket.state, socket.status.code], ["waiting", 1006]);
    assert.match(socket.status.reason, /TLS/);
    await clock.pass(100);
    assert.ok(states.length > 10);
  });

  test("news of an earlier connection is passed over", async (t) => {
    const { ws, socket, clock, made } = await startOpen(t, { backoff: { min: 10, max: 10 } });
    const { onopen, onmessage, onclose, onerror } = ws;
    ws.ends(1006);
    await clock.pass(10);
    made[1].welcomes({ connection: "2" });
    const seen = [];
    socket.onState(({ state }) => seen.push(state));
    onopen?.({});
    onmessage?.({ data: JSON.stringify({ type: "closing", code: 4403, reason: "", retry: "no" }) });
    onerror?.({});
    onclose?.({ code: 4403, reason: "" });
    assert.deepEqual(seen, []);
    assert.equal(socket.connection, "2");
    assert.deepEqual(made[1].types(), ["auth"]);
  });
});

describe("the wait", () => {
  /** Lets attempts fail, and gives the waits between them. */
  const waits = async (t, count, random, options) => {
    const mock = t.mock.method(Math, "random", () => random);
    const client = await startScripted(t, options);
    const all = [];
    for (let retry = 0; retry < count; retry++) {
      client.ws.ends(1006);
      all.push(client.wait());
      await client.clock.pass(client.wait() + 1);
    }
    client.socket.close();
    mock.mock.restore();
    return all.map(Math.round);
  };

  test("is random between 0 and a limit that doubles from 5 s to 30 s", async (t) => {
    assert.deepEqual(await waits(t, 6, 0.5), [2_500, 5_000, 10_000, 15_000, 15_000, 15_000]);
    assert.deepEqual(await waits(t, 6, 0), [0, 0, 0, 0, 0, 0]);
    assert.deepEqual(await waits(t, 5, 0.9999), [5_000, 9_999, 19_998, 29_997, 29_997]);
  });

  test("has the limits that `backoff` says, one or both", async (t) => {
    assert.deepEqual(await waits(t, 4, 0.5, { backoff: { min: 100, max: 300 } }), [50, 100, 150, 150]);
    assert.deepEqual(await waits(t, 4, 0.5, { backoff: { min: 20_000 } }), [10_000, 15_000, 15_000, 15_000]);
    assert.deepEqual(await waits(t, 2, 0.5, { backoff: { max: 1_000 } }), [500, 500]);
  });

  test("stays at its limit after a thousand failures, and is no number beyond it", async (t) => {
    const all = await waits(t, 1_100, 0.5, { backoff: { min: 10, max: 20 } });
    assert.ok(all.slice(1).every((wait) => wait === 10));
  });

  test("starts anew after a welcome", async (t) => {
    t.mock.method(Math, "random", () => 0.5);
    const client = await startScripted(t);
    for (const expected of [2_500, 5_000, 10_000]) {
      client.ws.ends(1006);
      assert.equal(client.wait(), expected);
      await client.clock.pass(expected);
    }
    client.ws.welcomes();
    client.ws.ends(1001);
    assert.equal(client.wait(), 2_500);
  });

  test("of an attempt without a welcome ends after 10 seconds", async (t) => {
    t.mock.method(Math, "random", () => 0.5);
    const { clock, socket, made } = await startScripted(t);
    made[0].opens();
    await clock.pass(9_999);
    assert.equal(socket.state, "connecting");
    await clock.pass(1);
    assert.deepEqual([socket.state, socket.status.code], ["waiting", 1006]);
    assert.match(socket.status.reason, /no answer/);
    assert.equal(made[0].closed, 1);
    made[0].welcomes(); // Nobody listens to it any more.
    assert.equal(socket.state, "waiting");
  });
});

describe("10,000 clients", () => {
  const CLIENTS = 10_000;

  /** The moments of the first retries, after `end` for all at once; and the clock. */
  const storm = async (t, end) => {
    const clock = virtualTime(t);
    const { made, Scripted } = scripted();
    const options = { token: "t", WebSocket: Scripted };
    const sockets = Array.from({ length: CLIENTS }, () => connect("ws://gateway.test/ws", options));
    t.after(() => sockets.forEach((socket) => socket.close()));
    await settle();
    assert.equal(made.length, CLIENTS);
    for (const ws of made) ws.welcomes();
    const moments = [];
    const push = made.push.bind(made);
    made.push = (ws) => {
      moments.push(clock.now);
      return push(ws);
    };
    const began = clock.now;
    for (const ws of made.slice()) end(ws);
    await clock.pass(5_001);
    return moments.map((at) => at - began);
  };

  /** The most of sorted moments that lie within a window of so many milliseconds. */
  const most = (moments, width) => {
    let [first, found] = [0, 0];
    moments.forEach((at, index) => {
      while (moments[first] <= at - width) first++;
      found = Math.max(found, index - first + 1);
    });
    return found;
  };

  test("that lose a gateway at one moment come back spread: at most 3 % within any 100 ms", async (t) => {
    const moments = await storm(t, (ws) => ws.ends(1006));
    assert.equal(moments.length, CLIENTS);
    const found = most(moments, 100);
    assert.ok(found <= CLIENTS * 0.03, `${found} within 100 ms`);
    t.diagnostic(`${((100 * found) / CLIENTS).toFixed(2)} % within the busiest 100 ms`);
  });

  test("that are told when to come back come then", async (t) => {
    let next = 0;
    const moments = await storm(t, (ws) => {
      ws.says({ type: "closing", code: 4503, reason: "", retry: "yes", retry_after_ms: next++ % 5_000 });
    });
    assert.equal(moments.length, CLIENTS);
    assert.equal(most(moments, 1), 2);
  });
});
