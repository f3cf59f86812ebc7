import { useEffect, useState } from "react";
import { useEvent } from "wsgate/react";

const SHOWN = 10_000;

/** Says who has mentioned this user, in whatever room that was. */
export const Toasts = ({ rooms, onOpen }) => {
  const [mentions, setMentions] = useState([]);
  const remove = (id) => setMentions((known) => known.filter((mention) => mention.id !== id));

  // From the server, to the user: no room has to be joined for it.
  useEvent("mention", (mention) => setMentions((known) => [...known, mention]));

  return (
    <div className="toasts" role="status">
      {mentions.map(({ id, room, from, text }) => (
        <Toast key={id} onEnd={() => remove(id)}>
          <p>
            <b>{from}</b> in {rooms.find((one) => one.room === room)?.title}: {text}
          </p>
          <button onClick={() => { onOpen(room); remove(id); }}>Open</button>
          <button onClick={() => remove(id)}>Dismiss</button>
        </Toast>
      ))}
    </div>
  );
};

const Toast = ({ onEnd, children }) => {
  useEffect(() => {
    const timer = setTimeout(onEnd, SHOWN);
    return () => clearTimeout(timer);
  }, []);
  return <div className="toast">{children}</div>;
};
