// A page for React, and components rendered into it.

import { Window } from "happy-dom";

const NAMES = "window document navigator HTMLElement HTMLIFrameElement Node Text Event MutationObserver".split(" ");
const window = new Window({ url: "http://app.test/" });
for (const name of NAMES) {
  const value = name === "window" ? window : window[name];
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
}
globalThis.IS_REACT_ACT_ENVIRONMENT = true;

// React looks at the page when it is loaded.
export const React = await import("react");
const { createRoot } = await import("react-dom/client");

/** Renders an element, and gives ways to render another one, to read the text, and to take it away. */
export const render = async (t, element, options) => {
  const container = window.document.body.appendChild(window.document.createElement("div"));
  const root = createRoot(container, options);
  let mounted = true;
  const view = {
    /** What the page shows. */
    text: () => container.textContent,
    html: () => container.innerHTML,
    render: (next) => React.act(async () => root.render(next)),
    /** Lets something happen outside, and React take note of it. */
    act: (happen) => React.act(async () => happen()),
    async unmount() {
      if (!mounted) return;
      mounted = false;
      await React.act(async () => root.unmount());
      container.remove();
    },
  };
  t.after(() => view.unmount());
  await view.render(element);
  return view;
};
