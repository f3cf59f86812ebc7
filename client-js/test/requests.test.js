// Requests: what waits for a connection or a room, for how long, and how it is given up.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { refusal, test } from "./support/client.js";
import { settle } from "./support/clock.js";
import { startOpen, startScripted } from "./support/scripted.js";

const SELF = { self: true };
const notSent = (more) => refusal("not_sent", more);
/** The data of what was published so far. */
const published = (ws) => ws.all("publish").map(({ data }) => data);

describe("the queue", () => {
  test("keeps what is asked without a connection, and sends it in order after the joins", async (t) => {
    const { socket, ws } = await startScripted(t);
    const room = socket.join("a");
    for (const number of [1, 2, 3]) socket.publish(SELF, "e", number).catch(() => {});
    socket.call("add", [1]).catch(() => {});
    ws.opens();
    assert.deepEqual(ws.types(), ["auth"]);
    ws.welcomes();
    assert.deepEqual(ws.types().slice(-5), ["join", "publish", "publish", "publish", "call"]);
    assert.deepEqual(published(ws), [1, 2, 3]);
    assert.equal(room.status.state, "joining");
  });

  test("keeps what is published to a room until it is joined, in order, and lets others pass", async (t) => {
    const { socket, ws } = await startOpen(t);
    const [a, b] = [socket.join("a"), socket.join("b")];
    const { id } = ws.all("join")[0];
    a.publish("e", "a1").catch(() => {});
    b.publish("e", "b1").catch(() => {});
    a.publish("e", "a2").catch(() => {});
    socket.publish(SELF, "e", "self").catch(() => {});
    assert.deepEqual(published(ws), ["self"]);
    ws.replies("join"); // That of b.
    await settle();
    assert.deepEqual(published(ws), ["self", "b1"]);
    ws.says({ type: "reply", id, ok: true, room: "a" });
    await settle();
    a.publish("e", "a3").catch(() => {});
    assert.deepEqual(published(ws), ["self", "b1", "a1", "a2", "a3"]);
  });

  test("waits for the room again after a reconnect", async (t) => {
    const { socket, ws, clock, made } = await startOpen(t, { backoff: { min: 10, max: 10 } });
    const room = socket.join("a");
    ws.replies("join");
    ws.ends(1006);
    const later = room.publish("e", 1);
    await clock.pass(10);
    made[1].welcomes();
    assert.deepEqual(made[1].types(), ["auth", "join"]);
    made[1].replies("join");
    await settle();
    made[1].replies("publish");
    assert.equal((await later).ok, true);
  });

  test("has 100 places, or as many as `queue` says; one more is refused at once", async (t) => {
    for (const [queue, places] of [[undefined, 100], [3, 3], [1, 1]]) {
      const { socket, ws } = await startScripted(t, { queue });
      const kept = Array.from({ length: places }, (_, number) => socket.publish(SELF, "e", number));
      kept.forEach((it) => it.catch(() => {}));
      await assert.rejects(socket.publish(SELF, "e", "too much"), notSent({ temporary: true }));
      ws.welcomes();
      assert.deepEqual(published(ws), Array.from({ length: places }, (_, number) => number));
      socket.close();
    }
  });

  test("of no places, or not wanted, refuses what cannot be sent at once", async (t) => {
    const { socket, ws } = await startScripted(t, { queue: 0 });
    const room = socket.join("a");
    await assert.rejects(socket.publish(SELF, "e"), notSent({ temporary: true }));
    ws.welcomes();
    await assert.rejects(room.publish("e"), notSent({ temporary: true }));
    socket.publish(SELF, "e", "now").catch(() => {});
    assert.deepEqual(published(ws), ["now"]);
    socket.close();
    const other = await startScripted(t);
    await assert.rejects(other.socket.publish(SELF, "e", 1, { queue: false }), notSent({ temporary: true }));
    await assert.rejects(other.socket.call("e", 1, { queue: false }), notSent({ temporary: true }));
    other.ws.welcomes();
    other.socket.publish(SELF, "e", 2, { queue: false }).catch(() => {});
    assert.deepEqual(published(other.ws), [2]);
  });

  test("takes the data as it is when it is given", async (t) => {
    const { socket, ws } = await startScripted(t);
    const data = { list: [1] };
    const to = { rooms: ["a"] };
    socket.publish(to, "e", data).catch(() => {});
    data.list.push(2);
    to.rooms.push("b");
    ws.welcomes();
    assert.deepEqual(ws.all("publish")[0].data, { list: [1] });
    assert.deepEqual(ws.all("publish")[0].to, { rooms: ["a"] });
  });

  test("rejects when the socket is closed", async (t) => {
    const { socket } = await startScripted(t);
    const room = socket.join("a");
    const codes = [];
    const note = (name) => ({ code, temporary }) => codes.push(`${name} ${code} ${temporary}`);
    room.publish("e").catch(note("room"));
    socket.publish(SELF, "e").catch(note("socket"));
    room.leave();
    socket.close();
    await settle();
    assert.deepEqual(codes, ["room not_sent false", "socket not_sent false"]);
    await assert.rejects(socket.publish(SELF, "e"), notSent({ temporary: false }));
    await assert.rejects(room.publish("e"));
  });

  test("rejects when the gateway turns us away for good", async (t) => {
    const { socket, ws } = await startScripted(t);
    const waits = assert.rejects(socket.publish(SELF, "e"), notSent({ temporary: false }));
    ws.opens();
    ws.ends(4403);
    await waits;
  });

  test("lets nothing wait for a room that was refused", async (t) => {
    const { socket, ws } = await startOpen(t);
    const room = socket.join("a");
    const waits = room.publish("e");
    ws.refuses("join", "forbidden");
    await settle();
    // Whether it is sent, since rules may allow it from outside, or refused here: it ends.
    if (ws.all("publish").length) ws.refuses("publish", "not_joined");
    await assert.rejects(waits);
  });
});

describe("the time limit", () => {
  test("of 30 s, in the queue: `not_sent`, and it is not sent any more", async (t) => {
    const { socket, clock, ws } = await startScripted(t, { backoff: { min: 1e8, max: 1e8 } });
    const outcome = assert.rejects(socket.publish(SELF, "e", "stale"), notSent({ temporary: true }));
    let over = false;
    outcome.then(() => (over = true));
    ws.ends(1006);
    await clock.pass(29_999);
    assert.equal(over, false);
    await clock.pass(1);
    await outcome;
    socket.close();
    socket.open();
    await settle();
    socket.publish(SELF, "e", "new").catch(() => {});
  });

  test("of 30 s, under way: `timeout`, and an answer that comes later is passed over", async (t) => {
    const { socket, clock, ws } = await startOpen(t);
    const outcome = assert.rejects(socket.call("slow"), refusal("timeout", { temporary: true }));
    let over = false;
    outcome.then(() => (over = true));
    for (let second = 0; second < 29; second++) {
      await clock.pass(1_000);
      ws.says({ type: "lost", count: 1 });
    }
    assert.equal(over, false);
    await clock.pass(1_000);
    await outcome;
    ws.replies("call", { data: "at last" });
    assert.equal(socket.state, "open");
  });

  test("counts from the beginning, the time in the queue included", async (t) => {
    const { socket, clock, ws } = await startScripted(t);
    const outcome = assert.rejects(socket.publish(SELF, "e"), refusal("timeout"));
    await clock.pass(9_000);
    ws.welcomes();
    await clock.pass(20_999);
    let over = false;
    outcome.then(() => (over = true));
    await settle();
    assert.equal(over, false);
    await clock.pass(1);
    await outcome;
  });

  test("is what the socket or the request says, and 0 is none", async (t) => {
    const { socket, clock } = await startOpen(t, { timeout: 1_000 });
    const codes = [];
    const note = (name) => (error) => codes.push(`${name} ${error.code}`);
    socket.publish(SELF, "e").catch(note("socket"));
    socket.publish(SELF, "e", 1, { timeout: 500 }).catch(note("request"));
    socket.call("e", 1, { timeout: 2_000 }).catch(note("call"));
    socket.call("e", 1, { timeout: 0 }).catch(note("none"));
    await clock.pass(500);
    assert.deepEqual(codes, ["request timeout"]);
    await clock.pass(500);
    assert.deepEqual(codes, ["request timeout", "socket timeout"]);
    await clock.pass(1_000);
    assert.deepEqual(codes, ["request timeout", "socket timeout", "call timeout"]);
    socket.close();
    await settle();
    assert.equal(codes.at(-1), "none disconnected");
  });

  test("leaves no timer behind when the answer has come", async (t) => {
    const { socket, ws, clock } = await startOpen(t);
    const before = clock.timers;
    const asked = socket.publish(SELF, "e");
    assert.equal(clock.timers, before + 1);
    ws.replies("publish");
    await asked;
    assert.equal(clock.timers, before);
  });
});

describe("a signal", () => {
  test("that is aborted already sends nothing", async (t) => {
    const { socket, ws } = await startOpen(t);
    const signal = AbortSignal.abort(new Error("no need"));
    await assert.rejects(socket.publish(SELF, "e", 1, { signal }), /no need/);
    await assert.rejects(socket.call("e", 1, { signal }), /no need/);
    assert.deepEqual(ws.types(), ["auth"]);
  });

  test("takes a request out of the queue, and gives its place to another", async (t) => {
    const { socket, ws } = await startScripted(t, { queue: 1 });
    const controller = new AbortController();
    const given = assert.rejects(socket.publish(SELF, "e", 1, { signal: controller.signal }), { name: "AbortError" });
    controller.abort();
    await given;
    socket.publish(SELF, "e", 2).catch(() => {});
    ws.welcomes();
    assert.deepEqual(published(ws), [2]);
  });

  test("gives up a request that is under way, whose answer is passed over", async (t) => {
    const { socket, ws, clock } = await startOpen(t);
    const before = clock.timers;
    const controller = new AbortController();
    const given = assert.rejects(socket.call("e", 1, { signal: controller.signal }), /enough/);
    controller.abort(new Error("enough"));
    await given;
    assert.equal(clock.timers, before);
    ws.replies("call", { data: 1 });
    assert.equal(socket.state, "open");
  });

  test("that comes too late does nothing, and is not listened to any more", async (t) => {
    const { socket, ws } = await startOpen(t);
    const controller = new AbortController();
    const removed = t.mock.method(controller.signal, "removeEventListener");
    const asked = socket.call("e", 1, { signal: controller.signal });
    ws.replies("call", { data: 7 });
    controller.abort();
    assert.equal(await asked, 7);
    assert.equal(removed.mock.callCount(), 1);
  });
});

describe("what is sent", () => {
  test("has the fields of the protocol and no others", async (t) => {
    const { socket, ws } = await startOpen(t);
    const room = socket.join("a");
    ws.replies("join");
    await settle();
    const options = { timeout: 5, queue: false, signal: new AbortController().signal };
    const requests = [
      room.publish("e"),
      room.publish("e", null, options),
      room.publish("e", 1, { ...options, echo: false }),
      room.publish("e", 1, { echo: false, echo_scope: "user" }),
      room.publish("e", 1, { echo: true }),
      room.members(options),
      socket.call("e", 1, options),
    ];
    requests.forEach((it) => it.catch(() => {}));
    const frames = ws.sent.slice(2).map(({ id, ...frame }) => frame);
    const echoless = { type: "publish", to: { room: "a" }, event: "e", data: 1, echo: false };
    assert.deepEqual(frames[0], { type: "publish", to: { room: "a" }, event: "e" });
    assert.deepEqual(frames[1], { type: "publish", to: { room: "a" }, event: "e", data: null });
    assert.deepEqual(frames[2], echoless);
    assert.deepEqual(frames[3], { ...echoless, echo_scope: "user" });
    assert.notEqual(frames[4].echo, false);
    assert.deepEqual(frames.slice(5), [{ type: "members", room: "a" }, { type: "call", event: "e", data: 1 }]);
    const ids = ws.sent.map(({ id }) => id).filter(Boolean);
    assert.equal(new Set(ids).size, ids.length);
  });
});
