// Closing at any time leaves nothing behind, and opening again finds everything as it was.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe } from "node:test";

import { againstBoth, hearing, NEVER, QUICK, refusal, start, startFake, test, tokenOf } from "./support/client.js";
import { settle } from "./support/clock.js";
import { openPage } from "./support/page.js";
import { startOpen, startScripted } from "./support/scripted.js";
import { until } from "./support/until.js";

/** Runs a script in a process of its own, which has to end by itself; tells it when it is `time`. */
const run = async (t, script, time = new Promise(() => {})) => {
  const module = JSON.stringify(new URL("../wsgate.js", import.meta.url).href);
  const source = `import { connect } from ${module};\n${script}`;
  const options = ["--experimental-websocket", "--no-warnings", "--input-type=module"];
  const child = spawn(process.execPath, [...options, "-e", source], { stdio: ["pipe", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  const exit = once(child, "exit");
  time.then(() => child.stdin.end("now"));
  let said = "";
  for await (const chunk of child.stdout) said += chunk;
  assert.deepEqual(await exit, [0, null]);
  return said.trim();
};

describe("a process that closes its socket ends by itself", () => {
  test("in the same breath, and has asked for nothing", async (t) => {
    const fake = await startFake(t);
    const script = `
      const socket = connect("${fake.url}", { token: () => console.log("asked") });
      socket.onState(({ state }) => console.log(state));
      socket.close();
      socket.close();
    `;
    assert.equal(await run(t, script), "closed");
    assert.equal(fake.attempts, 0);
  });

  test("while the token is being asked for", async (t) => {
    const script = `
      const token = () => new Promise(() => setImmediate(() => socket.close()));
      const socket = connect("ws://127.0.0.1:1/ws", { token });
      socket.onState(({ state }) => console.log(state));
    `;
    assert.equal(await run(t, script), "closed");
  });

  test("during the handshake", async (t) => {
    const fake = await startFake(t);
    fake.upgrades = "nothing";
    const ran = run(t, `
      const socket = connect("${fake.url}", { token: "t" });
      socket.onState(({ state }) => console.log(state));
      process.stdin.once("data", () => { socket.close(); process.stdin.destroy(); });
    `, until(() => fake.attempts));
    assert.equal(await ran, "closed");
    await until(() => fake.open() === 0, "the connection to end");
  });

  test("while waiting, and when open, with rooms, requests and members", async (t) => {
    const fake = await startFake(t, { call: () => new Promise(() => {}) });
    const script = `
      const one = connect("ws://127.0.0.1:1/ws", { token: "t", backoff: { min: 1e9, max: 1e9 } });
      one.onState(({ state }) => { if (state === "waiting") one.close(); });
      const two = connect("${fake.url}", { token: "${tokenOf("alice")}" });
      two.onState(({ state }) => console.log(state));
      const room = two.join("a");
      room.onMembers(({ members }) => {
        if (!members) return;
        two.call("never").catch(({ code }) => console.log(code));
        two.close();
      });
    `;
    assert.equal(await run(t, script), "open\nclosed\ndisconnected");
    await until(() => fake.open() === 0, "the connection to end");
  });
});

describe("after `close`", () => {
  const MOMENTS = {
    "in the same breath": async (t, options) => {
      const client = await startScripted(t, { ...options, open: false });
      client.socket.open();
      return client;
    },
    "while a token is asked for": (t, options) => startScripted(t, { ...options, token: () => new Promise(() => {}) }),
    "during the handshake": startScripted,
    "before the welcome": async (t, options) => {
      const client = await startScripted(t, options);
      client.ws.opens();
      return client;
    },
    "when open": startOpen,
    "while waiting": async (t, options) => {
      const client = await startOpen(t, options);
      client.ws.ends(1006);
      return client;
    },
  };
  for (const [when, begin] of Object.entries(MOMENTS)) {
    test(`${when} there is no timer, no listener and no WebSocket`, async (t) => {
      const page = openPage(t);
      const client = await begin(t, { backoff: QUICK });
      const { socket, states, clock, made } = client;
      const room = socket.join("a");
      const requests = [room.publish("e"), socket.call("e"), socket.publish({ self: true }, "e")];
      const rejected = Promise.all(requests.map((it) => assert.rejects(it)));
      socket.close();
      await rejected;
      assert.deepEqual({ ...states.at(-1), reason: 0 }, { state: "closed", code: 1000, reason: 0 });
      assert.equal(clock.timers, 0);
      assert.deepEqual(page.listeners(), []);
      assert.ok(made.every(({ closed, readyState }) => closed || readyState === 3));
      const before = [states.length, made.length];
      for (const ws of made) {
        ws.onopen?.({});
        ws.says({ type: "expiring", in: 1 });
        ws.ends(1006);
      }
      socket.close();
      await clock.pass(100_000);
      assert.deepEqual([states.length, made.length, clock.timers], [...before, 0]);
    });
  }

  test("nobody waits for a gateway that went silent", async (t) => {
    const fake = await startFake(t);
    const { socket, states } = start(t, fake.url, tokenOf("alice"));
    await socket.join("a").ready;
    fake.connection.silence();
    socket.close();
    assert.equal(states.at(-1).state, "closed");
    socket.open();
    await until(() => socket.state === "open");
    assert.equal(fake.connections.length, 2);
  });

  test("what is asked is refused, and rooms say why", async (t) => {
    const { socket } = await startOpen(t);
    const room = socket.join("a");
    socket.close();
    await assert.rejects(room.ready, refusal("not_sent", { temporary: false }));
    await assert.rejects(socket.join("b").ready, refusal("not_sent", { temporary: false }));
    await assert.rejects(socket.publish({ self: true }, "e"), refusal("not_sent", { temporary: false }));
    assert.equal(room.status.state, "refused");
  });
});

againstBoth("`open`", (startGateway) => {
  test("after `close` joins the rooms again, and finds the listeners as they were", async (t) => {
    const gateway = await startGateway(t);
    const { socket, states } = start(t, gateway.url, () => tokenOf("alice"));
    const [a, b] = [socket.join("a"), socket.join("b")];
    const [inRoom, everywhere] = [hearing(a, "e"), hearing(socket, "e")];
    await b.ready;
    socket.close();
    await until(async () => (await gateway.roomsOf("alice")).length === 0);
    b.leave();
    socket.open();
    await until(() => a.status.state === "joined");
    await a.publish("e", 1);
    await Promise.all([inRoom.upTo(1), everywhere.upTo(1)]);
    assert.deepEqual(await gateway.roomsOf("alice"), [["user:alice", "a"]]);
    assert.deepEqual(states.map(({ state }) => state), ["open", "closed", "connecting", "open"]);
  });
});

describe("`open`", () => {
  test("and `close` in one breath, as often as you like, are what the last one says", async (t) => {
    const { socket, made, clock } = await startScripted(t, { open: false });
    for (let times = 0; times < 3; times++) {
      socket.open();
      socket.close();
    }
    await settle();
    assert.deepEqual([made.length, clock.timers], [0, 0]);
    for (let times = 0; times < 3; times++) {
      socket.close();
      socket.open();
    }
    await settle();
    assert.equal(made.length, 1);
    assert.equal(socket.state, "connecting");
  });

  test("makes rooms wait for the connection again", async (t) => {
    const { socket, made } = await startOpen(t);
    const room = socket.join("a");
    made[0].replies("join");
    await settle();
    socket.close();
    await assert.rejects(room.ready);
    socket.open();
    assert.equal(room.status.state, "joining");
    await settle();
    made[1].welcomes();
    made[1].replies("join");
    await room.ready;
  });

  test("after a refused token asks once more, and forgets earlier failures", async (t) => {
    t.mock.method(Math, "random", () => 0.5);
    const asked = [];
    const token = ({ fresh }) => {
      asked.push(fresh);
      return "t";
    };
    const { socket, made, clock, wait } = await startScripted(t, { token });
    for (let times = 0; times < 4; times++) {
      made.at(-1).ends(1006);
      await clock.pass(wait());
    }
    for (let times = 0; times < 2; times++) {
      made.at(-1).ends(4401);
      await clock.pass(1);
    }
    assert.equal(socket.state, "closed");
    socket.open();
    await settle();
    made.at(-1).ends(1006);
    assert.equal(wait(), 2_500);
    await clock.pass(2_500);
    made.at(-1).ends(4401);
    assert.equal(socket.state, "waiting");
  });
});

describe("listeners of the state", () => {
  test("may do anything, and what they publish comes after the joins", async (t) => {
    const { socket, ws } = await startScripted(t, { backoff: NEVER });
    const room = socket.join("a");
    socket.onState(({ state }) => {
      if (state === "open") socket.publish({ room: "a" }, "e").catch(() => {});
      if (state === "waiting") socket.close();
    });
    ws.welcomes();
    await settle();
    ws.ends(1006);
    assert.deepEqual(ws.types(), ["auth", "join", "publish"]);
    assert.equal(socket.state, "closed");
    await assert.rejects(room.ready, refusal("not_sent"));
  });

  test("may close when told that it is open, and open when told that it is closed", async (t) => {
    const { socket, made, ws, clock } = await startScripted(t);
    let times = 0;
    const undo = socket.onState(({ state }) => {
      if (state === "open" && !times++) socket.close();
      else if (state === "closed") socket.open();
    });
    ws.welcomes();
    await settle();
    assert.equal(ws.closed, 1);
    assert.equal(made.length, 2);
    made[1].welcomes();
    assert.equal(socket.state, "open");
    const room = socket.join("a");
    made[1].replies("join");
    await room.ready;
    await clock.pass(20_000);
    assert.deepEqual([socket.state, made.length], ["open", 2]);
    undo();
  });

  test("hear statuses that never change, each another", async (t) => {
    const { socket, ws, states } = await startOpen(t, { backoff: NEVER });
    const copies = [structuredClone(states[0])];
    const first = socket.status;
    assert.equal(socket.status, first);
    ws.ends(1006, "gone");
    copies.push(structuredClone(states[1]));
    socket.close();
    assert.equal(new Set(states).size, 3);
    assert.deepEqual(states.slice(0, 2), copies);
    assert.equal(states[0], first);
  });
});
