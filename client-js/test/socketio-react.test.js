// The tutorial's hook and component, after the one change that is asked for: where `io` comes from.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";

import { build } from "esbuild";
import { WebSocket } from "ws";

import { test, until } from "./support/client.js";
import { React, render } from "./support/dom.js";
import { startServer } from "./support/tutorial.js";

// Node's own class takes no events of the page that stands in here.
globalThis.WebSocket = WebSocket;

const loadTutorial = async () => {
  const folder = new URL("../node_modules/.tutorial/", import.meta.url);
  mkdirSync(folder, { recursive: true });
  const outfile = new URL("ChatComponent.mjs", folder);
  await build({
    entryPoints: [new URL("fixtures/ChatComponent.jsx", import.meta.url).pathname],
    outfile: outfile.pathname,
    bundle: true,
    format: "esm",
    jsx: "automatic",
    external: ["react", "react/jsx-runtime"],
    alias: { "socket.io-client": new URL("../socketio.js", import.meta.url).pathname },
  });
  return (await import(outfile)).ChatComponent;
};

const ChatComponent = await loadTutorial();
const { createElement: h, StrictMode } = React;

for (const strictly of [false, true]) {
  test(`the tutorial's component shows what is said in its room${strictly ? ", under StrictMode" : ""}`, async (t) => {
    const server = await startServer(t);
    globalThis.SOCKET_URL = server.url;
    const chat = h(ChatComponent, { token: server.tokenOf("alice"), roomId: "chat:general" });
    const view = await render(t, strictly ? h(StrictMode, {}, chat) : chat);
    const shows = (text) => until(async () => (await view.act(() => {}), view.html().includes(text)), text);
    await shows("Connected");
    await until(async () => (await server.roomsOf("alice"))[0]?.includes("chat:general"), "the join");
    assert.equal((await server.roomsOf("alice")).length, 1, "one connection");

    await server.publish({ to: { room: "chat:general" }, event: "message", data: { from: "bob", text: "hello" } });
    await shows("bob: hello");
    await view.act(() => document.querySelector("button").click());
    await shows("alice: hi");
    await shows("sent");
    assert.equal(view.html().split("alice: hi").length, 2, "once");

    await view.unmount();
    await until(async () => (await server.roomsOf("alice")).length === 0, "the connection to go");
  });
}

test("the tutorial's component shows why a token is refused, and why a room", async (t) => {
  const server = await startServer(t);
  globalThis.SOCKET_URL = server.url;
  const view = await render(t, h(ChatComponent, { key: 1, token: "nonsense", roomId: "a" }));
  const shows = (text) => until(async () => (await view.act(() => {}), view.html().includes(text)), text);
  await shows("Error: this is not a JWT");
  assert.ok(view.html().includes("Disconnected"));

  const token = server.tokenOf("bob", { grants: { a: ["join"] } });
  await view.render(h(ChatComponent, { key: 2, token, roomId: "secrets" }));
  await shows("no grant to join secrets");
  await view.render(h(ChatComponent, { key: 2, token, roomId: "a" }));
  await until(async () => (await server.roomsOf("bob"))[0]?.includes("a"), "the room that is allowed");
});

test("the guide shows the hook that is tested here, and bodies that the gateway takes", async (t) => {
  const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");
  const guide = read("../../docs/from-socket-io.md");
  const [hook] = guide.match(/export const useSocket[^]*?\n};\n/);
  assert.ok(read("fixtures/ChatComponent.jsx").includes(hook));

  const server = await startServer(t);
  const bodies = [...guide.matchAll(/`(?:POST \/v1\/publish )?\{?("(?:to|except|ttl)":[^`]*?)\}?`/g)].map(([, body]) => body);
  assert.equal(bodies.length, 6, `${bodies.join("\n")}`);
  for (const body of bodies) {
    const closed = body.split("{").length > body.split("}").length ? `${body}}` : body;
    await server.publish({ to: { user: "nobody" }, event: "e", ...JSON.parse(`{${closed}}`) });
  }
  const [, request] = guide.match(/`POST \/v1\/request (\{[^`]*)`/);
  assert.deepEqual(await server.request(JSON.parse(request)), { replies: [], missing: [] });
});
