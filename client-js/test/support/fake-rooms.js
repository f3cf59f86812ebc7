// What the fake gateway does with requests: rooms, events, members and presence, as protocol.md has
// them. Nothing here knows of sockets: a connection is whatever has `say`, `claims` and `rooms`.

import { randomBytes } from "node:crypto";

import { allows } from "./tokens.js";

const MAX_DEPTH = 64;
const TEMPORARY = ["room_full", "too_fast", "backend_unavailable", "backend_timeout"];

export const refusal = (code, message, more) =>
  Object.assign(new Error(message), { code, temporary: TEMPORARY.includes(code), ...more });

export const personal = (user) => `user:${user}`;

const depth = (value) => {
  let deepest = 0;
  for (let [level, values] = [0, [value]]; values.length; level++) {
    values = values.filter((it) => it && typeof it === "object").flatMap((it) => Object.values(it));
    deepest = level + 1;
  }
  return deepest;
};

const checkName = (name, field) => {
  if (typeof name !== "string") throw refusal("invalid_field", `\`${field}\` must be a string`, { field });
  if (!name) throw refusal("invalid_field", `\`${field}\` must not be empty`, { field });
  return name;
};

/** The rooms of one gateway. `options` are those of `startFake`. */
export const createRooms = ({ presence = false, presenceDelay = 100, maxMembers = Infinity, call }) => {
  const connections = new Set();
  /** Who waits for an answer, by `reply_to`. */
  const asked = new Map();
  const inRoom = (room) => [...connections].filter((it) => it.rooms.has(room));
  const ofUser = (user) => inRoom(personal(user));

  const members = (room) => {
    const counts = new Map();
    for (const { claims } of inRoom(room)) counts.set(claims.sub, (counts.get(claims.sub) ?? 0) + 1);
    return [...counts].sort().map(([user, connections]) => ({ user, connections }));
  };

  /** Whom the members of each room have been told of. */
  const told = new Map();

  /** Tells the members of a room of one user who has come or gone, unless that is no news. */
  const announce = (room, user) => {
    if (!told.has(room)) told.set(room, new Set());
    const known = told.get(room);
    const here = members(room).some((it) => it.user === user);
    if (here === known.has(user)) return;
    if (here) known.add(user);
    else known.delete(user);
    const news = here ? { joined: [{ user }] } : { left: [user] };
    // `users` is how many that makes, of those who have been announced.
    for (const it of inRoom(room)) it.say({ type: "presence", room, ...news, users: known.size });
  };

  const watch = (connection, room, delay) => {
    const { sub: user } = connection.claims;
    if (presence && !room.startsWith("user:")) setTimeout(announce, delay, room, user).unref?.();
  };

  const enter = (connection, room) => {
    if (connection.rooms.has(room)) return;
    if (inRoom(room).length >= maxMembers) {
      throw refusal("room_full", `the room is full: its limit is ${maxMembers}`, { field: "room" });
    }
    connection.rooms.add(room);
    watch(connection, room, Math.min(200, presenceDelay));
  };

  const exit = (connection, room) => {
    connection.rooms.delete(room);
    watch(connection, room, presenceDelay);
  };

  const resolve = ({ room, rooms = [], user, users = [], all }) => {
    const names = [room, ...rooms, ...[user, ...users].filter(Boolean).map(personal)].filter(Boolean);
    return { names: names.sort(), all };
  };

  /** Sends an event to whom `to` names, one copy each, and counts them. */
  const spread = (to, event, { except = () => false, self } = {}) => {
    const { names, all } = resolve(to);
    let reached = 0;
    for (const it of [...connections]) {
      const room = names.find((name) => it.rooms.has(name));
      if (except(it) || !(room || all || it === self)) continue;
      it.say({ type: "event", ...(room && { room }), ...event });
      reached++;
    }
    return reached;
  };

  const checkTargets = (connection, to) => {
    to.rooms?.forEach((name, index) => checkName(name, `to.rooms[${index}]`));
    const forbidden = (field, message) => refusal("forbidden", message, { field });
    const { grants, sub } = connection.claims;
    if (to.all && !allows(grants, "*", "publish")) throw forbidden("to.all", "publishing to all needs a grant");
    for (const name of resolve(to).names) {
      const outside = !name.startsWith("user:") && !connection.rooms.has(name);
      if (outside) throw refusal("not_joined", `this connection is not in ${name}`, { field: "to" });
      if (allows(grants, name, "publish")) continue;
      throw forbidden("to", `the token of ${sub} has no grant to publish in ${name}`);
    }
  };

  const requests = {
    join(connection, { room }) {
      checkName(room, "room");
      if (connection.rooms.has(room)) return { room };
      const { grants, sub } = connection.claims;
      if (!allows(grants, room, "join") || room.startsWith("user:")) {
        throw refusal("forbidden", `the token of ${sub} has no grant to join ${room}`, { field: "room" });
      }
      enter(connection, room);
      return { room };
    },
    leave(connection, { room }) {
      const there = connection.rooms.has(room);
      if (!there) throw refusal("not_joined", `this connection is not in ${room}`, { field: "room" });
      exit(connection, room);
      return { room };
    },
    publish(connection, { to, event, data = null, echo = true, echo_scope }) {
      checkName(event, "event");
      checkTargets(connection, to);
      const { sub } = connection.claims;
      const own = (it) => it === connection || (echo_scope === "user" && it.claims.sub === sub);
      spread(to, { event, from: sub, data }, { except: (it) => !echo && own(it), self: to.self && connection });
    },
    members(connection, { room }) {
      const { grants, sub } = connection.claims;
      if (!allows(grants, room, "members")) {
        const message = `the token of ${sub} has no grant to list the members of ${room}`;
        throw refusal("forbidden", message, { field: "room" });
      }
      const list = members(room);
      return { room, users: list.length, connections: inRoom(room).length, members: list };
    },
    async call(connection, { event, data = null }) {
      if (!call) throw refusal("not_configured", "the gateway has no backend to call");
      return { data: (await call({ event, data, user: connection.claims.sub })) ?? null };
    },
    answer(connection, { reply_to, data = null }) {
      const waits = asked.get(reply_to)?.get(connection);
      if (!waits) throw refusal("not_asked", "nobody waits for this answer", { field: "reply_to" });
      asked.get(reply_to).delete(connection);
      waits({ user: connection.claims.sub, connection: connection.id, data });
    },
    ping() {},
  };

  /** Does a request. Gives the fields of its reply, or a promise of them; throws a refusal. */
  const handle = (connection, request) => {
    if (depth(request) > MAX_DEPTH) throw refusal("too_deep", `nested deeper than ${MAX_DEPTH} levels`);
    const act = Object.hasOwn(requests, request.type) && requests[request.type];
    if (!act) throw refusal("unknown_type", "there is no such `type`", { field: "type" });
    return act(connection, request);
  };

  const backend = {
    publish: async ({ to, except, event, data = null }) => {
      const { names } = resolve(except ?? {});
      return { reached: spread(to, { event, data }, { except: (it) => names.some((name) => it.rooms.has(name)) }) };
    },
    join: async (user, room) => {
      for (const it of ofUser(user)) {
        enter(it, room);
        it.say({ type: "joined", room });
      }
    },
    leave: async (user, room) => {
      for (const it of ofUser(user)) {
        if (!it.rooms.has(room)) continue;
        exit(it, room);
        it.say({ type: "left", room });
      }
    },
    disconnect: async (user) => ofUser(user).forEach((it) => it.end(4403, "disconnected by the backend")),
    roomsOf: async (user) => ofUser(user).map((it) => [...it.rooms]),
    request: async ({ to: { user }, event, data = null }) => {
      const reply_to = randomBytes(8).toString("hex");
      const waits = new Map();
      asked.set(reply_to, waits);
      const replies = ofUser(user).map((it) => new Promise((resolve) => waits.set(it, resolve)));
      for (const it of ofUser(user)) it.say({ type: "event", event, data, reply_to });
      return { replies: await Promise.all(replies), missing: [] };
    },
  };

  const forget = (connection) => {
    if (!connections.delete(connection)) return;
    for (const room of connection.rooms) exit(connection, room);
  };

  return { handle, backend, forget, enterFirst: (connection) => connections.add(connection) };
};
