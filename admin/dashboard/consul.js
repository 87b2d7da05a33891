// What Consul itself says of a service, beside what its pool has.

const comparedService = new Set(address.getAll("consul")); // those whose comparison is open
const consulEvery = 5000; // ms
const differenceWords = { only_in_consul: "only in Consul", only_in_pool: "only in the pool", skipped: "skipped by sluice" };

const tagsOf = side => [...side.tags, ...Object.entries(side.meta ?? {}).map(([key, value]) => key + "=" + value)].join(", ");

// side returns columns about what one side says. A value that differs is marked.
function side(name, of, first) {
  const column = (title, fields, value) => [
    name + ": " + title,
    i => !of(i) ? (title === "status" ? "not there" : "") : (fields.some(f => i.fields?.includes(f)) ? "≠ " : "") + value(of(i)),
    i => "long" + (i.difference === "differs" && fields.some(f => i.fields?.includes(f)) || !of(i) ? " differs" : ""),
  ];
  return [...first, column("status", ["status"], s => s.status), column("weight", ["weight"], s => number(s.weight)), column("tags, meta", ["tags", "meta"], tagsOf)];
}

const comparisonColumns = [
  ["instance", i => i.id, () => "long"],
  ["address", i => i.address, () => "long"],
  ...side("Consul", i => i.consul, []),
  ...side("pool", i => i.pool, [["pool: state", i => i.pool?.state ?? "", i => "state " + (i.pool?.state ?? "")]]),
  ["difference", i => i.reason ? differenceWords[i.difference] + ": " + i.reason : differenceWords[i.difference] ?? (i.fields ? i.fields.join(", ") + (i.fields.length > 1 ? " differ" : " differs") : "none"),
    i => i.difference ? "state stale" : "faint"],
];

// ComparisonView is a service's comparison with Consul, which is asked while it is open.
class ComparisonView {
  constructor(service) {
    this.service = service;
    this.title = element("span", {}, "Consul’s own view");
    this.says = element("p", { class: "more", role: "status" });
    this.table = element("table", { role: "table", "aria-label": "Consul and the pool of " + service }, tableHead(comparisonColumns));
    this.rows = new Map();
    this.root = element("details", {}, element("summary", {}, this.title), this.says, this.table);
    this.root.open = comparedService.has(service);
    this.table.hidden = true;
    this.root.addEventListener("toggle", () => {
      if (this.root.open) comparedService.add(service);
      else comparedService.delete(service);
      remember("consul", [...comparedService]);
      if (this.root.open) wakeConsul();
    });
  }

  async ask() {
    let answer;
    try {
      answer = await ask("consul/" + encodeURIComponent(this.service));
    } catch (err) {
      show(this.says, err.status ? err.message : "no answer from sluice", "more failed");
      this.table.hidden = true;
      return;
    }
    const different = answer.instances.filter(i => i.difference);
    show(this.says, (different.length ? count(different.length, "difference") + " among " + count(answer.instances.length, "instance") + " (marked with ≠)"
      : "Consul and the pool agree on " + count(answer.instances.length, "instance")) +
      "; Consul’s index " + answer.index + (answer.known_leader ? "" : "; its server knows no leader") + ".", "more" + (different.length ? " stale" : ""));
    const list = [...different, ...answer.instances.filter(i => !i.difference)].slice(0, maxRows);
    if (showIf(this.table, list.length > 0))
      arrange(this.table, [this.table.tHead, ...follow(this.rows, list, peerKey, () => new RowView(comparisonColumns)).map(row => row.root)]);
  }
}

// consulRound asks Consul about the services whose comparison is open and seen.
async function consulRound() {
  if (!connected) return;
  await Promise.all([...seen].map(view => view.comparison).filter(c => c?.root.open && c.root.isConnected).map(c => c.ask()));
}
