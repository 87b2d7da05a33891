package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// TestLeaderInConsul moves a leader by the three ways in which a real Consul names one.
func TestLeaderInConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	for by, leader := range map[string]string{"tag": "tag: primary", "key": "key: service/by-key/leader", "passing": "passing: true"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			testLeaderInConsul(t, agent, by, leader)
		})
	}
}

func testLeaderInConsul(t *testing.T, agent *consultest.Agent, by, leader string) {
	service := "by-" + by
	a, b := newDatabase(t, "a", nil, netip.Addr{}), newDatabase(t, "b", nil, netip.Addr{})
	name := consulLeader(t, agent.Client(), service, by, a, b)
	name(a)
	r := start(t, fmt.Sprintf(`consul: { addresses: [%q] }
listeners: [{ name: db, address: "127.0.0.1:0", protocol: tcp, service: db }]
services: { db: { consul: { service: %s, leader: { %s } }, drain: { timeout: 1h } } }
shutdown: { idle: 0s, grace: 0s }
`, agent.URL(), service, leader))
	var cuts []time.Duration
	old, next := a, b
	m := &leaderModel{t: t}
	var last *session
	r.await("the leader a", func() bool { last = m.connect(r); return last.at == "a" })
	for range 5 {
		demoted := name(next)
		m.await(last.end, "the session to %s has not ended", old.name)
		cuts = append(cuts, last.ended.Sub(demoted))
		r.await("the leader "+next.name, func() bool { last = m.connect(r); return last.at == next.name })
		r.await("no connection to "+old.name, func() bool { return old.open.Load() == 0 })
		old, next = next, old
	}
	last.conn.Close()
	slices.Sort(cuts)
	t.Logf("sessions ended %v after Consul had accepted the change, median %v", cuts, cuts[len(cuts)/2])
}

// consulLeader registers databases in Consul, and returns a function that makes one of them the
// leader, and says when Consul had accepted that the former one is not.
func consulLeader(t *testing.T, client *api.Client, service, by string, all ...*database) func(*database) time.Time {
	register := func(d *database, tag, status string) {
		r := &api.AgentServiceRegistration{
			ID: service + "/" + d.name, Name: service, Address: "127.0.0.1", Port: d.port,
			Check: &api.AgentServiceCheck{CheckID: service + d.name, TTL: "1h", Status: status},
		}
		if tag != "" {
			r.Tags = []string{tag}
		}
		verify.NoError(t, client.Agent().ServiceRegister(r))
	}
	for _, d := range all {
		status := api.HealthPassing
		if by == "passing" {
			status = api.HealthCritical
		}
		register(d, "replica", status)
	}
	locked := ""
	return func(leader *database) (demoted time.Time) {
		if by == "key" { // as Patroni: the lock of a session that is destroyed is deleted
			if locked != "" {
				verify.Result(client.Session().Destroy(locked, nil)).Must(t)
			}
			demoted = time.Now()
			var err error
			locked, _, err = client.Session().Create(&api.SessionEntry{Behavior: api.SessionBehaviorDelete, LockDelay: time.Millisecond}, nil)
			verify.NoError(t, err)
			consultest.Await(t, "the lock", func() bool {
				return verify.Result(acquire(client, "service/"+service+"/leader", leader.name, locked)).Must(t)
			})
			return demoted
		}
		for _, d := range all { // the former one first
			switch {
			case by == "tag" && d != leader:
				register(d, "replica", api.HealthPassing)
			case by == "passing" && d != leader:
				verify.NoError(t, client.Agent().UpdateTTL(service+d.name, "replica", api.HealthCritical))
			}
		}
		demoted = time.Now()
		if by == "tag" {
			register(leader, "primary", api.HealthPassing)
		} else {
			verify.NoError(t, client.Agent().UpdateTTL(service+leader.name, "primary", api.HealthPassing))
		}
		return demoted
	}
}

func acquire(client *api.Client, key, value, session string) (bool, error) {
	done, _, err := client.KV().Acquire(&api.KVPair{Key: key, Value: []byte(value), Session: session}, nil)
	return done, err
}
