// Package events is the feed of what happened: in pools, in the registries, and to the
// configuration. Parts of sluice add events; readers of the admin API follow them. An
// event leads to nothing else.
//
// To add an event costs a mutex and a copy, whatever the number and the speed of readers: each
// reader has its own position, and one that is too slow learns how many events it has missed. A
// service that changes all the time drives out its own events only.
package events
