package mesh

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/consul"
	"sluice/observe/events"
)

// condition is the kind of problem that an identity has, reported once: its error may change
// meanwhile. The zero value: none.
type condition struct {
	kind    conditionKind
	refusal string // of Consul; "": it refuses nothing
}

type conditionKind uint8

const (
	fine conditionKind = iota
	pending
	missing
	expired
	refused
	unfitting
	overdue
)

// of returns c with a kind.
func (c condition) of(kind conditionKind) condition { return condition{kind, c.refusal} }

// Err returns why new connections to members of the mesh fail, or will soon; nil: they do not.
func (i *Identity) Err() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, err := i.condition(time.Now())
	return err
}

// Refused reports whether Consul refuses the certificate, so that waiting does not help.
func (i *Identity) Refused() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.refusal() != nil
}

// refusal returns the error with which Consul refuses a query; nil: none. The caller holds mu.
func (i *Identity) refusal() error {
	for _, err := range []error{i.leafError, i.rootsError} {
		if consul.Refused(err) {
			return err
		}
	}
	return nil
}

// condition returns what is wrong at the time now. The caller holds mu.
func (i *Identity) condition(now time.Time) (c condition, err error) {
	refusal := i.refusal()
	if refusal != nil {
		c.refusal = refusal.Error()
	}
	why := cmp.Or(refusal, i.leafError, i.rootsError, i.unfit)
	m := i.current.Load()
	switch {
	case i.service == "":
		return condition{}, errors.New("sluice is not in the mesh")
	// What is wrong with the roots may be wrong with the leaf too.
	case m == nil && (why == nil || i.leaf == nil && i.leafError == nil):
		return condition{kind: pending}, fmt.Errorf("no certificate of the mesh for service %q yet: no answer from Consul yet", i.service)
	case m == nil:
		return c.of(missing), fmt.Errorf("no certificate of the mesh for service %q yet: %w", i.service, why)
	case now.After(m.Expires()):
		return c.of(expired), fmt.Errorf("the certificate of the mesh for service %q has expired at %s: %w", i.service, utc(m.Expires()), cmp.Or(why, errNoRenewal))
	case refusal != nil:
		return c.of(refused), fmt.Errorf("the certificate of the mesh for service %q is not renewed, and expires at %s: %w", i.service, utc(m.Expires()), refusal)
	case i.unfit != nil && now.Sub(i.unfitSince) >= unfitFor:
		return c.of(unfitting), fmt.Errorf("what Consul says about the mesh does not fit together, so what it said before is used: %w", i.unfit)
	case now.After(m.partOfLife(overdueAt)):
		return c.of(overdue), fmt.Errorf("the certificate of the mesh for service %q is not renewed, and expires at %s: %w", i.service, utc(m.Expires()), cmp.Or(why, errNoRenewal))
	}
	return condition{}, nil
}

var errNoRenewal = errors.New("the answer of Consul is the same one")

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// logCondition logs a change of the condition, once, and adds it to the feed. The caller holds mu.
func (i *Identity) logCondition(now time.Time) {
	c, err := i.condition(now)
	if c == i.logged || c.kind == pending || i.service == "" {
		return
	}
	was := i.logged
	i.logged = c
	if c.kind == fine {
		if was.kind == fine {
			return
		}
		m := i.current.Load()
		i.options.Log.Info().Str("identity", m.URI()).Time("expires", m.Expires()).Msg("mesh: the certificate is renewed again")
		i.options.Events.Add(events.Event{Kind: events.KindMeshWorks, Text: fmt.Sprintf("The certificate of sluice in the mesh is renewed again, as %s", m.URI())})
		return
	}
	i.options.Log.Warn().Err(err).Msg("mesh: connections to its members fail, or will soon")
	i.options.Events.Add(events.Event{Kind: events.KindMeshFails, Level: events.Warning, Text: "The mesh" + events.Because(err.Error())})
}

// equalRoots reports whether two answers have the same trusted certificates.
func equalRoots(a, b *roots) bool {
	return a.text.TrustDomain == b.text.TrustDomain &&
		slices.EqualFunc(a.text.Roots, b.text.Roots, func(x, y RootText) bool {
			return x.RootCert == y.RootCert && slices.Equal(x.IntermediateCerts, y.IntermediateCerts)
		})
}
