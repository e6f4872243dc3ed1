"use strict";
// Tables sort by a click on a header; the teacher keeps its place, and what is missing goes to the end.
const PREFIX = { k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 };
const text = (row, place) => row.cells[place].textContent.trim();
const missing = (said) => said === "" || said === "-";
const number = (said) => {
  const found = /^([+-]?\d+(?:\.\d+)?)([kMGTP]?)/.exec(said);
  return found ? parseFloat(found[1]) * (PREFIX[found[2]] || 1) : NaN;
};

function compare(a, b, numeric) {
  return numeric ? number(a) - number(b) : a.localeCompare(b);
}

function sort(table, place, sign) {
  const body = table.tBodies[0];
  const rows = [...body.rows].filter((row) => !row.classList.contains("teacher"));
  const known = rows.filter((row) => !missing(text(row, place)));
  const numeric = known.every((row) => !Number.isNaN(number(text(row, place))));
  known.sort((a, b) => sign * compare(text(a, place), text(b, place), numeric));
  body.append(...known, ...rows.filter((row) => missing(text(row, place))));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((each) => each.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(table, place, descending ? -1 : 1);
    });
  });
}
