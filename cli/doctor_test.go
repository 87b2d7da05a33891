package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	consulapi "github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/config"
	"sluice/consul"
	"sluice/doctor"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// Ctrl-C ends a prompt, which waits for an answer that does not come.
func TestInterruptEndsAPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, interrupt)
		terminal, nobody := io.Pipe()
		defer nobody.Close()
		report := doctor.Report{Findings: []doctor.Finding{{Service: "star", ID: "star-1", Fix: &doctor.Fix{Possible: true}}}}
		var out strings.Builder
		done, err := new(examination).fixAll(ctx, doctor.New(doctor.Options{}), &report, bufio.NewReader(terminal), &out)
		verify.NoError(t, err)
		verify.That(t, done && len(report.Fixed) == 0, "done %t, fixed %+v", done, report.Fixed)
		verify.That(t, strings.HasSuffix(out.String(), "[y/n/q] No duplicate was deregistered.\n"), "output %q", out.String())
	})
}

// registerStar registers an instance of star, at the address of a node.
func registerStar(t *testing.T, agent *consultest.Agent, id string, port int, status string) {
	t.Helper()
	const machine = "192.0.2.77"
	verify.Result(agent.Client().Catalog().Register(&consulapi.CatalogRegistration{Node: "machine", Address: machine}, nil)).Must(t)
	registerStarAt(t, agent, machine, id, port, status)
}

func registerStarAt(t *testing.T, agent *consultest.Agent, address, id string, port int, status string) {
	t.Helper()
	err := agent.Client().Agent().ServiceRegister(&consulapi.AgentServiceRegistration{
		Name: "star", ID: id, Address: address, Port: port,
		Check: &consulapi.AgentServiceCheck{CheckID: "check-" + id, TTL: "1h", Status: status},
	})
	verify.NoError(t, err)
	consultest.Await(t, id+" is in the catalog", func() bool { return strings.Contains(stars(t, agent), id) })
}

// stars returns the ids of star in the catalog.
func stars(t *testing.T, agent *consultest.Agent) string {
	t.Helper()
	instances, _, err := agent.Client().Catalog().Service("star", "", &consulapi.QueryOptions{RequireConsistent: true})
	verify.NoError(t, err)
	var ids []string
	for _, i := range instances {
		ids = append(ids, i.ServiceID)
	}
	return strings.Join(ids, " ")
}

// nowhere is an address without a listener. Its port is not in the range from which the kernel
// assigns ports.
const nowhere = "127.0.0.1:1"

// TestDoctor has tests that use one Consul in turn: the doctor examines all of a catalog.
func TestDoctor(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{Node: "a"})
	for name, test := range map[string]func(*testing.T, *consultest.Agent){
		"finds and fixes": testDoctor, "asks": testDoctorAsks, "asks about containers": testDoctorAsksAboutContainers,
		"gets times from a running sluice": testDoctorGetsTimes,
	} {
		t.Run(name, func(t *testing.T) {
			defer consultest.Await(t, "the catalog is empty again", func() bool { return stars(t, agent) == "" })
			defer func() {
				for id := range strings.FieldsSeq(stars(t, agent)) {
					verify.NoError(t, agent.Client().Agent().ServiceDeregister(id))
				}
			}()
			test(t, agent)
		})
	}
}

func testDoctor(t *testing.T, agent *consultest.Agent) {
	registerStar(t, agent, "star-1", 9001, consulapi.HealthPassing)
	examine := func(args ...string) (status int, stdout, stderr string) {
		t.Helper()
		return execute(t, append([]string{"doctor", "--consul", agent.URL()}, args...)...)
	}

	status, stdout, stderr := examine()
	verify.That(t, status == exitOK && strings.HasSuffix(stdout, "\nNo findings.\n") && stderr == "", "status %d\n%s%s", status, stdout, stderr)

	file := writeFile(t, "sluice.yaml", "services: { star: { consul: { service: star } }, moon: { consul: { service: moon } } }\nroutes: [{ service: moon }]\n")
	status, stdout, stderr = examine("--config", file)
	verify.That(t, status == exitFailed && stderr == "" && strings.Contains(stdout, "ERROR service-missing\n  moon\n") && strings.Contains(stdout, "NOTICE unrouted\n  star\n"), "status %d\n%s%s", status, stdout, stderr)
	status, stdout, _ = examine("--config", file, "--service", "star")
	verify.That(t, status == exitOK && !strings.Contains(stdout, "moon"), "only star: status %d\n%s", status, stdout)

	prints(t, exitFailed, "ERROR service-missing\n  strar\n", "doctor", "--consul", agent.URL(), "--service", "strar")

	registerStar(t, agent, "star-2", 9001, consulapi.HealthPassing)
	status, stdout, stderr = examine("--json", "--fix", "--dry-run")
	var report doctor.Report
	err := json.Unmarshal([]byte(stdout), &report)
	verify.Require(t, err == nil && status == exitOK && report.Schema == doctor.SchemaVersion && report.Count[doctor.SeverityWarning] == 1, "status %d, %v\n%s%s", status, err, stdout, stderr)
	f := report.Findings[0]
	verify.That(t, f.Code == doctor.CodeDuplicateAddress && f.ID == "star-1" && f.Severity == doctor.SeverityWarning, "%+v", f)
	verify.That(t, len(report.Fixed) == 1 && report.Fixed[0].Result == doctor.ResultWould, "%+v", report.Fixed)
	verify.Equal(t, stars(t, agent), "star-1 star-2", "after a dry run")
	prints(t, exitUsage, "standard input is not a terminal", "doctor", "--consul", agent.URL(), "--fix")
	verify.Equal(t, stars(t, agent), "star-1 star-2", "without a terminal")
	prints(t, exitOK, "star star-1 on node a: deregistered through "+agent.URL()+", and gone from the catalog; star-2 on node a, passing, stays\n",
		"doctor", "--consul", agent.URL(), "--fix", "--yes")
	verify.Equal(t, stars(t, agent), "star-2", "the catalog")
}

func testDoctorAsks(t *testing.T, agent *consultest.Agent) {
	for n := range 4 {
		registerStar(t, agent, fmt.Sprintf("star-%d", n), 9001, consulapi.HealthPassing)
	}
	e := examination{fix: true, options: doctor.Options{Consul: consul.Options{Addresses: []string{agent.URL()}}}}
	e.address = nowhere
	var out strings.Builder
	problems, err := e.run(t.Context(), strings.NewReader("n\nyes\nq\n"), &out)
	verify.Require(t, err == nil && !problems, "%v, %v\n%s", problems, err, out.String())
	verify.Equal(t, stars(t, agent), "star-0 star-2 star-3", "n, y, q left  %s", out.String())
	verify.Equal(t, strings.Count(out.String(), "[y/n/q]"), 3, "prompts %s", out.String())
	// The end of the input does not confirm.
	out.Reset()
	_, err = e.run(t.Context(), strings.NewReader(""), &out)
	verify.That(t, err == nil && stars(t, agent) == "star-0 star-2 star-3", "%v\n%s", err, out.String())
}

// No node has the address of a container, so another process may have it too.
func testDoctorAsksAboutContainers(t *testing.T, agent *consultest.Agent) {
	for n := range 3 {
		registerStarAt(t, agent, "172.17.0.2", fmt.Sprintf("star-%d", n), 9001, consulapi.HealthPassing)
	}
	const doubt = "no node of the catalog has the address 172.17.0.2, so several machines may have it, such as for a container"
	fix := func(args ...string) string {
		t.Helper()
		status, stdout, stderr := execute(t, append([]string{"doctor", "--consul", agent.URL(), "--fix"}, args...)...)
		verify.That(t, status == exitOK && stderr == "", "status %d\n%s%s", status, stdout, stderr)
		return stdout
	}

	left := "star star-0 on node a: not changed: " + doubt + "; to confirm that it is the same process, name its service: --service star\n"
	for _, args := range [][]string{{"--yes"}, {"--yes", "--dry-run"}} {
		verify.Contains(t, fix(args...), left, "%q", args)
	}
	verify.Contains(t, fix("--dry-run"), ", after you confirm that it is the same process: "+doubt, "a dry run")
	verify.Equal(t, stars(t, agent), "star-0 star-1 star-2", "without a confirmation")

	e := examination{fix: true, options: doctor.Options{Consul: consul.Options{Addresses: []string{agent.URL()}}}}
	e.address = nowhere
	var out strings.Builder
	verify.Result(e.run(t.Context(), strings.NewReader("n\ny\n"), &out)).Must(t)
	question := "star star-1 on node a may be another process than star-2 on node a: " + doubt + ".\n" +
		"Deregister star star-1 on node a, 172.17.0.2:9001, through " + agent.URL() + "? star-2 on node a stays. [y/n/q] "
	verify.Equal(t, stars(t, agent), "star-0 star-2", "after n and y")
	verify.Contains(t, out.String(), question, "the question")

	fix("--yes", "--service", "star")
	verify.Equal(t, stars(t, agent), "star-2", "with the name of the service it left")
}

func testDoctorGetsTimes(t *testing.T, agent *consultest.Agent) {
	registerStar(t, agent, "star-1", 9001, consulapi.HealthCritical)
	peer := admin.Peer{
		Service: "front", ID: "star-1", Node: "a", Address: "192.0.2.77:9001", Status: "critical", State: "unhealthy", Since: time.Now().Add(-125 * time.Minute),
		Reasons: []string{"consul: critical"},
	}
	refused := peer
	refused.Reasons = []string{"consul: critical", "address: 192.0.2.77:9001 is sluice's own"}
	args := []string{"doctor", "--consul", agent.URL(), "--token-file", writeFile(t, "token", "s3cret\n"), "--admin"}
	sluice := adminAPI(t, "s3cret", []admin.Peer{peer})
	prints(t, exitOK, "WARNING critical-long\n  star star-1 on node a, 192.0.2.77:9001\n    critical for at least 2h05m: ", append(args, sluice)...)
	status, stdout, stderr := execute(t, append(args, sluice, "--critical-for", "3h")...)
	verify.That(t, status == exitOK && !strings.Contains(stdout, "critical"), "status %d\n%s%s", status, stdout, stderr)
	prints(t, exitOK, "WARNING refused-address\n  star star-1 on node a, 192.0.2.77:9001\n    sluice opens no connection to it: 192.0.2.77:9001 is sluice's own\n",
		append(args, adminAPI(t, "s3cret", []admin.Peer{refused}))...)
	prints(t, exitUnseen, "no sluice answers", "doctor", "--consul", agent.URL(), "--admin", nowhere)
}

func TestDoctorWithoutAccess(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", nowhere)
	prints(t, exitUnseen, "sluice: consul http://"+nowhere+": ", "doctor")
	prints(t, exitUnseen, "404", "doctor", "--consul", "http://"+serveHandler(t, http.NotFound))
	bad := writeFile(t, "bad.yaml", "nope: 1\n")
	prints(t, exitUnseen, bad+":1: nope: ", "doctor", "--config", bad)
}

// Services of routes are required, also if the catalog provides them.
func TestDoctorTakesServicesFromRoutes(t *testing.T) {
	file := writeFile(t, "sluice.yaml", `
consul: { datacenter: dc7, max_watches: 77 }
catalog: { select: { tag: public } }
services: { fixed: { peers: ["127.0.0.1:1"] }, star: { consul: { tags: [v1] } } }
routes: [{ service: fixed }, { path: /moon, service: moon }]
`)
	e := examination{in: config.Input{File: file}}
	verify.NoError(t, e.configure())
	got := make(map[string]doctor.Use)
	for _, u := range e.options.Uses {
		got[u.Name] = u
	}
	moon, star := got["moon"], got["star"]
	verify.That(t, len(got) == 2 && moon.Routed && moon.Source.Service == "moon" && moon.Source.Tags[0] == "public" && !star.Routed && star.Source.Tags[0] == "v1", "%+v", got)
	verify.That(t, e.options.Datacenter == "dc7" && e.options.Consul.MaxWatches == 77 && e.address == "127.0.0.1:8081", "%+v, admin %s", e.options, e.address)
}

// The state of a peer may have begun long before its instance became critical.
func TestCriticalSinceIsKnownOfThePeersThatNothingElseTakesOut(t *testing.T) {
	since := time.Now().Add(-3 * time.Hour)
	for _, c := range []struct {
		state   string
		reasons []string
		want    bool
	}{
		{"unhealthy", []string{"consul: critical: check: HTTP 500"}, true},
		{"unhealthy", []string{"consul: critical", "active: HTTP 500"}, false},
		{"unhealthy", []string{"consul: maintenance: disk"}, false},
		{"draining", []string{"consul: critical", "drain: memory"}, false},
		{"draining", []string{"consul: critical", "removed from the set"}, false},
		{"up", []string{}, false}, // its active check overrides Consul
	} {
		got := examined(admin.Peer{Status: "critical", State: c.state, Reasons: c.reasons, Since: since})
		verify.That(t, got.Critical == c.want && got.Since.Equal(since), "%s, %q: got %+v", c.state, c.reasons, got)
	}
}
