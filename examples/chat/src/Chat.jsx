import { useEffect, useState } from "react";
import { useConnectionState } from "wsgate/react";

import { ConnectionBar } from "./ConnectionBar.jsx";
import { Room } from "./Room.jsx";
import { post } from "./server.js";
import { Toasts } from "./Toasts.jsx";

export const Chat = ({ session: { user, rooms }, onEnd }) => {
  const [open, setOpen] = useState(rooms[0].room);
  const { state, code, reason } = useConnectionState();

  useEffect(() => {
    // There is no code before the first attempt, and 1000 is this page's own end.
    if (state !== "closed" || code === undefined || code === 1000) return;
    onEnd(code === 4403 ? "You are logged out." : reason); // 4403: the server has ended the login.
  }, [state, code, reason, onEnd]);

  const logOut = () => post("logout").then(() => onEnd("You are logged out."), (error) => alert(error.message));

  return (
    <div className="chat">
      <header>
        <strong>Chat</strong>
        <span>{user}</span>
        <button onClick={logOut}>Log out</button>
      </header>
      <ConnectionBar />
      <nav aria-label="Rooms">
        {rooms.map(({ room, title }) => (
          <button key={room} aria-current={room === open ? "page" : undefined} onClick={() => setOpen(room)}>
            {title}
          </button>
        ))}
      </nav>
      <Room key={open} room={open} title={rooms.find(({ room }) => room === open).title} />
      <Toasts rooms={rooms} onOpen={setOpen} />
    </div>
  );
};
