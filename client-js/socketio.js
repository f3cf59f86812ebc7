// The words of socket.io-client over the client of wsgate, so that code that was written for them needs
// another import only. docs/from-socket-io.md says what is different, and what is not there.

import { connect } from "./wsgate.js";

/** What a socket tells its own listeners; no event from the wire can be one of these. */
const OWN = ["connect", "connect_error", "disconnect", "reconnect", "reconnect_attempt"];

export function io(url = "/", options = {}) {
  if (typeof url === "object") return io(undefined, url);
  const { path = "/ws", autoConnect = true, reconnection = true, query, ...more } = options;
  const { join = ["joinRoom"], leave = ["leaveRoom"] } = options.rooms ?? {};

  // Asked for at every attempt, as `socket.auth` may have been set since.
  const token = async () => {
    const { auth } = socket;
    return (await (typeof auth === "function" ? new Promise(auth) : auth))?.token;
  };
  const address = new URL(path, new URL(url, globalThis.location));
  const client = connect(address, { ...more, token, open: false });

  /** By the name of an event. */
  const listeners = new Map();
  /** The rooms that were joined, by name. */
  const rooms = new Map();
  /** The state before, and whether there has been a connection. */
  let before = "connecting";
  let opened = false;

  const tell = (event, ...args) => {
    const heard = [...(listeners.get(event)?.keys() ?? [])];
    for (const listener of heard) listener(...args);
    return heard.length > 0;
  };

  client.onState(({ state, code, reason }) => {
    const was = before;
    before = state;
    if (state === "open") {
      tell("connect");
      if (opened) tell("reconnect");
      opened = true;
    } else if (state === "connecting") {
      if (was === "waiting") tell("reconnect_attempt");
    } else if (was === "open") {
      tell("disconnect", wordFor(state, code, reason));
    } else if (was === "connecting" && code !== 1000) {
      tell("connect_error", Object.assign(new Error(reason), { data: { code } }));
    }
    if (state === "waiting" && !reconnection) client.close();
  });

  // --- Listening ---

  /** The first listener of a name begins to hear it from the wire; the last one to go ends that. */
  const on = (event, listener, heard = listener) => {
    let known = listeners.get(event);
    if (!known) {
      known = new Map();
      if (!OWN.includes(event)) known.stop = client.on(event, (data, { answer }) => tell(event, data, ...(answer ? [answer] : [])));
      listeners.set(event, known);
    }
    known.set(heard, listener);
    return socket;
  };

  const off = (event, listener) => {
    for (const name of event === undefined ? [...listeners.keys()] : [event]) {
      const known = listeners.get(name);
      for (const [heard, original] of known ?? []) if (!listener || original === listener) known.delete(heard);
      if (known?.size) continue;
      known?.stop?.();
      listeners.delete(name);
    }
    return socket;
  };

  const once = (event, listener) => {
    const heard = (...args) => {
      off(event, listener);
      listener(...args);
    };
    return on(event, listener, heard);
  };

  // --- Emitting ---

  /** What an emit comes to: the answer to a join, or that of the backend. */
  const send = async (event, args, options) => {
    const [first] = args;
    if (!join.includes(event) && !leave.includes(event)) {
      return client.call(event, args.length > 1 ? args : first, options);
    }
    const name = first?.room ?? first?.roomId ?? first;
    if (leave.includes(event)) {
      rooms.get(name)?.leave();
      rooms.delete(name);
    } else {
      if (!rooms.has(name)) rooms.set(name, client.join(name));
      await rooms.get(name).ready.catch((error) => {
        // So that the next emit asks again.
        rooms.get(name)?.leave();
        rooms.delete(name);
        throw error;
      });
    }
    return { ok: true, room: name };
  };

  /** For an acknowledgement: what the backend says, or else why it was not asked. */
  const said = ({ data, code, message }) => data ?? { ok: false, code, error: message };

  const emitter = (options, errorFirst) => ({
    emit(event, ...args) {
      const ack = typeof args.at(-1) === "function" && args.pop();
      send(event, args, options).then(
        (answer) => ack && (errorFirst ? ack(null, answer) : ack(answer)),
        (error) => {
          if (ack) return errorFirst ? ack(error) : ack(said(error));
          // Nobody is asked for an answer, but it must not get lost.
          if (!tell("error", error)) console.warn(`emit("${event}") failed: ${error.message}`);
        },
      );
      return socket;
    },
    emitWithAck: (event, ...args) => send(event, args, options),
  });

  const socket = {
    auth: options.auth ?? query,
    ...emitter(),
    on,
    once,
    off,
    addListener: on,
    removeListener: off,
    removeAllListeners: off,
    listeners: (event) => [...(listeners.get(event)?.values() ?? [])],
    timeout: (timeout) => emitter({ timeout }, true),
    get volatile() {
      return emitter({ queue: false });
    },
    get connected() {
      return client.state === "open";
    },
    get disconnected() {
      return client.state !== "open";
    },
    get active() {
      return client.state !== "closed";
    },
    get id() {
      return client.connection;
    },
    get io() {
      return socket;
    },
    /** The socket of wsgate, for what Socket.IO has no words for. */
    client,
    connect: () => (client.open(), socket),
    disconnect: () => (client.close(), socket),
  };
  Object.assign(socket, { open: socket.connect, close: socket.disconnect, send: (...args) => socket.emit("message", ...args) });
  if (autoConnect) client.open();
  return socket;
}

export { io as connect, io as default };

/** Why a connection ended, in the words of Socket.IO. */
const wordFor = (state, code, reason) => {
  if (code === 1000) return "io client disconnect";
  if (state === "closed") return "io server disconnect";
  return code === 4504 || reason === "no answer" ? "ping timeout" : "transport close";
};
