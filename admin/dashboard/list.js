// Which services and peers are shown.

// With up to fewPeers, all are asked for and shown. With more, services that need
// attention are opened, up to maxOpened, and only what is open is asked for.
const fewPeers = 200, maxOpened = 20;

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
      const open = chosen.get(s.service) ?? (few || (level < 2 || wanted.length > 0) && opened++ < maxOpened);
      return { s, peers: open ? peers : undefined };
    });
}

// render shows what is known.
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
    (wrong ? ", " + number(wrong) + " with problems" : "") + "; " + number(serve) + " of " + number(peers) + " peers serve");
  document.title = (wrong ? "(" + wrong + ") " : "") + "sluice " + location.host;
}
