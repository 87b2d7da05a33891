package reading

import (
	"math"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/balancer"
	"sluice/observe/metrics"
)

var descriptions metrics.Descriptions

var (
	requestsTotal   = descriptions.New("requests_total", "Finished requests by class of the status sent to the client.", "service", "class")
	responsesTotal  = descriptions.New("responses_total", "Finished requests by status and by sluice's reason; without a reason the answer was a peer's.", "service", "status", "reason")
	grpcTotal       = descriptions.New("grpc_calls_total", "Finished calls of gRPC by status.", "service", "status")
	requestDuration = descriptions.New("request_duration_seconds", "Time from a request's arrival to the end of its response.", "service")
	retriesTotal    = descriptions.New("retries_total", "Attempts after the first of a request.", "service")
	refusalsTotal   = descriptions.New("refusals_total", "Attempts refused by a limit of the service.", "service", "limit")
	shedTotal       = descriptions.New("shed_total", "Requests that an overloaded service has refused, by criticality.", "service", "criticality")
	pending         = descriptions.New("requests_pending", "Requests that wait for a peer or a connection.", "service")
	receivedBytes   = descriptions.New("request_body_bytes_total", "Octets of request bodies received from clients.", "service")
	sentBytes       = descriptions.New("response_body_bytes_total", "Octets of response bodies sent to clients.", "service")
	inflight        = descriptions.New("requests_in_flight", "Attempts in flight to all peers of a service.", "service")

	peersByState  = descriptions.New("peers", "Peers by state.", "service", "state")
	peersEligible = descriptions.New("peers_eligible", "Peers that get requests.", "service")
	inPanic       = descriptions.New("panic", "1 while failing peers get requests too, because too few are eligible; else 0.", "service")
	tierShare     = descriptions.New("tier_share", "Share of a service's requests that a tier gets, 0 to 1; tier 0 is the first.", "service", "tier")
	tierWaiting   = descriptions.New("tier_requests_waiting", "Attempts in a tier that wait for an answer, with an adaptive limit.", "service", "tier")
	tierLimit     = descriptions.New("tier_requests_limit", "Adaptive limit of the attempts in a tier that wait for an answer; +Inf while there is none.", "service", "tier")

	groupAttempts  = descriptions.New("group_attempts_total", "Finished attempts on the peers of a group by class of their status; one without an answer is 5xx.", "service", "group", "class")
	groupDuration  = descriptions.New("group_attempt_duration_seconds", "Time from the pick of a peer of a group to its response head.", "service", "group")
	groupFallbacks = descriptions.New("group_fallbacks_total", "Attempts that found no peer in a group and went to its fallback.", "service", "group")
	groupEligible  = descriptions.New("group_peers_eligible", "Peers of a group that get requests.", "service", "group")

	peerInflight = descriptions.New("peer_requests_in_flight", "Attempts in flight to a peer.", "service", "node", "id", "address")
	peerAttempts = descriptions.New("peer_attempts_total", "Finished attempts on a peer by outcome.", "service", "node", "id", "address", "outcome")
	peerLatency  = descriptions.New("peer_latency_seconds", "Moving average of the time to a peer's response head.", "service", "node", "id", "address")
)

// manyServices is the number of services from which on their series are too many in full; ten peers
// count as a service. The full series of so many are 5 MB.
const manyServices = 1000

// Many reports whether there are so many services and peers that their metrics should be brief.
func Many(pools []*balancer.Pool) bool {
	peers := 0
	for _, pool := range pools {
		snapshot := pool.Snapshot()
		peers += len(snapshot.All) + len(snapshot.Draining)
	}
	return len(pools)+peers/10 > manyServices
}

// Metrics returns the collector of the services that pools has, as [Of]. A series is there once,
// since a duplicate invalidates the whole scrape.
func Metrics(pools func() []*balancer.Pool) prometheus.Collector {
	return descriptions.Collector(func(s metrics.Series) {
		for _, service := range Of(pools()) {
			service.collectRequests(s.PerService())
			service.collectPeers(s)
			service.collectGroups(s.PerService())
		}
	})
}

func (s *Service) collectRequests(to metrics.Series) {
	for class := range metrics.Class(metrics.NumClasses) {
		to.Counter(requestsTotal, s.Requests.Class(class), s.Name, class.String())
	}
	for _, r := range s.Responses {
		if r.Reason != "" || !to.Brief { // of the others the classes are enough
			to.Counter(responsesTotal, r.Count, s.Name, r.Status, r.Reason)
		}
	}
	for code, n := range s.Requests.GRPC {
		if n > 0 {
			to.Counter(grpcTotal, n, s.Name, metrics.GRPCName(code))
		}
	}
	to.Counter(retriesTotal, s.Requests.Retries, s.Name)
	for limit, n := range s.Refusals {
		to.Counter(refusalsTotal, n, s.Name, metrics.Label(balancer.Limit(limit)))
	}
	if o := s.Overload; o != nil {
		for c, n := range o.Shed {
			to.Counter(shedTotal, n, s.Name, balancer.Criticality(c).String())
		}
		for tier, load := range o.Tiers {
			limit := float64(load.Limit)
			if load.Limit == 0 {
				limit = math.Inf(1)
			}
			to.Gauge(tierWaiting, float64(load.Waiting), s.Name, strconv.Itoa(tier))
			to.Gauge(tierLimit, limit, s.Name, strconv.Itoa(tier))
		}
	}
	to.Gauge(pending, float64(s.Pending), s.Name)
	to.Counter(receivedBytes, uint64(s.Requests.BytesIn), s.Name)
	to.Counter(sentBytes, uint64(s.Requests.BytesOut), s.Name)
	to.Gauge(inflight, float64(s.Inflight()), s.Name)
	to.Histogram(requestDuration, &s.Requests, s.Name)
}

func (s *Service) collectPeers(full metrics.Series) {
	full.Gauge(peersEligible, float64(s.Eligible), s.Name) // also 0 of a brief scrape: the alert needs it
	to, count := full.PerService(), s.States()
	for _, state := range States {
		to.Gauge(peersByState, float64(count[state]), s.Name, state.String())
	}
	to.Flag(inPanic, s.Panic, s.Name)
	if to.Brief {
		return
	}
	for tier, t := range s.Tiers {
		to.Gauge(tierShare, t.Share, s.Name, strconv.Itoa(tier))
	}
	for i := range s.Peers {
		p := &s.Peers[i]
		to.Gauge(peerInflight, float64(p.Inflight), s.Name, p.labels.node, p.labels.id, p.labels.address)
		to.Gauge(peerLatency, p.Peer.Latency().Seconds(), s.Name, p.labels.node, p.labels.id, p.labels.address)
		for class, n := range p.Outcomes {
			// Most outcomes never occur. "ok" is always there, so that a rate over
			// all outcomes has a series.
			if class := balancer.OutcomeClass(class); n > 0 || class == balancer.OutcomeOK {
				to.Counter(peerAttempts, n, s.Name, p.labels.node, p.labels.id, p.labels.address, metrics.Label(class))
			}
		}
	}
}

func (s *Service) collectGroups(to metrics.Series) {
	for i := range s.Groups {
		g := &s.Groups[i]
		for class := range metrics.Class(metrics.NumClasses) {
			to.Counter(groupAttempts, g.Attempts.Class(class), s.Name, g.Name, class.String())
		}
		to.Histogram(groupDuration, &g.Attempts, s.Name, g.Name)
		to.Counter(groupFallbacks, g.Fallbacks, s.Name, g.Name)
		to.Gauge(groupEligible, float64(g.Eligible), s.Name, g.Name)
	}
}
