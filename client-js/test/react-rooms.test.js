// The hooks for React that are about rooms: one membership while somebody is in a room, events for the
// latest function, and lists of members.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { test } from "./support/client.js";
import { React } from "./support/dom.js";
import { Heard, hooks, Names, prepare, Status } from "./support/react.js";

const { useMembers, useRoom } = hooks;
const { createElement: h, StrictMode, Suspense, startTransition, useState } = React;

const strictly = (element) => h(StrictMode, null, element);
const event = (fields) => ({ type: "event", event: "message", ...fields });

describe("useRoom", () => {
  test("is in a room while mounted, and in another one if the name changes", async (t) => {
    const { made, moves, provide, open } = prepare(t);
    const view = await open(h(Status, { room: "a" }));
    assert.equal(view.text(), "a joining;");
    await view.act(() => made[0].replies("join"));
    assert.equal(view.text(), "a joined;");
    await view.render(provide(h(Status, { room: "b" })));
    assert.equal(view.text(), "b joining;");
    assert.deepEqual(moves(), ["join a", "join b", "leave a"]);
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

  test("loses nothing that is published in an effect, in StrictMode neither", async (t) => {
    const { made, open } = prepare(t);
    const rejected = [];
    const Publishes = () => {
      const { publish } = useRoom("a");
      React.useEffect(() => {
        publish("message", 1).catch((error) => rejected.push(error));
      }, [publish]);
      return null;
    };
    const view = await open(h(Publishes), strictly);
    await view.act(() => made[0].replies("join"));
    assert.equal(made[0].all("publish").length, 2, "StrictMode runs effects twice");
    assert.deepEqual(rejected, []);
  });

  test("without a name is in no room", async (t) => {
    const { made, provide, open } = prepare(t);
    const view = await open([h(Status, { key: 1, room: undefined }), h(Names, { key: 2 })]);
    assert.deepEqual(made[0].types(), ["auth"]);
    await view.render(provide([h(Status, { key: 1, room: "a" }), h(Names, { key: 2 })]));
    assert.deepEqual(made[0].types(), ["auth", "join"]);
  });

  test("of a transition that is given up joins nothing", async (t) => {
    const { made, moves, open } = prepare(t);
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
    assert.deepEqual(moves(), ["join a", "join c", "leave a"]);
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
    const [a, b] = ["a", { name: "b" }].map((room, key) => h(Heard, { key, room, as: room.name ?? room }));
    const view = await open([a, b]);
    const answer = ({ id, room }) => made[0].says({ type: "reply", id, ok: true, room });
    await view.act(() => made[0].all("join").forEach(answer));
    await view.act(() => made[0].says(event({ room: "a", data: 1 })));
    await view.act(() => made[0].says(event({ room: "b", data: 2 })));
    await view.act(() => made[0].says(event({ data: 3 })));
    assert.equal(view.text(), "a1;b2;");
    await view.render(provide([a]));
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
    const list = { users: 2, connections: 2, members: users("alice", "bob") };
    for (const { id } of made[0].all("members")) {
      await view.act(() => made[0].says({ type: "reply", id, ok: true, room: "a", ...list }));
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
    const shown = [];
    const Shows = ({ room }) => shown.push(`${room} ${useMembers(room).members?.length ?? "unknown"}`) && null;
    await view.render(provide(h(Shows, { room: "a" })));
    await view.render(provide(h(Shows, { room: "b" })));
    assert.deepEqual([...new Set(shown)], ["a unknown", "a 1", "b unknown"]);
  });
});
