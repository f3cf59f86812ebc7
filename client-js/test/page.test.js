// What a page goes through: networks that come and go, tabs that are hidden and shown, and the way back.

import assert from "node:assert/strict";

import { test } from "./support/client.js";
import { openPage } from "./support/page.js";
import { startOpen, startScripted } from "./support/scripted.js";

/** The longest wait of whoever is back. */
const SOON = 1_000;

/** A client that has failed until its wait is half a minute long. */
const startWaiting = async (t, options) => {
  const client = await startScripted(t, options);
  t.mock.method(Math, "random", () => 0.999);
  for (let failures = 0; failures < 4; failures++) {
    client.ws.ends(1006);
    await client.clock.pass(client.wait());
  }
  client.ws.ends(1006);
  assert.ok(client.wait() > 29_000);
  return client;
};

test("`offline` ends the connection and says so, `online` brings it back within a second", async (t) => {
  const page = openPage(t);
  const { ws, socket, made, clock } = await startOpen(t);
  t.mock.method(Math, "random", () => 0.999);
  page.offline();
  assert.deepEqual([socket.state, socket.status.code, ws.closed], ["waiting", 1006, 1]);
  assert.match(socket.status.reason, /offline|network/);
  page.online();
  await clock.pass(SOON);
  assert.equal(made.length, 2);
  made[1].welcomes();
  assert.equal(socket.state, "open");
});

test("`offline` during an attempt ends that, and a second one changes nothing", async (t) => {
  const page = openPage(t);
  const { socket, made, states, clock } = await startScripted(t);
  page.offline();
  page.offline();
  assert.deepEqual(states.map(({ state }) => state), ["waiting"]);
  assert.equal(made[0].closed, 1);
  page.online();
  page.online();
  await clock.pass(SOON);
  assert.equal(made.length, 2);
  assert.equal(socket.state, "connecting");
});

test("`online` makes a wait short, however often this has failed", async (t) => {
  const page = openPage(t);
  const { made, clock, wait } = await startWaiting(t);
  const before = made.length;
  page.online();
  assert.ok(wait() <= SOON, `retryAt is ${wait()} ms away`);
  await clock.pass(SOON);
  assert.equal(made.length, before + 1);
});

test("a page that becomes visible asks whether the connection is there, and soon knows", async (t) => {
  const page = openPage(t);
  const { ws, made, clock, states } = await startOpen(t);
  page.hide();
  assert.deepEqual(ws.types(), ["auth"]);
  page.show();
  assert.deepEqual(ws.types(), ["auth", "ping"]);
  ws.replies("ping");
  await clock.pass(10_000);
  assert.deepEqual(states.map(({ state }) => state), ["open"]);

  page.hide();
  page.show();
  await clock.pass(10_000);
  assert.ok(made.length >= 2, "a connection that does not answer is left");
});

test("a page that becomes visible while waiting tries within a second", async (t) => {
  const page = openPage(t);
  const { made, clock } = await startWaiting(t);
  const before = made.length;
  page.hide();
  await clock.pass(SOON);
  assert.equal(made.length, before, "nobody looks at it");
  page.show();
  await clock.pass(SOON);
  assert.equal(made.length, before + 1);
});

test("a page that is left and kept has no connection, and has one again on the way back", async (t) => {
  const page = openPage(t);
  const { ws, made, clock, socket } = await startOpen(t);
  page.leave();
  assert.equal(ws.closed, 1);
  assert.notEqual(socket.state, "open");
  clock.sleep(5 * 60_000);
  page.comeBack();
  await clock.pass(SOON);
  assert.equal(made.length, 2);
  made[1].welcomes();
  await clock.pass(10_000);
  assert.equal(socket.state, "open");
});

test("a page that was frozen and goes on tries again, or asks", async (t) => {
  const page = openPage(t);
  const { ws, made, clock } = await startOpen(t);
  clock.sleep(20_000);
  page.resume();
  page.show();
  await clock.pass(SOON);
  assert.ok(made.length === 2 || ws.all("ping").length === 1);
  await clock.pass(10_000);
  assert.ok(made.length >= 2);
});

test("a fresh token is asked for after a network that was away", async (t) => {
  const page = openPage(t);
  const asked = [];
  const token = ({ fresh }) => {
    asked.push(fresh);
    return "t";
  };
  const { clock, made } = await startOpen(t, { token });
  page.leave();
  page.comeBack();
  await clock.pass(SOON);
  made[1].welcomes();
  made[1].ends(1006);
  await clock.pass(5_001);
  assert.deepEqual(asked, [false, true, false]);
});

test("nothing of the page listens after `close`, and all of it once after `open`", async (t) => {
  const page = openPage(t);
  const { socket, clock, made } = await startOpen(t);
  const listeners = page.listeners();
  for (const type of ["online", "offline", "visibilitychange", "pagehide", "pageshow"]) {
    assert.ok(listeners.includes(type), `nobody listens to ${type}`);
  }
  socket.close();
  assert.deepEqual(page.listeners(), []);
  const { offline, online, hide, show, leave, comeBack, resume } = page;
  for (const happen of [offline, online, hide, show, leave, comeBack, resume]) happen();
  await clock.pass(60_000);
  assert.deepEqual([socket.state, made.length, clock.timers], ["closed", 1, 0]);
  socket.open();
  socket.open();
  assert.deepEqual(page.listeners().sort(), listeners.sort());
  made[0].ends(4403);
  socket.close();
  assert.deepEqual(page.listeners(), []);
});

test("nothing of the page listens once the gateway has turned us away for good", async (t) => {
  const page = openPage(t);
  const { ws, clock } = await startOpen(t);
  ws.ends(4403);
  assert.deepEqual(page.listeners(), []);
  assert.equal(clock.timers, 0);
});

test("two sockets of one page live and die apart", async (t) => {
  const page = openPage(t);
  const [one, two] = [await startOpen(t), await startOpen(t)];
  const listeners = page.listeners().length;
  one.socket.close();
  assert.equal(page.listeners().length, listeners / 2);
  assert.equal(two.socket.state, "open");
  page.offline();
  page.online();
  await two.clock.pass(SOON);
  assert.deepEqual([one.made.length, two.made.length], [1, 2]);
});

test("a page of which nothing but the events is there will do", async (t) => {
  const page = openPage(t);
  delete globalThis.document;
  const { clock, socket } = await startOpen(t);
  page.offline();
  page.online();
  await clock.pass(SOON);
  assert.equal(socket.state, "connecting");
});
