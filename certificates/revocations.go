package certificates

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// maxCRLBytes is the maximum size of a file of revoked certificates: some 200,000 of them.
const maxCRLBytes = 8 << 20

// Revocations are the lists of revoked certificates (CRL, RFC 5280, section 5) in a file, one for
// each authority. They do not change. nil has none.
type Revocations struct {
	lists      map[authorityKey][]*revocationList // the newest last
	distrusted map[string]bool                    // trusted certificates that are revoked, by DER
}

// authorityKey is who signs certificates and their list; it may have several certificates.
type authorityKey struct{ subject, key string }

type revocationList struct {
	issuer      string // for people
	from, until time.Time
	serials     map[string]bool
}

func keyOfAuthority(c *x509.Certificate) authorityKey {
	return authorityKey{string(c.RawSubject), string(c.RawSubjectPublicKeyInfo)}
}

// parseRevocations returns the lists in text, PEM or one in DER. One of trusted must sign each.
func parseRevocations(name, text string, trusted []*x509.Certificate) (*Revocations, error) {
	data := []byte(text)
	if cut(data) {
		return nil, fmt.Errorf("%s ends within a list", name)
	}
	var lists [][]byte
	block, rest := pem.Decode(data)
	if block == nil {
		lists = append(lists, data)
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "X509 CRL" {
			lists = append(lists, block.Bytes)
		}
	}
	if len(lists) == 0 {
		return nil, fmt.Errorf("%s has no list of revoked certificates", name)
	}
	r := &Revocations{lists: make(map[authorityKey][]*revocationList), distrusted: make(map[string]bool)}
	for _, der := range lists {
		if err := r.add(der, trusted); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, c := range trusted {
		for _, issuer := range trusted {
			if string(c.RawIssuer) == string(issuer.RawSubject) && revoke(r.counting(keyOfAuthority(issuer), time.Now()), c) && c.CheckSignatureFrom(issuer) == nil {
				r.distrusted[string(c.Raw)] = true
			}
		}
	}
	return r, nil
}

// add adds a list. One with a critical extension may mean something else, such as a part of a list.
func (r *Revocations) add(der []byte, trusted []*x509.Certificate) error {
	parsed, err := x509.ParseRevocationList(der)
	if err != nil {
		return fmt.Errorf("not a list of revoked certificates: %w", err)
	}
	l := &revocationList{issuer: parsed.Issuer.String(), from: parsed.ThisUpdate, until: parsed.NextUpdate, serials: make(map[string]bool, len(parsed.RevokedCertificateEntries))}
	var unknown asn1.ObjectIdentifier
	for _, e := range parsed.Extensions {
		if e.Critical {
			unknown = e.Id
		}
	}
	for i := range parsed.RevokedCertificateEntries {
		entry := &parsed.RevokedCertificateEntries[i]
		for _, e := range entry.Extensions {
			if e.Critical {
				unknown = e.Id
			}
		}
		l.serials[string(entry.SerialNumber.Bytes())] = true
	}
	signs := func(c *x509.Certificate) bool {
		return string(c.RawSubject) == string(parsed.RawIssuer) && parsed.CheckSignatureFrom(c) == nil
	}
	i := slices.IndexFunc(trusted, signs)
	switch {
	case unknown != nil:
		return fmt.Errorf("the list of %s has the critical extension %s: want a complete list of one authority", l.issuer, unknown)
	case l.until.IsZero():
		return fmt.Errorf("the list of %s does not say when the next one comes", l.issuer)
	case i < 0:
		return fmt.Errorf("the list of %s is signed by none of the trusted certificates", l.issuer)
	}
	key := keyOfAuthority(trusted[i])
	r.lists[key] = append(r.lists[key], l)
	slices.SortStableFunc(r.lists[key], func(a, b *revocationList) int { return a.from.Compare(b.from) })
	return nil
}

// counting returns the lists of an authority that count at a time: the newest that has begun,
// if there is one, and later ones. What those revoke is revoked already.
func (r *Revocations) counting(of authorityKey, now time.Time) []*revocationList {
	lists := r.lists[of]
	for len(lists) > 1 && !lists[1].from.After(now) {
		lists = lists[1:]
	}
	return lists
}

func revoke(lists []*revocationList, c *x509.Certificate) bool {
	return slices.ContainsFunc(lists, func(l *revocationList) bool { return l.serials[string(c.SerialNumber.Bytes())] })
}

// goOn keeps the list of before for authorities whose list in r has not begun. r is not shared yet.
func (r *Revocations) goOn(before *Revocations, now time.Time) {
	if r == nil || before == nil {
		return
	}
	for of, lists := range r.lists {
		if former := before.counting(of, now); lists[0].from.After(now) && len(former) > 0 && !former[0].from.After(now) {
			r.lists[of] = slices.Insert(lists, 0, former[0])
		}
	}
}

// distrusts reports whether a list revokes a trusted certificate.
func (r *Revocations) distrusts(c *x509.Certificate) bool {
	return r != nil && r.distrusted[string(c.Raw)]
}

// Verify returns why no chain of a client's certificate is valid at a time; nil: one is, or there
// is no certificate. Each certificate below a trusted one needs a valid list of its authority,
// which does not revoke it.
func (r *Revocations) Verify(chains [][]*x509.Certificate, now time.Time) (err error) {
	for _, chain := range chains {
		if err = r.verify(chain, now); err == nil {
			return nil
		}
	}
	return err
}

func (r *Revocations) verify(chain []*x509.Certificate, now time.Time) error {
	for i, c := range chain[:len(chain)-1] {
		lists := r.counting(keyOfAuthority(chain[i+1]), now)
		switch {
		case len(lists) == 0:
			return fmt.Errorf("there is no list of the certificates that %s has revoked", c.Issuer)
		case now.After(lists[0].until):
			return fmt.Errorf("the list of the certificates that %s has revoked has expired at %s", c.Issuer, lists[0].until.UTC().Format(time.RFC3339))
		case now.Before(lists[0].from):
			return fmt.Errorf("the list of the certificates that %s has revoked is not valid before %s", c.Issuer, lists[0].from.UTC().Format(time.RFC3339))
		case revoke(lists, c):
			return fmt.Errorf("%w: %s, serial number %x", errRevoked, c.Subject, c.SerialNumber)
		}
	}
	return nil
}

var errRevoked = errors.New("the certificate is revoked")

// Revokes reports whether lists revoke a certificate of each chain. Expired lists count, too:
// the clients were verified before.
func (r *Revocations) Revokes(chains [][]*x509.Certificate) bool {
	return r != nil && len(chains) > 0 && !slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool {
		for i, c := range chain {
			if r.distrusts(c) {
				return false
			}
			if i+1 == len(chain) {
				break
			}
			if revoke(r.counting(keyOfAuthority(chain[i+1]), time.Now()), c) {
				return false
			}
		}
		return true
	})
}

// status returns the state of the present lists, of which the one that expires first counts.
func (r *Revocations) status(file string) Status {
	s := Status{File: file, Kind: KindRevocations}
	for of := range r.lists {
		l := r.counting(of, time.Now())[0]
		s.Names = append(s.Names, l.issuer)
		if s.Expires.IsZero() || l.until.Before(s.Expires) {
			s.between(l.from, l.until)
		}
	}
	slices.Sort(s.Names)
	return s
}
