//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestScenariosAndRivalsAreSelectedByName(t *testing.T) {
	if s, err := selectScenarios("kill, join"); err != nil || len(s) != 2 || s[0].name != "kill" || s[1].name != "join" {
		t.Errorf("scenarios %v, %v", s, err)
	}
	if s, err := selectScenarios("all"); err != nil || len(s) != len(scenarios) {
		t.Errorf("all: %d scenarios, %v", len(s), err)
	}
	if r, err := selectRivals("fabio,sluice"); err != nil || len(r) != 2 || r[0].name != "fabio" {
		t.Errorf("rivals %v, %v", r, err)
	}
	if _, err := selectScenarios("kill,none"); err == nil || !strings.Contains(err.Error(), `"none"`) {
		t.Errorf("unknown scenario: %v", err)
	}
	if _, err := selectRivals("envoy"); err == nil || !strings.Contains(err.Error(), "haproxy-dns") {
		t.Errorf("unknown rival: %v, want one that says which there are", err)
	}
}

func TestConfigurationsAreFilledIn(t *testing.T) {
	s := settings{
		Dir: t.TempDir(), Listen: "127.0.0.1:18080", Admin: "127.0.0.1:18081", Nginx: "/usr/sbin/nginx",
		Consul: consulAddress{HTTP: "127.0.0.1:18500", DNS: "127.0.0.1:18600"},
	}
	if err := writeConf(s); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"haproxy.cfg":         {"nameserver consul 127.0.0.1:18600", "bind 127.0.0.1:18080"},
		"nginx.conf":          {"include " + s.Dir + "/upstream.conf;", "listen 127.0.0.1:18080"},
		"consul-template.hcl": {`address = "127.0.0.1:18500"`, `"/usr/sbin/nginx"`},
		"upstream.ctmpl":      {`{{range service "star"}}`},
		"upstream.conf":       {"upstream star"},
		"fabio.properties":    {"proxy.addr = 127.0.0.1:18080", "registry.consul.addr = 127.0.0.1:18500"},
		"traefik.yaml":        {`address: "127.0.0.1:18500"`},
		"sluice.yaml":         {`"http://127.0.0.1:18500"`},
	} {
		text, err := os.ReadFile(filepath.Join(s.Dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, w := range want {
			if !strings.Contains(string(text), w) {
				t.Errorf("%s has no %s:\n%s", name, w, text)
			}
		}
	}
}

func TestRegistrationsAreReadFromWhatAnAppPrints(t *testing.T) {
	begin := time.Unix(1_700_000_000, 123_456_789)
	if at, ok := parseRegistered(registeredLine(begin)); !ok || !at.Equal(begin) {
		t.Errorf("read %v, %v; want %v", at, ok, begin)
	}
	for _, line := range []string{"", "registered", registeredPrefix + "soon"} {
		if at, ok := parseRegistered(line); ok {
			t.Errorf("%q was read as %v", line, at)
		}
	}
}
