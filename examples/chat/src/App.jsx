import { useEffect, useState } from "react";
import { Unauthorized } from "wsgate";
import { SocketProvider } from "wsgate/react";

import { Chat } from "./Chat.jsx";
import { Login } from "./Login.jsx";

/** Gets a token from the server: for every attempt to connect, and before the one in use ends. */
const getToken = async () => {
  const answer = await fetch("/api/token", { method: "POST" });
  const { token, error } = await answer.json();
  if (answer.status === 401) throw new Unauthorized(error);
  if (!answer.ok) throw new Error("The server gives no token.");
  return token;
};

export const App = () => {
  const [session, setSession] = useState(); // null: nobody is logged in; undefined: not known yet
  const [notice, setNotice] = useState("");

  useEffect(() => {
    fetch("/api/session").then((answer) => answer.json()).then(setSession, () => setSession(null));
  }, []);

  const end = (reason) => {
    setNotice(reason);
    setSession(null);
  };

  if (session === undefined) return null;
  if (session === null) return <Login notice={notice} onLogin={setSession} />;
  return (
    <SocketProvider url="/ws" token={getToken}>
      <Chat session={session} onEnd={end} />
    </SocketProvider>
  );
};
