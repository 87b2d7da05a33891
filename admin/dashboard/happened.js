// What happened in the last hour: the feed, which also says when to ask how things are.

// The page keeps the latest keptEvents, and shows the latest fewEvents of those that the
// filter finds, or manyEvents. A stream without a byte for silence ms is broken: three
// heartbeats.
const keptEvents = 2000, fewEvents = matchMedia("(max-width: 56rem)").matches ? 2 : 5, manyEvents = 300, silence = 45000, againAfter = 1000;

let live = false; // the stream is open
let happened = [], latestEvent = ""; // oldest first; the id of the latest
let eventCount = 0; // so far, for keys
const happenedViews = new Map();

let allEvents;
onAddress(() => {
  byId("happened-group").value = address.get("happened") ?? "";
  allEvents = address.has("all");
});

byId("happened-group").addEventListener("change", () => {
  remember("happened", byId("happened-group").value);
  renderHappened();
});
byId("happened-all").addEventListener("click", () => {
  allEvents = !allEvents;
  remember("all", allEvents);
  renderHappened();
});

const eventText = e => [e.service, e.peer, e.address, e.node, e.kind, e.text].join("\n").toLowerCase();

// EventView is an event's row.
class EventView {
  constructor(e) {
    const time = new Date(e.time);
    this.root = element("li", { class: e.level === "warning" ? "stale" : "" },
      element("time", { datetime: e.time, title: time.toLocaleString() }, time.toLocaleTimeString("en-GB")),
      element("span", { class: "mark" }, e.level === "warning" ? "warning" : ""),
      element("span", { class: "about" }, e.service ?? ""),
      element("span", { class: "long" }, e.text), element("span", { class: "faint" }, e.kind));
  }
  update() {}
}

function renderHappened() {
  const wanted = words(), group = byId("happened-group").value, onlyWrong = byId("wrong").checked;
  const found = happened.filter(e => (!group || e.kind.startsWith(group + ".") || e.kind === "feed.skipped") &&
    (!onlyWrong || e.level === "warning") && hasAll(e.search, wanted));
  const shown = found.slice(allEvents ? -manyEvents : -fewEvents).reverse();
  arrange(byId("happened-list"), follow(happenedViews, shown, e => e.key, e => new EventView(e)).map(view => view.root));
  show(byId("happened-count"), (found.length ? count(found.length, "event") : "nothing") + (live ? "" : "; the feed is interrupted"));
  if (showIf(byId("happened-all"), found.length > fewEvents)) {
    show(byId("happened-all"), allEvents ? "Show fewer" : "Show " + number(Math.min(found.length, manyEvents)));
    byId("happened-all").ariaExpanded = String(allEvents);
  }
}

// take adds events, and has the page ask what has changed by them.
function take(list) {
  const hourAgo = Date.now() - 3600000;
  happened = happened.concat(list.map(e => ({ ...e, key: String(++eventCount), search: eventText(e) })))
    .filter(e => Date.parse(e.time) > hourAgo).slice(-keptEvents);
  renderHappened();
  for (const { service } of list) if (service) touched.add(service);
  wake.soon();
  wakeConsul.soon();
  if (list.some(e => /^(config|split|sluice)\./.test(e.kind))) wakeRest.soon();
}

// readFeed reads the stream until it ends, is interrupted, or the page is hidden.
async function readFeed() {
  const token = sessionStorage.getItem("token");
  const end = new AbortController(), hidden = () => document.hidden && end.abort();
  let timer = setTimeout(() => end.abort(), silence);
  addEventListener("visibilitychange", hidden);
  try {
    const answer = await fetch("api/events?limit=" + keptEvents + (latestEvent && "&after=" + latestEvent), {
      headers: { Accept: "text/event-stream", ...(token && { Authorization: "Bearer " + token }) }, signal: end.signal,
    });
    if (!answer.ok) return;
    live = true;
    renderHappened();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => end.abort(), silence);
      const messages = (rest + value).split("\n\n");
      rest = messages.pop();
      const list = messages.map(message => message.match(/^data: (.*)$/m)).filter(Boolean).map(([, data]) => JSON.parse(data));
      latestEvent = list.findLast(e => e.id)?.id ?? latestEvent;
      if (list.length > 0) take(list);
    }
  } finally {
    live = false;
    clearTimeout(timer);
    removeEventListener("visibilitychange", hidden);
  }
}

// followFeed reads the stream again and again while the page is seen and sluice answers.
async function followFeed() {
  for (;;) {
    if (connected && !document.hidden) {
      await readFeed().catch(() => {}); // the rounds tell what is wrong
      renderHappened();
      wake.soon();
    }
    await new Promise(done => setTimeout(done, againAfter));
  }
}
