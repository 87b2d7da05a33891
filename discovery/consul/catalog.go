package consul

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/consul"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// Selection selects services of the catalog by their instances.
type Selection struct {
	Name string            // pattern for path.Match; empty: any name
	Tag  string            // of an instance; empty: any
	Meta map[string]string // of an instance; without the character `
	// TagPrefixes, if there are any, are beginnings of tags in lower case, one of which a
	// tag of the service must have; case does not matter.
	TagPrefixes []string
	// MetaKey, with TagPrefixes, selects services without such a tag too: the ones of which an
	// instance has this key in its meta. Without the character `.
	MetaKey string
	// Typical leaves out what has a kind, such as sidecars, which have the tags of their
	// services.
	Typical bool

	Datacenter string // default: the agent's

	// Wait is how long a query blocks without a change, from 1 s to 10 min.
	Wait time.Duration

	// Probation is how long a service that is no longer listed is kept. Meanwhile its
	// own watch decides about its instances. 0: not at all.
	Probation time.Duration
}

// InstanceFilter returns Consul's filter expression for instances with Meta; "" without
// Meta.
func (s Selection) InstanceFilter() string {
	return strings.Join(s.conditions("Service.Meta"), " and ")
}

// conditions returns the expressions for the meta at selector.
func (s Selection) conditions(selector string) []string {
	conditions := make([]string, 0, len(s.Meta))
	for _, key := range slices.Sorted(maps.Keys(s.Meta)) {
		// Consul's expressions have raw strings like Go.
		conditions = append(conditions, fmt.Sprintf("%s[`%s`] == `%s`", selector, key, s.Meta[key]))
	}
	return conditions
}

// filter returns the expression for the list of services, and more conditions. Name and tags
// are in the list; Consul compares the rest with every instance.
func (s Selection) filter(more ...string) string {
	conditions := s.conditions("ServiceMeta")
	if s.Typical {
		conditions = append(conditions, `ServiceKind == ""`)
	}
	return strings.Join(append(conditions, more...), " and ")
}

// Selects reports whether an instance of the data centre is selected.
func (s Selection) Selects(i *discovery.Instance) bool {
	for key, value := range s.Meta {
		if known, ok := i.Meta[key]; !ok || known != value {
			return false
		}
	}
	if s.Typical && i.Kind != "" {
		return false
	}
	_, byMeta := i.Meta[s.MetaKey]
	return s.accepts(i.Service, i.Tags, byMeta)
}

// accepts reports whether a service with a name and tags is selected. byMeta says that an
// instance of it has MetaKey.
func (s Selection) accepts(name string, tags []string, byMeta bool) bool {
	if name == consulItself || s.Tag != "" && !slices.Contains(tags, s.Tag) {
		return false
	}
	if len(s.TagPrefixes) > 0 && !byMeta && !slices.ContainsFunc(tags, s.hasPrefix) {
		return false
	}
	if s.Name == "" {
		return true
	}
	ok, err := path.Match(s.Name, name)
	return ok && err == nil
}

func (s Selection) hasPrefix(tag string) bool {
	tag = strings.ToLower(strings.TrimSpace(tag))
	return slices.ContainsFunc(s.TagPrefixes, func(prefix string) bool { return strings.HasPrefix(tag, prefix) })
}

// consulItself is the service of Consul's servers.
const consulItself = "consul"

// catalogNeeds are the permissions for the list of services.
const catalogNeeds = "service:read and node:read for the selected services"

// maxTag is the longest tag that can ask for something.
const maxTag = 4096

// CatalogService is a service in the catalog.
type CatalogService struct {
	Name string
	Tags []string // of all its instances, without those that are too long to show, sorted
}

// CatalogStatus is the status of the catalog watch.
type CatalogStatus struct {
	State       discovery.Freshness
	Since       time.Time // start of State
	LastSuccess time.Time // zero: never
	LastChange  time.Time // of the services; zero: never
	LastError   string    // of the last query; empty after a success
	Index       uint64
	Services    []CatalogService // selected, with services on probation
	Probation   []string         // names of the services that are no longer listed
}

// Catalog watches the list of services, with one blocking query on
// /v1/catalog/services. The list has no meta: with Selection.MetaKey, each answer is followed
// by a query for the services that have it. It is safe for concurrent use.
//
// A service that is no longer listed is kept for Selection.Probation. This time runs
// only while Consul answers and ACLs hide nothing.
type Catalog struct {
	sources   *Sources
	selection Selection
	poke      wake.One // the services may have changed

	mu       sync.Mutex // guards the fields below
	services map[string]*listing
	status   CatalogStatus
	hidden   bool // ACLs filtered the last answer
}

// listing is a service that is, or was, listed.
type listing struct {
	tags    []string
	missing time.Time // when it was first not listed; zero: it is listed
}

// Catalog returns a watch of the selected services. known are services that were listed
// before: they are kept as if they had just been listed.
func (c *Sources) Catalog(s Selection, known ...CatalogService) *Catalog {
	w := &Catalog{sources: c, selection: s, poke: wake.NewOne(), services: make(map[string]*listing)}
	w.status.Since = time.Now()
	for _, k := range known {
		if s.accepts(k.Name, []string{s.Tag}, true) { // its tags may be unknown
			w.services[k.Name] = &listing{tags: k.Tags}
		}
	}
	return w
}

// Run calls changed with the selected services, sorted by name: after the first answer
// and after each change. It returns ctx's error when ctx ends. It may run several times, but
// not concurrently.
func (w *Catalog) Run(ctx context.Context, changed func([]CatalogService)) error {
	if _, err := path.Match(w.selection.Name, ""); err != nil {
		return fmt.Errorf("consul catalog: pattern %q: %w", w.selection.Name, err)
	}
	q := consul.Query{Path: "catalog/services", Needs: catalogNeeds}
	q.Datacenter = w.selection.Datacenter
	q.Filter = w.selection.filter()
	stop := panics.Start(ctx, panics.Watch, func(ctx context.Context) {
		// ends with ctx
		_ = w.sources.client.Follow(ctx, consul.FollowOptions{Query: q, Wait: w.selection.Wait, Ended: w.recordError,
			Read: func(a consul.Answer, body []byte) error { return w.take(ctx, q, a, body) }})
	})
	defer stop()

	timer := time.NewTimer(0)
	var told []CatalogService
	first := true
	for {
		select {
		case <-w.poke:
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		services, known, next := w.present(time.Now())
		if next > 0 {
			timer.Reset(next)
		}
		if known && (first || !slices.EqualFunc(told, services, CatalogService.equal)) {
			told, first = services, false
			changed(services)
		}
	}
}

func (s CatalogService) equal(o CatalogService) bool {
	return s.Name == o.Name && slices.Equal(s.Tags, o.Tags)
}

// Status returns a copy of the status.
func (w *Catalog) Status() CatalogStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// take processes an answer to q.
func (w *Catalog) take(ctx context.Context, q consul.Query, a consul.Answer, body []byte) error {
	all, err := readNames(bytes.NewReader(body))
	if err != nil {
		return err
	}
	byMeta, hidden, err := w.haveMeta(ctx, q, a)
	if err != nil {
		return err
	}
	a.FilteredByACL = a.FilteredByACL || hidden
	listed := make(map[string][]string)
	for name, tags := range all {
		if _, ok := byMeta[name]; w.selection.accepts(name, tags, ok) {
			tags = slices.DeleteFunc(tags, func(tag string) bool { return len(tag) > maxTag })
			slices.Sort(tags)
			listed[name] = slices.Compact(tags)
		}
	}
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	restart := w.status.State == discovery.WatchStale || w.hidden // of the time on probation
	for name, tags := range listed {
		w.services[name] = &listing{tags: tags}
	}
	for name, l := range w.services {
		if _, ok := listed[name]; ok || a.FilteredByACL {
			continue
		}
		if l.missing.IsZero() || restart {
			l.missing = now
		}
	}
	if a.FilteredByACL && !w.hidden {
		w.sources.log.Warn().Str("needs", catalogNeeds).Msg("consul: ACLs hide services of the catalog from the token")
	}
	w.hidden = a.FilteredByACL
	w.status.Index = a.Index
	return nil
}

// metaWait is how long a server may take to be as new as the answer of another one.
const metaWait = 5 * time.Second

// haveMeta returns the services with Selection.MetaKey, by a server that is at least as new
// as a, the answer to q. hidden says that ACLs may hide some.
func (w *Catalog) haveMeta(ctx context.Context, q consul.Query, a consul.Answer) (names map[string][]string, hidden bool, err error) {
	if w.selection.MetaKey == "" || len(w.selection.TagPrefixes) == 0 {
		return nil, false, nil
	}
	q.Filter = w.selection.filter(fmt.Sprintf("`%s` in ServiceMeta", w.selection.MetaKey))
	if a.Index > 1 { // it waits for this index, and not for a change
		q.WaitIndex, q.WaitTime = a.Index-1, metaWait
	}
	answer, err := w.sources.client.Get(ctx, q, func(body io.Reader) (err error) {
		names, err = readNames(body)
		return err
	})
	if err == nil {
		err = w.sources.client.Doubt(answer)
	}
	if err == nil && answer.Index < a.Index {
		err = fmt.Errorf("the services with %s in their meta are known at index %d only, and the others at %d", w.selection.MetaKey, answer.Index, a.Index)
	}
	return names, answer.FilteredByACL, err
}

// readNames reads a list of services: their tags, by name.
func readNames(body io.Reader) (names map[string][]string, err error) {
	if err := read(body, &names); err != nil {
		return nil, err
	}
	if names == nil {
		return nil, errors.New("the answer is not a list of services")
	}
	return names, nil
}

// recordError records the result of a query.
func (w *Catalog) recordError(err error) {
	now, text := time.Now(), ""
	if err != nil {
		text = err.Error()
	}
	w.mu.Lock()
	state, before, since := discovery.WatchFresh, w.status.State, w.status.Since
	w.status.LastError = text
	if err == nil {
		w.status.LastSuccess = now
	} else if state = discovery.WatchStale; w.status.LastSuccess.IsZero() {
		state = discovery.WatchPending
	}
	if state != before {
		w.status.State, w.status.Since = state, now
	}
	w.mu.Unlock()

	switch {
	case err != nil && before == discovery.WatchFresh:
		w.sources.log.Warn().Err(err).Msg("catalog watch failing: no service is added or removed")
		w.sources.Events.Add(events.Event{Kind: events.KindCatalogFails, Level: events.Warning,
			Text: fmt.Sprintf("Consul's catalog cannot be read, no service is added or removed: %v", err)})
	case err == nil && before == discovery.WatchStale:
		w.sources.log.Info().Stringer("after", now.Sub(since)).Msg("catalog watch recovered")
		w.sources.Events.Add(events.Event{Kind: events.KindCatalogWorks,
			Text: fmt.Sprintf("Consul's catalog can be read again, after %s", now.Sub(since).Round(time.Millisecond))})
	}
	w.poke.Send()
}

// present returns the services that are listed or on probation, after removal of those
// whose probation is over. known says that there has been an answer, next when the next
// probation ends; 0: there is none.
func (w *Catalog) present(now time.Time) (services []CatalogService, known bool, next time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	services = make([]CatalogService, 0, len(w.services))
	var probation []string
	for name, l := range w.services {
		if !l.missing.IsZero() {
			left := w.selection.Probation - now.Sub(l.missing)
			if left <= 0 && w.status.State == discovery.WatchFresh && !w.hidden {
				delete(w.services, name)
				continue
			}
			probation = append(probation, name)
			if left = max(left, time.Second); next == 0 || left < next {
				next = left
			}
		}
		services = append(services, CatalogService{Name: name, Tags: l.tags})
	}
	slices.SortFunc(services, func(a, b CatalogService) int { return cmp.Compare(a.Name, b.Name) })
	slices.Sort(probation)
	if !slices.EqualFunc(services, w.status.Services, CatalogService.equal) {
		w.status.LastChange = now
	}
	w.status.Services, w.status.Probation = services, probation
	return services, !w.status.LastSuccess.IsZero(), next
}
