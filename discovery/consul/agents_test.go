package consul

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/discoverytest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// cluster is several agents of one fake data centre, and one watched service.
type cluster struct {
	t       *testing.T
	agents  []*discoverytest.Consul
	client  *testClient
	manager *discovery.Manager
	log     subprocess.Output
	begin   time.Time
	mu      sync.Mutex
	sets    int // that Sink got
}

// inCluster runs f with n agents whose hosts are agent-0, agent-1, …
func inCluster(t *testing.T, n int, f func(t *testing.T, c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, begin: time.Now()}
		pipes := make(map[string]*discoverytest.Pipe)
		var addresses []string
		for k := range n {
			fake := discoverytest.New()
			c.agents = append(c.agents, fake)
			host := fmt.Sprintf("agent-%d", k)
			pipes[host+":80"] = discoverytest.ServePipe(fake)
			addresses = append(addresses, "http://"+host)
		}
		c.register("a", "b")
		log := zerolog.New(&c.log)
		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			return pipes[address].DialContext(ctx, network, address)
		}
		c.client = verify.Result(newClient(consul.Options{Addresses: addresses, Log: log, Dial: dial})).Must(t)
		c.manager = discovery.NewManager(discovery.ManagerOptions{
			Log: log,
			Sink: func(discovery.Set) {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.sets++
			},
		})
		c.manager.Watch("star", c.client.Source(ServiceOptions{Service: "star"}))
		t.Cleanup(func() {
			c.client.Close()
			for _, p := range pipes {
				p.Close()
			}
		})
		run(t, c.manager)
		f(t, c)
	})
}

// inSettledCluster is inCluster, ten seconds after the start.
func inSettledCluster(t *testing.T, n int, f func(t *testing.T, c *cluster)) {
	inCluster(t, n, func(t *testing.T, c *cluster) {
		c.at(10 * sec)
		f(t, c)
	})
}

// register registers the instances of star at every agent.
func (c *cluster) register(ids ...string) {
	for _, fake := range c.agents {
		b := bubble{Consul: fake}
		b.set(strings.Join(ids, " "))
	}
}

func (c *cluster) at(d time.Duration) {
	time.Sleep(time.Until(c.begin.Add(d)))
	synctest.Wait()
}

func (c *cluster) status() discovery.WatchStatus {
	synctest.Wait()
	return c.manager.Statuses()[0]
}

// expect checks the agent and the state of the watch.
func (c *cluster) expect(agent int, state discovery.Freshness) {
	c.t.Helper()
	s := c.status()
	verify.Require(c.t, s.Endpoint == fmt.Sprintf("http://agent-%d", agent) && s.State == state,
		"%v after the start: status %+v, want agent %d, %v\n%s", time.Since(c.begin), s, agent, state, &c.log)
}

var dead, hanging = discoverytest.Fault{Drop: true}, discoverytest.Fault{Hang: true}

// While another agent answers without an error, the one that has failed may start again empty, and
// remove its instances one by one.
func TestInstancesRemovedAfterAChangeOfTheAgentAreOnProbation(t *testing.T) {
	inSettledCluster(t, 2, func(t *testing.T, c *cluster) {
		c.agents[0].Break(dead)
		c.at(11 * sec)
		c.expect(1, discovery.WatchFresh)
		c.register("a")
		c.at(12 * sec)
		s := c.status()
		verify.That(t, s.Errors == 0 && s.Instances == 2 && s.Probation == 1, "b is not on probation: %+v", s)
		c.at(25 * sec)
		verify.Equal(t, c.status().Instances, 1, "instances, long after the change of the agent")
	})
}

func TestDeadAgentIsReplacedAtOnce(t *testing.T) {
	inSettledCluster(t, 3, func(t *testing.T, c *cluster) {
		c.expect(0, discovery.WatchFresh)
		c.agents[1].Break(dead)
		c.agents[0].Break(dead)
		c.at(11 * sec)
		c.expect(2, discovery.WatchFresh)
		verify.Equal(t, c.status().Errors, 0, "errors")
		verify.Equal(t, countLines(c.log.String(), `"level":"warn"`, `"instead_of":`), 1, "lines about the change in %s", &c.log)
		c.register("a", "b", "c")
		c.at(11*sec + ms)
		verify.Equal(t, c.status().Instances, 3, "instances")
	})
}

func TestHangingAgentIsReplacedWithinSeconds(t *testing.T) {
	for begin := range 5 {
		inCluster(t, 2, func(t *testing.T, c *cluster) {
			at := 10*sec + time.Duration(begin)*250*ms
			c.at(at)
			c.agents[0].Break(hanging)
			c.at(at + 2500*ms)
			c.expect(1, discovery.WatchFresh)
		})
	}
}

func TestAgentThatFailsOnlyQueriesIsReplaced(t *testing.T) {
	inSettledCluster(t, 2, func(t *testing.T, c *cluster) {
		c.agents[0].Break(discoverytest.Fault{Status: 500, Body: "rpc error", Only: func(discoverytest.Request) bool { return true }})
		c.at(15 * sec)
		c.expect(1, discovery.WatchFresh)
		for after := 15 * sec; after <= 5*time.Minute; after += sec {
			c.at(after)
			// It answers probes, so it is tried again from time to time.
			s := c.status()
			verify.Require(t, s.State == discovery.WatchFresh || time.Since(s.Since) <= 3*sec, "after %v: status %+v", after, s)
		}
	})
}

func TestInvalidQueryDoesNotChangeTheAgent(t *testing.T) {
	inSettledCluster(t, 2, func(t *testing.T, c *cluster) {
		for _, fake := range c.agents {
			fake.Break(discoverytest.Fault{Status: 400, Body: "bad filter", Only: func(discoverytest.Request) bool { return true }})
		}
		c.at(60 * sec)
		c.expect(0, discovery.WatchStale)
		verify.Equal(t, countLines(c.log.String(), `"instead_of":`), 0, "lines about a change in %s", &c.log)
	})
}

// The agents answer for the other services.
func TestServiceThatFailsAtEveryAgentDoesNotChangeTheAgent(t *testing.T) {
	inCluster(t, 2, func(t *testing.T, c *cluster) {
		for _, fake := range c.agents {
			fake.Break(discoverytest.Fault{Status: 500, Body: "rpc error", Only: func(r discoverytest.Request) bool { return r.Service == "sun" }})
		}
		c.manager.Watch("sun", c.client.Source(ServiceOptions{Service: "sun"}))
		c.at(time.Hour)
		c.expect(0, discovery.WatchFresh)
		got := countLines(c.log.String(), `"instead_of":`)
		verify.That(t, got <= 10, "the agent was changed %d times in an hour", got)
	})
}

func TestPreferredAgentIsUsedAgainAfterATime(t *testing.T) {
	inSettledCluster(t, 2, func(t *testing.T, c *cluster) {
		c.agents[0].Break(dead)
		c.at(20 * sec)
		c.agents[0].Heal()
		c.at(29 * sec)
		c.expect(1, discovery.WatchFresh)
		n := len(c.agents[1].Requests())
		c.at(52 * sec) // returnMin, as much again at random, two probes and the spread
		c.expect(0, discovery.WatchFresh)
		got := len(c.agents[1].Requests()) - n
		verify.That(t, got <= 12, "%d further queries to the second agent, want renewals only: one in 2 s, since views may lag", got)
		s := c.status()
		verify.That(t, s.Errors == 0 && s.Changes == 1, "status %+v", s)
	})
}

func TestFlappingAgentIsUsedLessOften(t *testing.T) {
	t.Parallel()
	inCluster(t, 2, func(t *testing.T, c *cluster) {
		for n := range 60 { // healthy for 30 s, dead for 30 s
			c.at(time.Duration(n) * time.Minute)
			c.agents[0].Heal()
			c.at(time.Duration(n)*time.Minute + 30*sec)
			c.agents[0].Break(dead)
		}
		got := countLines(c.log.String(), `"level":"info"`, `"instead_of":`)
		verify.That(t, got <= 2, "it was used again %d times in an hour", got)
		c.expect(1, discovery.WatchFresh)
	})
}

// Whether a query hangs at that moment, or a watch waits.
func TestOnlyAgentIsQueriedAtOnceAfterItsRecovery(t *testing.T) {
	t.Parallel()
	for _, outage := range []struct {
		fault  discoverytest.Fault
		every  time.Duration // another moment
		within time.Duration
	}{
		{hanging, 1300 * ms, 1200 * ms},                           // a probe that hangs, another one, and the spread
		{discoverytest.Fault{NoLeader: true}, 700 * ms, 900 * ms}, // a probe and the spread
	} {
		for n := range 10 {
			inSettledCluster(t, 1, func(t *testing.T, c *cluster) {
				c.agents[0].Break(outage.fault)
				at := 20*sec + time.Duration(n)*outage.every
				c.at(at)
				c.expect(0, discovery.WatchStale)
				c.register("a", "b", "c")
				c.agents[0].Heal()
				c.at(at + outage.within)
				c.expect(0, discovery.WatchFresh)
				verify.Equal(t, c.status().Instances, 3, "instances")
			})
		}
	}
}

func TestViewsAreBypassedAfterAnOutage(t *testing.T) {
	inSettledCluster(t, 1, func(t *testing.T, c *cluster) {
		c.agents[0].Break(discoverytest.Fault{NoLeader: true})
		c.at(40 * sec)
		view := func(r discoverytest.Request) bool { return r.Index > 0 && r.Near == "" }
		c.agents[0].Break(discoverytest.Fault{Hang: true, Only: view})
		c.register("a", "b", "c")
		c.at(41 * sec)
		c.expect(0, discovery.WatchFresh)
		for n, ids := range [][]string{{"a", "b"}, {"a", "b", "c"}, {"a"}} {
			at := 60*sec + time.Duration(n)*20*sec
			c.at(at)
			c.register(ids...)
			c.at(at + 200*ms) // debounce
			verify.Equal(t, c.status().Instances, len(ids), "instances at %v", at)
		}
		c.agents[0].Heal()
		c.at(5 * time.Minute)
		requests := c.agents[0].Requests()
		last := requests[len(requests)-1]
		verify.That(t, view(last), "views are still bypassed: %+v", last)
	})
}

// An agent that is slow because it is busy would have to answer all queries again.
func TestShortHangCancelsNoQueries(t *testing.T) {
	inSettledCluster(t, 1, func(t *testing.T, c *cluster) {
		before := len(c.agents[0].Requests())
		for n := range 5 {
			from := 10*sec + time.Duration(n)*5*sec
			c.agents[0].Break(discoverytest.Fault{Hang: true})
			c.at(from + 1200*ms)
			c.agents[0].Heal()
			c.at(from + 5*sec)
		}
		verify.Equal(t, len(c.agents[0].Requests()), before, "queries after five short hangs")
		c.expect(0, discovery.WatchFresh)
		c.agents[0].Break(discoverytest.Fault{Hang: true})
		c.at(39 * sec)
		c.agents[0].Heal()
		c.at(42 * sec)
		verify.That(t, len(c.agents[0].Requests()) > before, "no query after an outage of 4 s")
	})
}

func TestProbesAreFew(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		c.at(10 * time.Minute)
		got := c.agents[0].Probes()
		verify.That(t, got >= 400 && got <= 600, "%d probes of the agent in use in 600 s", got)
		verify.Equal(t, c.agents[1].Probes()+c.agents[2].Probes(), 0, "probes of the others")
	})
}

// During an election the agent alternates between a leader and none.
func TestLogHasLastingConditionsOnly(t *testing.T) {
	for _, tt := range []struct {
		name      string
		without   time.Duration // a leader, each time
		with      time.Duration
		times     int
		bad, good int // lines
	}{
		{"a moment", 400 * ms, 10 * sec, 5, 0, 0},
		{"a long election", 1200 * ms, 700 * ms, 20, 1, 1},
		{"outages", 10 * sec, 10 * sec, 3, 3, 3},
	} {
		inSettledCluster(t, 1, func(t *testing.T, c *cluster) {
			for range tt.times {
				c.agents[0].Break(discoverytest.Fault{Leaderless: true})
				time.Sleep(tt.without)
				c.agents[0].Heal()
				time.Sleep(tt.with)
			}
			time.Sleep(10 * sec)
			log := c.log.String()
			verify.Equal(t, countLines(log, `"condition":"degraded"`), tt.bad, "%s: lines with degraded in %s", tt.name, log)
			verify.Equal(t, countLines(log, `"condition":"healthy"`), tt.good, "%s: lines with healthy in %s", tt.name, log)
		})
	}
}
