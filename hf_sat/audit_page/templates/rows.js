// The rows on the screen: only those, with empty space above and below for the others.
const grid = byId("grid");
const body = byId("rows");
const blank = byId("row").content.firstElementChild;
const above = element("div");
const below = element("div");
const SPARE = 8; // rows kept ready beyond each edge
const onScreen = new Map(); // row number -> its element
let current = 0; // place in `order`
let opened = -1; // row number whose details are shown
let detail = null;
let detailHeight = 0;
let rowHeight = 1;
let onPaper = false;

const placeOf = (row) => order.indexOf(row);
const headHeight = () => grid.firstElementChild.offsetHeight;
const topOf = (place, openPlace) => place * rowHeight + (openPlace >= 0 && place > openPlace ? detailHeight : 0);

function draw() {
  if (onPaper) return drawForPaper();
  rowHeight = parseFloat(getComputedStyle(grid).getPropertyValue("--row"));
  const openPlace = opened < 0 ? -1 : placeOf(opened);
  // The grid grows with its rows up to a part of the window.
  const height = Math.max(grid.clientHeight, window.innerHeight);
  const first = Math.max(0, placeAt(grid.scrollTop, openPlace) - SPARE);
  const last = Math.min(order.length, placeAt(grid.scrollTop + height, openPlace) + SPARE);
  fill(first, last, openPlace);
}

// Paper has no scroll bar: the first rows.
function drawForPaper() {
  fill(0, Math.min(order.length, 60), -1);
  below.style.height = "0";
}

function placeAt(offset, openPlace) {
  const place = Math.floor(offset / rowHeight);
  if (openPlace < 0 || place <= openPlace) return place;
  return Math.max(openPlace, Math.floor((offset - detailHeight) / rowHeight));
}

function fill(first, last, openPlace) {
  const parts = [];
  const wanted = new Set();
  for (let place = first; place < last; place++) {
    const row = order[place];
    wanted.add(row);
    if (!onScreen.has(row)) onScreen.set(row, makeRow(row));
    parts.push(mark(onScreen.get(row), row, place));
    if (place === openPlace) parts.push(detail);
  }
  for (const row of onScreen.keys()) if (!wanted.has(row)) onScreen.delete(row);
  above.style.height = `${topOf(first, openPlace)}px`;
  const total = order.length * rowHeight + (openPlace >= 0 ? detailHeight : 0);
  below.style.height = `${Math.max(0, total - topOf(last, openPlace))}px`;
  body.replaceChildren(above, ...parts, below);
  const here = order.length ? onScreen.get(order[current]) : null;
  if (here) grid.setAttribute("aria-activedescendant", here.id);
  else grid.removeAttribute("aria-activedescendant");
}

function mark(shown, row, place) {
  shown.setAttribute("aria-rowindex", place + 2);
  shown.setAttribute("aria-selected", ticked[row] === 1);
  shown.setAttribute("aria-expanded", row === opened);
  shown.classList.toggle("ticked", ticked[row] === 1);
  shown.classList.toggle("current", place === current);
  shown.querySelector("input").checked = ticked[row] === 1;
  return shown;
}

function makeRow(row) {
  const shown = blank.cloneNode(true);
  const cell = (name) => shown.querySelector(`.c-${name}`);
  shown.id = `row-${row}`;
  shown.dataset.row = row;
  shown.querySelector("input").setAttribute("aria-label", `Tick sample ${visible(page.id[row])}`);
  cell("id").textContent = visible(page.id[row]);
  if (page.token) cell("id").append(element("span", "token", `token ${page.token[row]}`));
  showExample(cell("example").firstElementChild, row);
  cell("given").firstElementChild.textContent = className(given[row]);
  cell("proposed").firstElementChild.textContent = className(proposed[row]);
  cell("proposed").classList.add(given[row] === proposed[row] ? "same" : "other");
  cell("quality").firstElementChild.textContent = decimals(quality[row]);
  cell("quality").querySelector("b").style.width = `${100 * Math.min(Math.max(quality[row] || 0, 0), 1)}%`;
  if (issue[row]) cell("issue").append(element("span", "badge", "issue"));
  return shown;
}

const SHORT = 400; // characters that two lines can never exceed

function showExample(place, row) {
  const found = example(row);
  if (page.kind === "image") {
    if (found) place.append(picture(found, row));
    else place.append(element("span", "note", "no picture"));
  } else if (page.kind === "words") {
    appendWords(place, found, page.token ? page.token[row] : -1, 7);
  } else if (page.kind === "text") {
    place.textContent = visible(found.length > SHORT ? `${found.slice(0, SHORT)}…` : found);
  }
}

function picture(source, row) {
  const image = element("img");
  image.src = source;
  image.alt = `Sample ${visible(page.id[row])}`;
  return image;
}

// The marked word between its neighbours; all of them where `reach` is Infinity.
function appendWords(place, words, marked, reach) {
  const from = Math.max(0, marked - reach);
  const to = marked < 0 ? 60 : marked + 1 + 2 * reach;
  const join = (part) => visible(part.join(" "));
  if (marked < 0 || marked >= words.length) {
    place.append(join(words.slice(0, reach === Infinity ? undefined : 60)));
    return;
  }
  place.append(from > 0 ? "… " : "", join(words.slice(from, marked)), marked > from ? " " : "");
  place.append(element("mark", "", visible(words[marked])));
  place.append(" ", join(words.slice(marked + 1, to)));
}

function makeDetail(row) {
  const made = element("div", "detail");
  made.setAttribute("role", "row");
  const cell = made.appendChild(element("div"));
  cell.setAttribute("role", "gridcell");
  const found = example(row);
  const text = cell.appendChild(element("div", "whole"));
  text.dir = "auto";
  if (page.kind === "image") text.append(found ? picture(found, row) : "This file holds no picture of it.");
  else if (page.kind === "words") appendWords(text, found, page.token ? page.token[row] : -1, Infinity);
  else if (page.kind === "text") text.textContent = visible(found);
  cell.append(facts(row));
  return made;
}

function facts(row) {
  const list = element("dl");
  const add = (title, value) => {
    const pair = list.appendChild(element("div"));
    pair.append(element("dt", "", title), element("dd", "", value));
  };
  add("sample", visible(page.id[row]));
  if (page.token) add("token", page.token[row]);
  add("given", className(given[row]));
  add("proposed", className(proposed[row]));
  add("label_quality", decimals(quality[row]));
  for (const score of page.scores) add(visible(score.name), score.values[row] === null ? "–" : visible(score.values[row]));
  return list;
}
