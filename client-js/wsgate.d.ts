/** Ends what the call that returned it has begun. Calling it twice does nothing more. */
export type Undo = () => void;

/**
 * `connecting`: an attempt is under way. `open`: the gateway has said welcome. `waiting`: the next
 * attempt comes in a while. `closed`: for good; only another `connect` opens a connection again.
 */
export type State = "connecting" | "open" | "waiting" | "closed";

/** Why a connection is not there. Empty with `connecting` and `open`. */
export interface StateInfo {
  /**
   * The close code: see "Close codes" in protocol.md. 1006 if no Close came, as where the gateway
   * cannot be reached or the token function failed; 1000 after `close()`.
   */
  code?: number;
  /** A sentence for people. */
  reason?: string;
  /** With `waiting`: the time until the next attempt. */
  retryInMs?: number;
}

/** How an event came. */
export interface EventInfo {
  /**
   * The room by which it came; missing if it came to `self`, to `all` or to this connection. What
   * was published to several rooms comes once, with the first of them by name.
   */
  room?: string;
  /** The user who published it; missing if a backend did. */
  from?: string;
}

/** The gateway's answer to a request that was done. */
export interface Reply {
  ok: true;
  room?: string;
}

/** What a request is refused with. */
export interface WsgateError extends Error {
  /**
   * One of the codes under "Errors" in protocol.md, or one of two of this client: `disconnected` if
   * there is no connection or it was lost before the answer came, so that nobody knows whether the
   * request was done; `left` for the `ready` of a room that was left before the answer came.
   */
  code: string;
  /** The path of the field at fault. */
  field?: string;
  /** Whether the same request may succeed later. */
  temporary: boolean;
}

/** For whom an event is. The fields add up; each connection gets one copy. */
export interface Target {
  room?: string;
  rooms?: string[];
  user?: string;
  users?: string[];
  all?: boolean;
  self?: boolean;
}

export interface PublishOptions {
  /** `false` leaves out this connection. `true` if missing. */
  echo?: boolean;
}

/** A room that was joined. Whoever joins gets a `Room` of their own; they share one membership. */
export interface Room {
  readonly name: string;
  /**
   * The answer to the join. It waits for a connection, and is another promise after a reconnect,
   * where the room is joined again. It rejects with a `WsgateError`, which need not be handled.
   */
  readonly ready: Promise<Reply>;
  /** Hears the events of this room that have this name. */
  on<Data = any>(event: string, hear: (data: Data, info: EventInfo) => void): Undo;
  /** Publishes to this room. Rejects with a `WsgateError`. */
  publish(event: string, data?: unknown, options?: PublishOptions): Promise<Reply>;
  /** Ends what was heard through this object. The last one to leave takes the connection out. */
  leave(): void;
}

export interface Socket {
  readonly state: State;
  /** Hears all events of this name, whatever room they come by. */
  on<Data = any>(event: string, hear: (data: Data, info: EventInfo) => void): Undo;
  /** Hears of every change of `state` from now on. */
  onState(hear: (state: State, info: StateInfo) => void): Undo;
  /** Joins a room: now or as soon as there is a connection, and again after every reconnect. */
  join(name: string): Room;
  /** Publishes an event. Rejects with a `WsgateError`. */
  publish(to: Target, event: string, data?: unknown, options?: PublishOptions): Promise<Reply>;
  /** Ends the connection, and all attempts to get one. */
  close(): void;
}

/**
 * Gives a token. It is called for every attempt, and when the token of a live connection ends.
 * `fresh` says that the last token was refused or ends soon: a cached one will not do.
 */
export type TokenFunction = (ask: { fresh: boolean }) => string | Promise<string>;

/** The parts of a WebSocket class that are used. */
export interface WebSocketClass {
  new (url: string): {
    onopen: ((event: any) => void) | null;
    onmessage: ((event: any) => void) | null;
    onclose: ((event: any) => void) | null;
    onerror: ((event: any) => void) | null;
    send(data: string): void;
    close(code?: number): void;
  };
}

export interface Options {
  /** A JWT, or a function that gets one. A string cannot be renewed: the socket ends with it. */
  token: string | TokenFunction;
  /** Where there is no global one, as in Node before 22. */
  WebSocket?: WebSocketClass;
  /**
   * In milliseconds. The wait before a retry is random between 0 and `min`, which doubles with
   * every failure in a row, up to `max`. 5,000 and 30,000 if missing.
   */
  backoff?: { min?: number; max?: number };
}

/**
 * Connects to a gateway, and keeps connected.
 *
 * @param url the gateway's `/ws`: ws, wss, http or https, or relative to the page.
 * @throws TypeError if the URL is none or there is no WebSocket.
 */
export function connect(url: string | URL, options: Options): Socket;
