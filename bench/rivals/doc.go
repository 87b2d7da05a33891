// Command rivals compares sluice with other load balancers for Consul: the time until a new
// instance is used, and failed requests when instances leave, die or hang, and when Consul
// fails.
//
//	go run ./bench/rivals                                     # everything, about ten minutes
//	go run ./bench/rivals -run join,kill -rivals sluice,fabio # some of it
//	go run ./bench/rivals -list                               # the scenarios
//	go run ./bench/rivals -document bench/rivals/results.md
//
// It needs Linux, and the Debian packages nginx and haproxy. Consul, fabio,
// Traefik and consul-template are built from the modules that are pinned here
// and in package consultest, once per user, which takes some minutes each. A rival
// that cannot be built is left out, and the report has the reason.
//
// # What is measured
//
// One rival at a time balances the load of the instances of a service: processes
// that register in Consul with a check every second, and answer after 5 ms. Consul
// is a server, and an agent for the instances and the rival. Each scenario starts
// new instances and the rival, and begins when all instances have answered.
//
// A client sends 200 GETs a second, at times that do not depend on the answers,
// over persistent connections. A request fails if its status is not 2xx, or its
// response is incomplete or not complete after 5 s. Failing is the longest time
// from an event to the scheduled time of a failed request. The time to the first
// response of a new instance begins when it sends its registration as passing; at
// this rate each of five instances gets a request every 25 ms. Latencies begin at
// the scheduled time of a request.
//
// # Settings
//
// The directory conf has the exact files. sluice runs with its defaults. The others
// have what their documentation recommends or offers for following changes
// quickly and for hiding failures: retries on other instances, active health
// checks, short intervals. All wait 1 s for a connection and 30 s for an answer.
//
//   - haproxy-dns: server-template with SRV records from Consul's DNS, queried
//     every second; checks every second, which exclude a failing server; three
//     retries on other servers after any error.
//   - nginx-template: consul-template renders the upstream and reloads nginx.
//   - fabio: its defaults, round robin; it has no retries.
//   - traefik: the provider for Consul's catalog with watch, a throttle of 100 ms
//     instead of 2 s, checks every second, three attempts.
package main
