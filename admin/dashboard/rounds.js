// What the page asks for, and when.

// A round of questions begins this long after the one before, in ms, and later
// if the answers take long: asking never takes more than a fifth of the time.
// While the feed is live, an event makes the next round come at once, and
// without one only counters change.
const patience = 10000;
let roundEvery = () => live ? 2000 : 1000, restEvery = () => live ? 15000 : 5000;

// However many events there are, this much time is between two rounds, in ms.
const breath = 100;

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, method = "GET", headers = {}) {
  const token = sessionStorage.getItem("token");
  const answer = await fetch(path, { method, headers: { ...headers, ...(token && { Authorization: "Bearer " + token }) }, signal: AbortSignal.timeout(patience) });
  const body = await answer.json();
  if (answer.headers.get("WWW-Authenticate")?.includes("insufficient_scope")) askForOperator();
  if (!answer.ok && path !== "readyz") throw new Refused(answer.status, body.error);
  return body;
}

let wantsOperator = false; // an order needs another token than the one that looks

// askForOperator asks for a token that may give orders.
function askForOperator(text = "This token is only for looking. Enter the token for orders, and repeat the order.") {
  wantsOperator = true;
  document.querySelector("dialog[open]")?.close();
  show(byId("problem"), text);
  byId("problem").hidden = byId("login").hidden = false;
  byId("looking").hidden = true;
  byId("token").value = "";
  byId("token").focus();
}

let connected = false; // the latest round was answered
let wholeAt = 0; // when all services are asked for again
const touched = new Set(); // the services of events since the latest round

// servicesNow returns the services. While the feed is live, those of many services that have no
// events are not asked for in each round: their counters are then up to 10 ms a service old.
async function servicesNow() {
  const now = performance.now(), names = [...touched], before = last.services;
  touched.clear();
  if (!live || now >= wholeAt || names.length > maxRows || !names.every(name => serviceViews.has(name))) {
    const services = await ask("api/services");
    wholeAt = now + 10 * services.length;
    return services;
  }
  const due = wholeAt;
  wholeAt = 0; // if one of them has gone
  const changed = names.length ? await ask("api/services?" + new URLSearchParams(names.map(name => ["service", name]))) : [];
  wholeAt = due;
  return before.map(s => changed.find(c => c.service === s.service) ?? s);
}

// round asks how things are and shows it.
async function round() {
  let ready, services, peers;
  try {
    [ready, services, standing] = await Promise.all([ask("readyz"), servicesNow(), ask("api/orders")]);
    last = { services, peers: last.peers };
    const open = select().filter(({ peers }) => peers).map(({ s }) => "service=" + encodeURIComponent(s.service));
    const all = services.reduce((n, s) => n + peersOf(s), 0) <= fewPeers || words().length > 0;
    peers = all || open.length > 0 ? await ask("api/peers" + (all ? "" : "?" + open.join("&"))) : [];
  } catch (err) {
    connected = false;
    return showFailure(err);
  }
  last.peers = Map.groupBy(peers, p => p.service);
  const missing = ready.missing.join("; ");
  show(byId("ready"), !ready.ready ? "not ready: " + missing : missing ? "ready, but " + missing : "ready", "state " + (ready.ready ? "ready" : "failed"));
  classify(document.body, "");
  byId("login").hidden = !wantsOperator;
  byId("happened").hidden = false;
  showIf(byId("search"), currentView() !== "configuration");
  render();
  renderOrders();
  if (!connected) {
    connected = true;
    wakeRest();
    wakeSeries();
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
  show(byId("ready"), (err.status ? err.message : "no answer from sluice") + ": the values are old", "state failed");
  classify(document.body, "old");
}

let shares = new Map(); // the shares of groups and their judges, by service
let chains = new Map(); // the discovery chains of services in the mesh, by service
let tagProblems = new Map(); // the tags that are not used as they are, by service

// rest asks for what changes seldom: the configuration, shares, whether the replicas
// agree, and what the views of routes and of the configuration show.
async function rest() {
  if (!connected) return;
  let config, replicas;
  try {
    config = await ask("api/config?brief=true");
    shares = Map.groupBy(await ask("api/shares"), s => s.service);
    chains = new Map((await ask("api/mesh")).chains.map(c => [c.service, c]));
    tagProblems = Map.groupBy(await ask("api/tags"), p => p.service);
    if (currentView() === "routes") await routesRound();
    if (currentView() === "configuration") await Promise.all([revisionsRound(config), certificatesRound()]);
    if (config.config.consul?.register) replicas = await ask("api/replicas");
  } catch {
    return; // the rounds tell what is wrong
  }
  const refused = config.reloads.last_error;
  const pinned = config.sources.filter(s => s.pinned).map(s => s.name + " to revision " + s.pinned);
  const stale = config.states.filter(s => s.state === "stale" || s.state === "waiting").map(s => s.name + ": " + s.errors.join("; "));
  show(byId("config"), "configuration " + config.number + (config.source ? " from " + config.source : "") +
    (pinned.length ? "; pinned by a rollback: " + pinned.join(", ") : "") +
    (config.pending.length ? "; waits for a restart: " + config.pending.join(", ") : "") +
    (stale.length ? "; a source cannot be read: " + stale.join(", ") : "") +
    (refused ? "; a newer one was refused: " + refused.errors.join("; ") : ""),
    refused ? "failed" : config.pending.length || pinned.length || stale.length ? "stale" : "faint");
  if (showIf(byId("replicas"), Boolean(replicas) && currentView() === "services")) showReplicas(replicas);
}

// repeat does work again and again while the page is seen. What it returns makes
// the next time come at once; its soon does, too, but leaves the pause for which
// the cost of the work asks.
function repeat(work, every) {
  let woken = false, hurry = false, earliest = 0, resume;
  (async () => {
    for (;;) {
      woken = hurry = false;
      const begin = performance.now();
      if (!document.hidden) await work().catch(console.error);
      const end = performance.now(), least = Math.max(breath, 4 * (end - begin));
      earliest = end + least;
      if (!woken) await new Promise(done => setTimeout(resume = done, hurry ? least : Math.max(every(), least)));
    }
  })();
  const now = () => {
    woken = true;
    resume?.();
  };
  now.soon = () => {
    if (!hurry && resume) setTimeout(resume, Math.max(0, earliest - performance.now()));
    hurry = true;
  };
  return now;
}
