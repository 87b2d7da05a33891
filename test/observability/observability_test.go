package observability

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"sluice/test/consultest"
	"sluice/test/sluicetest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// Every metric, label and fixed value that a rule or a panel names is there in a running sluice.
func TestExpressionsNameWhatThereIs(t *testing.T) {
	w := scrape(t)
	w.addRecorded(t)
	for _, e := range expressionsOf(t) {
		verify.Slices(t, w.check(e.text), nil, "%s: %s: problems", e.at, e.text)
	}
}

// What the test above finds.
func TestCheckFindsWhatIsNotThere(t *testing.T) {
	w := world{"a": {"state": {"up": true}, "job": {}}, "b": {"job": {}}}
	for expr, want := range map[string]string{
		`sum by (job) (rate(a{state="up"}[5m])) / on (job) b`: "",
		`a{state=~"up|down"}`:           `a has no state="down", but ["up"]`,
		`c > 1`:                         "there is no metric c",
		`a{service="x"}`:                "a has no label service",
		`sum by (service) (a)`:          "the label service is on no metric of a",
		`a and on (service) b`:          "the label service is on no metric of a\nthe label service is on no metric of b",
		`sum by (state) (b) + sum(a)`:   "the label state is on no metric of b",
		`sum(a`:                         "1:6: parse error: unclosed left parenthesis",
		`quantile_over_time(.9, a[5m])`: "",
	} {
		verify.Equal(t, strings.Join(w.check(expr), "\n"), want, "%s", expr)
	}
}

// start starts a sluice that has one of everything.
func start(t *testing.T) *sluicetest.Sluice {
	t.Helper()
	consul := consultest.Start(t, consultest.Options{})
	for _, tag := range []string{"v1", "v2"} {
		verify.NoError(t, consul.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "star", ID: tag, Port: 1, Tags: []string{tag}}))
	}
	dir := t.TempDir()
	files := testcert.Write(t, dir, "www.example.com")
	file := filepath.Join(dir, "sluice.yaml")
	text := fmt.Sprintf(`
listeners:
  - { name: web, address: "127.0.0.1:0" }
  - { name: websecure, address: "127.0.0.1:0", tls: { certificates: [{ cert: %q, key: %q }] } }
consul: { addresses: [%q], register: {} }
services:
  star:
    consul: {}
    groups: { canary: { tags: [v2] } }
    split: { canary: 5%%, key: cookie }
    judge: { act: rollback }
  web: { consul: { connect: true } }
routes: [{ name: all, service: star, mirror: { service: star, group: canary }, rate_limit: { rate: 9, scope: fleet } }, { path: /web, service: web }]
`, files.Cert, files.Key, consul.URL())
	verify.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	program := filepath.Join(dir, "sluice")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = "../.."
	out, err := build.CombinedOutput()
	verify.Require(t, err == nil, "go build: %v\n%s", err, out)
	s := verify.Result(sluicetest.Start(t.Context(), sluicetest.Options{
		Program: program, Admin: sluicetest.Any, Args: []string{"--config", file}, Log: filepath.Join(dir, "log"),
	})).Must(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of sluice's log:\n%s", s.LogTail(20))
		}
		_ = s.Stop()
	})
	return s
}

// request sends a request to the service, whose peers do not answer, and one that has no route.
func request(t *testing.T, s *sluicetest.Sluice) {
	t.Helper()
	for _, method := range []string{http.MethodGet, http.MethodTrace} {
		verify.Result(sluicetest.Ask(t.Context(), http.DefaultClient, method, s.URL())).Must(t)
	}
}

// scrape returns the metrics of a sluice that has one of everything, and clients.
func scrape(t *testing.T) world {
	t.Helper()
	s := start(t)
	var families map[string]*dto.MetricFamily
	consultest.Await(t, "sluice has peers, is registered, judges, and follows intentions", func() bool {
		request(t, s)
		response := verify.Result(http.Get(s.AdminURL() + "/metrics")).Must(t)
		defer response.Body.Close()
		reader := expfmt.NewTextParser(model.UTF8Validation)
		families = verify.Result(reader.TextToMetricFamilies(response.Body)).Must(t)
		return families["sluice_registered"] != nil && families["sluice_peer_attempts_total"] != nil && families["sluice_judge_evidence"] != nil &&
			families["sluice_responses_total"] != nil && families["sluice_unrouted_responses_total"] != nil &&
			families["sluice_mesh_intention"] != nil && families["sluice_fleet_limit_replicas_seen"] != nil
	})
	w := world{"up": {"job": {}, "instance": {}}}
	for name, family := range families {
		seen := map[string]map[string]bool{"job": {}, "instance": {}} // Prometheus adds them
		for _, m := range family.Metric {
			for _, l := range m.Label {
				if seen[l.GetName()] == nil {
					seen[l.GetName()] = make(map[string]bool)
				}
				seen[l.GetName()][l.GetValue()] = true
			}
		}
		w[name] = seen
		if family.GetType() == dto.MetricType_HISTOGRAM {
			w[name+"_sum"], w[name+"_count"] = seen, seen
			w[name+"_bucket"] = maps.Clone(seen)
			w[name+"_bucket"]["le"] = map[string]bool{}
			delete(w, name)
		}
	}
	return w
}

// Each alert says what is wrong and what to do, and names a page of the manual that is there.
func TestAlertsSayWhatToDo(t *testing.T) {
	names := make(map[string]bool)
	for _, r := range rulesOf(t, "alerts.yml") {
		verify.That(t, r.Alert != "" && !names[r.Alert], "%q is there twice, or has no name", r.Alert)
		names[r.Alert] = true
		severity := r.Labels["severity"]
		verify.That(t, severity == "critical" || severity == "warning", "%s has the severity %q", r.Alert, severity)
		complete := r.Annotations["summary"] != "" && r.Annotations["description"] != "" && len(r.Annotations) == 3
		verify.That(t, complete, "%s: want summary, description and runbook_url, got %q", r.Alert, r.Annotations)
		page, ok := strings.CutPrefix(r.Annotations["runbook_url"], "{{ $externalLabels.sluice_manual }}/")
		page, anchor, _ := strings.Cut(page, "#")
		text, err := os.ReadFile(filepath.Join("../..", page))
		if err != nil || !ok {
			t.Errorf("%s: runbook_url: %v", r.Alert, err)
			continue
		}
		verify.That(t, anchor == "" || hasHeading(string(text), anchor), "%s: %s has no heading %s", r.Alert, page, anchor)
	}
	manual := verify.Result(os.ReadFile("../../docs/metrics.md")).Must(t)
	for _, found := range regexp.MustCompile("`(Sluice[A-Z]\\w+)`").FindAllStringSubmatch(string(manual), -1) {
		verify.That(t, names[found[1]], "docs/metrics.md has the alert %s, alerts.yml has not", found[1])
	}
}

// hasHeading reports whether a link of GitHub to a heading leads somewhere.
func hasHeading(text, anchor string) bool {
	for line := range strings.Lines(text) {
		if heading, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			slug := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
			if strings.ReplaceAll(slug, " ", "-") == anchor {
				return true
			}
		}
	}
	return false
}

// The panels of the dashboard have what they need, and none covers another.
func TestDashboardIsComplete(t *testing.T) {
	d := readDashboard(t)
	verify.Require(t, d.UID != "" && len(d.Panels) > 0, "got %+v", d)
	ids, cells := make(map[int]bool), make(map[[2]int]string)
	for _, p := range d.Panels {
		verify.That(t, p.ID != 0 && !ids[p.ID] && p.Title != "", "panel %d %q: want an id of its own and a title", p.ID, p.Title)
		ids[p.ID] = true
		if p.Type == "row" {
			continue
		}
		complete := len(p.Targets) > 0 && p.Description != "" && p.FieldConfig.Defaults.Unit != ""
		verify.That(t, complete, "panel %q: want a query, a description and a unit", p.Title)
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				other := cells[[2]int{x, y}]
				verify.Require(t, other == "" && x < 24, "panel %q is outside, or covers %q", p.Title, other)
				cells[[2]int{x, y}] = p.Title
			}
		}
	}
}

// find returns the path of a program of Prometheus.
func find(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		verify.Require(t, os.Getenv("SLUICE_REQUIRE_PROMTOOL") == "", "%v", err)
		t.Skip(err)
	}
	return path
}

// Prometheus' own tool evaluates the rules: alerts_test.yml says which fire when.
func TestRulesWithPromtool(t *testing.T) {
	tool := find(t, "promtool")
	for _, args := range [][]string{{"check", "config", "prometheus.yml"}, {"test", "rules", "alerts_test.yml"}} {
		command := exec.Command(tool, args...)
		command.Dir = directory
		out, err := command.CombinedOutput()
		verify.That(t, err == nil, "promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
