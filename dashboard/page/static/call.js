// One call: lanes for each role, the labels as letters, and every utterance as text.
import { callPath, clock, drawn, element, link, logIn } from "./dom.js";

const EVERY_MS = 2000;
const ENDED_MS = 10000; // a call that has ended can go on, for example after a transfer
const WIDTH = 1000;
const LANE = 28;
const LETTERS = { anger: "A", sadness: "S", neutral: "N", happiness: "H" };
const AGENT = "agent";
const GONE = { false: "There is no such call, or it ended too long ago.", true: "Redis no longer has this call; this page shows what it read before." };
const SPANS = { pause: "paused", gap: "lost", hold: "hold" };

/** @param {HTMLElement} main @param {string} id */
export function showCall(main, id) {
  const utterances = [];
  let chosen = -1;
  let call = null;
  let links = {};

  const address = callPath(id, "/api/calls/");
  const trouble = element("p", { class: "hint", role: "status" });
  const facts = element("p", { class: "facts" });
  const signs = element("p", { class: "signs" });
  const events = element("ul", { class: "events", "aria-label": "Alerts, and stretches without audio" });
  const actions = element("p", { class: "actions" });
  const lanes = element("div", { class: "lanes", tabindex: "0", role: "group", "aria-label": "Lanes of the call. Arrow keys step through the utterances; the table below has the same data." });
  const detail = element("section", { class: "detail", "aria-live": "polite", "aria-label": "Chosen utterance" });
  const figures = element("dl", { class: "figures" });
  const body = element("tbody");
  const raw = element("pre", { tabindex: "0", "aria-label": "call/1" });
  main.append(
    element("h1", {}, `Call ${id}`), trouble, facts, signs, actions, lanes,
    element("p", { class: "legend" }, "Emotion heard: A anger, S sadness, N neutral, H happiness, ? uncertain. An agent's emotion is not shown. ▲ alert"),
    events, detail, figures,
    element("h2", {}, "Utterances"),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Utterances" }, element(
      "table", {},
      element("caption", {}, "Utterances, in order"),
      element("thead", {}, element("tr", {}, ...["#", "from", "to", "speaker", "label", "probability", "ended by"].map((text) => element("th", { scope: "col" }, text)))), body)),
    element("details", {}, element("summary", {}, "Raw JSON"), raw),
  );
  lanes.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !utterances.length) return;
    event.preventDefault();
    choose(Math.min(utterances.length - 1, Math.max(0, chosen + step)));
  });

  async function read() {
    const after = call ? `${address.includes("?") ? "&" : "?"}after=${utterances.at(-1)?.number ?? 0}` : "";
    try {
      const answer = await fetch(`${address}${after}`);
      if (answer.status === 401) return logIn();
      const told = await answer.json();
      if (!answer.ok) {
        trouble.textContent = answer.status === 404 ? GONE[Boolean(call)] : `${told.error}.`;
        if (answer.status === 404 || answer.status === 403) return;
      } else {
        const isNew = trouble.textContent || told.utterances.length || told.call.version !== call?.version;
        trouble.textContent = "";
        call = told.call;
        links = told.links;
        utterances.push(...told.utterances);
        for (const utterance of told.utterances) body.append(line(utterance));
        if (isNew) paint();
      }
    } catch {
      trouble.textContent = "The server does not answer; trying again.";
    }
    setTimeout(read, call && call.status !== "live" ? ENDED_MS : EVERY_MS);
  }

  function label(utterance) {
    if (utterance.role === AGENT || !utterance.emotion) return "";
    return utterance.emotion.abstained || !utterance.emotion.label ? "uncertain" : utterance.emotion.label;
  }

  function line(utterance) {
    const said = label(utterance);
    const share = said && utterance.emotion.confidence !== null ? utterance.emotion.confidence.toFixed(2) : "";
    const cells = [clock(utterance.start_ms), clock(utterance.end_ms), utterance.role, said, share, utterance.quality.cut];
    return element("tr", {}, element("th", { scope: "row" }, String(utterance.number)), ...cells.map((text) => element("td", {}, text)));
  }

  function paint() {
    const attributes = Object.entries(call.attributes).flatMap(([name, value]) => [" · ", element("bdi", {}, `${name} ${value}`)]);
    const notice = call.notice === null ? "notice unknown" : call.notice === "given" ? "caller was told" : "caller was not told";
    const emotionOf = call.policy.emotion_roles.join(", ") || "nobody";
    facts.replaceChildren(`${call.status} · ${clock(call.duration_ms)}`, ...attributes, ` · ${notice} · emotion of: ${emotionOf}`);
    const listen = link(links.listen, { call: id });
    const from = chosen >= 0 ? utterances[chosen].start_ms : 0;
    const recording = link(links.recording, { call: id, ms: from });
    const found = { listen: call.status === "live" ? listen : null, [`recording at ${clock(from)}`]: recording };
    const text = JSON.stringify(found);
    if (actions.dataset.text !== text) { // a link that stays keeps the focus
      actions.dataset.text = text;
      actions.replaceChildren(...Object.entries(found).flatMap(([name, href]) => (href ? [element("a", { href, class: "button" }, name), " "] : [])));
    }
    const why = call.signs.filter((sign) => sign.role !== AGENT).map((sign) => sign.text);
    signs.textContent = why.length ? `${call.status === "live" ? "Needs" : "Needed"} a look: ${why.join(" · ")}` : "";
    const stretches = call.spans.map((span) => `${SPANS[span.kind]} ${clock(span.start_ms)} to ${clock(span.end_ms)}`);
    const raised = call.alerts.map((alert) => `▲ ${clock(alert.raised_ms)} ${alert.rule.replaceAll("_", " ")}, ${alert.state === "raised" ? "open" : `${alert.state} at ${clock(alert.over_ms)}`}`);
    events.replaceChildren(...[...raised, ...stretches].map((text) => element("li", {}, text)));
    raw.textContent = JSON.stringify(call, null, 1);
    paintFigures();
    paintLanes();
  }

  function paintFigures() {
    const shown = {
      "talk": clock(call.talk_ms), "nobody speaks": clock(call.non_talk_ms), "longest silence": clock(call.longest_silence_ms),
      "both at once": clock(call.overlap_ms), "paused": clock(call.redacted_ms), "lost audio": clock(call.missing_ms),
    };
    for (const [role, figures_] of Object.entries(call.roles)) {
      shown[`${role} talks`] = clock(figures_.talk_ms);
      if (figures_.interruptions) shown[`${role} interrupts`] = `${figures_.interruptions.count} ${figures_.interruptions.count === 1 ? "time" : "times"}`;
      if (figures_.emotion && role !== AGENT) shown[`${role}: uncertain`] = `${figures_.emotion.abstained} of ${figures_.emotion.utterances} utterances`;
    }
    figures.replaceChildren(...Object.entries(shown).flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
  }

  function paintLanes() {
    const roles = [...new Set(utterances.map((utterance) => utterance.role))];
    const length = Math.max(call.duration_ms, 1);
    const x = (ms) => (WIDTH * ms) / length;
    const height = LANE * (roles.length + 1) + 24;
    const picture = drawn("svg", { viewBox: `-90 0 ${WIDTH + 100} ${height}`, "aria-hidden": "true" });
    for (const span of call.spans) picture.append(drawn("rect", { x: x(span.start_ms), y: 0, width: Math.max(2, x(span.end_ms - span.start_ms)), height: LANE * (roles.length + 1), class: `span ${span.kind}` }));
    roles.forEach((role, place) => picture.append(drawn("text", { x: -85, y: LANE * place + 18, class: "name" }, role)));
    utterances.forEach((utterance, number) => {
      const place = roles.indexOf(utterance.role);
      const said = label(utterance);
      const width = Math.max(2, x(utterance.end_ms - utterance.start_ms));
      const classes = `said ${utterance.kind === "not_speech" ? "sound" : said || "plain"}${number === chosen ? " chosen" : ""}`;
      const bar = drawn("rect", { x: x(utterance.start_ms), y: LANE * place + 4, width, height: LANE - 8, rx: 2, class: classes });
      bar.addEventListener("click", () => choose(number));
      picture.append(bar);
      const letter = said === "uncertain" ? "?" : LETTERS[said];
      if (letter && width > 9) picture.append(drawn("text", { x: x(utterance.start_ms) + width / 2, y: LANE * place + 19, class: "letter" }, letter));
    });
    for (const [from, to] of overlaps()) picture.append(drawn("rect", { x: x(from), y: LANE * roles.length + 6, width: Math.max(2, x(to - from)), height: LANE - 14, class: "overlap" }));
    for (const span of call.spans) if (x(span.end_ms - span.start_ms) > 40) picture.append(drawn("text", { x: x(span.start_ms) + 3, y: LANE * roles.length + 18, class: "tick" }, SPANS[span.kind]));
    for (const alert of call.alerts) picture.append(drawn("text", { x: x(alert.raised_ms), y: LANE * (roles.length + 1) + 6, class: "alert" }, "▲"));
    picture.append(drawn("text", { x: -85, y: LANE * roles.length + 18, class: "name" }, "both"));
    const step = [10, 30, 60, 300, 600, 1800].find((seconds) => length / 1000 / seconds <= 10) ?? 3600;
    for (let second = 0; second * 1000 <= length; second += step) {
      picture.append(drawn("text", { x: x(second * 1000), y: height - 4, class: "tick" }, clock(second * 1000)));
    }
    lanes.replaceChildren(picture);
  }

  function overlaps() {
    const found = [];
    for (const one of utterances) {
      for (const other of utterances) {
        if (one.number >= other.number || one.role === other.role) continue;
        const from = Math.max(one.start_ms, other.start_ms);
        const to = Math.min(one.end_ms, other.end_ms);
        if (to > from) found.push([from, to]);
      }
    }
    return found;
  }

  function choose(number) {
    chosen = number;
    const utterance = utterances[number];
    const shares = utterance.role === AGENT || !utterance.emotion?.probabilities ? null : utterance.emotion.probabilities;
    const said = label(utterance) || (utterance.role === AGENT ? "no emotion: it is never shown for agents" : `no emotion (${utterance.withheld ?? "unknown"})`);
    detail.replaceChildren(
      element("h2", {}, `Utterance ${utterance.number}: ${utterance.role}, ${clock(utterance.start_ms)} to ${clock(utterance.end_ms)}`),
      element("p", {}, said, shares ? `: ${Object.entries(shares).map(([name, share]) => `${name} ${share.toFixed(2)}`).join(", ")}` : ""),
      element("p", {}, `level ${utterance.acoustics.rms_dbfs} dBFS, noise ${utterance.acoustics.snr_db} dB below, overlap ${(utterance.quality.overlap_ms / 1000).toFixed(1)} s, lost ${(utterance.quality.missing_ms / 1000).toFixed(1)} s`),
    );
    paint();
  }

  read();
  return { update() {} };
}
