package listeners

import (
	"testing"
	"time"

	"sluice/config"
	"sluice/consul"
	"sluice/test/verify"
)

// HTTP-01 is used if there is a listener for it. Listeners with the same settings share a manager, which ends with
// the last of them.
func TestManagersFollowTheListeners(t *testing.T) {
	client := verify.Result(consul.New(consul.Options{Addresses: []string{"http://127.0.0.1:1"}})).Must(t)
	defer client.Close()
	m := New(Options{Consul: client, Wait: func() time.Duration { return time.Second }})
	defer m.Close()
	plain := config.Listener{Name: "web"}
	secure := config.Listener{Name: "websecure", TLS: &config.ListenerTLS{ACME: &config.ACME{
		Names: []string{"a.example"}, Directory: "https://127.0.0.1:1/dir", Storage: t.TempDir(),
	}}}
	use := func(list ...config.Listener) (c *config.Config, last *TLS) {
		c = &config.Config{Listeners: list}
		var all []*TLS
		for _, l := range list {
			last = verify.Result(m.TLS(l, c)).Must(t)
			all = append(all, last)
		}
		m.Use(all)
		m.Retain()
		return c, last
	}
	without, alone := use(secure)
	with, both := use(plain, secure)
	verify.That(t, alone.Suits(without) && !alone.Suits(with) && both.Suits(with) && !both.Suits(without), "HTTP-01 is used without a listener for it, or not with one")
	_, again := use(plain, secure, secure)
	verify.That(t, again.acme.Manager == both.acme.Manager && len(m.authorities.managers) == 1, "%d managers, want the one of before", len(m.authorities.managers))
	if use(plain); len(m.authorities.managers) != 0 {
		t.Errorf("%d managers without a listener", len(m.authorities.managers))
	}
}
