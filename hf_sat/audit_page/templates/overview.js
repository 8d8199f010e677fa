// The heat map and the table of classes.
const indexes = (dataset) => ({
  given: dataset.given === undefined ? -1 : Number(dataset.given),
  proposed: dataset.proposed === undefined ? -1 : Number(dataset.proposed),
});
for (const button of document.querySelectorAll("button[data-given]")) {
  button.addEventListener("click", () => showLabels(indexes(button.dataset)));
}

const heat = byId("heat");
if (heat) {
  const cells = Array.from(heat.tBodies[0].rows, (row) => Array.from(row.cells).slice(1));
  const find = (cell) => ({ given: cell.cellIndex - 1, proposed: cell.parentElement.sectionRowIndex });
  const go = (cell) => {
    heat.querySelector("[tabindex='0']").tabIndex = -1;
    cell.tabIndex = 0;
    cell.focus();
  };
  heat.tBodies[0].addEventListener("click", (event) => {
    const cell = event.target.closest("td");
    if (cell) showLabels(find(cell));
  });
  heat.addEventListener("keydown", (event) => {
    const cell = event.target.closest("tbody td");
    if (!cell) return;
    const { given: column, proposed: row } = find(cell);
    const step = arrow(event.key);
    if (step) go(cells[row + step[0]]?.[column + step[1]] ?? cell);
    else if (event.key === "Enter") showLabels(find(cell));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

function arrow(key) {
  return { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
}

const drawing = byId("heat-svg");
if (drawing) {
  const { kept, shares } = page.matrix;
  const cursor = byId("heat-cursor");
  const word = drawing.parentElement.dataset.rowWord;
  let at = [0, 0];
  const inside = (value) => Math.min(Math.max(value, 0), kept.length - 1);
  const point = (row, column) => {
    at = [inside(row), inside(column)];
    const share = shares[at[0]][at[1]];
    cursor.setAttribute("y", at[0]);
    cursor.setAttribute("x", at[1]);
    cursor.setAttribute("visibility", "visible");
    byId("heat-readout").textContent =
      `${word} ${className(kept[at[0]])}, given ${className(kept[at[1]])}: ${share < 0 ? "no labels" : percent(share / 10000)}`;
  };
  const choose = () => showLabels({ given: kept[at[1]], proposed: kept[at[0]] });
  const follow = (event) => {
    const box = drawing.getBoundingClientRect();
    const scale = kept.length / box.width;
    point(Math.floor((event.clientY - box.top) * scale), Math.floor((event.clientX - box.left) * scale));
  };
  drawing.addEventListener("pointermove", follow);
  drawing.addEventListener("click", (event) => {
    follow(event);
    choose();
  });
  drawing.addEventListener("keydown", (event) => {
    const step = arrow(event.key);
    if (step) point(at[0] + step[0], at[1] + step[1]);
    else if (event.key === "Enter") choose();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

const classTable = byId("class-table");
const value = (row, column) => Number(row.cells[column].dataset.v);
for (const [column, head] of Array.from(classTable.tHead.rows[0].cells).entries()) {
  head.querySelector("button").addEventListener("click", () => {
    // Counts are wanted from the largest down, classes in their order.
    const descending = head.hasAttribute("aria-sort") ? head.ariaSort === "ascending" : column > 0;
    for (const other of classTable.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const sign = descending ? -1 : 1;
    const rows = Array.from(classTable.tBodies[0].rows).filter((row) => row.cells.length > 1);
    rows.sort((a, b) => sign * (value(a, column) - value(b, column)) || value(a, 0) - value(b, 0));
    classTable.tBodies[0].append(...rows);
  });
}
