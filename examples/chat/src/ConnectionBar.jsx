import { useEffect, useState } from "react";
import { useConnectionState } from "wsgate/react";

const secondsUntil = (time) => Math.max(0, Math.ceil((time - Date.now()) / 1000));

/** Counts the seconds down to a time. */
const Countdown = ({ until }) => {
  const [seconds, setSeconds] = useState(() => secondsUntil(until));
  useEffect(() => {
    const timer = setInterval(() => setSeconds(secondsUntil(until)), 200);
    return () => clearInterval(timer);
  }, [until]);
  // A screen reader would read out every second.
  return <span aria-hidden="true">, next attempt in {seconds} s</span>;
};

/** Says that there is no connection; nothing while there is one. */
export const ConnectionBar = () => {
  const { state, retryAt } = useConnectionState();
  return (
    <p className="connection" role="status" data-state={state}>
      {state === "connecting" && "Connecting …"}
      {state === "waiting" && <>Connection lost<Countdown key={retryAt} until={retryAt} /></>}
    </p>
  );
};
