import { useEffect, useState } from "react";
import { useEvent, useSocket } from "wsgate/react";

/** Each message once, in the order of their times. */
const merge = (some, more) =>
  [...new Map([...some, ...more].map((message) => [message.id, message])).values()].sort((a, b) => a.at - b.at);

const useMessages = (room, joined) => {
  const socket = useSocket();
  const [messages, setMessages] = useState([]);
  const [loaded, setLoaded] = useState(false);
  const [error, setError] = useState("");

  useEvent(`chat:${room}`, "message", (message) => setMessages((known) => merge(known, [message])));

  // What was said before, and while the connection was lost. It is asked for after the join, so that nothing is
  // missed in between; what comes twice is merged.
  useEffect(() => {
    if (!joined) return;
    const unmounted = new AbortController();
    socket.call("history", { room }, { signal: unmounted.signal }).then(
      (history) => {
        setMessages((known) => merge(history, known));
        setLoaded(true);
        setError("");
      },
      (error) => unmounted.signal.aborted || setError(error.message),
    );
    return () => unmounted.abort();
  }, [socket, room, joined]);

  return { messages, loaded, error };
};

const time = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });

export const Messages = ({ room, joined }) => {
  const { messages, loaded, error } = useMessages(room, joined);
  const { user } = useSocket();
  return (
    <div className="messages" role="log" aria-label="Messages" tabIndex={0}>
      <div>
        {error && <p className="error">The earlier messages could not be loaded: {error}</p>}
        {loaded && messages.length === 0 && <p className="empty">Nobody has said anything yet.</p>}
        <ol>
          {messages.map(({ id, from, text, at }) => (
            <li key={id} className={from === user ? "own" : undefined}>
              <span className="from">{from}</span> <time dateTime={new Date(at).toISOString()}>{time.format(at)}</time>
              <p>{text}</p>
            </li>
          ))}
        </ol>
      </div>
    </div>
  );
};
