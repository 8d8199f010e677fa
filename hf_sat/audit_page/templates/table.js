// What one does with the table: choose, sort, move, tick, export.
function refresh() {
  filterRows();
  current = 0;
  close();
  grid.scrollTop = 0;
  grid.setAttribute("aria-rowcount", order.length + 1);
  byId("none").hidden = order.length > 0;
  byId("none").textContent = count ? "No label fits these filters." : "This audit has no labels.";
  byId("reset").hidden = !isFiltered();
  draw();
  report();
}

function report() {
  const ticks = tickedCount ? `, ${whole.format(tickedCount)} ticked` : "";
  byId("shown").textContent = `${whole.format(order.length)} of ${whole.format(count)} labels shown${ticks}`;
  byId("export-ticked").textContent = tickedCount ? `Export ${whole.format(tickedCount)} ticked` : "Export ticked";
  byId("export-ticked").disabled = tickedCount === 0;
  byId("tick-none").disabled = tickedCount === 0;
  byId("tick-all").disabled = order.length === 0;
}

function setFilter(changes) {
  Object.assign(filter, changes);
  byId("given").value = filter.given < 0 ? "" : filter.given;
  byId("proposed").value = filter.proposed < 0 ? "" : filter.proposed;
  byId("issues").checked = filter.issues;
  if (byId("search").value !== filter.search) byId("search").value = filter.search;
  refresh();
}

const noFilter = { given: -1, proposed: -1, issues: false, search: "" };

// From the heat map and the lists above: show these labels.
function showLabels(changes) {
  setFilter({ ...noFilter, ...changes });
  byId("labels").scrollIntoView();
  grid.focus({ preventScroll: true });
}

function sortBy(key, descending) {
  Object.assign(sorting, { key, descending });
  sortRows();
  for (const head of grid.querySelectorAll("[data-sort]")) {
    if (head.dataset.sort !== key) head.removeAttribute("aria-sort");
    else head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  }
  byId("sort").value = key;
  byId("direction").setAttribute("aria-pressed", descending);
  byId("direction").firstChild.textContent = descending ? "↓ " : "↑ ";
  byId("direction").lastElementChild.textContent = descending ? "descending" : "ascending";
  refresh();
}

function move(place) {
  if (!order.length) return;
  current = Math.min(Math.max(place, 0), order.length - 1);
  const openPlace = opened < 0 ? -1 : placeOf(opened);
  const top = topOf(current, openPlace);
  const room = grid.clientHeight - headHeight();
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + rowHeight > grid.scrollTop + room) grid.scrollTop = top + rowHeight - room;
  draw();
}

const pageOfRows = () => Math.max(1, Math.floor((grid.clientHeight - headHeight()) / rowHeight) - 1);

function toggleTick(row) {
  tickAll([row], !ticked[row]);
}

function tickAll(rows, on) {
  for (const row of rows) tick(row, on);
  draw();
  report();
  keepTicks();
}

function open(row) {
  opened = row;
  detail = makeDetail(row);
  draw();
  detailHeight = detail.offsetHeight;
  draw();
}

function close() {
  opened = -1;
  detail = null;
  detailHeight = 0;
}

function toggleOpen(row) {
  const wasOpen = opened === row;
  close();
  if (wasOpen) draw();
  else open(row);
}

const quoted = (value) => (/[",\r\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

// One line a label, as RFC 4180 has it.
function csv(rows) {
  const head = ["sample_id", ...(page.token ? ["token_index"] : []), "given_label", "proposed_label", "label_quality"];
  const lines = Array.from(rows, (row) => [
    page.id[row],
    ...(page.token ? [page.token[row]] : []),
    page.classes[given[row]] ?? "",
    page.classes[proposed[row]] ?? "",
    Number.isNaN(quality[row]) ? "" : quality[row],
  ]);
  return [head, ...lines].map((line) => line.map(quoted).join(",") + "\r\n").join("");
}

function save(rows, what) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([csv(rows)], { type: "text/csv;charset=utf-8" }));
  link.download = `${page.title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "labels"}-${what}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const allRows = () => Int32Array.from({ length: count }, (_, row) => row);
const saveTicked = () => tickedCount && save(allRows().filter((row) => ticked[row]), "ticked");

byId("search").addEventListener("input", debounce(() => setFilter({ search: byId("search").value }), 120));
for (const name of ["given", "proposed"]) {
  byId(name).addEventListener("change", (event) => {
    setFilter({ [name]: event.target.value === "" ? -1 : Number(event.target.value) });
  });
}
byId("issues").addEventListener("change", (event) => setFilter({ issues: event.target.checked }));
byId("reset").addEventListener("click", () => setFilter(noFilter));
byId("tick-all").addEventListener("click", () => tickAll(order, true));
byId("tick-none").addEventListener("click", () => tickAll(allRows(), false));
byId("export-ticked").addEventListener("click", saveTicked);
byId("export-issues").addEventListener("click", () => save(allRows().filter((row) => issue[row]), "issues"));
byId("export-issues").disabled = !issue.includes(1);
document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
for (const [key, column] of columns) {
  if (key === "example" && !haystack.texts) continue;
  byId("sort").append(new Option(visible(column.title), key));
}
byId("sort").addEventListener("change", (event) => sortBy(event.target.value, false));
byId("direction").addEventListener("click", () => sortBy(sorting.key, !sorting.descending));
