// Rooms that are refused for now, and when they are asked for again.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { refusal, test } from "./support/client.js";
import { settle } from "./support/clock.js";
import { startOpen } from "./support/scripted.js";

const FULL = { temporary: true };

/** A room that is full, in a client whose connection is in use. */
const startRefused = async (t, options) => {
  const client = await startOpen(t, options);
  const room = client.socket.join("a");
  const refuse = async () => {
    client.ws.refuses("join", "room_full", FULL);
    await settle();
  };
  await refuse();
  const joins = () => client.ws.all("join").length;
  /** Lets time pass until the room is asked for again, and gives how long that took. */
  const again = async () => {
    const [before, since] = [joins(), client.clock.now];
    while (joins() === before && client.clock.now - since < 120_000) {
      await client.clock.pass(100);
      client.ws.says({ type: "event", event: "busy" });
    }
    return client.clock.now - since;
  };
  return Object.assign(client, { room, refuse, joins, again });
};

describe("a join that is refused for now", () => {
  test("says so, and is asked again until it is let in", async (t) => {
    const { room, ws, again, joins } = await startRefused(t);
    const { state, code, temporary } = room.status;
    assert.deepEqual({ state, code, temporary }, { state: "refused", code: "room_full", temporary: true });
    await assert.rejects(room.ready, refusal("room_full"));
    await again();
    assert.equal(room.status.state, "joining");
    ws.replies("join");
    await room.ready;
    assert.equal(room.status.state, "joined");
    assert.equal(joins(), 2);
    await again();
    assert.equal(joins(), 2);
  });

  test("is asked again with the backoff of a connection: random, and ever less often", async (t) => {
    t.mock.method(Math, "random", () => 0.5);
    const { again, refuse } = await startRefused(t);
    const waits = [];
    for (let tries = 0; tries < 6; tries++) {
      waits.push(await again());
      await refuse();
    }
    assert.ok(waits[0] <= 6_000, `${waits}`);
    assert.ok(waits.at(-1) >= 14_000 && waits.at(-1) <= 16_000, `${waits}`);
  });

  test("is not asked again once it was left, or the socket closed", async (t) => {
    const { room, again, joins, socket, clock } = await startRefused(t);
    room.leave();
    await again();
    assert.equal(joins(), 1);
    socket.join("b");
    socket.close();
    await settle();
    assert.equal(clock.timers, 0);
  });

  test("is asked again by the next connection, once", async (t) => {
    const { ws, clock, made, room } = await startRefused(t, { backoff: { min: 10, max: 10 } });
    ws.ends(1006);
    await clock.pass(10);
    made.at(-1).welcomes();
    assert.deepEqual(made.at(-1).types(), ["auth", "join"]);
    made.at(-1).replies("join");
    await settle();
    await clock.pass(20_000);
    assert.deepEqual(made.at(-1).all("join").length, 1);
    assert.equal(room.status.state, "joined");
  });
});

describe("a join that is refused for good", () => {
  test("is not asked again by itself, but by the next connection and the next join", async (t) => {
    const { ws, clock, made, socket } = await startOpen(t, { backoff: { min: 10, max: 10 } });
    const room = socket.join("a");
    ws.refuses("join", "forbidden");
    await settle();
    await clock.pass(24_000);
    assert.equal(ws.all("join").length, 1);
    const again = socket.join("a");
    assert.equal(ws.all("join").length, 2);
    ws.refuses("join", "forbidden");
    await assert.rejects(again.ready, refusal("forbidden"));
    ws.ends(1006);
    await clock.pass(10);
    made.at(-1).welcomes();
    assert.equal(made.at(-1).all("join").length, 1);
    made.at(-1).replies("join");
    await room.ready;
  });
});

describe("messages of one TCP segment, which in Node come without a pause for promises", () => {
  test("a room that is left right after it was joined is left", async (t) => {
    const { ws, socket } = await startOpen(t);
    const room = socket.join("a");
    ws.replies("join");
    ws.says({ type: "left", room: "a", reason: "the rules say so", temporary: false });
    await settle();
    assert.equal(room.status.state, "refused");
  });

  test("the first event of a room comes right after the reply to its join", async (t) => {
    const { ws, socket } = await startOpen(t);
    const room = socket.join("a");
    const heard = [];
    room.on("e", (data) => heard.push(`room ${data}`));
    socket.on("e", (data) => heard.push(`socket ${data}`));
    ws.replies("join");
    ws.says({ type: "event", room: "a", event: "e", data: 1 });
    assert.deepEqual(heard.sort(), ["room 1", "socket 1"]);
  });

  test("a request is answered, and the connection ends", async (t) => {
    const { ws, socket } = await startOpen(t);
    const [answered, lost] = [socket.call("one"), assert.rejects(socket.call("two"), refusal("disconnected"))];
    const { id } = ws.all("call")[0];
    ws.says({ type: "reply", id, ok: true, data: 1 });
    ws.says({ type: "closing", code: 4503, reason: "", retry: "yes" });
    assert.equal(await answered, 1);
    await lost;
  });

  test("a room that was left and is joined again is joined", async (t) => {
    const { ws, socket } = await startOpen(t);
    const first = socket.join("a");
    ws.replies("join");
    await settle();
    first.leave();
    await settle();
    const second = socket.join("a");
    const heard = [];
    second.on("e", (data) => heard.push(data));
    assert.deepEqual(ws.types(), ["auth", "join", "leave", "join"]);
    ws.replies("leave");
    ws.replies("join");
    ws.says({ type: "event", room: "a", event: "e", data: 1 });
    await settle();
    assert.deepEqual(heard, [1]);
    assert.equal(second.status.state, "joined");
  });
});
