// What operators have ordered, and orders from the page.

let standing = { orders: [], invalid: [], shared: false, may_order: false }; // the latest answer of api/orders

const isOfService = o => o.order === "maintenance";
const isOfNode = o => !o.id && !isOfService(o);
const nodeText = o => "node " + o.node + (o.datacenter ? " (" + o.datacenter + ")" : "");
const orderColumns = [
  ["about", o => isOfService(o) ? o.service + (o.except ? " except for " + o.except : "") : isOfNode(o) ? nodeText(o) : o.id + " of " + o.service, () => "long"],
  ["order", o => isOfService(o) ? "maintenance: requests get 503" : o.order === "weight" ? "weight " + number(o.weight) : isOfNode(o) ? "drain of all its peers" : "drain"],
  ["for", o => age(o.since), () => "number"],
  ["ends in", o => o.until ? left(o.until) : "never by itself"],
  ["by", o => o.by ?? "", () => "long"],
  ["replicas", o => o.pending ? "not yet the others" : standing.shared ? "all" : "this one", o => o.pending ? "stale" : ""],
];

// OrderView is the row of an order that stands, and its button.
class OrderView extends RowView {
  constructor() {
    super(orderColumns, o => o.why);
    this.button = element("button", { type: "button" }, "End");
    this.button.addEventListener("click", () => endOrder(this.order));
    this.root.rows[0].append(element("td", { role: "cell", class: "order" }, this.button));
  }
  update(o) {
    this.order = o;
    super.update(o);
    label(this.button, "End the " + o.order + " of " + (isOfService(o) ? o.service : isOfNode(o) ? nodeText(o) : o.id));
  }
}

const orderViews = new Map(), orderNotes = new Map();
const orderTitles = tableHead(orderColumns);
orderTitles.rows[0].append(element("th", { role: "columnheader", class: "order", "aria-label": "end" }));

function renderOrders() {
  document.body.toggleAttribute("data-looking", !standing.may_order);
  showIf(byId("looking"), !standing.may_order && byId("login").hidden);
  const wanted = words(), notes = [];
  if (standing.error) notes.push("Orders: " + standing.error);
  for (const i of standing.invalid) notes.push("The key " + i.key + " cannot be used: " + i.reason + (i.in_use ? "; its last order stays in use" : ""));
  if (standing.orders.length && !standing.saved && !standing.shared) notes.push("A restart ends them: admin.orders names no file.");
  const found = standing.orders.filter(o => hasAll(orderColumns.map(([, text]) => text(o)).concat(o.why, o.address, o.node).join("\n").toLowerCase(), wanted));
  if (!showIf(byId("orders"), standing.orders.length + notes.length > 0)) return;
  show(byId("orders-count"), found.length < standing.orders.length ? number(found.length) + " of " + number(standing.orders.length) : number(found.length));
  const section = byId("orders"), table = section.querySelector("table");
  arrange(section.querySelector(".notes"), followNotes(orderNotes, notes).map(view => view.root));
  showIf(table, found.length > 0);
  arrange(table, [orderTitles, ...follow(orderViews, found.slice(0, maxRows), o => [o.order, o.service, o.id, o.address, o.node, o.datacenter].join("\n"), () => new OrderView()).map(view => view.root)]);
  if (showIf(byId("orders-more"), found.length > maxRows)) show(byId("orders-more"), "and " + number(found.length - maxRows) + " more: the filter finds them");
}

// An order is a path and what chooses among peers or nodes of the same name.
const ofPeer = (p, what) => ["api/peers/" + encodeURIComponent(p.service) + "/" + encodeURIComponent(p.id) + "/" + what, { node: p.node, address: p.address }];
const ofService = (o, what) => ["api/services/" + encodeURIComponent(o.service) + "/maintenance/" + what, {}];
const ofNode = (o, what) => ["api/nodes/" + encodeURIComponent(o.node) + "/" + what, { datacenter: o.datacenter }];

// send sends an order, and returns why it was refused, if it was.
async function send([path, choice], terms = {}) {
  const query = new URLSearchParams(Object.entries({ ...choice, ...terms }).filter(([, value]) => value));
  try {
    await ask(path + "?" + query, "POST");
  } catch (err) {
    return err.status ? err.message : "no answer from sluice";
  }
  wake();
}

// sendAtOnce sends an order that needs no question.
async function sendAtOnce(order, what) {
  const problem = await send(order);
  if (showIf(byId("problem"), Boolean(problem))) show(byId("problem"), what + ": " + problem);
}

const enable = p => sendAtOnce(ofPeer(p, "enable"), p.id + " was not enabled");

function endOrder(o) {
  if (isOfService(o)) sendAtOnce(ofService(o, "off"), "the maintenance of " + o.service + " was not ended");
  else if (isOfNode(o)) askForOrder("enable", o);
  else if (o.order === "weight") sendAtOnce(ofPeer(o, "weight/release"), "the weight of " + o.id + " was not ended");
  else enable(o);
}

const drainOf = p => p.orders?.find(o => o.order === "drain");
const weightOf = p => p.orders?.find(o => o.order === "weight");

// The dialog: asked is the order that it is about, and form its fields.
const form = byId("order").querySelector("form"), agree = form.querySelector(".main");
let asked = {};

// askForOrder asks whether to drain a peer or its node ("drain"), to set the weight of a peer
// ("weight"), or to enable a node ("enable").
async function askForOrder(what, about) {
  const mine = asked = { what, about };
  form.reset();
  const name = what === "enable" ? "node " + about.node : about.id + " of " + about.service;
  show(byId("order-title"), what === "drain" ? "Drain " + name + "?" : what === "weight" ? "Weight of " + name : "Enable " + name + "?");
  showIf(byId("order-scope"), what === "drain" && Boolean(about.node));
  showIf(byId("order-weight"), what === "weight");
  form.weight.disabled = what !== "weight";
  form.weight.value = what === "weight" ? about.weight || "" : "";
  for (const e of form.querySelectorAll(".terms")) showIf(e, what !== "enable");
  showIf(byId("order-release"), what === "weight" && Boolean(weightOf(about)));
  show(byId("order-problem"), "");
  describeOrder();
  byId("order").showModal();
  (what === "drain" ? form.why : what === "weight" ? form.weight : byId("order-cancel")).focus();
  if (!about.node || what === "weight") return;
  try {
    const peers = await ask("api/peers?node=" + encodeURIComponent(about.node));
    mine.peers = peers.filter(p => (p.datacenter ?? "") === (about.datacenter ?? "") && !hasLeft(p));
  } catch (err) {
    if (mine === asked) show(byId("order-problem"), err.status ? err.message : "no answer from sluice");
  }
  if (mine === asked) describeOrder();
}

const isAboutNode = () => asked.what === "enable" || asked.what === "drain" && form.scope.value === "node";
const inServices = peers => [...Map.groupBy(peers, p => p.service)].map(([service, list]) => service + " (" + list.length + ")");

// describeOrder says what the order will do.
function describeOrder() {
  const { what, about, peers } = asked, node = isAboutNode();
  const ends = form.for.value.trim() ? "for " + form.for.value.trim() : "until that is ended";
  const replicas = standing.shared ? "from any replica" : "from this replica";
  const all = peers && count(peers.length, "peer"), names = peers && inServices(peers);
  const services = names && (names.length > 8 ? names.slice(0, 8).join(", ") + " and " + (names.length - 8) + " more services" : names.join(", "));
  show(byId("order-peer"), "only " + about.id);
  show(byId("order-node"), "all peers of the node " + about.node + (peers ? ": " + all + " of " + count(names.length, "service") : ""));
  show(byId("order-effect"),
    node && !peers ? "The peers of the node are counted …" :
    what === "enable" ? "Requests may go to the node " + about.node + " again: " + all + (services && ", of " + services) + ". The drain of a single peer stays." :
    node ? "No new requests go " + replicas + " to the node " + about.node + " " + ends + ": " + all + ", of " + services + ", and instances that are registered with it meanwhile. Requests in flight go on." :
    what === "drain" ? about.id + " gets no new requests " + replicas + " " + ends + ". Requests in flight go on." :
    about.id + " has the weight " + (form.weight.value || "…") + " in place of the registry's " + (standing.shared ? "at all replicas" : "at this replica") + " " + ends + ".");
  const last = what === "drain" ? lastOnes(node ? peers ?? [] : [about]) : [];
  if (showIf(byId("order-last"), last.length > 0)) show(byId("order-last"), "No other peer serves " + last.join(", ") + ": requests will be answered with 503.");
  show(agree, what === "weight" ? "Set the weight" : (what === "drain" ? "Drain" : "Enable") + (node && all ? " " + all : ""));
  agree.disabled = node && !peers;
}

// lastOnes returns the services of which no other peer gets requests.
function lastOnes(peers) {
  return [...Map.groupBy(peers.filter(p => p.used), p => p.service)]
    .filter(([service, list]) => last.services.find(s => s.service === service)?.eligible <= list.length).map(([service]) => service);
}

async function sendAsked(order, terms) {
  agree.disabled = true;
  const mine = asked, problem = await send(order, terms);
  if (mine !== asked) return;
  show(byId("order-problem"), problem ?? "");
  agree.disabled = false;
  if (!problem) byId("order").close();
}

form.addEventListener("input", describeOrder);
byId("order-cancel").addEventListener("click", () => byId("order").close());
byId("order-release").addEventListener("click", () => sendAsked(ofPeer(asked.about, "weight/release")));
byId("order").addEventListener("submit", event => {
  event.preventDefault();
  const { what, about } = asked;
  const terms = what === "enable" ? {} : { why: form.why.value.trim(), for: form.for.value.trim(), ...(what === "weight" && { weight: form.weight.value }) };
  sendAsked(isAboutNode() ? ofNode(about, what) : ofPeer(about, what), terms);
});
byId("operate").addEventListener("click", () => askForOperator("Enter the token for orders."));
