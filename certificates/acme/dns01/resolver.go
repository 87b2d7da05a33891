package dns01

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/miekg/dns"

	"sluice/discovery/locality"
	"sluice/observe/panics"
)

const (
	// serverTimeout limits a query to one server by UDP, and by TCP.
	serverTimeout = 2 * time.Second
	// maxAliases is the maximum length of a chain of CNAME records.
	maxAliases = 8
)

// A resolver asks name servers, "host:port", in order. Names: in lower case, without a final dot.
type resolver []string

// newResolver returns the resolver with these servers; none: those of the system.
func newResolver(servers []string) resolver { return certmagic.RecursiveNameservers(servers) }

// ask returns the answer of the first server that knows whether a name has records of a type.
func (r resolver) ask(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	var errs []error
	for _, server := range r {
		answer, err := query(ctx, server, name, kind)
		if err == nil {
			return answer, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// query asks a server by UDP, and by TCP if that gives no whole answer.
func query(ctx context.Context, server, name string, kind uint16) (answer *dns.Msg, err error) {
	message := new(dns.Msg)
	message.SetQuestion(dns.Fqdn(name), kind)
	message.SetEdns0(1232, false)
	for _, network := range []string{"udp", "tcp"} {
		if answer, err = exchange(ctx, network, server, message); ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err == nil && !answer.Truncated {
			break
		}
	}
	if err == nil && answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError {
		err = errors.New(dns.RcodeToString[answer.Rcode])
	}
	if err != nil {
		return nil, fmt.Errorf("name server %s: %s: %w", server, name, err)
	}
	return answer, nil
}

func exchange(ctx context.Context, network, server string, message *dns.Msg) (*dns.Msg, error) {
	dialer := locality.NewDialer(locality.ByOperator, serverTimeout)
	client := &dns.Client{Net: network, Timeout: serverTimeout, Dialer: &dialer}
	conn, err := client.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() {
		defer panics.Contain(panics.Task, nil)
		conn.Close()
	})()
	answer, _, err := client.ExchangeWithConnContext(ctx, message, conn)
	return answer, err
}

// isName reports whether a name from DNS may be passed on to a program, or into a zone file.
func isName(name string) bool { return len(name) <= 253 && namePattern.MatchString(name) }

var namePattern = regexp.MustCompile(`^[a-z0-9_][a-z0-9._-]*$`)

// target returns the name at the end of a name's CNAME records: the owner may have delegated it.
func (r resolver) target(ctx context.Context, name string) (string, error) {
	for range maxAliases + 1 {
		answer, err := r.ask(ctx, name, dns.TypeCNAME)
		if err != nil {
			return "", err
		}
		at := slices.IndexFunc(answer.Answer, func(record dns.RR) bool {
			return record.Header().Rrtype == dns.TypeCNAME && normal(record.Header().Name) == name
		})
		if at < 0 {
			return name, nil
		}
		if name = normal(answer.Answer[at].(*dns.CNAME).Target); !isName(name) {
			return "", fmt.Errorf("a CNAME record leads to %q: want letters, digits, '-', '_' or '.'", name)
		}
	}
	return "", fmt.Errorf("more than %d CNAME records in a chain", maxAliases)
}

func normal(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func (r resolver) zone(ctx context.Context, name string) (string, error) {
	for at := name; at != ""; _, at, _ = strings.Cut(at, ".") {
		answer, err := r.ask(ctx, at, dns.TypeSOA)
		if err != nil {
			return "", err
		}
		// For a name that is no zone, the answer has the zone above it.
		for _, record := range slices.Concat(answer.Answer, answer.Ns) {
			zone := normal(record.Header().Name)
			if record.Header().Rrtype == dns.TypeSOA && zone != "" && (zone == at || strings.HasSuffix(at, "."+zone)) {
				return zone, nil
			}
		}
	}
	return "", fmt.Errorf("%s: no name server says which zone has it", name)
}

// A nameServer has a zone.
type nameServer struct {
	name      string
	addresses []string // "host:port"
}

// authorities returns the servers of a zone: those of r that say so, else those of its NS records.
func (r resolver) authorities(ctx context.Context, zone string) (all []nameServer, err error) {
	for _, server := range r {
		if answer, err := query(ctx, server, zone, dns.TypeSOA); err == nil && answer.Authoritative {
			all = append(all, nameServer{server, []string{server}})
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	answer, err := r.ask(ctx, zone, dns.TypeNS)
	if err != nil {
		return nil, err
	}
	for _, record := range answer.Answer {
		if ns, ok := record.(*dns.NS); ok {
			s := nameServer{name: normal(ns.Ns)}
			if s.addresses, err = r.addresses(ctx, s.name); err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: there are no NS records", zone)
	}
	return all, nil
}

// addresses returns the addresses of a name server.
func (r resolver) addresses(ctx context.Context, name string) (all []string, err error) {
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		answer, err := r.ask(ctx, name, kind)
		if err != nil {
			return nil, err
		}
		for _, record := range answer.Answer {
			switch address := record.(type) {
			case *dns.A:
				all = append(all, net.JoinHostPort(address.A.String(), "53"))
			case *dns.AAAA:
				all = append(all, net.JoinHostPort(address.AAAA.String(), "53"))
			}
		}
	}
	return all, nil
}

// lack returns why not all servers have a record yet; nil: they have. A silent server does not
// count if another one answers: an authority asks another one too.
func lack(ctx context.Context, servers []nameServer, name, value string) error {
	answered := false
	var errs []error
	for _, s := range servers {
		for _, address := range s.addresses {
			answer, err := query(ctx, address, name, dns.TypeTXT)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if !slices.ContainsFunc(answer.Answer, func(record dns.RR) bool {
				text, ok := record.(*dns.TXT)
				return ok && strings.Join(text.Txt, "") == value
			}) {
				return fmt.Errorf("name server %s does not have it", s.name)
			}
			answered = true
			break
		}
	}
	if answered {
		return nil
	}
	return errors.Join(append(errs, errors.New("no name server of the zone answers"))...)
}
