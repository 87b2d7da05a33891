package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

const (
	// rootToken is in the configuration of the servers (acl.tokens.initial_management),
	// so it is also valid after they have lost their data.
	rootToken = "00000000-0000-0000-0000-000000000001"

	// callTimeout limits a request of the test to the client agent.
	callTimeout = 3 * time.Second

	// memberAlive is the status alive in Serf.
	memberAlive = 1

	// ageEntries is by how much age advances the index: more than building the
	// cluster again does.
	ageEntries = 400
)

// cluster is three servers and a client agent with ACLs. sluice reaches the agent
// through a relay and an interceptor.
type cluster struct {
	t           *testing.T
	servers     []*consultest.Agent
	agent       *consultest.Agent
	interceptor *interceptor
	relay       *consultest.Relay
	tokenFile   string
	token       *api.ACLToken // in the file
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	acl := map[string]any{
		"enabled": true, "default_policy": "deny", "down_policy": "extend-cache", "token_ttl": "1s", "policy_ttl": "1s",
		"tokens": map[string]any{"initial_management": rootToken, "agent": rootToken, "default": ""},
	}
	// A busy machine must not cause elections.
	performance := map[string]any{"raft_multiplier": 3}
	// The client agent must notice soon that there is no server. With the defaults it
	// waits for confirmations, which takes half a minute without other members.
	gossip := map[string]any{"suspicion_mult": 2, "probe_interval": "500ms", "probe_timeout": "250ms"}
	// An agent without data would get another id, and Consul refuses a node with
	// the same name.
	id := func(n int) string { return fmt.Sprintf("11111111-2222-3333-4444-%012d", n) }
	c := &cluster{t: t, tokenFile: filepath.Join(t.TempDir(), "token")}
	for n := range 3 {
		o := consultest.Options{
			Mode: consultest.Server, Node: fmt.Sprintf("server-%d", n), Token: rootToken, NoWait: true,
			Config: map[string]any{"bootstrap_expect": 3, "acl": acl, "node_id": id(n), "performance": performance},
		}
		if n > 0 {
			o.Join = []string{c.servers[0].SerfAddress()}
		}
		c.servers = append(c.servers, consultest.Start(t, o))
	}
	verify.NoError(t, c.servers[0].WaitReady(t.Context()))
	var join []string
	for _, s := range c.servers {
		join = append(join, s.SerfAddress())
	}
	c.agent = consultest.Start(t, consultest.Options{
		Mode: consultest.Client, Node: "client", Token: rootToken, Join: join,
		Config: map[string]any{"acl": acl, "node_id": id(3), "gossip_lan": gossip},
	})
	c.interceptor = startInterceptor(t, c.agent.URL())
	c.relay = consultest.StartRelay(t, c.interceptor.address())
	c.renewToken()
	return c
}

// renewToken writes a new token with the least privilege into the file of sluice, as soon as the
// cluster can create one.
func (c *cluster) renewToken() {
	c.t.Helper()
	consultest.Await(c.t, "the cluster makes a token", func() bool { return c.tryToken() == nil })
}

func (c *cluster) tryToken() error {
	acl := c.agent.Client().ACL()
	policy, _, err := acl.PolicyReadByName("sluice", nil)
	if err != nil {
		return err
	}
	if policy == nil {
		rules, err := consultest.DocumentedPolicy("../../docs/consul.md", "## ACLs")
		verify.NoError(c.t, err)
		if policy, _, err = acl.PolicyCreate(&api.ACLPolicy{Name: "sluice", Rules: rules}, nil); err != nil {
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

// passing returns the sorted addresses of the passing instances from the leader, and the index; nil
// and 0 without an answer.
func (c *cluster) passing() ([]string, uint64) {
	ctx, cancel := context.WithTimeout(c.t.Context(), callTimeout)
	defer cancel()
	q := (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
	entries, meta, err := c.agent.Client().Health().Service("star", "", true, q)
	if err != nil {
		return nil, 0
	}
	addresses := []string{}
	for _, e := range entries {
		addresses = append(addresses, net.JoinHostPort(e.Service.Address, strconv.Itoa(e.Service.Port)))
	}
	slices.Sort(addresses)
	return addresses, meta.LastIndex
}

// lists reports whether exactly these addresses are passing in the catalog.
func (c *cluster) lists(addresses []string) bool {
	passing, _ := c.passing()
	return slices.Equal(passing, addresses)
}

func (c *cluster) index() (index uint64) {
	c.t.Helper()
	consultest.Await(c.t, "the catalog answers", func() bool { _, index = c.passing(); return index > 0 })
	return index
}

func (c *cluster) leader() *consultest.Agent {
	c.t.Helper()
	var leader *consultest.Agent
	consultest.Await(c.t, "there is a leader", func() bool {
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

// age writes unused entries, which advance the index.
func (c *cluster) age() {
	c.t.Helper()
	const writers = 8
	kv := c.agent.Client().KV()
	var written atomic.Int64
	ctx, cancel := context.WithCancel(c.t.Context())
	var writing sync.WaitGroup
	for writer := range writers {
		writing.Go(func() {
			for n := 0; written.Load() < ageEntries && ctx.Err() == nil; n++ {
				pair := &api.KVPair{Key: fmt.Sprintf("age/%d/%d", writer, n)}
				// A busy cluster may have no leader for a while.
				if _, err := kv.Put(pair, (&api.WriteOptions{}).WithContext(ctx)); err == nil {
					written.Add(1)
				}
			}
		})
	}
	defer writing.Wait()
	defer cancel()
	consultest.Await(c.t, "the index advances", func() bool { return written.Load() >= ageEntries })
}

// killServers kills all servers, and waits until the client agent has noticed.
func (c *cluster) killServers() {
	c.t.Helper()
	for _, s := range c.servers {
		verify.NoError(c.t, s.Kill())
	}
	consultest.Await(c.t, "the client agent misses the servers", func() bool {
		members, err := c.agent.Client().Agent().Members(false)
		return err == nil && !slices.ContainsFunc(members, func(m *api.AgentMember) bool {
			return m.Name != "client" && m.Status == memberAlive
		})
	})
}

// launchServersEmpty starts the servers without any data, and waits until they
// have a leader. They do not know the client agent.
func (c *cluster) launchServersEmpty() {
	c.t.Helper()
	for _, s := range c.servers {
		verify.NoError(c.t, s.Wipe())
	}
	c.launch(c.servers...)
	verify.NoError(c.t, c.servers[0].WaitReady(c.t.Context()))
}

// launch starts servers, all at the same time.
func (c *cluster) launch(servers ...*consultest.Agent) {
	c.t.Helper()
	errs := make([]error, len(servers))
	var launching sync.WaitGroup
	for n, s := range servers {
		launching.Go(func() { errs[n] = s.Launch(c.t.Context()) })
	}
	launching.Wait()
	verify.NoError(c.t, errors.Join(errs...))
}
