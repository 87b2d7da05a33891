package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sluice/discovery"
	"sluice/discovery/locality"
	"sluice/observe/wake"
)

const (
	// The time between two queries is the TTL, within these limits.
	minInterval, maxInterval = time.Second, 5 * time.Minute

	// maxAbsence limits the time between two queries while there are no instances: the
	// first one is needed soon.
	maxAbsence = 10 * time.Second

	// confirmations is how often an answer without instances is confirmed, at confirmEvery:
	// an instance that is back is found as soon.
	confirmations = 7
	confirmEvery  = time.Second

	// After an error the time doubles from minInterval to maxRetry.
	maxRetry = 5 * time.Second

	// maxUnseen is in how many answers in a row, which may be cut, an instance is absent
	// until it counts as missing.
	maxUnseen = 8
)

// Type is the type of the records.
type Type string

// Values of Type.
const (
	SRV  Type = "srv"
	A    Type = "a"
	AAAA Type = "aaaa"
	IP   Type = "ip" // A and AAAA
)

// kinds returns the types of address records.
func (t Type) kinds() []dnsmessage.Type {
	switch t {
	case A:
		return []dnsmessage.Type{dnsmessage.TypeA}
	case AAAA:
		return []dnsmessage.Type{dnsmessage.TypeAAAA}
	}
	return []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA}
}

// Options select the instances of a service.
type Options struct {
	// Name is absolute: there is no list of domains to search.
	Name string `key:"name" format:"dns_name" required:"yes"`
	Type Type   `key:"type" default:"srv" oneof:"srv|a|aaaa|ip"` // of the records
	// Port is that of the instances. SRV records have their own.
	Port int `key:"port" default:"0" min:"0" max:"65535"`
	// Server is short for one of Servers, in a configuration only.
	Server string `key:"server" format:"dns_server"`
	// Servers are "host:port", in order of preference; at least one.
	Servers []string `key:"servers" format:"dns_server"`

	// Probation is the maximum time on probation; see discovery.Guard. 0: no probation.
	Probation time.Duration `key:"probation" default:"10m" min:"0s" max:"24h"`
}

// NewSource returns a source for a service of sluice. It may run several times, but not
// concurrently. control is of who has named the servers.
func NewSource(service string, o Options, control locality.Control) discovery.Source {
	d := locality.NewDialer(control, 0)
	return &source{service: service, options: o, dial: d.DialContext, timing: timing{minInterval, confirmEvery, serverTimeout}}
}

type source struct {
	service string
	options Options
	dial    dialer
	timing
}

// timing has the constants of these names, which tests of real servers shorten.
type timing struct{ minInterval, confirmEvery, serverTimeout time.Duration }

// String describes the records. Sources with the same records have the same description, also
// with other servers.
func (s *source) String() string {
	text := fmt.Sprintf("dns %s %q", strings.ToUpper(string(s.options.Type)), normal(s.options.Name))
	if s.options.Port != 0 {
		text += fmt.Sprintf(", port %d", s.options.Port)
	}
	return text
}

// Addresses implements discovery.Addressed: other servers may see another zone.
func (s *source) Addresses() string { return strings.Join(s.options.Servers, ",") }

// Run implements discovery.Source.
func (s *source) Run(ctx context.Context, before discovery.WatchState, report func(discovery.Report)) error {
	w := s.newWatch(before, report)
	defer w.close()
	timer := time.NewTimer(0)
	for {
		if err := wake.Await(ctx, timer.C); err != nil {
			return err
		}
		timer.Reset(w.poll(ctx))
	}
}

// watch is one run of a source. Only its goroutine uses it.
type watch struct {
	lookup
	*discovery.Watcher
	timing

	doubts   int                   // answers in a row that there are no instances
	failures int                   // in a row
	unseen   map[discovery.Key]int // of the known instances: in answers in a row
}

// newWatch returns a watch that continues with the set of before.
func (s *source) newWatch(before discovery.WatchState, report func(discovery.Report)) *watch {
	w := &watch{
		lookup: lookup{service: s.service, options: s.options, targets: make(map[string]*target)},
		// Consul's DNS leaves out critical instances.
		Watcher: discovery.NewWatcher(discovery.Guard{Probation: s.options.Probation, PassingOnly: true}, before, report),
		timing:  s.timing,
	}
	w.remember(before.Set)
	for _, address := range s.options.Servers {
		w.servers = append(w.servers, &server{address: address, dial: s.dial, timeout: s.serverTimeout})
	}
	return w
}

// poll queries once, reports the result, and returns the time until the next query.
func (w *watch) poll(ctx context.Context) time.Duration {
	f, err := w.find(ctx, nil)
	if ctx.Err() != nil {
		return 0
	}
	if err != nil {
		return w.failed(err)
	}
	if f.absent != "" && len(w.Guard.Absent(nil)) > 0 {
		if w.doubts++; w.doubts <= confirmations {
			w.Failed(fmt.Errorf("%s (from %s, answer %d of %d before the known instances count as lost)", f.absent, f.from.address, w.doubts, confirmations+1))
			return w.confirmEvery
		}
	}
	switch {
	case f.absent == "" && f.cut:
		f.missing = cmp.Or(f.missing, fmt.Errorf("%s: %w", f.from.address, errIncomplete))
		f.set = w.complete(f.set, math.MaxInt)
	case f.absent == "" && f.mayBeCut:
		f.set = w.complete(f.set, maxUnseen)
	default:
		w.unseen = nil
	}
	if f.absent == "" && len(w.Guard.Absent(f.set)) > 0 {
		if f, err = w.confirm(ctx, f); ctx.Err() != nil {
			return 0
		}
		if err != nil {
			return w.failed(fmt.Errorf("confirm the answer: %w", err))
		}
	}
	return w.accept(f)
}

// failed reports an error.
func (w *watch) failed(err error) time.Duration {
	w.Failed(err)
	w.doubts = 0
	wait := min(w.minInterval<<min(w.failures, 5), maxRetry)
	w.failures++
	return spread(wait, wait)
}

// confirm repeats the query of an answer that lacks instances, at another server if there is
// one. An instance is missing if both answers lack it.
func (w *watch) confirm(ctx context.Context, first found) (found, error) {
	again, err := w.find(ctx, first.from)
	if err != nil || again.absent != "" {
		return first, err
	}
	again.set = discovery.Normalize(append(again.set, first.set...))
	return again, nil
}

var errIncomplete = errors.New("the answer is cut, as the server does with more records than fit: it adds instances, and removes none")

// complete adds the known instances to a set that may be cut, unless they are absent for the
// longest time.
func (w *watch) complete(set []discovery.Instance, longest int) []discovery.Instance {
	unseen := make(map[discovery.Key]int)
	for _, i := range w.Guard.Absent(set) {
		key := i.Key()
		if unseen[key] = w.unseen[key] + 1; unseen[key] < longest && len(set) < maxInstances {
			set = append(set, i)
		}
	}
	w.unseen = unseen
	return discovery.Normalize(set)
}

// accept reports an answer.
func (w *watch) accept(f found) time.Duration {
	w.doubts, w.failures = 0, 0
	w.Accept(discovery.Report{Set: f.set, Endpoint: f.from.address, Err: f.missing}, discovery.Memory{})
	longest := maxInterval
	if f.absent != "" {
		longest = maxAbsence
	}
	wait := min(max(f.ttl, w.minInterval), longest)
	return w.Guard.Within(time.Now(), spread(wait, wait/5))
}

// spread returns a random time of which d is the middle and width the range.
func spread(d, width time.Duration) time.Duration {
	return d - width/2 + rand.N(cmp.Or(width, 1))
}
