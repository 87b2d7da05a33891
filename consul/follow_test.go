package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"

	"sluice/test/discoverytest"
	"sluice/test/parallel"
	"sluice/test/verify"
)

// idsOf returns the ids of the instances in an answer, sorted.
func idsOf(body []byte) (string, error) {
	var list []struct{ Service struct{ ID string } }
	err := json.Unmarshal(body, &list)
	ids := make([]string, len(list))
	for n, e := range list {
		ids[n] = e.Service.ID
	}
	slices.Sort(ids)
	return strings.Join(ids, " "), err
}

// followed records the calls of a FollowOptions for star, in virtual time.
type followed struct {
	*discoverytest.Consul
	t     *testing.T
	begin time.Time
	mu    sync.Mutex
	calls []string // since the last check
}

func (f *followed) record(format string, values ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, values...))
}

// expect checks the calls since the last check, until d after the start.
func (f *followed) expect(d time.Duration, want ...string) {
	f.t.Helper()
	time.Sleep(time.Until(f.begin.Add(d)))
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	verify.Slices(f.t, f.calls, want, "by %v: calls", d)
	f.calls = nil
}

// set makes ids the instances of star.
func (f *followed) set(ids ...string) {
	var entries []*api.ServiceEntry
	for n, id := range ids {
		entries = append(entries, discoverytest.Instance("star", id, 8000+n))
	}
	f.Set("star", entries...)
}

// followStar runs do with a Follow of star. volume may be nil.
func followStar(t *testing.T, volume *rate.Limiter, do func(f *followed)) {
	synctest.Test(t, func(t *testing.T) {
		f := &followed{Consul: discoverytest.New(), t: t, begin: time.Now()}
		f.set("a")
		client := inMemory(t, f.Consul)
		parallel.Run(t, func(ctx context.Context) {
			err := client.Follow(ctx, FollowOptions{
				Query: Query{Path: "health/service/star", View: true},
				Wait:  time.Minute,
				Read: func(a Answer, body []byte) error {
					ids, err := idsOf(body)
					if a.Forgot {
						ids = "forgot: read " + ids
					} else {
						ids = "read " + ids
					}
					f.record("%s", ids)
					return err
				},
				Ended: func(err error) {
					if err != nil {
						f.record("error %d", StatusCode(err))
					}
				},
				Volume: volume,
			})
			verify.That(t, errors.Is(err, context.Canceled), "Follow: %v", err)
		})
		do(f)
	})
}

func TestFollowReadsChangedAnswers(t *testing.T) {
	followStar(t, nil, func(f *followed) {
		f.expect(time.Second, "read a")
		before := len(f.Requests())
		f.expect(10 * time.Minute) // waits end without a change
		n := len(f.Requests()) - before
		verify.That(t, n >= 9 && n <= 13, "%d queries in ten minutes, want about one per minute", n)
		f.set("b")
		f.expect(601*time.Second, "read b")
	})
}

func TestFollowReportsErrorsFromTheSecondOn(t *testing.T) {
	followStar(t, nil, func(f *followed) {
		f.expect(time.Second, "read a")
		var once atomic.Bool
		f.Break(discoverytest.Fault{Status: 500, Only: func(r discoverytest.Request) bool { return r.Service != "" && !once.Swap(true) }})
		f.expect(2*time.Second, "read a")
		f.Break(discoverytest.Fault{Status: 500, Body: "rpc error", Only: func(r discoverytest.Request) bool { return r.Service != "" }})
		time.Sleep(20 * time.Second)
		f.mu.Lock()
		calls := f.calls
		f.calls = nil
		f.mu.Unlock()
		others := slices.ContainsFunc(calls, func(s string) bool { return s != "error 500" })
		verify.That(t, len(calls) >= 10 && len(calls) <= 60 && !others, "calls %q, want errors, less than one per 0.4 s", calls)
		f.Heal()
		f.expect(25*time.Second, "read a")
	})
}

func TestFollowReportsLossOfState(t *testing.T) {
	followStar(t, nil, func(f *followed) {
		f.expect(time.Second, "read a")
		f.SetIndex(0)
		f.set("b")
		f.expect(time.Minute, "forgot: read b", "read b")
	})
}

func TestVolumeLimitsReads(t *testing.T) {
	const burst, perSecond = 1000, 100
	followStar(t, rate.NewLimiter(perSecond, burst), func(f *followed) {
		for n := range 600 {
			f.set(fmt.Sprint(n))
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		const most = (burst + 60*perSecond) / 200 // each answer has more than 200 bytes
		verify.That(t, len(f.calls) >= 3 && len(f.calls) <= most, "read %d answers in a minute, want 3 to %d", len(f.calls), most)
	})
}

// A query that blocks for minutes would keep its connection from others.
func TestFewConnectionsServeManyLoops(t *testing.T) {
	for maxWatches, most := range map[int]time.Duration{1: 3 * lastWait, 4: 2 * lastWait} {
		synctest.Test(t, func(t *testing.T) {
			var index atomic.Int64
			index.Store(7)
			pipe := discoverytest.ServePipe(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/v1/status/") {
					io.WriteString(w, `"127.0.0.1:8300"`)
					return
				}
				wait, _ := time.ParseDuration(r.URL.Query().Get("wait"))
				end, asked := time.Now().Add(wait), r.URL.Query().Get("index")
				for r.Context().Err() == nil && time.Now().Before(end) && asked == fmt.Sprint(index.Load()) {
					time.Sleep(100 * time.Millisecond)
				}
				w.Header().Set("X-Consul-Index", fmt.Sprint(index.Load()))
				w.Header().Set("X-Consul-KnownLeader", "true")
				io.WriteString(w, "[]")
			}))
			o := Options{Addresses: []string{"http://fake"}, MaxWatches: maxWatches, Log: zerolog.Nop(), Dial: pipe.DialContext}
			client := verify.Result(New(o)).Must(t)
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			var reads atomic.Int64
			follow := func(q Query) {
				running.Go(func() {
					_ = client.Follow(ctx, FollowOptions{ // ends with ctx
						Query: q, Wait: 10 * time.Minute,
						Read: func(Answer, []byte) error { reads.Add(1); return nil },
						Ended: func(err error) {
							verify.That(t, err == nil, "an error of %v: %v", q, err)
						},
					})
				})
				time.Sleep(time.Minute) // it is the only one
			}
			follow(OneKey("a"))
			follow(KeysBelow("b/"))
			follow(Query{Path: "catalog/services"})
			for range 5 {
				begin := time.Now()
				_, err := client.Get(ctx, Query{Path: "health/service/star"}, func(io.Reader) error { return nil })
				waited := time.Since(begin)
				verify.That(t, err == nil && waited <= most, "with %d: an answer after %v, %v, want at most %v", maxWatches, waited, err, most)
				before := reads.Load()
				index.Add(1)
				time.Sleep(most + lastWait)
				synctest.Wait()
				got := reads.Load() - before
				verify.That(t, got == 3, "with %d: %d loops saw a change, want 3", maxWatches, got)
			}
			cancel()
			running.Wait()
			client.Close()
			time.Sleep(time.Second) // the server's queries
			pipe.Close()
		})
	}
}

// A snapshot that is restored ends a query that blocks early, with the old answer and its index.
// That is no answer: the query is sent again at once, without an index, and what it answers may
// lack what Consul has lost. The index tells that only until the next write.
func TestAnEarlyAnswerIsAskedAgain(t *testing.T) {
	for name, write := range map[string]bool{"nothing is written": false, "a write makes the index higher": true} {
		t.Run(name, func(t *testing.T) {
			followStar(t, nil, func(f *followed) {
				f.DisableStreaming()
				f.expect(time.Second, "read a")
				backup := f.Snapshot()
				f.set("a", "b")
				f.expect(10*time.Second, "read a b")
				if write { // before anything can be asked
					f.Break(discoverytest.Fault{Pause: true, Only: func(r discoverytest.Request) bool { return r.Index == 0 }})
					synctest.Wait()
				}
				f.Restore(backup)
				if write {
					synctest.Wait()
					f.set("a", "c")
					f.Heal()
					f.expect(11*time.Second, "forgot: read a c")
				} else {
					f.expect(11*time.Second, "forgot: read a", "read a")
					f.set("a", "c")
					f.expect(12*time.Second, "read a c")
				}
				f.set("c")
				f.expect(13*time.Second, "read c")
				last := f.Requests()[len(f.Requests())-1]
				verify.That(t, last.Index > 0, "the last query does not block")
			})
		})
	}
}

// An agent cuts the connection of a blocking query, loses its state and answers again at once.
// The index of before is not sent again, since the agent would not answer for long: also not by
// net/http, which sends a GET again if the cut connection has carried another one.
func TestCutBlockingQueryIsNotRepeatedWithItsIndex(t *testing.T) {
	for name, cut := range map[string]func(net.Conn){
		"closed": func(c net.Conn) { _ = c.Close() },
		"reset": func(c net.Conn) {
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var first string // client's address of the connection that is cut
			var indexes []string
			repeated, known := make(chan struct{}, 10), make(chan string, 10)
			ended := t.Context()
			client := clientOf(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v1/status/leader" {
					fmt.Fprint(w, `"127.0.0.1:8300"`)
					return
				}
				mu.Lock()
				index := r.URL.Query().Get("index")
				indexes = append(indexes, index)
				n := len(indexes)
				if n == 1 {
					first = r.RemoteAddr
				}
				verify.That(t, n != 2 || r.RemoteAddr == first, "the second query is on another connection")
				mu.Unlock()
				w.Header().Set("X-Consul-KnownLeader", "true")
				switch {
				case n == 1:
					w.Header().Set("X-Consul-Index", "700")
					fmt.Fprint(w, `["before"]`)
				case n == 2:
					conn, _, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					cut(conn)
				case index == "700":
					repeated <- struct{}{}
					<-ended.Done()
				case index == "":
					w.Header().Set("X-Consul-Index", "3")
					fmt.Fprint(w, `["after"]`)
				default:
					<-ended.Done()
				}
			})
			parallel.Run(t, func(ctx context.Context) {
				_ = client.Follow(ctx, FollowOptions{ // ends with ctx
					Query: Query{Path: "health/service/star"},
					Wait:  10 * time.Minute,
					Read: func(_ Answer, body []byte) error {
						known <- string(body)
						return nil
					},
					Ended: func(error) {},
				})
			})
			for _, want := range []string{`["before"]`, `["after"]`} {
				select {
				case got := <-known:
					verify.Equal(t, got, want, "got")
				case <-repeated:
					t.Fatal("the query was sent again with its index")
				}
			}
			mu.Lock()
			defer mu.Unlock()
			verify.That(t, len(indexes) >= 3 && indexes[0] == "" && indexes[1] == "700" && indexes[2] == "", "indexes %q, want none, 700 and none", indexes)
		})
	}
}
