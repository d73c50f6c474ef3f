"use strict";
// What a page can do besides being read: show the number of a mark, hide a line, sort and filter a table.

const hover = document.body.appendChild(document.createElement("div"));
hover.id = "hover";
hover.hidden = true;
const REACH = 30; // pixels from a mark at which its number is shown

function nearest(svg, x, y) {
  let best = null, least = REACH;
  for (const mark of svg.querySelectorAll("[aria-label*=': ']")) {
    const box = mark.getBoundingClientRect();
    const away = Math.hypot(Math.max(box.left - x, 0, x - box.right), Math.max(box.top - y, 0, y - box.bottom));
    if (box.width && mark.getAttribute("aria-label") && away < least) [best, least] = [mark, away];
  }
  return best;
}

// The marks of a line begin their description with its name.
function marksOf(picture, name) {
  return [...picture.querySelectorAll("[aria-label]")].filter((mark) => `${mark.getAttribute("aria-label")}: `.startsWith(`${name}: `));
}

function toggle(key, marks) {
  const off = key.classList.toggle("off");
  for (const mark of marks) mark.style.display = off ? "none" : "";
}

for (const svg of document.querySelectorAll("figure svg")) {
  svg.addEventListener("pointermove", (event) => {
    const mark = nearest(svg, event.clientX, event.clientY);
    hover.hidden = !mark;
    if (!mark) return;
    hover.textContent = mark.getAttribute("aria-label");
    const box = hover.getBoundingClientRect();
    hover.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - box.width - 4))}px`;
    hover.style.top = `${event.clientY > box.height + 16 ? event.clientY - box.height - 10 : event.clientY + 16}px`;
  });
  svg.addEventListener("pointerleave", () => { hover.hidden = true; });
  for (const key of svg.querySelectorAll(".role-legend-entry .role-legend-label text")) {
    if (!marksOf(svg, key.textContent).length) continue;
    key.classList.add("key");
    key.setAttribute("pointer-events", "all");
    key.addEventListener("click", () => toggle(key, marksOf(svg, key.textContent)));
  }
}

// On a phone a page begins as a list of its sections; without this script all of them are open.
if (matchMedia("(max-width: 700px)").matches) for (const section of document.querySelectorAll("details.section")) section.open = false;
const unfold = () => { const section = document.getElementById(location.hash.slice(1)); if (section?.matches("details")) section.open = true; };
addEventListener("hashchange", unfold);
for (const link of document.querySelectorAll("nav a")) link.addEventListener("click", () => setTimeout(unfold));
unfold();

function sortable(table) {
  const body = table.tBodies[0];
  table.querySelectorAll("th[data-sort]").forEach((head) => {
    head.tabIndex = 0;
    const sort = () => {
      const falls = head.getAttribute("aria-sort") !== "descending", column = head.cellIndex;
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const order = (a, b) => (head.dataset.sort === "number" ? key(a) - key(b) : key(a).localeCompare(key(b)));
      const missing = (row) => key(row).trim() === ""; // stands last, whichever way the others are sorted
      body.append(...[...body.rows].sort((a, b) => missing(a) - missing(b) || (falls ? -order(a, b) : order(a, b))));
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
}

function choice(table, column) {
  const select = document.createElement("select"), name = table.tHead.rows[0].cells[column].textContent;
  select.setAttribute("aria-label", name);
  select.append(new Option(`every ${name}`, ""));
  const values = new Set([...table.tBodies[0].rows].map((row) => row.cells[column].textContent));
  for (const value of values) select.append(new Option(value || "–", value));
  return select;
}

function filterable(table) {
  const controls = document.createElement("div"), text = document.createElement("input"), count = document.createElement("span");
  const columns = [...table.tHead.rows[0].cells].filter((head) => "choose" in head.dataset).map((head) => head.cellIndex);
  const choices = columns.map((column) => choice(table, column));
  text.type = "search";
  text.placeholder = "filter by text";
  text.setAttribute("aria-label", "filter by text");
  controls.className = "controls";
  controls.append(...choices, text, count);
  table.before(controls);
  const apply = () => {
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const fits = choices.every((select, k) => !select.selectedIndex || row.cells[columns[k]].textContent === select.value);
      row.hidden = !fits || !row.textContent.toLowerCase().includes(text.value.toLowerCase());
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${table.tBodies[0].rows.length}`;
  };
  controls.addEventListener("input", apply);
  apply();
}

for (const table of document.querySelectorAll("table.sortable")) sortable(table);
for (const table of document.querySelectorAll("table.filterable")) filterable(table);

// The keys above a picture of several panels: a click hides what belongs to a key in all of them.
for (const keys of document.querySelectorAll(".keys")) {
  for (const key of keys.querySelectorAll(".key")) {
    key.tabIndex = 0;
    const change = () => toggle(key, marksOf(keys.nextElementSibling, key.dataset.key));
    key.addEventListener("click", change);
    key.addEventListener("keydown", (event) => { if (event.key === "Enter") change(); });
  }
}
