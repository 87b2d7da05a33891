// Package snapshot keeps the last known good sets of instances in a file, so
// that a sluice that starts while its registry is away has something to serve.
//
//	store, err := snapshot.Open(snapshot.Options{Path: "/var/lib/sluice/snapshot.json", Watches: manager.Statuses})
//	set, asOf, ok := store.Get("star", `consul service "star"`)   // a discovery.Manager's Fallback
//	store.Put("star", set)                                       // a discovery.Manager's Sink
//	store.Run(ctx)                                               // writes
//
// # What is written
//
// Put remembers a set, Run writes: when nothing was put for a second, after ten
// seconds at most and not more often, every ten minutes to bring the times up to
// date, and when it ends. Only sets that a registry has answered count: those of watches with an
// endpoint and a success. As long as there is none the file is left alone.
//
// A set is written with the time at which the registry last confirmed it and with
// the source it came from. Get gives it back only to a watch of the same source,
// and only as long as it is not older than MaxAge: an address may belong to
// somebody else by then.
//
// # The file
//
// It is JSON, {"version": 1, "checksum": "sha256:…", "services": {…}}; the checksum
// is that of the bytes of services. It is written to a temporary file in the same
// directory, synced, and renamed over the old one, and the directory is synced: a
// crash leaves the old file or the new one. A file that is damaged or of another
// version is refused as a whole, and kept under the name ….damaged when the first
// good set is written.
package snapshot
