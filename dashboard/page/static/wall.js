// The calls that need a person, with the reason; all others as counts per queue.
import { showOpen } from "./alerts.js";
import { arrange, callPath, clock, element, link } from "./dom.js";

const WORDS = { A: "anger", S: "sadness", N: "neutral", H: "happiness", "?": "uncertain" };
const NO_NEWS_MS = 120000; // of a live call: longer than anybody is silent
const SORT_MS = 3000; // rows change places no more often
const LEVELS = { high: "■ urgent", some: "□ yes", "": "" };

/**
 * @param {HTMLElement} main
 * @param {(chosen: Record<string, string>) => void} connect
 */
export function showWall(main, connect) {
  const chosen = Object.fromEntries(new URLSearchParams(location.search));
  const rows = new Map(); // call id -> what the server said of it
  const shown = new Map(); // call id -> its table row and the text in it
  let order = [];
  let pointed = false;
  const buttons = new Map(); // queue -> its button and the text in it
  let isChosen = false; // whether the viewer has opened or closed the list of ended calls
  let sorted = 0;
  let links = {};

  const body = element("tbody");
  const head = ["needs a look", "call", "queue", "agent", "time", "why", "emotion heard", "talk: customer / agent"];
  const table = element(
    "table", { class: "wall" },
    element("caption", {}, "Calls, those that need a person first"),
    element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)))),
    body,
  );
  const hint = element("p", { class: "hint", hidden: true });
  const empty = element("p", { class: "empty" }, "No call needs a person.");
  const queues = element("ul", { class: "queues", "aria-label": "Calls per queue" });
  const over = element("tbody");
  const heading = element("summary", { click: () => { isChosen = true; } });
  const ended = element(
    "details", { class: "ended", hidden: true },
    heading,
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Ended recently" }, element(
      "table", {},
      element("caption", {}, "Calls that have ended, the newest first"),
      element("thead", {}, element("tr", {}, ...["needed a look when it ended", "call", "queue", "agent", "time", "why", "emotion heard"].map((name) => element("th", { scope: "col" }, name)))), over)),
  );
  const open = showOpen();
  const search = element("input", { type: "search", id: "search", size: 28, placeholder: "call, agent, queue or team", value: chosen.search ?? "" });
  const team = element("select", { id: "team", change: () => choose({ team: team.value }) });
  const teams = element("span", { hidden: true }, element("label", { for: "team" }, "Team "), team);
  const form = element(
    "form", { class: "filter", submit: (event) => { event.preventDefault(); choose({ search: search.value.trim() }); } },
    element("label", { for: "search" }, "Search"), search, element("button", {}, "Search"), teams,
    element("button", { type: "button", click: () => { search.value = ""; team.value = ""; choose({ queue: "", team: "", search: "" }); } }, "All calls"),
  );
  main.append(
    element("h1", {}, "Calls"), form, queues, hint,
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Calls" }, table), empty,
    element("p", { class: "legend" }, "A anger, S sadness, N neutral, H happiness, ? uncertain; newest at the right. An agent's emotion is not shown."),
    open.place, ended,
  );

  // The order is held while somebody points at a row or has it in focus.
  table.addEventListener("pointerenter", () => { pointed = true; });
  table.addEventListener("pointerleave", () => { pointed = false; sort(); });

  function choose(changes) {
    Object.assign(chosen, changes);
    const text = new URLSearchParams(Object.entries(chosen).filter(([, value]) => value)).toString();
    history.replaceState(null, "", text ? `/?${text}` : "/");
    rows.clear();
    connect(chosen);
  }

  function sort() {
    const held = pointed || table.contains(document.activeElement); // no event says that a focused row was removed
    const now = [...body.children].map((row) => row.dataset.call);
    const moved = order.filter((id, place) => now[place] !== id).length;
    const isNew = order.some((id) => !now.includes(id));
    if (held && !isNew) {
      hint.hidden = moved === 0;
      hint.textContent = `The order does not change while the pointer or the focus is here. Calls that would move: ${moved}.`;
      return;
    }
    if (!held && !isNew && Date.now() - sorted < SORT_MS) return;
    sorted = Date.now();
    hint.hidden = true;
    const wanted = held ? [...now.filter((id) => rows.has(id)), ...order.filter((id) => !now.includes(id))] : order;
    wanted.forEach((id, place) => {
      const row = shown.get(id)?.row;
      if (row && body.children[place] !== row) body.insertBefore(row, body.children[place] ?? null);
    });
  }

  function paint(row) {
    let known = shown.get(row.id);
    if (!known) {
      const cells = head.map((_, place) => element(place === 1 ? "th" : "td", place === 1 ? { scope: "row" } : {}));
      cells[5].className = "why";
      known = { row: element("tr", { "data-call": row.id }, ...cells), cells, texts: [] };
      cells[1].append(element("a", { href: callPath(row.id), title: row.id }, row.id));
      const listen = link(links.listen, { call: row.id });
      if (listen) cells[1].append(" ", element("a", { href: listen, class: "button", "aria-label": `listen to ${row.id}` }, "listen"));
      shown.set(row.id, known);
    }
    known.row.className = `${row.level || "calm"}${row.late ? " late" : ""}`;
    const texts = [
      LEVELS[row.level], null, row.queue, row.agent, row.late ? `${clock(row.duration_ms)}, then no news for ${clock(row.late)}` : clock(row.duration_ms), row.why.join(" · "), null,
      `${clock(row.customer_ms)} / ${clock(row.agent_ms)}`,
    ];
    texts.forEach((text, place) => {
      if (text !== null && known.texts[place] !== text) known.cells[place].textContent = known.texts[place] = text;
    });
    if (known.said !== row.said) {
      known.said = row.said;
      const spoken = [...row.said].slice(-6).map((letter) => WORDS[letter]).join(", ");
      known.cells[6].replaceChildren(
        element("span", { "aria-hidden": "true" }, ...[...row.said].map((letter) => element("b", { class: `label ${WORDS[letter]}` }, letter))),
        element("span", { class: "spoken" }, spoken),
      );
    }
  }

  /** The button of a queue stays the same, so that it keeps the focus while its counts change. */
  function paintQueue(queue) {
    let known = buttons.get(queue.name);
    if (!known) {
      const count = element("span");
      const button = element("button", { type: "button", click: () => choose({ queue: queue.name }) }, element("bdi", {}, queue.name || "no queue"), count);
      known = { item: element("li", {}, button), button, count };
      buttons.set(queue.name, known);
    }
    const text = ` ${queue.live}${queue.need ? ` (${queue.need} ${queue.need === 1 ? "needs" : "need"} a look)` : ""}`;
    if (known.count.textContent !== text) known.count.textContent = text;
    known.button.setAttribute("aria-pressed", String(chosen.queue === queue.name && queue.name !== ""));
    return known.item;
  }

  return {
    chosen,
    update(floor) {
      order = floor.order;
      links = floor.links;
      for (const row of floor.rows) {
        const known = rows.get(row.id);
        rows.set(row.id, { ...row, late: 0, seen: known?.updated_at_ms === row.updated_at_ms ? known.seen : Date.now() });
        paint(rows.get(row.id));
      }
      for (const row of rows.values()) {
        const quiet = Date.now() - row.seen; // clocks of gateways differ: this one is ours
        const late = quiet > NO_NEWS_MS ? Math.floor(quiet / 60000) * 60000 : 0;
        if (late !== row.late) paint(Object.assign(row, { late }));
      }
      const listed = new Set(order);
      for (const [id, known] of shown) {
        if (listed.has(id)) continue;
        known.row.remove();
        shown.delete(id);
        rows.delete(id);
      }
      sort();
      table.hidden = order.length === 0;
      empty.hidden = order.length > 0;
      empty.textContent = floor.live ? "No call matches." : "No live calls.";
      arrange(queues, floor.queues.map(paintQueue));
      teams.hidden = floor.teams.length === 0 && !chosen.team;
      const names = [...new Set(["", ...floor.teams, chosen.team ?? ""])];
      if (teams.dataset.names !== JSON.stringify(names)) {
        teams.dataset.names = JSON.stringify(names);
        team.replaceChildren(...names.map((name) => element("option", { value: name, selected: name === (chosen.team ?? "") }, name || "all")));
      }
      open.update(floor);
      const calls = JSON.stringify(floor.ended.map((row) => [row.id, row.updated_at_ms]));
      if (!isChosen) ended.open = floor.live === 0; // with no live call, these are all there is to see
      if (ended.dataset.calls !== calls) {
        ended.dataset.calls = calls;
        ended.hidden = floor.ended.length === 0;
        heading.textContent = `Ended recently: the newest ${floor.ended.length}, of which ${floor.ended.filter((row) => row.level).length} needed a look when they ended`;
        const known = new Map([...over.children].map((line) => [line.dataset.call, line]));
        arrange(over, floor.ended.map((row) => known.get(`${row.id} ${row.updated_at_ms}`) ?? element(
          "tr", { class: row.level || "calm", "data-call": `${row.id} ${row.updated_at_ms}` },
          element("td", {}, LEVELS[row.level]),
          element("th", { scope: "row" }, element("a", { href: callPath(row.id) }, row.id)),
          ...[row.queue, row.agent, clock(row.duration_ms), row.why.join(" · "), row.said].map((text) => element("td", {}, text)),
        )));
      }
    },
  };
}
