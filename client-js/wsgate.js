// The client of wsgate: rooms, events and reconnection over one WebSocket, without dependencies.
// protocol.md describes the wire; the names of its messages and fields are used as they are.

/** How long one attempt may take, from asking for the token to the welcome. */
const CONNECT_LIMIT_MS = 10_000;

export function connect(
  url,
  { token, WebSocket = globalThis.WebSocket, backoff: { min = 5_000, max = 30_000 } = {} },
) {
  // What can never work fails here, and not on every attempt.
  if (!WebSocket) throw new TypeError("there is no WebSocket here: pass one as an option");
  const address = new URL(url, globalThis.location?.href);
  address.protocol = address.protocol.replace("http", "ws");
  address.hash = "";
  const renewable = typeof token === "function";

  let state = "connecting";
  let ws;
  /** Changes with every attempt and every end, so that news of an earlier one is recognised. */
  let era = 0;
  /** The only timer: while connecting it ends the attempt, while waiting it starts the next. */
  let timer;
  /** Since the last welcome: how many waits there were, and whether a token was refused. */
  let waits = 0;
  let refused = false;

  let lastId = 0;
  /** The requests that wait for their answer, by id. */
  const requests = new Map();
  /** The rooms that we want to be in, by name and in the order of joining. */
  const rooms = new Map();
  /** The names of the rooms that the gateway says this connection is in. */
  const inside = new Set();
  const stateListeners = new Set();
  const eventListeners = new Set();

  const change = (to, why = {}) => {
    state = to;
    tell(stateListeners, to, why);
  };

  // --- One connection after the other ---

  const attempt = async () => {
    const mine = ++era;
    const unlessOver = (act) => (event) => {
      if (mine === era) act(event);
    };
    // Some WebSockets fail without any event, and a token function may hang.
    timer = setTimeout(unlessOver(() => lost(1006, "no welcome came in time")), CONNECT_LIMIT_MS);
    change("connecting");
    try {
      // Whoever closes in the same breath, as React's StrictMode does, has opened nothing.
      await null;
      if (mine !== era) return;
      const proof = renewable ? await token({ fresh: refused }) : token;
      if (mine !== era) return;
      ws = new WebSocket(address.href);
      // In a frame, since an address ends up in logs.
      ws.onopen = unlessOver(() => send({ type: "auth", token: proof }));
      ws.onmessage = unlessOver(({ data }) => receive(data));
      ws.onclose = unlessOver(({ code, reason }) => lost(code, reason));
      // Node before 23 has no `close` after it.
      ws.onerror = unlessOver(() => lost(1006, "the connection failed"));
    } catch (error) {
      unlessOver(() => lost(1006, String(error)))();
    }
  };

  /** Ends an attempt or a connection, and decides how to go on. */
  const lost = (code, reason, retry = retryAfter(code), retryInMs = undefined) => {
    era++;
    clearTimeout(timer);
    ws?.close(1000);
    ws = undefined;
    inside.clear();

    const fresh = retry === "fresh_token";
    const again = fresh ? renewable && !refused : retry !== "no";
    refused ||= fresh;
    if (again) {
      // Random from zero on, the first time too: after a failure everybody is on the way back at
      // the same moment. A refused token needs no wait, since that is tried only once.
      retryInMs ??= fresh ? 0 : Math.random() * Math.min(max, min * 2 ** waits++);
      timer = setTimeout(attempt, retryInMs);
      change("waiting", { code, reason, retryInMs });
    } else {
      change("closed", { code, reason });
      for (const room of rooms.values()) room.reject(disconnected());
    }
    for (const { reject } of requests.values()) reject(disconnected());
    requests.clear();
  };

  const disconnected = () => failure("disconnected", "there is no connection", undefined, state !== "closed");

  const send = (frame) => ws.send(JSON.stringify(frame));

  // There is no queue: what waited for a connection would be stale when it is sent.
  const request = (type, fields) =>
    new Promise((resolve, reject) => {
      if (state !== "open") throw disconnected();
      const id = ++lastId;
      send({ type, id, ...fields });
      requests.set(id, { type, resolve, reject });
    });

  // --- What the gateway says ---

  const receive = (text) => {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return; // This is not wsgate. No welcome will come, and the time limit says so.
    }
    const { type, room } = message;
    if (type === "event") {
      // An event that was on its way when we left is passed over.
      if (!room || inside.has(room)) tell(eventListeners, message);
    } else if (type === "reply" || type === "error") {
      answer(message);
    } else if (type === "joined") {
      enter(room);
    } else if (type === "left") {
      inside.delete(room);
      // A backend wants it so; coming back by itself would go against that.
      if (rooms.has(room)) rooms.get(room).removed = true;
    } else if (type === "expiring") {
      renew();
    } else if (type === "closing") {
      // The Close that follows has nothing to add, and may get lost.
      lost(message.code, message.reason, message.retry, message.retry_after_ms);
    } else if (type === "welcome") {
      welcome(message);
    }
  };

  const welcome = (message) => {
    clearTimeout(timer);
    waits = 0;
    refused = false;
    message.rooms.forEach(enter);
    state = "open";
    // Before listeners hear of it: what they publish to a room must come after its join.
    for (const room of rooms.values()) if (room.asked || !room.removed) ask(room);
    change("open");
  };

  const answer = (message) => {
    const asked = requests.get(message.id);
    if (!asked) return;
    requests.delete(message.id);
    if (message.type === "error") {
      asked.reject(failure(message.code, message.message, message.field, message.temporary));
      return;
    }
    // Now, not when the promise is looked at: the room's first event may be right behind.
    if (asked.type === "join") enter(message.room);
    if (asked.type === "leave") inside.delete(message.room);
    asked.resolve(message);
  };

  const enter = (name) => {
    inside.add(name);
    const room = rooms.get(name);
    if (!room) return;
    room.removed = false;
    // A backend has done what was refused before.
    if (!room.asked) room.ready = Promise.resolve();
  };

  const renew = async () => {
    if (!renewable) return;
    try {
      await request("auth", { token: await token({ fresh: true }) });
    } catch {
      // The connection lasts until its token ends. It is closed with 4401 then, which asks again.
    }
  };

  // --- What the application asks for ---

  /** Asks to be let into a room: now, or once there is a connection. */
  const ask = (room) => {
    if (!room.asked) {
      room.asked = true;
      room.ready = new Promise((resolve, reject) => Object.assign(room, { resolve, reject }));
      // Nobody has to look at it.
      room.ready.catch(() => {});
    }
    if (state === "closed") room.reject(disconnected());
    if (state !== "open") return;
    const settle = (how) => (outcome) => {
      // What a lost connection cut off is asked again on the next, and settles then.
      if (outcome.code === "disconnected") return;
      room.asked = false;
      room[how](outcome);
    };
    request("join", { room: room.name }).then(settle("resolve"), settle("reject"));
  };

  const on = (event, hear, room) =>
    listen(eventListeners, (message) => {
      if (message.event === event && (!room || message.room === room)) {
        hear(message.data, { room: message.room, from: message.from });
      }
    });

  const publish = (to, event, data, { echo } = {}) => request("publish", { to, event, data, echo });

  const join = (name) => {
    const room = rooms.get(name) ?? { name, handles: 0 };
    rooms.set(name, room);
    room.handles++;
    if (!room.ready || (!room.asked && !inside.has(name))) ask(room);

    const undos = new Set();
    let left = false;
    return {
      name,
      get ready() {
        return room.ready;
      },
      on(event, hear) {
        const stop = on(event, hear, name);
        const undo = () => {
          stop();
          undos.delete(undo);
        };
        undos.add(undo);
        return undo;
      },
      publish: (event, data, options) => publish({ room: name }, event, data, options),
      leave() {
        if (left) return;
        left = true;
        undos.forEach((undo) => undo());
        if (--room.handles) return;
        rooms.delete(name);
        // Where we were not let in there is nothing to leave; without a connection, neither.
        if (room.asked || inside.has(name)) request("leave", { room: name }).catch(() => {});
        room.reject(failure("left", "the room was left", undefined, false));
      },
    };
  };

  attempt();
  return {
    get state() {
      return state;
    },
    on: (event, hear) => on(event, hear),
    onState: (hear) => listen(stateListeners, hear),
    join,
    publish,
    close() {
      if (state !== "closed") lost(1000, "closed by this client", "no");
    },
  };
}

/**
 * What to do after a Close without a `closing` message, such as one of a proxy. 44xx: coming back
 * unchanged will fail again. The four standard codes say that what we sent was wrong.
 */
const retryAfter = (code) => {
  if (code === 4401) return "fresh_token";
  return (code >= 4400 && code < 4500) || [1002, 1003, 1007, 1009].includes(code) ? "no" : "yes";
};

const failure = (code, message, field, temporary) => Object.assign(new Error(message), { code, field, temporary });

const listen = (listeners, hear) => {
  // Its own function each time: who listens twice hears twice, and takes back one at a time.
  const listener = (...news) => hear(...news);
  listeners.add(listener);
  return () => {
    listeners.delete(listener);
  };
};

/** A listener that throws must harm neither the others nor the connection. */
const tell = (listeners, ...news) => {
  for (const listener of [...listeners]) {
    try {
      // It may have been taken back by one before it.
      if (listeners.has(listener)) listener(...news);
    } catch (error) {
      // Reported by the runtime, as whatever nobody catches.
      queueMicrotask(() => {
        throw error;
      });
    }
  }
};
