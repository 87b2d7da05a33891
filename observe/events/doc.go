// Package events is the feed of what happened: in pools, in the registries, and to the
// configuration. Parts of sluice add events; readers of the admin API follow them. An
// event leads to nothing else.
//
// A feed is a ring. To add an event costs a mutex and a copy, whatever the number and
// the speed of readers: each reader has its own position in the ring, and one that is
// too slow skips what the ring has lost.
package events
