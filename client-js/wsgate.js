// The client of wsgate: rooms, events and reconnection over one WebSocket, without dependencies.
// protocol.md describes the wire; the names of its messages and fields are used as they are.

/** How long one attempt may take, from asking for the token to the welcome. */
const CONNECT_LIMIT_MS = 10_000;
/** How often it is looked whether the connection is silent, and whether this machine was asleep. */
const TICK_MS = 500;
/** In ticks: after so long without a word the gateway is asked whether it is there, and given up. */
const QUIET = 50;
const SILENT = 70;
/** In ticks: how long it has for its answer where there is reason for doubt. */
const PROBE = 4;
/** Whoever was away for so long is gone for the gateway: it has had no pong. */
const ASLEEP_MS = 35_000;
/**
 * Codes of a Close after which coming back unchanged would fail again, where there is no `closing` message, as from
 * a proxy. The four standard ones say that what we sent was wrong.
 */
const FINAL = /^(44|100[2379])/;
/** Why there is no connection, and why one is given up. Words are short here: they weigh the most. */
const AWAY = "no connection";
const LATE = "no answer";
/** How many events may wait for a `for await` loop. */
const MAX_UNREAD = 1_000;

/** For token functions: there is no token to be had. */
export class Unauthorized extends Error {}

export function connect(
  url,
  {
    token,
    WebSocket = globalThis.WebSocket,
    backoff: { min = 5_000, max = 30_000 } = {},
    timeout = 30_000,
    queue: places = 100,
    open = true,
  },
) {
  const { document, location } = globalThis;
  const renewable = typeof token === "function";

  let address;
  let ws;
  /** Changes with every attempt and every end, so that news of an earlier one is recognised. */
  let era = 0;
  /** While connecting it ends the attempt, while waiting it starts the next, while open it renews the token. */
  let timer;
  /** Since the last welcome: how many waits there were, and whether a token was refused. */
  let waits = 0;
  let refused = false;
  /** This machine or its network was away, so that the token may have ended meanwhile. */
  let woken = false;
  /** What ticks, when it last did, and how often since the last word of the gateway. */
  let clock;
  let ticked;
  let quiet = 0;

  let lastId = 0;
  /** The requests that are under way, by id, and those that wait for a connection or a room, in order. */
  const requests = new Map();
  const waiting = new Set();
  /** The rooms that we want to be in, by name and in the order of joining. */
  const rooms = new Map();

  /** Changes the state of the socket or of a room. */
  const show = (place, state, why) => {
    place.state = state;
    place.status = { state, ...why };
    tell(place, "states", place.status);
  };

  // Random from zero on, the first time too: after a failure everybody is on the way back at once. Whoever
  // is back from sleep, or has its network again, comes soon: a sixteenth of the first wait.
  const wait = (times) => Math.random() * Math.min(max, min * 2 ** times);

  // --- One connection after the other ---

  const attempt = async () => {
    const mine = ++era;
    const unlessOver = (act) => (event) => mine === era && act(event);
    // Some WebSockets fail without any event, and a token function may hang.
    timer = setTimeout(lost, CONNECT_LIMIT_MS, { reason: LATE });
    ticked = Date.now();
    show(socket, "connecting");
    try {
      // Whoever closes in the same breath, as React's StrictMode does, has opened nothing.
      await null;
      if (mine !== era) return;
      const proof = await prove(refused || woken);
      if (mine !== era) return;
      ws = new WebSocket(address.href);
      // In a frame, since an address ends up in logs. Where there should be a token, the gateway says so.
      ws.onopen = unlessOver(() => proof === null || send({ type: "auth", ...proof }));
      ws.onmessage = unlessOver(({ data }) => receive(data));
      // Node before 23 has no `close` after an `error`.
      ws.onclose = ws.onerror = unlessOver(lost);
    } catch (error) {
      unlessOver(withoutToken)(error);
    }
  };

  /** The fields of `auth`. */
  const prove = async (fresh) => {
    const proof = renewable ? await token({ fresh }) : token;
    return typeof proof === "string" ? { token: proof } : proof;
  };

  const withoutToken = (error) =>
    lost({ reason: `${error?.message ?? error}`, retry: error instanceof Unauthorized ? "no" : "yes" });

  /**
   * Ends an attempt or a connection, and decides how to go on: by a `closing` message, a Close, or what is
   * known in place of one.
   */
  const lost = ({ code = 1006, reason = AWAY, retry = FINAL.test(code) ? "no" : "yes", retry_after_ms }) => {
    era++;
    quiet = 0;
    clearTimeout(timer);
    ws?.close(1000);
    ws = socket.connection = undefined;

    const fresh = code === 4401;
    const again = fresh ? renewable && !refused : retry !== "no";
    refused ||= fresh;
    if (again) {
      // A refused token needs no wait, since that is tried only once.
      retryIn(retry_after_ms ?? (fresh ? 0 : wait(waits++)), { code, reason });
    } else {
      watch("removeEventListener");
      clock = clearInterval(clock);
      show(socket, "closed", { code, reason });
    }

    for (const asked of requests.values()) asked.reject(failure("disconnected", AWAY));
    for (const room of rooms.values()) {
      if (!again) refuse(room, notSent());
      else if (room.state === "joined") ask(room);
    }
    if (again) return;
    for (const asked of waiting) asked.reject(notSent());
    for (const place of [socket, ...rooms.values()]) tell(place, "events");
  };

  const retryIn = (ms, why) => {
    timer = setTimeout(attempt, ms);
    show(socket, "waiting", { ...why, retryAt: Date.now() + ms });
  };

  // --- What this machine and the page go through ---

  /** There is a network again, or somebody looks at the page: what waits goes on, what is open is doubted. */
  const wake = () => {
    woken = true;
    if (socket.state === "waiting") {
      clearTimeout(timer);
      retryIn(wait(-4), socket.status);
    } else if (socket.state === "open") {
      quiet = SILENT - PROBE;
      ping();
    }
  };

  const tick = () => {
    const away = Date.now() - ticked;
    ticked += away;
    const asleep = away > ASLEEP_MS;
    // Timers of a page that nobody sees come as late without any sleep.
    if (asleep && document?.hidden) return wake();
    woken ||= asleep;
    if (socket.state === "open" && ++quiet === QUIET) ping();
    if (asleep || quiet > SILENT) lost({ reason: LATE, retry_after_ms: woken ? wait(-4) : undefined });
    for (const room of rooms.values()) if (room.status.retryAt < ticked) ask(room);
  };

  const watch = (how) => {
    // A page with an open connection is not kept for the way back.
    for (const name of ["online", "offline", "pageshow", "pagehide", "visibilitychange"]) {
      globalThis[how]?.(name, signalled);
    }
  };

  const signalled = ({ type }) => {
    if (/off|hide/.test(type)) socket.state === "waiting" || lost({ reason: type });
    // A page that is left is hidden, too, and must not come back for that.
    else if (type === "online" || !document?.hidden) wake();
  };

  // --- Requests ---

  const send = (frame) => ws.send(JSON.stringify(frame));
  const ping = () => send({ type: "ping" });

  const failure = (code, message, temporary = socket.state !== "closed") =>
    Object.assign(Error(message), { code, temporary });
  const notSent = () => failure("not_sent", AWAY);

  /** Sends a request, now or as soon as there is a connection and the room is joined. */
  const request = async (type, fields, { timeout: ms = timeout, signal, queue = true, room, done } = {}) => {
    signal?.throwIfAborted();
    const id = ++lastId;
    // As it is now: its sender may change it while it waits.
    const asked = { id, room, done, frame: JSON.stringify({ type, id, ...fields }) };
    const abort = () => asked.reject(signal.reason);
    const late = () => asked.reject(requests.has(id) ? failure("timeout", LATE) : notSent());
    const limit = ms && setTimeout(late, ms);
    signal?.addEventListener("abort", abort);
    try {
      return await new Promise((resolve, reject) => {
        waiting.add(Object.assign(asked, { resolve, reject }));
        flush();
        if (waiting.has(asked) && (socket.state === "closed" || !queue || waiting.size > places)) reject(notSent());
      });
    } finally {
      clearTimeout(limit);
      signal?.removeEventListener("abort", abort);
      requests.delete(id);
      waiting.delete(asked);
    }
  };

  /** Sends what waits, but for what waits for its room. */
  const flush = () => {
    if (socket.state !== "open") return;
    for (const asked of waiting) {
      if (asked.room?.state === "joining") continue;
      waiting.delete(asked);
      requests.set(asked.id, asked);
      ws.send(asked.frame);
    }
  };

  // --- What the gateway says ---

  const receive = (text) => {
    quiet = 0;
    woken = false;
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      // This is not wsgate. No welcome will come, and the time limit says so.
    }
    hears[message?.type]?.(message, rooms.get(message.room), requests.get(message.id));
  };

  /** What to do with each type of message, the room that it names, and the request that it answers. */
  const hears = {
    welcome({ user, connection }) {
      clearTimeout(timer);
      waits = 0;
      refused = false;
      Object.assign(socket, { user, connection, state: "open" });
      // Joins come first, whatever has waited, and whatever listeners do.
      const waited = [...waiting];
      waiting.clear();
      for (const room of rooms.values()) room.removed || ask(room);
      for (const asked of waited) waiting.add(asked);
      flush();
      show(socket, "open");
    },
    event({ event, data, from, reply_to, room: name }, room) {
      const info = { room: name, from };
      if (reply_to) info.answer = (data) => request("answer", { reply_to, data });
      tell(socket, "events", data, info, event);
      if (room) tell(room, "events", data, info, event);
    },
    reply(message, _, asked) {
      // At once, and not when the promise is looked at: the next message may be right behind.
      asked?.done?.(message);
      asked?.resolve(message);
    },
    error: (message, _, asked) => asked?.reject(Object.assign(Error(message.message), message)),
    presence({ members, joined = [], left = [], users }, room) {
      if (!room?.seen) return;
      // In a room that is too large only their number is announced.
      const before = members ?? (joined[0] || left[0] ? room.seen.members : undefined);
      const known = before && new Map(before.map((member) => [member.user, member]));
      for (const user of left) known?.delete(user);
      for (const member of joined) known?.set(member.user, member);
      see(room, { users, members: known && [...known.values()] });
    },
    joined: (message, room) => room && enter(room, message),
    left({ reason, temporary }, room) {
      if (!room) return;
      refuse(room, failure("removed", reason ?? "removed", temporary));
      // A backend wants it so; coming back by itself would go against that.
      room.removed = !reason;
    },
    lost: ({ count }) => show(socket, "open", { lost: count }),
    expiring(message) {
      // Not all at once: many may have come with tokens of the same age.
      if (renewable) timer = setTimeout(renew, Math.random() * message.in * 500);
    },
    // The Close that follows has nothing to add, and may get lost.
    closing: lost,
  };

  const renew = async () => {
    const mine = era;
    try {
      const proof = await prove(true);
      // Refused, the connection lasts until its token ends. It is closed with 4401 then, which asks again.
      if (mine === era) request("auth", proof).catch(() => {});
    } catch (error) {
      if (mine !== era) return;
      if (error instanceof Unauthorized) withoutToken(error);
      else timer = setTimeout(renew, wait(0));
    }
  };

  // --- Rooms ---

  /** Asks to be let into a room: now, or once there is a connection. */
  const ask = (room) => {
    pend(room);
    room.removed = false;
    show(room, "joining");
    if (socket.state === "closed") refuse(room, notSent());
    if (socket.state !== "open") return;
    request("join", { room: room.name }, { done: (reply) => enter(room, reply) }).catch(
      // What a lost connection cut off is asked again on the next, and settles then.
      (error) => error.code === "disconnected" || refuse(room, error),
    );
  };

  /** Lets `ready` be a promise that is not settled yet. */
  const pend = (room) => {
    if (room.state === "joining") return;
    room.ready = new Promise((resolve, reject) => Object.assign(room, { resolve, reject }));
    // Nobody has to look at it.
    room.ready.catch(() => {});
  };

  /** A room is not to be had. */
  const refuse = (room, error) => {
    pend(room);
    room.reject(error);
    const { code, message: reason, temporary } = error;
    show(room, "refused", { code, reason, temporary, retryAt: temporary ? Date.now() + wait(room.tries++) : undefined });
    flush();
  };

  const enter = (room, reply) => {
    pend(room);
    room.resolve(reply);
    room.tries = 0;
    show(room, "joined");
    list(room);
    flush();
  };

  const leave = (room) => {
    const { name } = room;
    if (room.ears.size || rooms.get(name) !== room) return;
    rooms.delete(name);
    // Where we were not let in there is nothing to leave; without a connection, neither.
    const inside = socket.state === "open" && room.state !== "refused";
    refuse(room, failure("left", "left"));
    if (inside) request("leave", { room: name }).catch(() => {});
  };

  // --- Who is in a room ---

  /** Asks for the list of members, if anybody has wanted it. */
  const list = (room) => {
    if (!room.seen || room.state !== "joined") return;
    members(room, { done: (reply) => see(room, reply) }).catch((error) => see(room, { error }));
  };

  const members = (room, options) => request("members", { room: room.name }, { ...options, room });

  const see = (room, seen) => {
    room.seen = seen;
    tell(room, "members", seen);
  };

  // --- What the application asks for ---

  /** The events from now on, of one name or all, for `for await`. */
  const unread = (ears, wanted) => {
    const events = [];
    let over;
    let wake;
    const undo = listen(ears, "events", (data, info, event) => {
      if (!event) over = true;
      else if ((!wanted || event === wanted) && events.length <= MAX_UNREAD) events.push({ event, data, ...info });
      wake?.();
    });
    return (async function* () {
      try {
        while (events.length || !over) {
          if (events.length > MAX_UNREAD) throw failure("too_slow", "too_slow");
          if (events.length) yield events.shift();
          else await new Promise((resolve) => (wake = resolve));
        }
      } finally {
        undo();
      }
    })();
  };

  const listening = (ears) => {
    const on = (wanted, hear) =>
      listen(ears, "events", (data, info, event) => event === wanted && hear(data, info));
    const once = (event, hear) => {
      const undo = on(event, (data, info) => {
        undo();
        hear(data, info);
      });
      return undo;
    };
    return { on, once, events: (event) => unread(ears, event), onState: (hear) => listen(ears, "states", hear) };
  };

  const publish = (to, event, data, { echo, echo_scope, ...options } = {}) =>
    request("publish", { to, event, data, echo, echo_scope }, options);

  const join = (name) => {
    const room = rooms.get(name) ?? { name, ears: new Set(), tries: 0 };
    rooms.set(name, room);
    const ears = {};
    room.ears.add(ears);
    if (!/^jo/.test(room.state)) ask(room);
    // Whoever joins has what there is of the room, and listeners of their own.
    const handle = {
      __proto__: room,
      ...listening(ears),
      ears: [ears],
      publish: (event, data, options) => publish({ room: name }, event, data, { ...options, room }),
      members: (options) => members(room, options),
      onMembers(hear) {
        room.seen ??= {};
        hear(room.seen);
        list(room);
        return listen(ears, "members", hear);
      },
      leave() {
        room.ears.delete(ears);
        tell(handle, "events");
        show(handle, "left");
        // Whoever joins again in the same breath has never left.
        queueMicrotask(() => leave(room));
      },
    };
    return handle;
  };

  const ears = {};
  const socket = {
    ...listening(ears),
    ears: [ears],
    join,
    publish,
    call: async (event, data, options) => (await request("call", { event, data }, options)).data,
    open() {
      if (clock) return;
      // What can never work fails here, and not on every attempt.
      if (!WebSocket) throw Error("no WebSocket");
      address = new URL(url, location);
      address.protocol = address.protocol.replace("http", "ws");
      waits = 0;
      refused = false;
      clock = setInterval(tick, TICK_MS);
      watch("addEventListener");
      attempt();
      for (const room of rooms.values()) ask(room);
    },
    close() {
      if (socket.state !== "closed") lost({ code: 1000, reason: "closed", retry: "no" });
    },
  };
  show(socket, "connecting");
  if (open) socket.open();
  return socket;
}

const listen = (ears, kind, hear) => {
  // Its own function each time: who listens twice hears twice, and takes back one at a time.
  const listener = (...news) => hear(...news);
  (ears[kind] ??= new Set()).add(listener);
  return () => {
    ears[kind].delete(listener);
  };
};

/** Tells all who listen at a place. One that throws harms neither the others nor the connection. */
const tell = (place, kind, ...news) => {
  for (const ears of place.ears) {
    for (const listener of [...(ears[kind] ?? [])]) {
      // It may have been taken back by one before it. What it throws, the runtime reports as not handled.
      if (ears[kind].has(listener)) (async () => listener(...news))();
    }
  }
};
