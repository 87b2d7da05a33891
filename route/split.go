package route

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"sluice/balancer"
)

// Split divides the requests of a route among groups of the service's peers. It does not
// change after it is in a Table, and is safe for concurrent use.
//
// Each client has a point from 0 to 1, a hash of the seed and the client's key. The first
// share owns the points from 0 to its size, the next one the points that follow, and Rest what
// is left. So a larger share of a single group takes clients from Rest only, a smaller
// one gives some back, and replicas agree on each client.
type Split struct {
	// Shares are the groups other than Rest.
	Shares []Share
	Rest   *balancer.Group
	// Fallback gets the requests to a group without a usable peer, and requests whose
	// group has no other peer for a retry. nil: none.
	Fallback *balancer.Group
	Key      SplitKey
	// Seed makes splits independent of each other; usually the service's name.
	Seed string
	// Judged passes clients on to [balancer.Group.OnDone], with the mark of the share: see
	// [ShareMark]. 0: it does not.
	Judged uint8
}

// marksPerOdds is how many marks there are from a share to one with e times its odds.
const marksPerOdds = 12

// ShareMark returns a number above 0 by which an attempt says with which share its client was
// assigned. Shares with the same one are nearly the same: their odds differ by a twelfth at most,
// for shares from 0.003 % to 99.997 %.
func ShareMark(share float64) uint8 {
	mark := marksPerOdds * math.Log(share/(1-share))
	return uint8(128 + math.Round(max(-127, min(mark, 127))))
}

// JudgedClient returns the [balancer.Query.Client] of a client that Assign has returned: a part of
// its number, and the mark of the share.
func (s *Split) JudgedClient(client uint64) uint32 {
	if s.Judged == 0 {
		return 0
	}
	return uint32(client)<<8 | uint32(s.Judged)
}

// SplitJudged returns the client and the mark in what JudgedClient has returned.
func SplitJudged(judged uint64) (client uint64, mark uint8) { return judged >> 8, uint8(judged) }

// Share is the part of the clients that one group gets.
type Share struct {
	Group *balancer.Group
	Size  float64 // from 0 to 1
}

// All returns Shares, and what is left for Rest.
func (s *Split) All() []Share {
	rest := 1.
	for _, share := range s.Shares {
		rest -= share.Size
	}
	return append(slices.Clip(s.Shares), Share{s.Rest, max(rest, 0)})
}

// ToGroup returns a split that sends every request to one group.
func ToGroup(group *balancer.Group) *Split {
	return &Split{Rest: group, Key: SplitKey{Source: SplitNone}}
}

// SplitKey is what identifies a client. A request without it has a random point.
type SplitKey struct {
	Source SplitSource
	Header string // with SplitHeader: the name in lower case
}

// SplitSource is the kind of a SplitKey.
type SplitSource uint8

const (
	// SplitCookie is the cookie SplitCookieName, which sluice sets.
	SplitCookie SplitSource = iota
	// SplitHeader is the value of the first field of that name.
	SplitHeader
	// SplitClientAddress is the client's IP address, as HashClientAddress.
	SplitClientAddress
	// SplitNone is nothing: each request has a random point.
	SplitNone
)

// SplitCookieName is the name of the cookie with 64 random bits that identifies a client,
// for all services of a host.
const SplitCookieName = "sluice_client"

var splitKeys = map[string]SplitSource{"cookie": SplitCookie, "client_address": SplitClientAddress, "none": SplitNone}

// ParseSplitKey reads a key of the configuration: "cookie", "header NAME",
// "client_address" or "none".
func ParseSplitKey(s string) (SplitKey, error) {
	if name, ok := strings.CutPrefix(s, "header "); ok && isToken(name) {
		return SplitKey{SplitHeader, strings.ToLower(name)}, nil
	}
	source, known := splitKeys[s]
	if !known {
		return SplitKey{}, fmt.Errorf(`split key %q: want "cookie", "header NAME", "client_address" or "none"`, s)
	}
	return SplitKey{Source: source}, nil
}

// String returns the key in the form of ParseSplitKey.
func (k SplitKey) String() string {
	for name, source := range splitKeys {
		if source == k.Source {
			return name
		}
	}
	return "header " + k.Header
}

// Group returns the group of the client with that key; an empty one is a random client.
// It allocates nothing.
func (s *Split) Group(key []byte) *balancer.Group {
	group, _ := s.Assign(key)
	return group
}

// Assign is Group, and also returns a number above 0 that identifies the client, or 0
// without shares.
func (s *Split) Assign(key []byte) (group *balancer.Group, client uint64) {
	if len(s.Shares) == 0 {
		return s.Rest, 0
	}
	if len(key) > 0 {
		client = hashOf(s.Seed, key)
	} else {
		client = rand.Uint64()
	}
	point := float64(client>>11) / (1 << 53)
	client = max(client, 1)
	for i := range s.Shares {
		if point -= s.Shares[i].Size; point < 0 {
			return s.Shares[i].Group, client
		}
	}
	return s.Rest, client
}

// hashOf returns the hash of a client's key. Hashes with different seeds are independent.
func hashOf(seed string, key []byte) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(xxhash.Sum64String(seed))
	_, _ = d.Write(key) // never fails
	return d.Sum64()
}
