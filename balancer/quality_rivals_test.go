package balancer

import (
	"math/rand/v2"
	"time"

	"sluice/bench/quality/scenario"
)

// counting is what the models of others have in common.
type counting struct {
	inflight []int
	weights  []int
	turns    []int // smooth weighted round robin; see inTurn
	random   *rand.Rand
}

func newCounting(peers []scenario.Peer, random *rand.Rand) counting {
	c := counting{inflight: make([]int, len(peers)), turns: make([]int, len(peers)), random: random}
	for i := range peers {
		c.weights = append(c.weights, max(peers[i].Weight, 1))
	}
	return c
}

func (c *counting) take(i int) int {
	c.inflight[i]++
	return i
}

func (c *counting) done(i int, _ *answered) { c.inflight[i]-- }

// fewer reports whether peer i has fewer requests in flight than j, for its weight.
func (c *counting) fewer(i, j int) bool {
	return c.inflight[i]*c.weights[j] < c.inflight[j]*c.weights[i]
}

// draw returns a random peer, by weight.
func (c *counting) draw() int {
	at := c.random.IntN(sumOf(c.weights))
	for i, w := range c.weights {
		if at -= w; at < 0 {
			return i
		}
	}
	panic("unreachable")
}

// taking makes a rival of a function that chooses by the requests in flight.
func taking(name string, choose func(*counting) int) rival {
	return rival{name: name, forgets: name[0] == 'n' || name[0] == 'H', new: func(peers []scenario.Peer, random *rand.Rand) chooser {
		return &choosing{newCounting(peers, random), choose}
	}}
}

type choosing struct {
	counting
	choose func(*counting) int
}

func (c *choosing) pick(time.Duration, *scenario.Request) int { return c.take(c.choose(&c.counting)) }

func inTurn(c *counting) int { return c.next(func(int) bool { return true }) }

// next takes the peers for which among is true in turn, as nginx does: smooth weighted round robin.
func (c *counting) next(among func(int) bool) int {
	best, sum := -1, 0
	for i, w := range c.weights {
		if !among(i) {
			continue
		}
		c.turns[i] += w
		if sum += w; best < 0 || c.turns[i] > c.turns[best] {
			best = i
		}
	}
	c.turns[best] -= sum
	return best
}

// leastInTurn takes the fewest requests in flight, ties in turn.
func leastInTurn(c *counting) int {
	least := 0
	for i := range c.inflight {
		if c.fewer(i, least) {
			least = i
		}
	}
	return c.next(func(i int) bool { return !c.fewer(least, i) })
}

// ofTwo takes the better of two different random peers.
func ofTwo(c *counting) int {
	i, j := c.draw(), c.draw()
	for j == i {
		j = c.draw()
	}
	return c.better(i, j)
}

// ofTwoDraws takes the better of two random peers, which may be the same.
func ofTwoDraws(c *counting) int { return c.better(c.draw(), c.draw()) }

// better returns the peer with fewer requests in flight, the first one of equal ones.
func (c *counting) better(i, j int) int {
	if c.fewer(j, i) {
		return j
	}
	return i
}

// own is sluice's own picker.
type own struct {
	balancer *balancerModel
	random   *rand.Rand
}

func ownPolicy(p Policy) rival {
	return rival{name: "`" + string(p) + "`", new: func(peers []scenario.Peer, random *rand.Rand) chooser {
		return newOwn(p, peers, random)
	}}
}

func newOwn(p Policy, peers []scenario.Peer, random *rand.Rand) *own {
	servers := fleet(len(peers), server{}, nil)
	for i := range peers {
		servers[i].weight = peers[i].Weight
	}
	return &own{balancer: newBalancerModel(&simulation{policy: p, servers: servers}, random), random: random}
}

// replace makes another peer of peer i.
func (o *own) replace(i int) {
	p := o.balancer.peers[i]
	p.latency.reset()
	p.measured.Store(0)
}

// The clock starts late, so the first samples are not very recent ones.
const clockStart = int64(time.Hour)

func (o *own) pick(now time.Duration, _ *scenario.Request) int {
	peer := o.balancer.picker.pick(Query{random: o.random.Uint64}, clockStart+int64(now), &o.balancer.cursor)
	peer.load.Add(1)
	return o.balancer.index[peer]
}

func (o *own) done(i int, a *answered) {
	peer := o.balancer.peers[i]
	details := Details{Endpoint: endpointOf(a.route)}
	peer.measure(Outcome{Class: a.class, Latency: a.latency, Details: details}, clockStart+int64(a.start))
	peer.load.Add(-1)
}

// endpointOf returns the Outcome.Endpoint of a route.
func endpointOf(route int) uint32 { return uint32(route+1) * 0x9e3779b1 }

// rivals are the load balancers of the experiment, sluice's default first.
func rivals() []rival {
	return []rival{
		ownPolicy(PolicyEWMA), ownPolicy(PolicyLeastConn),
		taking("nginx round robin", inTurn), taking("nginx `least_conn`, HAProxy `leastconn`", leastInTurn),
		taking("nginx `random two`, Traefik `p2c`, YARP", ofTwo), taking("HAProxy `random(2)`, Envoy least request", ofTwoDraws),
	}
}
