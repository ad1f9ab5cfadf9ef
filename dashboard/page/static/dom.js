// Small helpers. Text from calls is only ever set as text, never as markup.

/**
 * An element with attributes and children.
 * @param {string} name
 * @param {Record<string, string | number | boolean | null | undefined | ((event: Event) => void)>} [attributes]
 * @param {...(Node | string | null)} children
 * @returns {HTMLElement}
 */
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/**
 * As `element`, for SVG.
 * @param {string} name
 * @param {Record<string, string | number>} [attributes]
 * @param {...(Node | string | null)} children
 * @returns {SVGElement}
 */
export function drawn(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, String(value));
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Minutes and seconds. @param {number} ms */
export function clock(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** The address of a call. An id that a path cannot carry, because browsers resolve dots and servers end at a line, is in the query.
 * @param {string} id @param {string} [base] */
export function callPath(id, base = "/calls/") {
  const isOdd = /^\.{1,2}$|[\u0000-\u001f]/.test(id);
  return isOdd ? `${base}?id=${encodeURIComponent(id)}` : base + encodeURIComponent(id);
}

/** The address of a template such as `https://phone.example.com/listen?call={call}`; only http, https, sip and tel are links.
 * @param {string | undefined} template @param {Record<string, string | number>} values */
export function link(template, values) {
  if (!template || !/^(https?|sips?|tel):/i.test(template)) return null;
  return template.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(String(values[name] ?? "")));
}

/** Puts these children into a place, in this order. Those that are there already are not moved and keep the focus. */
export function arrange(place, wanted) {
  const kept = new Set(wanted);
  for (const child of [...place.children]) if (!kept.has(child)) child.remove();
  wanted.forEach((child, at) => {
    if (place.children[at] !== child) place.insertBefore(child, place.children[at] ?? null);
  });
}

/** A time, with its date unless it is of today. @param {number} ms */
export function moment(ms) {
  const at = new Date(ms);
  const isToday = at.toDateString() === new Date().toDateString();
  return isToday ? at.toLocaleTimeString() : at.toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
}

/** To the login, and back here. */
export function logIn() {
  location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
}
