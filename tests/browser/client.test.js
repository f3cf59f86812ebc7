// The client in a page of its own, and what browsers do to pages: leave them and come back, hide them,
// take their network away, open them twice.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { test as testWith } from "node:test";

import { WSGATE, openPage, startBrowser, startProgram } from "./support.js";

const SECRET = "a secret of the tests, longer than 32 bytes";
const KEY = "an API key of the tests";
const test = (name, run) => testWith(name, { timeout: 60_000 }, run);

const startGateway = async (t, page, listen = "127.0.0.1:0") => {
  const { match, end } = await startProgram(
    t,
    WSGATE,
    ["serve", "--listen", listen, "--backend-listen", "127.0.0.1:0", "--allow-origin", page],
    { until: /listening public=(\S+) backend=(\S+)/, env: { WSGATE_JWT_SECRET: SECRET, WSGATE_API_KEY: KEY, WSGATE_LOG_FORMAT: "text" } },
  );
  const [, at, backend] = match;
  const connections = async (user) => {
    const answer = await fetch(`http://${backend}/v1/users/${user}`, { headers: { authorization: `Bearer ${KEY}` } });
    return (await answer.json()).connections;
  };
  return { at, end, connections };
};

const tokenOf = (sub) => {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = { sub, exp: Math.floor(Date.now() / 1000) + 3600, grants: { "*": ["join", "publish"] } };
  const signed = `${encode({ alg: "HS256" })}.${encode(claims)}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
};

/** Serves a page that connects as soon as it is there and keeps its states in `states`, and an empty one. */
const startSite = async (t) => {
  const site = { asked: 0 };
  const server = createServer(({ url }, response) => {
    if (url === "/token") {
      site.asked++;
      response.end(tokenOf("alice"));
    } else {
      response.setHeader("content-type", "text/html");
      response.end(url === "/" ? pageFor(site.gateway) : "<title>Elsewhere</title>");
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  t.after(() => server.closeAllConnections());
  site.url = `http://127.0.0.1:${server.address().port}`;
  return site;
};

const pageFor = (at) => `<title>Page</title><script src="http://${at}/client.js"></script><script>
  const states = [], asked = [];
  const token = async ({ fresh }) => { asked.push(fresh); return (await fetch("/token")).text(); };
  const socket = wsgate.connect("http://${at}/ws", { token });
  socket.onState((status) => states.push(status));
  const room = socket.join("lobby");
  const heard = [];
  room.on("message", (data) => heard.push(data));
</script>`;

const start = async (t, options) => {
  const site = await startSite(t);
  const gateway = await startGateway(t, site.url);
  site.gateway = gateway.at;
  const browser = await startBrowser(t, options);
  return { site, gateway, browser };
};

const isIn = (page) => page.waitForFunction("room.state === 'joined'");

test("a page is kept for the way back, and comes back with a connection and its rooms", async (t) => {
  const { site, gateway, browser } = await start(t, { backForwardCache: true });
  const page = await openPage(browser, site.url);
  await isIn(page);
  await page.evaluate("window.kept = true");
  await page.goto(`${site.url}/elsewhere`);
  await until(async () => (await gateway.connections("alice")).length === 0);
  await page.goBack({ waitUntil: "commit" }); // It is not loaded again, so there is nothing else to wait for.
  assert.equal(await page.evaluate("window.kept"), true, "the page itself, and not another of its kind");
  await isIn(page);
  const [one, ...more] = await gateway.connections("alice");
  assert.deepEqual([one.rooms, more], [["user:alice", "lobby"], []]);
  const states = await page.evaluate("states.map(({ state }) => state)");
  assert.deepEqual(states.filter((state) => state !== "waiting"), ["open", "connecting", "open"]);
  assert.deepEqual(await page.evaluate("asked"), [false, true]);
  assert.deepEqual(page.errors, []);
});

test("a page that goes offline says so, and is back within a second once it is online", async (t) => {
  const { site, browser } = await start(t);
  const page = await openPage(browser, site.url);
  await isIn(page);
  await page.context().setOffline(true);
  await page.waitForFunction("socket.state === 'waiting'");
  assert.equal(await page.evaluate("states.find(({ state }) => state === 'waiting').reason"), "offline");
  await page.context().setOffline(false);
  const online = Date.now();
  await isIn(page);
  assert.ok(Date.now() - online < 1000, `${Date.now() - online} ms`);
});

test("a page that is seen again doubts its connection, and keeps it if it is good", async (t) => {
  const { site, browser } = await start(t);
  const page = await openPage(browser, site.url);
  await isIn(page);
  await page.evaluate(`(() => {
    const send = WebSocket.prototype.send;
    window.sent = [];
    WebSocket.prototype.send = function (text) { sent.push(text); send.call(this, text); };
  })()`);
  await page.evaluate("document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))");
  assert.deepEqual(await page.evaluate("sent"), ['{"type":"ping"}']);
  await page.evaluate("room.publish('message', 1)");
  await page.waitForFunction("heard.length === 1");
  assert.deepEqual(await page.evaluate("states.map(({ state }) => state)"), ["open"]);
});

test("tabs are connections of their own, and one that is closed leaves nothing behind", async (t) => {
  const { site, gateway, browser } = await start(t);
  const context = await browser.newContext();
  const tabs = [await context.newPage(), await context.newPage(), await context.newPage()];
  for (const tab of tabs) {
    await tab.goto(site.url);
    await isIn(tab);
  }
  assert.equal((await gateway.connections("alice")).length, 3);
  await tabs[0].evaluate("room.publish('message', 'hi', { echo: false })");
  for (const tab of tabs.slice(1)) await tab.waitForFunction("heard[0] === 'hi'");
  await tabs[0].close();
  await tabs[1].evaluate("socket.close()");
  await until(async () => (await gateway.connections("alice")).length === 1);
  assert.deepEqual(await tabs[2].evaluate("states.map(({ state }) => state)"), ["open"]);
});

test("a gateway that is killed and started again gets all its pages back, in their rooms", async (t) => {
  const { site, gateway, browser } = await start(t);
  const [one, two] = [await openPage(browser, site.url), await openPage(browser, site.url)];
  await isIn(one);
  await isIn(two);
  await gateway.end("SIGKILL");
  await one.waitForFunction("room.state === 'joining'");
  // What is published meanwhile waits.
  const published = one.evaluate("room.publish('message', 'later').then(({ ok }) => ok)");
  await startGateway(t, site.url, gateway.at);
  assert.equal(await published, true);
  await isIn(two);
});

/** Waits until something is so; the test's time limit ends it. */
const until = async (holds) => {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 20));
};
