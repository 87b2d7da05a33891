// A service is a section: a line, notes, and its peers if it is open.

// Of a service, this many peers are shown.
const maxRows = 200;

const peersOf = s => Object.values(s.peers).reduce((sum, n) => sum + n, 0);
const areFew = services => services.reduce((n, s) => n + peersOf(s), 0) <= fewPeers;

// severity: 0 for a service whose requests fail, 1 for one with something
// wrong, 2 for the others. What the operator drains is meant so.
function severity(s) {
  if (s.eligible === 0 || s.panic) return 0;
  return s.peers.unhealthy || s.peers.ejected || s.watch && s.watch.state !== "fresh" ? 1 : 2;
}

// warningsOf says what is wrong with a service, but for single peers.
function warningsOf(s) {
  const warnings = [], w = s.watch, error = w?.last_error ? ": " + w.last_error : "";
  if (peersOf(s) === 0) warnings.push("No peers: requests are answered with 503.");
  else if (s.eligible === 0) warnings.push("No eligible peer: requests are answered with 503.");
  if (s.panic) warnings.push("Panic: too few eligible peers, so failing ones get requests too.");
  for (const limit of s.refusing ?? []) warnings.push(refusalWords[limit] ?? "A limit refuses requests: " + limit);
  if (w?.state === "pending") warnings.push(w.source + ": no answer yet, for " + age(w.since) + error);
  if (w?.state === "stale") warnings.push(w.source + ": stale for " + age(w.since) + ", the peers do not change" + error);
  if (w?.restored) warnings.push("The peers come from the snapshot, " + age(w.restored) + " old.");
  const chain = chains.get(s.service);
  if (chain?.refused) warnings.push("The discovery chain in Consul cannot be used, the former one stays: " + chain.refused);
  if (chain?.kept_until) warnings.push("Consul has lost the discovery chain: it stays in use for " + left(chain.kept_until) + " more, or until one is written.");
  for (const problem of chain?.problems ?? []) warnings.push("Not carried out: " + problem + ".");
  if (w?.probation) warnings.push(count(w.probation, "instance") + " on probation: missing from the registry, used until they fail.");
  return warnings;
}

// What a limit that refuses attempts means.
const refusalWords = {
  requests: "Too many requests are in flight (limits.requests): more are refused.",
  peer_requests: "Every peer has as many requests as it may have (limits.requests_per_peer): more are refused.",
  peer_connections: "Every connection to every peer is in use (limits.connections_per_peer): more requests are refused.",
  pending: "Too many requests wait for a peer (limits.pending): more are refused.",
  retries: "Too many retries are in flight (limits.retries): more are refused.",
  retry_budget: "The retry budget is used up (retry.budget): failed requests are not tried again.",
};

// factsOf says how the peers of a service are divided, and what was retried, refused and ejected.
function factsOf(s) {
  const facts = s.tiers.length < 2 ? [] : s.tiers.map((t, i) => "Tier " + (i + 1) + ": " + t.eligible + " of " + t.peers + " serve, " + percent(t.share) + " of the requests.");
  const splits = shares.get(s.service) ?? [];
  for (const g of s.groups ?? []) facts.push(groupText(g) + splits.filter(split => split.group === g.group).map(shareText).join(""));
  const entries = chains.get(s.service)?.entries ?? [];
  if (entries.length) facts.push("Discovery chain: " + entries.join(", ") + ".");
  if (s.retries) facts.push(count(s.retries, "retry", "retries") + "; the retry budget allows " + number(s.retries_left) + " now.");
  const refused = Object.entries(s.refusals).map(([limit, n]) => number(n) + " by " + limit.replaceAll("_", " "));
  if (refused.length) facts.push("Attempts refused by limits: " + refused.join(", ") + ".");
  if (s.ejections || s.ejections_refused) facts.push(count(s.ejections, "ejection") +
    (s.ejections_refused ? "; " + number(s.ejections_refused) + " more refused, because too many peers were ejected (max_ejected)" : "") + ".");
  return facts;
}

const groupText = g => "Group " + g.group + ": " + g.eligible + " of " + g.peers + " serve, " + count(g.attempts, "attempt") +
  (g.attempts ? ", " + number(g.errors / g.attempts * 100, 2) + "% errors, p50 " + number(g.p50_ms, 1) + ", p99 " + number(g.p99_ms, 1) + " ms" : "") +
  (g.fallbacks ? ", " + count(g.fallbacks, "fallback") : "") + ".";

// shareText says which share of the clients a group has, who decided it, and what its judge finds.
function shareText({ share, configured, given, judge, shared }) {
  let text = " It gets " + percent(share) + " of the clients";
  if (given) text += ", and " + percent(configured) + " in the configuration: set by " + (given.by === "judge" ? "the judge" : "an operator") + " " + age(given.since) + " ago" + (given.why ? ": " + given.why : "");
  text += ".";
  if (judge) text += judge.paused ? " Its judge is paused by an operator." : judge.verdict ? " Its judge: " + judge.verdict + "."
    : judge.since ? " Its judge has watched it for " + age(judge.since) + ": evidence " + number(Math.max(judge.evidence, judge.slow_evidence), 1) + " of 1,000 that it is worse." : " Its judge waits for a share.";
  if (shared?.pending) text += " The other replicas do not have the share yet.";
  if (shared?.error) text += " The other replicas cannot be asked: " + shared.error + ".";
  return text;
}

// What stands beside the name: text, class. Numbers of peers by state are the
// second.
const serviceColumns = [
  [s => s.eligible + " of " + peersOf(s) + " serve", s => s.eligible && !s.panic ? "up" : "failed"],
  [s => number(s.rate, 1) + " requests/s", s => s.rate ? "" : "zero"],
  [s => number(s.inflight) + " in flight", s => s.inflight ? "" : "zero"],
  [s => s.requests ? "p50 " + number(s.p50_ms, 1) + ", p99 " + number(s.p99_ms, 1) + " ms" : "", () => "faint"],
  [s => s.policy, () => "faint"],
];

let views = 0; // so far, for ids

// ServiceView is a service's section: a line, notes, and the peers if it is open.
class ServiceView {
  constructor(s) {
    const id = "service-" + ++views;
    this.button = element("button", { type: "button", id, "aria-expanded": "false" }, s.service);
    this.button.addEventListener("click", () => {
      chosen.set(s.service, this.button.ariaExpanded !== "true");
      for (const [key, open] of [["open", true], ["closed", false]]) remember(key, [...chosen].filter(([, is]) => is === open).map(([name]) => name));
      render();
      wake();
    });
    this.cells = serviceColumns.map(() => element("span"));
    this.states = stateOrder.slice(0, -1).map(state => element("span", { class: state }));
    const [serve, ...others] = this.cells, counts = element("span", { class: "counts" }, ...this.states);
    this.facts = element("ul", { class: "more" });
    this.factViews = new Map();
    this.notes = element("ul", { class: "notes" });
    this.noteViews = new Map();
    this.drainViews = new Map();
    this.root = element("section", { class: "service", "aria-labelledby": id },
      element("div", { class: "line" }, element("h2", {}, this.button), serve, counts, ...others), this.notes, this.facts);
    this.requests = new Rate();
    this.peers = new Map();
    watchSight(this);
  }

  update(s) {
    if (s === this.service) return;
    s.refusing = Object.keys(s.refusals).filter(limit => this.service && s.refusals[limit] > (this.service.refusals[limit] ?? 0));
    this.service = s;
    s.rate = this.requests.of(s.requests);
    serviceColumns.forEach(([text, className], i) => show(this.cells[i], text(s), className(s)));
    this.states.forEach((e, i) => {
      const n = s.peers[stateOrder[i]];
      show(e, n ? n + " " + stateOrder[i] : "");
    });
    classify(this.root, "service " + ["bad", "warn", ""][severity(s)]);
    if (this.table) this.showFacts();
    arrange(this.notes, [
      ...followNotes(this.noteViews, warningsOf(s)),
      ...follow(this.drainViews, s.standing_drains.map(d => ({ ...d, service: s.service })), peerKey, () => new StandingDrainView()),
    ].map(view => view.root));
  }

  showFacts() {
    const facts = factsOf(this.service);
    if (showIf(this.facts, facts.length > 0)) arrange(this.facts, followNotes(this.factViews, facts).map(view => view.root));
  }

  // showPeers shows peers, or none if it is undefined.
  showPeers(peers) {
    const open = String(peers !== undefined);
    if (this.button.ariaExpanded !== open) this.button.ariaExpanded = open;
    if (!peers) {
      for (const part of [this.charts?.root, this.table, this.more, this.panels]) part?.remove();
      this.charts = this.table = this.more = this.comparison = undefined;
      showIf(this.facts, false);
      this.peers.clear();
      return;
    }
    if (!this.table) {
      this.charts = new ChartsView();
      if (/^consul/.test(this.service.watch?.source)) this.comparison = new ComparisonView(this.service.service);
      this.table = element("table", { role: "table", "aria-labelledby": this.button.id }, peerHead());
      this.more = element("p", { class: "more" });
      this.panels = element("div", { class: "panels" }, ...(this.comparison ? [this.comparison.root] : []), this.charts.details);
      this.root.append(this.charts.root, this.table, this.more, this.panels);
      this.showFacts();
      this.charts.update(seriesByService.get(this.service.service));
      wakeSeries.soon();
    }
    const worst = peers.toSorted((a, b) => stateOrder.indexOf(a.state) - stateOrder.indexOf(b.state)).slice(0, maxRows);
    showIf(this.table, worst.length > 0);
    arrange(this.table, [this.table.tHead, ...follow(this.peers, worst, peerKey, () => new PeerView()).map(view => view.root)]);
    if (showIf(this.more, peers.length > maxRows)) show(this.more, "and " + number(peers.length - maxRows) + " more: the filter finds them");
  }
}

class NoteView {
  root = element("li");
  update(note) { show(this.root, note.text); }
}

// followNotes returns a view for each text.
function followNotes(views, texts) {
  return follow(views, texts.map((text, i) => ({ text, i })), note => String(note.i), () => new NoteView());
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
    show(this.text, "Drained, not registered: " + d.id + " at " + d.address + ", " + d.why + ", for " + age(d.since));
  }
}
