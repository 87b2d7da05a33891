package mesh

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/filled"
	"sluice/test/parallel"
	"sluice/test/verify"
)

func TestMain(m *testing.M) {
	parallel.SetDefault(16)
	consultest.ClearEnvironment()
	os.Exit(m.Run())
}

// wait is how long queries block. It is longer than a test waits for a change, but for those of a
// Consul that begins anew.
const wait = 2 * time.Second

type followed struct {
	*Chains
	changes atomic.Int64
}

// follow follows chains until t ends.
func follow(t *testing.T, url, token string, ids ...ChainID) *followed {
	t.Helper()
	client := verify.Result(consul.New(consul.Options{Addresses: []string{url}, Token: token, Log: zerolog.Nop()})).Must(t)
	f := new(followed)
	f.Chains = NewChains(ChainOptions{
		Consul: client, Wait: func() time.Duration { return wait }, Changed: func() { f.changes.Add(1) }, Log: zerolog.Nop(),
	})
	f.Follow(ids)
	t.Cleanup(func() {
		f.Pause()
		client.Close()
	})
	return f
}

// await waits until a chain is known for which holds is true.
func (f *followed) await(t *testing.T, what string, id ChainID, holds func(*Compiled) bool) (found Chain) {
	t.Helper()
	consultest.Await(t, what, func() bool {
		found = f.Lookup(id)
		return found.Compiled != nil && holds(found.Compiled)
	})
	return found
}

func isDefault(c *Compiled) bool { return c.Default }

func startsWith(kind string) func(*Compiled) bool {
	return func(c *Compiled) bool { return c.Nodes[c.StartNode].Type == kind }
}

func write(t *testing.T, agent *consultest.Agent, entries ...api.ConfigEntry) {
	t.Helper()
	for _, e := range entries {
		_, _, err := agent.Client().ConfigEntries().Set(e, nil)
		verify.Require(t, err == nil, "%s %s: %v", e.GetKind(), e.GetName(), err)
	}
}

func splitter(service string) []api.ConfigEntry {
	return []api.ConfigEntry{
		&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: service, Protocol: "http"},
		&api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: service, Subsets: map[string]api.ServiceResolverSubset{
			"v1": {Filter: "Service.Meta.version == 1"}, "v2": {Filter: "Service.Meta.version == 2", OnlyPassing: true},
		}},
		&api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: service, Splits: []api.ServiceSplit{
			{Weight: 90, ServiceSubset: "v1"}, {Weight: 10, ServiceSubset: "v2"},
		}},
	}
}

// A written entry and its deletion change the chain, others do not.
func TestChainsOfConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	web, api_ := ChainID{Service: "web"}, ChainID{Service: "api"}
	f := follow(t, agent.URL(), "", web, api_)
	first := f.await(t, "the default chain", web, isDefault)
	f.await(t, "the default chain", api_, isDefault)
	target := first.Compiled.Targets[first.Compiled.Nodes[first.Compiled.StartNode].Resolver.Target]
	verify.That(t, target.Service == "web" && strings.HasPrefix(target.SNI, "web.default.dc1.internal."), "target %+v", target)

	before := f.changes.Load()
	write(t, agent, splitter("web")...)
	split := f.await(t, "the splitter", web, startsWith(NodeSplitter))
	splits := split.Compiled.Nodes[split.Compiled.StartNode].Splits
	verify.That(t, len(splits) == 2 && splits[0].Weight == 90 && splits[1].Weight == 10, "splits %+v", splits)
	v2 := split.Compiled.Targets[split.Compiled.Nodes[splits[1].NextNode].Resolver.Target]
	verify.That(t, v2.Subset == api.ServiceResolverSubset{Filter: "Service.Meta.version == 2", OnlyPassing: true} && v2.ServiceSubset == "v2", "v2 is %+v", v2)
	verify.That(t, split.Index > first.Index && f.changes.Load() > before, "index %d after %d", split.Index, first.Index)
	verify.That(t, f.Lookup(api_).Compiled.Default, "another service has the splitter")

	verify.Result(agent.Client().ConfigEntries().Delete(api.ServiceSplitter, "web", nil)).Must(t)
	verify.Result(agent.Client().ConfigEntries().Delete(api.ServiceResolver, "web", nil)).Must(t)
	f.await(t, "the default chain again", web, func(c *Compiled) bool { return c.Default && c.Protocol == "http" })

	f.Follow([]ChainID{api_})
	verify.That(t, f.Lookup(web).Compiled == nil && len(f.All()) == 1, "followed: %+v", f.All())
}

// A Consul that has lost its state does not end a chain, one that writes it again does.
func TestForgottenChains(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	web := ChainID{Service: "web"}
	write(t, agent, splitter("web")...)
	f := follow(t, agent.URL(), "", web)
	f.await(t, "the splitter", web, startsWith(NodeSplitter))
	verify.NoError(t, agent.Restart(t.Context())) // without data
	consultest.Await(t, "that Consul has forgotten is noticed", func() bool { return !f.Lookup(web).KeptUntil.IsZero() })
	kept := f.Lookup(web)
	verify.That(t, startsWith(NodeSplitter)(kept.Compiled), "the default chain is in use")

	next := follow(t, agent.URL(), "") // a new process
	next.Restore(f.Save())
	next.Follow([]ChainID{web})
	restored := next.Lookup(web)
	verify.That(t, restored.KeptUntil.Equal(kept.KeptUntil) && startsWith(NodeSplitter)(restored.Compiled), "handed over: %+v", restored)
	consultest.Await(t, "the new process has an answer", func() bool { return next.Save()[0].Lost != nil && next.Lookup(web).Index > 0 })

	write(t, agent, splitter("web")...)
	for _, process := range []*followed{f, next} {
		consultest.Await(t, "the written chain is in use", func() bool {
			c := process.Lookup(web)
			return c.KeptUntil.IsZero() && startsWith(NodeSplitter)(c.Compiled)
		})
	}
	verify.Result(agent.Client().ConfigEntries().Delete(api.ServiceSplitter, "web", nil)).Must(t)
	f.await(t, "the deletion counts", web, startsWith(NodeResolver))
}

// While Consul is away, and without the right, what is known stays. The error names the right.
func TestChainsWithoutTheRight(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	write(t, agent, splitter("web")...)
	policy, token, err := agent.NewToken("sluice", `service "web" { policy = "read" }`)
	verify.NoError(t, err)
	web, other := ChainID{Service: "web"}, ChainID{Service: "other"}
	f := follow(t, agent.URL(), token.SecretID, web, other)
	f.await(t, "the splitter", web, startsWith(NodeSplitter))
	consultest.Await(t, "the refusal", func() bool { return f.Lookup(other).Refused })
	got := f.Lookup(other)
	verify.That(t, got.Compiled == nil && strings.Contains(got.LastError.Error(), `service:read: service "other" { policy = "read" }`), "%v", got.LastError)

	policy.Rules = `service "other" { policy = "read" }`
	_, _, err = agent.Client().ACL().PolicyUpdate(policy, nil)
	verify.NoError(t, err)
	f.await(t, "the chain with the right", other, isDefault)
	consultest.Await(t, "the right is gone", func() bool { return f.Lookup(web).Refused })
	verify.That(t, startsWith(NodeSplitter)(f.Lookup(web).Compiled), "the chain is gone with the right")
	verify.NoError(t, agent.Stop())
	consultest.Await(t, "the outage", func() bool { c := f.Lookup(other); return c.LastError != nil && !c.Refused })
	verify.That(t, f.Lookup(other).Compiled != nil, "the chain is gone with Consul")
}

// The former chain is used for discovery.Stay after Consul has forgotten, whatever default chains
// it answers.
func TestHowLongForgottenChainsStay(t *testing.T) {
	chains := NewChains(ChainOptions{Wait: func() time.Duration { return time.Minute }, Log: zerolog.Nop()})
	written, plain, other := &Compiled{StartNode: "a"}, &Compiled{StartNode: "b", Default: true}, &Compiled{StartNode: "c", Default: true}
	now := time.Now()
	begin := func() *followedChain {
		f := &followedChain{owner: chains}
		verify.That(t, f.process(written, 10, now), "the first is no change")
		return f
	}

	f := begin()
	verify.That(t, f.process(plain, 11, now) && f.Compiled == plain, "a deletion is not used")
	verify.That(t, f.process(other, 5, now) && f.Compiled == plain && !f.KeptUntil.IsZero(), "another default chain, with another protocol")
	verify.That(t, f.process(plain, 12, now) == false && f.Lost == nil, "the chain as it was is written")

	f = begin()
	verify.That(t, f.process(plain, 9, now) && f.Compiled == written, "the chain that Consul has forgotten is not kept")
	until := now.Add(discovery.Stay)
	verify.That(t, !f.process(other, 12, now.Add(time.Minute)) && f.Compiled == written && f.KeptUntil.Equal(until), "kept: %+v", f.Chain)
	wait, expired := f.begin(until.Add(-10 * time.Second))
	verify.That(t, wait == 10*time.Second && !expired && f.Compiled == written, "waits %v, %v", wait, expired)
	wait, expired = f.begin(until)
	verify.That(t, wait == time.Minute && expired && f.Compiled == other && f.KeptUntil.IsZero(), "waits %v, %v", wait, expired)
	verify.That(t, f.process(plain, 13, until) && f.Compiled == plain, "a later default chain is not used")

	f = begin()
	f.process(plain, 9, now)
	earlier := now.Add(-24 * time.Hour) // the clock was put back
	f.begin(earlier)
	verify.That(t, f.KeptUntil.Equal(earlier.Add(discovery.Stay)), "kept until %v, and it is %v", f.KeptUntil, earlier)
	next := &Compiled{StartNode: "d"}
	verify.That(t, f.process(next, 12, now) && f.Compiled == next && f.KeptUntil.IsZero(), "a written chain is not used")
}

func TestDurationsOfConsul(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`"5s"`: 5 * time.Second, `"-1ns"`: -1, `""`: 0, `1500`: 1500, `null`: 0, `"1h2m3.5s"`: time.Hour + 2*time.Minute + 3500*time.Millisecond,
	} {
		var d Duration
		err := json.Unmarshal([]byte(text), &d)
		verify.That(t, err == nil && d == Duration(want), "%s: %v, %v", text, time.Duration(d), err)
	}
	for _, text := range []string{`"5"`, `{}`, `true`, `1e99`, `"5 s"`} {
		var d Duration
		verify.That(t, json.Unmarshal([]byte(text), &d) != nil, "%s: no error", text)
	}
}

func TestAnswersWithoutAChain(t *testing.T) {
	for text, want := range map[string]string{
		``: "cannot be read", `{}`: "no discovery chain", `{"Chain":null}`: "no discovery chain", `{"Chain":{}}`: "no discovery chain",
		`{"Chain":{"Nodes":[]}}`:                                                   "cannot be read",
		`{"Chain":{"ServiceName":"api","StartNode":"0"}}`:                          `of "api": want service "web"`,
		strings.Repeat(" ", 8<<20) + `{}`:                                          "want at most",
		`{"Chain":{"ServiceName":"web","StartNode":"0","Nodes":{` + many() + `}}}`: "want at most 4096",
	} {
		_, err := decodeChain([]byte(text), "web")
		verify.That(t, err != nil && strings.Contains(err.Error(), want), "%.60s: %v, want %s", text, err, want)
	}
}

// many returns more nodes than a chain may have.
func many() string {
	names := make([]string, maxChainNodes+1)
	for i := range names {
		names[i] = fmt.Sprintf(`"%d":{}`, i)
	}
	return strings.Join(names, ",")
}

// What a process writes of a chain is what the next one reads.
func TestEveryFieldOfAChainIsHandedOver(t *testing.T) {
	var want, got ChainState
	filled.New(t).Fill(&want)
	verify.NoError(t, json.Unmarshal(verify.Result(json.Marshal(want)).Must(t), &got))
	verify.DeepEqual(t, got, want, "the chain")
}

// No bytes make the decoder panic, and what it accepts, it reads again from what it writes.
func FuzzDecodeChain(f *testing.F) {
	f.Add([]byte(`{"Chain":{"ServiceName":"web","StartNode":"resolver:web.default.default.dc1","Nodes":{"resolver:web.default.default.dc1":` +
		`{"Type":"resolver","Name":"web.default.default.dc1","Resolver":{"Default":true,"ConnectTimeout":"5s","Target":"web.default.default.dc1"}}},` +
		`"Targets":{"web.default.default.dc1":{"ID":"web.default.default.dc1","Service":"web","SNI":"web.default.dc1.internal.x.consul"}}}}`))
	f.Add([]byte(`{"Chain":{"ServiceName":"web","StartNode":"r","Nodes":{"r":{"Type":"router","Routes":[null,{"Definition":{"Match":{"HTTP":{"Header":[{}]}},` +
		`"Destination":{"RequestTimeout":"-1s","RetryOn":["5xx"],"RequestHeaders":{"Add":{"a":"b"}}}},"NextNode":"r"}]},"s":{"Splits":[{"Weight":33.3}]}}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := decodeChain(body, "web")
		if err != nil {
			return
		}
		text := verify.Result(json.Marshal(struct{ Chain *Compiled }{c})).Must(t)
		again := verify.Result(decodeChain(text, "web")).Must(t)
		twice := verify.Result(json.Marshal(struct{ Chain *Compiled }{again})).Must(t)
		verify.Equal(t, string(twice), string(text), "read again")
	})
}
