// Package hostile tests sources of instances with registries that say what no registry should: too
// much, something else, or what would harm if it were believed. The tests of each source have a
// table of such answers; add what has hurt a source, or might.
package hostile

import (
	"cmp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/discovery"
	"sluice/test/discoverytest"
	"sluice/test/subprocess"
)

// A Registry is what one source asks, in virtual time.
type Registry[A any] struct {
	Source discovery.Source
	// Good makes it behave, with the instances that words names: see Port.
	Good func(words string)
	// Say makes it give an answer from now on.
	Say   func(answer A)
	Close func()
}

// A Case is an answer of a registry that had the instance "a".
type Case[A any] struct {
	Name   string
	Answer A
	// Reason is in the error of the watch, or in the log. "": the answer is believed.
	Reason string
	Set    string // in use then, by their ports; "": still "a"
	Large  bool   // megabytes to decode, which takes the race detector minutes: -short leaves it out
}

// Port is the port of the instance with a name of one letter.
func Port(word string) int { return 8000 + int(word[0]) }

// mostMemory limits by how much the heap grows for all cases of a source.
const mostMemory = 1 << 30

// Test tries each case with a source of its own, whose log is log. The reason is told, the
// instances in use are the case's, and a later good answer counts. A panic ends the process.
func Test[A any](t *testing.T, open func(log zerolog.Logger) Registry[A], cases []Case[A]) {
	heap := heapBytes()
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			if c.Large && testing.Short() {
				t.Skip("it is large, and adds no concurrency")
			}
			synctest.Test(t, func(t *testing.T) { c.try(t, open) })
		})
	}
	if grown := heapBytes() - heap; grown > mostMemory {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	}
}

// heapBytes returns the largest size that the heap has had, about.
func heapBytes() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapSys)
}

func (c *Case[A]) try(t *testing.T, open func(log zerolog.Logger) Registry[A]) {
	var log subprocess.Output
	r := open(zerolog.New(&log))
	t.Cleanup(func() {
		r.Close()
		time.Sleep(time.Minute) // answers in progress end
	})
	r.Good("a")
	w := discoverytest.Watch(t, r.Source, zerolog.New(&log))
	inUse := func() string { return format(w.Set()) }
	await := func(what string, condition func() bool) {
		t.Helper()
		for range 600 {
			if synctest.Wait(); condition() {
				return
			}
			time.Sleep(time.Second)
		}
		s := w.Status()
		t.Fatalf("%s: in vain; in use %.200q, error %.500q, log %.2000s", what, inUse(), s.LastError, log.String())
	}
	await("the first set", func() bool { return inUse() == "a" })
	want := cmp.Or(c.Set, "a")
	r.Say(c.Answer)
	if c.Reason != "" {
		await("the reason", func() bool {
			return strings.Contains(w.Status().LastError, c.Reason) || strings.Contains(log.String(), c.Reason)
		})
	}
	await("the set "+want, func() bool { return inUse() == want })
	time.Sleep(2 * time.Second) // the same answer again
	if synctest.Wait(); inUse() != want {
		t.Errorf("after the answer again, %.200q are in use, want %q", inUse(), want)
	}
	if text := w.Status().LastError; len(text) > 4<<10 {
		t.Errorf("an error of %d bytes: %.200q", len(text), text)
	}
	if n := len(log.String()); n > 1<<20 {
		t.Errorf("a log of %d bytes", n)
	}
	r.Good("b c")
	await("the good set", func() bool { return inUse() == "b c" && w.Status().LastError == "" })
}

// format returns the names of the usable instances of a set.
func format(set []discovery.Instance) string {
	var words []string
	for _, i := range set {
		if i.Serving() {
			words = append(words, string(rune(i.Port-8000)))
		}
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// Hosts are addresses that are no hosts, or of another machine's interface.
var Hosts = []string{
	" ", "10.0.0.1 ", "10.0.0.1\r\nX-A: b", "::1%lo\r\nX-A: b", "fe80::1%eth0", "::1%", "10.0.0.1:80", "http://10.0.0.1/", "user@10.0.0.1", "a/../b",
	"a b", "\x00", "\x1b[2J", "a.\xff.example", "1.2.3", "unix:///run/a.sock", "/run/a.sock", "-", "a..b", strings.Repeat("a", 1<<20),
}
