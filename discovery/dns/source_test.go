package dns

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sluice/discovery"
	"sluice/discovery/locality"
	"sluice/test/discoverytest"
	"sluice/test/dnstest"
	"sluice/test/parallel"
	"sluice/test/verify"
)

// watched is a watch of servers in memory, in a bubble of synctest.
type watched struct {
	t       *testing.T
	manager *discovery.Manager
	mu      sync.Mutex
	set     []discovery.Instance
}

// watchServers watches o until t ends, which is in a bubble. The servers are ns0, ns1, ….
func watchServers(t *testing.T, o Options, servers ...*dnstest.Server) *watched {
	t.Helper()
	byAddress := make(map[string]*dnstest.Server)
	for n, s := range servers {
		address := fmt.Sprintf("ns%d:53", n)
		byAddress[address] = s
		o.Servers = append(o.Servers, address)
	}
	if o.Name == "" {
		o.Name, o.Type = "_star._tcp.example", SRV
	}
	w := &watched{t: t}
	w.manager = discovery.NewManager(discovery.ManagerOptions{Sink: func(set discovery.Set) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.set = set.Instances
	}})
	source := NewSource("star", o, locality.ByOperator).(*source)
	source.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return byAddress[address].Dial(ctx, network, address)
	}
	w.manager.Watch("star", source)
	parallel.Run(t, func(ctx context.Context) { _ = w.manager.Run(ctx) })
	synctest.Wait()
	return w
}

// serve watches o at one server with records.
func serve(t *testing.T, o Options, records ...dnstest.Record) (*dnstest.Server, *watched) {
	t.Helper()
	s := dnstest.New()
	s.Set(records...)
	return s, watchServers(t, o, s)
}

// expect checks the set, as discoverytest.Format.
func (w *watched) expect(want string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	verify.Equal(w.t, discoverytest.Format(w.set), want, "the set, with %+v", w.manager.Statuses())
}

// failing checks that the last query has failed with an error that contains text.
func (w *watched) failing(text string) {
	w.t.Helper()
	synctest.Wait()
	s := w.manager.Statuses()[0]
	verify.That(w.t, strings.Contains(s.LastError, text) && (text != "" || s.LastError == ""), "the last error is %q, want %q", s.LastError, text)
}

// srv returns an SRV record of the service, with its address.
func srv(target, address string, change ...func(*dnstest.Record)) []dnstest.Record {
	r := dnstest.Record{Name: "_star._tcp.example", Target: target, Priority: 1, Weight: 1, Port: 80}
	for _, c := range change {
		c(&r)
	}
	if address == "" {
		return []dnstest.Record{r}
	}
	return []dnstest.Record{r, {Name: "glue." + target, Address: address, TTL: r.TTL}}
}

func ttl(seconds uint32) func(*dnstest.Record) { return func(r *dnstest.Record) { r.TTL = seconds } }

func zone(records ...[]dnstest.Record) (all []dnstest.Record) {
	for _, r := range records {
		all = append(all, r...)
	}
	return all
}

func TestSRV(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := serve(t, Options{}, zone(srv("b.example", "10.0.0.2"), srv("A.example", "10.0.0.1", func(r *dnstest.Record) { r.Weight = 5 }))...)
		w.expect("a.example:80=10.0.0.1:80*5 b.example:80=10.0.0.2:80")
		// The order has no meaning; an addition counts after the TTL, which is 0.
		s.Set(zone(srv("a.example", "10.0.0.1", func(r *dnstest.Record) { r.Weight = 5 }), srv("b.example", "10.0.0.2"), srv("c.example", "10.0.0.3"))...)
		time.Sleep(1100 * time.Millisecond)
		w.expect("a.example:80=10.0.0.1:80*5 b.example:80=10.0.0.2:80 c.example:80=10.0.0.3:80")
		status := w.manager.Statuses()[0]
		verify.That(t, status.Changes == 2 && status.Endpoint == "ns0:53" && status.Source == `dns SRV "_star._tcp.example"`, "status %+v", status)
		// A removal counts after it is confirmed.
		queries, _ := s.Queries("tcp")
		s.Set(srv("c.example", "10.0.0.3")...)
		time.Sleep(1100 * time.Millisecond)
		w.expect("c.example:80=10.0.0.3:80")
		now, connections := s.Queries("tcp")
		verify.That(t, now == queries+2 && connections == 1, "%d queries after %d, %d connections", now, queries, connections)
	})
}

func TestWeightsAndPriorities(t *testing.T) {
	at := func(priority, weight uint16) func(*dnstest.Record) {
		return func(r *dnstest.Record) { r.Priority, r.Weight = priority, weight }
	}
	synctest.Test(t, func(t *testing.T) {
		_, w := serve(t, Options{}, zone(
			srv("a.example", "10.0.0.1", at(1, 0)), srv("b.example", "10.0.0.2", at(1, 3)), // 0 beside others: no traffic
			srv("c.example", "10.0.0.3", at(2, 0)), srv("d.example", "10.0.0.4", at(2, 0)), // only 0: 1 each
		)...)
		w.expect("a.example:80=10.0.0.1:80*0 b.example:80=10.0.0.2:80*3 c.example:80=10.0.0.3:80^2 d.example:80=10.0.0.4:80^2")
	})
}

// Of two records of one target and port the one with the smaller priority counts, or else the one
// with the larger weight: servers turn the order of records from answer to answer.
func TestTargetOfSeveralRecords(t *testing.T) {
	at := func(priority, weight uint16) []dnstest.Record {
		return srv("a.example", "10.0.0.1", func(r *dnstest.Record) { r.Priority, r.Weight = priority, weight })
	}
	synctest.Test(t, func(t *testing.T) {
		s, w := serve(t, Options{}, zone(at(2, 7), at(3, 9), at(2, 8))...)
		w.expect("a.example:80=10.0.0.1:80*8^2")
		s.Set(zone(at(3, 9), at(2, 8), at(2, 7))...)
		time.Sleep(1100 * time.Millisecond)
		w.expect("a.example:80=10.0.0.1:80*8^2")
		verify.Equal(t, w.manager.Statuses()[0].Changes, 1, "changes")
	})
}

// The absence of an address of a target is confirmed by the next server, as that of a record is.
func TestLostAddressOfATargetIsConfirmed(t *testing.T) {
	have := func(s *dnstest.Server, addresses ...string) {
		records := srv("a.example", "")
		for _, address := range addresses {
			records = append(records, dnstest.Record{Name: "a.example", Address: address})
		}
		s.Set(records...)
	}
	synctest.Test(t, func(t *testing.T) {
		first, second := dnstest.New(), dnstest.New()
		have(first, "10.0.0.1", "10.0.0.2")
		have(second, "10.0.0.1", "10.0.0.2")
		w := watchServers(t, Options{}, first, second)
		both := "a.example:80=10.0.0.1:80 a.example:80=10.0.0.2:80"
		w.expect(both)
		have(first, "10.0.0.1", "10.0.0.3")
		time.Sleep(3 * time.Second)
		w.expect(both + " a.example:80=10.0.0.3:80")
		have(second, "10.0.0.1", "10.0.0.3")
		time.Sleep(3 * time.Second)
		w.expect("a.example:80=10.0.0.1:80 a.example:80=10.0.0.3:80")
	})
}

func TestAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dnstest.New()
		s.Set(
			dnstest.Record{Name: "www.example", Target: "web.example", Alias: true},
			dnstest.Record{Name: "web.example", Address: "10.0.0.1"},
			dnstest.Record{Name: "web.example", Address: "10.0.0.2"},
			dnstest.Record{Name: "web.example", Address: "fd00::1"},
			dnstest.Record{Name: "six.example", Address: "fd00::6"},
		)
		for _, test := range []struct {
			name string
			kind Type
			want string
		}{
			{"WWW.example.", A, "10.0.0.1:8080 10.0.0.2:8080"},
			{"www.example", AAAA, "[fd00::1]:8080"},
			{"www.example", IP, "10.0.0.1:8080 10.0.0.2:8080 [fd00::1]:8080"},
			{"six.example", IP, "[fd00::6]:8080"},
			{"six.example", A, ""},
		} {
			w := watchServers(t, Options{Name: test.name, Type: test.kind, Port: 8080}, s)
			w.expect(test.want)
		}
	})
}

func TestAliases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dnstest.New()
		var chain []dnstest.Record
		for n := range 10 {
			chain = append(chain, dnstest.Record{Name: fmt.Sprintf("a%d.example", n), Target: fmt.Sprintf("a%d.example", n+1), Alias: true})
		}
		chain = append(chain, dnstest.Record{Name: "a10.example", Address: "10.0.0.1"}, dnstest.Record{Name: "loop.example", Target: "loop.example", Alias: true})
		s.Set(chain...)
		for name, want := range map[string]string{"a2.example": "10.0.0.1:80", "a1.example": "", "loop.example": ""} {
			w := watchServers(t, Options{Name: name, Type: A, Port: 80}, s)
			w.expect(want)
			if want == "" {
				w.failing("more than 8 CNAME records")
			}
		}
	})
}

func TestIntervalIsTheTTL(t *testing.T) {
	for seconds, want := range map[uint32]time.Duration{0: time.Second, 30: 30 * time.Second, 86400: 5 * time.Minute, 1 << 31: time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := serve(t, Options{}, srv("a.example", "10.0.0.1", ttl(seconds))...)
			for n := 1; n < 5; n++ {
				queries, _ := s.Queries("tcp")
				verify.Equal(t, queries, n, "TTL %d: queries", seconds)
				begin := time.Now()
				for ; queries == n; queries, _ = s.Queries("tcp") {
					time.Sleep(10 * time.Millisecond)
				}
				waited := time.Since(begin)
				verify.That(t, waited >= want*9/10-20*time.Millisecond && waited <= want*11/10+20*time.Millisecond, "TTL %d: the next query after %v", seconds, waited)
				synctest.Wait()
			}
		})
	}
}

// That a name has no IPv6 address, which a server may say with a TTL of 0, does not count.
func TestIntervalIsTheTTLOfTheAddressesThatThereAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := serve(t, Options{Name: "www.example", Type: IP, Port: 80}, dnstest.Record{Name: "www.example", Address: "10.0.0.1", TTL: 30})
		for n := 1; n < 4; n++ { // each is two queries
			queries, _ := s.Queries("tcp")
			verify.Equal(t, queries, 2*n, "queries after about %d TTLs", n-1)
			time.Sleep(34 * time.Second)
			synctest.Wait()
		}
	})
}

// NXDOMAIN, NODATA and the target "." count after seven confirmations; then the instances are on
// probation.
func TestAbsence(t *testing.T) {
	for what, records := range map[string][]dnstest.Record{
		"NXDOMAIN":     nil,
		"no SRV":       {{Name: "_star._tcp.example", Address: "10.0.0.1"}},
		"not availabl": {{Name: "_star._tcp.example", Target: "."}},
	} {
		synctest.Test(t, func(t *testing.T) {
			both := zone(srv("a.example", "10.0.0.1"), srv("b.example", "10.0.0.2"))
			s, w := serve(t, Options{Probation: time.Minute}, both...)
			const all, lost = "a.example:80=10.0.0.1:80 b.example:80=10.0.0.2:80", "a.example:80=10.0.0.1:80? b.example:80=10.0.0.2:80?"
			w.expect(all)

			s.Set(records...) // but only for a moment
			time.Sleep(3 * time.Second)
			w.expect(all)
			w.failing(what)
			s.Set(both...)
			time.Sleep(3 * time.Second)
			w.expect(all)
			w.failing("")

			s.Set(records...)
			time.Sleep(6900 * time.Millisecond) // the first within 1.1 s, then seven more
			w.expect(all)
			time.Sleep(1300 * time.Millisecond)
			w.expect(lost)
			w.failing("")
			time.Sleep(2 * time.Minute)
			w.expect("")
			s.Set(srv("c.example", "10.0.0.3")...)
			time.Sleep(12 * time.Second)
			w.expect("c.example:80=10.0.0.3:80")

			// Good news do not wait for a confirmation.
			s.Set(records...)
			time.Sleep(4600 * time.Millisecond)
			s.Set(srv("d.example", "10.0.0.4")...)
			time.Sleep(1100 * time.Millisecond)
			w.expect("d.example:80=10.0.0.4:80")
		})
	}
}

// Nothing that a server does wrong changes the set, and another server is asked.
func TestFailures(t *testing.T) {
	failures := map[string]struct {
		begin func(*dnstest.Server)
		want  string
	}{
		"SERVFAIL": {func(s *dnstest.Server) { s.Fail(dnsmessage.RCodeServerFailure) }, "SERVERFAILURE"},
		"REFUSED":  {func(s *dnstest.Server) { s.Fail(dnsmessage.RCodeRefused) }, "REFUSED"},
		"silent":   {func(s *dnstest.Server) { s.Freeze(true) }, "no answer within 2s"},
		"nonsense": {func(s *dnstest.Server) { s.Change(func(*dnsmessage.Message) []byte { return []byte("HTTP/1.1 400") }) }, "not an answer"},
	}
	for name, failure := range failures {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				records := srv("a.example", "10.0.0.1")
				s, w := serve(t, Options{}, records...)
				w.expect("a.example:80=10.0.0.1:80")
				failure.begin(s)
				time.Sleep(time.Hour)
				w.expect("a.example:80=10.0.0.1:80")
				w.failing(failure.want)
				s.Change(nil)
				s.Freeze(false)
				s.Set(zone(records, srv("b.example", "10.0.0.2"))...)
				time.Sleep(10 * time.Second)
				w.expect("a.example:80=10.0.0.1:80 b.example:80=10.0.0.2:80")
				w.failing("")

				// With a second server, the first one's failure is not seen.
				second := dnstest.New()
				second.Set(records...)
				w = watchServers(t, Options{}, s, second)
				failure.begin(s)
				second.Set(zone(records, srv("c.example", "10.0.0.3"), srv("b.example", "10.0.0.2"))...)
				time.Sleep(10 * time.Second)
				w.expect("a.example:80=10.0.0.1:80 b.example:80=10.0.0.2:80 c.example:80=10.0.0.3:80")
				w.failing("")
			})
		})
	}
}

// A server that is silent is asked last for a while, so it does not delay each query.
func TestSilentServerIsAskedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := dnstest.New(), dnstest.New()
		first.Freeze(true)
		second.Set(srv("a.example", "10.0.0.1")...)
		w := watchServers(t, Options{}, first, second)
		time.Sleep(25 * time.Second)
		w.expect("a.example:80=10.0.0.1:80")
		queries, _ := first.Queries("tcp")
		verify.That(t, queries == 1, "the silent server got %d queries", queries)
		first.Freeze(false)
		first.Set(zone(srv("a.example", "10.0.0.1"), srv("b.example", "10.0.0.2"))...)
		time.Sleep(15 * time.Second)
		w.expect("a.example:80=10.0.0.1:80 b.example:80=10.0.0.2:80")
	})
}

// A removal needs both servers: one of them may lag.
func TestRemovalIsConfirmedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := dnstest.New(), dnstest.New()
		both := zone(srv("a.example", "10.0.0.1"), srv("b.example", "10.0.0.2"))
		first.Set(both...)
		second.Set(both...)
		w := watchServers(t, Options{}, first, second)
		first.Set(srv("a.example", "10.0.0.1")...)
		time.Sleep(time.Minute)
		w.expect("a.example:80=10.0.0.1:80 b.example:80=10.0.0.2:80")
		second.Freeze(true) // nobody confirms but the first one
		time.Sleep(time.Minute)
		w.expect("a.example:80=10.0.0.1:80")
	})
}

// A confirmation that fails changes nothing.
func TestRemovalIsNotConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := serve(t, Options{}, zone(srv("a.example", "10.0.0.1"), srv("b.example", "10.0.0.2"))...)
		w.expect("a.example:80=10.0.0.1:80 b.example:80=10.0.0.2:80")
		asked := 0
		s.Set(srv("a.example", "10.0.0.1")...)
		s.Change(message(func(m *dnsmessage.Message) {
			if asked++; asked%2 == 0 {
				m.RCode, m.Answers, m.Additionals = dnsmessage.RCodeServerFailure, nil, nil
			}
		}))
		time.Sleep(time.Minute)
		w.expect("a.example:80=10.0.0.1:80 b.example:80=10.0.0.2:80")
		w.failing("confirm the answer")
	})
}

// A connection that the server has closed is replaced, without an error.
func TestConnectionIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := serve(t, Options{}, srv("a.example", "10.0.0.1")...)
		for range 5 {
			s.Disconnect()
			time.Sleep(1200 * time.Millisecond)
		}
		synctest.Wait()
		status := w.manager.Statuses()[0]
		verify.That(t, status.Errors <= 0 && status.Queries >= 5, "%+v", status)
		queries, connections := s.Queries("tcp")
		verify.That(t, connections >= 5 && queries >= connections, "%d queries on %d connections", queries, connections)
	})
}

// Where TCP is refused the answer is a datagram. One that is cut removes nothing.
func TestUDP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dnstest.New()
		s.RefuseTCP()
		var records []dnstest.Record
		var all []string
		for n := range 30 {
			target := fmt.Sprintf("host-%02d.example", n)
			records = append(records, srv(target, fmt.Sprintf("10.0.0.%d", n))...)
			all = append(all, fmt.Sprintf("%s:80=10.0.0.%d:80", target, n))
		}
		s.Set(records...)
		turn, lost := 0, false
		s.Change(message(func(m *dnsmessage.Message) { // as Consul does: without the flag TC
			if lost = !lost; lost {
				m.ID++ // a forged datagram
				return
			}
			turn++
			shift := turn * 97 % len(m.Answers)
			m.Answers = append(m.Answers[shift:], m.Answers[:shift]...)[:19]
			m.Additionals = append(m.Additionals[shift:], m.Additionals[:shift]...)[:19]
		}))
		w := watchServers(t, Options{}, s)
		time.Sleep(time.Minute)
		w.expect(strings.Join(all, " "))
		status := w.manager.Statuses()[0]
		verify.That(t, status.Errors <= 0, "forged datagrams count: %+v", status)
		// Small answers are whole.
		s.Change(nil)
		s.Set(records[:4]...)
		time.Sleep(2 * time.Second)
		w.expect(strings.Join(all[:2], " "))
		queries, connections := s.Queries("udp")
		verify.That(t, queries != 0 && connections <= 0, "%d datagrams, %d connections", queries, connections)
	})
}

// With more instances than fit in an answer, Consul's server sends others each time, and does not
// say so. All that were in an answer stay, and the watch tells that there may be more. When they
// fit again, the answers remove.
func TestAnswersAtTheLimitOfConsul(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit, instances = 1024, 1200
		s := dnstest.New()
		var records []dnstest.Record
		for n := range instances {
			records = append(records, srv(fmt.Sprintf("h%d.x", n), fmt.Sprintf("10.0.%d.%d", n/250, n%250))...)
		}
		s.Set(records...)
		turn := 0
		s.Change(message(func(m *dnsmessage.Message) {
			turn++
			shift := turn * 7 % len(m.Answers)
			m.Answers = append(m.Answers[shift:], m.Answers[:shift]...)[:min(limit, len(m.Answers))]
		}))
		w := watchServers(t, Options{}, s)
		w.failing("the answer is cut")
		count := func(want int) {
			t.Helper()
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			verify.Equal(t, len(w.set), want, "instances")
		}
		time.Sleep(time.Minute)
		count(instances)
		changes := w.manager.Statuses()[0].Changes
		s.Set(records[:2*(instances-100)]...) // still too many: nothing tells which are gone
		time.Sleep(time.Minute)
		count(instances)
		verify.Equal(t, w.manager.Statuses()[0].Changes, changes, "changes of the set")
		s.Set(records[:2*900]...)
		time.Sleep(time.Minute)
		count(900)
		w.failing("")
	})
}

// The instances of an earlier process stay in use while their targets cannot be resolved.
func TestInheritedSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dnstest.New()
		s.Set(zone(srv("a.example", ""), srv("b.example", "10.0.0.2"))...)
		known := []discovery.Instance{
			{Service: "star", ID: "a.example:80", Address: "10.0.0.1", Port: 80, Weight: 1, Priority: 1},
			{Service: "star", ID: "c.example:80", Address: "10.0.0.3", Port: 80, Weight: 1, Priority: 1},
		}
		var last discovery.Report
		o := Options{Name: "_star._tcp.example", Type: SRV, Servers: []string{"ns0:53"}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		source := NewSource("star", o, locality.ByOperator).(*source)
		source.dial = s.Dial
		go func() {
			ended <- source.Run(ctx, discovery.WatchState{Known: true, Set: known}, func(r discovery.Report) { last = r })
		}()
		synctest.Wait()
		got, want := discoverytest.Format(last.Set), "a.example:80=10.0.0.1:80 b.example:80=10.0.0.2:80"
		verify.That(t, got == want && last.Err != nil, "the first report has %q, want %q; %v", got, want, last.Err)
		cancel()
		verify.Equal(t, <-ended, context.Canceled, "Run returned")
	})
}

// Targets without an address in the answer are queried, at their own TTL, and keep their last
// address while that fails.
func TestTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := zone(srv("a.example", ""), srv("b.example", "10.0.0.2"), []dnstest.Record{{Name: "a.example", Address: "10.0.0.1", TTL: 20}})
		s, w := serve(t, Options{}, records...)
		w.expect("a.example:80=10.0.0.1:80 b.example:80=10.0.0.2:80")
		records[3].Address = "10.0.0.9"
		s.Set(records...)
		time.Sleep(15 * time.Second)
		w.expect("a.example:80=10.0.0.1:80 b.example:80=10.0.0.2:80")
		time.Sleep(10 * time.Second)
		w.expect("a.example:80=10.0.0.9:80 b.example:80=10.0.0.2:80")
		s.Set(records[:3]...)
		time.Sleep(time.Hour)
		w.expect("a.example:80=10.0.0.9:80 b.example:80=10.0.0.2:80")
		w.failing("a.example has no address")
		s.Set(records[1:3]...)
		time.Sleep(2 * time.Second)
		w.expect("b.example:80=10.0.0.2:80")
		w.failing("")
		// An address that an earlier answer had is a last one, too.
		s.Set(zone(srv("b.example", ""), srv("c.example", "10.0.0.3"))...)
		time.Sleep(10 * time.Second)
		w.expect("b.example:80=10.0.0.2:80 c.example:80=10.0.0.3:80")
		w.failing("b.example has no address")
	})
}

// A target without an address, of which a server may say with a TTL of 0 that there is none, is not
// queried every second.
func TestTargetsThatFailAreQueriedLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := zone(srv("a.example", "", ttl(60)), srv("b.example", "10.0.0.2", ttl(60)))
		s, w := serve(t, Options{}, records...)
		time.Sleep(5 * time.Minute)
		queries, _ := s.Queries("tcp") // each time three: one is for the service
		verify.That(t, queries < 3*80, "%d queries within 5 min", queries)
		w.expect("b.example:80=10.0.0.2:80")
		w.failing("a.example has no address")
		s.Set(append(records, dnstest.Record{Name: "a.example", Address: "10.0.0.1", TTL: 60})...)
		time.Sleep(10 * time.Second)
		w.expect("a.example:80=10.0.0.1:80 b.example:80=10.0.0.2:80")
		w.failing("")
	})
}
