package proxy

import (
	"sluice/balancer"
	"sluice/balancer/load"
	"sluice/proxy/http1"
)

// noteLoad notes the load that a peer reports in the head of its answer, whose text is text.
func noteLoad(p *balancer.Peer, head *http1.ResponseHead, text []byte) {
	if value := head.Find(text, http1.NameEndpointLoadMetricsBin); value != nil {
		p.ReportLoad(load.BinaryUtilization(value))
	} else if value := head.Find(text, http1.NameEndpointLoadMetrics); value != nil {
		p.ReportLoad(load.Utilization(value))
	}
}

// noteLoadOfTrailer is noteLoad for a trailer section, as servers of gRPC have it (gRFC A51).
func noteLoadOfTrailer(p *balancer.Peer, section []byte) {
	if value := http1.TrailerField(section, load.BinaryField); value != nil {
		p.ReportLoad(load.BinaryUtilization(value))
	} else if value := http1.TrailerField(section, load.Field); value != nil {
		p.ReportLoad(load.Utilization(value))
	}
}
