// Coming back after the connection was lost, against gateways that crash, restart and turn users away.

import assert from "node:assert/strict";

import { againstBoth, hearing, NEVER, refusal, start, startFake, test, tokenOf, until } from "./support/client.js";

againstBoth("reconnection", (startGateway) => {
  test("after a crash rooms are joined again, in order, and events come as before", async (t) => {
    const gateway = await startGateway(t);
    const { socket, states, reaches } = start(t, gateway.url, () => tokenOf("alice"));
    const rooms = ["b", "a", "c"].map((name) => socket.join(name));
    const { upTo } = hearing(rooms[1], "e");
    await Promise.all(rooms.map((room) => room.ready));
    const before = states.length;
    const [{ ready }, first] = [rooms[0], socket.connection];
    const now = Date.now();
    await gateway.kill();
    const { code, retryAt } = await reaches("waiting", before);
    assert.equal(code, 1006);
    assert.ok(retryAt >= now && retryAt < Date.now() + 100, `${retryAt - now}`);
    assert.deepEqual([socket.connection, rooms[0].status.state], [undefined, "joining"]);

    await gateway.restart();
    await reaches("open", before);
    assert.notEqual(rooms[0].ready, ready);
    await Promise.all(rooms.map((room) => room.ready));
    assert.notEqual(socket.connection, first);
    assert.deepEqual(await gateway.roomsOf("alice"), [["user:alice", "b", "a", "c"]]);
    await rooms[1].publish("e", "again");
    assert.deepEqual(await upTo(1), [{ data: "again", room: "a", from: "alice" }]);
  });

  test("what is published while away arrives after the return, in order", async (t) => {
    const gateway = await startGateway(t);
    const { socket, reaches } = start(t, gateway.url, () => tokenOf("alice"));
    const room = socket.join("a");
    const { upTo } = hearing(room, "e");
    await room.ready;
    await gateway.kill();
    await reaches("waiting");
    const published = [1, 2, 3].map((number) => room.publish("e", number));
    const other = socket.join("b");
    const inOther = hearing(other, "e");
    published.push(other.publish("e", "b"));
    await gateway.restart();
    assert.deepEqual((await Promise.all(published)).map(({ ok }) => ok), [true, true, true, true]);
    assert.deepEqual((await upTo(3)).map(({ data }) => data), [1, 2, 3]);
    await inOther.upTo(1);
  });

  test("what is published to a room without its object comes after its join as well", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice"));
    const published = socket.publish({ room: "a" }, "e", 1);
    const { upTo } = hearing(socket.join("a"), "e");
    assert.equal((await published).ok, true);
    await upTo(1);
  });

  test("a restart says when to come back", async (t) => {
    const gateway = await startGateway(t, { returnSpread: 200 });
    // With these waits of its own it would be away for days.
    const { reaches, states } = start(t, gateway.url, () => tokenOf("alice"), { backoff: NEVER });
    await reaches("open");
    const now = Date.now();
    const [{ code, reason, retryAt }] = await Promise.all([reaches("waiting"), gateway.stop()]);
    assert.deepEqual({ code, reason }, { code: 4503, reason: "the gateway is restarting" });
    assert.ok(retryAt >= now && retryAt <= Date.now() + 200, `${retryAt - now}`);
    // Its own waits begin if the gateway is not back by then.
    await reaches("connecting", states.findIndex((it) => it.state === "waiting"));
  });

  test("what a backend has taken a user out of is not joined again by itself", async (t) => {
    const gateway = await startGateway(t);
    const { socket, states, reaches } = start(t, gateway.url, () => tokenOf("alice"));
    const [a, b] = [socket.join("a"), socket.join("b")];
    await b.ready;
    await gateway.leave("alice", "a");
    await until(() => a.status.state === "refused");
    const before = states.length;
    await gateway.kill();
    await reaches("waiting", before);
    await gateway.restart();
    await b.ready;
    await b.publish("e");
    assert.deepEqual(await gateway.roomsOf("alice"), [["user:alice", "b"]]);
    assert.equal(a.status.state, "refused");
  });

  test("a user who is disconnected by a backend stays away, until told to open again", async (t) => {
    const gateway = await startGateway(t);
    const { socket, states, reaches } = start(t, gateway.url, () => tokenOf("alice"));
    const room = socket.join("a");
    await room.ready;
    await gateway.disconnect("alice");
    const { code, reason, retryAt } = await reaches("closed");
    assert.deepEqual([code, reason, retryAt], [4403, "disconnected by the backend", undefined]);
    assert.deepEqual(states.map((it) => it.state), ["open", "closed"]);
    await assert.rejects(room.publish("e"), refusal("not_sent", { temporary: false }));
    socket.open();
    await room.ready;
    assert.deepEqual(states.map((it) => it.state), ["open", "closed", "connecting", "open"]);
    assert.deepEqual(await gateway.roomsOf("alice"), [["user:alice", "a"]]);
  });

  test("a request that was under way when the connection was lost rejects", async (t) => {
    const gateway = await startGateway(t);
    // What is published gets lost on the way, so that it is still under way then.
    class Lossy extends WebSocket {
      send(text) {
        if (!text.includes("publish")) super.send(text);
      }
    }
    const { socket, reaches } = start(t, gateway.url, tokenOf("alice"), { WebSocket: Lossy });
    await reaches("open");
    const underWay = assert.rejects(socket.publish({ self: true }, "e"), refusal("disconnected", { temporary: true }));
    await Promise.all([gateway.kill(), underWay]);
  });
});

for (const refused of [401, 503]) {
  test(`an upgrade that is answered with ${refused} is tried again`, async (t) => {
    const fake = await startFake(t);
    fake.upgrades = refused;
    const { socket, states, reaches } = start(t, fake.url, () => tokenOf("alice"));
    await until(() => fake.attempts === 3);
    fake.upgrades = undefined;
    await reaches("open");
    assert.ok(states.filter(({ state }) => state === "waiting").every(({ code }) => code === 1006));
    await socket.join("a").ready;
  });
}

test("TCP that ends at any point is survived", async (t) => {
  const fake = await startFake(t);
  const { socket, states, reaches } = start(t, fake.url, () => tokenOf("alice"), { backoff: { min: 5, max: 10 } });
  const room = socket.join("a");
  // Each time it is dropped one frame later: before the token is looked at, before the join, after it.
  for (let frames = 1; frames <= 3; frames++) {
    const connection = await fake.connected(frames);
    await until(() => connection.ended || connection.frames.length >= Math.min(frames, 2));
    connection.drop();
    await until(() => states.filter(({ state }) => state === "waiting").length >= frames);
  }
  await reaches("open", states.length);
  await room.ready;
  await room.publish("e");
});

test("a gateway that closes without a `closing` message is understood by its code", async (t) => {
  const fake = await startFake(t);
  const { states, reaches } = start(t, fake.url, () => tokenOf("alice"));
  for (const [number, code] of [4508, 4505, 1011, 4503].entries()) {
    await until(() => states.filter(({ state }) => state === "open").length > number);
    fake.connection.end(code, `the ${code}`, { announced: false });
    const { reason } = await until(() => states.find((it) => it.code === code));
    assert.equal(reason, `the ${code}`);
  }
  await until(() => states.at(-1).state === "open");
  fake.connection.end(4403, "go away", { announced: false });
  assert.equal((await reaches("closed")).reason, "go away");
});

test("replies may come late and in any order", async (t) => {
  const fake = await startFake(t, { call: ({ data }) => data });
  const { socket } = start(t, fake.url, tokenOf("alice"));
  const held = [];
  fake.onFrame = (_connection, { type }, act) => (type === "auth" ? act() : held.push(act));
  const rooms = ["a", "b", "c"].map((name) => socket.join(name));
  await until(() => held.length === 3);
  const calls = [1, 2, 3].map((number) => socket.call("echo", number));
  await until(() => held.length === 6);
  for (const act of held.reverse()) await act();
  assert.deepEqual(await Promise.all(calls), [1, 2, 3]);
  await Promise.all(rooms.map((room) => room.ready));
  assert.deepEqual(rooms.map((room) => room.status.state), ["joined", "joined", "joined"]);
});
