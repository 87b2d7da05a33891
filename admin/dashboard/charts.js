// Charts of a service: small pictures of the last 15 minutes, each with its values as text.

const chartWidth = 300, chartHeight = 48; // units of the picture, which is as wide as there is room

function svg(name, attributes, ...children) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  e.append(...children);
  return e;
}

const clock = time => new Date(time).toLocaleTimeString("en-GB");

// perSecond returns values as rates.
const perSecond = (s, values) => values.map((n, i) => n === null ? null : n * 1000 / (s.times[i + 1] - s.times[i]));

const most = values => values.reduce((max, n) => Math.max(max, n ?? 0), 0);
const latest = values => values.findLast(n => n !== null);
const ms = n => n === undefined || n === null ? "–" : number(n, n < 10 ? 1 : 0) + " ms";
const perS = n => number(n ?? 0, n < 10 ? 1 : 0) + "/s";
const sumOf = values => values.reduce((sum, n) => sum + (n ?? 0), 0);

const at = (s, values, i) => perS(perSecond(s, values)[i]);
const latencyText = (p50, p99) => "p50 " + ms(p50) + ", p99 " + ms(p99);
const statesText = countOf => stateOrder.toReversed().map(state => [countOf(state), state]).filter(([n]) => n).map(([n, state]) => n + " " + state).join(", ") || "none";

// What a chart shows: its title; lines(s), from the back to the front, each with its class
// and values, and stacked if they add up; what it says in words, and of sample i.
const chartKinds = [
  {
    title: "Requests",
    lines: s => [["area busy", perSecond(s, s.requests)]],
    text: s => sumOf(s.requests) ? perS(latest(perSecond(s, s.requests))) + ", most " + perS(most(perSecond(s, s.requests))) : "none",
    at: (s, i) => at(s, s.requests, i),
  },
  {
    title: "Errors",
    lines: s => [["area bad", perSecond(s, s.errors)]],
    text: s => sumOf(s.errors) === 0 ? "none" :
      perS(latest(perSecond(s, s.errors))) + ", " + number(sumOf(s.errors) / Math.max(1, sumOf(s.requests)) * 100, 2) + "% of " + count(sumOf(s.requests), "request"),
    at: (s, i) => number(s.errors[i] ?? 0) + " of " + count(s.requests[i] ?? 0, "request"),
  },
  {
    title: "Latency",
    lines: s => [["line p99", s.p99_ms], ["line p50", s.p50_ms]],
    text: s => most(s.p99_ms) ? latencyText(latest(s.p50_ms), latest(s.p99_ms)) + " (dashed)" : "–",
    at: (s, i) => latencyText(s.p50_ms[i], s.p99_ms[i]),
  },
  {
    title: "Peers",
    stacked: true,
    lines: s => stateOrder.toReversed().map(state => ["area " + state, s[state]]),
    text: s => statesText(state => latest(s[state])),
    at: (s, i) => statesText(state => s[state][i]),
  },
];

// The picture in a service's row.
const sparkline = {
  lines: s => [["area busy", perSecond(s, s.requests)], ["area bad", perSecond(s, s.errors)]],
  at: (s, i) => at(s, s.requests, i) + (s.errors[i] ? ", errors " + at(s, s.errors, i) : ""),
};

// Picture draws values as steps: each holds for the time of its sample. Those below the pointer, or
// the finger, are shown beside it.
class Picture {
  constructor(kind) {
    this.kind = kind;
    this.root = svg("svg", { viewBox: "0 0 " + chartWidth + " " + chartHeight, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.paths = [];
    for (const type of ["pointerdown", "pointermove"]) this.root.addEventListener(type, event => this.point(event));
    for (const type of ["pointerleave", "pointercancel"]) this.root.addEventListener(type, () => showIf(byId("value"), false));
  }

  point({ clientX, clientY }) {
    const s = this.series, box = this.root.getBoundingClientRect();
    const time = s && s.times.at(-1) - (box.right - clientX) / box.width * seriesSpan;
    const i = s ? Math.min(s.times.findLastIndex(t => t <= time), s.times.length - 2) : -1, value = byId("value");
    if (!showIf(value, i >= 0)) return;
    show(value, clock(s.times[i]) + " " + this.kind.at(s, i));
    value.style.left = Math.max(0, Math.min(clientX + 12, innerWidth - value.offsetWidth - 8)) + "px";
    value.style.top = Math.max(0, clientY - value.offsetHeight - 12) + "px";
  }

  draw(s) {
    this.series = s;
    const lines = this.kind.lines(s), sums = s.times.slice(1).map(() => 0);
    const below = lines.map(([, values]) => values.map((n, i) => {
      const from = this.kind.stacked ? sums[i] : 0;
      sums[i] = from + (n ?? 0);
      return from;
    }));
    const top = Math.max(this.kind.stacked ? most(sums) : most(lines.map(([, values]) => most(values))), 1e-9);
    const end = s.times.at(-1);
    const x = time => (chartWidth * (1 - (end - time) / seriesSpan)).toFixed(1);
    const y = n => (chartHeight - 1 - n / top * (chartHeight - 3)).toFixed(1);
    lines.forEach(([className, values], i) => {
      const path = this.paths[i] ??= this.root.appendChild(svg("path", { class: className, "vector-effect": "non-scaling-stroke" }));
      const d = (className.startsWith("area") ? area : line)(values, below[i], s.times, x, y);
      if (path.shown !== d) path.setAttribute("d", path.shown = d);
    });
  }
}

// Chart is a picture with its title and what it says in words.
class Chart {
  constructor(kind) {
    this.picture = new Picture(kind);
    this.text = element("span");
    this.root = element("figure", {}, element("figcaption", {}, element("b", {}, kind.title), " ", this.text), this.picture.root);
  }

  update(s) {
    this.picture.draw(s);
    show(this.text, this.picture.kind.text(s));
  }
}

// line returns a line through values, with gaps where there are none.
function line(values, _, times, x, y) {
  let d = "", before = null;
  values.forEach((n, i) => {
    if (n !== null && n !== before) d += (before === null ? "M" + x(times[i]) + " " + y(n) : "V" + y(n));
    if (n !== null && n !== values[i + 1]) d += "H" + x(times[i + 1]);
    before = n;
  });
  return d;
}

// area returns what is between below and below + values: a block for each run of the same value.
function area(values, below, times, x, y) {
  let d = "";
  for (let i = 0, start = 0; i < values.length; i++) {
    if (values[i + 1] === values[i] && below[i + 1] === below[i]) continue;
    if (values[i]) d += "M" + x(times[start]) + " " + y(below[i]) + "V" + y(below[i] + values[i]) + "H" + x(times[i + 1]) + "V" + y(below[i]) + "Z";
    start = i + 1;
  }
  return d;
}

// ChartsView is the charts of a service, and their values by minute for who cannot see them.
class ChartsView {
  constructor() {
    this.charts = chartKinds.map(kind => new Chart(kind));
    this.values = element("table", { role: "table", "aria-label": "values of the charts" });
    this.details = element("details", {}, element("summary", {}, "Last 15 minutes in numbers"), this.values);
    this.details.addEventListener("toggle", () => this.fill());
    this.root = element("div", { class: "charts" }, ...this.charts.map(chart => chart.root));
  }

  update(s) {
    if (!s || s === this.series) return;
    this.series = s;
    for (const chart of this.charts) chart.update(s);
    this.fill();
  }

  // fill writes the values of each minute, the latest first.
  fill() {
    const s = this.series;
    if (!this.details.open || !s) return;
    const byMinute = Map.groupBy(s.requests.keys(), i => Math.floor((s.times.at(-1) - s.times[i + 1]) / 60000));
    const cells = (name, list, kind) => element("tr", { role: "row" }, ...list.map((text, i) => element(name, { role: kind, class: i && i < list.length - 1 ? "number" : "" }, text)));
    const rows = [...byMinute].sort(([a], [b]) => a - b).map(([, list]) => {
      const of = name => list.map(i => s[name][i]);
      return cells("td", [clock(s.times[list[0]]).slice(0, 5), number(sumOf(of("requests"))), number(sumOf(of("errors"))), number(sumOf(of("retries"))),
        ms(latest(of("p50_ms"))), most(of("p99_ms")) ? ms(most(of("p99_ms"))) : "–",
        statesText(state => latest(of(state)))], "cell");
    });
    this.values.replaceChildren(
      element("thead", { role: "rowgroup" }, cells("th", ["minute from", "requests", "errors", "retries", "p50", "most p99", "peers"], "columnheader")),
      element("tbody", { role: "rowgroup" }, ...rows));
  }
}
