// Which rows are shown, and in which order. `order` holds row numbers; rows lie most suspicious first.
const columns = new Map([
  ["quality", { title: "quality", values: quality }],
  ["id", { title: page.token ? "sample and token" : "sample id", texts: page.id }],
  ["example", { title: "example", texts: null }],
  ["given", { title: "given class", classes: given }],
  ["proposed", { title: "proposed class", classes: proposed }],
  ["issue", { title: "issue", values: issue }],
]);
for (const [k, score] of page.scores.entries()) {
  columns.set(`score${k}`, { title: score.name, [score.number ? "values" : "texts"]: score.values });
}

const filter = { given: -1, proposed: -1, issues: false, search: "" };
const sorting = { key: "quality", descending: false };
const ticked = new Uint8Array(count);
let tickedCount = 0;
let sorted = Int32Array.from({ length: count }, (_, row) => row);
let order = sorted;

const collator = new Intl.Collator("en", { numeric: true });

// A number for every row that sorts as its value does.
function sortKeys(key) {
  const column = columns.get(key);
  if (column.keys) return column.keys;
  if (column.values) {
    column.keys = Float64Array.from(column.values, (value) => (value === null ? NaN : Number(value)));
  } else if (column.classes) {
    const names = ranks(page.classes.map((_, k) => className(k)), collator.compare);
    column.keys = Float64Array.from(column.classes, (k) => (k < 0 ? NaN : names[k]));
  } else if (key === "id") {
    column.keys = idKeys();
  } else {
    column.keys = ranks(key === "example" ? exampleTexts() : column.texts.map(String));
  }
  return column.keys;
}

function idKeys() {
  const numeric = page.id.every((id) => typeof id === "number");
  const keys = numeric ? Float64Array.from(page.id) : ranks(page.id.map(String));
  if (!page.token) return keys;
  const widest = page.token.reduce((most, token) => Math.max(most, token), 0) + 1;
  return keys.map((key, row) => key * widest + page.token[row]);
}

function exampleTexts() {
  const texts = haystack.texts;
  if (!texts) return Array(count).fill("");
  return exampleOf ? Array.from(exampleOf, (k) => texts[k]) : texts;
}

function ranks(texts, compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0)) {
  const places = Array.from(texts, (_, row) => row).sort((a, b) => compare(texts[a], texts[b]));
  const keys = new Float64Array(texts.length);
  let rank = 0;
  places.forEach((row, place) => {
    if (place && texts[row] !== texts[places[place - 1]]) rank += 1;
    keys[row] = rank;
  });
  return keys;
}

// Rows without a value come last in both directions, equal ones most suspicious first.
function sortRows() {
  const keys = sortKeys(sorting.key);
  const sign = sorting.descending ? -1 : 1;
  const rows = Int32Array.from({ length: count }, (_, row) => row);
  const have = rows.filter((row) => !Number.isNaN(keys[row]));
  const lack = rows.filter((row) => Number.isNaN(keys[row]));
  have.sort((a, b) => sign * (keys[a] - keys[b]) || a - b);
  sorted = new Int32Array(count);
  sorted.set(have);
  sorted.set(lack, have.length);
}

function filterRows() {
  const fits = matching(filter.search.trim().toLowerCase());
  order = sorted.filter(
    (row) =>
      (filter.given < 0 || given[row] === filter.given) &&
      (filter.proposed < 0 || proposed[row] === filter.proposed) &&
      (!filter.issues || issue[row]) &&
      (!fits || fits(row)),
  );
}

function matching(search) {
  if (!search) return null;
  const { ids, texts } = haystack;
  const found = texts && Uint8Array.from(texts, (text) => text.includes(search));
  return (row) => (found && found[exampleOf ? exampleOf[row] : row]) || ids[row] === search || (!found && ids[row].includes(search));
}

const isFiltered = () => filter.given >= 0 || filter.proposed >= 0 || filter.issues || filter.search.trim() !== "";

function tick(row, on) {
  tickedCount += Number(on) - ticked[row];
  ticked[row] = Number(on);
}

// Ticks outlive the tab where the browser lets a file store anything: they are somebody's work.
const KEPT = 20000;
const keepTicks = debounce(() => {
  const rows = tickedCount <= KEPT ? sorted.filter((row) => ticked[row]) : [];
  stored(`hf_sat.ticks.${page.key}`, rows.join(" "));
}, 200);

function stored(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

for (const row of (stored(`hf_sat.ticks.${page.key}`) || "").split(" ")) {
  if (row !== "" && Number(row) < count) tick(Number(row), true);
}
