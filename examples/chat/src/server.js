/** Asks the server. Rejects with an error that people can read, with the `status` of the answer. */
export const post = async (path, body = {}) => {
  const headers = { "content-type": "application/json" };
  const answer = await fetch(`/api/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
  const data = await answer.json().catch(() => ({})); // There is no JSON if it is a proxy that answers.
  if (!answer.ok) throw Object.assign(new Error(data.error ?? "The server cannot be reached."), { status: answer.status });
  return data;
};
