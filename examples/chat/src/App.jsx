import { useEffect, useState } from "react";
import { Unauthorized } from "wsgate";
import { SocketProvider } from "wsgate/react";

import { Chat } from "./Chat.jsx";
import { Login } from "./Login.jsx";
import { post } from "./server.js";

/** Gets a token from the server: for every attempt to connect, and before the one in use ends. */
const getToken = async () => {
  try {
    return (await post("token")).token;
  } catch (error) {
    // The login has ended. After any other error, the client tries again.
    throw error.status === 401 ? new Unauthorized(error.message) : error;
  }
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
