package doctor

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sluice/test/verify"
)

func TestText(t *testing.T) {
	f := healthy()
	f.Nodes["b"] = Node{Name: "b", Address: "10.0.0.2", Liveness: NodeDead, Detail: "gone\x1b[2J"}
	for n := range 25 {
		f.Instances = append(f.Instances, star(n+10, "b", "10.0.0.2", 100+n))
	}
	f.Token = Token{ACLs: true, DefaultDeny: true, Anonymous: true}
	r := &Report{
		Agent:    Agent{URL: "http://127.0.0.1:8500", Node: "a", Datacenter: "dc1", Version: "1.22.7", Leader: "10.0.0.1:8300", Token: "anonymous"},
		Looked:   Looked{Services: 1, Instances: 27, Nodes: 2, Queries: 6, Bytes: 2000, Millis: 7},
		Findings: Diagnose(f, 0),
	}
	r.Count = count(r.Findings)
	text := r.text(t)
	begin := `Consul 1.22.7 at http://127.0.0.1:8500, node a of dc1, leader 10.0.0.1:8300, token "anonymous".
Looked at 27 instances of 1 service on 2 nodes: 6 queries, 2 KB, 7 ms.

ERROR acl-anonymous
  no token was sent, and Consul's default policy is deny
  Why: Consul shows only what the anonymous token's policy allows, and does not report
       what it omits. The findings below may be incomplete.
  Do:  Set a token: CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_TOKEN, or consul.token_file in the
       configuration. This policy shows everything.
  ACL: service_prefix "" { policy = "read" }
       node_prefix    "" { policy = "read" }
       agent_prefix   "" { policy = "read" }

WARNING dead-node
  star star-10 on node b, 10.0.0.2:100
    the agent of its node is dead: gone?[2J
    $ consul force-leave b
`
	verify.That(t, strings.HasPrefix(text, begin), "got\n%s\nwant first\n%s", text, begin)
	for _, want := range []string{"  … and 6 more: --json shows all\n", "\n\n1 error, 26 warnings, 0 notices.\n"} {
		verify.That(t, strings.Contains(text, want), "%q is missing:\n%s", want, text)
	}
	for line := range strings.Lines(text) {
		n := utf8.RuneCountInString(line)
		verify.That(t, n <= textWidth+1 || strings.HasPrefix(line, "Consul "), "%d characters: %s", n, line)
	}
}

func TestReportWithoutFindings(t *testing.T) {
	f := healthy()
	r := &Report{Schema: SchemaVersion, Time: now, Findings: Diagnose(f, time.Hour)}
	verify.That(t, strings.HasSuffix(r.text(t), "\nNo findings.\n"), "%s", r.text(t))
	encoded, err := json.Marshal(r)
	verify.That(t, err == nil && strings.Contains(string(encoded), `"findings":[]`), "%s, %v", encoded, err)
}

func TestShellWord(t *testing.T) {
	for _, word := range []string{"star-1", "", "a b", "it's", "$(reboot)", "`x`", `"\`, "a\nb", "-x", "ä"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+shellWord(word)).Output()
		verify.That(t, err == nil && string(out) == word, "%q: %q, %v", word, out, err)
	}
	verify.Equal(t, shellWord("star-1"), "star-1", "quoted without need")
}

func TestAgentURL(t *testing.T) {
	tests := []struct{ like, address, want string }{
		{"http://127.0.0.1:8500", "10.0.0.2", "http://10.0.0.2:8500"},
		{"https://consul.example.com:8501", "10.0.0.2", "https://10.0.0.2:8501"},
		{"https://consul.example.com", "fd00::1", "https://[fd00::1]:443"},
		{"http://consul", "10.0.0.2", "http://10.0.0.2:80"},
		{"unix:///run/consul.sock", "10.0.0.2", "http://10.0.0.2:8500"},
	}
	for _, test := range tests {
		verify.Equal(t, agentURL(test.like, test.address), test.want, "%s", test.like)
	}
}

func TestEveryCodeIsDocumented(t *testing.T) {
	manual := verify.Result(os.ReadFile("../docs/doctor.md")).Must(t)
	seen := make(map[Code]bool)
	for _, code := range codes {
		verify.That(t, !seen[code] && strings.Contains(string(manual), "| `"+string(code)+"` |"), "%s has no row, or is listed twice", code)
		seen[code] = true
	}
}
