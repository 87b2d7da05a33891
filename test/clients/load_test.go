package clients

import (
	"encoding/json"
	"fmt"
	"testing"

	"sluice/test/verify"
)

const requests = 2000 // of a load

func testH2Load(t *testing.T, s *stage) {
	body := file(t, bodies["long"][:50_000])
	for _, load := range []struct {
		name, protocol string
		args           []string
	}{
		{"h2", "h2", []string{"-m", "10", s.url("/hello")}},
		{"h2, bodies", "h2", []string{"-m", "10", "-d", body, s.url("/echo")}},
		{"h2, several URLs", "h2", []string{"-m", "10", s.url("/hello"), s.url("/trailer"), s.url("/")}},
		{"HTTP/1.1", "http/1.1", []string{"--h1", s.url("/hello")}},
		{"HTTP/1.1, bodies", "http/1.1", []string{"--h1", "-d", body, s.url("/echo")}},
	} {
		t.Run(load.name, func(t *testing.T) {
			out := succeed(t, "h2load", append([]string{"-n", fmt.Sprint(requests), "-c", "10"}, load.args...)...)
			expect(t, out, "Application protocol: "+load.protocol,
				fmt.Sprintf("requests: %[1]d total, %[1]d started, %[1]d done, %[1]d succeeded, 0 failed, 0 errored, 0 timeout", requests),
				fmt.Sprintf("status codes: %d 2xx, 0 3xx, 0 4xx, 0 5xx", requests))
		})
	}
}

func testGhz(t *testing.T, s *stage) {
	ghz := tool(t, "ghz", "github.com/bojand/ghz")
	for _, method := range []string{"SayHello", "SayHelloStreamReply"} {
		t.Run(method, func(t *testing.T) {
			out := succeed(t, ghz, "--cacert", s.ca, "--proto", proto, "--call", "helloworld.Greeter."+method, "--data", `{"name": "you"}`,
				"--total", fmt.Sprint(requests), "--concurrency", "20", "--connections", "4", "--format", "json", s.address)
			var report struct {
				Count    int            `json:"count"`
				Statuses map[string]int `json:"statusCodeDistribution"`
				Errors   map[string]int `json:"errorDistribution"`
			}
			err := json.Unmarshal([]byte(out), &report)
			verify.Require(t, err == nil, "%v in:\n%s", err, out)
			all := report.Count == requests && report.Statuses["OK"] == requests && len(report.Errors) == 0
			verify.That(t, all, "got %+v, want %d calls, all OK", report, requests)
		})
	}
}
