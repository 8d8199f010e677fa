// Pointer and keyboard, light and dark, paper; then the first drawing.
body.addEventListener("click", (event) => {
  const shown = event.target.closest(".row");
  if (!shown || window.getSelection().toString()) return;
  const row = Number(shown.dataset.row);
  current = placeOf(row);
  if (event.target.closest(".c-tick")) toggleTick(row);
  else toggleOpen(row);
  grid.focus({ preventScroll: true });
});
for (const head of grid.querySelectorAll("[data-sort] button")) {
  const key = head.parentElement.dataset.sort;
  if (!byId("sort").querySelector(`[value="${key}"]`)) head.disabled = true;
  head.tabIndex = 0;
  head.addEventListener("click", () => sortBy(key, sorting.key === key && !sorting.descending));
}

const here = () => order[current];
const ifAny = (run) => () => order.length && run(here());
const anywhere = {
  "/": () => byId("search").focus(),
  "?": () => byId("help").showModal(),
  j: () => move(current + 1),
  k: () => move(current - 1),
  x: ifAny(toggleTick),
  o: ifAny(toggleOpen),
  i: () => setFilter({ issues: !filter.issues }),
  a: () => tickAll(order, true),
  e: saveTicked,
};
const inGrid = {
  ArrowDown: anywhere.j,
  ArrowUp: anywhere.k,
  PageDown: () => move(current + pageOfRows()),
  PageUp: () => move(current - pageOfRows()),
  Home: () => move(0),
  End: () => move(order.length - 1),
  " ": ifAny(toggleTick),
  Enter: ifAny(toggleOpen),
  Escape: () => {
    close();
    draw();
  },
};

document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  if (target.matches("input[type=search], select")) {
    if (event.key === "Escape" || (event.key === "Enter" && target.type === "search")) {
      event.preventDefault(); // the browser would clear the search
      grid.focus();
    }
    return;
  }
  const run = anywhere[event.key] ?? (target === grid ? inGrid[event.key] : undefined);
  if (!run) return;
  event.preventDefault();
  if ("jkxo".includes(event.key)) grid.focus({ preventScroll: target === grid });
  run();
});

let waiting = false;
grid.addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    draw();
  });
});
new ResizeObserver(debounce(draw, 50)).observe(grid);
byId("help-open").addEventListener("click", anywhere["?"]);

// The choice outlives the page where the browser lets files store anything.
const dark = matchMedia("(prefers-color-scheme: dark)");
function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  const isDark = theme ? theme === "dark" : dark.matches;
  byId("theme").value = isDark ? "light" : "dark";
  byId("theme").textContent = isDark ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", isDark ? "Light colours" : "Dark colours");
}
byId("theme").addEventListener("click", () => {
  stored("hf_sat.theme", byId("theme").value);
  setTheme(byId("theme").value);
});
dark.addEventListener("change", () => setTheme(stored("hf_sat.theme")));

for (const [moment, on] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(moment, () => {
    onPaper = on;
    draw();
  });
}

setTheme(stored("hf_sat.theme"));
sortBy("quality", false);
performance.mark("hf_sat:ready");
