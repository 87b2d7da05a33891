// Package saved stores the last known good sets of instances in a file, for a start of
// sluice while its registry is unavailable.
//
//	store, err := saved.Open(saved.Options{Path: "snapshot.json", States: manager.States})
//	state, ok := store.Get("star", `consul service "star"`, "")   // a Manager's Fallback
//	store.Changed()                                               // of a Manager's Sink
//	store.Run(ctx)                                                // writes
//
// # What is written
//
// Run writes one second after the last change, but at most every ten seconds; every ten minutes to
// update the times; and when it ends. Save writes at once. Only sets that a registry has reported
// are written: of watches with an endpoint and a success. Without any the file does not change.
//
// An entry has the time of the registry's last confirmation and the source. Get returns
// it only for the same source and up to MaxAge, since an address may be reused.
//
// # The file
//
// JSON: {"version": 2, "checksum": "sha256:…", "services": {…}}, with the checksum of
// the bytes of services. A write goes to a temporary file, which is synced and renamed,
// so a crash leaves the old or the new file. A damaged file, or one of another version,
// is not used, and is renamed to ….damaged before the next write.
package saved
