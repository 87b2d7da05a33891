package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	consulapi "github.com/hashicorp/consul/api"

	"sluice/admin"
	"sluice/test/consultest"
)

// Upgrades with routes from a file, from Consul's store and from tags, and with a rollback in place:
// no request fails, and no process loses a document, a revision or the pin. It holds until Consul's
// document changes, also over upgrades while Consul hangs.
func TestReplaceWithDynamicDocuments(t *testing.T) {
	t.Parallel()
	const source = "consul_kv:sluice/"
	agent := consultest.Start(t, consultest.Options{})
	origin := func(name string) (address string) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) }))
		t.Cleanup(server.Close)
		return server.Listener.Addr().String()
	}
	document := func(name, peer string) string {
		return fmt.Sprintf("services: { %s: { peers: [%q] } }\nroutes: [{ path: /%s, service: %s }]\n", name, peer, name, name)
	}
	put := func(text string) {
		t.Helper()
		if _, err := agent.Client().KV().Put(&consulapi.KVPair{Key: "sluice/stored.yaml", Value: []byte(text)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	tagged := netip.MustParseAddrPort(origin("tagged"))
	err := agent.Client().Agent().ServiceRegister(&consulapi.AgentServiceRegistration{
		Name: "tagged", Address: tagged.Addr().String(), Port: int(tagged.Port()), Tags: []string{"sluice.route=/tagged"},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file.yaml")
	if err := os.WriteFile(file, []byte(document("file", origin("file"))), 0o600); err != nil {
		t.Fatal(err)
	}
	good := document("stored", origin("stored"))
	put(good)
	s := startServing(t, fmt.Sprintf("config: { history: %q }\ndiscovery: { allow_local: true }\nconsul: { addresses: [%q], wait: 1s }\ncatalog: { tags: [sluice], claims: [{ service: tagged, hosts: ['*'] }] }\n"+
		"dynamic: [{ file: %q }, { consul_kv: { prefix: sluice/ } }]\n", dir, agent.URL(), file))
	applied := func() (a admin.AppliedConfig) {
		t.Helper()
		response, err := http.Get("http://" + s.admin + "/api/config")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var without struct { // the configuration cannot be decoded
			admin.Revision
			States []admin.Source
		}
		if err := json.NewDecoder(response.Body).Decode(&without); err != nil {
			t.Fatal(err)
		}
		return admin.AppliedConfig{Revision: without.Revision, States: without.States}
	}
	state := func() string {
		for _, s := range applied().States {
			if s.Name == source {
				return s.State
			}
		}
		return ""
	}
	answers := func(path, want string) bool {
		response, err := http.Get("http://" + s.address + path)
		if err != nil {
			return false
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return err == nil && string(body) == want
	}
	for _, name := range []string{"file", "stored", "tagged"} {
		awaitThat(t, "a route to "+name, func() bool { return answers("/"+name, name) })
	}
	awaitThat(t, "the revision is recorded, which serves before", func() bool {
		return slices.ContainsFunc(applied().Sources, func(s admin.SourceInUse) bool { return s.Name == source && s.Revision != "" })
	})
	wanted := applied().Number
	put(document("stored", origin("bad")))
	awaitThat(t, "the bad document is in use", func() bool { return answers("/stored", "bad") && applied().Number > wanted })

	status, out, errs := execute(t, "config", "rollback", fmt.Sprint(wanted), "--why", "it is bad", "--admin", s.admin)
	pinned := applied()
	want := fmt.Sprintf("revision %d is in use: rollback to %d: it is bad\n%s is pinned to its documents of revision %d until it changes\n", pinned.Number, wanted, source, wanted)
	if status != exitOK || out != want {
		t.Fatalf("status %d: %s%s want %s", status, out, errs, want)
	}

	l := startLoad(t, 6, func(number int) (*http.Request, string) {
		name := []string{"file", "stored", "tagged"}[number%3]
		r, err := http.NewRequest(http.MethodGet, "http://"+s.address+"/"+name, nil)
		if err != nil {
			panic(err)
		}
		return r, name
	})
	holds := func(when string) {
		t.Helper()
		l.more(150)
		now := applied()
		if now.Number != pinned.Number || now.Hash != pinned.Hash || now.Reason != pinned.Reason {
			t.Errorf("%s: revision %d %s %q, want %d %s %q", when, now.Number, now.Hash, now.Reason, pinned.Number, pinned.Hash, pinned.Reason)
		}
		_, history, _ := execute(t, "config", "history", "--admin", s.admin)
		lines := strings.Split(history, "\n")
		if want := fmt.Sprintf("%s is pinned to revision %d", source, wanted); len(lines) < int(pinned.Number)+1 || !strings.HasSuffix(lines[2], want) {
			t.Errorf("%s: the history is\n%s, want %s", when, history, want)
		}
		_, diff, _ := execute(t, "config", "diff", fmt.Sprint(wanted), fmt.Sprint(pinned.Number), "--admin", s.admin)
		if diff != "" {
			t.Errorf("%s: differs from revision %d: %s", when, wanted, diff)
		}
	}
	holds("after the rollback")
	for range 2 {
		s.replace()
		awaitThat(t, "the source is pinned", func() bool { return state() == "pinned" })
		holds("after an upgrade")
	}
	if err := agent.Pause(); err != nil {
		t.Fatal(err)
	}
	s.replace()
	holds("after an upgrade while Consul hangs")
	if err := agent.Resume(); err != nil {
		t.Fatal(err)
	}
	awaitThat(t, "the source is pinned", func() bool { return state() == "pinned" })
	holds("when Consul answers again")
	l.stop()

	put(document("stored", origin("repaired")))
	awaitThat(t, "the repaired document is in use, and the history says why", func() bool {
		return answers("/stored", "repaired") && state() == "in_use" && applied().Reason == "pin released: "+source
	})
	s.replace()
	for name, want := range map[string]string{"file": "file", "stored": "repaired", "tagged": "tagged"} {
		if !answers("/"+name, want) {
			t.Errorf("/%s is not answered by %s after the last upgrade", name, want)
		}
	}
	s.end()
}
