// Package accesslog writes one line per request, as JSON, in the combined log format or by
// a template.
// docs/access-log.md describes the fields.
//
// [Logger.Log] encodes the entry into a buffer: it allocates nothing, waits for no
// output and shares no lock between shards. One goroutine writes full buffers, and all
// of them every second. When the output is too slow, lines are dropped and counted
// ([Logger.Dropped]). Lines of one shard stay in order; lines of different shards may
// be up to a second apart.
//
// In all formats, what a client sends cannot break the line or the reader's terminal:
// control characters, quotes, backslashes and invalid UTF-8 are escaped.
package accesslog
