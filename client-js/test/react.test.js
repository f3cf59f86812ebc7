// The hooks for React: with StrictMode, concurrent rendering and remounts there is one connection while
// there is a provider, one membership while somebody is in a room, and nothing of either afterwards.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { connect } from "../wsgate.js";
import { test } from "./support/client.js";
import { settle, virtualTime } from "./support/clock.js";
import { React, render } from "./support/dom.js";
import { scripted } from "./support/scripted.js";

const { SocketProvider, useConnectionState, useEvent, useMembers, useRoom, useSocket } = await import("../react.js");
const { createElement: h, StrictMode, Suspense, startTransition, useState } = React;

/** A provider's surroundings: a scripted WebSocket, and time that stands still. */
const prepare = (t) => {
  const clock = virtualTime(t);
  const { made, Scripted } = scripted();
  const provide = (children, props) =>
    h(SocketProvider, { url: "ws://gateway.test/ws", token: "t", WebSocket: Scripted, ...props }, children);
  /** Shows an element with a provider around, and a connection that is open. */
  const open = async (children, wrap = (element) => element) => {
    const view = await render(t, wrap(provide(children)));
    await view.act(settle);
    await view.act(() => made.at(-1).welcomes());
    return view;
  };
  /** The WebSockets that are open or being opened. */
  const live = () => made.filter(({ readyState }) => readyState < 2);
  return { clock, made, Scripted, provide, open, live, get ws() { return made.at(-1); } };
};

const event = (fields) => ({ type: "event", event: "message", ...fields });
const strictly = (element) => h(StrictMode, null, element);

const State = () => useConnectionState().state;
const Status = ({ room }) => {
  const { state, name } = useRoom(room);
  return `${name} ${state};`;
};
const Names = ({ room }) => {
  const { members, users, error } = useMembers(room);
  return `${members?.map(({ user }) => user).join() ?? users ?? error?.code ?? "unknown"};`;
};
/** Shows what it has heard. */
const Heard = ({ room, as = "" }) => {
  const [heard, setHeard] = useState([]);
  const hear = (data) => setHeard([...heard, `${as}${data}`]);
  if (room) useEvent(room, "message", hear);
  else useEvent("message", hear);
  return `${heard.join()};`;
};

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
    const { clock, live, made, open, ws } = prepare(t);
    const view = await open([h(State, { key: 1 }), h(Status, { key: 2, room: "a" }), h(Names, { key: 3, room: "a" })], strictly);
    assert.equal(made.length, 1);
    assert.deepEqual(made[0].types(), ["auth", "join"]);
    await view.act(() => made[0].replies("join"));
    assert.deepEqual(made[0].types(), ["auth", "join", "members"]);
    await view.unmount();
    assert.deepEqual([live().length, clock.timers, ws], [0, 0, undefined]);
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
    const withToken = (name) => provide(h(State), { token: () => (asked.push(name), name), backoff: { min: 10, max: 10 } });
    const view = await render(t, withToken("first"));
    await view.act(settle);
    await view.act(() => made[0].welcomes());
    await view.render(withToken("second"));
    assert.equal(made.length, 1);
    await view.act(() => made[0].ends(1006));
    await view.act(() => clock.pass(10));
    assert.deepEqual(asked, ["first", "second"]);
  });

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
    const waits = h(Suspense, { fallback: "waiting" }, provide([h(Status, { key: 1, room: "a" }), h(Suspended, { key: 2 })]));
    const view = await render(t, waits);
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
    const given = [];
    const State = () => (counts.state++, given.push(useConnectionState()), null);
    const Room = () => (counts.room++, useRoom("a"), null);
    const Members = () => (counts.members++, useMembers("a"), null);
    const children = () => [State, Room, Members].map((Component, key) => h(Component, { key }));
    const view = await open(children());
    await view.act(() => made[0].replies("join"));
    await view.act(() => made[0].replies("members", { users: 1, connections: 1, members: [{ user: "alice" }] }));
    const before = { ...counts };
    for (const count of Object.values(before)) assert.ok(count < 10, JSON.stringify(before));
    await view.act(() => made[0].says({ type: "event", room: "a", event: "message", data: 1 }));
    assert.deepEqual(counts, before);
    await view.render(provide(children()));
    assert.deepEqual(counts, { state: before.state + 1, room: before.room + 1, members: before.members + 1 });
    assert.equal(given.at(-1), given.at(-2));
  });

  test("can be rendered on a server, where nothing is connected", async (t) => {
    const { made, provide, clock } = prepare(t);
    const { renderToString } = await import("react-dom/server");
    const page = [h(State, { key: 1 }), h(Status, { key: 2, room: "a" }), h(Names, { key: 3, room: "a" }), h(Heard, { key: 4 })];
    const text = renderToString(provide(page)).replaceAll("<!-- -->", "");
    assert.equal(text, "closeda joining;unknown;;");
    await settle();
    assert.deepEqual([made.length, clock.timers], [0, 0]);
  });
});

describe("useConnectionState", () => {
  test("shows the state, why it is so, and does not render in vain", async (t) => {
    const { ws, open, made } = prepare(t);
    let renders = 0;
    const Shows = () => {
      renders++;
      const { state, code, reason } = useConnectionState();
      return [state, code, reason].filter(Boolean).join(" ");
    };
    const view = await open(h(Shows));
    assert.equal(ws, undefined);
    assert.equal(view.text(), "open");
    const before = renders;
    await view.act(() => made[0].says({ type: "weather" }));
    assert.equal(renders, before);
    await view.act(() => made[0].says({ type: "closing", code: 4403, reason: "<b>no</b>", retry: "no" }));
    assert.equal(view.text(), "closed 4403 <b>no</b>");
    assert.equal(renders, before + 1);
  });
});

describe("useRoom", () => {
  test("is in a room while mounted, and in another one if the name changes", async (t) => {
    const { made, provide, open } = prepare(t);
    const view = await open(h(Status, { room: "a" }));
    assert.equal(view.text(), "a joining;");
    await view.act(() => made[0].replies("join"));
    assert.equal(view.text(), "a joined;");
    await view.render(provide(h(Status, { room: "b" })));
    assert.equal(view.text(), "b joining;");
    assert.deepEqual(made[0].sent.slice(1).map(({ type, room }) => `${type} ${room}`).sort(), ["join a", "join b", "leave a"]);
    await view.act(() => made[0].refuses("join", "forbidden"));
    assert.equal(view.text(), "b refused;");
    await view.render(provide(null));
    assert.deepEqual(made[0].all("leave").map(({ room }) => room), ["a"]);
  });

  test("of two components is one membership, which the last one ends", async (t) => {
    const { made, provide, open } = prepare(t);
    const two = ["x", "y"].map((key) => h(Status, { key, room: "a" }));
    const view = await open(two);
    await view.act(() => made[0].replies("join"));
    assert.equal(view.text(), "a joined;a joined;");
    await view.render(provide(two.slice(1)));
    assert.deepEqual(made[0].types(), ["auth", "join"]);
    await view.render(provide([]));
    assert.deepEqual(made[0].types(), ["auth", "join", "leave"]);
  });

  test("moves from one component to another without leaving", async (t) => {
    const { made, provide, open } = prepare(t);
    const view = await open(h(Status, { key: "x", room: "a" }));
    await view.act(() => made[0].replies("join"));
    await view.render(provide(h(Status, { key: "y", room: "a" })));
    assert.equal(view.text(), "a joined;");
    assert.deepEqual(made[0].types(), ["auth", "join"]);
  });

  test("publishes by a function that stays the same, before the room is joined too", async (t) => {
    const { made, provide, open } = prepare(t);
    const functions = new Set();
    const Publishes = () => {
      const { publish } = useRoom("a");
      functions.add(publish);
      React.useEffect(() => {
        publish("message", functions.size, { echo: false }).catch(() => {});
      }, [publish]);
      return null;
    };
    const view = await open(h(Publishes));
    assert.deepEqual(made[0].types(), ["auth", "join"]);
    await view.act(() => made[0].replies("join"));
    assert.deepEqual(made[0].types(), ["auth", "join", "publish"]);
    await view.render(provide(h(Publishes)));
    assert.equal(functions.size, 1);
  });

  test("without a name is in no room", async (t) => {
    const { made, provide, open } = prepare(t);
    const view = await open([h(Status, { key: 1, room: undefined }), h(Names, { key: 2 })]);
    assert.deepEqual(made[0].types(), ["auth"]);
    await view.render(provide([h(Status, { key: 1, room: "a" }), h(Names, { key: 2 })]));
    assert.deepEqual(made[0].types(), ["auth", "join"]);
  });

  test("of a transition that is given up joins nothing", async (t) => {
    const { made, open } = prepare(t);
    const never = new Promise(() => {});
    let go;
    const Suspended = () => React.use(never);
    const Page = () => {
      const [room, setRoom] = useState("a");
      go = setRoom;
      return [h(Status, { key: 1, room }), room === "b" && h(Suspended, { key: 2 })];
    };
    const view = await open(h(Suspense, { fallback: "waiting" }, h(Page)));
    await view.act(() => made[0].replies("join"));
    await view.act(() => startTransition(() => go("b")));
    assert.equal(view.text(), "a joined;");
    await view.act(() => startTransition(() => go("c")));
    assert.equal(view.text(), "c joining;");
    assert.deepEqual(made[0].sent.slice(1).map(({ type, room }) => `${type} ${room}`).sort(), ["join a", "join c", "leave a"]);
  });
});

describe("useEvent", () => {
  test("always calls the latest function, and listens once", async (t) => {
    const { made, open } = prepare(t);
    const view = await open(h(Heard), strictly);
    for (const data of [1, 2, 3]) await view.act(() => made[0].says(event({ data })));
    assert.equal(view.text(), "1,2,3;");
  });

  test("hears a room's events only, as long as it is in the room", async (t) => {
    const { made, provide, open } = prepare(t);
    const view = await open([h(Heard, { key: 1, room: "a", as: "a" }), h(Heard, { key: 2, room: { name: "b" }, as: "b" })]);
    await view.act(() => made[0].sent.slice(1).forEach(({ id, room }) => made[0].says({ type: "reply", id, ok: true, room })));
    await view.act(() => made[0].says(event({ room: "a", data: 1 })));
    await view.act(() => made[0].says(event({ room: "b", data: 2 })));
    await view.act(() => made[0].says(event({ data: 3 })));
    assert.equal(view.text(), "a1;b2;");
    await view.render(provide([h(Heard, { key: 1, room: "a", as: "a" })]));
    assert.deepEqual(made[0].all("leave").map(({ room }) => room), ["b"]);
    await view.act(() => made[0].says(event({ room: "a", data: 4 })));
    assert.equal(view.text(), "a1,a4;");
  });

  test("shows what comes as text", async (t) => {
    const { made, open } = prepare(t);
    const view = await open(h(Heard));
    await view.act(() => made[0].says(event({ data: "<img src=x onerror=alert(1)>" })));
    assert.equal(view.text(), "<img src=x onerror=alert(1)>;");
    assert.ok(!view.html().includes("<img"));
  });
});

describe("useMembers", () => {
  test("sees who is there, in two components alike, and asks nothing more when they are gone", async (t) => {
    const { made, provide, open } = prepare(t);
    const users = (...names) => names.map((user) => ({ user }));
    const two = ["x", "y"].map((key) => h(Names, { key, room: "a" }));
    const view = await open(two);
    assert.equal(view.text(), "unknown;unknown;");
    await view.act(() => made[0].replies("join"));
    for (const { id } of made[0].all("members")) {
      await view.act(() => made[0].says({ type: "reply", id, ok: true, room: "a", users: 2, connections: 2, members: users("alice", "bob") }));
    }
    assert.equal(view.text(), "alice,bob;alice,bob;");
    await view.act(() => made[0].says({ type: "presence", room: "a", joined: users("carol"), users: 3 }));
    assert.equal(view.text(), "alice,bob,carol;alice,bob,carol;");
    await view.render(provide([h(Status, { key: 0, room: "a" })]));
    assert.equal(view.text(), "a joined;");
    assert.equal(made[0].all("leave").length, 0);
  });

  test("sees why there is no list", async (t) => {
    const { made, open } = prepare(t);
    const view = await open(h(Names, { room: "a" }));
    await view.act(() => made[0].replies("join"));
    await view.act(() => made[0].refuses("members", "forbidden"));
    assert.equal(view.text(), "forbidden;");
  });

  test("forgets one room's members when it sees another room", async (t) => {
    const { made, provide, open } = prepare(t);
    const view = await open(h(Names, { room: "a" }));
    await view.act(() => made[0].replies("join"));
    await view.act(() => made[0].replies("members", { users: 1, connections: 1, members: [{ user: "alice" }] }));
    assert.equal(view.text(), "alice;");
    await view.render(provide(h(Names, { room: "b" })));
    assert.equal(view.text(), "unknown;");
  });
});
