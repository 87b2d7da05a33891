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
const problemsOf = r => (r.problems ?? []).map(p => p.reason).join("; ");

function renderRoutes() {
  const wanted = words(), onlyWrong = byId("wrong").checked, table = byId("routes");
  const found = routes.filter(r => (!onlyWrong || r.problems) && hasAll(r.search, wanted));
  const near = r => ["chosen", "later", "condition"].includes(verdicts.get(r.place)?.outcome) ? 0 : 1;
  const list = found.length <= shownRoutes ? found : found.toSorted((a, b) => near(a) - near(b)).slice(0, shownRoutes);
  if (!table.tHead) table.append(tableHead(routeColumns));
  arrange(table, [table.tHead, ...follow(routeViews, list, r => r.key, () => new RowView(routeColumns, problemsOf)).map(row => row.root)]);
  for (const r of list) classify(routeViews.get(r.key).root, verdicts.get(r.place)?.outcome === "chosen" ? "chosen" : "");
  table.classList.toggle("asked", verdicts.size > 0);
  show(byId("routes-count"), (found.length < routes.length ? number(found.length) + " of " : "") + count(routes.length, "route"));
  if (showIf(byId("routes-more"), found.length > list.length)) show(byId("routes-more"), "and " + number(found.length - list.length) + " more: the filter finds them");
}

async function routesRound() {
  const list = await ask("api/routes");
  let place = 0;
  chainBranches = new Map(list.flatMap(r => [r, ...(r.weighted?.targets ?? [])]).filter(r => r.chain).map(r => [r.service, r.chain]));
  routes = list.map((r, i) => ({ ...r, place: r.unused ? -i : ++place, key: JSON.stringify([r.protocol, r.host, r.host_regexp, r.path, r.match, r.conditions, r.service, r.unused]),
    search: [hostOf(r), r.path, r.service, r.origin, targetOf(r), r.asked_by?.tag, r.asked_by?.service, ...(r.conditions ?? [])].join("\n").toLowerCase() }));
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

// explain asks what would happen to the request, and shows it.
async function explain() {
  const query = new URLSearchParams([["all", "true"], ...requestFields.flatMap(name => address.getAll(name).map(value => [name, value]))]);
  let title, lines = [], className = "state up";
  try {
    const answer = await ask("api/route?" + query);
    verdicts = new Map(answer.candidates.map(c => [c.place, c]));
    [title, lines] = await verdictOf(answer);
    if (!answer.route) className = "state failed";
  } catch (err) {
    [title, className, verdicts] = [err.status ? err.message : "no answer from sluice", "state failed", new Map()];
  }
  showIf(byId("verdict"), true);
  show(byId("verdict-title"), title, className);
  arrange(byId("verdict").querySelector("ul"), followNotes(verdictViews, lines).map(view => view.root));
  renderRoutes();
}

// verdictOf says which route, group and peer a request gets, and why no other peer.
async function verdictOf(answer) {
  const r = answer.route;
  if (!r) return ["No route matches: sluice answers 404.", []];
  const place = answer.candidates.find(c => c.outcome === "chosen").place;
  const by = "route " + place + " (" + (r.asked_by && r.asked_by.dialect !== "default_rule" ? "tag " + r.asked_by.tag : r.origin) + ")" + (answer.branch ? " and by " + answer.branch.origin : "");
  const lines = [];
  if (r.mirror) lines.push("Copies of " + percent(r.mirror.share) + " of the requests go to " + r.mirror.service + ".");
  const way = answer.branch ?? r, service = r.weighted || answer.branch ? answer.service : r.service;
  if (way.weighted && !service) return ["It goes to one of these services by chance: " + weightedOf(way) + ", by " + by + ".", lines];
  if (!service) return ["It is answered by " + by + ", without a service.", lines];
  const group = answer.group ? ", group " + answer.group : way.split ? ", one of its groups by chance (" + splitOf(way) + ")" : "";
  const s = last.services.find(s => s.service === service);
  const peers = (await ask("api/peers?service=" + encodeURIComponent(service))).filter(p => !answer.group || p.group === answer.group);
  const used = peers.filter(p => p.used), others = peers.filter(p => !p.used);
  const names = list => list.slice(0, 20).map(p => p.id).join(", ") + (list.length > 20 ? " and " + number(list.length - 20) + " more" : "");
  if (used.length === 0) lines.push(answer.group && way.split?.fallback ? "The group has no peer that serves: the request goes to group " + way.split.fallback + "." : "No peer serves: sluice answers 503.");
  else if (used.length === 1) lines.push("Its peer is " + used[0].id + " at " + used[0].address + ".");
  else lines.push("Its peer is one of " + used.length + ", chosen by " + (s?.policy.replace("_", " ") ?? "the policy") + " when the request comes: " + names(used) + ".");
  if (s?.panic) lines.push("Panic: failing peers get requests too.");
  for (const p of others.slice(0, 20)) lines.push("Not " + p.id + ": " + p.state + (p.reasons.length ? ": " + p.reasons.join("; ") : p.state === "up" ? ", but not in the subset or the tier" : ""));
  if (others.length > 20) lines.push("Nor " + number(others.length - 20) + " more.");
  return ["It goes to service " + service + group + ", by " + by + ".", lines];
}
