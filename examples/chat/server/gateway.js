// What the server asks of the gateway, over HTTP.

const { WSGATE_URL = "http://127.0.0.1:8081", WSGATE_API_KEY } = process.env;

const post = async (path, body) => {
  const headers = { authorization: `Bearer ${WSGATE_API_KEY}` };
  const answer = await fetch(`${WSGATE_URL}/v1/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`the gateway answers ${answer.status}: ${await answer.text()}`);
};

/** Sends an event. The same key within five minutes: it is sent once. */
export const publish = (to, event, data, idempotency_key) => post("publish", { to, event, data, idempotency_key });

/** Closes the connections of a login, and lets nobody in with its tokens; these end by `until`, in Unix seconds. */
export const revoke = (sid, until) => post("revocations", { sid, until });
