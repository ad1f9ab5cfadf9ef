// Chooses the view by the address, and keeps the stream of events.
import { showAlerts } from "./alerts.js";
import { showCall } from "./call.js";
import { clock, logIn } from "./dom.js";
import { showTrends } from "./trends.js";
import { showWall } from "./wall.js";

const DAY_MS = 86400000;
const SILENT_MS = 5000; // the server sends something at least every 3 s
const HANGS_MS = 20000;
const RETRY_MS = 5000;
const WAITING_MS = 15000; // a worker commits each of its partitions at least every 5 s
const main = document.getElementById("main");
const path = decoded(location.pathname);
const began = Date.now();
let lastNews = 0;
let tried = 0;
let wanted = {};
let source = null;
let view = null;

/** A path with its escapes resolved, or as it is if somebody typed a wrong one. @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Open the stream, with what the viewer has chosen. @param {Record<string, string>} chosen */
function connect(chosen) {
  source?.close();
  wanted = chosen;
  tried = Date.now();
  source = new EventSource(`/events?${new URLSearchParams(chosen)}`);
  let floor = {}; // a stream begins with all fields, and goes on with those that have changed
  source.onmessage = (event) => {
    floor = { ...floor, ...JSON.parse(event.data) };
    lastNews = Date.now();
    showPulse(floor);
    view.update?.(floor);
  };
}

/** Open a stream again that was refused or that hangs: the browser does so only if the connection was lost. */
async function reconnect() {
  tried = Date.now();
  try {
    if ((await fetch("/api/pulse", { signal: AbortSignal.timeout(RETRY_MS) })).status === 401) return logIn();
  } catch {
    return;
  }
  connect(wanted);
}

/** Ages are by the server's clock; the browser's may be wrong. */
function showPulse(floor) {
  const age = floor.newest_audio_ms ? Math.max(0, floor.now_ms - floor.newest_audio_ms) : null;
  const unsure = floor.uncertain === null ? "" : ` · ${Math.round(100 * floor.uncertain)} % of labels uncertain`;
  const audio = floor.live === 0 ? (floor.waiting.ms > WAITING_MS || floor.waiting.partition === null ? "no live calls" : "quiet, workers are running") : `newest audio ${age < 60000 ? `${(age / 1000).toFixed(0)} s` : age < DAY_MS ? clock(age) : "more than a day"} old`;
  setText("pulse", `${floor.live} ${floor.live === 1 ? "call" : "calls"} · ${floor.need} ${floor.need === 1 ? "needs" : "need"} a look${unsure} · ${audio}`);
  document.getElementById("demo").hidden = !floor.models.some((model) => model.startsWith("demo"));
  if (floor.problem) say(`${floor.problem}.`, floor.at_ms ? `The data on this page is ${clock(floor.now_ms - floor.at_ms)} old.` : "");
  else if (floor.waiting.partition === null) say("No worker has written results yet.");
  else if (floor.waiting.ms > WAITING_MS) say(`No worker has written results of ${floor.waiting.partition} recently: calls may be missing.`, `The newest are ${clock(floor.waiting.ms)} old.`);
  else say("");
}

/** A problem; screen readers announce it, and not how long it has lasted. @param {string} text @param {string} [since] */
function say(text, since = "") {
  document.getElementById("trouble").hidden = !text;
  setText("problem", text);
  setText("since", since);
  document.body.classList.toggle("stale", Boolean(text));
}

function setText(id, text) {
  const place = document.getElementById(id);
  if (place.textContent !== text) place.textContent = text;
}

setInterval(() => {
  const silent_ms = Date.now() - (lastNews || began);
  if (silent_ms > SILENT_MS) say("No connection to the server.", lastNews ? `The data on this page is ${clock(silent_ms)} old.` : "");
  const isRefused = source.readyState === EventSource.CLOSED;
  if ((isRefused || silent_ms > HANGS_MS) && Date.now() - tried > RETRY_MS) reconnect();
}, 1000);

if (path.startsWith("/calls/")) {
  const id = path.slice("/calls/".length) || new URLSearchParams(location.search).get("id") || "";
  document.title = `callmood: call ${id}`;
  view = showCall(main, id);
} else {
  const name = { "/alerts": "alerts", "/trends": "trends" }[path] ?? "calls";
  document.title = `callmood: ${name}`;
  document.getElementById(`to-${name}`).setAttribute("aria-current", "page");
  view = { alerts: showAlerts, trends: showTrends, calls: (place) => showWall(place, connect) }[name](main);
}
connect(view.chosen ?? {});
