// Chooses the view by the address, and keeps the stream of events.
import { showAlerts } from "./alerts.js";
import { showCall } from "./call.js";
import { clock } from "./dom.js";
import { showTrends } from "./trends.js";
import { showWall } from "./wall.js";

const DAY_MS = 86400000;
const SILENT_MS = 5000;
const WAITING_MS = 15000; // a worker commits each of its partitions at least every 5 s
const main = document.getElementById("main");
const path = decoded(location.pathname);
let lastNews = 0;
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
  source = new EventSource(`/events?${new URLSearchParams(chosen)}`);
  let floor = {}; // a stream begins with all fields, and goes on with those that have changed
  source.onmessage = (event) => {
    floor = { ...floor, ...JSON.parse(event.data) };
    lastNews = Date.now();
    showPulse(floor);
    view?.update?.(floor);
  };
}

function showPulse(floor) {
  const age = floor.newest_audio_ms ? Math.max(0, Date.now() - floor.newest_audio_ms) : null;
  const unsure = floor.uncertain === null ? "" : ` · ${Math.round(100 * floor.uncertain)} % of labels uncertain`;
  const audio = floor.live === 0 ? (floor.waiting.ms > WAITING_MS || floor.waiting.partition === null ? "no live calls" : "quiet, workers are running") : `newest audio ${age < 60000 ? `${(age / 1000).toFixed(0)} s` : age < DAY_MS ? clock(age) : "more than a day"} old`;
  document.getElementById("pulse").textContent = `${floor.live} ${floor.live === 1 ? "call" : "calls"} · ${floor.need} ${floor.need === 1 ? "needs" : "need"} a look${unsure} · ${audio}`;
  document.getElementById("demo").hidden = !floor.models.some((model) => model.startsWith("demo"));
  if (floor.problem) say(`${floor.problem}. The data on this page is ${clock(Date.now() - floor.at_ms)} old.`);
  else if (floor.waiting.partition === null) say("No worker has written results yet.");
  else if (floor.waiting.ms > WAITING_MS) say(`No worker has written results of ${floor.waiting.partition} for ${clock(floor.waiting.ms)}: calls may be missing.`);
  else say("");
}

function say(text) {
  const trouble = document.getElementById("trouble");
  if (trouble.textContent !== text) trouble.textContent = text;
  trouble.hidden = !text;
  document.body.classList.toggle("stale", Boolean(text));
}

setInterval(() => {
  if (lastNews && Date.now() - lastNews > SILENT_MS) {
    say(`No connection to the server. The data on this page is ${clock(Date.now() - lastNews)} old.`);
  }
}, 1000);

if (path.startsWith("/calls/")) {
  view = showCall(main, path.slice("/calls/".length) || new URLSearchParams(location.search).get("id") || "");
} else if (path === "/alerts") {
  document.getElementById("to-alerts").setAttribute("aria-current", "page");
  view = showAlerts(main);
} else if (path === "/trends") {
  document.getElementById("to-trends").setAttribute("aria-current", "page");
  view = showTrends(main);
} else {
  document.getElementById("to-wall").setAttribute("aria-current", "page");
  view = showWall(main, connect);
}
connect(view.chosen ?? {});
