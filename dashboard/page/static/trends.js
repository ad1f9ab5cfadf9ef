// Trends: figures of ended calls by queue, as bars with the table of the same beside them.
import { drawn, element, logIn } from "./dom.js";

const EVERY_MS = 60000;
const WIDTH = 600;
const HEIGHT = 90;
const MOST = 12; // queues that have a picture; the table has all
const percent = (part, whole) => (whole ? (100 * part) / whole : null);
const MEASURES = {
  "calls": { of: (sums) => sums.calls, unit: "" },
  "calls that needed a person, %": { of: (sums) => percent(sums.need, sums.calls), unit: "%" },
  "nobody speaks, % of the time": { of: (sums) => percent(sums.non_talk_ms, sums.duration_ms), unit: "%" },
  "on hold, % of the time": { of: (sums) => percent(sums.hold_ms, sums.duration_ms), unit: "%" },
  "length of a call, minutes": { of: (sums) => (sums.calls ? sums.duration_ms / sums.calls / 60000 : null), unit: "min" },
  "negative labels, % of the customers' labels": { of: (sums) => percent(sums.negative, sums.labelled), unit: "%" },
};

/** @param {HTMLElement} main */
export function showTrends(main) {
  let told = null;
  const measure = element("select", { id: "measure", change: paint }, ...Object.keys(MEASURES).map((name) => element("option", {}, name)));
  const by = element("select", { id: "by", change: paint }, element("option", { value: "hours" }, "by hour"), element("option", { value: "days" }, "by day"));
  const said = element("p", { class: "hint", role: "status" });
  const pictures = element("div", { class: "trends", "aria-hidden": "true" });
  const head = element("tr");
  const body = element("tbody");
  main.append(
    element("h1", {}, "Trends"),
    element("form", { class: "filter", submit: (event) => event.preventDefault() },
      element("label", { for: "measure" }, "Show"), measure, element("label", { for: "by" }, "Time"), by),
    said, pictures,
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Trends" }, element(
      "table", {}, element("caption", {}, "Calls that have ended, by queue"), element("thead", {}, head), body)),
  );

  function paint() {
    if (!told) return;
    const rows = told[by.value];
    const { of, unit } = MEASURES[measure.value];
    const times = [...new Set(rows.map((row) => row.at_ms))];
    const queues = [...new Set(rows.map((row) => row.queue))].sort();
    const values = new Map(rows.map((row) => [`${row.queue}\n${row.at_ms}`, of(row)]));
    const most = unit === "%" ? 100 : Math.max(1, ...[...values.values()].filter((value) => value !== null));
    said.textContent = rows.length ? (by.value === "hours" ? "Calls that ended since the page was started, and in the hour before." : "From exported files, days in UTC.") : by.value === "hours" ? "No call has ended yet." : "No exported days: see --history.";
    pictures.replaceChildren(...queues.slice(0, MOST).map((queue) => bars(queue, times, (at) => values.get(`${queue}\n${at}`) ?? null, most, unit)));
    head.replaceChildren(...["queue", ...labels(times)].map((text) => element("th", { scope: "col" }, text)));
    body.replaceChildren(...queues.map((queue) => element("tr", {}, element("th", { scope: "row" }, queue || "no queue"), ...times.map((at) => element("td", {}, shown(values.get(`${queue}\n${at}`) ?? null))))));
  }

  function bars(queue, times, value, most, unit) {
    const picture = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT + 34}` });
    picture.append(drawn("text", { x: 0, y: 12 }, `${queue || "no queue"}, 0 to ${shown(most)} ${unit}`));
    const step = WIDTH / Math.max(times.length, 12);
    times.forEach((at, place) => {
      const found = value(at);
      if (found === null) return;
      const height = Math.max(1, (HEIGHT * found) / most);
      picture.append(drawn("rect", { x: place * step + 1, y: 18 + HEIGHT - height, width: step - 2, height, class: "bar" }));
    });
    picture.append(drawn("line", { x1: 0, y1: 18 + HEIGHT, x2: WIDTH, y2: 18 + HEIGHT, class: "axis" }));
    labels(times).forEach((text, place) => {
      if (place % Math.ceil(times.length / 6) === 0) picture.append(drawn("text", { x: place * step, y: HEIGHT + 32, class: "tick" }, text));
    });
    return picture;
  }

  /** Of times in order. The hour that is there twice when summer time ends has its time zone. @param {number[]} times */
  function labels(times) {
    const short = times.map((at) => label(at));
    return short.map((text, place) => (text === short[place - 1] || text === short[place + 1] ? label(times[place], { timeZoneName: "short" }) : text));
  }

  function label(at, more = {}) {
    const time = new Date(at);
    return by.value === "hours" ? time.toLocaleString([], { weekday: "short", hour: "2-digit", minute: "2-digit", ...more }) : time.toLocaleDateString([], { timeZone: "UTC", month: "short", day: "numeric" });
  }

  async function read() {
    try {
      const answer = await fetch("/api/trends");
      if (answer.status === 401) return logIn();
      if (answer.ok) {
        const isFirst = !told;
        told = await answer.json();
        if (isFirst && !told.hours.length && told.days.length) by.value = "days";
        paint();
      }
    } catch {
      said.textContent = "The server does not answer; trying again.";
    }
    setTimeout(read, EVERY_MS);
  }

  read();
  return { update() {} };
}

function shown(value) {
  return value === null ? "" : String(Math.round(10 * value) / 10);
}
