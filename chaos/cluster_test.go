package chaos

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consultest"
)

const (
	rootToken = "00000000-0000-0000-0000-000000000001"

	// leastPrivilege is the policy of docs/consul.md.
	leastPrivilege = `
service "star" { policy = "read" }
node_prefix "" { policy = "read" }
`
)

// cluster is three servers and a client agent, which sluice reaches through a
// relay.
type cluster struct {
	t         *testing.T
	servers   []*consultest.Agent
	agent     *consultest.Agent
	relay     *consultest.Relay
	tokenFile string
	token     *api.ACLToken // in the file
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	acl := map[string]any{
		"enabled": true, "default_policy": "deny", "down_policy": "extend-cache", "token_ttl": "1s", "policy_ttl": "1s",
		"tokens": map[string]any{"initial_management": rootToken, "agent": rootToken, "default": ""},
	}
	c := &cluster{t: t, tokenFile: filepath.Join(t.TempDir(), "token")}
	for n := range 3 {
		o := consultest.Options{
			Mode: consultest.Server, Node: fmt.Sprintf("server-%d", n), Token: rootToken, NoWait: true,
			Config: map[string]any{"bootstrap_expect": 3, "acl": acl},
		}
		if n > 0 {
			o.Join = []string{c.servers[0].SerfAddress()}
		}
		c.servers = append(c.servers, consultest.Start(t, o))
	}
	must(t, c.servers[0].WaitReady(t.Context()))
	var join []string
	for _, s := range c.servers {
		join = append(join, s.SerfAddress())
	}
	c.agent = consultest.Start(t, consultest.Options{
		Mode: consultest.Client, Node: "client", Token: rootToken, Join: join,
		// An agent that lost its data would get another id, and Consul takes no node
		// of the same name then.
		Config: map[string]any{"acl": acl, "node_id": "11111111-2222-3333-4444-555555555555"},
	})
	c.relay = consultest.StartRelay(t, c.agent.HTTPAddress())
	await(t, "the ACL system works", func() bool { return c.newToken() == nil })
	return c
}

// newToken writes a new token with the least privilege into sluice's file.
func (c *cluster) newToken() error {
	acl := c.agent.Client().ACL()
	policy, _, err := acl.PolicyReadByName("sluice", nil)
	if err != nil {
		return err
	}
	if policy == nil {
		if policy, _, err = acl.PolicyCreate(&api.ACLPolicy{Name: "sluice", Rules: leastPrivilege}, nil); err != nil {
			return err
		}
	}
	token, _, err := acl.TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	if err != nil {
		return err
	}
	c.token = token
	return os.WriteFile(c.tokenFile, []byte(token.SecretID), 0o600)
}

// passing returns the addresses of the instances that the leader knows to pass,
// sorted; nil if there is no answer.
func (c *cluster) passing() []string {
	entries, err := c.query()
	if err != nil {
		return nil
	}
	addresses := []string{}
	for _, e := range entries {
		addresses = append(addresses, net.JoinHostPort(e.Service.Address, strconv.Itoa(e.Service.Port)))
	}
	slices.Sort(addresses)
	return addresses
}

func (c *cluster) query() ([]*api.ServiceEntry, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	q := (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
	entries, _, err := c.agent.Client().Health().Service("star", "", true, q)
	return entries, err
}

// awaitQuery waits until the agent gets answers from the leader: a fault is over
// then.
func (c *cluster) awaitQuery() {
	await(c.t, "the cluster answers", func() bool { _, err := c.query(); return err == nil })
}

// last waits for a while, as a fault that goes on.
func (c *cluster) last(d time.Duration) { time.Sleep(d) }

// fault is what happens to a cluster. Happen returns at its end.
type fault struct {
	name   string
	happen func(*cluster, *rand.Rand)
}

var faults = []fault{
	{"leader killed and started again", func(c *cluster, _ *rand.Rand) {
		leader := c.leader()
		must(c.t, leader.Kill())
		c.last(3 * time.Second)
		must(c.t, leader.Launch(c.t.Context()))
	}},
	{"quorum lost", func(c *cluster, r *rand.Rand) {
		lost := r.Perm(3)[:2]
		for _, n := range lost {
			must(c.t, c.servers[n].Kill())
		}
		c.last(5 * time.Second)
		for _, n := range lost {
			must(c.t, c.servers[n].Launch(c.t.Context()))
		}
	}},
	{"agent stopped for longer than a wait", func(c *cluster, _ *rand.Rand) {
		must(c.t, c.agent.Pause())
		c.last(8 * time.Second)
		must(c.t, c.agent.Resume())
	}},
	{"agent restarted", func(c *cluster, _ *rand.Rand) { must(c.t, c.agent.Restart(c.t.Context())) }},
	{"agent restarted empty", func(c *cluster, _ *rand.Rand) {
		must(c.t, c.agent.Kill())
		must(c.t, c.agent.Wipe())
		must(c.t, c.agent.Launch(c.t.Context()))
	}},
	{"connections half-open", func(c *cluster, _ *rand.Rand) {
		c.relay.Hang()
		c.last(8 * time.Second)
		c.relay.Heal()
	}},
	{"network cut", func(c *cluster, _ *rand.Rand) {
		c.relay.Cut()
		c.last(5 * time.Second)
		c.relay.Heal()
	}},
	{"token replaced, the old one revoked", func(c *cluster, _ *rand.Rand) {
		old := c.token.AccessorID
		must(c.t, c.newToken())
		_, err := c.agent.Client().ACL().TokenDelete(old, nil)
		must(c.t, err)
	}},
	{"token revoked, replaced later", func(c *cluster, _ *rand.Rand) {
		_, err := c.agent.Client().ACL().TokenDelete(c.token.AccessorID, nil)
		must(c.t, err)
		c.last(5 * time.Second)
		must(c.t, c.newToken())
	}},
}

// leader returns the server that leads.
func (c *cluster) leader() *consultest.Agent {
	var leader *consultest.Agent
	await(c.t, "there is a leader", func() bool {
		address, err := c.agent.Client().Status().Leader()
		n := slices.IndexFunc(c.servers, func(s *consultest.Agent) bool { return s.ServerAddress() == address })
		if err != nil || n < 0 {
			return false
		}
		leader = c.servers[n]
		return true
	})
	return leader
}

// apps are programs that keep themselves registered with the client agent.
type apps struct {
	t  *testing.T
	c  *cluster
	mu sync.Mutex // guards the fields below

	made int
	live []*app // the oldest first
}

type app struct {
	id     string
	server *httptest.Server
}

// startApps registers what the agent does not know, again and again, until t
// ends.
func startApps(t *testing.T, c *cluster) *apps {
	a := &apps{t: t, c: c}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				a.registerMissing(ctx)
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		for _, app := range a.live {
			app.server.Close()
		}
	})
	return a
}

func (a *apps) registerMissing(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	a.mu.Lock()
	defer a.mu.Unlock()
	known, err := a.c.agent.Client().Agent().ServicesWithFilterOpts("", (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return
	}
	for _, app := range a.live {
		if known[app.id] == nil {
			_ = a.register(ctx, app)
		}
	}
}

func (a *apps) register(ctx context.Context, app *app) error {
	address := app.server.Listener.Addr().(*net.TCPAddr)
	return a.c.agent.Client().Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{
		Name: "star", ID: app.id, Address: "127.0.0.1", Port: address.Port,
		Check: &api.AgentServiceCheck{TCP: address.String(), Interval: "1s", Status: api.HealthCritical},
	}, api.ServiceRegisterOpts{Token: rootToken}.WithContext(ctx))
}

// add starts an app, registers it, and returns its id, which is its answer.
func (a *apps) add() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.made++
	added := &app{id: fmt.Sprintf("app-%d", a.made)}
	added.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, added.id) }))
	a.live = append(a.live, added)
	await(a.t, "the agent takes a registration", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		return a.register(ctx, added) == nil
	})
	return added.id
}

func (a *apps) address(id string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := slices.IndexFunc(a.live, func(app *app) bool { return app.id == id })
	return a.live[n].server.Listener.Addr().String()
}

// deregisterOldest takes an app out of the registry and returns its address. It
// goes on running, as one that drains.
func (a *apps) deregisterOldest() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	oldest := a.live[0]
	a.live = a.live[1:]
	a.t.Cleanup(oldest.server.Close)
	must(a.t, a.c.agent.Client().Agent().ServiceDeregister(oldest.id))
	return oldest.server.Listener.Addr().String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
