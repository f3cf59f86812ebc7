// A WebSocket that does nothing by itself, for what no gateway would do in time.

import { start } from "./client.js";
import { virtualTime, settle } from "./clock.js";

export const WELCOME = {
  type: "welcome",
  connection: "1",
  user: "alice",
  expires_at: 1_900_000_000,
  expires_in: 100_000_000,
  rooms: ["user:alice"],
  max_message_bytes: 65_536,
};

/** A WebSocket class, and the list of all that were made of it. */
export const scripted = () => {
  const made = [];
  class Scripted {
    onopen = null;
    onmessage = null;
    onclose = null;
    onerror = null;
    readyState = 0;
    /** What the client has sent, parsed. */
    sent = [];
    /** How often the client has closed it. */
    closed = 0;

    constructor(url) {
      this.url = url;
      made.push(this);
    }
    send(text) {
      if (this.readyState === 0) throw new DOMException("it is connecting still", "InvalidStateError");
      if (this.readyState === 1) this.sent.push(JSON.parse(text));
    }
    close() {
      this.closed++;
      this.readyState = 3;
    }
    /** The upgrade is done. */
    opens() {
      this.readyState = 1;
      this.onopen?.({ type: "open" });
    }
    /** The upgrade is done, and the token accepted. */
    welcomes(fields) {
      this.opens();
      this.says({ ...WELCOME, ...fields });
    }
    says(message) {
      this.onmessage?.({ data: typeof message === "string" ? message : JSON.stringify(message) });
    }
    /** It has ended, as the browser tells it. */
    ends(code = 1006, reason = "") {
      this.readyState = 3;
      this.onclose?.({ type: "close", code, reason, wasClean: code !== 1006 });
    }
    /** The types of what was sent, and what was sent of one type. */
    types() {
      return this.sent.map(({ type }) => type);
    }
    all(type) {
      return this.sent.filter((frame) => frame.type === type);
    }
    /** Answers the latest request of a type. */
    replies(type, fields) {
      const { id, room } = this.all(type).at(-1);
      this.says({ type: "reply", id, ok: true, ...(room && { room }), ...fields });
    }
    refuses(type, code, fields) {
      const { id } = this.all(type).at(-1);
      this.says({ type: "error", id, code, message: `refused: ${code}`, temporary: false, ...fields });
    }
  }
  return { made, Scripted };
};

/** Starts a client with a WebSocket and a clock of its own. */
export const startScripted = async (t, { token = "t", ...options } = {}) => {
  const clock = virtualTime(t);
  const { made, Scripted } = scripted();
  const client = start(t, "ws://gateway.test/ws", token, { WebSocket: Scripted, backoff: undefined, ...options });
  await settle();
  return {
    ...client,
    clock,
    made,
    /** The latest WebSocket. */
    get ws() {
      return made.at(-1);
    },
    /** How long the wait is that was just announced. */
    wait: () => client.socket.status.retryAt - clock.date,
  };
};

/** The same, with a connection that is open. */
export const startOpen = async (t, options) => {
  const client = await startScripted(t, options);
  client.ws.welcomes();
  await settle();
  return client;
};
