package certificates

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/discovery"
)

// A Collection has the certificates in the keys of a key-value store, each as of its last
// good version. It is safe for concurrent use.
//
// A certificate is in use until a usable version replaces it: one with a key that fits, and that
// has not expired if the one in use has not. A certificate whose keys are gone stays in use for
// [discovery.Stay], or until its keys are written again, it expires, or others are valid for all of
// its names: a slip of an operator must not close a listener at once.
type Collection struct {
	source       string // of all keys, for people, such as "consul_kv:certs/web"
	changed      func(error)
	certificates atomic.Pointer[[]*tls.Certificate]

	mu sync.Mutex
	// mu guards the fields below, and calls of changed.
	known  bool                 // keys are from the store
	keys   map[string]string    // the latest values, by key
	held   map[string]*held     // by the key of the certificate
	gone   map[string]time.Time // when certificates of InUse's keys went, until the first Update
	fault  error                // why the keys cannot be read
	unread error                // why there is no certificate, for Statuses; nil: there is one
}

// held is a certificate of a Collection.
type held struct {
	pair        pair
	certificate *tls.Certificate // nil: no version was good
	chain       []*x509.Certificate
	goneSince   time.Time // when its keys were gone; zero: the store has them
	fault       error     // why the present version is not in use
}

// NewCollection returns a collection without certificates. changed is called after a change, as in
// Follow: with nil if other certificates are in use or an error is over, or with each new error. It
// must not call the Collection.
func NewCollection(source string, changed func(error)) *Collection {
	c := &Collection{source: source, changed: changed, held: make(map[string]*held), unread: errors.New("the keys were not read yet")}
	c.certificates.Store(new([]*tls.Certificate))
	return c
}

// Certificates returns the certificates in use, sorted by their keys. The caller must not
// change them.
func (c *Collection) Certificates() []*tls.Certificate { return *c.certificates.Load() }

// InUse is what a Collection has in use, for another one in its place: after a restart, or in a
// new process. It has private keys.
type InUse struct {
	Keys map[string]string    `json:"keys"`           // of the certificates in use
	Gone map[string]time.Time `json:"gone,omitempty"` // when their keys went, by key
}

// Suggest puts the certificates of an earlier collection into use, until an Update. After an
// Update, they count as if they had been in use before it.
func (c *Collection) Suggest(s InUse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.IsZero() {
		return
	}
	keys, now := c.keys, time.Now()
	c.keys, c.gone = s.Keys, maps.Clone(s.Gone)
	for name, since := range c.gone {
		if since.After(now) { // the clock was put back: it would stay as much longer
			c.gone[name] = now
		}
	}
	c.decideInUse(now)
	if c.known {
		c.keys, c.gone = keys, nil
		c.decideInUse(now)
	}
}

// Update sets the keys that the store has. The caller must not change them later.
func (c *Collection) Update(keys map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known, c.keys, c.gone, c.fault = true, keys, nil, nil
	c.decideInUse(time.Now())
}

// Fail says that the keys cannot be read until the next Update, and that waiting does not
// help. Their last values count.
func (c *Collection) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = err
}

// Refresh looks for certificates that have expired or become valid.
func (c *Collection) Refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known || c.keys != nil {
		c.decideInUse(time.Now())
	}
}

// InUse returns what is in use. The caller must not change it.
func (c *Collection) InUse() InUse {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := InUse{Keys: make(map[string]string)}
	for name, h := range c.held {
		if h.certificate == nil {
			continue
		}
		s.Keys[h.pair.certKey], s.Keys[h.pair.keyKey] = h.pair.text.cert, h.pair.text.key
		if !h.goneSince.IsZero() {
			if s.Gone == nil {
				s.Gone = make(map[string]time.Time)
			}
			s.Gone[name] = h.goneSince
		}
	}
	return s
}

// IsZero reports whether nothing is in use.
func (s InUse) IsZero() bool { return len(s.Keys) == 0 }

// Equal reports whether both have the same.
func (s InUse) Equal(other InUse) bool {
	return maps.Equal(s.Keys, other.Keys) && maps.EqualFunc(s.Gone, other.Gone, time.Time.Equal)
}

// decideInUse decides which certificates are in use. The caller holds mu.
func (c *Collection) decideInUse(now time.Time) {
	pairs := pairsOf(c.keys)
	for name := range pairs {
		if since := c.gone[name]; !since.IsZero() && now.Sub(since) >= discovery.Stay {
			delete(pairs, name)
		} else if c.held[name] == nil {
			c.held[name] = new(held)
		}
	}
	changed, recovered := false, false
	for _, name := range slices.Sorted(maps.Keys(c.held)) {
		h := c.held[name]
		p, present := pairs[name]
		switch since := c.gone[name]; {
		case !since.IsZero():
			h.goneSince = since
		case present:
			h.goneSince = time.Time{}
		case h.goneSince.IsZero():
			h.goneSince = now
		}
		var err error
		if !present {
			err = fmt.Errorf("its key is gone: the last version stays in use until %s, if it does not expire and no others are valid for its names", h.goneSince.Add(discovery.Stay).UTC().Format(time.RFC3339))
		} else if h.certificate == nil || p != h.pair {
			var used bool
			if used, err = h.putInUse(p, now); used {
				changed = true
			}
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", c.name(name), err)
			if h.fault == nil || h.fault.Error() != err.Error() {
				c.changed(err)
			}
		}
		recovered = recovered || h.fault != nil && err == nil
		h.fault = err
	}
	if c.drop(now) {
		changed = true
	}
	all := []*tls.Certificate{}
	for _, name := range slices.Sorted(maps.Keys(c.held)) {
		if h := c.held[name]; h.certificate != nil {
			all = append(all, h.certificate)
		}
	}
	c.unread = nil
	if len(c.held) == 0 {
		c.unread = errors.New("there is no certificate in its keys")
	}
	if changed {
		c.certificates.Store(&all)
	}
	if changed || recovered {
		c.changed(nil)
	}
}

// name returns the name of a key for people.
func (c *Collection) name(key string) string { return c.source + "/" + key }

// putInUse puts the version p into use if it can be used.
func (h *held) putInUse(p pair, now time.Time) (used bool, err error) {
	certificate, chain, err := p.parse()
	if err != nil {
		return false, err
	}
	if err := validity(chain, now); err != nil && h.certificate != nil && validity(h.chain, now) == nil {
		return false, err
	}
	h.pair, h.certificate, h.chain = p, certificate, chain
	return true, nil
}

// drop forgets certificates whose keys are gone, and reports whether one was in use.
func (c *Collection) drop(now time.Time) (dropped bool) {
	for name, h := range c.held {
		if !h.goneSince.IsZero() && (h.certificate == nil || now.Sub(h.goneSince) >= discovery.Stay || now.After(h.chain[0].NotAfter) || c.replaced(h, now)) {
			dropped = dropped || h.certificate != nil
			delete(c.held, name)
		}
	}
	return dropped
}

// replaced reports whether present certificates are valid for all names of h.
func (c *Collection) replaced(h *held, now time.Time) bool {
	for _, name := range names(h.chain) {
		valid := func(other *held) bool {
			return other.goneSince.IsZero() && other.certificate != nil && validity(other.chain, now) == nil && other.chain[0].VerifyHostname(name) == nil
		}
		if !slices.ContainsFunc(slices.Collect(maps.Values(c.held)), valid) {
			return false
		}
	}
	return true
}

// validity returns why a chain is not valid at the time now, or nil.
func validity(chain []*x509.Certificate, now time.Time) error {
	for _, c := range chain {
		if now.After(c.NotAfter) {
			return fmt.Errorf("%s has expired at %s", c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
		}
		if now.Before(c.NotBefore) {
			return fmt.Errorf("%s is not valid before %s", c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// Statuses returns the status of each certificate, or one that says why there is none.
func (c *Collection) Statuses() []Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unread != nil {
		return []Status{{File: c.source, Fault: errors.Join(c.fault, c.unread)}}
	}
	var all []Status
	for _, name := range slices.Sorted(maps.Keys(c.held)) {
		h := c.held[name]
		all = append(all, StatusOf(c.name(name), names(h.chain), h.chain, cmp.Or(h.fault, c.fault)))
	}
	return all
}

// pair is a certificate and its private key, in one key or in two.
type pair struct {
	certKey, keyKey string
	text            text
	missing         string // the key that there is not; "": there are both
}

// pairSuffixes are the ends of the keys of a certificate and of its private key, which are
// equal before. The first two are fabio's, the third are Traefik's.
var pairSuffixes = []struct{ cert, key string }{{"-cert.pem", "-key.pem"}, {".crt", ".key"}, {"/certFile", "/keyFile"}}

// pairsOf returns the pairs in keys, by the key of the certificate. Other keys are ignored.
func pairsOf(keys map[string]string) map[string]pair {
	pairs := make(map[string]pair)
	add := func(cert, key string) {
		p := pair{certKey: cert, keyKey: key}
		var hasCert, hasKey bool
		p.text.cert, hasCert = keys[cert]
		p.text.key, hasKey = keys[key]
		if !hasCert {
			p.missing = cert
		} else if !hasKey {
			p.missing = key
		}
		pairs[cert] = p
	}
	for name := range keys {
		i := slices.IndexFunc(pairSuffixes, func(s struct{ cert, key string }) bool {
			return strings.HasSuffix("/"+name, s.cert) || strings.HasSuffix("/"+name, s.key)
		})
		if i >= 0 {
			s := pairSuffixes[i]
			stem := strings.TrimSuffix(strings.TrimSuffix("/"+name, s.cert), s.key)
			add(strings.TrimPrefix(stem+s.cert, "/"), strings.TrimPrefix(stem+s.key, "/"))
		} else if strings.HasSuffix(name, ".pem") {
			add(name, name)
		}
	}
	return pairs
}

func (p pair) parse() (*tls.Certificate, []*x509.Certificate, error) {
	if p.missing != "" {
		return nil, nil, fmt.Errorf("there is no key %s", p.missing)
	}
	return Files{Cert: p.certKey, Key: p.keyKey}.parsePair(p.text)
}
