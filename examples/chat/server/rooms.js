// What the application knows: users, rooms, and what was said. A real one has a database for this.

/** With their passwords, which a real one would keep as hashes. */
export const users = { alice: "rabbit", bob: "hammer", carol: "guitar" };

export const rooms = {
  general: { title: "General" },
  music: { title: "Music" },
  birthday: { title: "Birthday", members: ["bob", "carol"], reason: "Not you, Alice: it would be no surprise any more." },
};

/** Whether a user may be in a room, and if not, why: as the gateway wants to be told. */
export const canAccessRoom = (user, room) => {
  if (!Object.hasOwn(rooms, room)) return { allow: false, reason: "There is no such room." };
  const { members, reason } = rooms[room];
  return !members || members.includes(user) ? { allow: true } : { allow: false, reason };
};

const KEPT = 100;
const messages = new Map(Object.keys(rooms).map((room) => [room, []]));

/** The last messages of a room. */
export const history = (room) => messages.get(room);

/** Keeps a message. One that is there already, as its sender was not sure, is not kept twice. */
export const keep = (room, message) => {
  const kept = messages.get(room);
  const known = kept.find(({ id }) => id === message.id);
  if (known) return known;
  kept.push(message);
  if (kept.length > KEPT) kept.shift();
  return message;
};

/** The users that a text names, as in `@bob`. */
export const mentioned = (text) =>
  [...new Set(text.match(/(?<=@)\w+/g))].filter((user) => Object.hasOwn(users, user));
