package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"sluice/test/verify"
)

// kept returns a history that a file keeps.
func kept(t *testing.T, path string) *History {
	t.Helper()
	h := new(History)
	h.Keep(path, func(err error, message string) { t.Errorf("%s: %v", message, err) })
	h.SetOwned(true)
	return h
}

func revisionWith(text string) Revision {
	return Revision{Source: fileName, Hash: "h", Reason: "test", Sources: []Source{file(text)}, Diff: []Change{{"a", "b", "c"}}, Pending: []string{"p"}}
}

func numbers(h *History) (list []uint64) {
	for _, r := range h.Revisions() {
		list = append(list, r.Number)
	}
	return list
}

func TestHistoryOutlivesTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h := kept(t, path)
	first := h.Applied(revisionWith("one"))
	second := revisionWith("two")
	second.Sources = append(second.Sources, keys("services/a", "127.0.0.1:1"))
	second.Sources[1].Pin = &Pin{Number: 1, Against: "abc"}
	second = h.Applied(second)
	verify.Equal(t, verify.Result(os.Stat(path)).Must(t).Mode().Perm(), 0o600, "permissions")

	again := kept(t, path)
	for i, want := range []Revision{second, first} {
		got := again.Revisions()[i]
		verify.That(t, got.Time.Equal(want.Time), "time %v, want %v", got.Time, want.Time)
		got.Time = want.Time
		verify.That(t, reflect.DeepEqual(got, want), "got  %+v\nwant %+v", got, want)
	}
	verify.Equal(t, again.Applied(revisionWith("three")).Number, 3, "the number of the third")
	verify.DeepEqual(t, numbers(kept(t, path)), []uint64{3, 2, 1}, "numbers")
	verify.Slices(t, verify.Result(filepath.Glob(filepath.Join(filepath.Dir(path), "*.tmp"))).Must(t), nil, "what is left")
}

// Whatever a crash leaves of the last line, the revisions before it remain, and the next one
// is written.
func TestHistoryWithATornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h := kept(t, path)
	h.Applied(revisionWith("one"))
	h.Applied(revisionWith("two"))
	data := verify.Result(os.ReadFile(path)).Must(t)
	end := bytes.IndexByte(data, '\n') + 1
	for _, length := range []int{end + 1, end + 20, len(data) - 1} {
		verify.NoError(t, os.WriteFile(path, data[:length], 0o600))
		h := kept(t, path)
		want := []uint64{1}
		if length == len(data)-1 { // only the line break is missing
			want = []uint64{2, 1}
		}
		verify.Slices(t, numbers(h), want, "%d bytes: revisions", length)
		r := h.Applied(revisionWith("three"))
		got := numbers(kept(t, path))
		verify.That(t, len(got) == len(want)+1 && got[0] == r.Number, "%d bytes: then revisions %d", length, got)
	}
}

// A history that cannot be read, at a start or when the file belongs to this process, begins again.
// The file is kept beside the new one, and the log says so.
func TestHistoryThatCannotBeRead(t *testing.T) {
	good := verify.Result(encodeRevision(Revision{Number: 7, Sources: []Source{file("x")}})).Must(t)
	for text, first := range map[string]uint64{"nonsense\n": 1, `{"number":1}` + "\n": 2, string(good) + "nonsense\n": 8} {
		for _, later := range []bool{false, true} {
			path := filepath.Join(t.TempDir(), "history")
			h := new(History)
			var told []string
			keep := func() {
				h.Keep(path, func(err error, message string) { told = append(told, fmt.Sprint(message, ": ", err)) })
			}
			if later {
				keep()
			}
			verify.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			if !later {
				keep()
			}
			h.Applied(revisionWith("one"))
			h.SetOwned(true)
			h.Applied(revisionWith("two"))
			verify.DeepEqual(t, numbers(kept(t, path)), []uint64{first + 1, first}, "%s: then revisions", text)
			aside := verify.Result(filepath.Glob(path + ".unreadable-*")).Must(t)
			verify.Require(t, len(aside) == 1 && len(told) == 1, "%s: kept are %q, told is %q", text, aside, told)
			verify.That(t, string(verify.Result(os.ReadFile(aside[0])).Must(t)) == text, "%s: the file has changed", text)
			verify.That(t, strings.Contains(told[0], path+":") && strings.Contains(told[0], aside[0]), "%s: %s", text, told[0])
		}
	}
}

// Numbers go on after the highest that can be seen in a file that cannot be read.
func TestHistoryThatCannotBeReadKeepsItsNumbers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h := kept(t, path)
	for range 12 {
		h.Applied(revisionWith("x"))
	}
	text := verify.Result(os.ReadFile(path)).Must(t)
	lines := bytes.SplitAfter(text, []byte("\n"))
	for what, damaged := range map[string][]byte{
		"a line of another program": bytes.Replace(text, lines[3], []byte("nonsense\n"), 1),
		"damage in the last line":   bytes.Replace(text, lines[11], []byte(`{"number":12,"time":"`+"\n"), 1),
	} {
		verify.NoError(t, os.WriteFile(path, damaged, 0o600))
		next := new(History)
		next.Keep(path, func(error, string) {})
		next.SetOwned(true)
		verify.Equal(t, next.Applied(revisionWith("y")).Number, 13, "%s: the next number", what)
	}
}

// The file stays within its limits, and the newest revision is always in it.
func TestHistoryIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h := kept(t, path)
	for range 3 * keepRevisions {
		h.Applied(revisionWith("x"))
		lines := bytes.Count(verify.Result(os.ReadFile(path)).Must(t), []byte("\n"))
		verify.Require(t, lines <= maxHistoryLines, "%d lines", lines)
	}
	got := numbers(kept(t, path))
	verify.That(t, len(got) == keepRevisions && got[0] == 3*keepRevisions, "%d revisions, the first %d", len(got), got[0])
	large := strings.Repeat("x", 3<<20)
	for range 4 {
		h.Applied(revisionWith(large))
		size := verify.Result(os.Stat(path)).Must(t).Size()
		verify.Require(t, size <= maxHistoryBytes, "%d bytes", size)
	}
	h.Applied(revisionWith(strings.Repeat("x", maxHistoryBytes)))
	got = numbers(kept(t, path))
	verify.That(t, len(got) == 1 && got[0] == 3*keepRevisions+5, "revisions %d", got)
}

// A disk that fails is told once, and so is that it works again; then nothing is missing.
func TestHistoryThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	path := filepath.Join(dir, "history")
	var told []error
	h := new(History)
	h.Keep(path, func(err error, _ string) { told = append(told, err) })
	h.SetOwned(true)
	h.Applied(revisionWith("one"))
	h.Applied(revisionWith("two"))
	verify.Require(t, len(told) == 2 && told[1] != nil && errors.Is(told[0], os.ErrNotExist), "told %v", told)
	verify.NoError(t, os.Mkdir(dir, 0o700))
	h.Applied(revisionWith("three"))
	verify.That(t, len(told) == 3 && told[2] == nil, "told %v", told)
	verify.DeepEqual(t, numbers(kept(t, path)), []uint64{3, 2, 1}, "revisions")
}

// What the old process had in use goes on, also if config.history is new and names a file of an
// earlier time, with higher numbers. Its revisions come after those.
func TestHistoryIsHandedOverToAFileOfBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	for h, i := kept(t, path), 0; i < 3; i++ {
		h.Applied(revisionWith("long ago"))
	}
	old, received := new(History), new(History)
	old.Applied(revisionWith("in use"))
	verify.NoError(t, json.Unmarshal(verify.Result(json.Marshal(old)).Must(t), received))
	next := new(History)
	next.Keep(path, func(err error, message string) { t.Errorf("%s: %v", message, err) })
	verify.That(t, next.Restore(received), "it is not adopted")
	next.Resume(new(Config), next.Current().Sources)
	next.SetOwned(true)
	verify.Equal(t, next.Current().Sources[0].Documents[0].Text, "in use", "the latest")
	next.Applied(revisionWith("later"))
	for name, h := range map[string]*History{"the process": next, "the file": kept(t, path)} {
		verify.DeepEqual(t, numbers(h), []uint64{5, 4, 3, 2, 1}, "%s", name)
	}
}

// A new process gets as much of the history as a file has: with large documents all of it would
// take longer than that process waits.
func TestHistoryIsHandedOverWithinALimit(t *testing.T) {
	for name, test := range map[string]struct{ applied, length, want int }{
		"small": {50, 10, 50}, "large": {8, 1 << 20, 5}, "too large": {2, keepHistoryBytes, 1},
	} {
		old, received, next := new(History), new(History), new(History)
		for i := range test.applied {
			old.Applied(revisionWith(fmt.Sprint(i) + strings.Repeat("x", test.length)))
		}
		data := verify.Result(json.Marshal(old)).Must(t)
		verify.That(t, len(data) <= keepHistoryBytes+1<<10, "%s: %d bytes", name, len(data))
		verify.NoError(t, json.Unmarshal(data, received))
		verify.That(t, next.Restore(received) && !next.Restore(new(History)), "%s: want it adopted, and not one without revisions", name)
		verify.Equal(t, len(next.Revisions()), test.want, "%s: revisions", name)
		verify.That(t, reflect.DeepEqual(next.Current().Sources, old.Current().Sources), "%s: the latest is another one", name)
		verify.Equal(t, next.Resume(new(Config), []Source{file("x")}).Number, uint64(test.applied), "%s: resumed", name)
		verify.Equal(t, next.Applied(revisionWith("y")).Number, uint64(test.applied+1), "%s: the next number", name)
	}
}

// A file that somebody has removed is written again as a whole: no revision is lost, and no number
// is used again.
func TestHistoryWhoseFileIsRemoved(t *testing.T) {
	dir := t.TempDir()
	h, path := kept(t, dir), filepath.Join(dir, "history.jsonl")
	h.Applied(revisionWith("one"))
	h.Applied(revisionWith("two"))
	verify.NoError(t, os.Remove(path))
	h.Applied(revisionWith("three"))
	verify.DeepEqual(t, numbers(kept(t, path)), []uint64{3, 2, 1}, "revisions")
	h.Applied(revisionWith("four"))
	verify.DeepEqual(t, numbers(kept(t, path)), []uint64{4, 3, 2, 1}, "revisions")
}

// Two processes begin with the same file, and only the one that owns it writes. The revisions of
// the other one come after those, with numbers that were not used.
func TestHistoryHasOneOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	old := kept(t, path)
	old.Applied(revisionWith("one"))
	old.SetOwned(false)
	next := new(History)
	next.Keep(path, func(err error, message string) { t.Errorf("%s: %v", message, err) })
	next.Applied(revisionWith("two of the new process"))
	verify.DeepEqual(t, numbers(kept(t, path)), []uint64{1}, "the file has, written by a process that does not own it")
	old.Applied(revisionWith("two of the old process")) // it does not know yet whether the new one serves
	old.SetOwned(true)
	old.Applied(revisionWith("three of the old process"))
	verify.DeepEqual(t, numbers(kept(t, path)), []uint64{3, 2, 1}, "the file")
	old.SetOwned(false)
	next.SetOwned(true)
	verify.DeepEqual(t, numbers(next), []uint64{4, 3, 2, 1}, "the new process")
	r := next.RecordShares("share", nil)
	verify.That(t, r.Number == 5 && r.Sources[0].Documents[0].Text == "two of the new process", "%+v", r)
	again := kept(t, path)
	verify.DeepEqual(t, numbers(again), []uint64{5, 4, 3, 2, 1}, "the file")
	r, _ = again.Revision(3)
	verify.That(t, r.Sources[0].Documents[0].Text == "three of the old process", "%+v", r)
}

// A new process that goes on with what the file had, and gets no history of the old one, knows what
// the old one has applied meanwhile when the file belongs to it.
func TestResumedHistoryIsJoined(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	old := kept(t, path)
	old.Applied(revisionWith("one"))
	next := new(History)
	next.Keep(path, func(err error, message string) { t.Errorf("%s: %v", message, err) })
	next.Resume(new(Config), revisionWith("one").Sources)
	old.Applied(revisionWith("two"))
	old.SetOwned(false)
	next.SetOwned(true)
	verify.Equal(t, next.Current().Sources[0].Documents[0].Text, "one", "in use")
	next.Applied(revisionWith("three"))
	again := kept(t, path)
	verify.DeepEqual(t, numbers(again), []uint64{4, 3, 2, 1}, "the file")
	for number, text := range []string{"one", "two", "one", "three"} {
		r, _ := again.Revision(uint64(number + 1))
		verify.Equal(t, r.Sources[0].Documents[0].Text, text, "revision %d", r.Number)
	}
}

// The last write has ended when the file belongs to another process.
func TestNothingIsWrittenAfterTheOwnership(t *testing.T) {
	h := new(History)
	left := make(chan struct{})
	h.Keep(filepath.Join(t.TempDir(), "missing", "history"), func(error, string) { // called by a write
		go func() {
			defer close(left)
			h.SetOwned(false)
		}()
		for range 1000 {
			runtime.Gosched()
		}
		select {
		case <-left:
			t.Error("SetOwned does not wait for a write")
		default:
		}
	})
	h.SetOwned(true)
	h.Applied(revisionWith("one"))
	<-left
}

// A number that an earlier version has used twice costs no other revision, and is not used again.
func TestHistoryWithANumberTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	var text []byte
	for i, number := range []uint64{1, 2, 3, 2, 3, 5, 4} {
		r := revisionWith(fmt.Sprint(i))
		r.Number = number
		text = append(text, verify.Result(encodeRevision(r)).Must(t)...)
	}
	verify.NoError(t, os.WriteFile(path, text, 0o600))
	h := kept(t, path)
	verify.DeepEqual(t, numbers(h), []uint64{4, 3, 2, 1}, "revisions")
	r, _ := h.Revision(3)
	verify.That(t, r.Sources[0].Documents[0].Text == "4", "%+v", r)
	verify.Equal(t, h.Applied(revisionWith("next")).Number, 6, "the next number")
}
