// Command bench compares the cost of sluice, nginx and HAProxy for the same work, as figures and as
// ratios:
//
//	go run ./bench                       # every workload, about ten minutes
//	go run ./bench -run small,post1k     # some of them
//	go run ./bench -list                 # what there is
//	go run ./bench -runs 3 -document bench/results.md
//	go run ./bench -run small -profile out -proxies sluice
//	go run ./bench -run small -proxies before=/tmp/sluice-before,sluice
//	go run ./bench -run h3,h3conns,newh3,h3get1g,idleh3 -proxies sluice,caddy
//
// It needs Linux, at least two cores, and the Debian packages nginx, haproxy,
// wrk, nghttp2-client (h2load) and util-linux (taskset); -profile also needs linux-perf and strace.
// Caddy is built from the module that bench/caddy pins, once per user, which takes some minutes.
//
// # What is measured
//
// One proxy at a time works on its own core. The load generator (wrk) and the
// origin (nginx on four ports, which the proxies see as four peers; a small
// server that reads whole bodies for requests that have one) share another
// core, so their cost does not count. The load of HTTP/2 and gRPC is from h2load, the load of
// new TLS connections and of HTTP/3 from this program; the peers for gRPC are this program too.
// With TLS, all proxies use TLS 1.3 with X25519, AES-128-GCM and a P-256 certificate.
//
// The main figure is the CPU time of the processes of the proxy, divided by the answered requests
// that the clients count. It is from the per-process CPU clock of the kernel, in nanoseconds, with
// ended threads. It includes soft interrupts while the proxy runs, for all proxies alike.
//
// Rounds are short and alternate between the proxies, in rotated order, so
// that other work on the machine affects all of them. Figures are
// medians of the rounds. A ratio is the median of the ratios within each
// round. Absolute times from two runs must not be compared: a shared machine
// differs by ten percent from minute to minute, ratios do not.
//
// With HTTP/3, each answer must have status 2xx and a body of the right length. Each connection of
// the load has a UDP socket of its own. A round opens its connections anew, so the rounds of many
// of them are long. The memory of idle connections is read before they end, after 20 s, with what
// Go's heap and stacks hold after a collection: what a proxy has kept since the load before hides
// some of the resident memory of its connections.
//
// A round with a failed request or an answer outside 2xx is reported and makes
// the command exit with status 1.
//
// # What each proxy does
//
// All of them have the features that sluice has by default: keep-alive to clients
// and peers, X-Forwarded-For, passive health, counters, and an access log with
// peer, status and times for each request. See conf/ for the exact files.
//
//   - nginx: one worker, JSON access log through a 64 KiB buffer, keep-alive
//     pool to the peers, no limit on requests per connection, no temporary
//     files.
//   - haproxy: one thread, option httplog. HAProxy does not write files, so its
//     log goes to a ring buffer in memory, which HAProxy forwards in batches
//     over one TCP connection to a reader on the load generator's core. This is
//     its cheapest way of logging every request.
//   - haproxy-nolog: the same without a log.
//   - relay: HAProxy in TCP mode, which forwards the bytes of a connection without a look at them:
//     the least that a proxy does. It takes part in the workload small.
//   - haproxy-splice: as haproxy, with bodies that move within the kernel (option
//     splice-request, splice-response), which is not its default.
//   - sluice: static peers, JSON access log to a file, everything else by
//     default.
//   - caddy: takes part in workloads with TLS, and is the only peer for HTTP/3: Debian's nginx and
//     HAProxy have none, nginx not before 1.25. It has no access log, which sluice has.
//   - fasthttp: a minimal proxy with fasthttp.Server and fasthttp.HostClient, with no
//     log, no health, no counters; a reference for the cost of the library.
package main
