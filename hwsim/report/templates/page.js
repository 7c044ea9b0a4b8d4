"use strict";
(function () {
  function value(cell) {
    const given = cell.dataset.sort;
    if (given === undefined) return cell.textContent.trim();
    const number = Number(given);
    return Number.isNaN(number) ? given : number;
  }
  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === typeof b) return a.localeCompare(b, "en", { numeric: true });
    return typeof a === "number" ? -1 : 1;
  }
  function sort(table, place, down) {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, function (row) { return [value(row.cells[place]), row]; });
    rows.sort(function (a, b) {
      const mixed = typeof a[0] !== typeof b[0];
      return compare(a[0], b[0]) * (down && !mixed ? -1 : 1);
    });
    rows.forEach(function (pair) { body.appendChild(pair[1]); });
  }
  document.querySelectorAll("table").forEach(function (table) {
    if (table.tBodies[0].rows.length < 2) return;
    Array.from(table.tHead.rows[0].cells).forEach(function (head, place) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", function () {
        const down = head.getAttribute("aria-sort") === "ascending";
        Array.from(table.tHead.rows[0].cells).forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, place, down);
      });
    });
  });
  function stops() {
    document.querySelectorAll(".scroll, pre").forEach(function (box) {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    });
  }
  stops();
  window.addEventListener("resize", stops);
  document.addEventListener("toggle", stops, true);
})();
