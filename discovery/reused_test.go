package discovery

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

// at returns an instance of a service at an address, in service.
func at(service, id, address string, port int) Instance {
	return Instance{Service: service, ID: id, Node: "n", NodeAddress: "10.0.0.9", Address: address, Port: port, Weight: 1}
}

// pause lets time pass, and everybody do what is due then.
func pause(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// What is on probation gets no requests at an address that another service has come to, whichever
// of both sluice learns first, and also after that service has left.
func TestProbationAtAnAddressThatAnotherServiceHas(t *testing.T) {
	const failed = "the service other is in service at its address"
	critical, lostToo := at("other", "o", "10.0.0.1", 80), at("other", "o", "10.0.0.1", 80)
	critical.Status, critical.Weight = StatusCritical, 0
	lostToo.Probation = time.Unix(1, 0)
	elsewhere := at("other", "o", "127.0.0.1", 80)
	elsewhere.NodeAddress = "10.0.0.8"
	for _, test := range []struct {
		name     string
		other    Instance
		static   bool
		identity string // of the lost instance
		want     string
	}{
		{"another service", at("other", "o", "10.0.0.1", 80), false, "", failed},
		{"another service on the same machine", at("other", "o", "127.0.0.1", 80), false, "", failed},
		{"another port", at("other", "o", "10.0.0.1", 81), false, "", ""},
		{"the same service under another name", at("star", "o", "10.0.0.1", 80), false, "", ""},
		{"an address in the file", at("other", "o", "10.0.0.1", 80), true, "", ""},
		{"in a mesh", at("other", "o", "10.0.0.1", 80), false, "/ns/default/dc/dc1/svc/star", ""},
		{"out of service", critical, false, "", ""},
		{"on probation too", lostToo, false, "", ""},
		{"another machine", elsewhere, false, "", ""},
	} {
		for _, lostFirst := range []bool{false, true} {
			t.Run(fmt.Sprint(test.name, ", lost first: ", lostFirst), func(t *testing.T) {
				inBubble(t, func(t *testing.T, b *bubble) {
					latest := latestOf(b)
					lost := at("star", "a", test.other.Address, 80)
					lost.Identity = test.identity
					star, second := b.start("star"), reports(nil)
					star.set([]Instance{lost})
					if !test.static {
						second = b.start("second")
						second.set(nil)
					}
					pause(time.Minute)
					appear := func() {
						if test.static {
							b.Watch("file", NewStatic("file", []Instance{test.other}))
							return
						}
						second.set([]Instance{test.other})
					}
					if !lostFirst {
						appear()
						pause(time.Second)
					}
					lost.Probation = time.Now()
					star.set([]Instance{lost})
					if lostFirst {
						pause(time.Minute)
						verify.Equal(t, latest["star"][0].Failed, "", "before another service has the address")
						appear()
					}
					pause(time.Millisecond)
					verify.Equal(t, latest["star"][0].Failed, test.want, "how the lost instance has failed")
					if !test.static {
						second.set(nil)
					}
					pause(time.Minute)
					star.set([]Instance{lost})
					pause(time.Second)
					verify.Equal(t, latest["star"][0].Failed, test.want, "after the other service has left")
					lost.Probation = time.Now()
					star.set([]Instance{lost})
					pause(time.Second)
					verify.Equal(t, latest["star"][0].Failed, "", "on another probation")
				})
			})
		}
	}
}

// latestOf returns what Sink gets from now on, by service.
func latestOf(b *bubble) map[string][]Instance {
	latest := make(map[string][]Instance)
	b.options.Sink = func(set Set) { latest[set.Service] = set.Instances }
	return latest
}

// A process may have several services. If the registry loses them, sluice learns it of one after
// the other, and they are listed again one after the other. None of them fails because another
// one is there.
func TestProbationAtAnAddressThatServicesShare(t *testing.T) {
	star, other := at("star", "a", "10.0.0.1", 80), at("other", "o", "10.0.0.1", 80)
	lost := func(i Instance) []Instance {
		i.Probation = time.Now()
		return []Instance{i}
	}
	inService := func(b *bubble) (first, second reports) {
		first, second = b.start("star"), b.start("other")
		first.set([]Instance{star})
		second.set([]Instance{other})
		return first, second
	}
	known := func(source Source, i Instance) WatchState {
		return WatchState{Source: NameOf(source), Known: true, Set: []Instance{i}}
	}
	for _, test := range []struct {
		name  string
		begin func(b *bubble) (first, second reports) // of star and of other, both in service
		wait  time.Duration                           // until the loss
	}{
		{"watched for long", inService, time.Hour},
		{"just watched", inService, time.Millisecond},
		{"came there more than 10 s ago", func(b *bubble) (first, second reports) {
			first, second = b.start("star"), b.start("other")
			first.set([]Instance{star})
			second.set(nil)
			pause(time.Minute)
			second.set([]Instance{other})
			return first, second
		}, reuseTime + time.Millisecond},
		{"known from the process before", func(b *bubble) (first, second reports) {
			one, two := newScripted(), newScripted()
			b.Watch("star", one, known(one, star))
			b.Watch("other", two, known(two, other))
			return <-one.reports, <-two.reports
		}, time.Millisecond},
		{"by another source of the service", func(b *bubble) (first, second reports) {
			inService(b)
			pause(time.Minute)
			return inService(b)
		}, time.Millisecond},
		{"by a source in place of addresses in the file", func(b *bubble) (first, second reports) {
			b.Watch("star", NewStatic("file", nil))
			b.Watch("other", NewStatic("file", nil))
			pause(time.Minute)
			return inService(b)
		}, time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				latest := latestOf(b)
				first, second := test.begin(b)
				pause(test.wait)
				check := func(when string) {
					t.Helper()
					pause(time.Second)
					verify.Equal(t, latest["star"][0].Failed, "", "how star has failed, %s", when)
					verify.Equal(t, latest["other"][0].Failed, "", "how other has failed, %s", when)
				}
				gone := lost(star)
				first.set(gone)
				check("of which the loss is known first")
				second.set(lost(other))
				check("both lost")
				second.set([]Instance{other})
				check("one is listed again")
				first.set(gone)
				check("after another answer")
				first.set([]Instance{star})
				second.set(lost(other))
				check("the other one is lost")
			})
		})
	}
}

// A service of which nothing was known is at an address where another one was lost: it has come
// there since. What was known before a restart or a reload stays known.
func TestProbationAtAnAddressOfANewService(t *testing.T) {
	const failed = "the service other is in service at its address"
	other := at("other", "o", "10.0.0.1", 80)
	for _, test := range []struct {
		name string
		run  func(b *bubble, star Instance)
		want string
	}{
		{"watched since the loss", func(b *bubble, star Instance) {
			first := b.start("star")
			first.set([]Instance{star})
			pause(time.Second)
			star.Probation = time.Now()
			first.set([]Instance{star})
			pause(time.Hour)
			b.start("other").set([]Instance{other})
		}, failed},
		{"lost before a restart, and then there", func(b *bubble, star Instance) {
			star.Probation = time.Now().Add(-time.Hour)
			b.fallback = func(service, _ string) ([]Instance, time.Time, bool) {
				return []Instance{star}, time.Now(), service == "star"
			}
			first := b.start("star")
			b.start("other").set([]Instance{other})
			first.set([]Instance{star})
		}, failed},
		{"lost before a restart, and there before, too", func(b *bubble, star Instance) {
			star.Probation = time.Now().Add(-time.Hour)
			b.fallback = func(service, _ string) ([]Instance, time.Time, bool) {
				return []Instance{map[string]Instance{"star": star, "other": other}[service]}, time.Now(), true
			}
			first := b.start("star")
			b.start("other").set([]Instance{other})
			first.set([]Instance{star})
		}, ""},
		{"with a source that is replaced", func(b *bubble, star Instance) {
			first, second := b.start("star"), b.start("other")
			first.set([]Instance{star})
			second.set(nil)
			pause(time.Minute)
			second.set([]Instance{other})
			b.start("other").set([]Instance{other})
			pause(reuseTime - time.Second)
			star.Probation = time.Now()
			first.set([]Instance{star})
		}, failed},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				latest := latestOf(b)
				test.run(b, at("star", "a", "10.0.0.1", 80))
				pause(time.Second)
				verify.Equal(t, latest["star"][0].Failed, test.want, "how the lost instance has failed")
			})
		})
	}
}

// What is remembered of arrivals is bounded.
func TestArrivalsAreForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		other := b.start("other")
		for port := range 100 {
			other.set([]Instance{at("other", "o", "10.0.0.1", 1+port)})
			pause(time.Minute)
		}
		verify.Equal(t, len(b.watches["other"].arrived), 1, "how many")
	})
}
