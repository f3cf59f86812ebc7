// The page of `wsgate dev`. It uses the client as any page would: what it shows of the wire, it sees in
// a WebSocket of its own that stands in between.

const { connect } = globalThis.wsgate;
const { public: gateway, backend, key, token: aliceToken } = document.body.dataset;

/** More than anybody reads; a page that is left open must not grow for ever. */
const MAX_LINES = 300;
/** Short enough to watch a renewal: it is announced when half of it is over. */
const SHORT_LIFE_S = 20;

/** Everything from the wire is text, and never HTML. */
const element = (name, { text, ...properties } = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
};

/** Adds a line to a list, and follows the end if that is where the reader is. */
const addLine = (list, line) => {
  const following = list.scrollHeight - list.scrollTop - list.clientHeight < 8;
  list.append(line);
  if (list.childElementCount > MAX_LINES) list.firstElementChild.remove();
  if (following) list.scrollTop = list.scrollHeight;
};

const seconds = (ms) => (ms < 10_000 ? (ms / 1000).toFixed(1) : Math.round(ms / 1000));

// --- Tokens ---

const decode = (part) => {
  const bytes = Uint8Array.from(atob(part.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
  return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
};

/** What a token says of itself: its parts, or why it is none. */
const read = (token) => {
  const parts = token.trim().split(".");
  if (parts.length !== 3) {
    return { wrong: `This is not a JWT: it has ${parts.length} of 3 parts with dots between them.` };
  }
  try {
    const [header, claims] = parts.slice(0, 2).map(decode);
    return { header, claims, ...verdict(header, claims) };
  } catch {
    return { wrong: "This is not a JWT: its parts are not JSON in base64url." };
  }
};

/** As far as one can tell without the key. */
const verdict = ({ alg }, { sub, exp, nbf }) => {
  const now = Date.now() / 1000;
  if (alg !== "HS256") return { wrong: `Here only HS256 counts, and this is ${alg}.` };
  if (!["string", "number"].includes(typeof sub)) return { wrong: "It has no `sub`, so nobody knows whose it is." };
  if (typeof exp !== "number") return { wrong: "It has no `exp`: a token has to end." };
  if (exp <= now) return { wrong: `It ended ${span(now - exp)} ago.` };
  if (nbf > now + 5) return { wrong: `It begins in ${span(nbf - now)} only.` };
  return { right: `It says to be ${sub}. Whether its signature is right, only the gateway can tell.` };
};

const span = (s) => {
  if (s < 120) return `${Math.ceil(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} minutes`;
  return s < 172_800 ? `${Math.round(s / 3600)} hours` : `${Math.round(s / 86_400)} days`;
};

/** How long a token goes on. */
const left = (claims) => {
  if (typeof claims?.exp !== "number") return "";
  const rest = claims.exp - Date.now() / 1000;
  return rest > 0 ? `ends in ${span(rest)}` : `ended ${span(-rest)} ago`;
};

/** Writes only what is new: a screen reader, or who selects text, is not disturbed. */
const write = (place, text) => {
  if (place.textContent !== text) place.textContent = text;
};

/** Asks the gateway for its verdict on a token, by a connection that ends at once. */
const ask = (token) =>
  new Promise((resolve) => {
    const socket = new WebSocket(new URL("/ws", location.href.replace("http", "ws")));
    socket.onopen = () => socket.send(JSON.stringify({ type: "auth", token }));
    socket.onmessage = ({ data }) => {
      const { type, user } = JSON.parse(data);
      if (type === "welcome") resolve({ right: `The gateway takes it: this is ${user}.` });
      socket.close();
    };
    // After a welcome this changes nothing.
    socket.onclose = ({ code, reason }) => resolve({ wrong: `The gateway refuses it: ${`${code} ${reason}`.trim()}` });
  });

const verdictLine = ({ wrong, right }) =>
  element("p", { text: wrong ?? right, className: wrong ? "verdict bad" : "verdict" });

/** Shows a token's header and claims in words. */
const inspect = (place, token) => {
  const { header, claims, ...verdict } = read(token);
  const list = element("dl", { className: "claims" });
  for (const [name, value] of Object.entries({ ...header, ...claims })) {
    const time = ["exp", "nbf", "iat"].includes(name) && ` (${new Date(value * 1000).toLocaleString()})`;
    list.append(element("dt", { text: name }), element("dd", { text: JSON.stringify(value) + (time || "") }));
  }
  place.replaceChildren(verdictLine(verdict), ...(claims ? [list] : []));
  return claims;
};

/** The same token with another signature; its last character is not like the others. */
const damaged = (token) => token.slice(0, -20) + [...token.slice(-20, -1)].reverse().join("") + token.at(-1);

// --- Frames ---

/** A WebSocket that shows what goes through it. */
const shownBy = (show) =>
  class extends WebSocket {
    constructor(url) {
      super(url);
      this.addEventListener("message", ({ data }) => show("in", data));
      this.addEventListener("close", ({ code, reason }) => show("end", JSON.stringify({ type: "closed", code, reason })));
    }
    send(text) {
      show("out", text);
      super.send(text);
    }
  };

const parse = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return { type: text };
  }
};

/** A line for a frame, which opens to the whole of it. */
const frameLine = (way, text) => {
  const frame = parse(text);
  // A token is long, and says nothing to the eye.
  if (frame.token) frame.token = `${frame.token.slice(0, 8)}…`;
  const { type, room = frame.to?.room, code = "", reason = "" } = frame;
  const now = new Date();
  const time = `${now.toTimeString().slice(0, 8)}.${String(now.getMilliseconds()).padStart(3, "0")}`;
  const size = way === "end" ? "" : `${new TextEncoder().encode(text).length} B`;
  const cells = { way: "", time, type, room: room ?? `${code} ${reason}`.trim(), size };
  const summary = element("summary");
  for (const [className, text] of Object.entries(cells)) {
    summary.append(element("span", { className, text, title: text }));
  }
  summary.firstElementChild.setAttribute("role", "img");
  summary.firstElementChild.setAttribute("aria-label", { in: "received", out: "sent", end: "closed" }[way]);
  const details = element("details", { className: way }, summary);
  // Written out only for those who look.
  const writeOut = () => details.append(element("pre", { text: JSON.stringify(frame, null, 2) }));
  details.addEventListener("toggle", writeOut, { once: true });
  return element("li", {}, details);
};

// --- A user's panel ---

const openPanel = (user) => {
  const panel = document.getElementById("panel").content.cloneNode(true).firstElementChild;
  const part = (selector) => panel.querySelector(selector);
  const [toggle, state, messages, frames, chips] = [".toggle", ".state", ".messages", ".frames", ".rooms"].map(part);
  const [send, join] = [part(".send"), part(".join")];
  part(".name").textContent = user;
  part(".avatar").textContent = user[0];
  panel.setAttribute("aria-label", user);
  document.getElementById("panels").append(panel);

  // --- Token ---

  /** What the next token is to be like. */
  let kind = "good";
  let claims;
  const token = async () => {
    const life = kind === "short" ? `&expires_in=${SHORT_LIFE_S}` : "";
    const answer = await fetch(`/dev/token?user=${user}${life}`).catch(() => {
      throw new Error("no token: wsgate dev does not answer");
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(text);
    const given = kind === "bad" ? damaged(text) : text;
    claims = inspect(part(".token"), given);
    return given;
  };

  // --- Connection ---

  let count = 0;
  let paused = false;
  const showFrame = (way, text) => {
    part(".count").textContent = ++count;
    if (!paused) addLine(frames, frameLine(way, text));
  };
  let raw;
  class Shown extends shownBy(showFrame) {
    constructor(url) {
      super(url);
      raw = this;
    }
  }
  const socket = connect("/ws", { token, WebSocket: Shown });

  const showState = () => {
    const { state: now, code, reason } = socket.status;
    state.dataset.state = now;
    part(".state b").textContent = now;
    part(".why").textContent = now === "open" || now === "connecting" || code === 1000 ? "" : `${code} ${reason}`;
    toggle.textContent = now === "closed" ? "Connect" : "Disconnect";
    panel.querySelectorAll("[data-try]").forEach((button) => (button.disabled = now !== "open"));
    showMembers();
  };
  const showTime = () => {
    const { retryAt } = socket.status;
    write(part(".countdown"), retryAt ? `again in ${seconds(Math.max(0, retryAt - Date.now()))} s` : "");
    write(part(".left"), left(claims));
  };
  socket.onState(showState);
  setInterval(showTime, 200);

  const reconnect = () => {
    socket.close();
    socket.open();
  };
  const tries = {
    lose: () => raw.close(3000, "lost on purpose"),
    short: () => ((kind = "short"), reconnect()),
    bad: () => ((kind = "bad"), reconnect()),
  };
  for (const button of panel.querySelectorAll("[data-try]")) {
    button.addEventListener("click", () => {
      // A button that is disabled loses the focus.
      toggle.focus();
      tries[button.dataset.try]();
    });
  }
  toggle.addEventListener("click", () => {
    if (socket.state !== "closed") return socket.close();
    kind = "good";
    socket.open();
  });

  // --- Rooms and messages ---

  const rooms = new Map();
  let chosen;
  const note = (text) => addLine(messages, element("div", {}, element("span", { text, className: "note" })));

  /** What is shown of a room; it stays the same element as long as one is there, and so keeps the focus. */
  const chip = (name) => {
    const pick = element("button", { type: "button", text: name, onclick: () => choose(name) });
    const away = element("button", { type: "button", text: "×", onclick: () => leave(name) });
    away.setAttribute("aria-label", `Leave ${name}`);
    return { pick, item: element("li", {}, pick, away) };
  };
  const enter = (name) => {
    if (rooms.has(name)) return choose(name);
    const entry = { room: socket.join(name), ...chip(name) };
    rooms.set(name, entry);
    chips.append(entry.item);
    entry.room.onState((status) => {
      if (status.state === "refused" && socket.state !== "closed") note(`${name}: ${status.code}: ${status.reason}`);
      showRooms();
    });
    entry.room.onMembers((seen) => {
      entry.seen = seen;
      showMembers();
    });
    choose(name);
  };
  const leave = (name) => {
    const { room, item } = rooms.get(name);
    room.leave();
    rooms.delete(name);
    item.remove();
    if (chosen === name) chosen = rooms.keys().next().value;
    showRooms();
    showMembers();
    join.elements.room.focus();
  };
  const choose = (name) => {
    chosen = name;
    showRooms();
    showMembers();
  };

  const showRooms = () => {
    for (const [name, { room, pick }] of rooms) {
      pick.className = `choose ${room.state}`;
      pick.setAttribute("aria-pressed", name === chosen);
    }
    send.querySelector("button").disabled = !chosen;
  };
  const showMembers = () => {
    const { users, members, error } = rooms.get(chosen)?.seen ?? {};
    const names = members?.map((member) => (member.user === user ? `${member.user} (you)` : member.user)).join(", ");
    const who = error ? error.message : (names ?? (users === undefined ? "…" : `${users} users`));
    const where = socket.state === "open" ? "In" : "Last seen in";
    write(part(".members"), chosen ? `${where} ${chosen}: ${who}` : "In no room.");
  };

  const show = ({ event, data, room, from = "a backend" }) => {
    const text = typeof data?.text === "string" ? data.text : JSON.stringify(data);
    const what = event === "message" ? "" : `, ${event}`;
    const where = `${room === undefined ? " to you or all" : ` in ${room}`}${what}: `;
    const [who, how] = [{ text: from, className: "from" }, { text: where, className: "where" }];
    addLine(messages, element("div", {}, element("span", who), element("span", how), text));
  };
  const listen = async () => {
    for (;;) {
      for await (const event of socket.events()) show(event);
      // It was closed; what comes after it has been opened again is heard as well.
      await new Promise((resolve) => {
        const undo = socket.onState(({ state }) => state !== "closed" && (undo(), resolve()));
      });
    }
  };

  send.addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    const { event, text } = send.elements;
    const said = text.value;
    text.value = "";
    try {
      await rooms.get(chosen).room.publish(event.value, { text: said });
    } catch (error) {
      note(`Not sent: ${error.message}`);
      text.value ||= said;
    }
  });
  join.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    enter(join.elements.room.value);
    join.reset();
  });
  part(".clear").addEventListener("click", () => frames.replaceChildren());
  part(".pause").addEventListener("click", ({ target }) => {
    paused = !paused;
    target.setAttribute("aria-pressed", paused);
  });

  showState();
  listen();
  enter("lobby");
};

// --- What a backend does ---

const pushes = [
  ["To a room", "/v1/publish", { to: { room: "lobby" }, event: "message", data: { text: "hello, lobby" } }],
  ["To a user", "/v1/publish", { to: { user: "bob" }, event: "message", data: { text: "hello, bob" } }],
  ["To all", "/v1/publish", { to: { all: true }, event: "message", data: { text: "hello, everyone" } }],
  ["Disconnect a user", "/v1/users/bob/disconnect", undefined],
];
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const languages = {
  curl: (path, body) =>
    `curl -X POST http://${backend}${path} -H ${quoted(`Authorization: Bearer ${key}`)}` +
    (body ? ` \\\n  -d ${quoted(JSON.stringify(body))}` : ""),
  JavaScript: (path, body) =>
    `await fetch(${JSON.stringify(`http://${backend}${path}`)}, {\n  method: "POST",\n` +
    `  headers: { Authorization: ${JSON.stringify(`Bearer ${key}`)} },\n` +
    (body ? `  body: JSON.stringify(${JSON.stringify(body)}),\n` : "") +
    "});",
  Python: (path, body) =>
    "import json, urllib.request\n" +
    `urllib.request.urlopen(urllib.request.Request(${JSON.stringify(`http://${backend}${path}`)},\n` +
    `    method="POST", headers={"Authorization": ${JSON.stringify(`Bearer ${key}`)}}` +
    (body ? `,\n    data=json.dumps(${JSON.stringify(body).replaceAll(":true", ":True")}).encode()` : "") +
    "))",
};
const inTerminal = () => `websocat 'ws://${gateway}/ws?token=${aliceToken}'`;

const showPushes = (language) => {
  const lines = pushes.map(([title, path, body]) => [title, languages[language](path, body)]);
  lines.push(["Be alice in a terminal, then paste {\"type\":\"join\",\"room\":\"lobby\"}", inTerminal()]);
  document.getElementById("pushes").replaceChildren(
    ...lines.map(([title, text]) => {
      const code = element("pre", { text });
      const copy = element("button", { type: "button", text: "Copy", onclick: () => copyFrom(copy, code) });
      copy.setAttribute("aria-label", `Copy: ${title}`);
      const head = element("div", { className: "row apart" }, element("h3", { text: title }), copy);
      return element("div", { className: "push" }, head, code);
    }),
  );
};

const copyFrom = async (button, code) => {
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  } catch {
    // Not allowed to: then it is at least selected.
    getSelection().selectAllChildren(code);
  }
};

for (const [index, language] of Object.keys(languages).entries()) {
  const radio = element("input", { type: "radio", name: "language", checked: index === 0 });
  radio.addEventListener("change", () => showPushes(language));
  document.getElementById("languages").append(element("label", {}, radio, element("span", { text: language })));
}
showPushes("curl");

const [pasted, asking, pastedLeft, inspected] = ["pasted", "ask", "pasted-left", "inspected"].map((id) =>
  document.getElementById(id),
);
let pastedClaims;
pasted.addEventListener("input", () => {
  const text = pasted.value.trim();
  asking.disabled = !text;
  pastedClaims = text ? inspect(inspected, text) : inspected.replaceChildren();
});
asking.addEventListener("click", async () => {
  const text = pasted.value.trim();
  const said = await ask(text);
  // Meanwhile there may be another.
  if (pasted.value.trim() !== text) return;
  inspect(inspected, text);
  inspected.prepend(verdictLine(said));
});
setInterval(() => write(pastedLeft, left(pastedClaims)), 200);

openPanel("alice");
openPanel("bob");
