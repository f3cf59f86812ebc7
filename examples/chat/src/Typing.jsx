import { useEffect, useState } from "react";
import { useEvent } from "wsgate/react";

const SHOWN = 4_000;

/** Who is typing: whoever has said so lately, and has not sent it. */
export const Typing = ({ room }) => {
  const [hints, setHints] = useState([]);
  const without = (user) => (known) => known.filter(({ from }) => from !== user);

  useEvent(`typing:${room}`, "typing", (data, { from }) =>
    setHints((known) => [...without(from)(known), { from, until: Date.now() + SHOWN }]));
  useEvent(`chat:${room}`, "message", ({ from }) => setHints(without(from)));

  const users = hints.map(({ from }) => from);
  const some = users.length > 0;
  useEffect(() => {
    if (!some) return;
    const timer = setInterval(() => setHints((known) => known.filter(({ until }) => until > Date.now())), 500);
    return () => clearInterval(timer);
  }, [some]);

  return <p className="typing" role="status">{some && `${users.join(", ")} ${users.length > 1 ? "are" : "is"} typing …`}</p>;
};
