package consul

import (
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

	"github.com/go-json-experiment/json/jsontext"

	"sluice/discovery"
)

// Selection picks services from the catalog by their instances.
type Selection struct {
	Name string            // a pattern as for path.Match; empty: any name
	Tag  string            // that an instance carries; empty: any
	Meta map[string]string // that an instance has, all of it; without the character `

	Datacenter string // default that of the agent
	Namespace  string // default the client's; Consul Enterprise
	Partition  string // default the client's; Consul Enterprise

	// Wait is how long a query blocks while nothing changes, at most 10 min.
	// Default 1 min.
	Wait time.Duration

	// Probation is how long a service is kept that is not listed any more. Its own
	// watch decides about its instances meanwhile. Default
	// discovery.DefaultProbation; negative: not at all.
	Probation time.Duration
}

// InstanceFilter returns the filter, in Consul's language, that accepts the
// instances with Meta; "" if there is none to ask for.
func (s Selection) InstanceFilter() string { return s.filter("Service.Meta") }

// filter compares the meta that selector names.
func (s Selection) filter(selector string) string {
	conditions := make([]string, 0, len(s.Meta))
	for _, key := range slices.Sorted(maps.Keys(s.Meta)) {
		// Consul's language has raw strings, as Go.
		conditions = append(conditions, fmt.Sprintf("%s[`%s`] == `%s`", selector, key, s.Meta[key]))
	}
	return strings.Join(conditions, " and ")
}

// accepts reports whether a listed service is selected, as far as its name and
// tags tell.
func (s Selection) accepts(name string, tags []string) bool {
	if name == consulItself || s.Tag != "" && !slices.Contains(tags, s.Tag) {
		return false
	}
	if s.Name == "" {
		return true
	}
	ok, err := path.Match(s.Name, name)
	return ok && err == nil
}

// consulItself is the service that Consul's servers register themselves as.
const consulItself = "consul"

// CatalogService is a service that the catalog lists.
type CatalogService struct {
	Name string
	Tags []string // of all its instances together, sorted
}

// CatalogStatus is how the watch of the catalog fares.
type CatalogStatus struct {
	State       discovery.WatchState
	Since       time.Time // start of State
	LastSuccess time.Time // zero: never
	LastChange  time.Time // of the services; zero: never
	LastError   string    // of the last query; empty if it was answered
	Index       uint64
	Services    []CatalogService // selected, those on probation included
	Probation   []string         // names of those that are not listed any more
}

// Catalog watches which services there are, with one blocking query on
// /v1/catalog/services. It is safe for concurrent use.
//
// What it does not see any more is not gone at once: see Selection.Probation.
// The time runs only while Consul answers, and ACLs hide nothing.
type Catalog struct {
	client    *Client
	selection Selection
	poke      chan struct{} // capacity 1: something may have to be told

	mu       sync.Mutex // guards the fields below
	services map[string]*listing
	status   CatalogStatus
	hidden   bool // ACLs filtered the last answer
}

// listing is a service that is or was listed.
type listing struct {
	tags    []string
	missing time.Time // since when it is not listed; zero: it is
}

// Catalog returns a watch of the selected services. Run does its work. Known
// are the names of services that were listed at another time: they are kept as if
// they had been listed just before.
func (c *Client) Catalog(s Selection, known ...string) *Catalog {
	s.Probation = max(cmp.Or(s.Probation, discovery.DefaultProbation), 0)
	w := &Catalog{client: c, selection: s, poke: make(chan struct{}, 1), services: make(map[string]*listing)}
	w.status.Since = time.Now()
	for _, name := range known {
		if s.accepts(name, []string{s.Tag}) {
			w.services[name] = &listing{}
		}
	}
	return w
}

// Run reports the selected services, sorted by name, each time that they
// change, for the first time when Consul has answered, until ctx ends, and
// returns ctx's error. It may be called once.
func (w *Catalog) Run(ctx context.Context, changed func([]CatalogService)) error {
	if _, err := path.Match(w.selection.Name, ""); err != nil {
		return fmt.Errorf("consul catalog: pattern %q: %w", w.selection.Name, err)
	}
	defer w.client.begin()()
	defer w.client.gate.join()()
	s := scope{w.selection.Datacenter, w.selection.Namespace, w.selection.Partition}
	f := &feed{
		client: w.client, path: "catalog/services", options: s.options(), wait: waitOf(w.selection.Wait),
		take: w.take, note: w.note, regressed: func() {},
		tries: tries{agents: w.client.agents, remote: s.datacenter != ""},
	}
	// Its name and tags are in the answer. To compare more costs Consul a look at
	// every instance.
	f.options.Filter = w.selection.filter("ServiceMeta")
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { f.run(ctx) })

	timer := time.NewTimer(0)
	defer timer.Stop()
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

// Status returns a copy of what is known now.
func (w *Catalog) Status() CatalogStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// take reads an answer.
func (w *Catalog) take(a answer) error {
	listed := make(map[string][]string)
	err := readCatalog(a.body, func(name string, tags []string) {
		if w.selection.accepts(name, tags) {
			slices.Sort(tags)
			listed[name] = slices.Compact(tags)
		}
	})
	if err != nil {
		return err
	}
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	again := w.status.State == discovery.WatchStale || w.hidden // the time begins again
	for name, tags := range listed {
		w.services[name] = &listing{tags: tags}
	}
	for name, l := range w.services {
		if _, ok := listed[name]; ok || a.filtered {
			continue
		}
		if l.missing.IsZero() || again {
			l.missing = now
		}
	}
	if a.filtered && !w.hidden {
		w.client.log.Warn().Msg("consul leaves out services of the catalog: the token lacks service:read or node:read for some")
	}
	w.hidden = a.filtered
	w.status.Index = a.index
	return nil
}

// note takes note of how a query ended.
func (w *Catalog) note(err error) {
	now := time.Now()
	w.mu.Lock()
	state, before := discovery.WatchFresh, w.status.State
	if err != nil {
		w.status.LastError = err.Error()
		if state = discovery.WatchStale; w.status.LastSuccess.IsZero() {
			state = discovery.WatchPending
		}
	} else {
		w.status.LastError = ""
		w.status.LastSuccess = now
	}
	since := w.status.Since
	if state != before {
		w.status.State, w.status.Since = state, now
	}
	w.mu.Unlock()

	switch {
	case err != nil && before == discovery.WatchFresh:
		w.client.log.Warn().Err(err).Msg("watch of the catalog failing: no service is added or given up")
	case err == nil && before == discovery.WatchStale:
		w.client.log.Info().Stringer("after", now.Sub(since)).Msg("watch of the catalog recovered")
	}
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

// present returns the services that are listed or on probation, after it gave
// up those whose time is over. Known says that there has been an answer, next when
// the next one is to be given up; 0: none is on probation.
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

var errNoCatalog = errors.New("the answer is no list of services")

// readCatalog reads an answer of /v1/catalog/services. Tags may have duplicates.
func readCatalog(r io.Reader, each func(name string, tags []string)) error {
	d := newDecoder(r)
	if d.PeekKind() != '{' {
		return errNoCatalog
	}
	return readObject(d, func(quoted []byte) error {
		name, err := jsontext.AppendUnquote(nil, quoted)
		if err != nil {
			return err
		}
		if err := expect(d, '['); err != nil {
			return err
		}
		var tags []string
		for d.PeekKind() == '"' {
			tag, err := readString(d, nil)
			if err != nil {
				return err
			}
			tags = append(tags, string(tag))
		}
		each(string(name), tags)
		return expect(d, ']')
	})
}
