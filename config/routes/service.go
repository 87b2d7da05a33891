package routes

import (
	"fmt"
	"time"

	"sluice/balancer"
	"sluice/config"
	"sluice/route"
)

// proxyProtocolVersions are the values of config.Service.ProxyProtocol.
var proxyProtocolVersions = map[string]byte{"v1": 1, "v2": 2}

// Service returns the service with a pool as a target of routes, with the settings of c.
func Service(name string, pool *balancer.Pool, c config.Service) *route.Service {
	return &route.Service{
		Name:           name,
		Pool:           pool,
		Timeouts:       c.Timeouts,
		Retry:          c.Retry.Retry,
		HTTP2:          c.Upstream.UsesHTTP2(),
		Affinity:       affinityOf(c.Balance),
		ProxyProtocol:  proxyProtocolVersions[c.ProxyProtocol],
		WaitForPeer:    c.WaitForPeer,
		ConnectionWait: c.Limits.ConnectionWait,
	}
}

// withSettings returns s with the timeouts and the retries of r, which replace its own.
func withSettings(s *route.Service, r *config.Route) *route.Service {
	if r.Timeouts == nil && r.Retry == nil {
		return s
	}
	own := *s
	if t := r.Timeouts; t != nil {
		replace(&own.Timeouts.Connect, t.Connect)
		replace(&own.Timeouts.ResponseHeader, t.ResponseHeader)
		replace(&own.Timeouts.Idle, t.Idle)
		replace(&own.Timeouts.Tunnel, t.Tunnel)
	}
	if t := r.Retry; t != nil {
		replace(&own.Retry.Attempts, t.Attempts)
		replace(&own.Retry.PerTryTimeout, t.PerTryTimeout)
		replace(&own.Retry.BodyBytes, t.Body)
	}
	return &own
}

// replace sets a value, if there is another one.
func replace[T any](value, by *T) {
	if by != nil {
		*value = *by
	}
}

// affinityOf returns the affinity of policies that have one, or nil.
func affinityOf(b config.Balance) *route.Affinity {
	switch b.Policy {
	case balancer.PolicyHash:
		return &route.Affinity{Keys: config.Values(b.Hash.Keys)}
	case balancer.PolicySticky:
		return &route.Affinity{
			Cookie:           b.Sticky.Cookie,
			CookieAttributes: cookieAttributes(b.Sticky),
			RefreshCookie:    b.Sticky.MaxAge > 0,
			SecureCookie:     b.Sticky.Secure,
		}
	}
	return nil
}

// cookieAttributes returns the attributes of RFC 6265bis, section 4.1.2. HttpOnly, because
// no script needs to read the cookie.
func cookieAttributes(s config.Sticky) string {
	attributes := "; Path=" + s.Path
	if s.Domain != "" {
		attributes += "; Domain=" + s.Domain
	}
	if s.MaxAge > 0 {
		attributes += fmt.Sprintf("; Max-Age=%d", max(1, s.MaxAge/time.Second))
	}
	attributes += "; HttpOnly; SameSite=" + map[string]string{"lax": "Lax", "strict": "Strict", "none": "None"}[s.SameSite]
	return attributes
}
