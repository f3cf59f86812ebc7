// examples/chat, started as a reader of its README starts it, in a browser: `npm install` there first.

import assert from "node:assert/strict";
import { test as testWith } from "node:test";
import { fileURLToPath } from "node:url";

import { openPage, screenshot, startBrowser, startProgram, WSGATE } from "./support.js";

/** What hangs fails. */
const test = (name, run) => testWith(name, { timeout: 120_000 }, run);

const CHAT = fileURLToPath(new URL("../../examples/chat/", import.meta.url));

/** What a browser says of a network that fails; pages cannot help it. */
const NETWORK = /WebSocket connection to|Failed to load resource|net::ERR_/;

const startChat = async (t, env) => {
  const free = { WSGATE_BIN: WSGATE, PORT: "0", API_PORT: "0", GATEWAY_PORT: "0", GATEWAY_BACKEND_PORT: "0" };
  const until = /The chat is at (http:\S+)/;
  const { match, log, end } = await startProgram(t, "npm", ["start"], { cwd: CHAT, until, group: true, env: { ...free, ...env } });
  const signal = (name, signal) => {
    const line = log.findLast((line) => line.startsWith(`[${name}]`) && line.includes(" process "));
    process.kill(Number(line.match(/\d+/)[0]), signal);
  };
  return { url: match[1], log, end, signal };
};

const logIn = async (page, user) => {
  await page.getByRole("button", { name: user }).click();
  await page.getByRole("button", { name: "Log in" }).click();
  await isConnected(page);
};

/** The application, a browser, and pages that end with the test. */
const scene = async (t, env) => {
  const chat = await startChat(t, env);
  const browser = await startBrowser(t);
  /** The page of somebody who has logged in. */
  const enter = async (user, options) => {
    const page = await openPage(browser, chat.url, options);
    await logIn(page, user);
    return page;
  };
  return { ...chat, browser, enter };
};

const bar = (page, state) => page.locator(`.connection[data-state="${state}"]`);
const isConnected = (page) => bar(page, "open").waitFor({ state: "attached" });
const shows = (page, text) => page.getByText(text).first().waitFor();
const input = (page) => page.getByRole("textbox", { name: /^Message to/ });
const say = async (page, text) => {
  await input(page).fill(text);
  await input(page).press("Enter");
};
const goTo = (page, room) => page.getByRole("navigation").getByRole("button", { name: room }).click();
const seesHere = (page, user) => page.getByRole("list", { name: "Who is here" }).getByText(user, { exact: true }).waitFor();
const saysLogIn = (page) => page.getByRole("button", { name: "Log in" }).waitFor();

/** From now on, notes each state of the connection in `states`. */
const watchStates = (page) => page.evaluate(() => {
  const bar = document.querySelector(".connection");
  window.states = [];
  new MutationObserver(() => window.states.push(bar.dataset.state))
    .observe(bar, { attributes: true, attributeFilter: ["data-state"] });
});
const states = (page) => page.evaluate(() => window.states);
const wasAwayAndIsBack = (page) =>
  page.waitForFunction(() => window.states.includes("waiting") && window.states.at(-1) === "open");

const isQuiet = (...pages) => pages.forEach((page) => assert.deepEqual(page.errors, []));
const onlyTheNetworkFailed = (...pages) =>
  pages.forEach((page) => assert.deepEqual(page.errors.filter((error) => !NETWORK.test(error)), []));

test("people talk in rooms, and see who is there and who is typing", async (t) => {
  const { enter } = await scene(t);
  const [alice, bob] = await Promise.all([enter("alice"), enter("bob", { colorScheme: "dark" })]);
  await Promise.all([seesHere(alice, "bob"), seesHere(bob, "alice")]);

  await say(alice, "Hello, <b>who</b> is there?");
  await shows(bob, "Hello, <b>who</b> is there?");
  await input(bob).pressSequentially("It is me");
  await shows(alice, "bob is typing …");
  await screenshot(alice, "chat-light");
  await input(bob).press("Enter");
  await shows(alice, "It is me");
  assert.equal(await alice.getByText("typing …").count(), 0);
  await Promise.all([seesHere(alice, "bob"), seesHere(bob, "alice")]);
  await screenshot(bob, "chat-dark");

  await alice.reload();
  await isConnected(alice);
  await Promise.all([shows(alice, "Hello, <b>who</b> is there?"), shows(alice, "It is me"), seesHere(alice, "bob")]);
  isQuiet(alice, bob);
});

test("who may not enter a room is told why, and the others may", async (t) => {
  const { enter } = await scene(t);
  const [alice, bob] = await Promise.all([enter("alice"), enter("bob")]);
  await goTo(alice, "Birthday");
  await alice.getByRole("alert").getByText("Not you, Alice: it would be no surprise any more.").waitFor();
  await screenshot(alice, "chat-refused");
  assert.equal(await input(alice).count(), 0);

  await goTo(bob, "Birthday");
  await seesHere(bob, "bob");
  await say(bob, "She knows nothing, @alice.");
  await shows(bob, "She knows nothing");
  await goTo(alice, "General");
  await say(bob, "I mean @carol.");
  await shows(bob, "I mean @carol.");
  await say(alice, "What do you talk about?");
  await shows(alice, "What do you talk about?");
  assert.equal(await alice.getByText("She knows nothing").count(), 0);
  isQuiet(alice, bob);
});

test("a mention notifies in whatever room one is", async (t) => {
  const { enter } = await scene(t);
  const phone = { viewport: { width: 390, height: 844 }, hasTouch: true };
  const [alice, bob] = await Promise.all([enter("alice"), enter("bob", phone)]);
  await goTo(bob, "Music");
  await bob.getByRole("heading", { name: "Music" }).waitFor();
  await say(alice, "Are you there, @bob?");
  const toast = bob.getByRole("status").filter({ hasText: "alice in General: Are you there, @bob?" });
  await toast.waitFor();
  await screenshot(bob, "chat-phone-toast");
  await toast.getByRole("button", { name: "Open" }).click();
  await bob.getByRole("heading", { name: "General" }).waitFor();
  await bob.getByRole("log").getByText("Are you there, @bob?").waitFor();
  await screenshot(bob, "chat-phone");
  isQuiet(alice, bob);
});

test("when the gateway is killed and comes back, everybody is where they were", async (t) => {
  const { enter, signal } = await scene(t);
  const [alice, bob] = await Promise.all([enter("alice"), enter("bob")]);
  await Promise.all([goTo(alice, "Music"), goTo(bob, "Music")]);
  await Promise.all([seesHere(alice, "bob"), seesHere(bob, "alice")]);
  await Promise.all([watchStates(alice), watchStates(bob)]);
  signal("gateway", "SIGKILL");
  await shows(alice, "Connection lost, next attempt in");
  await screenshot(alice, "chat-lost");
  await say(alice, "This waits for the connection.");
  await Promise.all([wasAwayAndIsBack(alice), wasAwayAndIsBack(bob)]);
  await Promise.all([shows(alice, "This waits for the connection."), shows(bob, "This waits for the connection.")]);
  await Promise.all([seesHere(alice, "bob"), seesHere(bob, "alice")]);
  await say(bob, "Here we are again.");
  await shows(alice, "Here we are again.");
  onlyTheNetworkFailed(alice, bob);
});

test("when the server does not answer, a room is waited for", async (t) => {
  const { enter, signal } = await scene(t);
  const alice = await enter("alice");
  await seesHere(alice, "alice");
  signal("server", "SIGSTOP");
  await goTo(alice, "Music");
  await shows(alice, "Not in the room for now:");
  await input(alice).fill("This stays.");
  await screenshot(alice, "chat-waiting");
  signal("server", "SIGCONT");
  await seesHere(alice, "alice");
  assert.equal(await alice.getByRole("alert").count(), 0);
  await input(alice).press("Enter");
  await alice.getByRole("log").getByText("This stays.").waitFor();
  isQuiet(alice);
});

test("a page that was offline catches up", async (t) => {
  const { enter } = await scene(t);
  const [alice, bob] = await Promise.all([enter("alice"), enter("bob")]);
  await seesHere(alice, "bob");
  await watchStates(alice);
  await alice.context().setOffline(true);
  await say(bob, "Alice does not hear this.");
  await shows(bob, "Alice does not hear this.");
  await alice.context().setOffline(false);
  await shows(alice, "Alice does not hear this.");
  await isConnected(alice);
  await say(alice, "But I read it.");
  await shows(bob, "But I read it.");
  onlyTheNetworkFailed(alice, bob);
});

test("a token is renewed on the open connection, until the login has ended", async (t) => {
  const { enter } = await scene(t, { TOKEN_LIFE: "6" });
  const [alice, bob] = await Promise.all([enter("alice"), enter("bob")]);
  await Promise.all([seesHere(alice, "bob"), seesHere(bob, "alice")]);
  await watchStates(alice);
  // Each is good for six seconds and renewed after three: with the second, the one from the beginning has ended.
  for (let renewals = 0; renewals < 2; renewals++) await alice.waitForResponse(/\/api\/token$/);
  await say(bob, "Are you still there?");
  await shows(alice, "Are you still there?");
  assert.deepEqual(await states(alice), []);
  isQuiet(alice, bob);

  await alice.context().clearCookies();
  await saysLogIn(alice);
  await shows(alice, "You are logged out.");
  onlyTheNetworkFailed(alice);
});

test("logging out ends all pages of the login, and no other", async (t) => {
  const { enter, url } = await scene(t);
  const [alice, elsewhere] = await Promise.all([enter("alice"), enter("alice")]);
  const another = await alice.context().newPage();
  await another.goto(url);
  await isConnected(another);
  await another.getByRole("button", { name: "Log out" }).click();
  await Promise.all([saysLogIn(another), saysLogIn(alice)]);
  await another.close();
  await shows(alice, "You are logged out.");
  await screenshot(alice, "chat-login");
  isQuiet(alice, elsewhere);
  await alice.getByLabel("User").fill("bob");
  await alice.getByLabel("Password").fill("rabbit");
  await alice.getByRole("button", { name: "Log in" }).click();
  await shows(alice, "This is not the password.");
  await logIn(alice, "bob");
  await seesHere(elsewhere, "bob");
  onlyTheNetworkFailed(alice, elsewhere);
});

test("one Ctrl-C ends it all", { timeout: 60_000 }, async (t) => {
  const { url, log, end } = await startChat(t);
  await end("SIGINT");
  await assert.rejects(fetch(url));
  assert.ok(!log.some((line) => line.includes("has ended")), "nothing is started again");
});
