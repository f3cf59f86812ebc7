// The events of a browser's page, where there is no browser.

/** An event target that knows who listens. */
const counting = () => {
  const target = new EventTarget();
  const known = [];
  const index = (type, hear) => known.findIndex((it) => it.type === type && it.hear === hear);
  return {
    types: () => known.map(({ type }) => type),
    addEventListener(type, hear, options) {
      if (index(type, hear) < 0) known.push({ type, hear });
      target.addEventListener(type, hear, options);
    },
    removeEventListener(type, hear, options) {
      if (index(type, hear) >= 0) known.splice(index(type, hear), 1);
      target.removeEventListener(type, hear, options);
    },
    dispatchEvent: (event) => target.dispatchEvent(event),
  };
};

/** Makes `globalThis` a page's window, for one test. */
export const openPage = (t) => {
  const [window, document] = [counting(), counting()];
  document.hidden = false;
  Object.defineProperty(document, "visibilityState", { get: () => (document.hidden ? "hidden" : "visible") });
  const navigator = { onLine: true };
  const { addEventListener, removeEventListener } = window;
  for (const [name, value] of Object.entries({ addEventListener, removeEventListener, document, navigator })) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    t.after(() => (before ? Object.defineProperty(globalThis, name, before) : delete globalThis[name]));
  }
  const happens = (target, type, fields) => {
    target.dispatchEvent(Object.assign(new Event(type), fields));
    // What happens to the document bubbles up.
    if (target === document) window.dispatchEvent(new Event(type));
  };
  return {
    /** The types that are listened to. */
    listeners: () => [...window.types(), ...document.types()],
    offline() {
      navigator.onLine = false;
      happens(window, "offline");
    },
    online() {
      navigator.onLine = true;
      happens(window, "online");
    },
    hide() {
      document.hidden = true;
      happens(document, "visibilitychange");
    },
    show() {
      document.hidden = false;
      happens(document, "visibilitychange");
    },
    /** The page is left, and kept for the way back if `persisted`. */
    leave: (persisted = true) => happens(window, "pagehide", { persisted }),
    comeBack: (persisted = true) => happens(window, "pageshow", { persisted }),
    /** The page was frozen by the browser, and goes on. */
    resume: () => happens(document, "resume"),
  };
};
