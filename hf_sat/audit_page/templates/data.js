// The columns, unpacked, and how single values are written.
const page = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const count = page.id.length;
const given = Int32Array.from(page.given);
const proposed = Int32Array.from(page.proposed);
const issue = Uint8Array.from(page.issue);
const quality = Float64Array.from(page.quality, (value) => (value === null ? NaN : value));
const exampleOf = page.example_of ? Int32Array.from(page.example_of) : null;

// Control characters have no glyph: show a sign for each.
const visible = (text) =>
  String(text).replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)));
const className = (index) => {
  if (index < 0) return "(no label)";
  const name = page.classes[index];
  return name.trim() ? visible(name) : `(class ${index})`;
};
const whole = new Intl.NumberFormat("en");
function decimals(value) {
  if (Number.isNaN(value)) return "not seen";
  return value < 0.001 ? "<0.001" : value.toFixed(3);
}
const percent = (share) => `${(100 * share).toFixed(1)} %`;

function example(row) {
  const found = page.examples[exampleOf ? exampleOf[row] : row];
  return found === undefined ? null : found;
}

// Everything one can search in, lowered once, when a search first needs it.
const haystack = {
  get texts() {
    const lower = (found) => (page.kind === "words" ? found.join(" ") : found).toLowerCase();
    return define(this, "texts", page.kind === "text" || page.kind === "words" ? page.examples.map(lower) : null);
  },
  get ids() {
    return define(this, "ids", page.id.map((id) => String(id).toLowerCase()));
  },
};
function define(object, name, value) {
  Object.defineProperty(object, name, { value });
  return value;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function debounce(run, milliseconds) {
  let timer;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(run, milliseconds, ...args);
  };
}
