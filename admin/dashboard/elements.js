"use strict";

// Elements of the page. What a registry says is set as text, never as HTML.

const byId = id => document.getElementById(id);

function element(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) e.setAttribute(key, value);
  e.append(...children);
  return e;
}

// show makes text what e shows. It touches only what is different: of thousands
// of texts few change from one round to the next.
function show(e, text, className) {
  if (e.shown !== text) e.textContent = e.shown = text;
  if (className !== undefined) classify(e, className);
}

function label(e, text) {
  if (e.ariaLabel !== text) e.ariaLabel = text;
}

function classify(e, className) {
  if (e.className !== className) e.className = className;
}

// showIf shows e or hides it, and returns whether it is shown.
function showIf(e, shown) {
  if (e.hidden === shown) e.hidden = !shown;
  return shown;
}

// arrange gives parent these children, and moves only what is not in place.
function arrange(parent, children) {
  const stay = new Set(children);
  for (const child of [...parent.children]) if (!stay.has(child)) child.remove();
  let next = parent.firstElementChild;
  for (const child of children) {
    if (child === next) next = next.nextElementSibling;
    else if (child.parentNode && parent.moveBefore) parent.moveBefore(child, next); // keeps the focus
    else parent.insertBefore(child, next);
  }
}

// follow returns a view for each item, the one it had before if there is one,
// and updates it. views has them by key, and forgets those without an item.
function follow(views, items, keyOf, make) {
  const before = new Map(views);
  views.clear();
  return items.map(item => {
    let key = keyOf(item);
    while (views.has(key)) key += "\n"; // one that has left and is back is there twice
    const view = before.get(key) ?? make(item);
    views.set(key, view);
    view.update(item);
    return view;
  });
}

// Numbers and words.

const formats = [0, 1, 2].map(digits => new Intl.NumberFormat("en", { maximumFractionDigits: digits }));
const number = (n, digits = 0) => formats[digits].format(n);
const percent = share => number(share * 100, 1) + "%";
const zero = n => n ? "number" : "number zero";
const count = (n, noun, nouns = noun + "s") => number(n) + " " + (n === 1 ? noun : nouns);

const age = since => span(Date.now() - Date.parse(since));
const left = until => span(Date.parse(until) - Date.now());

function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 86400) return Math.floor(s / 3600) + " h";
  return Math.floor(s / 86400) + " d";
}

// Rate turns a counter into how fast it grows, per second.
class Rate {
  of(counter) {
    const now = performance.now();
    const rate = this.count <= counter ? (counter - this.count) * 1000 / (now - this.at) : 0;
    [this.count, this.at] = [counter, now];
    return rate;
  }
}

// Tables whose rows become blocks on a narrow screen. A column is its title, and the text and
// the class of an item's cell.

function tableHead(columns) {
  return element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...columns.map(([title, , className]) =>
    element("th", { role: "columnheader", scope: "col", class: className?.({}).startsWith("number") ? "number" : "" }, title))));
}

// RowView is an item's row, and below it why it is as it is, if whyOf says something.
class RowView {
  constructor(columns, whyOf, whyClass = "stale") {
    [this.columns, this.whyOf, this.whyClass] = [columns, whyOf, whyClass];
    this.cells = columns.map(([title], i) => element("td", { role: "cell", ...(i && { "data-title": title }) }));
    this.root = element("tbody", { role: "rowgroup" }, element("tr", { role: "row" }, ...this.cells));
  }

  update(item) {
    this.columns.forEach(([, text, className], i) => show(this.cells[i], text(item), className?.(item) ?? ""));
    const why = this.whyOf?.(item) ?? "";
    if (why && !this.why) {
      this.why = element("td", { role: "cell", colspan: this.columns.length, class: this.whyClass });
      this.root.append(element("tr", { role: "row", class: "reasons" }, this.why));
    }
    if (this.why && showIf(this.why.parentNode, why !== "")) show(this.why, why);
  }
}
