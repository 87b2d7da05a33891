// Which services and peers are shown.

// With up to fewServices, the cards of all are open. With up to fewPeers, all peers are asked
// for; with more, only those of open cards. A filter opens up to maxOpened cards.
const fewServices = 3, fewPeers = 200, maxOpened = 20;

let last = { services: [], peers: new Map() }; // of the latest round; peers by service
const serviceViews = new Map();
const chosen = new Map(); // services that were opened (true) or closed by hand
onAddress(() => {
  chosen.clear();
  for (const name of address.getAll("open")) chosen.set(name, true);
  for (const name of address.getAll("closed")) chosen.set(name, false);
});

const words = () => byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
const hasAll = (text, words) => words.every(word => text.includes(word));
const peerText = p => [p.service, p.id, p.address, p.node, p.datacenter, p.state, details(p), ...p.reasons].join("\n").toLowerCase();

// Rows are sorted by a column, the highest first or reversed: without a choice the worst first.
const sorts = [["service", (s, place) => -place], ...serviceColumns.map(([title, , , value]) => [title, value])], worstFirst = 1;

function sortOrder() {
  const [, reversed, title] = (address.get("sort") ?? "").match(/^(-?)(.*)/), at = sorts.findIndex(([name]) => name === title);
  return at < 0 ? { at: worstFirst, sign: 1 } : { at, sign: reversed ? -1 : 1 };
}

const sortButtons = sorts.map(([title], at) => {
  const button = element("button", { type: "button" }, title);
  button.addEventListener("click", () => {
    const now = sortOrder(), reversed = now.at === at && now.sign === 1;
    remember("sort", reversed ? "-" + title : at === worstFirst ? "" : title);
    render();
  });
  return button;
});
byId("services").append(element("thead", { role: "rowgroup" }, element("tr", { role: "row" },
  ...sortButtons.map((button, at) => element("th", { role: "columnheader", scope: "col", class: at > worstFirst ? "number" : "" }, button)),
  element("th", { role: "columnheader", scope: "col", class: "spark" }, "last 15 minutes"))));

// select returns the services to show in their order, and the peers to show of
// each: undefined for one that is closed.
function select() {
  const wanted = words(), onlyWrong = byId("wrong").checked;
  const few = last.services.length <= fewServices, { at: sorted, sign } = sortOrder();
  let opened = 0;
  sortButtons.forEach((button, at) => {
    const order = at !== sorted ? null : (at === 0) === (sign === 1) ? "ascending" : "descending";
    if (button.parentNode.ariaSort !== order) button.parentNode.ariaSort = order;
  });
  return last.services
    .map((s, place) => {
      const matches = hasAll(s.service.toLowerCase(), wanted);
      const all = last.peers.get(s.service) ?? [];
      return { s, place, matches, peers: matches ? all : all.filter(p => hasAll(peerText(p), wanted)), value: sorts[sorted][1](s, place) };
    })
    .filter(({ s, matches, peers }) => (matches || peers.length > 0) && !(onlyWrong && severity(s) === 2))
    .sort((a, b) => sign * (b.value - a.value) || a.place - b.place)
    .map(({ s, peers }) => {
      const open = chosen.get(s.service) ?? (few || wanted.length > 0 && opened++ < maxOpened);
      return { s, peers: open ? peers : undefined };
    });
}

// render shows what is known.
function render() {
  const shown = select();
  follow(serviceViews, last.services, s => s.service, s => new ServiceView(s));
  arrange(byId("services"), [byId("services").tHead, ...shown.map(({ s, peers }) => {
    const view = serviceViews.get(s.service);
    view.showPeers(peers);
    return view.root;
  })]);
  const wrong = last.services.filter(s => severity(s) < 2).length;
  const peers = last.services.reduce((n, s) => n + peersOf(s), 0), serve = last.services.reduce((n, s) => n + s.eligible, 0);
  show(byId("summary"), (shown.length < last.services.length ? number(shown.length) + " of " : "") + count(last.services.length, "service") +
    (wrong ? ", " + number(wrong) + " with problems" : "") + "; " + number(serve) + " of " + number(peers) + " peers serve");
  document.title = (wrong ? "(" + wrong + ") " : "") + "sluice " + location.host;
}
