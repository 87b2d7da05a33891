// Which configurations were applied, how they differ, and the way back to one of them.

let revisions = []; // the latest first

// changeItem is a difference: what was is struck out, what is now is underlined.
function changeItem(c) {
  const item = element("li", {}, element("span", { class: "word" }, c.before === undefined ? "added" : c.after === undefined ? "removed" : "changed"), " ", element("code", {}, c.key), " ");
  if (c.before !== undefined && c.before === c.after) item.append("(the value is secret)");
  else {
    if (c.before !== undefined) item.append(element("del", {}, c.before), " ");
    if (c.after !== undefined) item.append(element("ins", {}, c.after));
  }
  return item;
}

const changeItems = changes => changes.length ? changes.map(changeItem) : [element("li", {}, "no difference")];

// RevisionView is an applied configuration.
class RevisionView {
  constructor(r) {
    this.title = element("span", { class: "state" });
    this.state = element("span", { class: "state" });
    this.button = element("button", { type: "button", "aria-label": "Roll back to revision " + r.number }, "Roll back to it");
    this.button.addEventListener("click", () => askToRollBack(r.number));
    this.changes = element("ul", { class: "changes" });
    this.summary = element("summary", {});
    this.details = element("details", {}, this.summary, this.changes);
    this.details.addEventListener("toggle", () => this.details.open && this.changes.replaceChildren(...changeItems(this.revision.changes)));
    const time = new Date(r.time);
    this.root = element("li", {}, element("div", { class: "line" }, this.title,
      element("time", { datetime: r.time }, time.toLocaleString("en-GB")), this.state, element("span", { class: "long" }, r.reason + (r.source && !r.reason.includes(r.source) ? ", " + r.source : "")), this.button), this.details);
  }
  update(r) {
    this.revision = r;
    const current = r === revisions[0];
    show(this.title, "Revision " + r.number);
    show(this.state, [current ? "in use" : "", r.given ? "only a share changed" : "", r.pending.length ? "waits for a restart: " + r.pending.join(", ") : ""].filter(Boolean).join("; "), current ? "state up" : "faint");
    showIf(this.button, !current);
    if (showIf(this.details, r.changes.length > 0)) show(this.summary, count(r.changes.length, "difference") + " from the one before");
  }
}

const revisionViews = new Map(), sourceViews = new Map();

async function revisionsRound(config) {
  revisions = await ask("api/config/history");
  arrange(byId("revisions"), follow(revisionViews, revisions, r => String(r.number), r => new RevisionView(r)).map(view => view.root));
  const texts = config.states.map(s => s.name + ": " + s.state.replace("_", " ") + (s.pinned ? " to revision " + s.pinned : "") + ", " + s.kind + " " + s.revision +
    (s.offered && s.offered !== s.revision ? "; it offers " + s.offered : "") + (s.errors.length ? ": " + s.errors.join("; ") : ""));
  if (config.reloads.last_error) texts.unshift("Refused at " + new Date(config.reloads.last_error.time).toLocaleString("en-GB") + ": " + config.reloads.last_error.errors.join("; "));
  arrange(byId("sources"), followNotes(sourceViews, texts.length ? texts : ["None but the command line."]).map(view => view.root));
  const numbers = revisions.map(r => String(r.number));
  for (const [id, preset] of [["from", numbers[1] ?? numbers[0]], ["to", numbers[0]]]) {
    const select = byId("compare-" + id), wanted = address.get(id) ?? preset;
    if (select.shown !== numbers.join()) {
      select.replaceChildren(...numbers.map(n => element("option", {}, n)));
      select.shown = numbers.join();
    }
    if (numbers.includes(wanted)) select.value = wanted;
  }
  await compareRevisions();
}

let compared; // the pair that is shown

async function compareRevisions() {
  const pair = byId("compare-from").value + "/" + byId("compare-to").value;
  if (pair === compared || !revisions.length) return;
  try {
    byId("compare").replaceChildren(...changeItems(await ask("api/config/diff/" + pair)));
    compared = pair;
  } catch (err) {
    byId("compare").replaceChildren(element("li", { class: "failed" }, err.status ? err.message : "no answer from sluice"));
  }
}

for (const id of ["from", "to"]) byId("compare-" + id).addEventListener("change", () => {
  remember(id, byId("compare-" + id).value);
  compareRevisions();
});

let rollback; // what the dialog is about: the number, and the hash of the configuration that it replaces

async function askToRollBack(target) {
  rollback = { target, hash: revisions[0].hash };
  show(byId("rollback-title"), "Roll back to revision " + target + "?");
  byId("rollback-changes").replaceChildren();
  byId("rollback-why").value = "";
  show(byId("rollback-problem"), "");
  byId("rollback").showModal();
  byId("rollback-why").focus();
  try {
    byId("rollback-changes").replaceChildren(...changeItems(await ask("api/config/diff/" + revisions[0].number + "/" + target)));
  } catch (err) {
    show(byId("rollback-problem"), err.status ? err.message : "no answer from sluice");
  }
}

byId("rollback-cancel").addEventListener("click", () => byId("rollback").close());
byId("rollback").addEventListener("submit", async event => {
  event.preventDefault();
  const why = byId("rollback-why").value.trim();
  try {
    await ask("api/config/rollback?" + new URLSearchParams({ number: rollback.target, ...(why && { why }) }), "POST", { "If-Match": '"' + rollback.hash + '"' });
  } catch (err) {
    show(byId("rollback-problem"), err.status === 412 ? "The configuration has changed meanwhile: close this and look again." : err.status ? err.message : "no answer from sluice");
    wakeRest();
    return;
  }
  byId("rollback").close();
  wakeRest();
  wake();
});
