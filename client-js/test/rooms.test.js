// Joining, leaving and being in rooms.

import assert from "node:assert/strict";

import { WebSocket as OfPackage } from "ws";

import { againstBoth, hearing, QUICK, refusal, start, startFake, test, tokenOf, until } from "./support/client.js";
import { settle } from "./support/clock.js";

againstBoth("rooms", (startGateway) => {
  test("two users talk in a room", async (t) => {
    const gateway = await startGateway(t);
    const alice = start(t, gateway.url, tokenOf("alice")).socket;
    const bob = start(t, gateway.url, async () => tokenOf("bob")).socket;
    assert.equal(alice.state, "connecting");

    const [hers, his] = [alice.join("chat"), bob.join("chat")];
    const [sheHears, heHears] = [hearing(hers, "message"), hearing(his, "message")];
    await Promise.all([hers.ready, his.ready]);
    assert.equal(alice.state, "open");
    assert.equal(alice.user, "alice");

    await hers.publish("message", { text: "not for me" }, { echo: false });
    assert.equal((await his.publish("message", { text: "for both" })).ok, true);
    assert.deepEqual(await heHears.upTo(2), [
      { data: { text: "not for me" }, room: "chat", from: "alice" },
      { data: { text: "for both" }, room: "chat", from: "bob" },
    ]);
    assert.deepEqual(await sheHears.upTo(1), [{ data: { text: "for both" }, room: "chat", from: "bob" }]);
  });

  test("two tabs of one user are two connections, which do not disturb each other", async (t) => {
    const gateway = await startGateway(t);
    const tabs = [1, 2, 3].map(() => start(t, gateway.url, tokenOf("alice")));
    const rooms = tabs.map(({ socket }) => socket.join("a"));
    const heard = rooms.map((room) => hearing(room, "e"));
    await Promise.all(rooms.map((room) => room.ready));
    assert.equal(new Set(tabs.map(({ socket }) => socket.connection)).size, 3);
    tabs[0].socket.close();
    await until(async () => (await gateway.roomsOf("alice")).length === 2);
    await rooms[1].publish("e", 1, { echo: false });
    assert.deepEqual(await heard[2].upTo(1), [{ data: 1, room: "a", from: "alice" }]);
    await rooms[2].publish("e", 2, { echo: false, echo_scope: "user" });
    await rooms[2].publish("e", 3);
    assert.deepEqual((await heard[1].upTo(1)).map(({ data }) => data), [3]);
    assert.deepEqual(tabs[1].states.map(({ state }) => state), ["open"]);
    assert.deepEqual(heard[0].heard, []);
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
    await until(async () => (await gateway.roomsOf("alice"))[0].join() === "user:alice");
    const third = socket.join("a");
    await third.ready;
    await third.publish("e", 3);
    assert.equal(two.heard.length, 1);
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

  test("the class of the package `ws` will do where there is none, as in Node 20", async (t) => {
    const gateway = await startGateway(t);
    const { socket, reaches } = start(t, gateway.url, () => tokenOf("alice"), { WebSocket: OfPackage });
    const room = socket.join("a");
    const { upTo } = hearing(room, "e");
    await room.publish("e", 1);
    await upTo(1);
    await gateway.kill();
    await reaches("waiting");
    await gateway.restart();
    await room.ready;
    await room.publish("e", 2);
    assert.deepEqual((await upTo(2)).map(({ data }) => data), [1, 2]);
  });

  test("says how it is with a room: joining, joined, left", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice"));
    const room = socket.join("a");
    const seen = [];
    room.onState((status) => seen.push(status.state));
    assert.deepEqual(room.status, { state: "joining" });
    await room.ready;
    assert.deepEqual(room.status, { state: "joined" });
    assert.equal(room.status, room.status);
    assert.equal(socket.join("a").status.state, "joined");
    room.leave();
    assert.equal(room.status.state, "left");
    assert.ok(seen.includes("joined"));
  });

  test("a backend takes users in and out of rooms", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice"));
    const all = hearing(socket, "news");
    const room = socket.join("a");
    await room.ready;
    await gateway.join("alice", "b");
    await gateway.publish({ to: { room: "b" }, event: "news", data: 1 });
    await gateway.leave("alice", "a");
    await gateway.publish({ to: { user: "alice" }, event: "news", data: 2 });
    await all.upTo(2);
    assert.equal(room.status.state, "refused");
    assert.equal(room.status.code, "removed");
    assert.equal(typeof room.status.reason, "string");
    await socket.join("a").ready; // A new join counts again.
    assert.equal(room.status.state, "joined");
    await room.publish("news", 3);
    assert.deepEqual((await all.upTo(3)).map(({ data }) => data), [1, 2, 3]);
  });

  test("a full room is tried again by itself until there is a place", async (t) => {
    const gateway = await startGateway(t, { maxMembers: 1 });
    const alice = start(t, gateway.url, tokenOf("alice")).socket.join("booth");
    await alice.ready;
    const bob = start(t, gateway.url, tokenOf("bob")).socket.join("booth");
    await assert.rejects(bob.ready, refusal("room_full", { temporary: true }));
    const { state, code, temporary } = bob.status;
    assert.deepEqual({ state, code, temporary }, { state: "refused", code: "room_full", temporary: true });
    alice.leave();
    await until(() => bob.status.state === "joined", "a place in the room");
    await bob.ready;
    await bob.publish("e");
  });

  test("a join that was refused is asked again by the next join", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice", { grants: {} }));
    const room = socket.join("a");
    await assert.rejects(room.ready, refusal("forbidden"));
    assert.equal(room.status.state, "refused");
    await gateway.join("alice", "a");
    await socket.join("a").ready;
  });

  test("a join that was refused is over once a backend has put the user into the room", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice", { grants: {} }));
    const room = socket.join("a");
    await assert.rejects(room.ready, refusal("forbidden"));
    await gateway.join("alice", "a");
    // What was said before this answer has been heard with it.
    await socket.publish({ self: true }, "e");
    await room.ready;
    assert.equal(room.status.state, "joined");
  });
});

test("whoever leaves and joins in one breath has never left", async (t) => {
  const fake = await startFake(t);
  const { socket } = start(t, fake.url, tokenOf("alice"));
  const first = socket.join("a");
  const { heard } = hearing(first, "e");
  await first.ready;
  first.leave();
  const second = socket.join("a");
  await second.ready;
  Promise.resolve().then(() => second.leave());
  Promise.resolve().then(() => socket.join("a"));
  await settle();
  await socket.join("b").ready;
  assert.deepEqual(fake.connection.frames.map(({ type }) => type), ["auth", "join", "join"]);
  await fake.publish({ to: { room: "a" }, event: "e" });
  assert.deepEqual(heard, []);
});

test("a room that was not let in, or has no connection, is not left", async (t) => {
  const fake = await startFake(t);
  const { socket, reaches } = start(t, fake.url, () => tokenOf("alice", { grants: { b: ["join"] } }));
  const room = socket.join("a");
  await assert.rejects(room.ready, refusal("forbidden"));
  room.leave();
  const other = socket.join("b");
  await other.ready;
  await fake.kill();
  await reaches("waiting");
  other.leave();
  await settle();
  await fake.restart();
  const second = await fake.connected(2);
  await reaches("open", 2);
  await assert.rejects(socket.join("c").ready);
  assert.deepEqual(fake.connections[0].frames.map(({ type }) => type), ["auth", "join", "join"]);
  assert.deepEqual(second.frames.map(({ type, room }) => room ?? type), ["auth", "c"]);
});

test("`left` with a reason is a refusal, and is tried again if it is temporary", async (t) => {
  const fake = await startFake(t);
  const { socket } = start(t, fake.url, tokenOf("alice"), { backoff: QUICK });
  const [a, b] = [socket.join("a"), socket.join("b")];
  await Promise.all([a.ready, b.ready]);
  const seen = [];
  b.onState((status) => seen.push(status));
  for (const [room, temporary] of [["a", false], ["b", true]]) {
    fake.connection.rooms.delete(room);
    fake.connection.say({ type: "left", room, reason: "the rules say so", temporary });
  }
  await until(() => seen.at(-1)?.state === "joined", "the room to be joined again");
  assert.equal(seen[0].state, "refused");
  assert.equal(seen[0].reason, "the rules say so");
  assert.equal(seen[0].temporary, true);
  assert.equal(a.status.state, "refused");
  assert.equal(a.status.reason, "the rules say so");
  assert.equal(fake.connection.frames.filter(({ type, room }) => type === "join" && room === "a").length, 1);
});

test("an event that crosses with `leave` is heard by the socket, and not by the room", async (t) => {
  const fake = await startFake(t);
  const { socket } = start(t, fake.url, tokenOf("alice"));
  const room = socket.join("a");
  const { heard } = hearing(socket, "e");
  const inRoom = hearing(room, "e");
  await room.ready;
  const acts = [];
  fake.onFrame = (_connection, _frame, act) => acts.push(act);
  room.leave();
  await until(() => acts.length, "the leave");
  await fake.publish({ to: { room: "a" }, event: "e", data: "on its way" });
  acts[0]();
  fake.onFrame = undefined;
  await socket.publish({ self: true }, "e", "last");
  await until(() => heard.length > 1, "the last event");
  assert.deepEqual(heard.map(({ data }) => data), ["on its way", "last"]);
  assert.deepEqual(inRoom.heard, []);
});
