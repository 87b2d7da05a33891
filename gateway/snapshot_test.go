package gateway

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/admin"
	"sluice/test/discoverytest"
)

// watchOf returns the watch of a service in /api/services.
func (r *running) watchOf(name string) admin.Watch {
	r.t.Helper()
	var services []admin.Service
	r.api("/api/services", &services)
	for _, s := range services {
		if s.Service == name && s.Watch != nil {
			return *s.Watch
		}
	}
	return admin.Watch{}
}

// end stops the gateway, and waits until Run returns.
func (r *running) end() {
	r.stop()
	<-r.ended
}

func TestStartWithoutConsulServesTheSnapshot(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]discoverytest.Fault{
		"refusing":       {Drop: true},
		"hanging":        {Hang: true},
		"without leader": {NoLeader: true, Empty: true},
		"wiped":          {Empty: true, Index: "2"},
	} {
		t.Run(name, func(t *testing.T) {
			consul := discoverytest.Start(t)
			a := origin(t, "a")
			consul.Set("star", discoverytest.Instance("star", "star-1", port(t, a)))
			file := filepath.Join(t.TempDir(), "snapshot.json")
			text := preamble + "shutdown: { idle: 0s }\nconsul: { addresses: [" + consul.URL() + "] }\ndiscovery: { snapshot: " + file + " }\n" +
				"services: { star: { consul: {} } }\nroutes: [{ service: star }]"

			first := start(t, text)
			first.await("a request succeeds", func() bool { status, _ := first.get("/"); return status == 200 })
			if w := first.watchOf("star"); w.Restored != nil {
				t.Errorf("watch %+v", w)
			}
			first.end()

			consul.Break(away)
			second := start(t, text)
			if status, body := second.get("/"); status != 200 || body != "a" {
				t.Errorf("without Consul: %d %q", status, body)
			}
			var v admin.Readiness
			second.await("readiness", func() bool { return second.api("/readyz", &v) == 200 })
			if name == "wiped" {
				if w := second.watchOf("star"); w.Instances != 1 {
					t.Errorf("watch %+v", w)
				}
			} else {
				second.await("the watch is stale", func() bool {
					w := second.watchOf("star")
					return w.Restored != nil && w.State == "stale"
				})
				if len(v.Restored) != 1 || v.Restored[0] != "star" {
					t.Errorf("readyz %+v", v)
				}
			}
			consul.Heal()
			second.await("an answer of Consul", func() bool {
				w := second.watchOf("star")
				return w.State == "fresh" && w.Restored == nil && w.Instances == 1
			})
			if second.api("/readyz", &v); len(v.Restored) != 0 {
				t.Errorf("readyz %+v", v)
			}
		})
	}
}

func TestDamagedSnapshotIsRefusedWithAWarning(t *testing.T) {
	consul := discoverytest.Start(t)
	consul.Break(discoverytest.Fault{Drop: true})
	file := filepath.Join(t.TempDir(), "snapshot.json")
	if err := os.WriteFile(file, []byte(`{"version":1,`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, preamble+"consul: { addresses: ["+consul.URL()+"] }\ndiscovery: { snapshot: "+file+" }\nservices: { star: { consul: {} } }\nroutes: [{ service: star }]")
	var v admin.Readiness
	if status := r.api("/readyz", &v); status != 503 || len(v.Restored) != 0 {
		t.Errorf("readyz: %d %+v", status, v)
	}
	if !strings.Contains(r.log.String(), `"error":"the snapshot is damaged`) {
		t.Errorf("no warning")
	}
	r.end()
	if got, err := os.ReadFile(file); err != nil || string(got) != `{"version":1,` {
		t.Errorf("the file has changed: %q, %v", got, err)
	}
}
