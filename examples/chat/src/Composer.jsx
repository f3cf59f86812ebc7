import { useRef, useState } from "react";
import { useRoom, useSocket } from "wsgate/react";

const HINT_EVERY = 2_000;

/** What is wrong with a message that could not be sent. */
const explain = ({ code, data, message }) => {
  if (code === "call_refused") return data.error;
  if (code === "disconnected" || code === "timeout") return "Perhaps this was not sent. Send it again: it will not be there twice.";
  return message;
};

export const Composer = ({ room, title }) => {
  const socket = useSocket();
  const typing = useRoom(`typing:${room}`);
  const [text, setText] = useState("");
  const [sending, setSending] = useState(false);
  const [error, setError] = useState("");
  const id = useRef(null); // of the message that is being written
  const hinted = useRef(0);

  const change = (event) => {
    setText(event.target.value);
    id.current = null;
    if (Date.now() - hinted.current < HINT_EVERY) return;
    hinted.current = Date.now();
    // It is worth nothing later, so it is not queued; nor does it matter if it fails.
    typing.publish("typing", undefined, { echo: false, queue: false }).catch(() => {});
  };

  const submit = async (event) => {
    event.preventDefault();
    if (sending || !text.trim()) return;
    id.current ??= crypto.randomUUID();
    setSending(true);
    try {
      // Without a connection, this waits for one.
      await socket.call("message", { room, text, id: id.current });
      id.current = null;
      hinted.current = 0;
      setText("");
      setError("");
    } catch (error) {
      setError(explain(error));
    } finally {
      setSending(false);
    }
  };

  return (
    <form className="composer" onSubmit={submit}>
      {error && <p className="error" role="alert">{error}</p>}
      <input aria-label={`Message to ${title}`} placeholder="Message; @bob notifies bob" autoComplete="off" autoFocus
        maxLength={2000} readOnly={sending} value={text} onChange={change} />
      <button className="primary" disabled={sending || !text.trim()}>{sending ? "Sending …" : "Send"}</button>
    </form>
  );
};
