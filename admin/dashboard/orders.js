// Orders of the operator.

// order drains or enables p, and returns why not, if it did not.
async function order(p, what, why) {
  const query = new URLSearchParams({ node: p.node, address: p.address, ...(why && { why }) });
  try {
    await ask("api/peers/" + encodeURIComponent(p.service) + "/" + encodeURIComponent(p.id) + "/" + what + "?" + query, "POST");
  } catch (err) {
    return err.status ? err.message : "no answer from sluice";
  }
  wake();
}

async function enable(p) {
  const problem = await order(p, "enable");
  if (showIf(byId("problem"), Boolean(problem))) show(byId("problem"), p.id + " was not enabled: " + problem);
}

let drained; // the peer that the dialog is about

function askToDrain(p) {
  drained = p;
  show(byId("drain-title"), "Drain " + p.id + " of " + p.service + "?");
  const others = last.peers.get(p.service)?.filter(other => peerKey(other) !== peerKey(p)) ?? [];
  showIf(byId("drain-last"), p.used && !others.some(other => other.used));
  byId("why").value = "";
  show(byId("drain-problem"), "");
  byId("drain").showModal();
  byId("why").focus();
}

byId("drain-cancel").addEventListener("click", () => byId("drain").close());
byId("drain").addEventListener("submit", async event => {
  event.preventDefault();
  const problem = await order(drained, "drain", byId("why").value.trim());
  show(byId("drain-problem"), problem ?? "");
  if (!problem) byId("drain").close();
});
