// A peer is two rows of its service's table.

// Names and tags may have any length; this much of one is shown, in characters.
const longest = 200;

// The worst first, services and peers alike.
const stateOrder = ["unhealthy", "ejected", "draining", "warming", "up"];

const hasLeft = p => p.reasons.includes("removed from the set");
const details = p => [...(p.group ? ["group " + p.group] : []), ...p.tags, ...Object.entries(p.meta ?? {}).map(([key, value]) => key + "=" + value)].join(", ");
const whyOf = p => [...p.reasons, ...(p.share_why ?? []).filter(line => !p.reasons.includes(line)), ...(weightOf(p) ? [weightText(weightOf(p))] : [])].join("; ");
const weightText = o => "weight " + number(o.weight) + " by an operator" + (o.why ? ": " + o.why : "") + (o.until ? ", ends in " + left(o.until) : "");
const peerKey = p => [p.node, p.id, p.address].join("\n");

// Columns: title, width, text, class.
const peerColumns = [
  ["peer", "11%", p => p.id, () => "long"],
  ["address", "11%", p => p.address, () => "long"],
  ["node", "9%", p => p.node + (p.datacenter ? " (" + p.datacenter + ")" : ""), () => "long faint"],
  ["state", "84px", p => p.state + (p.state === "up" && !p.used ? ", not used" : ""), p => "state " + p.state],
  ["for", "54px", p => age(p.since), () => "number"],
  ["weight", "56px", p => number(p.weight), () => "number"],
  ["share, due", "116px", p => (p.share === undefined ? "–" : percent(p.share)) + " of " + percent(p.due), () => "number"],
  ["in flight", "60px", p => number(p.inflight), p => zero(p.inflight)],
  ["requests/s", "74px", p => number(p.rate, 1), p => zero(p.rate)],
  ["requests", "68px", p => number(p.requests), p => zero(p.requests)],
  ["failures", "60px", p => number(p.failures), p => zero(p.failures) + (p.failing ? " failed" : "")],
  ["latency ms", "76px", p => p.latency_ms ? number(p.latency_ms, 2) : "–", p => zero(p.latency_ms)],
  ["tags, meta", "auto", details, () => "long faint"],
];

const weightColumn = peerColumns.findIndex(([title]) => title === "weight");

// peerHead returns the head of a table of peers.
function peerHead() {
  const titles = peerColumns.map(([title, width, , className]) => {
    const th = element("th", { role: "columnheader", scope: "col" }, title);
    th.style.width = width;
    if (className({}).startsWith("number")) th.className = "number";
    return th;
  });
  return element("thead", { role: "rowgroup" },
    element("tr", { role: "row" }, ...titles, element("th", { role: "columnheader", class: "order", "aria-label": "order" })));
}

// PeerView is a peer's rows: its values, and below why it is as it is.
class PeerView {
  constructor() {
    this.cells = peerColumns.map(([title]) => element("td", { role: "cell", "data-title": title }));
    this.cells[0].removeAttribute("data-title");
    this.button = element("button", { type: "button" });
    this.button.addEventListener("click", () => this.drain());
    this.weight = element("button", { type: "button" });
    this.weight.addEventListener("click", () => askForOrder("weight", this.peer));
    this.cells[weightColumn].append(this.weight);
    this.cells[weightColumn].className = "number";
    this.why = element("td", { role: "cell", colspan: peerColumns.length + 1 });
    this.reasons = element("tr", { role: "row", class: "reasons" }, this.why);
    this.root = element("tbody", { role: "rowgroup" },
      element("tr", { role: "row" }, ...this.cells, element("td", { role: "cell", class: "order" }, this.button)), this.reasons);
    this.requests = new Rate();
    this.failures = new Rate();
  }

  drain() {
    const drain = drainOf(this.peer);
    if (!drain) askForOrder("drain", this.peer);
    else if (isOfNode(drain)) askForOrder("enable", drain);
    else enable(this.peer);
  }

  update(p) {
    if (p === this.peer) return;
    this.peer = p;
    p.rate = this.requests.of(p.requests);
    p.failing = this.failures.of(p.failures) > 0;
    peerColumns.forEach(([, , value, className], i) => {
      const cell = i === weightColumn ? this.weight : this.cells[i], text = value(p), cut = text.length > longest;
      show(cell, cut ? text.slice(0, longest) + "…" : text, i === weightColumn ? undefined : className(p));
      if (cut || cell.title) cell.title = cut ? text : "";
    });
    const why = whyOf(p);
    if (showIf(this.reasons, why !== "")) show(this.why, why, p.state);
    this.weight.disabled = hasLeft(p) || !standing.may_order;
    label(this.weight, "Weight " + number(p.weight) + " of " + p.id);
    if (!showIf(this.button, !hasLeft(p))) return;
    const drain = drainOf(p);
    show(this.button, drain ? "Enable" : "Drain");
    label(this.button, !drain ? "Drain " + p.id : isOfNode(drain) ? "Enable the node of " + p.id : "Enable " + p.id);
  }
}
