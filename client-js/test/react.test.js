// The provider for React: with StrictMode, concurrent rendering and remounts there is one connection while
// there is a provider, and nothing of it afterwards.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { connect } from "../wsgate.js";
import { test } from "./support/client.js";
import { settle } from "./support/clock.js";
import { React, render } from "./support/dom.js";
import { Heard, hooks, Names, prepare, State, Status } from "./support/react.js";

const { SocketProvider, useConnectionState, useMembers, useRoom, useSocket } = hooks;
const { createElement: h, StrictMode, Suspense } = React;

const strictly = (element) => h(StrictMode, null, element);

describe("SocketProvider", () => {
  test("connects while it is mounted, and leaves neither listener nor timer nor connection", async (t) => {
    const { clock, live, open, made } = prepare(t);
    const view = await open(h(State));
    assert.equal(view.text(), "open");
    assert.equal(live().length, 1);
    await view.unmount();
    assert.deepEqual([live().length, made.length, clock.timers], [0, 1, 0]);
  });

  test("makes one connection in StrictMode, which mounts everything twice", async (t) => {
    const { clock, live, made, open } = prepare(t);
    const children = [State, Status, Names].map((Component, key) => h(Component, { key, room: "a" }));
    const view = await open(children, strictly);
    assert.equal(made.length, 1);
    assert.deepEqual(made[0].types(), ["auth", "join"]);
    await view.act(() => made[0].replies("join"));
    assert.deepEqual(made[0].types(), ["auth", "join", "members"]);
    await view.unmount();
    assert.deepEqual([live().length, clock.timers, made.length], [0, 0, 1]);
  });

  test("makes another connection for another token or address, and ends the one before", async (t) => {
    const { made, live, provide, open } = prepare(t);
    const children = [h(State, { key: 1 }), h(Status, { key: 2, room: "a" })];
    const view = await open(children);
    await view.act(() => made[0].replies("join"));
    assert.equal(view.text(), "opena joined;");
    await view.render(provide(children));
    assert.equal(made.length, 1);
    await view.render(provide(children, { token: "another" }));
    await view.act(settle);
    assert.equal(view.text(), "connectinga joining;");
    assert.deepEqual([made.length, live().length, made[0].closed], [2, 1, 1]);
    await view.act(() => made[1].welcomes());
    assert.equal(made[1].sent[0].token, "another");
    await view.render(provide(children, { token: "another", url: new URL("ws://gateway.test/other") }));
    await view.act(settle);
    assert.deepEqual([made.length, live().length, made[2].url], [3, 1, "ws://gateway.test/other"]);
  });

  test("calls the latest token function, and is not disturbed by a new one in every render", async (t) => {
    const { made, provide, clock } = prepare(t);
    const asked = [];
    const withToken = (name) => {
      const token = () => {
        asked.push(name);
        return name;
      };
      return provide(h(State), { token, backoff: { min: 10, max: 10 } });
    };
    const view = await render(t, withToken("first"));
    await view.act(settle);
    await view.act(() => made[0].welcomes());
    await view.render(withToken("second"));
    assert.equal(made.length, 1);
    await view.act(() => made[0].ends(1006));
    await view.act(() => clock.pass(10));
    assert.deepEqual(asked, ["first", "second"]);
  });

  for (const token of ["t", null, { anonymous: true }, () => "t"]) {
    test(`waits where there is no token yet, until there is one: ${JSON.stringify(token) ?? token}`, async (t) => {
      const { made, provide, live } = prepare(t);
      const view = await render(t, provide(h(State), { token: undefined }));
      await view.act(settle);
      assert.equal(made.length, 0);
      await view.render(provide(h(State), { token }));
      await view.act(settle);
      assert.equal(made.length, 1);
      await view.render(provide(h(State), { token: undefined }));
      await view.act(settle);
      assert.equal(live().length, 0, "nobody is logged in any more");
    });
  }

  test("leaves a socket alone that it was given", async (t) => {
    const { Scripted, made, live } = prepare(t);
    const socket = connect("ws://gateway.test/ws", { token: "t", WebSocket: Scripted });
    t.after(() => socket.close());
    let seen;
    const Sees = () => {
      seen = useSocket();
      return null;
    };
    const view = await render(t, strictly(h(SocketProvider, { socket }, h(Sees), h(Status, { room: "a" }))));
    assert.equal(seen, socket);
    await settle();
    made[0].welcomes();
    await view.unmount();
    assert.deepEqual([made.length, live().length, socket.state], [1, 1, "open"]);
  });

  test("has to be there", async (t) => {
    await assert.rejects(render(t, h(State)), /SocketProvider/);
  });

  test("opens nothing for a tree that is rendered and thrown away", async (t) => {
    const { made, provide, clock } = prepare(t);
    const never = new Promise(() => {});
    const Suspended = () => React.use(never);
    const children = [h(Status, { key: 1, room: "a" }), h(Suspended, { key: 2 })];
    const view = await render(t, h(Suspense, { fallback: "waiting" }, provide(children)));
    await view.act(settle);
    assert.equal(view.text(), "waiting");
    assert.deepEqual([made.length, clock.timers], [0, 0]);
    await view.unmount();
    assert.equal(clock.timers, 0);
  });

  test("survives a remount as fast refresh does it: all state gone, the connection replaced", async (t) => {
    const { made, live, provide, open } = prepare(t);
    const children = h(Status, { room: "a" });
    const view = await open(children);
    for (let version = 1; version <= 3; version++) {
      await view.render(h("div", { key: version }, provide(children)));
      await view.act(settle);
      await view.act(() => made.at(-1).welcomes());
      await view.act(() => made.at(-1).replies("join"));
      assert.equal(view.text(), "a joined;");
      assert.equal(live().length, 1);
    }
  });
});

describe("all hooks", () => {
  test("give the same thing as long as nothing has changed, so that nothing is rendered in vain", async (t) => {
    const { made, provide, open } = prepare(t);
    const counts = { state: 0, room: 0, members: 0 };
    const statuses = [];
    const Counted = ({ name, look }) => {
      counts[name]++;
      look();
      return null;
    };
    const looks = {
      state: () => statuses.push(useConnectionState()),
      room: () => useRoom("a"),
      members: () => useMembers("a"),
    };
    const children = () => Object.entries(looks).map(([name, look]) => h(Counted, { key: name, name, look }));
    const view = await open(children());
    await view.act(() => made[0].replies("join"));
    await view.act(() => made[0].replies("members", { users: 1, connections: 1, members: [{ user: "alice" }] }));
    const before = { ...counts };
    for (const count of Object.values(before)) assert.ok(count < 10, JSON.stringify(before));
    await view.act(() => made[0].says({ type: "event", room: "a", event: "message", data: 1 }));
    assert.deepEqual(counts, before);
    await view.render(provide(children()));
    assert.deepEqual(counts, { state: before.state + 1, room: before.room + 1, members: before.members + 1 });
    assert.equal(statuses.at(-1), statuses.at(-2));
  });

  test("can be rendered on a server, where nothing is connected", async (t) => {
    const { made, provide, clock } = prepare(t);
    const { renderToString } = await import("react-dom/server");
    const page = [State, Status, Names, Heard].map((Component, key) => h(Component, { key, room: "a" }));
    const text = renderToString(provide(page)).replaceAll("<!-- -->", "");
    assert.equal(text, "connectinga joining;unknown;;");
    await settle();
    assert.deepEqual([made.length, clock.timers], [0, 0]);
  });
});

describe("useConnectionState", () => {
  test("shows the state, why it is so, and does not render in vain", async (t) => {
    const { open, made } = prepare(t);
    let renders = 0;
    const Shows = () => {
      renders++;
      const { state, code, reason } = useConnectionState();
      return [state, code, reason].filter(Boolean).join(" ");
    };
    const view = await open(h(Shows));
    assert.equal(view.text(), "open");
    const before = renders;
    await view.act(() => made[0].says({ type: "weather" }));
    assert.equal(renders, before);
    await view.act(() => made[0].says({ type: "closing", code: 4403, reason: "<b>no</b>", retry: "no" }));
    assert.equal(view.text(), "closed 4403 <b>no</b>");
    assert.equal(renders, before + 1);
  });
});
