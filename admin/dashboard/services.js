// A service is a row, below it what is wrong, and on demand its card: facts, charts and peers.

// Of a service, this many peers are shown.
const maxRows = 200;

const peersOf = s => Object.values(s.peers).reduce((sum, n) => sum + n, 0);

// A service is failing if this share of the requests of the last minute got 5xx, and badly if the
// second; slow if the p99 is longer, in ms, as for the alert SluiceSlow.
const failingShare = 0.01, badShare = 0.1, slow = 1000;
const errorShare = s => s.recent.requests ? s.recent.errors / s.recent.requests : 0;
const rateOf = s => s.recent.seconds ? s.recent.requests / s.recent.seconds : 0;

// severity: 0 for a service whose requests fail, 1 for one with something
// wrong, 2 for the others. What the operator drains is meant so.
function severity(s) {
  if (s.eligible === 0 || s.panic || errorShare(s) >= badShare) return 0;
  return s.peers.unhealthy || s.peers.ejected || s.watch && s.watch.state !== "fresh" || errorShare(s) >= failingShare || s.recent.p99_ms >= slow ||
    lostTags(s).length ? 1 : 2;
}

const lostTags = s => (tagProblems.get(s.service) ?? []).filter(p => !p.harmless);
const tagText = p => "Tag " + p.tag.slice(0, longest) + ": " + p.reason + (p.lost_to ? " (" + p.lost_to.service + " has it)" : "");

// warningsOf says what is wrong with a service, but for single peers.
function warningsOf(s) {
  const warnings = [], w = s.watch, error = w?.last_error ? ": " + w.last_error : "";
  if (peersOf(s) === 0) warnings.push("No peers: requests are answered with 503.");
  else if (s.eligible === 0) warnings.push("No eligible peer: requests are answered with 503.");
  if (s.panic) warnings.push("Panic: too few eligible peers, so failing ones get requests too.");
  if (errorShare(s) >= failingShare) warnings.push("Failing: " + number(s.recent.errors) + " of " + count(s.recent.requests, "request") + " of the last minute got a status of 5xx.");
  if (s.recent.p99_ms >= slow) warnings.push("Slow: in the last minute, one of 100 requests took " + ms(s.recent.p99_ms) + " or more.");
  for (const limit of s.refusing ?? []) warnings.push(refusalWords[limit] ?? "A limit refuses requests: " + limit);
  if (w?.state === "pending") warnings.push(w.source + ": no answer yet, for " + age(w.since) + error);
  if (w?.state === "stale") warnings.push(w.source + ": stale for " + age(w.since) + ", the peers do not change" + error);
  if (w?.restored) warnings.push("The peers come from the snapshot, " + age(w.restored) + " old.");
  const chain = chains.get(s.service);
  if (chain?.refused) warnings.push("The discovery chain in Consul cannot be used, the former one stays: " + chain.refused);
  if (chain?.kept_until) warnings.push("Consul has lost the discovery chain: it stays in use for " + left(chain.kept_until) + " more, or until one is written.");
  for (const problem of chain?.problems ?? []) warnings.push("Not carried out: " + problem + ".");
  if (w?.probation) warnings.push(count(w.probation, "instance") + " on probation: missing from the registry, used until they fail.");
  return warnings.concat(firstOf(lostTags(s).map(tagText)));
}

// firstOf returns the first texts of a list, and how many more there are.
const firstOf = texts => texts.length > 3 ? [...texts.slice(0, 3), "and " + number(texts.length - 3) + " more tags: see Routes"] : texts;

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
  const facts = ["Policy " + s.policy.replaceAll("_", " ") + "; " + number(s.inflight) + " in flight; " + count(s.requests, "request") + " since the start" +
    (s.requests ? ", p50 " + ms(s.p50_ms) + ", p99 " + ms(s.p99_ms) : "") + "."];
  if (s.tiers.length > 1) s.tiers.forEach((t, i) => facts.push("Tier " + (i + 1) + ": " + t.eligible + " of " + t.peers + " serve, " + percent(t.share) + " of the requests."));
  const splits = shares.get(s.service) ?? [];
  for (const g of s.groups ?? []) facts.push(groupText(g) + splits.filter(split => split.group === g.group).map(shareText).join(""));
  const entries = chains.get(s.service)?.entries ?? [];
  if (entries.length) facts.push("Discovery chain: " + entries.join(", ") + ".");
  if (s.retries) facts.push(count(s.retries, "retry", "retries") + "; the retry budget allows " + number(s.retries_left) + " now.");
  const refused = Object.entries(s.refusals).map(([limit, n]) => number(n) + " by " + limit.replaceAll("_", " "));
  if (refused.length) facts.push("Attempts refused by limits: " + refused.join(", ") + ".");
  if (s.ejections || s.ejections_refused) facts.push(count(s.ejections, "ejection") +
    (s.ejections_refused ? "; " + number(s.ejections_refused) + " more refused, because too many peers were ejected (max_ejected)" : "") + ".");
  return facts.concat(firstOf((tagProblems.get(s.service) ?? []).filter(p => p.harmless).map(tagText)));
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

const stateText = s => [...(s.maintenance ? ["maintenance"] : []), ...(errorShare(s) >= failingShare ? ["failing"] : []), ...(s.recent.p99_ms >= slow ? ["slow"] : []), s.eligible + " of " + peersOf(s) + " serve", ...stateOrder.slice(0, -1).filter(state => s.peers[state]).map(state => s.peers[state] + " " + state)].join(", ");

// Columns: title, text, class, and the number by which rows are sorted, the highest first.
const serviceColumns = [
  ["state", stateText, s => "state long " + ["failed", "stale", "up"][severity(s)], s => -severity(s)],
  ["requests/s", s => number(rateOf(s), 1), s => zero(s.recent.requests), rateOf],
  ["errors", s => s.recent.requests ? percent(errorShare(s)) : "–", s => zero(s.recent.errors) + (errorShare(s) >= failingShare ? " failed" : ""), errorShare],
  ["p50", s => s.recent.requests ? ms(s.recent.p50_ms) : "–", s => zero(s.recent.requests), s => s.recent.p50_ms],
  ["p99", s => s.recent.requests ? ms(s.recent.p99_ms) : "–", s => zero(s.recent.requests) + (s.recent.p99_ms >= slow ? " stale" : ""), s => s.recent.p99_ms],
];

let views = 0; // so far, for ids

// ServiceView is a service's rows.
class ServiceView {
  constructor(s) {
    const id = "service-" + ++views, width = serviceColumns.length + 2;
    this.button = element("button", { type: "button", id, "aria-expanded": "false" }, s.service);
    this.button.addEventListener("click", () => {
      chosen.set(s.service, this.button.ariaExpanded !== "true");
      for (const [key, open] of [["open", true], ["closed", false]]) remember(key, [...chosen].filter(([, is]) => is === open).map(([name]) => name));
      render();
      wake();
    });
    this.cells = serviceColumns.map(([title]) => element("td", { role: "cell", "data-title": title }));
    this.sparkline = new Picture(sparkline);
    this.facts = element("ul", { class: "more" });
    this.factViews = new Map();
    this.notes = element("ul", { class: "notes" });
    this.noteViews = new Map();
    this.drainViews = new Map();
    this.reasons = element("tr", { role: "row", class: "reasons" }, element("td", { role: "cell", colspan: width }, this.notes));
    this.root = element("tbody", { role: "rowgroup", class: "service" },
      element("tr", { role: "row" }, element("th", { role: "rowheader", scope: "row", class: "long" }, this.button), ...this.cells, element("td", { role: "cell", class: "spark" }, this.sparkline.root)),
      this.reasons);
    this.peers = new Map();
    watchSight(this);
  }

  update(s) {
    if (s === this.service) return;
    s.refusing = Object.keys(s.refusals).filter(limit => this.service && s.refusals[limit] > (this.service.refusals[limit] ?? 0));
    this.service = s;
    serviceColumns.forEach(([, text, className], i) => show(this.cells[i], text(s), className(s)));
    classify(this.root, "service " + ["bad", "warn", ""][severity(s)]);
    if (this.card) this.showFacts();
    const notes = [
      ...followNotes(this.noteViews, warningsOf(s)),
      ...follow(this.drainViews, s.standing_drains.map(d => ({ ...d, service: s.service })), peerKey, () => new StandingDrainView()),
    ];
    arrange(this.notes, notes.map(view => view.root));
    showIf(this.reasons, notes.length > 0);
  }

  // draw draws the samples that are known.
  draw() {
    const s = seriesByService.get(this.service.service);
    if (!s) return;
    if (s !== this.sparkline.series) this.sparkline.draw(s);
    this.charts?.update(s);
  }

  showFacts() {
    arrange(this.facts, followNotes(this.factViews, factsOf(this.service)).map(view => view.root));
  }

  // showPeers shows the card with peers, or no card if they are undefined.
  showPeers(peers) {
    const open = String(peers !== undefined);
    if (this.button.ariaExpanded !== open) this.button.ariaExpanded = open;
    if (!peers) {
      this.card?.remove();
      this.card = this.charts = this.table = this.comparison = undefined;
      this.peers.clear();
      return;
    }
    if (!this.card) {
      this.charts = new ChartsView();
      if (/^consul/.test(this.service.watch?.source)) this.comparison = new ComparisonView(this.service.service);
      this.table = element("table", { role: "table", class: "peers", "aria-labelledby": this.button.id }, peerHead());
      this.more = element("p", { class: "more" });
      const panels = element("div", { class: "panels" }, ...(this.comparison ? [this.comparison.root] : []), this.charts.details, new SettingsView(this.service.service).root);
      this.card = element("tr", { role: "row", class: "card" },
        element("td", { role: "cell", colspan: serviceColumns.length + 2 }, this.facts, this.charts.root, this.table, this.more, panels));
      this.root.append(this.card);
      this.showFacts();
      this.draw();
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
