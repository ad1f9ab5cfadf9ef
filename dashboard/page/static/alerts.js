// Alerts: who looks after which. A claim is the only thing that the page writes.
import { callPath, clock, element } from "./dom.js";

const NAME = "callmood.name";
const NEWEST = 3;
const STATES = { raised: "open", cleared: "cleared", ended: "call ended" };

/** The newest unclaimed alerts of live calls, below the wall. @param {HTMLElement} place */
export function showOpen(place, floor) {
  const open = floor.alerts.filter((alert) => !alert.claim && alert.state === "raised");
  const text = JSON.stringify(open.slice(0, NEWEST).map((alert) => alert.alert_id)) + open.length;
  if (place.dataset.text === text) return;
  place.dataset.text = text;
  place.replaceChildren(
    element("h2", {}, `Alerts: ${open.length} open`),
    element("div", { role: "log" }, element("ul", {}, ...open.slice(0, NEWEST).map((alert) => element(
      "li", { class: alert.severity }, `${time(alert.raised_at_ms)} `, toCall(alert), ` ${alert.message}`,
    )))),
  );
}

/** @param {HTMLElement} main */
export function showAlerts(main) {
  const shown = new Map();
  const body = element("tbody");
  const name = element("input", { id: "name", value: localStorage.getItem(NAME) ?? "", autocomplete: "name", maxlength: "100" });
  const note = element("input", { id: "note", maxlength: "300" });
  const said = element("p", { role: "status", class: "hint" });
  name.addEventListener("change", () => localStorage.setItem(NAME, name.value.trim()));
  const lost = element("p", { class: "signs", hidden: true });
  const head = ["raised", "call", "what", "state", "claim"];
  main.append(
    element("h1", {}, "Alerts"),
    element("form", { class: "filter", submit: (event) => event.preventDefault() },
      element("label", { for: "name" }, "Your name"), name, element("label", { for: "note" }, "Note"), note),
    said, lost,
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Alerts" }, element(
      "table", {},
      element("caption", {}, "Alerts, the newest first"),
      element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))), body)),
  );

  async function claim(alert) {
    if (!name.value.trim()) {
      said.textContent = "Enter your name first.";
      name.focus();
      return;
    }
    const asked = { alert_id: alert.alert_id, by: name.value.trim(), note: note.value.trim() };
    const answer = await fetch("/api/claims", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked) });
    const told = await answer.json();
    said.textContent = answer.ok ? `You handle the alert of ${alert.call_id}.` : answer.status === 409 ? "Somebody else has claimed this alert." : told.error;
    if (answer.ok) note.value = "";
  }

  return {
    update(floor) {
      lost.hidden = !floor.undelivered;
      lost.textContent = `${floor.undelivered} alerts could not be sent to a webhook: see the log of callmood webhooks.`;
      const rows = floor.alerts.map((alert) => {
        const text = JSON.stringify([alert.claim, alert.state]);
        const known = shown.get(alert.alert_id);
        if (known?.text === text) return known.row;
        const now = STATES[alert.state] + (alert.over_ms === null ? "" : ` at ${clock(alert.over_ms)}`);
        const claimed = alert.claim ? `claimed by ${alert.claim.by} at ${time(alert.claim.at_ms)}${alert.claim.note ? `: ${alert.claim.note}` : ""}, ` : "";
        const row = element(
          "tr", { class: alert.claim || alert.state !== "raised" ? "calm" : alert.severity },
          element("td", {}, time(alert.raised_at_ms)), element("th", { scope: "row" }, toCall(alert)),
          element("td", { class: "why" }, `${alert.rule.replaceAll("_", " ")}: ${alert.message} (at ${clock(alert.raised_ms)})`),
          element("td", {}, claimed + now),
          element("td", {}, alert.claim ? null : element("button", { type: "button", click: () => claim(alert), "aria-label": `claim ${alert.rule} of ${alert.call_id}` }, "claim")),
        );
        shown.set(alert.alert_id, { text, row });
        return row;
      });
      if (rows.length !== body.children.length || rows.some((row, place) => body.children[place] !== row)) body.replaceChildren(...rows);
    },
  };
}

function toCall(alert) {
  return element("a", { href: callPath(alert.call_id) }, alert.call_id);
}

function time(ms) {
  return new Date(ms).toLocaleTimeString();
}
