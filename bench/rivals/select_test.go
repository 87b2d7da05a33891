//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/test/verify"
)

func TestScenariosAndRivalsAreSelectedByName(t *testing.T) {
	s, err := selectScenarios("kill, join")
	verify.That(t, err == nil && len(s) == 2 && s[0].name == "kill" && s[1].name == "join", "scenarios %v, %v", s, err)
	s, err = selectScenarios("all")
	verify.That(t, err == nil && len(s) == len(scenarios), "all: %d scenarios, %v", len(s), err)
	r, err := selectRivals("fabio,sluice")
	verify.That(t, err == nil && len(r) == 2 && r[0].name == "fabio", "rivals %v, %v", r, err)
	_, err = selectScenarios("kill,none")
	verify.That(t, err != nil && strings.Contains(err.Error(), `"none"`), "unknown scenario: %v", err)
	_, err = selectRivals("envoy")
	verify.That(t, err != nil && strings.Contains(err.Error(), "haproxy-dns"), "unknown rival: %v, want one that says which there are", err)
}

func TestConfigurationsAreFilledIn(t *testing.T) {
	s := settings{
		Dir: t.TempDir(), Listen: "127.0.0.1:18080", Admin: "127.0.0.1:18081", Nginx: "/usr/sbin/nginx",
		Consul: consulAddress{HTTP: "127.0.0.1:18500", DNS: "127.0.0.1:18600"},
	}
	verify.NoError(t, writeConf(s))
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
			verify.That(t, strings.Contains(string(text), w), "%s has no %s:\n%s", name, w, text)
		}
	}
}

func TestRegistrationsAreReadFromWhatAnAppPrints(t *testing.T) {
	begin := time.Unix(1_700_000_000, 123_456_789)
	at, ok := parseRegistered(registeredLine(begin))
	verify.That(t, ok && at.Equal(begin), "read %v, %v; want %v", at, ok, begin)
	for _, line := range []string{"", "registered", registeredPrefix + "soon"} {
		at, ok := parseRegistered(line)
		verify.That(t, !ok, "%q was read as %v", line, at)
	}
}
