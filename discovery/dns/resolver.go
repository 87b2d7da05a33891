package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// maxAliases is the maximum length of a chain of CNAME records.
	maxAliases = 8
	// penalty is how long a server that has failed is asked after the others.
	penalty = 30 * time.Second
)

// resolver asks servers. It is not safe for concurrent use.
type resolver struct {
	servers []*server // in order of preference
}

func (r *resolver) close() {
	for _, s := range r.servers {
		s.close()
	}
}

// ask asks the servers in order until one answers: first those that have not failed recently.
// elsewhere, if not nil, is asked last. The error has the errors of all servers.
func (r *resolver) ask(ctx context.Context, q question, elsewhere *server) (*reply, *server, error) {
	rank := func(s *server) int {
		switch {
		case !s.failedAt.IsZero() && time.Since(s.failedAt) < penalty:
			return 2
		case s == elsewhere:
			return 1
		}
		return 0
	}
	order := slices.Clone(r.servers)
	slices.SortStableFunc(order, func(a, b *server) int { return rank(a) - rank(b) })
	var errs []error
	for _, s := range order {
		reply, err := s.ask(ctx, q)
		if err == nil {
			s.failedAt = time.Time{}
			return reply, s, nil
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if !errors.Is(err, errRefuses) { // which costs no time
			s.failedAt = time.Now()
		}
		errs = append(errs, err)
	}
	return nil, nil, errors.Join(errs...)
}

// answer is the records of one type that a name has.
type answer struct {
	records    []record
	additional []record // of the last reply: addresses
	from       *server
	ttl        time.Duration // the smallest; of no records, how long that is known
	absent     string        // why there are no records; empty: there are
	mayBeCut   bool
	cut        bool
}

// records returns the records of a type that a name has. It follows CNAME records.
func (r *resolver) records(ctx context.Context, name string, kind dnsmessage.Type, elsewhere *server) (answer, error) {
	q := newQuestion(name, kind)
	a := answer{ttl: maxInterval}
	for range maxAliases + 1 {
		reply, from, err := r.ask(ctx, q, elsewhere)
		if err != nil {
			return answer{}, err
		}
		owner, err := a.read(reply, normal(q.name), kind)
		if err != nil {
			return answer{}, fmt.Errorf("dns server %s: %w", from.address, err)
		}
		a.from, a.additional, a.mayBeCut, a.cut = from, reply.additional, a.mayBeCut || reply.mayBeCut, a.cut || reply.cut
		switch {
		case len(a.records) > 0:
			return a, nil
		case reply.nxdomain:
			a.absent, a.ttl = fmt.Sprintf("%s: NXDOMAIN: there is no such name", owner), reply.negative
			return a, nil
		case owner == normal(q.name):
			a.absent, a.ttl = fmt.Sprintf("%s: there are no %s records", owner, strings.TrimPrefix(kind.String(), "Type")), reply.negative
			return a, nil
		}
		q = newQuestion(owner, kind)
	}
	return answer{}, errAliases
}

var errAliases = fmt.Errorf("more than %d CNAME records in a chain", maxAliases)

// read takes the records of name from a reply, and returns the name at the end of its aliases.
func (a *answer) read(r *reply, name string, kind dnsmessage.Type) (owner string, err error) {
	owner = name
	for range maxAliases + 1 {
		alias := slices.IndexFunc(r.answers, func(c record) bool { return c.kind == dnsmessage.TypeCNAME && c.name == owner })
		if alias < 0 {
			for _, c := range r.answers {
				if c.kind == kind && c.name == owner {
					a.records = append(a.records, c)
					a.ttl = min(a.ttl, c.ttl)
				}
			}
			return owner, nil
		}
		a.ttl = min(a.ttl, r.answers[alias].ttl)
		owner = r.answers[alias].target
	}
	return "", errAliases
}

// confirmedAddresses is addresses. If an answer lacks a known address, it adds a second answer,
// of another server if there is one.
func (r *resolver) confirmedAddresses(ctx context.Context, target string, known []netip.Addr) ([]netip.Addr, time.Duration, error) {
	list, ttl, from, err := r.addresses(ctx, target, nil)
	lost := func(a netip.Addr) bool { return !slices.Contains(list, a) }
	if err != nil || !slices.ContainsFunc(known, lost) {
		return list, ttl, err
	}
	again, _, _, err := r.addresses(ctx, target, from)
	if err != nil {
		return nil, 0, err
	}
	list = slices.Concat(list, again)
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list), ttl, nil
}

// addresses returns the addresses of a target, sorted: IPv4 or, without any, IPv6. The error says
// why there are none. elsewhere, if not nil, is the server to ask last.
func (r *resolver) addresses(ctx context.Context, target string, elsewhere *server) (list []netip.Addr, ttl time.Duration, from *server, err error) {
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		a, err := r.records(ctx, target, kind, elsewhere)
		if err != nil {
			return nil, 0, nil, err
		}
		if len(a.records) > 0 {
			return addressesOf(a.records, kind), a.ttl, a.from, nil
		}
		ttl = a.ttl
	}
	return nil, ttl, nil, fmt.Errorf("%s has no address", target)
}

// addressesOf returns the addresses in records of a type, sorted, each once.
func addressesOf(records []record, kind dnsmessage.Type) []netip.Addr {
	var list []netip.Addr
	for _, r := range records {
		if r.kind == kind {
			list = append(list, r.address)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}
