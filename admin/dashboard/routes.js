// Routes, and what would happen to a request that the user describes.

const shownRoutes = 500; // rows, at most

let routes = [], verdicts = new Map(); // of the route table; what the request gets, by place
let chainBranches = new Map(); // of discovery chains, by service

const hostOf = r => (r.protocol ? r.protocol + "://" : "") + (r.host || (r.host_regexp ? "~" + r.host_regexp : "any"));
const splitOf = r => r.split.groups.length > 1 ? r.split.groups.map(g => g.group + " " + percent(g.share)).join(", ") + ", by " + r.split.key.replace("_", " ") : "group " + r.split.groups[0].group;

const weightedOf = r => r.weighted.targets.map(t => t.service + (t.group ? " group " + t.group : "") + " " + percent(t.present_share)).join(", ") + ", by " + r.weighted.key.replace("_", " ");

// branchOf says what a branch of a discovery chain does.
const branchOf = b => [b.path + (b.match === "prefix" ? "" : " (" + b.match.replace("_", " ") + ")"), ...(b.conditions ?? [])].join(" and ") +
  " to " + (b.weighted ? weightedOf(b) : b.service) + (b.split ? " (" + splitOf(b) + ")" : "");

// targetOf says what a route does with a request.
function targetOf(r) {
  const parts = [r.weighted ? weightedOf(r) : (r.service || "no service") + (r.split ? " (" + splitOf(r) + ")" : "")];
  for (const b of r.chain ?? chainBranches.get(r.chain_of) ?? []) parts.push(branchOf(b));
  if (r.mirror) parts.push("copies of " + percent(r.mirror.share) + " to " + r.mirror.service + (r.mirror.group ? ", group " + r.mirror.group : ""));
  if (r.actions) parts.push(JSON.stringify(r.actions).slice(0, longest));
  return parts.join("; ");
}

// outcomeOf says why a route gets the request or not.
function outcomeOf(r) {
  const v = verdicts.get(r.place);
  if (!v) return "";
  switch (v.outcome) {
  case "chosen": return "✓ chosen";
  case "later": return "matches, but a route before it is chosen";
  case "condition": return "only if " + v.failing;
  }
  return "other " + v.outcome;
}

const routeColumns = [
  ["place", r => r.unused ? "not used" : String(r.place), () => "number"],
  ["host", hostOf, () => "long"],
  ["path", r => r.path + (r.match === "prefix" || !r.match ? "" : " (" + r.match.replace("_", " ") + ")"), () => "long"],
  ["only if", r => (r.conditions ?? []).join("; "), () => "long"],
  ["goes to", targetOf, () => "long"],
  ["from", r => r.asked_by && r.asked_by.dialect !== "default_rule" ? "tag " + r.asked_by.tag + " of " + r.asked_by.service : r.origin, () => "long faint"],
  ["result", outcomeOf, r => "long" + (verdicts.get(r.place)?.outcome === "chosen" ? " state up" : " faint")],
];
const routeViews = new Map(), verdictViews = new Map();
const problemsOf = r => (r.problems ?? []).map(tagText).join("; ");

function renderRoutes() {
  const wanted = words(), onlyWrong = byId("wrong").checked, table = byId("routes");
  const found = routes.filter(r => (!onlyWrong || r.problems) && hasAll(r.search, wanted));
  const near = r => ["chosen", "later", "condition"].includes(verdicts.get(r.place)?.outcome) ? 0 : 1;
  const list = found.length <= shownRoutes ? found : found.toSorted((a, b) => near(a) - near(b)).slice(0, shownRoutes);
  if (!table.tHead) table.append(tableHead(routeColumns));
  arrange(table, [table.tHead, ...follow(routeViews, list, r => r.key, () => new RowView(routeColumns, problemsOf)).map(row => row.root)]);
  for (const r of list) classify(routeViews.get(r.key).root, verdicts.get(r.place)?.outcome === "chosen" ? "chosen" : "");
  table.classList.toggle("asked", verdicts.size > 0);
  const wrong = routes.filter(r => r.problems).length;
  show(byId("routes-count"), (found.length < routes.length ? number(found.length) + " of " : "") + count(routes.length, "route") + (wrong ? ", " + number(wrong) + " with problems of tags" : ""));
  if (showIf(byId("routes-more"), found.length > list.length)) show(byId("routes-more"), "and " + number(found.length - list.length) + " more: the filter finds them");
}

async function routesRound() {
  const list = await ask("api/routes");
  let place = 0;
  chainBranches = new Map(list.flatMap(r => [r, ...(r.weighted?.targets ?? [])]).filter(r => r.chain).map(r => [r.service, r.chain]));
  routes = list.map((r, i) => ({ ...r, place: r.unused ? -i : ++place, key: JSON.stringify([r.protocol, r.host, r.host_regexp, r.path, r.match, r.conditions, r.service, r.unused]),
    search: [hostOf(r), r.path, r.service, r.origin, targetOf(r), r.asked_by?.tag, r.asked_by?.service, problemsOf(r), ...(r.conditions ?? [])].join("\n").toLowerCase() }));
  if (address.has("url")) return explain();
  forgetVerdict();
}

// The request is part of the address too.
const request = byId("request"), requestFields = ["method", "url", "header", "client", "listener"];
onAddress(() => {
  for (const name of requestFields) request.elements[name].value = address.getAll(name).join("\n");
});

request.addEventListener("submit", event => {
  event.preventDefault();
  const field = request.elements.url;
  if (!/^https?:\/\//.test(field.value)) field.value = "http://" + field.value.trim();
  for (const name of requestFields) remember(name, request.elements[name].value.split("\n").map(line => line.trim()));
  explain();
});
byId("request-clear").addEventListener("click", () => {
  for (const name of requestFields) {
    request.elements[name].value = "";
    remember(name, "");
  }
  forgetVerdict();
});

function forgetVerdict() {
  verdicts = new Map();
  showIf(byId("verdict"), false);
  renderRoutes();
}

// explain asks what would happen to the request, and shows it: in green only what reaches a peer
// for certain.
async function explain() {
  const query = new URLSearchParams([["all", "true"], ...requestFields.flatMap(name => address.getAll(name).map(value => [name, value]))]);
  let title, lines = [], className = "state failed";
  try {
    const answer = await ask("api/route?" + query);
    verdicts = new Map(answer.candidates.map(c => [c.place, c]));
    [title, lines] = await verdictOf(answer);
    if (answer.ends.every(e => !e.answer && !e.depends)) className = "state up";
    else if (!answer.ends.some(refuses)) className = "";
  } catch (err) {
    [title, verdicts] = [err.status ? err.message : "no answer from sluice", new Map()];
  }
  showIf(byId("verdict"), true);
  show(byId("verdict-title"), title, className);
  arrange(byId("verdict").querySelector("ul"), followNotes(verdictViews, lines).map(view => view.root));
  renderRoutes();
}

const refuses = e => e.answer?.status >= 400 && e.answer.reason !== "direct_response";
const answerOf = a => (a.status ? a.status + " " : "") + a.reason + ": " + a.text;
const shortened = list => list.slice(0, 20).join(", ") + (list.length > 20 ? " and " + number(list.length - 20) + " more" : "");

// endOf says what becomes of a request, by a route or a listener.
function endOf(e, by) {
  if (e.branch) by += " and by " + e.branch.origin;
  if (!e.answer) return (e.depends ? "If nothing of the following ends it, it" : "It") + " goes to service " + e.service + (e.group ? ", group " + e.group : "") + ", by " + by + ".";
  if (e.answer.location) return "It is redirected (" + e.answer.status + ") to " + e.answer.location + ", by " + by + ".";
  return "sluice answers " + answerOf(e.answer) + ", by " + by + ".";
}

// verdictOf says what becomes of a request, what that depends on, and why it is no other peer's.
async function verdictOf(answer) {
  const r = answer.route, lines = [];
  const place = answer.candidates.find(c => c.outcome === "chosen")?.place;
  const by = r ? "route " + place + " (" + (r.asked_by && r.asked_by.dialect !== "default_rule" ? "tag " + r.asked_by.tag : r.origin) + ")" : "listener " + answer.listener;
  if (answer.other_listeners) lines.push("Asked of listener " + answer.listener + "; it could also come to " + answer.other_listeners.join(", ") + ".");
  if (r?.mirror) lines.push("Copies of " + percent(r.mirror.share) + " of the requests go to " + r.mirror.service + ".");
  const [e] = answer.ends;
  if (answer.ends.length > 1) {
    const one = e => percent(e.share) + ": " + endOf(e, by) + (e.depends ? " It depends on " + e.depends.map(answerOf).join("; ") + "." : "");
    return ["Chance chooses one of these:", [...answer.ends.map(one), ...lines]];
  }
  for (const d of e.depends ?? []) lines.push("It depends on " + answerOf(d) + ".");
  if (e.service && (!e.answer || e.answer.status === 503)) {
    const s = last.services.find(s => s.service === e.service);
    const peers = (await ask("api/peers?service=" + encodeURIComponent(e.service))).filter(p => !e.group || p.group === e.group);
    const used = peers.filter(p => e.peers?.includes(p.id)), others = peers.filter(p => !p.used);
    if (used.length === 1) lines.push("Its peer is " + used[0].id + " at " + used[0].address + ".");
    else if (used.length > 1) lines.push("Its peer is one of " + used.length + ", chosen by " + (s?.policy.replace("_", " ") ?? "the policy") + " when the request comes: " + shortened(used.map(p => p.id)) + ".");
    if (s?.panic) lines.push("Panic: failing peers get requests too.");
    for (const p of others.slice(0, 20)) lines.push("Not " + p.id + ": " + p.state + (p.reasons.length ? ": " + p.reasons.join("; ") : p.state === "up" ? ", but not in the subset or the tier" : ""));
    if (others.length > 20) lines.push("Nor " + number(others.length - 20) + " more.");
  }
  return [endOf(e, by), lines];
}
