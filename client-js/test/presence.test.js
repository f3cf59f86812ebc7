// Who is in a room: asked once, and heard of as it changes.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { againstBoth, refusal, start, test, tokenOf, until } from "./support/client.js";
import { settle } from "./support/clock.js";
import { startOpen } from "./support/scripted.js";

/** What a room is heard to have as members, with the names of the latest list. */
const watching = (room) => {
  const seen = [];
  const undo = room.onMembers((members) => seen.push(members));
  const names = () => seen.at(-1)?.members?.map(({ user }) => user).sort().join();
  return { seen, undo, names };
};

const reaches = (watched, names) => until(() => watched.names() === names, `the members ${names}`);

againstBoth("members", (startGateway) => {
  test("are those who are in the room, each user once", async (t) => {
    const gateway = await startGateway(t);
    const enter = (user) => start(t, gateway.url, tokenOf(user)).socket.join("a");
    const [alice, tab, bob] = ["alice", "alice", "bob"].map(enter);
    await Promise.all([alice.ready, tab.ready, bob.ready]);
    const { users, connections, members } = await alice.members();
    assert.deepEqual({ users, connections }, { users: 2, connections: 3 });
    assert.deepEqual(members, [{ user: "alice", connections: 2 }, { user: "bob", connections: 1 }]);
  });

  test("that may not be seen are an error, to whoever asks and to whoever watches", async (t) => {
    const gateway = await startGateway(t);
    const { socket } = start(t, gateway.url, tokenOf("alice", { grants: { a: ["join"] } }));
    const room = socket.join("a");
    const { seen } = watching(room);
    await assert.rejects(room.members(), refusal("forbidden", { field: "room" }));
    const { error } = await until(() => seen.find((it) => it.error));
    assert.equal(error.code, "forbidden");
    assert.equal(seen.at(-1).members, undefined);
  });

  test("without presence are as they were when the room was joined", async (t) => {
    const gateway = await startGateway(t);
    const bob = start(t, gateway.url, tokenOf("bob")).socket.join("a");
    await bob.ready;
    const alice = start(t, gateway.url, tokenOf("alice")).socket.join("a");
    const watched = watching(alice);
    await reaches(watched, "alice,bob");
    assert.equal(watched.seen.at(-1).users, 2);
  });
});

againstBoth("presence", (startGateway) => {
  const OPTIONS = { presence: true, presenceDelay: 100 };

  test("tells who comes and who goes", async (t) => {
    const gateway = await startGateway(t, OPTIONS);
    const alice = start(t, gateway.url, tokenOf("alice")).socket.join("a");
    const watched = watching(alice);
    await reaches(watched, "alice");
    const bob = start(t, gateway.url, tokenOf("bob")).socket;
    const his = bob.join("a");
    await reaches(watched, "alice,bob");
    his.leave();
    await reaches(watched, "alice");
    start(t, gateway.url, tokenOf("carol")).socket.join("a");
    await reaches(watched, "alice,carol");
    assert.equal(watched.seen.at(-1).users, 2);
    watched.undo();
    const before = watched.seen.length;
    const other = watching(alice);
    bob.join("a");
    await reaches(other, "alice,bob,carol");
    assert.equal(watched.seen.length, before);
  });

  test("knows all who come at the same time", async (t) => {
    const gateway = await startGateway(t, { ...OPTIONS, presenceDelay: 300 });
    // One after the other, but before any of them is announced.
    const watched = [];
    for (const user of ["alice", "bob", "carol", "dave"]) {
      const room = start(t, gateway.url, tokenOf(user)).socket.join("a");
      watched.push(watching(room));
      await room.ready;
    }
    const everybody = "alice,bob,carol,dave";
    await Promise.all(watched.map((it) => reaches(it, everybody)));
    const eve = start(t, gateway.url, tokenOf("eve")).socket.join("a");
    await Promise.all(watched.map((it) => reaches(it, `${everybody},eve`)));
    eve.leave();
    await Promise.all(watched.map((it) => reaches(it, everybody)));
    for (const { seen } of watched) assert.equal(seen.at(-1).users, 4);
  });

  test("is asked for again after a crash", async (t) => {
    const gateway = await startGateway(t, OPTIONS);
    const [alice, bob] = ["alice", "bob"].map((user) => start(t, gateway.url, () => tokenOf(user)).socket);
    const watched = watching(alice.join("a"));
    bob.join("a");
    await reaches(watched, "alice,bob");
    await gateway.kill();
    bob.close();
    await gateway.restart();
    await reaches(watched, "alice");
  });
});

describe("onMembers", () => {
  const presence = (ws, fields) => ws.says({ type: "presence", room: "a", ...fields });
  const users = (...names) => names.map((user) => ({ user }));

  /** A client in a room whose members are known. */
  const startWatching = async (t, names = ["alice", "bob"], options) => {
    const client = await startOpen(t, options);
    const room = client.socket.join("a");
    const watched = watching(room);
    client.ws.replies("join");
    await settle();
    client.ws.replies("members", { users: names.length, connections: names.length, members: users(...names) });
    await settle();
    return { ...client, room, watched };
  };

  test("asks for the list once the room is joined, and not before", async (t) => {
    const { ws, socket } = await startOpen(t);
    const room = socket.join("a");
    const { seen, names } = watching(room);
    assert.deepEqual(ws.types(), ["auth", "join"]);
    assert.ok(seen.every((it) => it.members === undefined && it.error === undefined));
    ws.replies("join");
    await settle();
    assert.deepEqual(ws.types(), ["auth", "join", "members"]);
    ws.replies("members", { users: 1, connections: 1, members: users("alice") });
    await settle();
    assert.equal(names(), "alice");
  });

  test("asks nothing where nobody has ever watched, after a reconnect neither", async (t) => {
    const { socket, ws, clock, made } = await startOpen(t, { backoff: { min: 10, max: 10 } });
    const room = socket.join("a");
    ws.replies("join");
    presence(ws, { joined: users("bob"), users: 2 });
    ws.ends(1006);
    await clock.pass(10);
    made[1].welcomes();
    made[1].replies("join");
    await settle();
    assert.deepEqual(made[1].types(), ["auth", "join"]);
    assert.equal(room.status.state, "joined");
  });

  test("takes `joined` in and `left` out, and what it knows already changes nothing", async (t) => {
    const { ws, watched } = await startWatching(t);
    presence(ws, { joined: users("carol"), users: 3 });
    assert.equal(watched.names(), "alice,bob,carol");
    presence(ws, { joined: users("carol"), users: 3 });
    assert.equal(watched.names(), "alice,bob,carol");
    presence(ws, { left: ["nobody", "bob"], users: 2 });
    assert.equal(watched.names(), "alice,carol");
    presence(ws, { joined: [{ user: "alice", data: { busy: true } }], left: ["carol"], users: 1 });
    assert.deepEqual(watched.seen.at(-1).members, [{ user: "alice", data: { busy: true } }]);
    assert.equal(watched.seen.at(-1).users, 1);
  });

  test("keeps its list though fewer or more have been announced than it knows", async (t) => {
    const { ws, watched } = await startWatching(t, ["alice", "bob", "carol"]);
    // The list was ahead of the announcements: of three, two have been announced.
    presence(ws, { joined: users("bob"), users: 2 });
    assert.equal(watched.names(), "alice,bob,carol");
    presence(ws, { joined: users("carol"), users: 3 });
    assert.equal(watched.names(), "alice,bob,carol");
    // Whoever left before the list was made is announced as gone later.
    presence(ws, { joined: users("dave"), users: 5 });
    assert.equal(watched.names(), "alice,bob,carol,dave");
    presence(ws, { left: ["eve"], users: 4 });
    assert.equal(watched.names(), "alice,bob,carol,dave");
  });

  test("takes `members` in the place of all", async (t) => {
    const { ws, watched } = await startWatching(t);
    presence(ws, { users: 200 }); // Too many to say who.
    assert.deepEqual([watched.seen.at(-1).members, watched.seen.at(-1).users], [undefined, 200]);
    presence(ws, { members: users("carol", "dave"), users: 2 });
    assert.equal(watched.names(), "carol,dave");
    presence(ws, { joined: users("eve"), users: 3 }); // The rest of a long list.
    assert.equal(watched.names(), "carol,dave,eve");
  });

  test("does not change what it has given", async (t) => {
    const { ws, watched } = await startWatching(t);
    const copies = [];
    const changes = [{ joined: users("carol"), users: 3 }, { left: ["bob"], users: 2 }, { members: [], users: 0 }];
    for (const fields of changes) {
      copies.push(structuredClone(watched.seen.at(-1).members));
      presence(ws, fields);
    }
    assert.deepEqual(watched.seen.slice(-4, -1).map(({ members }) => members), copies);
  });

  test("tells a second watcher at once what is known", async (t) => {
    const { socket, room, watched } = await startWatching(t);
    const [same, other] = [watching(room), watching(socket.join("a"))];
    for (const { names } of [same, other]) assert.equal(names(), "alice,bob");
    assert.equal(watched.names(), "alice,bob");
  });

  test("asks again after a reconnect, and shows the old list until then", async (t) => {
    const { ws, watched, clock, made } = await startWatching(t, undefined, { backoff: { min: 10, max: 10 } });
    ws.ends(1006);
    await clock.pass(10);
    assert.equal(watched.names(), "alice,bob");
    made[1].welcomes();
    made[1].replies("join");
    await settle();
    made[1].replies("members", { users: 1, connections: 1, members: users("bob") });
    await settle();
    assert.equal(watched.names(), "bob");
  });

  test("is not fooled by a list that comes with the announcement after it", async (t) => {
    const { ws, socket } = await startOpen(t);
    const { names } = watching(socket.join("a"));
    ws.replies("join");
    await settle();
    // Several messages of one TCP segment come without a pause for promises in Node.
    ws.replies("members", { users: 1, connections: 1, members: users("alice") });
    presence(ws, { joined: users("bob"), users: 2 });
    await settle();
    assert.equal(names(), "alice,bob");
  });

  test("says nothing more to whoever has left", async (t) => {
    const { ws, room, watched } = await startWatching(t);
    room.leave();
    const before = watched.seen.length;
    presence(ws, { joined: users("carol"), users: 3 });
    await settle();
    assert.equal(watched.seen.length, before);
  });
});
