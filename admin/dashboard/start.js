// All is there: begin.

byId("login").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem("token", byId("token").value);
  wake();
});
byId("search").addEventListener("submit", event => event.preventDefault());

// The filter is part of the address, so that it can be passed on.
byId("filter").value = decodeURIComponent(location.hash.slice(1));
byId("search").addEventListener("input", () => {
  const text = byId("filter").value;
  history.replaceState(null, "", text ? "#" + encodeURIComponent(text) : location.pathname + location.search);
  render();
  renderHappened();
  wake();
});
addEventListener("keydown", event => {
  if (event.key === "/" && !event.target.closest("input, dialog")) {
    event.preventDefault();
    byId("filter").focus();
  }
});

show(byId("host"), location.host);
const wake = repeat(round, () => roundEvery());
const wakeRest = repeat(rest, () => restEvery());
addEventListener("visibilitychange", () => {
  wake();
  wakeRest();
});
followFeed();
