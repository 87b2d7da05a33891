// Package discoverytest has a scripted fake of Consul's health endpoint, for
// what a real agent does only on a bad day: it hangs, answers 500, forgets its
// index, drops connections, or lists nothing.
//
//	fake := discoverytest.Start(t)
//	fake.Set("star", discoverytest.Instance("star", "star-1", 8080))
//	fake.Break(discoverytest.Fault{Status: 500, Body: "No cluster leader"})
//	fake.Heal()
//
// Without a fault it behaves like Consul 1.10 and later: a query with an index
// blocks until the service has a greater one or the wait is over, and its answer
// comes from the streaming backend. A fault also ends the queries that block at
// that moment.
//
// [Agent] is a stand-in for an agent where programs register themselves: the quickstart starts it
// where there is no Consul.
//
// [Watch] runs a source of any kind, and waits for what it reports.
package discoverytest
