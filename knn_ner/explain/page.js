"use strict";

/* The data are rows. Sentences, outcomes and labels are given by their index.
   sentences: [words joined by spaces, gold, tagger alone, mix]; each list of entities is flat:
              type, first word, last word + 1, ...
   stored:    [sentence id, words joined by spaces, entities]
   cases:     [sentence, outcome, first word, last word + 1, evidence for each of these words]
   evidence:  [label of the tagger alone, its probability, label of the mix, its probability,
               label without the neighbours shown, its probability, vote, neighbours, map]
   vote:      label, share, ...
   neighbours: stored sentence, word, label, similarity, share, ...
   map:       x and y of the word, then label, x, y of each stored token near it, the neighbours first; 0 to 255
   hues:      the hue of each entity type */
const data = JSON.parse(document.getElementById("data").textContent);
const ROW = 62;
const OUTCOMES = {
  fixed: "tagger alone wrong, mix right",
  broken: "tagger alone right, mix wrong",
  changed: "both wrong, with different answers",
  wrong: "both wrong, with the same answer",
  right: "both right",
};
const $ = (id) => document.getElementById(id);

/* A new element. Special attributes: `entity`, the type whose colour it gets; `tint`, the outcome whose colour it gets;
   `on...`, an event handler. */
function element(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "circle", "path", "text", "title"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "entity") colour(made, value);
    else if (key === "tint") made.style.setProperty("--tint", `var(--${value})`);
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/* The colour of an entity type; no type is the label O, which is grey. */
function colour(made, type) {
  if (type) made.style.setProperty("--hue", data.hues[type] ?? 0);
  else made.style.setProperty("--coloured", 0);
}

const types = Object.keys(data.hues).sort();
const typeOf = (label) => (label === "O" ? "" : label.slice(label.indexOf("-") + 1));
const labelChip = (label, ...more) => element("span", { class: "label", entity: typeOf(label) }, label, ...more);

const wordsOf = (text) => text.split(" ");
const join = (words) => words.join(data.joiner);
const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0)}%`;

function* triples(flat) {
  for (let i = 0; i < flat.length; i += 3) yield [flat[i], flat[i + 1], flat[i + 2]];
}

/* A sentence with its entities marked. Entities that overlap the words `focus` are outlined; `word` is underlined. */
function sentence(words, flat, { focus = [0, 0], word = -1 } = {}) {
  const parts = [];
  const run = (first, stop) => {
    if (word < first || word >= stop) return [join(words.slice(first, stop))];
    const here = element("span", { class: "here" }, words[word]);
    const before = words.slice(first, word), after = words.slice(word + 1, stop);
    return [join(before) + (before.length ? data.joiner : ""), here, (after.length ? data.joiner : "") + join(after)];
  };
  let place = 0;
  const add = (first, stop, wrap) => {
    if (first >= stop) return;
    if (parts.length) parts.push(data.joiner);
    parts.push(...wrap(run(first, stop)));
  };
  for (const [type, first, stop] of triples(flat)) {
    add(place, first, (text) => text);
    const inFocus = first < focus[1] && focus[0] < stop;
    add(first, stop, (text) => [
      element("mark", { class: inFocus ? "outlined" : "", entity: type }, ...text, element("small", {}, type)),
    ]);
    place = stop;
  }
  add(place, words.length, (text) => text);
  return parts;
}

/* The entities that overlap the words of a case, as text. */
function answer(flat, words, first, stop) {
  const entities = [...triples(flat)].filter(([, a, b]) => a < stop && first < b);
  if (!entities.length) return "none";
  return entities
    .map(([type, a, b]) => (a === first && b === stop ? type : `${type} “${join(words.slice(a, b))}”`))
    .join(", ");
}

/* Filters. */
const state = { outcomes: new Set(), type: "", search: "", chosen: -1, word: -1 };
let shown = [];
const lowered = data.sentences.map((row) => row[0].toLowerCase());
const joined = data.joiner === "" ? lowered.map((text) => text.replaceAll(" ", "")) : lowered;

function caseTypes([number, , first, stop]) {
  const overlapping = new Set();
  for (const flat of data.sentences[number].slice(1)) {
    for (const [type, a, b] of triples(flat)) if (a < stop && first < b) overlapping.add(type);
  }
  return overlapping;
}

function applyFilters() {
  const wanted = state.search.trim().toLowerCase();
  shown = [];
  data.cases.forEach((row, number) => {
    if (!state.outcomes.has(data.outcomes[row[1]])) return;
    if (state.type && !caseTypes(row).has(state.type)) return;
    if (wanted && !joined[row[0]].includes(wanted)) return;
    shown.push(number);
  });
  $("rows").style.height = `${shown.length * ROW}px`;
  $("count").textContent = `${shown.length} of ${data.cases.length} entities`;
  for (const button of $("outcomes").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", state.outcomes.has(button.value));
  }
  if (!shown.includes(state.chosen)) choose(shown.length ? shown[0] : -1, false);
  else drawRows();
  writeAddress();
}

/* The document holds only the rows that are visible, so that a list of 20,000 entities scrolls smoothly. */
function drawRows() {
  const list = $("list");
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 6);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 6);
  const rows = [];
  for (let i = first; i < last; i++) rows.push(row(shown[i], i));
  if (!shown.length) rows.push(element("p", { class: "none" }, "No entity passes the filters."));
  $("rows").replaceChildren(...rows);
  if (state.chosen >= 0) list.setAttribute("aria-activedescendant", `case-${state.chosen}`);
  else list.removeAttribute("aria-activedescendant");
}

function row(number, place) {
  const [index, outcome, first, stop] = data.cases[number];
  const name = data.outcomes[outcome];
  const [text, gold, base, knn] = data.sentences[index];
  const words = wordsOf(text);
  const before = words.slice(Math.max(0, first - 3), first), after = words.slice(stop, stop + 8);
  const made = element(
    "div",
    {
      class: "row", role: "option", id: `case-${number}`, tint: name,
      "aria-selected": number === state.chosen, "aria-setsize": shown.length, "aria-posinset": place + 1,
      onclick: () => { choose(number); showDetailOnSmallScreens(); },
    },
    element("div", {},
      first > 3 ? "… " : "", join(before), before.length ? data.joiner : "",
      element("b", {}, join(words.slice(first, stop))), after.length ? data.joiner : "", join(after)),
    element("div", { class: "answers" }, element("b", { class: "outcome" }, name),
      ` · gold ${answer(gold, words, first, stop)} · tagger ${answer(base, words, first, stop)}` +
      ` · kNN ${answer(knn, words, first, stop)}`),
  );
  made.style.top = `${place * ROW}px`;
  return made;
}

function choose(number, scroll = true) {
  state.chosen = number;
  state.word = -1;
  const place = shown.indexOf(number), list = $("list");
  if (scroll && place >= 0) {
    if (place * ROW < list.scrollTop) list.scrollTop = place * ROW;
    if ((place + 1) * ROW > list.scrollTop + list.clientHeight) {
      list.scrollTop = (place + 1) * ROW - list.clientHeight;
    }
  }
  drawRows();
  drawDetail();
  writeAddress();
}

function showDetailOnSmallScreens() {
  if (matchMedia("(max-width: 760px)").matches) $("detail").scrollIntoView();
}

/* The chosen case. */
function drawDetail() {
  const detail = $("detail");
  detail.scrollTop = 0;
  if (state.chosen < 0) return detail.replaceChildren();
  const [index, outcome, first, stop, evidence] = data.cases[state.chosen];
  const [text, gold, base, knn] = data.sentences[index];
  const words = wordsOf(text), name = data.outcomes[outcome];
  if (state.word < 0) {
    // Show the first word whose label the neighbours changed.
    state.word = Math.max(0, evidence.findIndex(([alone, , mixed]) => alone !== mixed));
  }
  const reading = (who, flat) => [
    element("dt", {}, who), element("dd", {}, ...sentence(words, flat, { focus: [first, stop] })),
  ];
  const tabs = evidence.map(([alone, , mixed], i) => element(
    "button",
    { type: "button", "aria-pressed": i === state.word, onclick: () => { state.word = i; drawDetail(); focusTab(); } },
    words[first + i], " ", ...(alone === mixed ? [] : [labelChip(data.labels[alone]), " → "]), labelChip(data.labels[mixed]),
  ));
  detail.replaceChildren(
    element("h2", {}, join(words.slice(first, stop)),
      element("span", { class: "outcome", tint: name }, `${name}: ${OUTCOMES[name]}`)),
    element("dl", { class: "readings" }, ...reading("gold", gold), ...reading("tagger", base), ...reading("kNN", knn)),
    element("h3", {}, "Evidence for each word", element("small", {}, "for its first word piece")),
    element("div", { class: "tabs" }, ...tabs),
    why(words[first + state.word], evidence[state.word]),
  );
}

function focusTab() {
  document.querySelector(".tabs [aria-pressed=true]").focus();
}

function bar(parts) {
  return element("span", { class: "bar", "aria-hidden": "true" }, ...parts.map(([label, share]) => {
    const part = element("span", { entity: typeOf(label) });
    part.style.width = `${100 * share}%`;
    return part;
  }));
}

function why(word, [alone, aloneScore, mixed, mixedScore, without, withoutScore, vote, neighbours, map]) {
  const votes = [];
  for (let i = 0; i < vote.length; i += 2) votes.push([data.labels[vote[i]], vote[i + 1]]);
  const near = [];
  for (let i = 0; i < neighbours.length; i += 5) near.push(neighbours.slice(i, i + 5));
  const share = near.reduce((sum, row) => sum + row[4], 0);
  const line = (who, ...what) => [element("dt", {}, who), element("dd", {}, ...what)];
  const scored = (label, score) => element("span", { class: "part" }, labelChip(data.labels[label]), percent(score));
  const items = near.map(([index, place, label, similarity, part], i) => {
    const [id, text, entities] = data.stored[index];
    const light = (on) => () => lit(i, on);
    return element(
      "li",
      { "data-neighbour": i, onmouseenter: light(true), onmouseleave: light(false) },
      element("span", { class: "number" }, `${i + 1}`),
      element("div", {},
        element("div", { class: "measures" },
          labelChip(data.labels[label]), bar([[data.labels[label], part]]), element("span", {}, `${percent(part)} of the vote`),
          element("span", {}, `similarity ${Number(similarity.toPrecision(3))}`), element("span", {}, `sentence ${id}`),
          place < 0 ? element("span", {}, "start or end of the sentence") : ""),
        element("div", { class: "text" }, ...sentence(wordsOf(text), entities, { word: place }))),
    );
  });
  const comparison = without === mixed ? "the same label" : "another label";
  return element("div", { class: "why" },
    element("div", {},
      element("dl", { class: "answer" },
        ...line("tagger alone", scored(alone, aloneScore)),
        ...line("vote", bar(votes), ...vote.flatMap((label, i) => (i % 2 ? [] : [scored(label, vote[i + 1])]))),
        ...line("mix", scored(mixed, mixedScore)),
        ...line(`mix without these ${near.length}`, scored(without, withoutScore), element("span", {}, comparison))),
      element("ol", { "aria-label": `Neighbours of ${word}: ${percent(share)} of the vote` }, ...items)),
    drawMap(word, map, near.length));
}

function drawMap(word, map, near) {
  const at = (value) => 20 + value;
  const counts = new Map();
  const marks = [];
  for (let i = 2, n = 0; i < map.length; i += 3, n++) {
    const label = data.labels[map[i]], type = typeOf(label);
    counts.set(label, (counts.get(label) ?? 0) + 1);
    const isNear = n < near;
    const mark = element(
      "g",
      {
        class: isNear ? "" : "far", entity: type,
        ...(isNear ? { "data-neighbour": n, onmouseenter: () => lit(n, true), onmouseleave: () => lit(n, false) } : {}),
      },
      element("circle", { cx: at(map[i + 1]), cy: at(map[i + 2]), r: isNear ? 8 : 4.5 }),
      element("title", {}, isNear ? `neighbour ${n + 1}: ${label}` : label),
    );
    if (isNear) mark.append(element("text", { x: at(map[i + 1]), y: at(map[i + 2]) + 3.5 }, `${n + 1}`));
    marks.unshift(mark);
  }
  const x = at(map[0]), y = at(map[1]), r = 9;
  const query = element("path", { class: "query", d: `M${x},${y - r}L${x + r},${y}L${x},${y + r}L${x - r},${y}Z` },
    element("title", {}, word));
  const key = [...counts].sort((a, b) => b[1] - a[1]).map(([label, count]) => labelChip(label, ` ${count}`));
  const described = `Map of the ${marks.length} stored tokens nearest to ${word}: ` +
    [...counts].map(([label, count]) => `${count} ${label}`).join(", ");
  return element("figure", {},
    element("svg", { viewBox: "0 0 295 295", role: "img", "aria-label": described }, ...marks, query),
    element("figcaption", {},
      `The ${marks.length} stored tokens nearest to “${word}” (◆), on the two principal components of their hidden states. Numbers are those of the list.`,
      element("div", { class: "key" }, ...key)));
}

function lit(number, on) {
  for (const each of document.querySelectorAll(`[data-neighbour="${number}"]`)) each.classList.toggle("lit", on);
}

/* The address of the page holds the filters and the chosen case, so that it can be bookmarked or sent. */
function writeAddress() {
  const kept = new URLSearchParams();
  kept.set("outcome", [...state.outcomes].join(","));
  if (state.type) kept.set("type", state.type);
  if (state.search) kept.set("search", state.search);
  if (state.chosen >= 0) kept.set("case", state.chosen);
  history.replaceState(null, "", `#${kept}`);
}

function readAddress() {
  const kept = new URLSearchParams(location.hash.slice(1));
  const counts = data.outcomes.map((_, i) => data.cases.filter((row) => row[1] === i).length);
  const changes = ["fixed", "broken", "changed"].filter((name) => counts[data.outcomes.indexOf(name)]);
  const known = (kept.get("outcome") ?? "").split(",").filter((name) => data.outcomes.includes(name));
  state.outcomes = new Set(kept.has("outcome") ? known : changes.length ? changes : data.outcomes);
  state.type = types.includes(kept.get("type")) ? kept.get("type") : "";
  state.search = kept.get("search") ?? "";
  const chosen = kept.has("case") ? Number(kept.get("case")) : -1;
  state.chosen = data.cases[chosen] ? chosen : -1;
  $("type").value = state.type;
  $("search").value = state.search;
}

function start() {
  for (const [name, value] of data.facts) {
    $("facts").append(element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  }
  data.outcomes.forEach((name, i) => {
    const count = data.cases.filter((row) => row[1] === i).length;
    const toggle = () => {
      if (!state.outcomes.delete(name)) state.outcomes.add(name);
      applyFilters();
    };
    $("outcomes").append(element(
      "button", { type: "button", value: name, title: OUTCOMES[name], tint: name, onclick: toggle }, name, element("b", {}, `${count}`),
    ));
  });
  for (const type of types) $("type").append(element("option", { value: type }, type));
  readAddress();
  $("type").addEventListener("change", (event) => { state.type = event.target.value; applyFilters(); });
  $("search").addEventListener("input", (event) => { state.search = event.target.value; applyFilters(); });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("list").addEventListener("scroll", () => requestAnimationFrame(drawRows), { passive: true });
  $("list").addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor($("list").clientHeight / ROW) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key === "Enter") $("detail").focus();
    if (!(event.key in steps) || !shown.length) return;
    event.preventDefault();
    const place = Math.min(shown.length - 1, Math.max(0, shown.indexOf(state.chosen) + steps[event.key]));
    choose(shown[place]);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|SELECT)$/.test(event.target.tagName)) {
      event.preventDefault();
      $("search").focus();
    }
  });
  addEventListener("resize", drawRows);
  addEventListener("hashchange", () => { readAddress(); applyFilters(); });
  const chosen = state.chosen;
  applyFilters();
  if (chosen >= 0 && shown.includes(chosen)) choose(chosen);
}

start();
