// What the gateway refuses, and what can never work.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { connect } from "../wsgate.js";
import { againstBoth, refusal, start, startFake, test, tokenOf, until } from "./support/client.js";
import { startOpen } from "./support/scripted.js";
import { settle } from "./support/clock.js";

againstBoth("errors", (startGateway) => {
  test("are those of the gateway, with their code and field", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice", { grants: { a: ["join"], b: ["publish"] } }));
    const room = socket.join("a");
    await room.ready;
    const secrets = socket.join("secrets");
    await assert.rejects(secrets.ready, refusal("forbidden", { field: "room", temporary: false }));
    assert.equal(secrets.status.code, "forbidden");
    assert.match(secrets.status.reason, /no grant to join secrets/);
    await assert.rejects(room.publish("e"), refusal("forbidden", { field: "to", temporary: false }));
    await assert.rejects(room.members(), refusal("forbidden", { field: "room", temporary: false }));
    await assert.rejects(socket.publish({ all: true }, "e"), refusal("forbidden", { field: "to.all" }));
    await assert.rejects(socket.publish({ rooms: ["a", ""] }, "e"), refusal("invalid_field", { field: "to.rooms[1]" }));
    await assert.rejects(socket.publish({ room: "b" }, "e"), refusal("not_joined", { field: "to", temporary: false }));
    await assert.rejects(socket.join("").ready, refusal("invalid_field", { field: "room" }));
    await assert.rejects(socket.call("add"), refusal("not_configured", { temporary: false }));
  });

  test("are of the request that they answer, whatever is under way besides", async (t) => {
    const gateway = await startGateway(t);
    const { socket, reaches } = start(t, gateway.url, tokenOf("alice"));
    await reaches("open");
    let deep = [];
    for (let level = 0; level < 100; level++) deep = [deep];
    const outcomes = await Promise.allSettled([
      socket.publish({ self: true }, "e"),
      socket.publish({ self: true }, "e", deep),
      socket.publish({ self: true }, "e"),
    ]);
    assert.deepEqual(outcomes.map((it) => it.reason?.code), [undefined, "too_deep", undefined]);
  });

  test("a call gives the backend's answer, or what it refuses with", async (t) => {
    const call = ({ event, data, user }) => {
      if (event === "add") return { sum: data[0] + data[1], for: user };
      if (event === "nothing") return null;
      const numbersOnly = { error: "numbers only" };
      throw Object.assign(new Error("refused"), { code: "call_refused", temporary: false, data: numbersOnly });
    };
    const gateway = await startGateway(t, { call });
    const { socket } = start(t, gateway.url, tokenOf("alice"));
    assert.deepEqual(await socket.call("add", [1, 2]), { sum: 3, for: "alice" });
    assert.equal(await socket.call("nothing"), null);
    await assert.rejects(socket.call("other"), (error) => {
      assert.deepEqual(error.data, { error: "numbers only" });
      return refusal("call_refused", { temporary: false })(error);
    });
  });

  test("a promise that nobody looks at is none of the process's business, for `ready`", async (t) => {
    const unhandled = [];
    const note = (error) => unhandled.push(error);
    process.on("unhandledRejection", note);
    t.after(() => process.off("unhandledRejection", note));
    const gateway = await startGateway(t);
    const { socket, reaches } = start(t, gateway.url, tokenOf("alice", { grants: {} }));
    const room = socket.join("a");
    room.onMembers(() => {});
    await reaches("open");
    await assert.rejects(socket.join("b").ready);
    socket.join("c");
    const left = socket.join("d");
    left.onMembers(() => {});
    left.leave();
    socket.close();
    socket.join("e");
    await settle();
    assert.deepEqual(unhandled, []);
  });
});

describe("errors", () => {
  test("what can never work fails at once", () => {
    assert.throws(() => connect("/ws", { token: "t" }), TypeError); // There is no page to be relative to.
    assert.throws(() => connect("ws://127.0.0.1/ws", { token: "t", WebSocket: null }), /no WebSocket/);
  });

  test("data that is no JSON rejects its own request, and nothing else", async (t) => {
    const { socket, ws } = await startOpen(t);
    const cyclic = {};
    cyclic.self = cyclic;
    await assert.rejects(socket.publish({ self: true }, "e", cyclic), TypeError);
    await assert.rejects(socket.call("e", 1n), TypeError);
    assert.deepEqual(ws.types(), ["auth"]);
    const fine = socket.publish({ self: true }, "e", 1);
    ws.replies("publish");
    assert.equal((await fine).ok, true);
    ws.ends(1006);
    await assert.rejects(socket.publish({ self: true }, "e", cyclic), TypeError);
    assert.equal(socket.state, "waiting");
  });

  test("a field that is new, and a code that is new, are passed on or over", async (t) => {
    const { socket, ws } = await startOpen(t);
    const asked = assert.rejects(socket.publish({ self: true }, "e"), refusal("not_today", { temporary: true }));
    ws.refuses("publish", "not_today", { temporary: true, moon: "full" });
    await asked;
  });

  test("an error that answers nothing is passed over", async (t) => {
    const fake = await startFake(t);
    const { socket, states } = start(t, fake.url, tokenOf("alice"));
    await socket.join("a").ready;
    fake.connection.say({ type: "error", code: "not_json", message: "this is not JSON", temporary: false });
    fake.connection.say({ type: "error", id: 99, code: "forbidden", message: "no", temporary: false });
    fake.connection.say({ type: "error", id: null, code: "forbidden", message: "no", temporary: false });
    await socket.publish({ self: true }, "e");
    assert.deepEqual(states.map(({ state }) => state), ["open"]);
  });
});

describe("what comes from the wire", () => {
  const GARBAGE = ["", "no JSON", "null", "true", "7", '"welcome"', "[]", '["event"]', "{}", '{"type":null}'];

  for (const when of ["before", "after"]) {
    test(`is passed over where it makes no sense, ${when} the welcome`, async (t) => {
      const { socket, ws, states } = await startOpen(t);
      if (when === "before") ws.ends(1006);
      const heard = [];
      socket.on("e", (data) => heard.push(data));
      for (const text of GARBAGE) ws.says(text);
      const senseless = ["weather", "constructor", "toString"].map((type) => ({ type, room: "a", id: 1 }));
      const half = ["reply", "error", "presence", "joined", "left", "event", "lost"].map((type) => ({ type }));
      for (const message of [...senseless, ...half]) ws.says(message);
      ws.says({ type: "left", room: "__proto__" });
      ws.says({ type: "joined", room: "constructor" });
      ws.says({ type: "presence", room: "toString", joined: [{ user: "bob" }] });
      await settle();
      assert.equal(states.at(-1).state, when === "before" ? "waiting" : "open");
      if (when === "after") {
        ws.says({ type: "event", event: "e", data: 1, seq: 7 });
        assert.deepEqual(heard, [1]);
      }
    });
  }

  test("rooms, users and events may be called anything", async (t) => {
    const { socket, ws } = await startOpen(t);
    const names = ["__proto__", "constructor", "hasOwnProperty", "0", "\u{1f680} <script>", " "];
    const heard = [];
    for (const name of names) {
      const room = socket.join(name);
      room.on(name, (_data, info) => heard.push(info.room));
      ws.replies("join");
      ws.says({ type: "event", room: name, event: name, data: null });
      await settle();
      assert.equal(room.status.state, "joined");
    }
    assert.deepEqual(heard, names);
  });

  test("binary messages are passed over", async (t) => {
    const fake = await startFake(t);
    const { socket, states } = start(t, fake.url, tokenOf("alice"));
    await socket.join("a").ready;
    fake.connection.say(Buffer.from('{"type":"closing","code":4403,"reason":"","retry":"no"}'));
    fake.connection.say("{");
    await until(async () => (await socket.publish({ self: true }, "e")).ok);
    assert.deepEqual(states.map(({ state }) => state), ["open"]);
  });
});
