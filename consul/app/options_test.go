package app

import (
	"strings"
	"testing"
	"time"

	"sluice/consul"
	"sluice/test/verify"
)

// One error says everything that is wrong.
func TestOptionsAreChecked(t *testing.T) {
	_, err := New(Options{
		Name: "a b", Address: "http://x", ID: "a/b", Weight: 70000, Tags: []string{"a\nb"}, Meta: map[string]string{"consul-x": "", "y": strings.Repeat("x", 513)},
		Port: 70000, DeregisterAfter: time.Second, StartTimeout: -1, Drain: -1,
		Check: Check{Type: TCP, Path: "health", TLS: true, TTL: true, Interval: time.Millisecond, Timeout: time.Hour},
	})
	verify.Require(t, err != nil, "no error")
	for _, want := range []string{
		`name "a b": want up to 128 letters`, `id "a/b"`, "port 70000: want a number from 1 to 65535",
		`address "http://x": want a host name or an IP address, without a port`, "weight 70000", `tag "a\nb"`, `meta "consul-x"`, `meta "y": a value of 513 bytes`,
		"deregister after 1s: want at least 1m0s", "start timeout", "drain", `path "health"`, "TLS is for checks of type http and grpc",
		"check interval 1ms", "check timeout 1h0m0s: want 100ms to 1m", "with TTL, want at most the interval",
	} {
		verify.That(t, strings.Contains(err.Error(), want), "%q is not in:\n%v", want, err)
	}
}

func TestDefaults(t *testing.T) {
	for _, c := range []struct {
		given    Check
		kind     CheckType
		ttl      bool
		interval time.Duration
	}{
		{Check{}, TCP, false, DefaultInterval},
		{Check{Type: HTTP}, HTTP, false, DefaultInterval},
		{Check{TTL: true}, None, true, DefaultReportInterval},
		{Check{Type: None}, None, true, DefaultReportInterval},
		{Check{Type: GRPC, TTL: true}, GRPC, true, DefaultReportInterval},
	} {
		got := (Options{Check: c.given}).withDefaults().Check
		verify.That(t, got.Type == c.kind && got.TTL == c.ttl && got.Interval == c.interval, "%+v: got %+v", c.given, got)
	}
}

func TestIDs(t *testing.T) {
	for want, o := range map[string]Options{
		"star-web1-80":     {},
		"star-10.0.0.1-80": {Address: "10.0.0.1"},
		"star-fd00--1-80":  {Address: "fd00::1"},
		"mine":             {ID: "mine"},
	} {
		o.Name, o.Port = "star", 80
		verify.Equal(t, o.settings("web1").ID, want, "result")
	}
}

// An application that listens on one address only is not sick because a name cannot be resolved.
func TestCheckedAddressWhileTheAgentsNameIsUnknown(t *testing.T) {
	r := verify.Result(New(Options{Name: "star", Port: 80, Consul: consul.Options{Addresses: []string{"http://consul.example:8500"}}})).Must(t)
	for _, local := range []string{"10.0.0.7", "", "10.0.0.8", ""} {
		r.registrar.Outbound = func(string) string { return local }
		if local != "" {
			verify.Equal(t, r.CheckedAddress(), local+":80", "the address")
		}
		verify.That(t, r.CheckedAddress() != "127.0.0.1:80", "the address is another one after a failed look-up")
	}
}
