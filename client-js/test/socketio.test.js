// Code that was written for Socket.IO, over the words that `wsgate/socketio` has for it.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { io } from "../socketio.js";
import { QUICK, test, until } from "./support/client.js";
import { startServer } from "./support/tutorial.js";

/** A socket that ends with the test, with QUICK waits. */
const open = (t, url, options) => {
  const socket = io(url, { backoff: QUICK, ...options });
  t.after(() => socket.disconnect());
  return socket;
};
const next = (socket, event) => new Promise((resolve) => socket.once(event, (...args) => resolve(args)));

describe("a socket", () => {
  test("connects, says who it is, and tells how it ends", async (t) => {
    const server = await startServer(t);
    const socket = open(t, new URL(server.url), { auth: { token: server.tokenOf("alice") }, autoConnect: false });
    assert.deepEqual([socket.connected, socket.disconnected, socket.id], [false, true, undefined]);
    const connected = next(socket, "connect");
    assert.equal(socket.connect(), socket);
    await connected;
    assert.deepEqual([socket.connected, socket.active], [true, true]);
    assert.match(socket.id, /^[0-9a-f]{16}$/);
    const ended = next(socket, "disconnect");
    socket.disconnect();
    assert.deepEqual([await ended, socket.connected, socket.active], [["io client disconnect"], false, false]);
  });

  test("is asked for its token at every attempt, by a function or as it was set meanwhile", async (t) => {
    const server = await startServer(t);
    const asked = [];
    const socket = open(t, server.url, { auth: (give) => asked.push(give({ token: server.tokenOf("alice") })) });
    await next(socket, "connect");
    socket.disconnect();
    socket.auth = { token: server.tokenOf("bob") };
    socket.connect();
    await next(socket, "connect");
    assert.equal(asked.length, 1);
    assert.equal((await server.roomsOf("bob")).length, 1);
    const older = open(t, server.url, { query: { token: server.tokenOf("carol") } });
    await next(older, "connect");
    assert.equal((await server.roomsOf("carol")).length, 1);
    assert.throws(() => io({ autoConnect: false }), TypeError, "there is no page whose address it could be");
  });

  test("comes back, into its rooms, and says so", async (t) => {
    const server = await startServer(t);
    const socket = open(t, server.url, { auth: { token: server.tokenOf("alice") } });
    assert.deepEqual(await socket.emitWithAck("joinRoom", "a"), { ok: true, room: "a" });
    const told = [];
    for (const event of ["disconnect", "reconnect_attempt", "reconnect", "connect"]) socket.io.on(event, () => told.push(event));
    const lost = next(socket, "disconnect");
    await server.kill();
    assert.deepEqual(await lost, ["transport close"]);
    await server.restart();
    await until(() => told.includes("reconnect"), "the way back");
    await until(async () => (await server.roomsOf("alice"))[0]?.includes("a"), "its room");
    assert.equal(told[0], "disconnect");
    assert.deepEqual(told.slice(-2), ["connect", "reconnect"]);
    const heard = next(socket, "news");
    await server.publish({ to: { room: "a" }, event: "news", data: { id: 7 } });
    assert.deepEqual(await heard, [{ id: 7 }]);
  });

  test("stays away where it is told to, by the server or by its options", async (t) => {
    const server = await startServer(t);
    const kicked = open(t, server.url, { auth: { token: server.tokenOf("alice") } });
    const once = open(t, server.url, { auth: { token: server.tokenOf("bob") }, reconnection: false });
    await Promise.all([next(kicked, "connect"), next(once, "connect")]);
    const ends = [next(kicked, "disconnect"), next(once, "disconnect")];
    await server.disconnect("alice");
    assert.deepEqual(await ends[0], ["io server disconnect"]);
    await server.kill();
    assert.deepEqual(await ends[1], ["transport close"]);
    assert.deepEqual([kicked.active, once.active], [false, false]);
  });

  test("says why it cannot connect", async (t) => {
    const socket = open(t, "http://127.0.0.1:9", { auth: { token: "t" } });
    const [error] = await next(socket, "connect_error");
    assert.ok(error instanceof Error);
    assert.deepEqual(error.data, { code: 1006 });
    assert.equal(socket.active, true);
  });
});

describe("emit", () => {
  const start = async (t, options) => {
    const server = await startServer(t);
    return { server, socket: open(t, server.url, { auth: { token: server.tokenOf("alice", options) } }) };
  };

  test("asks the server, whose answer goes to the acknowledgement", async (t) => {
    const { socket } = await start(t);
    // What is emitted before there is a connection waits for it.
    assert.equal(await new Promise((resolve) => socket.emit("sum", 1, 2, 3, resolve)), 6);
    assert.equal(await socket.emitWithAck("sum", [4, 5]), 9);
    assert.deepEqual(await new Promise((resolve) => socket.emit("nothing", resolve)), {
      status: "error",
      error: "there is no nothing",
    });
    await assert.rejects(socket.emitWithAck("nothing"), { code: "call_refused" });
  });

  test("tells of what went wrong without an acknowledgement, by `error` or on the console", async (t) => {
    const { socket } = await start(t);
    const warned = t.mock.method(console, "warn", () => {});
    socket.emit("nothing");
    await until(() => warned.mock.callCount() === 1, "a warning");
    assert.match(warned.mock.calls[0].arguments[0], /^emit\("nothing"\) failed: /);
    const told = next(socket, "error");
    socket.emit("nothing");
    assert.equal((await told)[0].code, "call_refused");
    assert.equal(warned.mock.callCount(), 1);
  });

  test("has a time limit where one is set, and its acknowledgement then begins with the error", async (t) => {
    const { socket } = await start(t);
    const ask = (...args) => new Promise((resolve) => socket.timeout(5_000).emit(...args, (...given) => resolve(given)));
    assert.deepEqual(await ask("sum", 1, 2), [null, 3]);
    const [late] = await new Promise((resolve) => socket.timeout(50).emit("slow", (...given) => resolve(given)));
    assert.equal(late.code, "timeout");
    await assert.rejects(socket.timeout(50).emitWithAck("slow"), { code: "timeout" });
  });

  test("drops what is volatile where there is no connection", async (t) => {
    const { socket } = await start(t);
    await assert.rejects(socket.volatile.emitWithAck("sum", 1, 2), { code: "not_sent" });
    await next(socket, "connect");
    assert.equal(await socket.volatile.emitWithAck("sum", 1, 2), 3);
  });

  test("joins and leaves rooms, by the events that are said to, and says what comes of it", async (t) => {
    const { server, socket } = await start(t, { grants: { a: ["join"], b: ["join"] } });
    assert.deepEqual(await new Promise((resolve) => socket.emit("joinRoom", { roomId: "a" }, resolve)), { ok: true, room: "a" });
    const refused = await new Promise((resolve) => socket.emit("joinRoom", "c", resolve));
    assert.deepEqual([refused.ok, refused.code], [false, "forbidden"]);
    await socket.emitWithAck("leaveRoom", "a");
    await until(async () => !(await server.roomsOf("alice"))[0].includes("a"), "the leave");

    const other = open(t, server.url, { auth: { token: server.tokenOf("bob") }, rooms: { join: ["enter"], leave: ["exit"] } });
    await other.emitWithAck("enter", "b");
    assert.deepEqual(await server.roomsOf("bob"), [["user:bob", "b"]]);
    await assert.rejects(other.emitWithAck("joinRoom", "b"), { code: "call_refused" });
  });
});

describe("listeners", () => {
  test("come and go one by one, by name and all at once", async (t) => {
    const server = await startServer(t);
    const socket = open(t, server.url, { auth: { token: server.tokenOf("alice") } });
    await next(socket, "connect");
    const heard = [];
    const [one, two, three] = [1, 2, 3].map((number) => (data) => heard.push(`${number}${data}`));
    socket.on("e", one).on("e", two).once("e", three);
    assert.deepEqual(socket.listeners("e"), [one, two, three]);
    const say = async (data) => {
      const all = next(socket, "said");
      await server.publish({ to: { user: "alice" }, event: "e", data });
      await server.publish({ to: { user: "alice" }, event: "said" });
      await all;
    };
    await say("a");
    socket.off("e", one);
    await say("b");
    socket.removeAllListeners("e");
    await say("c");
    assert.deepEqual(heard, ["1a", "2a", "3a", "2b"]);
    socket.on("e", one).off();
    assert.deepEqual(socket.listeners("e"), []);
  });

  test("answer a server that waits, and no event from the wire is one of the socket's own", async (t) => {
    const server = await startServer(t);
    const socket = open(t, server.url, { auth: { token: server.tokenOf("alice") } });
    let connects = 0;
    socket.on("connect", () => connects++);
    await next(socket, "connect");
    socket.on("confirm", ({ order }, ack) => ack({ yes: order === 7 }));
    const { replies } = await server.request({ to: { user: "alice" }, event: "confirm", data: { order: 7 } });
    assert.deepEqual(replies.map(({ data }) => data), [{ yes: true }]);
    const said = next(socket, "said");
    await server.publish({ to: { user: "alice" }, event: "connect" });
    await server.publish({ to: { user: "alice" }, event: "said" });
    await said;
    assert.equal(connects, 1);
  });
});
