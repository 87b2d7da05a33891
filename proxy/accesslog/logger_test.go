package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

// fakeFile is an output in memory.
type fakeFile struct {
	mu    sync.Mutex // guards the fields below
	data  []byte
	limit int   // octets that a Write takes before it fails with err
	err   error // nil: it never fails

	block chan struct{} // if not nil, Write waits for it
}

func (f *fakeFile) Write(b []byte) (int, error) {
	if f.block != nil {
		<-f.block
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.data = append(f.data, b...)
		return len(b), nil
	}
	n := min(f.limit, len(b))
	f.data = append(f.data, b[:n]...)
	f.limit -= n
	return n, f.err
}

func (f *fakeFile) Close() error { return nil }

func (f *fakeFile) fail(after int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit, f.err = after, err
}

func (f *fakeFile) lines() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(f.data), "\n"), "\n")
}

// combinedOptions make lines that are easy to compare.
var combinedOptions = Options{Format: formatOf("combined"), Sample: 1}

func numbered(n int) *Entry { return &Entry{Client: []byte("c"), Status: int64(n)} }

// numbers returns the status of each line.
func numbers(t *testing.T, lines []string) []int {
	t.Helper()
	var list []int
	for _, line := range lines {
		fields := strings.Fields(line)
		verify.Require(t, len(fields) >= 9, "torn line %q", line)
		n, err := strconv.Atoi(fields[8])
		verify.Require(t, err == nil, "line %q: %v", line, err)
		list = append(list, n)
	}
	return list
}

func TestLinesAreWrittenWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f fakeFile
		l := start(combinedOptions, &output{file: &f})
		defer l.Close()
		l.Log(0, numbered(1))
		l.Log(1, numbered(2))
		synctest.Wait()
		got := f.lines()
		verify.Require(t, got == nil, "written at once: %q", got)
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		verify.Slices(t, numbers(t, f.lines()), []int{1, 2}, "after a second: got lines")
	})
}

func TestFullBuffersAreWrittenAtOnceAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f fakeFile
		l := start(combinedOptions, &output{file: &f})
		n := 0
		for ; len(f.lines()) == 0; n++ {
			l.Log(0, numbered(n))
			if n%100 == 0 {
				synctest.Wait()
			}
			verify.Require(t, n <= bufferSize, "a full buffer is not written")
		}
		for range 5000 {
			l.Log(0, numbered(n))
			n++
			if n%100 == 0 {
				synctest.Wait()
			}
		}
		verify.NoError(t, l.Close())
		got := numbers(t, f.lines())
		verify.That(t, slices.IsSorted(got) && len(got) == n && l.Dropped() == 0, "got %d lines, want %d in order; %d dropped", len(got), n, l.Dropped())
	})
}

func TestCloseWritesBuffers(t *testing.T) {
	var f fakeFile
	l := start(combinedOptions, &output{file: &f})
	for i := range 100 {
		l.Log(uint32(i), numbered(i))
	}
	for range 2 {
		verify.NoError(t, l.Close())
	}
	got := numbers(t, f.lines())
	slices.Sort(got)
	verify.That(t, len(got) == 100 && got[0] == 0 && got[99] == 99, "got lines %v", got)
	l.Log(0, numbered(1))
	verify.Equal(t, len(f.lines()), 100, "lines after Close")
	verify.Equal(t, l.Dropped(), 1, "dropped after Close")
}

// A slow output drops lines and never blocks, and the log recovers after it.
func TestSlowOutputDropsLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeFile{block: make(chan struct{})}
		l := start(combinedOptions, &output{file: &f})
		lines := uint64(0)
		log := func(n int) {
			l.Log(uint32(n), numbered(n))
			lines++
		}
		for i := 0; l.Dropped() < 1000; i++ {
			log(i)
		}
		limit := l.supply.limit
		verify.That(t, l.supply.made.Load() <= limit, "%d buffers, at most %d are allowed", l.supply.made.Load(), limit)
		close(f.block)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		before := l.Dropped()
		log(999)
		verify.NoError(t, l.Close())
		got := numbers(t, f.lines())
		verify.That(t, got[len(got)-1] == 999 && l.Dropped() == before, "last line %d, %d more dropped", got[len(got)-1], l.Dropped()-before)
		verify.Equal(t, uint64(len(got))+l.Dropped(), lines, "lines written and dropped")
	})
}

func TestCloseTimesOutIfTheOutputBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeFile{block: make(chan struct{})}
		l := start(combinedOptions, &output{file: &f})
		l.Log(0, numbered(1))
		begin := time.Now()
		err := l.Close()
		verify.That(t, err != nil, "no error")
		verify.Equal(t, time.Since(begin), closeTimeout, "took")
		close(f.block)
	})
}

// A reload waits for Reopen, and the program's end for the reload.
func TestReopenTimesOutIfTheOutputBlocks(t *testing.T) {
	for path, want := range map[string]time.Duration{"": 0, "/nowhere/access.log": closeTimeout} {
		synctest.Test(t, func(t *testing.T) {
			f := fakeFile{block: make(chan struct{})}
			l := start(combinedOptions, &output{path: path, file: &f})
			l.Log(0, numbered(1))
			time.Sleep(2 * flushInterval)
			begin := time.Now()
			err := l.Reopen()
			verify.That(t, time.Since(begin) == want && (err != nil) == (want > 0), "path %q: took %v: %v", path, time.Since(begin), err)
			close(f.block)
			verify.NoError(t, l.Close())
			verify.Slices(t, numbers(t, f.lines()), []int{1}, "got lines")
		})
	}
}

func TestOutputFailureIsNotifiedOnceAndLinesStayWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f fakeFile
		var notes []error
		o := combinedOptions
		o.Notify = func(err error) { notes = append(notes, err) }
		l := start(o, &output{file: &f})
		second := func(n int) {
			l.Log(0, numbered(n))
			time.Sleep(time.Second)
			synctest.Wait()
		}
		second(1)
		full := errors.New("no space left")
		f.fail(5, full)
		second(2)
		second(3)
		f.fail(0, nil)
		second(4)
		second(5)
		verify.NoError(t, l.Close())
		lines := f.lines()
		verify.Require(t, len(lines) == 4 && len(lines[1]) == 5, "got %q: want a line, 5 octets of the next, and two lines", lines)
		verify.Slices(t, numbers(t, slices.Delete(lines, 1, 2)), []int{1, 4, 5}, "got lines")
		verify.Equal(t, l.Dropped(), 2, "dropped")
		verify.That(t, len(notes) == 2 && errors.Is(notes[0], full) && notes[1] == nil, "notified of %v", notes)
	})
}

func TestLongLineIsWrittenWhole(t *testing.T) {
	var f fakeFile
	l := start(combinedOptions, &output{file: &f})
	e := numbered(200)
	e.Target = bytes.Repeat([]byte{'/'}, 3*bufferSize)
	l.Log(0, e)
	l.Log(0, numbered(201))
	verify.NoError(t, l.Close())
	lines := f.lines()
	got := numbers(t, lines)
	verify.That(t, slices.Equal(got, []int{200, 201}) && len(lines[0]) >= 3*bufferSize, "got lines %v, the first with %d octets", got, len(lines[0]))
	made := l.supply.made.Load()
	verify.That(t, made <= 1, "the grown buffer still counts: %d", made)
}

func TestSampleKeepsErrors(t *testing.T) {
	for _, test := range []struct {
		sample     float64
		min, limit int
	}{{0, 0, 0}, {0.25, 2000, 3000}, {0.999999, 9900, 10000}, {1, 10000, 10000}} {
		t.Run(fmt.Sprint(test.sample), func(t *testing.T) {
			var f fakeFile
			l := start(Options{Format: formatOf("combined"), Sample: test.sample}, &output{file: &f})
			for i := range 10_000 {
				l.Log(uint32(i), numbered(499))
			}
			for range 10 {
				l.Log(0, numbered(500))
			}
			verify.NoError(t, l.Close())
			count := map[int]int{}
			for _, n := range numbers(t, f.lines()) {
				count[n]++
			}
			verify.That(t, count[500] == 10 && count[499] >= test.min && count[499] <= test.limit, "got %v, want 10 × 500 and %d to %d × 499", count, test.min, test.limit)
		})
	}
}

func TestNewRejectsInvalidOptions(t *testing.T) {
	for _, test := range []struct {
		o    Options
		want string
	}{
		{Options{Path: "stdout", Sample: 1.5}, `access log: sample 1.5: must be from 0 to 1`},
		{Options{Path: "stdout", Sample: -0.1}, `access log: sample -0.1: must be from 0 to 1`},
		{Options{Path: "/dev/null/x"}, `access log: open /dev/null/x: not a directory`},
	} {
		l, err := New(test.o)
		if err == nil {
			l.Close()
			t.Errorf("%+v: no error", test.o)
		} else if err.Error() != test.want {
			t.Errorf("got  %s\nwant %s", err, test.want)
		}
	}
}

func TestOffAndNilLoggersDoNothing(t *testing.T) {
	for _, path := range []string{"", "off", "nil"} {
		var l *Logger
		if path != "nil" {
			l = verify.Result(New(Options{Path: path, Sample: 1})).Must(t)
		}
		l.Log(0, numbered(500))
		verify.That(t, !l.Enabled() && l.Reopen() == nil && l.Close() == nil && l.Dropped() == 0, "path %q: does something", path)
	}
}
