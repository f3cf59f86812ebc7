// The playground of `wsgate dev`, as somebody uses it who has just started it.

import assert from "node:assert/strict";
import { test as testWith } from "node:test";

import { WSGATE, openPage, screenshot, startBrowser, startProgram } from "./support.js";

const test = (name, run) => testWith(name, { timeout: 60_000 }, run);

/** Starts `wsgate dev`; its secrets are others each time. */
const startDev = async (t, listen = "127.0.0.1:0", backend = "127.0.0.1:0") => {
  const { log, end } = await startProgram(t, WSGATE, ["dev", "--listen", listen, "--backend-listen", backend], {
    until: /listening public=/,
  });
  const [, at, atBackend] = log.join("\n").match(/listening public=(\S+) backend=(\S+)/);
  const key = log.join("\n").match(/Authorization: Bearer ([^']+)/)[1];
  return { url: `http://${at}/`, at, atBackend, key, end };
};

const start = async (t, options) => {
  const dev = await startDev(t);
  const page = await openPage(await startBrowser(t), dev.url, options);
  const [alice, bob] = ["alice", "bob"].map((name) => page.getByRole("region", { name }));
  await isOpen(alice);
  await isOpen(bob);
  return { dev, page, alice, bob };
};

const state = (panel) => panel.getByRole("status");
const isOpen = (panel) => state(panel).getByText("open").waitFor();
const say = async (panel, text) => {
  await panel.getByRole("textbox", { name: "Message", exact: true }).fill(text);
  await panel.getByRole("button", { name: "Send" }).click();
};
const messages = (panel) => panel.getByRole("log", { name: "Messages" });
const frames = (panel) => panel.getByRole("list", { name: "Frames" });

/** The controls that a screen reader has no name for, as the browser's accessibility tree has them. */
const unnamedControls = async (page) => {
  const session = await page.context().newCDPSession(page);
  const { nodes } = await session.send("Accessibility.getFullAXTree");
  const roles = ["button", "textbox", "radio", "radiogroup", "DisclosureTriangle", "log", "region"];
  const controls = nodes.filter(({ ignored, role }) => !ignored && roles.includes(role?.value));
  assert.ok(controls.length > 20, "there are some");
  return controls.filter(({ name, role }) => !name?.value?.trim()).map(({ role }) => role.value);
};

test("two users see each other, talk, and see what goes over the wire", async (t) => {
  const { dev, page, alice, bob } = await start(t, { colorScheme: "light" });
  await alice.getByText("In lobby: alice (you), bob").waitFor();
  await say(alice, "hello, <b>bob</b>");
  await messages(bob).getByText("hello, <b>bob</b>").waitFor();

  await bob.getByRole("textbox", { name: "Room to join" }).fill("chat:42");
  await bob.getByRole("button", { name: "Join" }).click();
  await bob.getByText("In chat:42: bob (you)").waitFor();
  await say(bob, "alone");
  await messages(bob).getByText("in chat:42: alone").waitFor();
  await bob.getByRole("button", { name: "Leave lobby" }).click();
  await alice.getByText("In lobby: alice (you)", { exact: true }).waitFor({ timeout: 10_000 });

  await fetch(`http://${dev.atBackend}/v1/publish`, {
    method: "POST",
    headers: { authorization: `Bearer ${dev.key}` },
    body: JSON.stringify({ to: { user: "alice" }, event: "order", data: { id: 7 } }),
  });
  await messages(alice).getByText('a backend in user:alice, order: {"id":7}').waitFor();

  const published = frames(alice).locator("summary", { hasText: "publish" }).first();
  assert.match(await published.innerText(), /\d\d:\d\d:\d\d\.\d{3}\s+publish\s+lobby\s+\d+ B/);
  await published.click();
  await frames(alice).getByText('"text": "hello, <b>bob</b>"').first().waitFor();
  await frames(alice).locator("summary", { hasText: "auth" }).click();
  assert.match(await frames(alice).locator("pre", { hasText: '"auth"' }).innerText(), /"token": ".{8}…"/);
  await alice.getByRole("button", { name: "Clear" }).click();
  await frames(alice).locator("summary").first().waitFor({ state: "detached" });
  assert.deepEqual(page.errors, []);
  await screenshot(page, "playground-light");
});

test("what is pushed by the lines to paste arrives", async (t) => {
  const { page, alice, bob } = await start(t);
  const languages = {
    curl: (code) => ["bash", "-c", `${code}; echo; echo done`],
    JavaScript: (code) => ["node", "--input-type=module", "-e", `${code}\nconsole.log("done")`],
    Python: (code) => ["python3", "-c", `${code}; print("done")`],
  };
  for (const [index, [language, command]] of Object.entries(languages).entries()) {
    await page.getByText(language, { exact: true }).click();
    const code = await page.locator(".push pre").nth(1).innerText();
    assert.ok(code.includes("/v1/publish"), code);
    const [program, ...args] = command(code);
    await startProgram(t, program, args, { until: /done/ });
    await messages(bob).getByText("hello, bob").nth(index).waitFor();
  }
  assert.equal(await messages(alice).getByText("hello, bob").count(), 0);
});

test("wsgate dev is killed and started again, and both users come back with nothing to do", async (t) => {
  const { dev, alice, bob } = await start(t);
  await dev.end("SIGKILL");
  await alice.getByText(/again in [\d.]+ s/).waitFor();
  assert.match(await state(alice).innerText(), /^waiting /);
  await startDev(t, dev.at, dev.atBackend);
  await isOpen(alice);
  await isOpen(bob);
  await alice.getByText("In lobby: alice (you), bob").waitFor();
  await say(bob, "back again");
  await messages(alice).getByText("back again").waitFor();
});

test("a connection that is lost is there again, and says why it was away", async (t) => {
  const { alice } = await start(t);
  await alice.getByRole("button", { name: "lose the connection" }).click();
  await state(alice).getByText("3000 lost on purpose").waitFor();
  await isOpen(alice);
  await frames(alice).locator("summary", { hasText: /closed\s*3000 lost on purpose/ }).waitFor();
});

test("a token that ends soon is renewed on the open connection", async (t) => {
  const { alice } = await start(t);
  await alice.getByRole("button", { name: "a token that ends soon" }).click();
  await alice.getByText(/^ends in (1\d|20|[1-9]) s$/).waitFor();
  const closes = await frames(alice).locator("summary", { hasText: "closed" }).count();
  // Announced when half of it is over, and renewed some time after that, at random.
  await frames(alice).locator("summary", { hasText: "expiring" }).waitFor({ timeout: 15_000 });
  await frames(alice).locator("summary", { hasText: "auth" }).nth(2).waitFor({ timeout: 15_000 });
  assert.equal((await state(alice).innerText()).trim(), "open");
  assert.equal(await frames(alice).locator("summary", { hasText: "closed" }).count(), closes);
});

test("a token that is refused says why, and a good one helps", async (t) => {
  const { page, alice } = await start(t);
  await alice.getByRole("button", { name: "a bad token" }).click();
  await state(alice).getByText("4401 the token's signature is wrong").waitFor();
  assert.match(await state(alice).innerText(), /^closed 4401 /);
  await screenshot(page, "playground-refused");
  await alice.getByRole("button", { name: "Connect", exact: true }).click();
  await isOpen(alice);
  await say(alice, "in again");
  await messages(alice).getByText("in again").waitFor();
});

test("the page goes offline and online", async (t) => {
  const { page, alice, bob } = await start(t);
  await page.context().setOffline(true);
  await alice.getByText("offline").waitFor();
  await page.context().setOffline(false);
  await isOpen(alice);
  await isOpen(bob);
  await alice.getByText("In lobby: alice (you), bob").waitFor();
});

test("a token that is pasted is taken apart", async (t) => {
  const { dev, page } = await start(t);
  const box = page.getByRole("textbox", { name: "Token to look at" });
  const token = await (await fetch(`${dev.url}dev/token?user=carol&expires_in=600`)).text();
  const [header, claims, signature] = token.split(".");
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  for (const [text, words] of [
    [token, "It says to be carol."],
    ["hello", "This is not a JWT: it has 1 of 3 parts"],
    [`a.${claims}.b`, "its parts are not JSON in base64url"],
    [`${encode({ alg: "none" })}.${claims}.`, "Here only HS256 counts, and this is none."],
    [`${header}.${encode({ sub: "x", exp: 1 })}.${signature}`, /It ended \d+ days ago/],
    [`${header}.${encode({ sub: "x" })}.${signature}`, "It has no `exp`"],
    [`${header}.${encode({ exp: 9e9 })}.${signature}`, "It has no `sub`"],
  ]) {
    await box.fill(text);
    await page.getByText(words).waitFor();
  }
});

test("the gateway is asked about a token that is pasted", async (t) => {
  const { dev, page } = await start(t);
  const token = await (await fetch(`${dev.url}dev/token?user=carol&expires_in=60`)).text();
  const verdict = async (text, words) => {
    await page.getByRole("textbox", { name: "Token to look at" }).fill(text);
    await page.getByRole("button", { name: "Ask the gateway" }).click();
    await page.getByText(words).waitFor();
  };
  await verdict(token, "The gateway takes it: this is carol.");
  await page.getByText(/^ends in [1-5]\d s$/).waitFor();
  await verdict(`${token.slice(0, -9)}AAAAAAAAA`, "The gateway refuses it: 4401 the token's signature is wrong");
  await verdict("hello", "The gateway refuses it: 4401 this is not a JWT");
  assert.deepEqual(page.errors, []);
});

test("the focus stays where it is while connections come and go", async (t) => {
  const { alice, bob } = await start(t);
  const leaves = alice.getByRole("button", { name: "Leave lobby" });
  const chooses = alice.getByRole("button", { name: "lobby", exact: true });
  for (const focused of [leaves, chooses]) {
    for (const panel of [alice, bob]) {
      const joins = frames(panel).locator("summary", { hasText: "join" });
      const before = await joins.count();
      await focused.focus();
      // A click would take the focus.
      await panel.getByRole("button", { name: "lose the connection" }).evaluate((button) => {
        const { activeElement } = document;
        button.click();
        activeElement.focus();
      });
      await joins.nth(before).waitFor();
      await isOpen(panel);
      assert.ok(await focused.evaluate((it) => it === document.activeElement));
    }
  }
});

test("everything is done by keyboard alone", async (t) => {
  const { page, alice, bob } = await start(t);
  /** Goes on with Tab until something has the focus, which it must within a round. */
  const tabTo = async (locator) => {
    for (let step = 0; step < 60; step++) {
      if (await locator.evaluate((it) => it === document.activeElement)) return;
      await page.keyboard.press("Tab");
    }
    assert.fail("it cannot be reached by Tab");
  };
  await tabTo(alice.getByRole("textbox", { name: "Room to join" }));
  await page.keyboard.type("keys");
  await page.keyboard.press("Enter");
  await alice.getByText("In keys: alice (you)").waitFor();
  await tabTo(alice.getByRole("textbox", { name: "Message", exact: true }));
  await page.keyboard.type("typed");
  await page.keyboard.press("Enter");
  await messages(alice).getByText("in keys: typed").waitFor();
  await tabTo(alice.getByRole("button", { name: "Pause" }));
  await page.keyboard.press("Space");
  assert.equal(await alice.getByRole("button", { name: "Pause" }).getAttribute("aria-pressed"), "true");
  await tabTo(bob.getByRole("button", { name: "Disconnect" }));
  await page.keyboard.press("Enter");
  await state(bob).getByText("closed").waitFor();
});

test("it is whole in the dark and on a phone, and every control has a name", async (t) => {
  const { page, alice } = await start(t, { colorScheme: "dark", viewport: { width: 360, height: 740 } });
  await say(alice, "a word that is so long that it has to be broken: ".padEnd(300, "x"));
  await messages(alice).getByText("xxx").waitFor();
  assert.equal(await page.evaluate("document.documentElement.scrollWidth"), 360);
  assert.deepEqual(await unnamedControls(page), []);
  assert.deepEqual(page.errors, []);
  await screenshot(page, "playground-phone-dark");
});
