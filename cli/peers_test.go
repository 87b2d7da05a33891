package cli

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/admin"
)

// adminAPI serves /api/peers to requests with the token.
func adminAPI(t *testing.T, token string, peers []admin.Peer) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestPeersTable(t *testing.T) {
	now := time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)
	peers := []admin.Peer{
		{Service: "star", ID: "star-1", Address: "10.0.0.1:80", Weight: 1, State: "up", Inflight: 3, Requests: 1234, LatencyMS: 1.26, Since: now.Add(-50 * time.Hour)},
		{Service: "star", ID: "evil\x1b[2J", Address: "10.0.0.2:80", State: "unhealthy", Failures: 2, Since: now.Add(-90 * time.Second),
			Reasons: []string{"consul: critical: " + strings.Repeat("x", 300), "ejected"}},
		{Service: "b", ID: "b", Address: "[::1]:80", State: "draining", Since: now.Add(time.Second)},
		{Service: "b", ID: "c", Address: "[::1]:81", State: "up", Since: now.Add(-61 * time.Minute)},
	}
	var out bytes.Buffer
	if err := writePeers(&out, peers, now); err != nil {
		t.Fatal(err)
	}
	want := `SERVICE  PEER      ADDRESS      STATE      FOR    WEIGHT  INFLIGHT  REQUESTS  FAILURES  LATENCY  WHY
star     star-1    10.0.0.1:80  up         2d2h   1       3         1234      0         1.3ms    ·
star     evil?[2J  10.0.0.2:80  unhealthy  1m30s  0       0         0         2         -        consul: critical: ` + strings.Repeat("x", 181) + `…
b        b         [::1]:80     draining   0s     0       0         0         0         -        ·
b        c         [::1]:81     up         1h1m   0       0         0         0         -        ·
`
	want = strings.ReplaceAll(want, "·", "") // marks the end of a line
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPeersOfARunningSluice(t *testing.T) {
	token := writeFile(t, "token", "s3cret\n")
	address := adminAPI(t, "s3cret", []admin.Peer{{Service: "a", ID: "a-1", State: "up"}, {Service: "b", ID: "b-1", State: "up"}})

	status, stdout, stderr := execute(t, "peers", "--admin", address, "--token-file", token)
	if status != exitOK || !strings.Contains(stdout, "a-1") || !strings.Contains(stdout, "b-1") {
		t.Errorf("status %d\n%s%s", status, stdout, stderr)
	}
	status, stdout, stderr = execute(t, "peers", "--admin", address, "--token-file", token, "--json", "b")
	var peers []admin.Peer
	if err := json.Unmarshal([]byte(stdout), &peers); err != nil || status != exitOK || len(peers) != 1 || peers[0].ID != "b-1" {
		t.Errorf("status %d, %v\n%s%s", status, err, stdout, stderr)
	}
	status, stdout, stderr = execute(t, "peers", "--admin", address)
	if want := "sluice: admin API at " + address + ": a valid token is needed\n"; status != exitFailed || stdout != "" || stderr != want {
		t.Errorf("status %d\n%s%s", status, stdout, stderr)
	}
}

func TestPeersWithoutSluice(t *testing.T) {
	status, _, stderr := execute(t, "peers", "--admin", nowhere)
	want := "sluice: no sluice answers at " + nowhere + ": is it running? (--admin sets the address)\n"
	if status != exitFailed || stderr != want {
		t.Errorf("status %d: %s", status, stderr)
	}
}
