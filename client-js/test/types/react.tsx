// What the types say of the hooks: this compiles, and each line under `@ts-expect-error` does not.

import { connect } from "wsgate";
import type { Members, Socket, Status } from "wsgate";
import { SocketProvider, useConnectionState, useEvent, useMembers, useRoom, useSocket } from "wsgate/react";
import type { RoomView } from "wsgate/react";

/** Compiles only if both types are the same. */
const same = <A, B>(_: (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false) => {};

const made = connect<ChatEvents>("/ws", { token: "eyJ" });

interface ChatEvents {
  message: { text: string };
  bye: undefined;
}

export const providers = [
  <SocketProvider url="/ws" token={async ({ fresh }) => (fresh ? "new" : "old")} timeout={1_000} queue={0} />,
  <SocketProvider url={new URL("wss://gateway/ws")} token={null}>
    <p>inside</p>
  </SocketProvider>,
  <SocketProvider url="/ws" token={undefined} />,
  <SocketProvider socket={made}>two {"children"}</SocketProvider>,

  // @ts-expect-error there is no token
  <SocketProvider url="/ws" />,
  // @ts-expect-error there is no address
  <SocketProvider token="eyJ" />,
  // @ts-expect-error neither an address nor a socket
  <SocketProvider />,
  // @ts-expect-error it is one or the other
  <SocketProvider url="/ws" token="eyJ" socket={made} />,
  // @ts-expect-error being mounted opens it
  <SocketProvider url="/ws" token="eyJ" open={false} />,
  // @ts-expect-error misspelt
  <SocketProvider url="/ws" token="eyJ" backof={{ min: 1 }} />,
];

export const Chat = ({ name }: { name?: string }) => {
  const status = useConnectionState();
  same<typeof status, Status>(true);
  const socket = useSocket();
  same<typeof socket, Socket>(true);
  useSocket<ChatEvents>().publish({ all: true }, "message", { text: "hi" });

  const room = useRoom<ChatEvents>("chat");
  same<typeof room, RoomView<ChatEvents>>(true);
  useRoom(name);
  useRoom(null);

  useEvent("message", (data, { from }) => [data.whatever, from]);
  useEvent<{ text: string }>("message", ({ text }) => text.length);
  useEvent<number>("clock", "tick", (tick) => tick.toFixed());
  useEvent(room, "message", (data) => same<typeof data, { text: string }>(true));
  useEvent(useRoom(name), "message", (data, { from }) => [data.whatever, from]);
  useEvent({ name }, "message", () => {});
  useEvent(name, "message", () => {});

  const members = useMembers(room);
  same<typeof members, Members>(true);
  useMembers("chat");
  useMembers(name);

  // @ts-expect-error it is no function
  status();
  // @ts-expect-error the data is wrong
  room.publish("message", { txt: "hi" });
  // @ts-expect-error there is no such event
  room.publish("mesage");
  // @ts-expect-error a room has a name
  useRoom();
  // @ts-expect-error a name is a text
  useRoom(42);
  // @ts-expect-error who hears is missing
  useEvent("message");
  // @ts-expect-error who hears is missing
  useEvent("chat", "message");
  // @ts-expect-error an event is a text
  useEvent("chat", 42, () => {});
  // @ts-expect-error the room has no such event
  useEvent(room, "mesage", () => {});
  // @ts-expect-error the event has no such field
  useEvent(room, "message", ({ txt }) => txt);
  // @ts-expect-error who hears is last
  useEvent(() => {}, "message");
  // @ts-expect-error the data has no such field
  useEvent<{ text: string }>("message", ({ txt }) => txt);
  // @ts-expect-error a room alone is none
  useMembers({ room: "chat" });
  // @ts-expect-error of which room?
  useMembers();

  return (
    <button disabled={room.state !== "joined"} onClick={() => room.publish("message", { text: "hi" })}>
      {status.state} {status.retryAt} {members.users} {members.members?.map(({ user }) => user)}
    </button>
  );
};
