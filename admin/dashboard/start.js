// All is there: begin.

byId("login").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem("token", byId("token").value);
  wantsOperator = false;
  byId("problem").hidden = true;
  wake();
});
byId("search").addEventListener("submit", event => event.preventDefault());

onAddress(() => {
  const text = location.hash.slice(1);
  try {
    byId("filter").value = decodeURIComponent(text);
  } catch { // it is no encoded text, such as 50%
    byId("filter").value = text;
  }
  byId("wrong").checked = address.has("wrong");
});
byId("search").addEventListener("input", () => {
  remember("wrong", byId("wrong").checked);
  render();
  renderOrders();
  renderHappened();
  renderRoutes();
  wake();
});
addEventListener("keydown", event => {
  if (event.key === "/" && !event.target.closest("input, textarea, select, dialog")) {
    event.preventDefault();
    byId("filter").focus();
  }
});

show(byId("host"), location.host);
showView();
const wake = repeat(round, () => roundEvery());
const wakeRest = repeat(rest, () => restEvery());
const wakeSeries = repeat(seriesRound, () => seriesEvery);
const wakeConsul = repeat(consulRound, () => consulEvery);
addEventListener("visibilitychange", () => {
  wake();
  wakeRest();
  wakeSeries();
  wakeConsul();
});
followFeed();
