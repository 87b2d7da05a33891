package certificates

import (
	"cmp"
	"crypto/x509"
	"slices"
	"time"
)

// longestWarning is the maximum time before the end of a certificate in which its
// state is Expiring.
const longestWarning = 14 * 24 * time.Hour

// A Kind is what a file has.
type Kind uint8

const (
	KindCertificate Kind = iota
	KindTrusted          // trusted certificates
	KindRevocations      // lists of revoked certificates
	KindTicketKeys       // keys of session tickets
)

func (k Kind) String() string {
	return [...]string{"certificate", "trusted", "revoked", "ticket_keys"}[k]
}

// Status describes a certificate of a Follower or a Collection, or what else TLS needs.
type Status struct {
	File  string // its path or key; of trusted certificates, it may be a directory
	Kind  Kind
	Names []string // hosts of the certificate, or its subject; else subjects of authorities
	// Begin and Expires bound the validity of a certificate's whole chain, of the trusted
	// certificate that expires last, or of the list of revoked ones that expires first.
	Begin, Expires time.Time
	// Told: its Source logs what is wrong with it, so that Warnings do not.
	Told  bool
	Fault error // why earlier files are used, not the present ones; nil: the present ones are

	warnAt time.Time
}

// A State is the validity of a certificate at a time.
type State uint8

const (
	Valid State = iota
	NotYetValid
	Expiring // within 14 days, and the last third of its life
	Expired
	Missing // it was not obtained yet
)

func (s State) String() string {
	return [...]string{"valid", "not yet valid", "expiring", "expired", "missing"}[s]
}

// State returns the validity at the time now.
func (s Status) State(now time.Time) State {
	switch {
	case s.Kind == KindTicketKeys:
		return Valid
	case s.Expires.IsZero():
		return Missing
	case now.After(s.Expires):
		return Expired
	case now.Before(s.Begin):
		return NotYetValid
	case now.After(s.warnAt):
		return Expiring
	}
	return Valid
}

// Statuses returns the status of what there is, as of the last Read.
func (f *Follower) Statuses() []Status {
	f.mu.Lock()
	fault := f.fault
	f.mu.Unlock()
	contents := f.Contents()
	var all []Status
	if chain := contents.chain; len(chain) > 0 {
		all = append(all, StatusOf(f.files.Cert, names(chain), chain, fault))
	}
	if trusted := contents.trusted; len(trusted) > 0 {
		all = append(all, StatusOfTrusted(cmp.Or(f.files.CA, f.files.CADirectory), trusted, fault))
	}
	if contents.Revocations != nil {
		s := contents.Revocations.status(f.files.CRL)
		s.Fault = fault
		all = append(all, s)
	}
	if contents.TicketKeys != nil {
		all = append(all, Status{File: f.files.TicketKeys, Kind: KindTicketKeys, Fault: fault})
	}
	return all
}

func byExpiry(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }

// names returns the hosts of the first certificate of a chain, or its subject if it has none.
func names(chain []*x509.Certificate) []string {
	if len(chain) == 0 {
		return nil
	}
	c := chain[0]
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		all = append(all, c.Subject.String())
	}
	return all
}

// between sets the times of validity.
func (s *Status) between(begin, end time.Time) {
	s.Begin, s.Expires = begin, end
	s.warnAt = end.Add(-min(longestWarning, end.Sub(begin)/3))
}

// StatusOf returns the status of a certificate. source is its path, or in place of one, fault is
// why the present version or a renewal cannot be used. Without a chain it is Missing.
func StatusOf(source string, hosts []string, chain []*x509.Certificate, fault error) Status {
	s := Status{File: source, Names: hosts, Fault: fault}
	if len(chain) > 0 {
		first := slices.MinFunc(chain, byExpiry)
		s.between(first.NotBefore, first.NotAfter)
	}
	for _, c := range chain {
		if c.NotBefore.After(s.Begin) {
			s.Begin = c.NotBefore
		}
	}
	return s
}

// StatusOfTrusted is StatusOf for trusted certificates, of which there is at least one.
func StatusOfTrusted(source string, trusted []*x509.Certificate, fault error) Status {
	s := Status{File: source, Kind: KindTrusted, Fault: fault}
	for _, c := range trusted {
		s.Names = append(s.Names, c.Subject.String())
	}
	last := slices.MaxFunc(trusted, byExpiry)
	s.between(last.NotBefore, last.NotAfter)
	return s
}

// RenewedBy returns s of a certificate with a renewal before a time: until then it is not Expiring.
func (s Status) RenewedBy(at time.Time) Status {
	s.warnAt = at
	return s
}
