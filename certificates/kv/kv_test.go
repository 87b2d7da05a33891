package kv

import (
	"testing"
	"time"

	"sluice/certificates"
	"sluice/consul"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// While Consul is away, a new process has what the old one had for each prefix of its first configuration, also if
// only the history of the old process has the prefix; but not for one that comes later.
func TestAdoptedBeforeFollowed(t *testing.T) {
	client := verify.Result(consul.New(consul.Options{Addresses: []string{"http://127.0.0.1:1"}})).Must(t)
	defer client.Close()
	m := New(Options{Consul: client, Wait: func() time.Duration { return time.Second }})
	defer m.Retain(nil)
	cert, key := testcert.PEM("a.example")
	state := certificates.InUse{Keys: map[string]string{"a.pem": string(cert) + string(key)}}
	followed := m.Follow("certs/file")
	m.Adopt(map[string]certificates.InUse{"certs/file": state, "certs/history": state, "certs/later": state})
	inHistory := m.Follow("certs/history")
	m.Retain([]*Prefix{followed, inHistory})
	for p, want := range map[*Prefix]int{followed: 1, inHistory: 1, m.Follow("certs/later"): 0} {
		verify.Equal(t, len(p.Certificates()), want, "%s: certificates", p.prefix)
	}
}
