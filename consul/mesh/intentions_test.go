package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// instanceOf returns an instance of a service in the mesh.
func instanceOf(service string) discovery.Instance {
	return discovery.Instance{Identity: "/ns/default/dc/dc1/svc/" + service}
}

type followedIntentions struct {
	*Intentions
	feed *events.Feed
	ends atomic.Int64 // calls of Denied
}

// webIs is the destination of what most tests follow.
var webIs = Destination{Service: "web"}

// newPaused returns intentions of sluice for web, which ask nobody.
func newPaused() *followedIntentions {
	f := newIntentions(nil)
	f.Pause()
	f.Follow("sluice", []Destination{webIs})
	return f
}

// read makes what is followed of web read an answer with one intention.
func (f *followedIntentions) read(ctx context.Context, running *sync.WaitGroup, index uint64, source, action string) error {
	body := fmt.Sprintf(`{"web": [{"SourceNS": "default", "SourceName": %q, "Action": %q}]}`, source, action)
	return f.followed[webIs].read(ctx, running, index, []byte(body))
}

func newIntentions(client *consul.Client) *followedIntentions {
	f := &followedIntentions{feed: events.New()}
	f.Intentions = NewIntentions(IntentionOptions{
		Consul: client, Wait: func() time.Duration { return wait }, Denied: func(Destination) { f.ends.Add(1) },
		Events: f.feed, Log: zerolog.Nop(),
	})
	return f
}

// followIntentions follows the intentions of sluice for services until t ends.
func followIntentions(t *testing.T, url, token string, services ...string) *followedIntentions {
	t.Helper()
	client := verify.Result(consul.New(consul.Options{Addresses: []string{url}, Token: token, Log: zerolog.Nop()})).Must(t)
	f := newIntentions(client)
	var destinations []Destination
	for _, s := range services {
		destinations = append(destinations, Destination{Service: s})
	}
	f.Follow("sluice", destinations)
	t.Cleanup(func() {
		f.Pause()
		client.Close()
	})
	return f
}

// of returns what is known about a service.
func (f *followedIntentions) of(service string) (found IntentionState) {
	for _, s := range f.All() {
		if s.Service == service {
			found = s
		}
	}
	return found
}

func (f *followedIntentions) await(t *testing.T, service string, v Verdict, why string) {
	t.Helper()
	consultest.Await(t, service+" is "+string(v)+" by "+why, func() bool {
		got := f.of(service)
		return got.Verdict == v && strings.Contains(got.Why, why)
	})
}

func intend(t *testing.T, agent *consultest.Agent, destination string, sources ...*api.SourceIntention) {
	t.Helper()
	write(t, agent, &api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: destination, Sources: sources})
}

func source(name string, action api.IntentionAction) *api.SourceIntention {
	return &api.SourceIntention{Name: name, Action: action}
}

// The first intention by precedence that is about sluice decides, in each case as Consul decides
// itself.
func TestIntentionsDecideAsConsulDoes(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{})
	f := followIntentions(t, agent.URL(), "", "web", "db")
	f.await(t, "web", Allowed, "the default")
	verify.That(t, f.Denial(instanceOf("web")) == nil && f.ends.Load() == 0, "allowed is denied")

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	allow, deny := api.IntentionActionAllow, api.IntentionActionDeny
	actions := []api.IntentionAction{allow, deny}
	for range 12 {
		var sources []*api.SourceIntention
		for _, name := range []string{"sluice", "*", "other"} {
			if random.IntN(2) == 0 {
				sources = append(sources, source(name, actions[random.IntN(2)]))
			}
		}
		if random.IntN(2) == 0 {
			sources = append(sources, &api.SourceIntention{Name: "sluice", Peer: "elsewhere", Action: deny})
		}
		random.Shuffle(len(sources), func(i, j int) { sources[i], sources[j] = sources[j], sources[i] })
		wildcard := []*api.SourceIntention{source("*", actions[random.IntN(2)])}
		if len(sources) > 0 {
			intend(t, agent, "web", sources...)
		} else {
			verify.Result(agent.Client().ConfigEntries().Delete(api.ServiceIntentions, "web", nil)).Must(t)
		}
		intend(t, agent, "*", wildcard...)
		_, meta, err := agent.Client().Connect().IntentionMatch(&api.IntentionMatch{By: api.IntentionMatchDestination, Names: []string{"web"}}, nil)
		verify.NoError(t, err)
		allowed, _, err := agent.Client().Connect().IntentionCheck(&api.IntentionCheck{Source: "sluice", Destination: "web"}, nil)
		verify.NoError(t, err)
		want := Denied
		if allowed {
			want = Allowed
		}
		consultest.Await(t, "what Consul says", func() bool {
			got := f.of("web")
			return got.Index >= meta.LastIndex && got.Verdict == want
		})
		verify.That(t, want == Allowed || f.Denial(instanceOf("web")) != nil, "no denial")
	}

	write(t, agent, &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "db", Protocol: "http"})
	intend(t, agent, "db", &api.SourceIntention{Name: "sluice", Permissions: []*api.IntentionPermission{
		{Action: deny, HTTP: &api.IntentionHTTPPermission{PathPrefix: "/admin"}},
	}}, source("*", deny))
	f.await(t, "db", ByRequest, "sluice → db (precedence 9)")
	ends := f.ends.Load()
	intend(t, agent, "db", source("*", deny))
	f.await(t, "db", Denied, "* → db (precedence 8)")
	verify.Equal(t, *f.Denial(instanceOf("db")), discovery.Denial{Source: "sluice", Destination: "db", Why: "the intention * → db (precedence 8)"}, "denial")
	consultest.Await(t, "both calls of Denied", func() bool { return f.ends.Load() >= ends+2 })
	verify.NoError(t, agent.Stop())
	consultest.Await(t, "the outage", func() bool { return f.of("db").LastError != "" })
	verify.That(t, f.Denial(instanceOf("db")) != nil, "what is known is gone with Consul")
}

// With default_policy = deny, what no intention allows is denied, and a missing right is named.
func TestIntentionsWithACLs(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, consultest.Options{ACLs: true})
	_, token, err := agent.NewToken("sluice", `service "web" { policy = "read" }`)
	verify.NoError(t, err)
	f := followIntentions(t, agent.URL(), token.SecretID, "web", "other")
	f.await(t, "web", Denied, "the default: no intention is about it")
	consultest.Await(t, "the refusal", func() bool { return f.of("other").LastError != "" })
	got := f.of("other")
	verify.That(t, got.Verdict == Unknown && strings.Contains(got.LastError, `intentions:read: service "other" { policy = "read" }`), "%+v", got)
	intend(t, agent, "web", source("sluice", api.IntentionActionAllow))
	f.await(t, "web", Allowed, "sluice → web (precedence 9)")
	feed := f.feed.All()
	verify.That(t, len(feed) == 2 && feed[0].Kind == events.KindDenied && feed[1].Kind == events.KindPermitted, "events %+v", feed)
}

// A turn to deny is reported once. Unknown is no deny. A Consul that has lost its state explains,
// and ends nothing. A new process goes on with what the old one knew.
func TestTurnsOfIntentions(t *testing.T) { synctest.Test(t, testTurns) }

func testTurns(t *testing.T) {
	f := newPaused()
	web := f.followed[webIs]
	denied := func() bool { return f.Denial(instanceOf("web")) != nil }
	verify.That(t, !denied(), "unknown is denied")
	verify.That(t, !web.process(Allowed, "a", 10) && !denied(), "allowed")
	verify.That(t, web.process(Denied, "b", 11) && denied(), "denied")
	verify.That(t, !web.process(Denied, "c", 12) && f.Denial(instanceOf("web")).Why == "c", "another intention that denies is no turn")
	verify.That(t, !web.process(ByRequest, "d", 13) && f.Denial(instanceOf("web")).Why == "c", "a denial that has just ended explains nothing")
	time.Sleep(denialLag)
	verify.That(t, !denied(), "by request")
	verify.That(t, !web.process(Denied, "e", 5) && denied(), "a lost state ends connections")
	named := instanceOf("web")
	named.ServerName = "web.default.external.internal.trust"
	verify.That(t, f.Denial(named) != nil, "in a data centre with the name external: no denial")
	peer := instanceOf("web")
	peer.Peer = "elsewhere"
	verify.That(t, f.Denial(peer) == nil && f.Denial(discovery.Instance{}) == nil && f.Denial(instanceOf("api")) == nil, "others are denied")

	var states []IntentionState
	verify.NoError(t, json.Unmarshal(verify.Result(json.Marshal(f.All())).Must(t), &states))
	next := newIntentions(nil)
	next.Pause()
	next.Restore(states)
	next.Follow("sluice", []Destination{webIs})
	verify.Equal(t, *next.Denial(instanceOf("web")), *f.Denial(instanceOf("web")), "in the new process")
	verify.That(t, !next.followed[webIs].process(Denied, "e", 6), "a turn in the new process")
	next.Follow("edge", []Destination{webIs})
	verify.That(t, next.Denial(instanceOf("web")) == nil, "what holds for another name counts")
	verify.Equal(t, len(next.feed.All()), 0, "events of the new process")
}

// Connections that a Consul without its state has denied and not ended end when somebody denies
// them.
func TestConnectionsThatALossHasSpared(t *testing.T) {
	f := newPaused()
	web := f.followed[webIs]
	const byDefault = "the default"
	for _, turn := range []struct {
		v     Verdict
		why   string
		index uint64
		ends  bool
	}{
		{Allowed, "sluice", 10, false},
		{Denied, byDefault, 3, false}, // its state is lost
		{Denied, byDefault, 4, false},
		{Denied, byDefault, 1, false}, // again
		{Denied, "*", 5, true},
		{Denied, "sluice", 6, false}, // there are none any more
		{Allowed, "sluice", 7, false},
		{Denied, byDefault, 2, false},
		{Allowed, "sluice", 8, false}, // written again
		{Denied, "sluice", 9, true},
		{Denied, "*", 10, false},
	} {
		verify.Equal(t, web.process(turn.v, turn.why, turn.index), turn.ends, "%+v", turn)
	}
}

// Connections end twice when a service begins to be denied, unless the watch has ended between:
// then nothing is left of it.
func TestEndsOfConnections(t *testing.T) {
	for _, ended := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newPaused()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var running sync.WaitGroup
			verify.NoError(t, f.read(ctx, &running, 1, "*", "allow"))
			verify.NoError(t, f.read(ctx, &running, 2, "*", "deny"))
			verify.Equal(t, f.ends.Load(), 1, "ends at once")
			if ended {
				cancel()
			}
			start := time.Now()
			running.Wait()
			verify.Equal(t, time.Since(start) == 0, ended, "the wait is over at once")
			time.Sleep(2 * denialLag)
			verify.Equal(t, f.ends.Load() == 1, ended, "no second end")
		})
	}
}

// A denial of another name that sluice takes ends nothing: the open connections have the former
// name. What is said of the other name afterwards counts as ever.
func TestAnotherNameEndsNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPaused()
		ends := func(name, action string, index uint64) int64 {
			f.Follow(name, []Destination{webIs})
			var running sync.WaitGroup
			verify.NoError(t, f.read(t.Context(), &running, index, name, action))
			ends := f.ends.Swap(0)
			running.Wait()
			f.ends.Store(0)
			return ends
		}
		verify.Equal(t, ends("sluice", "allow", 1), 0, "allowed")
		verify.Equal(t, ends("edge", "deny", 2), 0, "another name is denied")
		verify.That(t, f.Denial(instanceOf("web")) != nil, "the other name is not denied")
		verify.Equal(t, ends("edge", "allow", 3), 0, "allowed")
		verify.Equal(t, ends("edge", "deny", 4), 1, "denied")
	})
}

// An answer that arrives when sluice has taken another name is of a watch that is over: it ends
// nothing, and nothing is told of it.
func TestALateAnswerEndsNoConnection(t *testing.T) {
	f := newPaused()
	former := f.followed[webIs]
	f.Follow("edge", []Destination{webIs})
	verify.NoError(t, former.read(t.Context(), new(sync.WaitGroup), 1, []byte(`{"web": [{"SourceNS": "default", "SourceName": "*", "Action": "deny"}]}`)))
	verify.Equal(t, f.ends.Load(), 0, "ends")
	told, _ := f.feed.Read(events.Filter{}, events.ID{})
	verify.That(t, len(told) == 0 && f.of("web").Verdict == Unknown, "told %+v, the verdict is %s", told, f.of("web").Verdict)
}

// Who waits for a denial gets it when Consul says so. A wait in vain ends, and makes the next ones
// short.
func TestAwaitDenial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPaused()
		web := f.followed[webIs]
		web.process(Allowed, "a", 10)
		take := func(after time.Duration, v Verdict) { time.AfterFunc(after, func() { web.process(v, "b", 11) }) }
		wait := func() (*discovery.Denial, time.Duration) {
			start := time.Now()
			return f.AwaitDenial(t.Context(), instanceOf("web")), time.Since(start)
		}
		take(20*time.Millisecond, ByRequest)
		take(30*time.Millisecond, Denied)
		denial, took := wait()
		verify.That(t, denial != nil && took == 30*time.Millisecond, "got %v after %v", denial, took)
		web.process(Allowed, "a", 12)
		time.Sleep(denialLag)
		for _, want := range []time.Duration{denialPatience, 0, 0} {
			denial, took = wait()
			verify.That(t, denial == nil && took == want, "got %v after %v, want %v", denial, took, want)
		}
		time.Sleep(denialPause)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		start := time.Now()
		verify.That(t, f.AwaitDenial(ctx, instanceOf("web")) == nil && time.Since(start) == 10*time.Millisecond, "a client that leaves")
		verify.That(t, f.AwaitDenial(t.Context(), discovery.Instance{}) == nil, "outside of the mesh")
	})
}

func TestDestinations(t *testing.T) {
	for identity, want := range map[string]Destination{
		"/ns/default/dc/dc1/svc/web":        {Service: "web"},
		"/ap/east/ns/team/dc/dc1/svc/web":   {Partition: "east", Namespace: "team", Service: "web"},
		"/ap/default/ns/default/dc/d/svc/a": {Service: "a"},
		"/ns/default/dc/dc1":                {}, "/": {}, "svc": {}, "": {}, "/svc/": {},
	} {
		got, ok := DestinationOf(discovery.Instance{Identity: identity})
		verify.That(t, ok == (want.Service != ""), "%s: %v", identity, ok)
		if ok {
			verify.Equal(t, got, want, "%s", identity)
		}
	}
	all := NewIntentions(IntentionOptions{Namespace: "team"})
	verify.Equal(t, all.asked(all.complete(Destination{Service: "web"})), "web", "in the client's namespace")
	verify.Equal(t, all.asked(all.complete(Destination{Namespace: "default", Service: "web"})), "default/default/web", "in another one")
	verify.Equal(t, Destination{Namespace: "team", Service: "web"}.String(), "team/web", "text")
	verify.Equal(t, Destination{Partition: "east", Service: "web"}.String(), "east/default/web", "text")
}

// Whatever an agent answers, it is decoded or refused.
func FuzzDecodeMatch(f *testing.F) {
	f.Add([]byte(`{"web":null}`))
	f.Add([]byte(`{"web":[{"SourceNS":"default","SourceName":"*","DestinationName":"web","Action":"deny","Precedence":8,"Permissions":[{}]}]}`))
	f.Add([]byte(`{"web":[],"db":[]}`))
	f.Add([]byte(`[null]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		all, err := decodeMatch(body)
		if err != nil {
			return
		}
		v, _, found := decide(all, Destination{Service: "sluice"})
		verify.Equal(t, found, v != Unknown, "%s", v)
	})
}

// An intention for a service of another cluster, or of another partition or namespace, is not about
// sluice.
func TestIntentionsAboutOthers(t *testing.T) {
	source := Destination{Service: "sluice"}
	for _, other := range []intention{
		{SourceName: "sluice", SourceNS: "default", SourcePeer: "elsewhere"}, {SourceName: "*", SourceNS: "*", SourcePeer: "elsewhere"},
		{SourceName: "sluice", SourceNS: "team"}, {SourceName: "sluice", SourceNS: "default", SourcePartition: "east"}, {SourceName: "other"},
	} {
		other.Action = "deny"
		allowed := intention{SourceName: "*", SourceNS: "default", SourcePartition: "default", DestinationName: "web", Action: "allow", Precedence: 8}
		v, why, found := decide([]intention{other, allowed}, source)
		verify.That(t, found && v == Allowed && why == "the intention * → web (precedence 8)", "%+v: %s by %s", other, v, why)
	}
}
