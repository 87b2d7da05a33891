"use strict";

// With up to this many peers, all are asked for and shown. With more, services
// that need attention are opened, up to maxOpened, and only what is open is
// asked for. Of a service, maxRows peers are shown.
const fewPeers = 200, maxOpened = 20, maxRows = 200;

// Names and tags may have any length; this much of one is shown, in characters.
const longest = 200;

// A round of questions begins this long after the one before, in ms, and later
// if the answers take long: asking never takes more than a fifth of the time.
const roundEvery = 1000, restEvery = 5000, patience = 10000;

// The worst first, services and peers alike.
const stateOrder = ["unhealthy", "ejected", "draining", "warming", "up"];

// ---- Elements. What a registry says is set as text, never as HTML.

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

function classify(e, className) {
  if (e.className !== className) e.className = className;
}

// hide hides e if there is nothing to show, and returns whether there is.
function hide(e, nothing) {
  if (e.hidden !== nothing) e.hidden = nothing;
  return !nothing;
}

// arrange makes children those of parent, and moves only what is not in place.
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

// ---- Numbers and words

const formats = [0, 1, 2].map(digits => new Intl.NumberFormat("en", { maximumFractionDigits: digits }));
const number = (n, digits = 0) => formats[digits].format(n);
const zero = n => n ? "number" : "number zero";
const count = (n, noun) => number(n) + " " + noun + (n === 1 ? "" : "s");

function age(since) {
  const s = Math.max(0, Math.round((Date.now() - Date.parse(since)) / 1000));
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

// ---- Peers

const isDrained = p => p.reasons.some(r => r === "drain" || r.startsWith("drain: "));
const hasLeft = p => p.reasons.includes("removed from the set");
const details = p => [...p.tags, ...Object.entries(p.meta ?? {}).map(([key, value]) => key + "=" + value)].join(", ");
const peerKey = p => [p.node, p.id, p.address].join("\n");

// Columns: title, width, text, class.
const peerColumns = [
  ["peer", "14%", p => p.id, () => "long"],
  ["address", "13%", p => p.address, () => "long"],
  ["node", "10%", p => p.node + (p.datacenter ? " (" + p.datacenter + ")" : ""), () => "long faint"],
  ["state", "88px", p => p.state + (p.state === "up" && !p.used ? ", not used" : ""), p => "state " + p.state],
  ["for", "60px", p => age(p.since), () => "number"],
  ["weight", "60px", p => number(p.weight), () => "number"],
  ["in flight", "62px", p => number(p.inflight), p => zero(p.inflight)],
  ["requests/s", "78px", p => number(p.rate, 1), p => zero(p.rate)],
  ["requests", "80px", p => number(p.requests), p => zero(p.requests)],
  ["failures", "66px", p => number(p.failures), p => zero(p.failures) + (p.failing ? " failed" : "")],
  ["latency ms", "82px", p => p.latency_ms ? number(p.latency_ms, 2) : "–", p => zero(p.latency_ms)],
  ["tags, meta", "auto", details, () => "long faint"],
];

// PeerView is a peer's rows: its values, and below why it is as it is.
class PeerView {
  constructor() {
    this.cells = peerColumns.map(([title]) => element("td", { role: "cell", "data-title": title }));
    this.cells[0].removeAttribute("data-title");
    this.button = element("button", { type: "button" });
    this.button.addEventListener("click", () => isDrained(this.peer) ? enable(this.peer) : askToDrain(this.peer));
    this.why = element("td", { role: "cell", colspan: peerColumns.length + 1 });
    this.reasons = element("tr", { role: "row", class: "reasons" }, this.why);
    this.root = element("tbody", { role: "rowgroup" },
      element("tr", { role: "row" }, ...this.cells, element("td", { role: "cell", class: "order" }, this.button)), this.reasons);
    this.requests = new Rate();
    this.failures = new Rate();
  }

  update(p) {
    if (p === this.peer) return;
    this.peer = p;
    p.rate = this.requests.of(p.requests);
    p.failing = this.failures.of(p.failures) > 0;
    peerColumns.forEach(([, , value, className], i) => {
      const text = value(p), cut = text.length > longest;
      show(this.cells[i], cut ? text.slice(0, longest) + "…" : text, className(p));
      if (cut) this.cells[i].title = text;
    });
    if (hide(this.reasons, p.reasons.length === 0)) show(this.why, p.reasons.join("; "), p.state);
    if (hide(this.button, hasLeft(p))) {
      show(this.button, isDrained(p) ? "Enable" : "Drain");
      const label = (isDrained(p) ? "Enable " : "Drain ") + p.id;
      if (this.button.ariaLabel !== label) this.button.ariaLabel = label;
    }
  }
}

// ---- Services

const peersOf = s => Object.values(s.peers).reduce((sum, n) => sum + n, 0);
const areFew = services => services.reduce((n, s) => n + peersOf(s), 0) <= fewPeers;

// severity: 0 for a service whose requests fail, 1 for one with something
// wrong, 2 for the others. What an operator drains is as he wants it.
function severity(s) {
  if (s.eligible === 0 || s.panic) return 0;
  return s.peers.unhealthy || s.peers.ejected || s.watch && s.watch.state !== "fresh" ? 1 : 2;
}

function notesOf(s) {
  const notes = [], w = s.watch;
  if (peersOf(s) === 0) notes.push("No peers: requests are answered with 503.");
  else if (s.eligible === 0) notes.push("No peer may get requests: they are answered with 503.");
  if (s.panic) notes.push("Panic: too few peers are eligible, so others get requests too.");
  if (w?.state === "pending") notes.push(w.source + ": no answer yet, for " + age(w.since) + (w.last_error ? ": " + w.last_error : ""));
  if (w?.state === "stale") notes.push(w.source + ": stale for " + age(w.since) + ", peers stay as they were" + (w.last_error ? ": " + w.last_error : ""));
  if (w?.restored) notes.push("Peers are those of the snapshot, which was true " + age(w.restored) + " ago.");
  if (w?.held) notes.push(count(w.held, "instance") + " held: the registry no longer lists them in service.");
  if (w?.unlisted) notes.push(count(w.unlisted, "instance") + " not listed any more, used as long as they answer.");
  if (s.tiers.length > 1) {
    notes.push("Tiers: " + s.tiers.map((t, i) => (i + 1) + ": " + t.eligible + " of " + t.peers + " serve, " + number(t.share * 100) + "% of the requests").join("; "));
  }
  return notes;
}

const serviceColumns = [
  [s => s.eligible + " of " + peersOf(s) + " serve", s => s.eligible && !s.panic ? "up" : "failed"],
  null, // numbers of peers by state
  [s => number(s.rate, 1) + " requests/s", s => s.rate ? "" : "zero"],
  [s => number(s.inflight) + " in flight", s => s.inflight ? "" : "zero"],
  [s => s.requests ? "p50 " + number(s.p50_ms, 1) + ", p99 " + number(s.p99_ms, 1) + " ms" : "", () => "faint"],
  [s => s.policy, () => "faint"],
];

let views = 0;

// ServiceView is a service's section: a line, notes, and the peers if it is open.
class ServiceView {
  constructor(s) {
    const id = "service-" + ++views;
    this.button = element("button", { type: "button", id, "aria-expanded": "false" }, s.service);
    this.button.addEventListener("click", () => {
      chosen.set(s.service, this.button.ariaExpanded !== "true");
      render();
      wake();
    });
    this.cells = serviceColumns.map(() => element("span"));
    this.states = stateOrder.slice(0, -1).map(state => element("span", { class: state }));
    this.cells[1].className = "counts";
    this.cells[1].append(...this.states);
    this.notes = element("ul", { class: "notes" });
    this.noteViews = new Map();
    this.drainViews = new Map();
    this.root = element("section", { class: "service", "aria-labelledby": id },
      element("div", { class: "line" }, element("h2", {}, this.button), ...this.cells), this.notes);
    this.requests = new Rate();
    this.peers = new Map();
  }

  update(s) {
    if (s === this.service) return;
    this.service = s;
    s.rate = this.requests.of(s.requests);
    serviceColumns.forEach((column, i) => column && show(this.cells[i], column[0](s), column[1](s)));
    this.states.forEach((e, i) => {
      const n = s.peers[stateOrder[i]];
      show(e, n ? n + " " + stateOrder[i] : "");
    });
    classify(this.root, "service " + ["bad", "warn", ""][severity(s)]);
    arrange(this.notes, [
      ...follow(this.noteViews, notesOf(s).map((text, i) => ({ text, i })), note => String(note.i), () => new NoteView()),
      ...follow(this.drainViews, s.standing_drains.map(d => ({ ...d, service: s.service })), peerKey, () => new StandingDrainView()),
    ].map(view => view.root));
  }

  // showPeers shows peers, or none if it is undefined.
  showPeers(peers) {
    const open = String(peers !== undefined);
    if (this.button.ariaExpanded !== open) this.button.ariaExpanded = open;
    if (!peers) {
      this.table?.remove();
      this.more?.remove();
      this.table = this.more = undefined;
      this.peers.clear();
      return;
    }
    if (!this.table) {
      const titles = peerColumns.map(([title, width, , className]) => {
        const th = element("th", { role: "columnheader", scope: "col" }, title);
        th.style.width = width;
        if (className({}).startsWith("number")) th.className = "number";
        return th;
      });
      this.table = element("table", { role: "table", "aria-labelledby": this.button.id },
        element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...titles, element("th", { role: "columnheader", class: "order", "aria-label": "order" }))));
      this.more = element("p", { class: "more" });
      this.root.append(this.table, this.more);
    }
    const worst = peers.toSorted((a, b) => stateOrder.indexOf(a.state) - stateOrder.indexOf(b.state)).slice(0, maxRows);
    hide(this.table, worst.length === 0);
    arrange(this.table, [this.table.tHead, ...follow(this.peers, worst, peerKey, () => new PeerView()).map(view => view.root)]);
    if (hide(this.more, peers.length <= maxRows)) show(this.more, "and " + number(peers.length - maxRows) + " more: the filter finds them");
  }
}

class NoteView {
  root = element("li");
  update(note) { show(this.root, note.text); }
}

// StandingDrainView is the drain of an instance that is not there.
class StandingDrainView {
  constructor() {
    this.text = element("span");
    const button = element("button", { type: "button" }, "Enable");
    button.addEventListener("click", () => enable(this.drain));
    this.root = element("li", {}, this.text, button);
  }
  update(d) {
    this.drain = d;
    show(this.text, "Drained and not there: " + d.id + " at " + d.address + ", " + d.why + ", for " + age(d.since));
  }
}

// ---- What is shown

let last = { services: [], peers: new Map() }; // of the latest round; peers by service
const serviceViews = new Map();
const chosen = new Map(); // services that were opened (true) or closed by hand

const words = () => byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
const hasAll = (text, words) => words.every(word => text.includes(word));
const peerText = p => [p.service, p.id, p.address, p.node, p.datacenter, p.state, details(p), ...p.reasons].join("\n").toLowerCase();

// select returns the services to show, the worst first, and the peers to show of
// each: undefined for one that is closed.
function select() {
  const wanted = words(), onlyWrong = byId("wrong").checked;
  const few = areFew(last.services);
  let opened = 0;
  return last.services
    .map(s => {
      const matches = hasAll(s.service.toLowerCase(), wanted);
      const all = last.peers.get(s.service) ?? [];
      return { s, matches, peers: matches ? all : all.filter(p => hasAll(peerText(p), wanted)), level: severity(s) };
    })
    .filter(({ matches, peers, level }) => (matches || peers.length > 0) && !(onlyWrong && level === 2))
    .sort((a, b) => a.level - b.level)
    .map(({ s, matches, peers, level }) => {
      const open = chosen.get(s.service) ?? ((few || level < 2 || wanted.length > 0) && opened < maxOpened);
      if (open) opened++;
      return { s, peers: open ? peers : undefined };
    });
}

function render() {
  const shown = select();
  follow(serviceViews, last.services, s => s.service, s => new ServiceView(s));
  arrange(byId("services"), shown.map(({ s, peers }) => {
    const view = serviceViews.get(s.service);
    view.showPeers(peers);
    return view.root;
  }));
  const wrong = last.services.filter(s => severity(s) < 2).length;
  const peers = last.services.reduce((n, s) => n + peersOf(s), 0), serve = last.services.reduce((n, s) => n + s.eligible, 0);
  show(byId("summary"), (shown.length < last.services.length ? number(shown.length) + " of " : "") + count(last.services.length, "service") +
    (wrong ? ", " + number(wrong) + " with something wrong" : "") + "; " + number(serve) + " of " + number(peers) + " peers serve");
  document.title = (wrong ? "(" + wrong + ") " : "") + "sluice " + location.host;
}

// ---- The API

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, method = "GET") {
  const token = sessionStorage.getItem("token");
  const answer = await fetch(path, { method, headers: token ? { Authorization: "Bearer " + token } : {}, signal: AbortSignal.timeout(patience) });
  const body = await answer.json();
  if (!answer.ok && path !== "readyz") throw new Refused(answer.status, body.error);
  return body;
}

let connected = false; // the latest round was answered

// round asks how things are and shows it.
async function round() {
  let ready, services, peers;
  try {
    [ready, services] = await Promise.all([ask("readyz"), ask("api/services")]);
    last = { services, peers: last.peers };
    const open = select().filter(({ peers }) => peers).map(({ s }) => "service=" + encodeURIComponent(s.service));
    const all = areFew(services) || words().length > 0;
    peers = all || open.length > 0 ? await ask("api/peers" + (all ? "" : "?" + open.join("&"))) : [];
  } catch (err) {
    connected = false;
    return showFailure(err);
  }
  last.peers = Map.groupBy(peers, p => p.service);
  show(byId("ready"), ready.ready ? "ready" : "not ready: " + ready.missing.join("; "), "state " + (ready.ready ? "ready" : "failed"));
  classify(document.body, "");
  byId("login").hidden = true;
  byId("search").hidden = false;
  render();
  if (!connected) {
    connected = true;
    wakeRest();
  }
}

function showFailure(err) {
  if (err.status === 404) return; // a service has just gone
  if (err.status === 401) {
    classify(document.body, "old");
    show(byId("ready"), sessionStorage.getItem("token") ? "this token is not accepted" : "a token is needed", "state stale");
    if (byId("login").hidden) {
      byId("login").hidden = false;
      byId("token").focus();
    }
    return;
  }
  show(byId("ready"), (err.status ? err.message : "no answer from sluice") + ": what is shown is old", "state failed");
  classify(document.body, "old");
}

// rest asks for what changes seldom: the configuration, and whether the replicas
// agree.
async function rest() {
  if (!connected) return;
  let config, replicas;
  try {
    config = await ask("api/config");
    if (config.config.consul?.register) replicas = await ask("api/replicas");
  } catch {
    return; // the rounds tell what is wrong
  }
  const refused = config.reloads.last_error;
  show(byId("config"), "configuration " + config.number + (config.source ? " from " + config.source : "") +
    (config.pending.length ? "; waits for a restart: " + config.pending.join(", ") : "") +
    (refused ? "; a newer one was refused: " + refused.errors.join("; ") : ""), refused ? "failed" : config.pending.length ? "stale" : "faint");
  if (hide(byId("replicas"), !replicas)) showReplicas(replicas);
}

// repeat does work again and again while the page is seen. What it returns makes
// the next time come at once.
function repeat(work, every) {
  let woken = false, resume;
  (async () => {
    for (;;) {
      woken = false;
      const begin = performance.now();
      if (!document.hidden) await work().catch(console.error);
      const pause = Math.max(every, 4 * (performance.now() - begin));
      if (!woken) await new Promise(done => setTimeout(resume = done, pause));
    }
  })();
  return () => {
    woken = true;
    resume?.();
  };
}

// ---- Replicas

const replicaColumns = [
  [r => r.name + (r.self ? " (this one)" : ""), () => ""],
  [r => r.address, () => ""],
  [r => r.status + (r.duplicate ? ", listed twice" : ""), r => "state " + (r.status === "passing" ? "up" : r.status)],
  [r => r.started ? age(r.started) : "", () => "number"],
  [r => r.version, () => ""],
  [r => r.config_hash + (r.pending?.length ? ", waits for a restart" : ""), r => r.differs || r.pending?.length ? "stale" : ""],
  [r => r.services ? number(r.services.length) : "", () => "number"],
  [r => r.services ? number(r.services.reduce((n, s) => n + s.instances, 0)) : "", () => "number"],
];

class ReplicaView {
  constructor() {
    this.cells = [...byId("replicas").querySelectorAll("th")].map(th => element("td", { role: "cell", "data-title": th.textContent.trim() }));
    this.cells[0].removeAttribute("data-title");
    this.why = element("td", { role: "cell", colspan: replicaColumns.length, class: "failed" });
    this.reasons = element("tr", { role: "row", class: "reasons" }, this.why);
    this.root = element("tbody", { role: "rowgroup" }, element("tr", { role: "row" }, ...this.cells), this.reasons);
  }
  update(r) {
    replicaColumns.forEach(([value, className], i) => show(this.cells[i], value(r), className(r)));
    const why = [r.error, r.status === "passing" ? "" : r.detail].filter(Boolean).join("; ");
    if (hide(this.reasons, why === "")) show(this.why, why);
  }
}

const replicaViews = new Map(), replicaNotes = new Map();

function showReplicas(v) {
  const section = byId("replicas"), r = v.registration;
  show(byId("converged"), v.converged ? "agree" : v.converged === false ? "do not agree" : "it is not known whether they agree",
    v.converged ? "state up" : v.converged === false ? "state failed" : "state stale");
  classify(section, v.converged === false ? "warn" : "");
  const notes = [...v.differences.map(d => d.summary), ...v.unknown.map(u => u.replica + ": " + u.why)];
  if (v.error) notes.unshift(v.error);
  if (r.state !== "registered") notes.unshift("This one is not registered (" + r.state + " for " + age(r.since) + ")" + (r.last_error ? ": " + r.last_error : ""));
  arrange(section.querySelector(".notes"), follow(replicaNotes, notes.map((text, i) => ({ text, i })), note => String(note.i), () => new NoteView()).map(view => view.root));
  // A configuration that fewer have than another is the one to look at.
  const hashes = Map.groupBy(v.replicas, r => r.config_hash);
  const most = Math.max(...[...hashes.values()].map(list => list.length));
  for (const r of v.replicas) r.differs = hashes.size > 1 && (hashes.get(r.config_hash).length < most || hashes.size === v.replicas.length);
  const table = section.querySelector("table");
  arrange(table, [table.tHead, ...follow(replicaViews, v.replicas, r => r.name, () => new ReplicaView()).map(view => view.root)]);
}

// ---- Orders

// order drains or enables p, and returns why not, if it did not.
async function order(p, what, why) {
  const query = new URLSearchParams({ node: p.node, address: p.address, ...(why && { why }) });
  try {
    await ask("api/peers/" + encodeURIComponent(p.service) + "/" + encodeURIComponent(p.id) + "/" + what + "?" + query, "POST");
  } catch (err) {
    return err.status ? err.message : "no answer from sluice";
  }
  wake();
}

async function enable(p) {
  const problem = await order(p, "enable");
  if (hide(byId("problem"), !problem)) show(byId("problem"), p.id + " was not enabled: " + problem);
}

let drained; // the peer that the dialog is about

function askToDrain(p) {
  drained = p;
  show(byId("drain-title"), "Drain " + p.id + " of " + p.service + "?");
  const s = last.services.find(s => s.service === p.service);
  byId("drain-last").hidden = !(s?.eligible === 1 && p.used);
  byId("why").value = "";
  show(byId("drain-problem"), "");
  byId("drain").showModal();
  byId("why").focus();
}

byId("drain-cancel").addEventListener("click", () => byId("drain").close());
byId("drain").addEventListener("submit", async event => {
  event.preventDefault();
  const problem = await order(drained, "drain", byId("why").value.trim());
  show(byId("drain-problem"), problem ?? "");
  if (!problem) byId("drain").close();
});

// ---- Start

byId("login").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem("token", byId("token").value);
  wake();
});
byId("search").addEventListener("submit", event => event.preventDefault());

// The filter is part of the address, so that it can be passed on.
byId("filter").value = decodeURIComponent(location.hash.slice(1));
byId("search").addEventListener("input", () => {
  const text = byId("filter").value;
  history.replaceState(null, "", text ? "#" + encodeURIComponent(text) : location.pathname);
  render();
  wake();
});
addEventListener("keydown", event => {
  if (event.key === "/" && !event.target.closest("input, dialog")) {
    event.preventDefault();
    byId("filter").focus();
  }
});

show(byId("host"), location.host);
const wake = repeat(round, roundEvery);
const wakeRest = repeat(rest, restEvery);
addEventListener("visibilitychange", () => {
  wake();
  wakeRest();
});
