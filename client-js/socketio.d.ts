import type { Options, Socket as Client } from "./wsgate.js";

/** What proves who connects: an object with a `token`, or a function that is asked for one at every attempt. */
export type Auth = { token?: string } | ((give: (auth: { token?: string }) => void) => void);

export interface SocketOptions extends Partial<Pick<Options, "WebSocket" | "backoff" | "timeout" | "queue">> {
  /** Asked for at every attempt; may be set anew as `socket.auth`. */
  auth?: Auth;
  /** In place of `auth`, as older code has it. The token is not put into the address. */
  query?: { token?: string };
  /** The gateway's path. `/ws` if missing. */
  path?: string;
  /** `false`: does not connect until `connect()` is called. */
  autoConnect?: boolean;
  /** `false`: a connection that is lost is not opened again. */
  reconnection?: boolean;
  /** Which emits join a room and which leave one: `joinRoom` and `leaveRoom` if missing. All others ask the backend. */
  rooms?: { join?: string[]; leave?: string[] };
}

/** Why an attempt failed. */
export interface ConnectError extends Error {
  /** The close code: see "Close codes" in protocol.md. */
  data: { code: number };
}

export type DisconnectReason = "io client disconnect" | "io server disconnect" | "ping timeout" | "transport close";

interface Emits<Result> {
  /**
   * Joins or leaves a room, or asks the backend: its answer goes to the last argument, if that is a function. One
   * argument is the data, several are a list. What fails without such a function is told to listeners of `error`,
   * or else the console.
   */
  emit(event: string, ...args: any[]): Result;
  /** As `emit`, with a promise of the answer. Rejects with a `WsgateError`. */
  emitWithAck(event: string, ...args: any[]): Promise<any>;
}

export interface Socket extends Emits<Socket> {
  auth: Auth | undefined;
  on(event: "connect" | "reconnect" | "reconnect_attempt", listener: () => void): this;
  on(event: "disconnect", listener: (reason: DisconnectReason) => void): this;
  on(event: "connect_error", listener: (error: ConnectError) => void): this;
  /** Where a backend waits for an answer, the last argument of the listener gives it. */
  on(event: string, listener: (...args: any[]) => void): this;
  once: Socket["on"];
  addListener: Socket["on"];
  off(event?: string, listener?: (...args: any[]) => void): this;
  removeListener: Socket["off"];
  removeAllListeners(event?: string): this;
  listeners(event: string): ((...args: any[]) => void)[];
  /** Emits that are given up after so many milliseconds; their acknowledgement gets `(error, answer)`. */
  timeout(ms: number): Emits<Socket>;
  /** Emits that are dropped where there is no connection. */
  readonly volatile: Emits<Socket>;
  readonly connected: boolean;
  readonly disconnected: boolean;
  /** Whether it is connected or will try to be. */
  readonly active: boolean;
  /** The id of the connection, if there is one: another after each reconnect. */
  readonly id: string | undefined;
  /** The socket itself: `socket.io.on("reconnect", …)` is heard here. */
  readonly io: Socket;
  /** The socket of wsgate, for what Socket.IO has no words for. */
  readonly client: Client;
  connect(): this;
  open(): this;
  disconnect(): this;
  close(): this;
  send(...args: any[]): this;
}

/** Connects to a gateway: its address without a path, or that of the page. */
export function io(url?: string | URL, options?: SocketOptions): Socket;
export function io(options: SocketOptions): Socket;
export { io as connect, io as default };
