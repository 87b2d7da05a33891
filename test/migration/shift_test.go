package migration

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/bench/machine"
	"sluice/observe/wake"
	"sluice/test/consultest"
	"sluice/test/sluicetest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// old is a load balancer that is replaced. Its configuration sends a share of the requests to
// sluice.
type old struct {
	program func(t *testing.T) string
	tags    []string // of the apps in Consul; nil: they are in the configuration
	file    string
	text    string // of the file, a template with shifted
	args    func(s shifted, file string) []string
	// shift makes the process use a changed share, where the changed file is not enough.
	shift func(process *subprocess.Process, s shifted) error
	leave syscall.Signal // ends the process when it has no requests any more
}

// shifted is what a configuration depends on.
type shifted struct {
	Listen, Socket  string // address of the load balancer, and of its administration
	Sluice          string
	Consul          *consultest.Agent // nil without tags
	Apps            []string
	Percent, Others int // share of sluice, and of each app
}

// The configurations are those of docs/migration.md below "Shifting".
func TestShiftFromNginx(t *testing.T) {
	old{
		program: func(t *testing.T) string { return debian(t, "nginx") }, file: "nginx.conf", leave: syscall.SIGQUIT,
		text: `daemon off;
pid nginx.pid;
error_log stderr warn;
events {}
http {
    access_log off;
    split_clients "$remote_addr$request_id" $backend { {{.Percent}}% sluice; * star; }
    upstream sluice { server {{.Sluice}}; keepalive 32; }
    upstream star { {{range .Apps}}server {{.}}; {{end}}keepalive 32; }
    server {
        listen {{.Listen}};
        location / {
            proxy_pass http://$backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
        }
    }
}
`,
		args: func(_ shifted, file string) []string {
			return []string{"-e", "stderr", "-p", filepath.Dir(file), "-c", file}
		},
		shift: func(process *subprocess.Process, _ shifted) error { return syscall.Kill(process.PID(), syscall.SIGHUP) },
	}.replace(t)
}

func TestShiftFromHAProxy(t *testing.T) {
	old{
		program: func(t *testing.T) string { return debian(t, "haproxy") }, file: "haproxy.cfg", leave: syscall.SIGUSR1,
		text: `global
    stats socket {{.Socket}} level admin
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
frontend web
    bind {{.Listen}}
    option forwardfor
    default_backend star
backend star
    balance random
    server sluice {{.Sluice}} weight {{.Percent}} check
{{range $i, $app := .Apps}}    server app{{$i}} {{$app}} weight {{$.Others}} check
{{end}}`,
		args: func(_ shifted, file string) []string { return []string{"-db", "-f", file} },
		shift: func(_ *subprocess.Process, s shifted) error {
			weights := map[string]int{"sluice": s.Percent}
			for i := range s.Apps {
				weights[fmt.Sprint("app", i)] = s.Others
			}
			for server, weight := range weights {
				conn, err := net.Dial("unix", s.Socket)
				if err != nil {
					return err
				}
				fmt.Fprintf(conn, "set server star/%s weight %d\n", server, weight)
				answer, err := io.ReadAll(conn)
				conn.Close()
				if err != nil {
					return err
				}
				if answer = bytes.TrimSpace(answer); len(answer) > 0 {
					return fmt.Errorf("set weight: %s", answer)
				}
			}
			return nil
		},
	}.replace(t)
}

func TestShiftFromFabio(t *testing.T) {
	old{
		program: func(t *testing.T) string { return program(t, fabio) }, tags: []string{"urlprefix-/"}, leave: syscall.SIGTERM,
		args: func(s shifted, _ string) []string { return fabioArgs(s.Listen, s.Consul) },
		shift: func(_ *subprocess.Process, s shifted) error {
			text := fmt.Sprintf("route add star / http://%s/ weight %.2f", s.Sluice, float64(s.Percent)/100)
			_, err := s.Consul.Client().KV().Put(&api.KVPair{Key: "fabio/config", Value: []byte(text)}, nil)
			return err
		},
	}.replace(t)
}

func TestShiftFromTraefik(t *testing.T) {
	old{
		program: func(t *testing.T) string { return program(t, traefik) }, leave: syscall.SIGTERM,
		tags: []string{"traefik.enable=true", "traefik.http.routers.star.rule=PathPrefix(`/`)"},
		file: "dynamic.yaml",
		text: `http:
  routers:
    all: { rule: "PathPrefix(` + "`/`" + `)", priority: 100000, service: shift }
  services:
    sluice: { loadBalancer: { servers: [{ url: "http://{{.Sluice}}" }] } }
    shift: { weighted: { services: [{ name: sluice, weight: {{.Percent}} }, { name: "star@consulcatalog", weight: {{.Rest}} }] } }
`,
		args: func(s shifted, file string) []string {
			return append(traefikArgs(s.Listen, s.Consul), "--providers.file.filename="+file, "--providers.file.watch=true")
		},
	}.replace(t)
}

// Rest returns the share of the apps.
func (s shifted) Rest() int { return 100 - s.Percent }

// debian returns the path of a program that has a package of its name.
func debian(t *testing.T, name string) string {
	t.Helper()
	verify.NoError(t, machine.Require(map[string]string{name: name}))
	return machine.Program(name)
}

// replace moves a load to sluice in the steps of docs/migration.md. No request fails.
func (o old) replace(t *testing.T) {
	path := o.program(t)
	addresses := verify.Result(machine.FreeAddresses(1)).Must(t)
	dir := t.TempDir()
	s := shifted{Listen: addresses[0], Socket: filepath.Join(dir, "socket")}
	for _, name := range []string{"one", "two"} {
		app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			by := "old"
			if r.Header.Get("X-Through") == "sluice" {
				by = "sluice"
			}
			fmt.Fprintf(w, "Hello from %s, %s\n", by, name)
		}))
		t.Cleanup(app.Close)
		s.Apps = append(s.Apps, app.Listener.Addr().String())
	}
	if o.tags != nil {
		s.Consul = consultest.Start(t, consultest.Options{})
		for i, address := range s.Apps {
			register(t, s.Consul, fmt.Sprint("star-", i), "star", netip.MustParseAddrPort(address), o.tags, api.HealthPassing)
		}
	}
	sluice := startSluice(t, filepath.Join(dir, "sluice.yaml"), fmt.Sprintf(`
listeners: [{ name: web, address: "127.0.0.1:0" }]
client: { trusted_proxies: [127.0.0.1] }
shutdown: { delay: 0s }
services: { star: { peers: [%q, %q] } }
routes: [{ service: star, request_headers: { set: { X-Through: sluice } } }]
`, s.Apps[0], s.Apps[1]))
	s.Sluice = sluice.Address("web")

	s.set(1)
	o.write(t, dir, s)
	process := startPeer(t, subprocess.Options{Program: path, Args: o.args(s, filepath.Join(dir, o.file)), Dir: dir})
	consultest.Await(t, "the old one answers", func() bool {
		got, err := ask(s.Listen, request{line: "GET star.com/"})
		verify.Require(t, !wake.Closed(process.Exited()), "it has ended by itself: %v", process.Err())
		return err == nil && got == "200"
	})

	load := sluicetest.StartLoad("http://"+s.Listen, requestsPerSecond)
	defer load.Stop()
	var total sluicetest.Count
	for _, percent := range []int{1, 10, 50, 100} {
		s.set(percent)
		o.write(t, dir, s)
		if o.shift != nil {
			verify.NoError(t, o.shift(process, s))
		}
		total = report(t, load, total, fmt.Sprint(percent, " %"))
	}

	// Some clients have the new address, then all. The old one gets no requests any more, and ends.
	direct := sluicetest.StartLoad("http://"+s.Sluice, requestsPerSecond)
	defer direct.Stop()
	report(t, load, total, "both addresses, by the old one")
	load.Stop()
	verify.NoError(t, syscall.Kill(process.PID(), o.leave))
	select {
	case <-process.Exited():
	case <-time.After(patience):
		t.Error("the old load balancer does not end")
	}
	report(t, direct, sluicetest.Count{}, "the new address")
	direct.Stop()
	for _, c := range []sluicetest.Count{load.Count(), direct.Count()} {
		// A busy machine may not send some.
		verify.That(t, c.Failed == 0, "of %d requests %d failed: %s", c.Requests, c.Failed, c.Failures)
	}
	verify.That(t, load.Count().ByApp["sluice"] > 0, "no request went to sluice")
	t.Logf("in all %d requests, %d failed", load.Count().Requests+direct.Count().Requests, load.Count().Failed+direct.Count().Failed)
}

// requestsPerSecond and requestsPerStep are the load.
const (
	requestsPerSecond = 300
	requestsPerStep   = 1000
)

// set sets the share of sluice.
func (s *shifted) set(percent int) { s.Percent, s.Others = percent, (100-percent)/len(s.Apps) }

// write writes the configuration.
func (o old) write(t *testing.T, dir string, s shifted) {
	t.Helper()
	if o.file == "" {
		return
	}
	var b bytes.Buffer
	verify.NoError(t, template.Must(template.New(o.file).Parse(o.text)).Execute(&b, s))
	writeFile(t, filepath.Join(dir, o.file), b.String())
}

// report waits for the requests of a step, and logs what became of them. It returns the counters.
func report(t *testing.T, load *sluicetest.Load, before sluicetest.Count, step string) sluicetest.Count {
	t.Helper()
	var count sluicetest.Count
	consultest.Await(t, step+": the requests of a step", func() bool {
		count = load.Count()
		return count.Since(before).Requests >= requestsPerStep
	})
	since := count.Since(before)
	t.Logf("%-32s %5d requests, %5d by sluice, %d failed", step+":", since.Requests, since.ByApp["sluice"], since.Failed)
	return count
}
