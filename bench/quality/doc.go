// Command quality compares how well load balancers choose: the latencies that clients see when
// peers or routes differ, with sluice, nginx, HAProxy, Traefik and Caddy side by side.
//
//	go run ./bench/quality                                      # everything, two rounds, about an hour
//	go run ./bench/quality -short                               # that all works, in ten minutes
//	go run ./bench/quality -list                                # the scenarios
//	go run ./bench/quality -run 'bimodal*' -proxies 'sluice*,haproxy*'
//	go run ./bench/quality -run antagonist -proxies before=/tmp/sluice-before,sluice
//	go run ./bench/quality -document bench/quality/results.md
//
// It needs Linux, and the Debian packages nginx, haproxy and caddy; Traefik is built from the
// module that bench/rivals pins, once per user, in some minutes. What cannot be had is left out,
// and the report has the reason. So it has if a proxy does not start in a scenario, or the
// measurement ends early (Ctrl-C): what there is until then is written.
//
// # What is measured
//
// A scenario (package scenario) says what ten peers do by time, which requests come when, and how
// much work each is. All of it is drawn from a seed: every proxy sees the same. Another round has
// another seed.
//
// The peers of each proxy are servers in this process. They do not compute, they sleep: a peer has
// slots, which work on requests in the order of their arrival, for a time that depends on the
// number of the request, which is in a field, and on how fast the peer is at that time. So the
// processor has little to do, and the result depends on the choices of the proxy. A peer is not
// aware of a client that has given up.
//
// The load is open: each request is sent at its time, whatever became of those before, over at most
// 1,000 connections that are kept. A latency begins at the intended time of sending. A request that
// has no right answer after 10 s, or another status than 2xx, has failed, and counts as the slowest
// of all. A wrong body with status 200 is counted apart; no proxy can notice it.
//
// The best possible is computed from the same requests: one queue in front of all slots, which
// knows the work of each request, and all speeds, now and later.
//
// With little load, each peer should get what its weight gives. The report has the least and the
// most of that which a sound peer got in five seconds; see scenario.Shares. A peer that is replaced
// stays at its address here, and only answers nothing for a while: in the simulation it is another
// peer.
//
// A peer that becomes at most half as fast as it was, for a second or longer, should lose its share
// of the requests. "less after" is the time until it has less than half of it, "again after" the
// time from when it is as fast as before until it has four fifths of it, both over windows of half
// a second, as medians.
//
// # Side by side
//
// A run of a proxy with 620 requests a second takes 0.22 ms of processor time per request, two
// thirds of it in this process (measured on a busy machine with two cores): 7 % of two cores. So
// several proxies run side by side, each with its own peers, which do the same at the same time.
// Which of them do is drawn anew for each scenario and round. The report says how busy the
// processor was, and how late the latest request was sent: if that is more than some milliseconds,
// or the processor was busy for half of the time, use -beside 1, or a quieter machine. A group with
// a request that was sent half a second late runs again, up to three times in all, and has no
// figures if that does not help.
//
// # Settings
//
// The directory conf has the exact files. sluice runs with its defaults. The others have what their
// documentation offers for the same: keep-alive on both sides, one more attempt on another peer, a
// peer that fails five times is left out for some seconds. nginx and HAProxy also send a request to
// another peer that one has answered with 503; the others have nothing for that. Caddy's policies
// know no weights. nginx has one worker and HAProxy one thread, so that each sees all requests. All
// wait 1 s for a connection and 30 s for an answer. Nobody writes an access log.
package main
