package leader

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/discoverytest"
	"sluice/test/parallel"
	"sluice/test/verify"
)

// fixed is a source of a set that does not change.
type fixed []discovery.Instance

func (f fixed) Run(ctx context.Context, _ discovery.WatchState, report func(discovery.Report)) error {
	report(discovery.Report{Set: f, Known: true, Index: 7})
	<-ctx.Done()
	return ctx.Err()
}

// What the other source says of its set stays with the set.
func TestReportOfAPartStaysOne(t *testing.T) {
	var got discovery.Report
	source := NewSource(reports{{Known: true, Partial: true}}, Options{Tag: "lead"}, nil, zerolog.Nop())
	_ = source.Run(t.Context(), discovery.WatchState{}, func(r discovery.Report) { got = r })
	verify.That(t, got.Known && got.Partial, "got %+v", got)
}

// An answer about the key.
type answer struct {
	index    uint64
	named    string // "": there is no key
	released bool   // nobody holds its lock
	status   int    // 0: a good one
	hidden   bool   // ACLs hide the key
}

// leaderKeeper is a Consul with the key.
type leaderKeeper struct {
	mu sync.Mutex
	// mu guards the fields below.
	usual     answer  // of the server that the agent asks
	confirmed *answer // of the leader of the servers; nil: the same
	changed   chan struct{}
	asked     int // queries to the leader
}

func (k *leaderKeeper) say(usual answer, confirmed *answer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.usual, k.confirmed, k.asked = usual, confirmed, 0
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *leaderKeeper) look(consistent bool) (answer, chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !consistent {
		return k.usual, k.changed
	}
	if k.asked++; k.confirmed != nil {
		return *k.confirmed, k.changed
	}
	return k.usual, k.changed
}

func (k *leaderKeeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/v1/kv/") {
		io.WriteString(w, `"10.0.0.1:8300"`)
		return
	}
	query := r.URL.Query()
	after, _ := strconv.ParseUint(query.Get("index"), 10, 64)
	wait, _ := time.ParseDuration(query.Get("wait"))
	over := time.NewTimer(wait)
	defer over.Stop()
	now, changed := k.look(query.Has("consistent"))
	for after == now.index && now.status == 0 {
		select {
		case <-changed:
		case <-over.C:
			after = 0
		case <-r.Context().Done():
			return
		}
		now, changed = k.look(query.Has("consistent"))
	}
	w.Header().Set("X-Consul-Index", strconv.FormatUint(now.index, 10))
	w.Header().Set("X-Consul-KnownLeader", "true")
	w.Header().Set("X-Consul-Results-Filtered-By-ACLs", strconv.FormatBool(now.hidden))
	session := map[bool]string{false: "held"}[now.released]
	switch {
	case now.status != 0:
		w.WriteHeader(now.status)
	case now.named == "":
		w.WriteHeader(http.StatusNotFound)
	default:
		fmt.Fprintf(w, `[{"Key":"lead","Value":%q,"LockIndex":3,"Session":%q}]`, base64.StdEncoding.EncodeToString([]byte(now.named)), session)
	}
}

// clientOf returns a client of a Consul with the key, until t ends.
func clientOf(t *testing.T, k *leaderKeeper) (*consul.Client, *discoverytest.Pipe) {
	pipe := discoverytest.ServePipe(k)
	client := verify.Result(consul.New(consul.Options{Addresses: []string{"http://agent"}, Log: zerolog.Nop(), Dial: pipe.DialContext})).Must(t)
	t.Cleanup(func() {
		client.Close()
		pipe.Close()
	})
	return client, pipe
}

// What ends a leader by a key: that the key names another one, or nobody, as the leader of Consul's
// servers confirms. Not a server that lags, an error, ACLs, or a Consul that has lost its state.
func TestKeyOfLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &leaderKeeper{changed: make(chan struct{})}
		client, pipe := clientOf(t, k)
		const keep = 10 * time.Minute
		source := NewSource(fixed(instances("a b")), Options{Key: "lead", Wait: 5 * time.Minute, Keep: keep}, client, zerolog.Nop())

		var mu sync.Mutex
		var last discovery.Report // with a set
		var memory []discovery.Memory
		run := func(before discovery.WatchState) (end func()) {
			return parallel.Run(t, func(ctx context.Context) {
				_ = source.Run(ctx, before, func(r discovery.Report) {
					mu.Lock()
					defer mu.Unlock()
					if r.Known {
						last = r
					}
					memory = r.Memory
				})
			})
		}
		leads := func(what, want string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			verify.Equal(t, ids(discovery.WithoutFollowers(last.Set)), want, "leader after %s", what)
		}

		k.say(answer{status: 500}, nil)
		end := run(discovery.WatchState{})
		time.Sleep(time.Minute)
		synctest.Wait()
		verify.That(t, !last.Known, "nothing is known of the key, and the set is reported: %+v", last)
		for _, step := range []struct {
			what      string
			usual     answer
			confirmed *answer
			want      string
		}{
			{"the first answer", answer{index: 20, named: "a"}, nil, "a"},
			{"a server that does not have the key", answer{index: 21}, &answer{index: 20, named: "a"}, "a"},
			{"another name that is not confirmed", answer{index: 22, named: "b"}, &answer{index: 20, named: "a"}, "a"},
			{"an error", answer{status: 500}, nil, "a"},
			{"a refusal", answer{status: 403}, nil, "a"},
			{"ACLs that hide the key", answer{index: 23, hidden: true}, nil, "a"},
			{"another name", answer{index: 30, named: "b"}, nil, "b"},
			{"a server that lags", answer{index: 20, named: "a"}, &answer{index: 30, named: "b"}, "b"},
			{"the same again", answer{index: 30, named: "b"}, nil, "b"},
			{"a lock that nobody holds", answer{index: 31, named: "b", released: true}, nil, ""},
			{"a new lock", answer{index: 32, named: "b"}, nil, "b"},
			{"a name of nobody", answer{index: 33, named: "c"}, nil, ""},
			{"a name again", answer{index: 34, named: "a"}, nil, "a"},
			{"the deletion of the key", answer{index: 35}, nil, ""},
			{"another key", answer{index: 36, named: "b"}, nil, "b"},
			{"a Consul that has lost its state", answer{index: 1}, nil, "b"},
			{"and gets a name", answer{index: 5, named: "a"}, nil, "a"},
			{"and loses it again", answer{index: 2}, nil, "a"},
		} {
			k.say(step.usual, step.confirmed)
			time.Sleep(20 * time.Second)
			leads(step.what, step.want)
			if step.confirmed != nil {
				verify.That(t, k.asked > 0, "after %s: the leader of the servers was not asked", step.what)
			}
		}

		// The clock was put back since the leader was lost.
		end()
		ahead := discovery.WatchState{Memory: slices.Clone(memory)}
		for n := range ahead.Memory {
			ahead.Memory[n].LeaderLost = time.Now().Add(30 * 24 * time.Hour)
		}
		last = discovery.Report{}
		end = run(ahead)
		time.Sleep(time.Second)
		leads("a start with a loss that is still to come", "a")

		// A new process knows what this one knew, and since when.
		time.Sleep(keep / 2)
		end()
		before := discovery.WatchState{Memory: memory}
		last = discovery.Report{}
		end = run(before)
		time.Sleep(time.Second)
		leads("a start with what was known", "a")
		time.Sleep(keep/2 - time.Minute)
		leads("most of the time that a lost leader stays", "a")
		time.Sleep(time.Minute)
		leads("all of that time", "")
		end()
		pipe.Close()
		k.say(answer{index: 9, named: "b"}, nil)
		before.Memory = memory
		end = run(before)
		time.Sleep(time.Minute)
		leads("a start without Consul", "")
		end()
	})
}

// failing is a source that fails, before or after the key is read.
type failing struct{ after time.Duration }

func (f failing) String() string { return "failing" }

func (f failing) Run(ctx context.Context, _ discovery.WatchState, report func(discovery.Report)) error {
	for wait := f.after; ; wait = time.Minute {
		select {
		case <-time.After(wait):
			report(discovery.Report{Err: errors.New("denied")})
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// After a restart the instances cannot be read, or their query hangs, and the key can be read: the
// instances that were saved stay, but not who led them.
func TestKeyOfLeaderOfSavedInstances(t *testing.T) {
	for _, after := range []time.Duration{0, time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			k := &leaderKeeper{changed: make(chan struct{})}
			k.say(answer{index: 30, named: "b"}, nil)
			client, _ := clientOf(t, k)
			o := Options{Key: "lead", Wait: 5 * time.Minute, Keep: 10 * time.Minute}
			source := NewSource(failing{after}, o, client, zerolog.Nop())

			saved, _ := o.mark(instances("a b"), "a")
			asOf := time.Now().Add(-time.Hour)
			var mu sync.Mutex
			var leader string
			manager := discovery.NewManager(discovery.ManagerOptions{
				Log: zerolog.Nop(),
				Sink: func(set discovery.Set) {
					mu.Lock()
					defer mu.Unlock()
					leader = ids(discovery.WithoutFollowers(set.Instances))
				},
				Fallback: func(_, name, _ string) (discovery.WatchState, bool) {
					return discovery.WatchState{Source: name, Known: true, Set: saved, Restored: asOf,
						Memory: []discovery.Memory{{Index: 7}, {Part: memoryPart, Index: 20, Leader: "a"}}}, true
				},
			})
			manager.Watch("star", source)
			parallel.Run(t, func(ctx context.Context) { _ = manager.Run(ctx) })
			for n, step := range []struct{ named, want string }{{"b", "b"}, {"c", ""}, {"a", "a"}} {
				k.say(answer{index: 30 + uint64(n), named: step.named}, nil)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				mu.Lock()
				verify.Equal(t, leader, step.want, "the leader, with an error after %v, while the key names %s, is", after, step.named)
				mu.Unlock()
				s := manager.Statuses()[0]
				verify.That(t, s.State == discovery.WatchStale && s.Restored.Equal(asOf) && s.Instances == 2, "status %+v", s)
			}
		})
	}
}

// reports is a source that reports these one after the other.
type reports []discovery.Report

func (all reports) Run(_ context.Context, _ discovery.WatchState, report func(discovery.Report)) error {
	for _, r := range all {
		report(r)
	}
	return nil
}

// Instances that claim together are told beside the other source's entries that cannot be used, and
// logged when they change.
func TestRivalsAreTold(t *testing.T) {
	of := discovery.Invalid{Key: "x", Reason: "no port"}
	var sets reports
	for _, set := range []string{"a+ b+ c", "a+ b+ c!", "a+ b+ c+", "a+ b c", "a+ b+ c"} {
		sets = append(sets, discovery.Report{Set: instances(set), Known: true, Invalid: []discovery.Invalid{of}})
	}
	const reason = "it claims to lead, as others do: none leads"
	var log strings.Builder
	var told []string
	source := NewSource(sets, Options{Tag: "primary"}, nil, zerolog.New(&log))
	verify.NoError(t, source.Run(t.Context(), discovery.WatchState{}, func(r discovery.Report) {
		text := fmt.Sprint(strings.Count(log.String(), "\n"), " lines:")
		for _, i := range r.Invalid {
			verify.That(t, i.Key == of.Key && i.Reason == of.Reason || i.Reason == reason, "%+v", i)
			text += " " + i.Key
		}
		told = append(told, text)
	}))
	verify.Slices(t, told, []string{"1 lines: x a b", "1 lines: x a b", "2 lines: x a b c", "2 lines: x", "3 lines: x a b"}, "the log and what cannot be used")
	verify.Contains(t, log.String(), `{"level":"warn","service":"db","leader_by":"tag \"primary\"","instances":["a","b","c"],"message":"several instances claim to lead: none does"}`, "the log")
}

// instances returns instances of "ID", with "+": it has the tag primary, "!": it is critical, "?":
// it is on probation.
func instances(text string) (set []discovery.Instance) {
	for word := range strings.FieldsSeq(text) {
		i := discovery.Instance{Service: "db", ID: strings.TrimRight(word, "+!?"), Node: "node-" + word[:1], Address: "10.0.0.1", Port: 5000 + len(set), Weight: 1}
		if strings.Contains(word, "+") {
			i.Tags = []string{"db", "primary"}
		}
		if strings.Contains(word, "!") {
			i.Status = discovery.StatusCritical
		}
		if strings.Contains(word, "?") {
			i.Probation = time.Unix(1, 0)
		}
		set = append(set, i)
	}
	return set
}

// There is one leader, or none: an instance that claims beside another one is never chosen by a
// guess.
func TestOneLeads(t *testing.T) {
	byTag, byKey, byChecks := Options{Tag: "primary"}, Options{Key: "service/db/leader"}, Options{Passing: true}
	for _, c := range []struct {
		by                 Options
		named, set         string
		want, wantedRivals string
	}{
		{byTag, "", "", "", ""},
		{byTag, "", "a b", "", ""},
		{byTag, "", "a+ b", "a", ""},
		{byTag, "", "a+ b+", "", "a b"},
		{byTag, "", "a+! b+", "b", ""},    // a has not lost the tag yet
		{byTag, "", "a+? b+", "b", ""},    // Consul has lost a, and knows b
		{byTag, "", "a+! b+? c", "b", ""}, // Consul has lost b, and a has claimed before
		{byTag, "", "a+? b?", "a", ""},    // Consul has lost all
		{byTag, "", "a+? b+?", "", "a b"},
		{byTag, "", "a+! b", "a", ""}, // it keeps its connections
		{byTag, "", "a+! b+!", "", "a b"},
		{byChecks, "", "a b! c!", "a", ""},
		{byChecks, "", "a b", "", "a b"},
		{byChecks, "", "a! b!", "", ""},
		{byChecks, "", "a? b!", "a", ""},
		{byKey, "", "a b", "", ""},
		{byKey, "a", "a b", "a", ""},
		{byKey, "pg-1", "db/pg-1 db/pg-2", "db/pg-1", ""},
		{byKey, "db/pg-2", "db/pg-1 db/pg-2", "db/pg-2", ""},
		{byKey, "pg-2", "db/pg-1 db/pg-2-sidecar-proxy", "db/pg-2-sidecar-proxy", ""},
		{byKey, "pg-2", "x/pg-2 y/pg-2", "", "x/pg-2 y/pg-2"},
		{byKey, "node-b", "a b", "b", ""},
		{byKey, "g-1", "db/pg-1", "", ""},
		{byKey, "a", "a! b", "a", ""},
		{byKey, "a", "a? b", "a", ""},
		{byKey, "c", "a b", "", ""},
	} {
		marked, rivals := c.by.mark(instances(c.set), c.named)
		verify.Equal(t, ids(discovery.WithoutFollowers(marked)), c.want, "leader by %s %s of %q", &c.by, c.named, c.set)
		verify.Equal(t, ids(rivals), c.wantedRivals, "rivals by %s %s of %q", &c.by, c.named, c.set)
		verify.Equal(t, ids(marked), ids(instances(c.set)), "the set of %q", c.set)
		verify.DeepEqual(t, unmarked(marked), unmarked(instances(c.set)), "the rest of %q", c.set)
	}
}

func ids(set []discovery.Instance) string {
	var all []string
	for _, i := range set {
		all = append(all, i.ID)
	}
	return strings.Join(all, " ")
}
