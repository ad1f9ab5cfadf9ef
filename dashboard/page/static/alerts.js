// Alerts: who looks after which. A claim is the only thing that the page writes.
import { arrange, callPath, clock, element, logIn, moment } from "./dom.js";

const NAME = "callmood.name";
const NEWEST = 3;
const STATES = { raised: "open", cleared: "cleared", ended: "call ended" };

/** The newest unclaimed alerts of live calls, below the wall. Screen readers announce what a log gets, not a new log. */
export function showOpen() {
  const heading = element("h2", {}, "Alerts");
  const list = element("ul");
  let shown = new Map(); // alert id -> its line
  return {
    place: element("section", { class: "open", "aria-label": "Newest alerts" }, heading, element("div", { role: "log" }, list)),
    update(floor) {
      const open = floor.alerts.filter((alert) => !alert.claim && alert.state === "raised");
      const text = `Alerts: ${open.length} open`;
      if (heading.textContent !== text) heading.textContent = text;
      shown = new Map(open.slice(0, NEWEST).map((alert) => [alert.alert_id, shown.get(alert.alert_id) ?? element(
        "li", { class: alert.severity }, `${moment(alert.raised_at_ms)} `, toCall(alert), ` ${alert.message}`,
      )]));
      arrange(list, [...shown.values()]);
    },
  };
}

/** @param {HTMLElement} main */
export function showAlerts(main) {
  let shown = new Map(); // alert id -> its row and the text in it
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
    try {
      const answer = await fetch("/api/claims", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked) });
      if (answer.status === 401) return logIn();
      const told = await answer.json();
      said.textContent = answer.ok ? `You handle the alert of ${alert.call_id}.` : answer.status === 409 ? "Somebody else has claimed this alert." : `Not claimed: ${told.error}.`;
      if (answer.ok) note.value = "";
    } catch {
      said.textContent = "Not claimed: the server does not answer. Try again.";
    }
  }

  return {
    update(floor) {
      lost.hidden = !floor.undelivered;
      lost.textContent = `${floor.undelivered} alerts could not be sent to a webhook: see the log of callmood webhooks.`;
      shown = new Map(floor.alerts.map((alert) => {
        const text = JSON.stringify([alert.claim, alert.state]);
        const known = shown.get(alert.alert_id);
        if (known?.text === text) return [alert.alert_id, known];
        const now = STATES[alert.state] + (alert.over_ms === null ? "" : ` at ${clock(alert.over_ms)}`);
        const claim_ = alert.claim ? ["claimed by ", element("bdi", {}, alert.claim.by), ` at ${moment(alert.claim.at_ms)}`, alert.claim.note ? ": " : "", element("bdi", {}, alert.claim.note), ", "] : [];
        const row = element(
          "tr", { class: alert.claim || alert.state !== "raised" ? "calm" : alert.severity },
          element("td", {}, moment(alert.raised_at_ms)), element("th", { scope: "row" }, toCall(alert)),
          element("td", { class: "why" }, `${alert.rule.replaceAll("_", " ")}: ${alert.message} (at ${clock(alert.raised_ms)})`),
          element("td", { class: "why" }, ...claim_, now),
          element("td", {}, alert.claim ? null : element("button", { type: "button", click: () => claim(alert), "aria-label": `claim ${alert.rule} of ${alert.call_id}` }, "claim")),
        );
        return [alert.alert_id, { text, row }];
      }));
      arrange(body, [...shown.values()].map((known) => known.row));
    },
  };
}

function toCall(alert) {
  return element("a", { href: callPath(alert.call_id) }, alert.call_id);
}
