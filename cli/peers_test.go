package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/admin"
	"sluice/test/verify"
)

// adminAPI serves /api/peers to requests with the token.
func adminAPI(t *testing.T, token string, peers []admin.Peer) (address string) {
	t.Helper()
	return serveHandler(t, func(w http.ResponseWriter, r *http.Request) {
		if token != "" && r.Header.Get("Authorization") != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"a valid token is needed"}`))
			return
		}
		var selected []admin.Peer
		for _, p := range peers {
			if s := r.URL.Query()["service"]; r.URL.Path == "/api/peers" && (len(s) == 0 || s[0] == p.Service) {
				selected = append(selected, p)
			}
		}
		_ = json.NewEncoder(w).Encode(selected)
	})
}

func TestPeersTable(t *testing.T) {
	now := time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)
	peers := []admin.Peer{
		{Service: "star", ID: "star-1", Address: "10.0.0.1:80", Weight: 1, Due: .5, Share: new(.004), ShareWhy: []string{"slower"}, State: "up", Inflight: 3, Requests: 1234, LatencyMS: 1.26, Since: now.Add(-50 * time.Hour)},
		{Service: "star", ID: "evil\x1b[2J", Address: "10.0.0.2:80", State: "unhealthy", Failures: 2, Since: now.Add(-90 * time.Second),
			Reasons: []string{"consul: critical: " + strings.Repeat("x", 300), "ejected"}, ShareWhy: []string{"ejected"}},
		{Service: "b", ID: "b", Address: "[::1]:80", State: "draining", Since: now.Add(time.Second), Reasons: []string{"drained"}},
		{Service: "b", ID: "c", Address: "[::1]:81", State: "up", Since: now.Add(-61 * time.Minute)},
	}
	var out bytes.Buffer
	verify.NoError(t, new(peerScreen).write(&out, peers, nil, now))
	want := `SERVICE  PEER      ADDRESS      STATE      FOR    WEIGHT  SHARE   INFLIGHT  REQUESTS  FAILURES  LATENCY  WHY
star     star-1    10.0.0.1:80  up         2d2h   1       0%/50%  3         1234      0         1.3ms    slower
star     evil?[2J  10.0.0.2:80  unhealthy  1m30s  0       -/0%    0         0         2         -        consul: critical: ` + strings.Repeat("x", 181) + `…
b        b         [::1]:80     draining   0s     0       -/0%    0         0         0         -        drained
b        c         [::1]:81     up         1h1m   0       -/0%    0         0         0         -        ·
`
	want = strings.ReplaceAll(want, "·", "") // marks the end of a line
	got := out.String()
	verify.That(t, got == want, "got\n%s\nwant\n%s", got, want)
}

func TestPeersOfARunningSluice(t *testing.T) {
	token := writeFile(t, "token", "s3cret\n")
	address := adminAPI(t, "s3cret", []admin.Peer{{Service: "a", ID: "a-1", State: "up"}, {Service: "b", ID: "b-1", State: "up"}})

	status, stdout, stderr := execute(t, "peers", "--admin", address, "--token-file", token)
	verify.That(t, status == exitOK && strings.Contains(stdout, "a-1") && strings.Contains(stdout, "b-1"), "status %d\n%s%s", status, stdout, stderr)
	status, stdout, stderr = execute(t, "peers", "--admin", address, "--token-file", token, "--json", "b")
	var peers []admin.Peer
	err := json.Unmarshal([]byte(stdout), &peers)
	verify.That(t, err == nil && status == exitOK && len(peers) == 1 && peers[0].ID == "b-1", "status %d, %v\n%s%s", status, err, stdout, stderr)
	commandsTo(t, address)(exitFailed, "sluice: admin API at "+address+": a valid token is needed\n", "peers")
}

// Before the first answer of what lists the instances there are no peers, and nobody knows
// whether there are any.
func TestPeersOfServicesOfWhichNothingIsKnown(t *testing.T) {
	since := time.Now().Add(-5*time.Minute - time.Second)
	waiting := &admin.Watch{Source: `consul service "moon"`, State: "pending", Since: since, LastError: "connection refused\x1b[2J"}
	services := []admin.Service{
		{Service: "moon", Watch: waiting},
		{Service: "new", Watch: &admin.Watch{Source: "dns new", State: "pending", Since: since}},
		{Service: "quick", Watch: waiting}, // its peers came between the two answers
		{Service: "known", Watch: &admin.Watch{Source: "consul", State: "stale", Since: since, LastError: "x"}},
		{Service: "static"},
	}
	peers := []admin.Peer{{Service: "quick", ID: "q-1", State: "up", Since: since}}
	address := serveJSON(t, func(r *http.Request) any {
		if r.URL.Path == "/api/services" {
			return services
		}
		selected := []admin.Peer{}
		for _, p := range peers {
			if s := r.URL.Query()["service"]; len(s) == 0 || slices.Contains(s, p.Service) {
				selected = append(selected, p)
			}
		}
		return selected
	})

	moon := regexp.MustCompile(`(?m)^moon: nothing is known about its instances for 5m\d+s: consul service "moon": connection refused\?\[2J$`)
	stale := regexp.MustCompile(`(?m)^known is stale for 5m\d+s: consul: x$`)
	fresh := regexp.MustCompile(`(?m)^new: nothing is known about its instances for 5m\d+s: dns new: no answer yet$`)
	for _, c := range []struct {
		services                      []string
		moon, fresh, stale, table, no bool
	}{
		{nil, true, true, true, true, false},
		{[]string{"moon"}, true, false, false, false, false},
		{[]string{"moon", "known"}, true, false, true, false, false},
		{[]string{"quick"}, false, false, false, true, false},
		{[]string{"known"}, false, false, true, false, true},
		{[]string{"static"}, false, false, false, false, true},
	} {
		status, stdout, stderr := execute(t, append([]string{"peers", "--admin", address}, c.services...)...)
		if status != exitOK || moon.MatchString(stdout) != c.moon || fresh.MatchString(stdout) != c.fresh || stale.MatchString(stdout) != c.stale ||
			strings.Contains(stdout, "\nquick") != c.table || strings.HasPrefix(stdout, "no peers\n") != c.no {
			t.Errorf("%q: status %d\n%s%s", c.services, status, stdout, stderr)
		}
	}
}

// A line names some of the stale services, and the reason of the one that is so for the longest.
func TestManyStaleServices(t *testing.T) {
	now := time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)
	var services []admin.Service
	for i := range 7 {
		services = append(services, admin.Service{Service: fmt.Sprintf("s%d", i), Watch: &admin.Watch{
			Source: fmt.Sprintf("consul service \"s%d\"", i), State: "stale", Since: now.Add(-time.Duration(60+i%5) * time.Second),
		}})
	}
	services[4].Watch.LastError = "connection refused\x1b[2J"
	var out bytes.Buffer
	verify.NoError(t, new(peerScreen).write(&out, nil, services, now))
	verify.Equal(t, out.String(), "no peers\ns0, s1, s2, s3, s4 and 2 more are stale for 1m4s: consul service \"s4\": connection refused?[2J\n", "output")
	verify.Equal(t, staleLine(services[:1], now), "s0 is stale for 1m0s: consul service \"s0\": no answer yet\n", "line")
}

// A live table has requests a second, what is stale first, and the largest first.
func TestPeersLiveAndSorted(t *testing.T) {
	now := time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)
	peers := func() []admin.Peer {
		return []admin.Peer{
			{Service: "s", ID: "a", State: "up", Requests: 900, LatencyMS: 1, Since: now},
			{Service: "s", ID: "b", State: "unhealthy", Requests: 10, Failures: 7, LatencyMS: 3, Since: now},
			{Service: "s", ID: "c", State: "ejected", Requests: 20, Failures: 2, LatencyMS: 2, Since: now},
		}
	}
	column := func(text string, n int) (cells []string) {
		for line := range strings.Lines(text) {
			if fields := strings.Fields(line); fields[0] == "s" {
				cells = append(cells, fields[n])
			}
		}
		return cells
	}
	stale := []admin.Service{{Service: "old", Watch: &admin.Watch{Source: "consul", State: "stale", Since: now}}}
	for sort, want := range map[string]string{"": "abc", "latency": "bca", "requests": "cba", "failures": "bca", "state": "bca"} {
		s := peerScreen{sort: sort, live: true}
		verify.NoError(t, s.write(new(bytes.Buffer), peers(), nil, now))
		second := peers()
		second[0].Requests = 5 // it has started again
		second[1].Requests += 15
		second[2].Requests += 41
		var out bytes.Buffer
		verify.NoError(t, s.write(&out, second, stale, now.Add(2*time.Second)))
		verify.Equal(t, strings.Join(column(out.String(), 1), ""), want, "the order by %q", sort)
		verify.That(t, strings.HasPrefix(out.String(), "old is stale"), "what is stale is not first:\n%s", out.String())
		if sort == "" {
			verify.Equal(t, strings.Join(column(out.String(), 7), " "), "0.0 7.5 20.5", "the rates")
		}
	}
	prints(t, exitUsage, "sluice: --sort name: want one of latency, requests, failures or state\n", "peers", "--sort", "name")
}

func TestTablesFitTheScreen(t *testing.T) {
	for height, want := range map[int]string{0: "a\nb\nc\nd\n", 5: "a\nb\nc\nd\n", 4: "a\nb\n… 2 more lines\n"} {
		verify.Equal(t, fit("a\nb\nc\nd\n", height), want, "a screen of %d lines", height)
	}
}
