// Hearing events: by listeners and by `for await`, and answering those that a backend waits for.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { againstBoth, hearing, refusal, start, startFake, test, tokenOf, until } from "./support/client.js";
import { startOpen } from "./support/scripted.js";
import { settle } from "./support/clock.js";

againstBoth("events", (startGateway) => {
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

  test("a backend pushes to a room, a user and all", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice"));
    const all = hearing(socket, "news");
    await socket.join("a").ready;
    await gateway.publish({ to: { room: "a" }, event: "news", data: 1 });
    await gateway.publish({ to: { user: "alice" }, event: "news", data: 2 });
    await gateway.publish({ to: { all: true }, event: "news", data: 3 });
    await gateway.publish({ to: { all: true }, except: { user: "alice" }, event: "news", data: 4 });
    await gateway.publish({ to: { all: true }, event: "news", data: "<b>text & nothing else</b>" });
    assert.deepEqual(await all.upTo(4), [
      { data: 1, room: "a", from: undefined },
      { data: 2, room: "user:alice", from: undefined },
      { data: 3, room: undefined, from: undefined },
      { data: "<b>text & nothing else</b>", room: undefined, from: undefined },
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
    room.once("e", (data) => calls.push(`once ${data}`));
    const never = room.once("e", () => calls.push("never"));
    const last = hearing(room, "e");
    never();
    await room.ready;
    await room.publish("e", 1);
    await last.upTo(1);
    undo();
    undo();
    await room.publish("e", 2);
    await last.upTo(2);
    assert.deepEqual(calls, [1, 1, "once 1", 2]);
  });

  test("a backend asks, and gets the answers of all connections of a user", async (t) => {
    const gateway = await startGateway(t);
    const tabs = [1, 2].map(() => start(t, gateway.url, tokenOf("alice")));
    for (const [index, { socket }] of tabs.entries()) {
      // The test may be over before the gateway has thanked for the answer.
      socket.on("confirm", (data, { answer }) => answer({ ...data, by: index }).catch(() => {}));
    }
    await Promise.all(tabs.map(({ reaches }) => reaches("open")));
    const { replies, missing } = await gateway.request({ to: { user: "alice" }, event: "confirm", data: { order: 7 } });
    assert.deepEqual(replies.map(({ data }) => data.by).sort(), [0, 1]);
    assert.deepEqual(replies.map(({ data }) => data.order), [7, 7]);
    assert.deepEqual(missing, []);
  });

  test("an answer counts once, and an event that nobody asked with has none to give", async (t) => {
    const gateway = await startGateway(t);
    const { socket, reaches } = start(t, gateway.url, tokenOf("alice"));
    const infos = [];
    socket.on("confirm", (_data, info) => infos.push(info));
    await reaches("open");
    const asked = gateway.request({ to: { user: "alice" }, event: "confirm" });
    await until(() => infos.length);
    assert.equal((await infos[0].answer()).ok, true);
    await assert.rejects(infos[0].answer("again"), refusal("not_asked", { field: "reply_to" }));
    assert.deepEqual((await asked).replies.map(({ data }) => data), [null]);
    await socket.publish({ self: true }, "confirm");
    await until(() => infos.length === 2);
    assert.equal(infos[1].answer, undefined);
  });

  test("`for await` gives what came since, of one name or all, and ends with the room or the socket", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice"));
    const room = socket.join("a");
    const collect = async (events) => {
      const all = [];
      for await (const { event, data, room, from } of events) all.push({ event, data, room, from });
      return all;
    };
    const [ofRoom, ofName, ofSocket] = [room.events(), room.events("two"), socket.events()].map(collect);
    await room.ready;
    await room.publish("one", 1);
    await room.publish("two", 2);
    await room.publish("last", 3);
    const { heard } = hearing(socket, "done");
    await socket.publish({ self: true }, "done");
    await until(() => heard.length);
    room.leave();
    const inRoom = (event, data) => ({ event, data, room: "a", from: "alice" });
    assert.deepEqual(await ofRoom, [inRoom("one", 1), inRoom("two", 2), inRoom("last", 3)]);
    assert.deepEqual(await ofName, [inRoom("two", 2)]);
    socket.close();
    assert.deepEqual((await ofSocket).map(({ event }) => event), ["one", "two", "last", "done"]);
  });
});

describe("`for await`", () => {
  const event = (data) => ({ type: "event", event: "e", data });
  const read = async (events) => {
    const all = [];
    try {
      for await (const { data } of events) all.push(data);
    } catch (error) {
      return { all, error };
    }
    return { all };
  };

  test("keeps 1,000 events for a slow reader, and says so if there are more", async (t) => {
    const { socket, ws } = await startOpen(t);
    const [slow, quick] = [socket.events("e"), read(socket.events("e"))];
    for (let number = 0; number < 1_001; number++) {
      ws.says(event(number));
      if (number % 100 === 0) await settle();
    }
    const { all, error } = await read(slow);
    assert.ok(all.length <= 1_000);
    refusal("too_slow")(error);
    ws.says(event("after"));
    socket.close();
    assert.equal((await quick).all.length, 1_002);
  });

  test("exactly 1,000 are none too many, and the next ones count from there", async (t) => {
    const { socket, ws } = await startOpen(t);
    const events = socket.events("e");
    for (let number = 0; number < 1_000; number++) ws.says(event(number));
    for (let number = 0; number < 500; number++) assert.equal((await events.next()).value.data, number);
    for (let number = 1_000; number < 1_500; number++) ws.says(event(number));
    socket.close();
    const { all, error } = await read(events);
    assert.equal(error, undefined);
    assert.deepEqual([all[0], all.at(-1), all.length], [500, 1_499, 1_000]);
  });

  test("begins when it is asked for, and not when it is first read", async (t) => {
    const { socket, ws } = await startOpen(t);
    const events = socket.events("e");
    ws.says(event(1));
    assert.deepEqual((await events.next()).value, { event: "e", data: 1, room: undefined, from: undefined });
  });

  test("outlives a reconnect, and ends with the socket for good", async (t) => {
    const { socket, ws, clock, made } = await startOpen(t, { backoff: { min: 10, max: 10 } });
    const reading = read(socket.events("e"));
    ws.says(event(1));
    ws.ends(1006);
    await clock.pass(10);
    made[1].welcomes();
    made[1].says(event(2));
    made[1].says({ type: "closing", code: 4403, reason: "no more", retry: "no" });
    assert.deepEqual((await reading).all, [1, 2]);
  });

  test("takes its listener back when the loop is left, before it is begun too", async (t) => {
    const { socket, ws } = await startOpen(t);
    const [left, unread, thrown] = [socket.events("e"), socket.events("e"), socket.events("e")];
    ws.says(event(1));
    for await (const { data } of left) {
      assert.equal(data, 1);
      break;
    }
    await unread.return();
    await assert.rejects(async () => {
      for await (const _ of thrown) throw new Error("the loop's own");
    }, /the loop's own/);
    ws.says(event(2));
    for (const events of [left, unread, thrown]) assert.equal((await events.next()).done, true);
  });

  test("is not for one reader alone: each gets all", async (t) => {
    const { socket, ws } = await startOpen(t);
    const readers = [read(socket.events()), read(socket.events("e"))];
    ws.says(event(1));
    await settle();
    socket.close();
    for (const reader of readers) assert.deepEqual(await reader, { all: [1] });
  });
});

describe("listeners", () => {
  test("one that throws is reported, and harms no other", async (t) => {
    const { socket, ws } = await startOpen(t);
    const fail = () => {
      throw new Error("a listener's own");
    };
    const room = socket.join("a");
    const undos = [socket.onState(fail), socket.on("e", fail), room.onState(fail), room.once("e", fail)];
    const all = [hearing(socket, "e"), hearing(room, "e")];
    const states = [];
    socket.onState(({ state }) => states.push(state));
    // What the runtime reports, and ends a process for.
    const reports = [];
    const note = (error) => reports.push(error);
    const theirs = process.rawListeners("unhandledRejection");
    process.removeAllListeners("unhandledRejection").on("unhandledRejection", note);
    ws.replies("join");
    ws.says({ type: "event", room: "a", event: "e", data: 1 });
    ws.ends(1006);
    await settle();
    process.off("unhandledRejection", note);
    for (const listener of theirs) process.on("unhandledRejection", listener);
    undos.forEach((undo) => undo());
    for (const { heard } of all) assert.deepEqual(heard.map(({ data }) => data), [1]);
    assert.deepEqual(states, ["waiting"]);
    assert.ok(reports.length >= 4, `${reports.length} reports`);
    for (const report of reports) assert.match(String(report), /a listener's own/);
  });

  test("one that is taken back by another one before it is not called", async (t) => {
    const { socket, ws } = await startOpen(t);
    const heard = [];
    socket.on("e", () => undo());
    const undo = socket.on("e", () => heard.push("taken back"));
    socket.on("e", () => socket.on("e", () => heard.push("added meanwhile")));
    ws.says({ type: "event", event: "e" });
    assert.deepEqual(heard, []);
  });

  test("hear how many events were lost", async (t) => {
    const fake = await startFake(t);
    const { socket, states } = start(t, fake.url, tokenOf("alice"));
    await socket.join("a").ready;
    fake.connection.say({ type: "lost", count: 3 });
    fake.connection.say({ type: "lost", count: 40 });
    await socket.publish({ self: true }, "e");
    assert.deepEqual(states.map(({ state, lost }) => ({ state, lost })), [
      { state: "open", lost: undefined },
      { state: "open", lost: 3 },
      { state: "open", lost: 40 },
    ]);
  });
});
