import { useMembers, useRoom } from "wsgate/react";

import { Composer } from "./Composer.jsx";
import { Messages } from "./Messages.jsx";
import { Typing } from "./Typing.jsx";

/** A room, or why one may not be in it. */
export const Room = ({ room, title }) => {
  const { state, reason, temporary } = useRoom(`chat:${room}`);
  if (state === "refused" && !temporary) {
    return (
      <main className="refused">
        <h1>{title}</h1>
        <p role="alert">{reason}</p>
      </main>
    );
  }
  return (
    <main className="room" aria-busy={state === "joining"}>
      <h1>{title}</h1>
      {temporary && <p className="notice" role="alert">Not in the room for now: {reason}</p>}
      <Members room={room} />
      <Messages room={room} joined={state === "joined"} />
      <Typing room={room} />
      <Composer room={room} title={title} />
    </main>
  );
};

const Members = ({ room }) => {
  const { members = [] } = useMembers(`chat:${room}`);
  return (
    <ul className="members" aria-label="Who is here">
      {members.map(({ user }) => <li key={user}>{user}</li>)}
    </ul>
  );
};
