import { useState } from "react";

import { post } from "./server.js";

const DEMO = [["alice", "rabbit"], ["bob", "hammer"], ["carol", "guitar"]];

export const Login = ({ notice, onLogin }) => {
  const [user, setUser] = useState("");
  const [password, setPassword] = useState("");
  const [error, setError] = useState("");

  const submit = (event) => {
    event.preventDefault();
    post("login", { user, password }).then(onLogin, (error) => setError(error.message));
  };
  const fill = ([user, password]) => {
    setUser(user);
    setPassword(password);
  };

  return (
    <main className="login">
      <h1>Chat</h1>
      {notice && <p className="notice" role="status">{notice}</p>}
      <form onSubmit={submit}>
        <label htmlFor="user">User</label>
        <input id="user" autoComplete="username" autoCapitalize="none" required
          value={user} onChange={(event) => setUser(event.target.value)} />
        <label htmlFor="password">Password</label>
        <input id="password" type="password" autoComplete="current-password" required
          value={password} onChange={(event) => setPassword(event.target.value)} />
        {error && <p className="error" role="alert">{error}</p>}
        <button className="primary">Log in</button>
      </form>
      <section aria-labelledby="demo">
        <h2 id="demo">This is a demo. Be one of these:</h2>
        <ul>
          {DEMO.map((one) => (
            <li key={one[0]}>
              <button onClick={() => fill(one)}>
                <b>{one[0]}</b> {one[1]}
              </button>
            </li>
          ))}
        </ul>
      </section>
    </main>
  );
};
