package dns

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sluice/discovery"
)

// lookup finds the instances that DNS has. It is not safe for concurrent use.
type lookup struct {
	resolver
	service string
	options Options
	targets map[string]*target // of SRV records
}

// maxInstances limits the instances of a service: each of thousands of SRV records in an answer may
// name a target with thousands of addresses.
const maxInstances = 10_000

// targetsTimeout limits the queries of the targets of one answer.
const targetsTimeout = 5 * time.Second

// target is a target of SRV records. It is queried itself if the answer has no address of it.
type target struct {
	addresses []netip.Addr // the last ones
	until     time.Time    // when they are queried again; zero: they were not
	err       error        // of the last query
	failures  int          // of queries, in a row
	used      bool         // in the last answer
}

// found is what DNS has.
type found struct {
	answer                       // its last part; absent: why there are no instances
	set     []discovery.Instance // normalised
	missing error                // of records that the set lacks; nil: none
}

// find queries the instances. elsewhere, if not nil, is the server to ask last. The error means
// that nothing is known.
func (l *lookup) find(ctx context.Context, elsewhere *server) (found, error) {
	var f found
	var err error
	if l.options.Type == SRV {
		f, err = l.findServices(ctx, elsewhere)
	} else {
		f, err = l.findAddresses(ctx, elsewhere)
	}
	if err == nil && len(f.set) == 0 && f.absent == "" {
		err = f.missing // there are records, and none of them is an instance
	}
	f.set = discovery.Normalize(f.set)
	return f, err
}

// findAddresses queries A and AAAA records.
func (l *lookup) findAddresses(ctx context.Context, elsewhere *server) (f found, err error) {
	f.ttl = maxInterval
	known := maxInterval // how long it is known that a type has no records
	for _, kind := range l.options.Type.kinds() {
		a, err := l.records(ctx, l.options.Name, kind, elsewhere)
		if err != nil {
			return found{}, err
		}
		f.from, f.mayBeCut, f.cut = a.from, f.mayBeCut || a.mayBeCut, f.cut || a.cut
		if a.absent != "" {
			f.absent, known = cmp.Or(f.absent, a.absent), min(known, a.ttl)
			continue
		}
		f.ttl = min(f.ttl, a.ttl)
		for _, address := range addressesOf(a.records, kind) {
			i := discovery.Instance{Service: l.service, Address: address.String(), Port: l.options.Port, Weight: 1}
			i.ID = i.HostPort()
			f.set = append(f.set, i)
		}
	}
	if len(f.set) > 0 {
		f.absent = ""
	} else {
		f.ttl = known
	}
	return f, nil
}

// findServices queries SRV records and the addresses of their targets.
func (l *lookup) findServices(ctx context.Context, elsewhere *server) (found, error) {
	a, err := l.records(ctx, l.options.Name, dnsmessage.TypeSRV, elsewhere)
	if err != nil {
		return found{}, err
	}
	f := found{answer: a}
	if len(a.records) == 1 && a.records[0].target == "" {
		f.absent = l.options.Name + `: the target is ".": the service is not available`
		return f, nil
	}
	// Of several records of an instance the first one counts, whatever their order in the answer.
	slices.SortStableFunc(a.records, func(a, b record) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(b.weight, a.weight))
	})
	weighted := make(map[uint16]bool) // priorities with a weight above 0
	for _, r := range a.records {
		if r.weight > 0 {
			weighted[r.priority] = true
		}
	}
	for _, t := range l.targets {
		t.used = false
	}
	asking := time.Now().Add(targetsTimeout)
	for _, r := range a.records {
		addresses, ttl, err := l.addressesOf(ctx, r, a.additional, asking)
		if ctx.Err() != nil {
			return found{}, ctx.Err()
		}
		if err != nil && f.missing == nil {
			f.missing = fmt.Errorf("SRV record of %s: %w", l.options.Name, err)
		}
		f.ttl = min(f.ttl, ttl)
		weight := int(r.weight)
		if !weighted[r.priority] {
			weight = 1
		}
		if len(f.set)+len(addresses) > maxInstances {
			return found{}, fmt.Errorf("SRV records of %s: more than %d instances", l.options.Name, maxInstances)
		}
		for _, address := range addresses {
			f.set = append(f.set, discovery.Instance{
				Service: l.service, ID: net.JoinHostPort(r.target, strconv.Itoa(int(r.port))), Address: address.String(), Port: int(r.port),
				Weight: weight, Priority: int(r.priority),
			})
		}
	}
	for name, t := range l.targets {
		if !t.used {
			delete(l.targets, name)
		}
	}
	return f, nil
}

// addressesOf returns the addresses of an SRV record: the ones in the answer, or else the ones that
// its target has in a query of its own, which is not sent after the time asking. The error says
// what is wrong; then the addresses are the last ones. The time until its target is queried again
// doubles with each failure, from minInterval to maxRetry.
func (l *lookup) addressesOf(ctx context.Context, r record, additional []record, asking time.Time) ([]netip.Addr, time.Duration, error) {
	if r.port == 0 || !discovery.IsHostName(r.target) {
		return nil, maxInterval, fmt.Errorf("target %q, port %d: want a host name and a port", r.target, r.port)
	}
	var own []record
	ttl := maxInterval
	for _, a := range additional {
		if a.name == r.target {
			own, ttl = append(own, a), min(ttl, a.ttl)
		}
	}
	t := l.targets[r.target]
	if t == nil {
		t = &target{}
		l.targets[r.target] = t
	}
	t.used = true
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		if list := addressesOf(own, kind); len(list) > 0 {
			*t = target{addresses: list, used: true} // a later answer may not have them
			return list, ttl, nil
		}
	}
	now := time.Now()
	if left := t.until.Sub(now); left > 0 {
		return t.addresses, left, t.err
	}
	if now.After(asking) {
		return t.addresses, minInterval, errNotAsked
	}
	list, ttl, err := l.confirmedAddresses(ctx, r.target, t.addresses)
	if err == nil {
		t.addresses, t.failures = list, 0
	} else { // however short it is known that there are none
		ttl = min(minInterval<<min(t.failures, 5), maxRetry)
		t.failures++
	}
	t.err, t.until = err, now.Add(max(ttl, minInterval))
	return t.addresses, ttl, err
}

var errNotAsked = fmt.Errorf("there was no time to query the target within %v", targetsTimeout)

// remember records the addresses that instances of an earlier run have, for targets whose query
// fails.
func (l *lookup) remember(known []discovery.Instance) {
	for _, i := range known {
		host, _, err := net.SplitHostPort(i.ID)
		address, addressErr := netip.ParseAddr(i.Address)
		if err != nil || addressErr != nil || l.options.Type != SRV {
			continue
		}
		t := l.targets[host]
		if t == nil {
			t = &target{}
			l.targets[host] = t
		}
		t.addresses = append(t.addresses, address)
	}
}
