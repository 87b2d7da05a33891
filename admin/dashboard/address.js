// What is shown is part of the address, so that it can be passed on: in the query the view and
// what is open in it, after # the filter.

const address = new URLSearchParams(location.search);

// remember has the address say that key is value, or each of several values. Nothing, false
// and "" are left out; true has no value.
function remember(key, value) {
  address.delete(key);
  for (const one of Array.isArray(value) ? value : [value]) if (one) address.append(key, one === true ? "" : one);
  showAddress();
}

function showAddress() {
  const query = String(address).replace(/=(?=&|$)/g, ""), filter = byId("filter").value;
  history.replaceState(null, "", location.pathname + (query && "?" + query) + (filter && "#" + encodeURIComponent(filter)));
}

// Views are parts of the page of which one is seen.

const viewNames = ["services", "routes", "configuration"];
const currentView = () => viewNames.find(name => name === address.get("view")) ?? "services";

function showView() {
  for (const name of viewNames) showIf(byId("view-" + name), name === currentView());
  for (const link of byId("views").children) {
    if (link.dataset.view === currentView()) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

byId("views").addEventListener("click", event => {
  const name = event.target.dataset.view;
  if (!name || event.ctrlKey || event.metaKey || event.shiftKey) return; // in another tab
  event.preventDefault();
  if (name === currentView()) return;
  history.pushState(null, "", location.href);
  remember("view", name === "services" ? "" : name);
  showView();
  showIf(byId("search"), connected && name !== "configuration");
  wake();
  wakeRest();
});

// onAddress runs read now, and when the address is another one: after Back, or by hand.
const reads = [];
function onAddress(read) {
  reads.push(read);
  read();
}

addEventListener("popstate", () => {
  for (const key of [...address.keys()]) address.delete(key);
  for (const [key, value] of new URLSearchParams(location.search)) address.append(key, value);
  for (const read of reads) read();
  showView();
  render();
  renderOrders();
  renderHappened();
  wake();
  wakeRest();
});
