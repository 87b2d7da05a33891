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

// What is on probation gets no requests at an address where another service is in service, whichever
// of both sluice learns first, and also after that service has left.
func TestProbationAtAnAddressThatAnotherServiceHas(t *testing.T) {
	const failed = "the service other is in service at its address"
	for _, test := range []struct {
		name   string
		other  Instance
		static bool
		want   string
	}{
		{"another service", at("other", "o", "10.0.0.1", 80), false, failed},
		{"another service on the same machine", at("other", "o", "127.0.0.1", 80), false, failed},
		{"another port", at("other", "o", "10.0.0.1", 81), false, ""},
		{"the same service under another name", at("star", "o", "10.0.0.1", 80), false, ""},
		{"an address in the file", at("other", "o", "10.0.0.1", 80), true, ""},
		{"out of service", func() Instance {
			i := at("other", "o", "10.0.0.1", 80)
			i.Status, i.Weight = StatusCritical, 0
			return i
		}(), false, ""},
		{"on probation too", func() Instance {
			i := at("other", "o", "10.0.0.1", 80)
			i.Probation = time.Unix(1, 0)
			return i
		}(), false, ""},
		{"another machine", func() Instance {
			i := at("other", "o", "127.0.0.1", 80)
			i.NodeAddress = "10.0.0.8"
			return i
		}(), false, ""},
	} {
		for _, lostFirst := range []bool{false, true} {
			t.Run(fmt.Sprint(test.name, ", lost first: ", lostFirst), func(t *testing.T) {
				inBubble(t, func(t *testing.T, b *bubble) {
					latest := make(map[string][]Instance)
					b.options.Sink = func(set Set) { latest[set.Service] = set.Instances }
					lost := at("star", "a", test.other.Address, 80)
					star := b.start("star")
					star.set([]Instance{lost})
					pause(time.Second)
					lost.Probation = time.Now()
					appear := func() {
						if test.static {
							b.Watch("file", NewStatic("file", []Instance{test.other}))
							return
						}
						b.start("second").set([]Instance{test.other})
					}
					if !lostFirst {
						appear()
						pause(time.Second)
					}
					star.set([]Instance{lost})
					if lostFirst {
						pause(time.Second)
						verify.Equal(t, latest["star"][0].Failed, "", "before another service has the address")
						appear()
					}
					pause(time.Millisecond)
					verify.Equal(t, latest["star"][0].Failed, test.want, "how the lost instance has failed")
				})
			})
		}
	}
}
