// Components that show what the hooks give them, and their surroundings.

import { virtualTime, settle } from "./clock.js";
import { React, render } from "./dom.js";
import { scripted } from "./scripted.js";

export const hooks = await import("../../react.js");

const { SocketProvider, useConnectionState, useEvent, useMembers, useRoom } = hooks;
const { createElement: h, useState } = React;

/** A provider's surroundings: a scripted WebSocket, and time that stands still. */
export const prepare = (t) => {
  const clock = virtualTime(t);
  const { made, Scripted } = scripted();
  const provide = (children, props) =>
    h(SocketProvider, { url: "ws://gateway.test/ws", token: "t", WebSocket: Scripted, ...props }, children);
  /** Shows elements with a provider around, and a connection that is open. */
  const open = async (children, wrap = (element) => element) => {
    const view = await render(t, wrap(provide(children)));
    await view.act(settle);
    await view.act(() => made.at(-1).welcomes());
    return view;
  };
  /** The WebSockets that are open or being opened. */
  const live = () => made.filter(({ readyState }) => readyState < 2);
  /** The rooms that were joined and left, in no order: effects and their ends have none. */
  const moves = () =>
    made[0].sent.filter(({ type }) => /join|leave/.test(type)).map(({ type, room }) => `${type} ${room}`).sort();
  return { clock, made, Scripted, provide, open, live, moves };
};

export const State = () => useConnectionState().state;

export const Status = ({ room }) => {
  const { state, name } = useRoom(room);
  return `${name} ${state};`;
};

export const Names = ({ room }) => {
  const { members, users, error } = useMembers(room);
  return `${members?.map(({ user }) => user).join() ?? users ?? error?.code ?? "unknown"};`;
};

/** Shows what it has heard, in a room or from anywhere. */
export const Heard = ({ room, as = "" }) => {
  const [heard, setHeard] = useState([]);
  const hear = (data) => setHeard([...heard, `${as}${data}`]);
  useEvent(...(room ? [room] : []), "message", hear);
  return `${heard.join()};`;
};
