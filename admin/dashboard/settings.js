// The configuration in use in words, certificates, and links to the documentation.

// docsLink links to a page of this version's documentation, which is text: the browser looks for
// the heading.
function docsLink(title, target) {
  const [page, heading] = target.split("#");
  const href = /^https:/.test(target) ? target : "docs/" + (page || "configuration.md") + (heading ? "#:~:text=" + encodeURIComponent(heading.replaceAll("-", " ")) : "");
  return element("a", { href }, title);
}

// proseOf returns what a text of the documentation, in Markdown, is on the page.
function proseOf(text) {
  return text.replaceAll("\\|", "|").split(/(`[^`]*`|\[[^\]]*\]\([^)]*\))/).map(part => {
    const [, code] = part.match(/^`(.*)`$/) ?? [], [, title, target] = part.match(/^\[(.*)\]\((.*)\)$/) ?? [];
    return code ? element("code", {}, code) : title ? docsLink(title.replaceAll("`", ""), target) : part;
  });
}

// SettingsView is the keys of a service, or of no service, with their values and what they mean. They
// are asked for when it is opened.
class SettingsView {
  constructor(service) {
    this.service = service;
    this.table = element("table", { role: "table", class: "settings", "aria-label": service ? "Settings of " + service : "Settings" });
    this.root = element("details", {}, element("summary", {}, "Settings in use, in words"), this.table);
    this.root.addEventListener("toggle", () => this.root.open && this.ask());
  }

  async ask() {
    const columns = ["key", "value", "from", "meaning"];
    const row = (name, role, cells) => element("tr", { role: "row" }, ...cells.map((cell, i) => element(name, { role, class: "long", ...(i && { "data-title": columns[i] }) }, ...cell)));
    let settings;
    try {
      settings = await ask("api/config/values?explain=true&" + (this.service ? "service=" + encodeURIComponent(this.service) : "brief=true"));
    } catch (err) {
      this.table.replaceChildren(element("caption", { class: "failed" }, err.status ? err.message : "no answer from sluice"));
      return;
    }
    this.table.replaceChildren(element("thead", { role: "rowgroup" }, row("th", "columnheader", columns.map(title => [title]))),
      element("tbody", { role: "rowgroup" }, ...settings.map(s => row("td", "cell", [[s.key], [s.value], [s.from], proseOf(s.meaning ?? "")]))));
  }
}

byId("sources").after(new SettingsView("").root);

const certificateStates = ["missing", "expired", "not yet valid", "expiring", "valid"];
const isDated = c => Date.parse(c.expires) > 0; // others have the year 1
const certificateColumns = [
  ["used by", c => c.used_by, () => "long"],
  ["names", c => shortened(c.names), () => "long"],
  ["what", c => c.kind.replace("_", " "), () => "faint"],
  ["state", c => c.state, c => "state " + (c.state === "valid" ? "up" : ["missing", "expired"].includes(c.state) ? "failed" : "stale")],
  ["expires", c => !isDated(c) ? "–" : (Date.parse(c.expires) > Date.now() ? "in " + left(c.expires) : age(c.expires) + " ago") + ", " + new Date(c.expires).toLocaleString("en-GB"), () => ""],
  ["file", c => c.file, () => "long faint"],
];
const certificateViews = new Map();

async function certificatesRound() {
  const list = (await ask("api/certificates")).sort((a, b) =>
    certificateStates.indexOf(a.state) - certificateStates.indexOf(b.state) || isDated(b) - isDated(a) || Date.parse(a.expires) - Date.parse(b.expires));
  const table = byId("certificates"), wrong = list.filter(c => c.state !== "valid" || c.error).length;
  show(byId("certificates-count"), count(list.length, "file") + (wrong ? ", " + number(wrong) + " with problems" : ""), wrong ? "stale" : "faint");
  if (!table.tHead) table.append(tableHead(certificateColumns));
  showIf(table, list.length > 0);
  arrange(table, [table.tHead, ...follow(certificateViews, list, c => c.used_by + "\n" + c.file, () => new RowView(certificateColumns, c => c.error ?? "")).map(row => row.root)]);
}
