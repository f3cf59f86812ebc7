// What each runtime goes through: the whole life of a connection, the gateway's restart included.

export const smoke = async (connect, { url, token, restart, WebSocket }) => {
  const socket = connect(url, { token, WebSocket, backoff: { min: 50, max: 100 } });
  const states = [];
  const lost = new Promise((resolve) => {
    socket.onState(({ state }) => {
      states.push(state);
      if (state === "waiting") resolve();
    });
  });

  const room = socket.join("chat");
  /** Publishes to the room, and returns what is heard there. */
  const say = async (text) => {
    const heard = new Promise((resolve) => room.once("message", (data, { from }) => resolve(`${from}: ${data.text}`)));
    await room.publish("message", { text });
    return heard;
  };

  await room.ready;
  const before = await say("hi");
  const call = await socket.call("add", [1, 2]).catch(({ code }) => code);
  await fetch(restart);
  await lost;
  const after = await say("hi again");
  socket.close();
  return { states: [states[0], states[1], states.at(-2), states.at(-1)], before, call, after };
};
