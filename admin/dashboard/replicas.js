// The replicas of sluice, and whether they agree.

const replicaColumns = [
  ["replica", r => r.name + (r.self ? " (this one)" : "")],
  ["address", r => r.address],
  ["in Consul", r => r.status + (r.duplicate ? ", listed twice" : ""), r => "state " + (r.status === "passing" ? "up" : r.status)],
  ["up for", r => r.started ? age(r.started) : "", () => "number"],
  ["version", r => r.version],
  ["configuration", r => r.config_hash + (r.pending?.length ? ", waits for a restart" : ""), r => r.differs || r.pending?.length ? "stale" : ""],
  ["services", r => r.parts ? number(r.services) : "", () => "number"],
  ["instances", r => r.parts ? number(r.instances) : "", () => "number"],
];
const replicaWhy = r => [r.error, r.status === "passing" ? "" : r.detail].filter(Boolean).join("; ");
const replicaViews = new Map(), replicaNotes = new Map();

function showReplicas(v) {
  const section = byId("replicas"), r = v.registration;
  show(byId("converged"), v.converged ? "agree" : v.converged === false ? "do not agree" : "unknown whether they agree",
    v.converged ? "state up" : v.converged === false ? "state failed" : "state stale");
  classify(section, v.converged === false ? "warn" : "");
  const notes = [...v.differences.map(d => d.summary), ...v.unknown.map(u => u.replica + ": " + u.why)];
  if (v.error) notes.unshift(v.error);
  if (r.state !== "registered") notes.unshift("This one is not registered (" + r.state + " for " + age(r.since) + ")" + (r.last_error ? ": " + r.last_error : ""));
  arrange(section.querySelector(".notes"), followNotes(replicaNotes, notes).map(view => view.root));
  // A configuration that fewer have than another is the one to look at.
  const hashes = Map.groupBy(v.replicas, r => r.config_hash);
  const most = Math.max(...[...hashes.values()].map(list => list.length));
  for (const r of v.replicas) r.differs = hashes.size > 1 && (hashes.get(r.config_hash).length < most || hashes.size === v.replicas.length);
  const table = section.querySelector("table");
  if (!table.tHead) table.append(tableHead(replicaColumns));
  arrange(table, [table.tHead, ...follow(replicaViews, v.replicas, r => r.name, () => new RowView(replicaColumns, replicaWhy, "failed")).map(row => row.root)]);
}
