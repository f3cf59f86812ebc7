/** Ends what the call that returned it has begun. Calling it twice does nothing more. */
export type Undo = () => void;

/**
 * `connecting`: an attempt is under way; or none has been made yet, with `open: false`. `open`: the gateway
 * has said welcome. `waiting`: the next attempt comes in a while. `closed`: there is none, until `open()`.
 */
export type State = "connecting" | "open" | "waiting" | "closed";

/** A state, and why it is so. The object never changes: with another state there is another one. */
export interface Status {
  readonly state: State;
  /**
   * With `waiting` and `closed`: the close code, see "Close codes" in protocol.md. 1006 if no Close
   * came, as where the gateway cannot be reached or the token function threw; 1000 after `close()`.
   */
  readonly code?: number;
  /** A sentence for people. */
  readonly reason?: string;
  /** With `waiting`: when the next attempt comes, in milliseconds as `Date.now()` has them. */
  readonly retryAt?: number;
  /** With `open`: so many events were lost just now, as this client reads too slowly for their `ttl`. */
  readonly lost?: number;
}

/**
 * `joining`: the gateway has not answered yet, or there is no connection. `joined`: events come.
 * `refused`: not let in, or put out; `code` and `reason` say why. `left`: by this client.
 */
export type RoomState = "joining" | "joined" | "refused" | "left";

/** Whether this client is in a room. The object never changes: with another state there is another one. */
export interface RoomStatus {
  readonly state: RoomState;
  /** With `refused`: an error code of protocol.md, or `removed` where a backend or a rule has put us out. */
  readonly code?: string;
  /** A sentence for people. */
  readonly reason?: string;
  /** With `refused`: whether it is for now only. Then it is tried again by itself. */
  readonly temporary?: boolean;
  /** When that is, in milliseconds as `Date.now()` has them. */
  readonly retryAt?: number;
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
  /** There if a backend waits for an answer, which this gives. Rejects with a `WsgateError`. */
  answer?: (data?: unknown) => Promise<Reply>;
}

/** An event, as `events()` gives it. */
export interface Event<Name extends string = string, Data = any> extends EventInfo {
  event: Name;
  data: Data;
}

/** The gateway's answer to a request that was done. */
export interface Reply {
  ok: true;
  room?: string;
}

/** Who is in a room. */
export interface Member {
  user: string;
  /** What the user shows to the others there: see "profile" in the gateway's documents. */
  data?: any;
  /** How many connections of the user are in the room; not kept up to date by `onMembers`. */
  connections?: number;
}

/** What is known of the members of a room. */
export interface Members {
  /** By name of the user. Missing if the room is too large for a list, or if it is not known yet. */
  members?: Member[];
  /** How many users there are. With `onMembers`: as announced last; the list may be ahead of it. */
  users?: number;
  /** How many connections these have; not kept up to date by `onMembers`. */
  connections?: number;
  /** Why there is no list, as where it may not be seen. */
  error?: WsgateError;
}

/** What a request is refused with. */
export interface WsgateError extends Error {
  /**
   * One of the codes under "Errors" in protocol.md, or one of this client: `not_sent` if there was no
   * connection, so that it surely was not done; `disconnected` if the connection was lost and `timeout`
   * if the time was over before the answer came, so that nobody knows; `left` if the room was left
   * before; `removed` if we were put out of it; `too_slow` if `events()` was not read.
   */
  code: string;
  /** The path of the field at fault. */
  field?: string;
  /** Whether the same request may succeed later. */
  temporary: boolean;
  /** With `call_refused`: what the backend says. */
  data?: any;
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

export interface RequestOptions {
  /** After how many milliseconds it is given up, in the queue or under way. 0: never. */
  timeout?: number;
  /** Gives it up, with the signal's reason. What was sent by then may be done all the same. */
  signal?: AbortSignal;
  /** `false`: if it cannot be sent at once, it is refused as `not_sent`, rather than put into the queue. */
  queue?: boolean;
}

export interface PublishOptions extends RequestOptions {
  /** `false` leaves out this connection. `true` if missing. */
  echo?: boolean;
  /** With `echo: false`: `"user"` leaves out all connections of this user. */
  echo_scope?: "connection" | "user";
}

/**
 * The events of an application, by name, each with the type of its data:
 * `connect<{ message: { text: string }; typing: boolean }>(…)`. Without it anything goes.
 */
export type EventMap = Record<string, any>;

type NameOf<Events> = keyof Events & string;

/** Each event of an application, with its data: where `event` is looked at, the type of `data` is known. */
export type AnyEvent<Events> = { [Name in NameOf<Events>]: Event<Name, Events[Name]> }[NameOf<Events>];

/** The arguments after an event's name. Data that may be undefined may be left out. */
type DataAnd<Data, Options> = undefined extends Data ? [data?: Data, options?: Options] : [data: Data, options?: Options];

/** Listens to events. */
interface Hearing<Events> {
  /** Hears the events of this name. */
  on<Name extends NameOf<Events>>(event: Name, hear: (data: Events[Name], info: EventInfo) => void): Undo;
  /** Hears the next event of this name. */
  once<Name extends NameOf<Events>>(event: Name, hear: (data: Events[Name], info: EventInfo) => void): Undo;
  /**
   * Events from now on, of one name or all, for `for await`. It ends when the room is left or the
   * socket closed. If more than 1,000 wait to be read, it throws `too_slow`.
   */
  events(): AsyncIterableIterator<AnyEvent<Events>>;
  events<Name extends NameOf<Events>>(event: Name): AsyncIterableIterator<Event<Name, Events[Name]>>;
}

/** A room that was joined. Whoever joins gets a `Room` of their own; they share one membership. */
export interface Room<Events extends object = EventMap> extends Hearing<Events> {
  readonly name: string;
  readonly state: RoomState;
  readonly status: RoomStatus;
  /**
   * The answer to the join. It waits for a connection, and is another promise after a reconnect,
   * where the room is joined again. It rejects with a `WsgateError`, which need not be handled.
   */
  readonly ready: Promise<unknown>;
  /** Hears of every change of `status` from now on. */
  onState(hear: (status: RoomStatus) => void): Undo;
  /** Publishes to this room, once it is joined. Rejects with a `WsgateError`. */
  publish<Name extends NameOf<Events>>(event: Name, ...rest: DataAnd<Events[Name], PublishOptions>): Promise<Reply>;
  /** Asks who is in this room. Rejects with a `WsgateError`. */
  members(options?: RequestOptions): Promise<Members>;
  /**
   * Hears who is in this room: at once what is known, and then whenever that changes. Without presence,
   * which the gateway's operator decides on, it stays as it is when the room is joined.
   */
  onMembers(hear: (members: Members) => void): Undo;
  /**
   * Ends what was heard through this object. The last one to leave takes the connection out; whoever
   * joins again in the same breath has never left.
   */
  leave(): void;
}

export interface Socket<Events extends object = EventMap> extends Hearing<Events> {
  readonly state: State;
  readonly status: Status;
  /** Who the gateway says we are; `undefined` before the first welcome. */
  readonly user: string | undefined;
  /** The id of the connection, for backends that leave it out; `undefined` if there is none. */
  readonly connection: string | undefined;
  /** Hears of every change of `status` from now on. */
  onState(hear: (status: Status) => void): Undo;
  /** Joins a room: now or as soon as there is a connection, and again after every reconnect. */
  join<RoomEvents extends object = Events>(name: string): Room<RoomEvents>;
  /** Publishes an event. Rejects with a `WsgateError`. */
  publish<Name extends NameOf<Events>>(to: Target, event: Name, ...rest: DataAnd<Events[Name], PublishOptions>): Promise<Reply>;
  /** Asks the backend, and gives its answer. Rejects with a `WsgateError`. */
  call<Answer = any>(event: string, data?: unknown, options?: RequestOptions): Promise<Answer>;
  /** Opens a connection again after `close()` or a refusal. Rooms are joined again. */
  open(): void;
  /** Ends the connection, and all attempts to get one. What waits or is under way rejects. */
  close(): void;
}

/** Proves who connects: a JWT, or a ticket that a backend got from the gateway. */
export type Proof = string | { ticket: string } | { anonymous: true };

/**
 * Gives a proof. It is called for every attempt, and before the token of a live connection ends.
 * `fresh` says that the last token was refused or has ended, or soon will have: a cached one will not
 * do. If it throws `Unauthorized`, the socket is closed for good; after any other error it is called again.
 */
export type TokenFunction = (ask: { fresh: boolean }) => Proof | Promise<Proof>;

/** Thrown by a token function: there is no token to be had, as where the user has to log in again. */
export class Unauthorized extends Error {}

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
  /**
   * A JWT, or a function that gets one. A string cannot be renewed: the socket ends with it. `null`
   * where a cookie or the address proves who connects, as with `?anonymous=true`.
   */
  token: Proof | TokenFunction | null;
  /** Where there is no global one, as in Node before 22. */
  WebSocket?: WebSocketClass;
  /**
   * In milliseconds. The wait before a retry is random between 0 and `min`, which doubles with
   * every failure in a row, up to `max`. 5,000 and 30,000 if missing.
   */
  backoff?: { min?: number; max?: number };
  /** After how many milliseconds a request is given up, in the queue or under way. 30,000 if missing. */
  timeout?: number;
  /** How many requests may wait for a connection or a room. 100 if missing; 0: they are refused. */
  queue?: number;
  /** `false`: does not connect until `open()` is called. */
  open?: boolean;
}

/**
 * Connects to a gateway, and keeps connected.
 *
 * @param url the gateway's `/ws`: ws, wss, http or https, or relative to the page.
 * @throws Error if the URL is none or there is no WebSocket; with `open: false`, `open()` does.
 */
export function connect<Events extends object = EventMap>(url: string | URL, options: Options): Socket<Events>;
