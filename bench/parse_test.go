//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/bench/machine"
	"sluice/test/verify"
)

func TestParseStat(t *testing.T) {
	line := "4242 (a (b) c) S 1 4242 4242 0 -1 4194560 100 0 0 0 123 456 0 0 20 0 7 0 99 0 17 0"
	user, system, err := parseStat(line)
	verify.That(t, err == nil && user == 123 && system == 456, "parseStat = %d, %d, %v; want 123, 456", user, system, err)
	for _, bad := range []string{"", "1 (x) S 1 2", "1 (x) S 1 4242 4242 0 -1 4194560 100 0 0 0 a b"} {
		_, _, err := parseStat(bad)
		verify.That(t, err != nil, "parseStat(%q) has no error", bad)
	}
}

func TestParseGoHeap(t *testing.T) {
	h, err := parseGoHeap("heap profile: 1: 2 [3: 4] @ heap/512\n# runtime.MemStats\n# Alloc = 9\n# HeapAlloc = 1234\n# Stack = 56 / 78\n")
	verify.That(t, err == nil && h == (goHeap{Heap: 1234, Stacks: 56}), "parseGoHeap = %+v, %v", h, err)
	for _, bad := range []string{"", "# HeapAlloc = 1234\n", "# HeapAlloc = x\n# Stack = 56 / 78\n"} {
		_, err := parseGoHeap(bad)
		verify.That(t, err != nil, "parseGoHeap(%q) has no error", bad)
	}
}

func TestParseResident(t *testing.T) {
	kib, err := parseResident("556a-7ffd ---p 0 00:00 0 [rollup]\nRss:                1740 kB\nPss:                 353 kB\n")
	verify.That(t, err == nil && kib == 1740, "parseResident = %d, %v; want 1740", kib, err)
	_, err = parseResident("Pss: 1 kB\n")
	verify.That(t, err != nil, "no Rss line, but no error")
}

func TestParseCoreBusy(t *testing.T) {
	text := "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 1000 500 4 5 6 0 0\ncpu1 0 0 0 7 0 0 0 0 0 0\n"
	busy, err := parseCoreBusy(text, 0)
	want := 210 * time.Millisecond
	verify.That(t, err == nil && busy == want, "parseCoreBusy = %v, %v; want %v: all but idle and iowait", busy, err, want)
	busy, err = parseCoreBusy(text, 1)
	verify.That(t, err == nil && busy == 0, "idle core: %v, %v; want 0", busy, err)
	_, err = parseCoreBusy(text, 2)
	verify.That(t, err != nil, "no such core, but no error")
}

func TestParseLoad(t *testing.T) {
	output := "Running 1s test\n  Latency  1.00ms\n" +
		"bench requests=1000 duration_us=2000000 bytes=5 failed=1 status=2 timeout=3 p50_us=100 p99_us=900 p999_us=950 max_us=1000\n"
	got, err := parseWrk(output)
	want := loadResult{
		Requests: 1000, Bytes: 5, Took: 2 * time.Second, Failed: 1, Status: 2, Timeouts: 3,
		P50: 100 * time.Microsecond, P99: 900 * time.Microsecond, P999: 950 * time.Microsecond, Max: time.Millisecond,
	}
	verify.That(t, err == nil && got == want, "parseWrk = %+v, %v; want %+v", got, err, want)
	if got.perSecond() != 500 || got.errors() != 6 {
		t.Errorf("%v requests a second and %d errors; want 500 and 6", got.perSecond(), got.errors())
	}
	for name, bad := range map[string]string{
		"no line":   "Running 1s test\n",
		"no number": "bench requests=many duration_us=1\n",
		"nothing":   "bench requests=0 duration_us=1000\n",
	} {
		_, err := parseWrk(bad)
		verify.That(t, err != nil, "%s: no error", name)
	}
}

func TestParseH2load(t *testing.T) {
	output := "finished in 2.00s, 500.00 req/s, 60.00KB/s\n" +
		"requests: 1000 total, 1000 started, 1000 done, 990 succeeded, 10 failed, 4 errored, 1 timeout\n" +
		"status codes: 993 2xx, 0 3xx, 2 4xx, 1 5xx\n" +
		"traffic: 117.19KB (120000) total, 7.81KB (8000) headers (space savings 90.00%), 107.42KB (110000) data\n"
	got, err := parseH2load(output)
	want := (loadResult{Requests: 1000, Bytes: 110000, Failed: 4, Status: 6, Timeouts: 1})
	verify.That(t, err == nil && got == want, "parseH2load = %+v, %v; want %+v", got, err, want)
	for _, bad := range []string{"", strings.ReplaceAll(output, "1000 done", "0 done"), "requests: 1 total"} {
		_, err := parseH2load(bad)
		verify.That(t, err != nil, "no error for %q", bad)
	}
}

func TestParseCalls(t *testing.T) {
	summary := "    calls    errors syscall\n--------- --------- ----------------\n" +
		"    11122       147 read\n    10968           write\n--------- --------- ----------------\n    22090       147 total\n"
	want := []machine.Call{{Name: "read", Calls: 11122, Errors: 147}, {Name: "write", Calls: 10968}}
	got := machine.ParseCalls(summary)
	verify.That(t, slices.Equal(got, want), "machine.ParseCalls = %v; want %v", got, want)
}

func TestParseCPUs(t *testing.T) {
	for list, want := range map[string][]int{"1": {1}, "1,3": {1, 3}, "0,2-4": {0, 2, 3, 4}} {
		got, err := parseCPUs(list)
		verify.That(t, err == nil && slices.Equal(got, want), "parseCPUs(%q) = %v, %v; want %v", list, got, err, want)
	}
	for _, bad := range []string{"", "a", "1-", "2-1", "1,,2"} {
		got, err := parseCPUs(bad)
		verify.That(t, err != nil, "parseCPUs(%q) = %v, no error", bad, got)
	}
}

func TestSelectWorkloads(t *testing.T) {
	all, err := selectWorkloads("all")
	verify.That(t, err == nil && len(all) == len(workloads), "all: %d workloads, %v; want %d", len(all), err, len(workloads))
	some, err := selectWorkloads("post1k, small")
	if err != nil || len(some) != 2 || some[0].name != "small" || some[1].name != "post1k" {
		t.Errorf("some: %v, %v; want small and post1k in the table's order", some, err)
	}
	_, err = selectWorkloads("small,huge")
	verify.That(t, err != nil && strings.Contains(err.Error(), `"huge"`), "unknown workload: error %v does not name it", err)
}
