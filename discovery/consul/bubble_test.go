package consul

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/test/consultest"
	"sluice/test/discoverytest"
	"sluice/test/parallel"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// bubble runs a source with a fake Consul in virtual time, without debounce.
type bubble struct {
	*discoverytest.Consul
	t       *testing.T
	client  *testClient
	manager *discovery.Manager
	begin   time.Time
	log     subprocess.Output
	events  *events.Feed

	mu   sync.Mutex
	sets []string // what Sink got since the last check: "1s: a b"
	last []discovery.Instance
}

// inMemory returns a client of handler, without a network, until t ends.
func inMemory(t *testing.T, handler http.Handler, o consul.Options) (*testClient, *discoverytest.Pipe) {
	pipe := discoverytest.ServePipe(handler)
	if len(o.Addresses) == 0 {
		o.Addresses = []string{"http://fake"}
	}
	o.Dial = pipe.DialContext
	client := verify.Result(newClient(o)).Must(t)
	t.Cleanup(func() {
		client.Close()
		pipe.Close()
	})
	return client, pipe
}

// run runs m until t ends.
func run(t testing.TB, m *discovery.Manager) {
	parallel.Run(t, func(ctx context.Context) { m.Run(ctx) })
}

func watchInBubble(t *testing.T, o ServiceOptions, prepare func(b *bubble), f func(t *testing.T, b *bubble)) {
	watchInBubbleAs(t, consul.Options{}, o, prepare, f)
}

// watchInBubbleAs is watchInBubble with options of the client.
func watchInBubbleAs(t *testing.T, co consul.Options, o ServiceOptions, prepare func(b *bubble), f func(t *testing.T, b *bubble)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{Consul: discoverytest.New(), t: t, begin: time.Now(), events: events.New()}
		log := zerolog.New(&b.log).Level(zerolog.InfoLevel)
		co.Log = log
		b.client, _ = inMemory(t, b.Consul, co)
		b.manager = discovery.NewManager(discovery.ManagerOptions{
			Log: log, Events: b.events,
			Sink: func(set discovery.Set) {
				b.mu.Lock()
				defer b.mu.Unlock()
				if b.last != nil && formatSet(b.last) == formatSet(set.Instances) && slices.EqualFunc(b.last, set.Instances, discovery.Instance.Equal) {
					return // the first report of another source
				}
				b.sets = append(b.sets, fmt.Sprintf("%v: %s", time.Since(b.begin), formatSet(set.Instances)))
				b.last = set.Instances
			},
		})
		prepare(b)
		if o.PreparedQuery == "" {
			o.Service = "star"
		}
		b.manager.Watch("star", b.client.Source(o))
		run(t, b.manager)
		f(t, b)
	})
}

// having sets the instances at the start, in the notation of bubble.entries.
func having(words string) func(*bubble) {
	return func(b *bubble) { b.set(words) }
}

// havingAt is having with an index, from which Consul counts.
func havingAt(index uint64, words string) func(*bubble) {
	return func(b *bubble) {
		b.set(words)
		b.SetIndex(index)
	}
}

// at waits until d after the start.
func (b *bubble) at(d time.Duration) {
	time.Sleep(time.Until(b.begin.Add(d)))
	synctest.Wait()
}

// expect checks what Sink got since the last check, until d after the start.
func (b *bubble) expect(d time.Duration, want ...string) {
	b.t.Helper()
	b.at(d)
	b.mu.Lock()
	defer b.mu.Unlock()
	verify.Slices(b.t, b.sets, want, "by %v Sink", d)
	b.sets = nil
}

// expectOne checks that Sink got exactly one set since the last check, from earliest to
// latest after the start.
func (b *bubble) expectOne(earliest, latest time.Duration, want string) {
	b.t.Helper()
	b.at(latest)
	b.mu.Lock()
	defer b.mu.Unlock()
	verify.Require(b.t, len(b.sets) == 1, "by %v Sink got %q, want one set", latest, b.sets)
	moment, set, _ := strings.Cut(b.sets[0], ": ")
	d, _ := time.ParseDuration(moment)
	verify.That(b.t, set == want && d >= earliest, "Sink got %q, want %q after %v", b.sets[0], want, earliest)
	b.sets = nil
}

// expectLast checks the last set that Sink got since the last check, until d after the start. The
// ones before it may have been replaced before Sink got them.
func (b *bubble) expectLast(d time.Duration, want string) {
	b.t.Helper()
	b.at(d)
	b.mu.Lock()
	defer b.mu.Unlock()
	verify.Require(b.t, len(b.sets) > 0 && b.sets[len(b.sets)-1] == want, "by %v Sink got %q, want %q last", d, b.sets, want)
	b.sets = nil
}

// latest returns the last set of Sink.
func (b *bubble) latest() []discovery.Instance {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

func (b *bubble) status() discovery.WatchStatus {
	b.t.Helper()
	synctest.Wait()
	return b.manager.Statuses()[0]
}

// fresh fails unless the watch is fresh.
func (b *bubble) fresh() {
	b.t.Helper()
	s := b.status()
	verify.Equal(b.t, s.State, discovery.WatchFresh, "%v after the start: status %+v: the watch is", time.Since(b.begin), s)
}

// stale fails unless the watch is stale, with an error that contains text.
func (b *bubble) stale(text string) {
	b.t.Helper()
	s := b.status()
	verify.That(b.t, s.State == discovery.WatchStale && strings.Contains(s.LastError, text),
		"%v after the start: status %+v, want stale with %q", time.Since(b.begin), s, text)
}

// since returns the requests after the first n.
func (b *bubble) since(n int) []discoverytest.Request { return b.Requests()[n:] }

// entries returns the entries of an answer. words are such as "a", "b:critical",
// "c:maintenance" and "d:unchecked".
func (b *bubble) entries(words string) []*api.ServiceEntry {
	entries := []*api.ServiceEntry{}
	for _, word := range strings.Fields(words) {
		id, status, _ := strings.Cut(word, ":")
		e := discoverytest.Instance("star", id, 8000+int(id[0]))
		if status != "" {
			discoverytest.Health(e, status, "")
		}
		entries = append(entries, e)
	}
	return entries
}

// set sets the instances of star.
func (b *bubble) set(words string) { b.Set("star", b.entries(words)...) }

// body returns the body of an answer.
func (b *bubble) body(words string) string {
	return string(verify.Result(json.Marshal(b.entries(words))).Must(b.t))
}

const (
	ms  = time.Millisecond
	sec = time.Second
)

// formatSet formats a set in the notation of bubble.entries, with "?" after instances on
// probation.
func formatSet(set []discovery.Instance) string {
	var words []string
	for _, i := range set {
		word := i.ID
		if i.Status != discovery.StatusPassing {
			word += ":" + i.Status.String()
		}
		if !i.Probation.IsZero() {
			word += "?"
		}
		words = append(words, word)
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// countLines returns the number of lines of a log that contain all of fields, such as
// `"level":"warn"`.
func countLines(log string, fields ...string) (n int) {
	for line := range strings.Lines(log) {
		if !slices.ContainsFunc(fields, func(field string) bool { return !strings.Contains(line, field) }) {
			n++
		}
	}
	return n
}

// testClient is a client and the sources that share it.
type testClient struct {
	*consul.Client
	*Sources
}

func newClient(o consul.Options) (*testClient, error) {
	client, err := consul.New(o)
	if err != nil {
		return nil, err
	}
	return &testClient{client, NewSources(client, o.Log)}, nil
}

func (c *testClient) Stats() Stats { return c.Sources.Stats() }

func (c *testClient) Health(ctx context.Context, o ServiceOptions) (Answer, error) {
	o.MinHealthy = cmp.Or(o.MinHealthy, 1)
	return Health(ctx, c.Client, o)
}

// Source is Sources.Source with defaults. A negative time means none.
func (c *testClient) Source(o ServiceOptions) discovery.Source {
	o.Wait, o.Poll, o.MinHealthy = cmp.Or(o.Wait, defaultWait), cmp.Or(o.Poll, 5*time.Second), cmp.Or(o.MinHealthy, 1)
	o.Probation = max(cmp.Or(o.Probation, 10*time.Minute), 0)
	return c.Sources.Source(o)
}

// Catalog is Sources.Catalog with defaults.
func (c *testClient) Catalog(s Selection, known ...CatalogService) *Catalog {
	s.Wait, s.Probation = cmp.Or(s.Wait, defaultWait), max(cmp.Or(s.Probation, 10*time.Minute), 0)
	return c.Sources.Catalog(s, known...)
}

const (
	defaultWait = time.Minute
	maxWait     = 10 * time.Minute // Consul's limit
)

// Tests with a real Consul mostly wait.
func TestMain(m *testing.M) {
	parallel.SetDefault(16)
	consultest.ClearEnvironment()
	os.Exit(m.Run())
}
