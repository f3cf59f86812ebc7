// React hooks for wsgate. Nothing here opens or joins anything while it renders, so that StrictMode,
// concurrent rendering and fast refresh leave nothing behind.

import {
  createContext,
  createElement,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useSyncExternalStore,
} from "react";
import { connect } from "./wsgate.js";

const Context = createContext();
const UNKNOWN = {};

export const SocketProvider = ({ children, socket: given, url, token, ...options }) => {
  const latest = useLatest(token);
  const renewable = typeof token === "function";
  const socket = useMemo(
    () => given ?? connect(url, { ...options, token: renewable ? (ask) => latest.current(ask) : token, open: false }),
    [given, renewable, `${url} ${JSON.stringify(token)}`],
  );
  useEffect(() => {
    if (given || token === undefined) return;
    socket.mounted = true;
    socket.open();
    return () => {
      socket.mounted = false;
      // Whoever is mounted again in the same breath, as by StrictMode, keeps the connection.
      queueMicrotask(() => socket.mounted || socket.close());
    };
  }, [socket]);
  return createElement(Context.Provider, { value: socket }, children);
};

export const useSocket = () => {
  const socket = useContext(Context);
  if (!socket) throw Error("no SocketProvider");
  return socket;
};

export const useConnectionState = () => {
  const socket = useSocket();
  const status = () => socket.status;
  return useSyncExternalStore(socket.onState, status, status);
};

export const useRoom = (name) => {
  const socket = useSocket();
  const publish = useMemo(
    () => (...event) => {
      // What is published in an effect may come before this component has joined.
      const room = socket.join(name);
      room.leave();
      return room.publish(...event);
    },
    [socket, name],
  );
  const status = useJoined(name, (room, see) => {
    see(room.status);
    room.onState(see);
  });
  return { state: "joining", ...status, name, publish };
};

export const useMembers = (room) => useJoined(nameOf(room), (room, see) => room.onMembers(see));

export const useEvent = (...args) => {
  const socket = useSocket();
  const [hear, event, room] = args.reverse();
  const latest = useLatest(hear);
  const name = nameOf(room);
  useEffect(() => {
    const hearLatest = (...news) => latest.current(...news);
    if (args.length < 3) return socket.on(event, hearLatest);
    if (!name) return;
    const joined = socket.join(name);
    joined.on(event, hearLatest);
    return joined.leave;
  }, [socket, args.length, name, event]);
};

/** A value of the latest render, for what is called later. */
const useLatest = (value) => {
  const latest = useRef(value);
  useEffect(() => {
    latest.current = value;
  });
  return latest;
};

/** Is in a room while mounted, and watches something there. */
const useJoined = (name, watch) => {
  const socket = useSocket();
  const seen = useRef({ value: UNKNOWN });
  const subscribe = useMemo(
    () => (changed) => {
      if (!name) return () => {};
      const room = socket.join(name);
      watch(room, (value) => {
        seen.current = { name, value };
        changed();
      });
      return room.leave;
    },
    [socket, name],
  );
  const look = () => (seen.current.name === name ? seen.current.value : UNKNOWN);
  return useSyncExternalStore(subscribe, look, look);
};

const nameOf = (room) => (typeof room === "string" ? room : room?.name);
