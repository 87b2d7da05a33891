// What services did in the last 15 minutes: samples for the charts of those that are seen.

const seriesSpan = 15 * 60000, seriesEvery = 5000; // ms

// Of each service that was seen: the times between the samples, in ms, one more than there
// are samples, and the samples by name.
const seriesByService = new Map();
const serviceOf = new WeakMap(); // the ServiceView of a section
const seen = new Set(); // the ServiceViews in the window

const sight = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) seen.add(serviceOf.get(target));
    else seen.delete(serviceOf.get(target));
  }
  wakeSeries.soon();
});

// watchSight has the page ask for the samples of a view's service while it is in the window.
function watchSight(view) {
  serviceOf.set(view.root, view);
  sight.observe(view.root);
}

const seriesNames = ["requests", "errors", "retries", "p50_ms", "p99_ms"];

// addSeries adds samples to those that are there, and a gap if some between are missing.
function addSeries(times, answer) {
  const s = seriesByService.get(answer.service) ?? { times: [times[0]] };
  const of = { ...Object.fromEntries(seriesNames.map(name => [name, answer[name]])), ...answer.peers };
  const end = s.times.at(-1), gap = end < times[0];
  if (end > times[0]) s.times = [times[0]]; // all of it comes again
  const kept = times.at(-1) - seriesSpan, all = s.times.concat(times.slice(gap ? 0 : 1));
  const first = Math.max(0, all.findLastIndex(time => time <= kept));
  const made = { times: all.slice(first) };
  for (const [name, values] of Object.entries(of))
    made[name] = (end > times[0] ? [] : s[name] ?? []).concat(gap ? [null] : [], values).slice(first);
  seriesByService.set(answer.service, made);
}

// seriesRound asks for the samples that are new, and draws them.
async function seriesRound() {
  if (!connected) return;
  const views = [...seen];
  const groups = Map.groupBy(views, view => seriesByService.get(view.service.service)?.times.at(-1));
  await Promise.all([...groups].map(async ([end, list]) => {
    const query = list.map(view => ["service", view.service.service]);
    if (end) query.push(["after", new Date(end).toISOString()]);
    const answer = await ask("api/series?" + new URLSearchParams(query)).catch(() => undefined); // the rounds tell what is wrong
    if (!answer) return;
    const times = answer.times.map(time => Date.parse(time));
    for (const service of answer.services) addSeries(times, service);
  }));
  for (const view of views) view.draw();
}
