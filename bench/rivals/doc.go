// Command rivals measures how well sluice and other load balancers follow
// Consul: how soon a new instance is used, and what becomes of requests when
// instances leave, die or hang, and when Consul has a bad day.
//
//	go run ./bench/rivals                                     # everything, about ten minutes
//	go run ./bench/rivals -run join,kill -rivals sluice,fabio # some of it
//	go run ./bench/rivals -list                               # the scenarios
//	go run ./bench/rivals -document docs/comparison.md
//
// It needs Linux, and the Debian packages nginx and haproxy. Consul, fabio,
// Traefik and consul-template are built from the modules that are pinned here
// and in package consultest, once per user: some minutes each where nothing is
// cached. A rival that cannot be had is left out, and the report says why.
//
// # What is measured
//
// One rival at a time stands in front of instances of one service: processes that
// register themselves in Consul with a check every second, and take 5 ms for an
// answer. Consul is a server, and an agent that the instances and the rival
// talk to. Every scenario starts the instances and the rival anew, and begins
// when all instances have answered.
//
// A client sends 200 GETs a second, at times that do not depend on the answers,
// over connections that are kept. A request fails if its answer is not one of
// 2xx, is cut off, or is not complete after 5 s. Failing is how long after
// something happened a request that failed was due, at most. The time to the first
// answer of a new instance runs from the moment when it sends its registration,
// as one that passes its check; at this rate one of five instances gets a request
// every 25 ms. Latencies run from the moment when a request was due.
//
// # Settings
//
// The directory conf has the exact files. Sluice runs with its defaults. The others
// have what their documentation recommends or offers for following changes
// quickly and for hiding failures: retries on other instances, active health
// checks, short intervals. All wait 1 s for a connection and 30 s for an answer.
//
//   - haproxy-dns: server-template with SRV records from Consul's DNS, asked for
//     every second; checks every second, which take the requests from a server that
//     fails them; three retries on other servers, whatever went wrong.
//   - nginx-template: consul-template renders the upstream and reloads nginx.
//   - fabio: its defaults, round robin; it has no retries.
//   - traefik: the provider for Consul's catalog with watch, a throttle of 100 ms
//     instead of 2 s, checks every second, three attempts.
package main
