import type { ReactNode } from "react";
import type { EventInfo, EventMap, Members, Options, Room, RoomStatus, Socket, Status } from "./wsgate.js";

/** A gateway's address with the options of `connect`, or a socket that is made already and stays open. */
export type SocketProviderProps = { children?: ReactNode } & (
  | ({ url: string | URL; socket?: undefined; token: Options["token"] | undefined } & Omit<Options, "open" | "token">)
  | { socket: Socket<any> }
);

/**
 * Gives a socket to all components inside. Connected while mounted; another `url`, or another `token` if
 * that is a string, makes another connection. Without a `token` yet, as `undefined`, there is none. Of the
 * other options those of the first render count.
 */
export function SocketProvider(props: SocketProviderProps): ReactNode;

/** The socket of the nearest `SocketProvider`. @throws Error if there is none. */
export function useSocket<Events extends object = EventMap>(): Socket<Events>;

/** The state of the connection, why it is so, and when the next attempt comes. */
export function useConnectionState(): Status;

/** A room, as a component sees it. */
export interface RoomView<Events extends object = EventMap> extends RoomStatus {
  readonly name: string | null | undefined;
  /** As `publish` of a room; it is the same function in every render. */
  readonly publish: Room<Events>["publish"];
}

/** A room's name, or what `useRoom` has given; none if there is no room yet. */
export type RoomLike = string | RoomView<any> | { name: string | null | undefined; publish?: undefined } | null | undefined;

/** Is in a room while mounted. Several components may be in the same one. */
export function useRoom<Events extends object = EventMap>(name: string | null | undefined): RoomView<Events>;

/** Hears an event while mounted, from anywhere. Always calls the latest `hear`, which need not be memoized. */
export function useEvent<Data = any>(event: string, hear: (data: Data, info: EventInfo) => void): void;
/** Is in a room while mounted, and hears its events of one name. What `useRoom<Events>` gives knows their data. */
export function useEvent<Events extends object, Name extends keyof Events & string>(
  room: RoomView<Events>,
  event: Name,
  hear: (data: Events[Name], info: EventInfo) => void,
): void;
/** Is in a room while mounted, and hears its events of one name. */
export function useEvent<Data = any>(room: Exclude<RoomLike, RoomView<any>>, event: string, hear: (data: Data, info: EventInfo) => void): void;

/** Is in a room while mounted, and sees who else is. */
export function useMembers(room: RoomLike): Members;
