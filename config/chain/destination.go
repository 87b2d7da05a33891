package chain

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/config"
	"sluice/config/units"
	"sluice/consul/mesh"
	"sluice/tags"
)

// Limits of keys of the configuration.
const (
	maxAttempts = 5
	maxWait     = 24 * time.Hour
	maxTunnel   = 720 * time.Hour
)

// destination sets what happens to the requests of a branch, as far as sluice can do it.
func (t *translation) destination(b *config.Branch, d *mesh.RouteDestination) {
	if d.PrefixRewrite != "" {
		with := *b
		with.PrefixRewrite = d.PrefixRewrite
		if err := with.Check(); err != nil {
			t.problem(b.Origin, "%v", err)
		} else {
			b.PrefixRewrite = d.PrefixRewrite
		}
	}
	b.Route.Timeouts = timeouts(d)
	b.Route.Retry = t.retry(b.Origin, d)
	t.edits(b.Origin, &b.Route.Actions, d.RequestHeaders, d.ResponseHeaders)
}

// timeouts returns the timeouts of a route; nil: none.
func timeouts(d *mesh.RouteDestination) *config.RouteTimeouts {
	var all config.RouteTimeouts
	if d.RequestTimeout != 0 {
		all.ResponseHeader = within(d.RequestTimeout, time.Millisecond, maxWait)
	}
	if d.IdleTimeout != 0 {
		all.Idle, all.Tunnel = within(d.IdleTimeout, time.Millisecond, maxWait), within(d.IdleTimeout, time.Second, maxTunnel)
	}
	if all == (config.RouteTimeouts{}) {
		return nil
	}
	return &all
}

// within returns a duration of Consul, the nearest that sluice accepts; a negative one is none.
func within(d mesh.Duration, least, most time.Duration) *time.Duration {
	bounded := min(max(time.Duration(d), least), most)
	if d < 0 {
		bounded = most
	}
	return &bounded
}

// retried are the conditions of retry_on for which sluice tries again by itself.
var retried = []string{"connect-failure", "reset", "refused-stream"}

// retry returns the retries of a route; nil: the service's own.
func (t *translation) retry(origin string, d *mesh.RouteDestination) *config.RouteRetry {
	if d.NumRetries == 0 && !d.RetryOnConnectFailure && len(d.RetryOn) == 0 && len(d.RetryOnStatusCodes) == 0 {
		return nil
	}
	for i, condition := range d.RetryOn {
		if !slices.Contains(retried, condition) && !slices.Contains(d.RetryOn[:i], condition) {
			t.problem(origin, "retry_on %q is not carried out: an answer of a peer is passed on with any status", tags.Shorten(condition))
		}
	}
	if len(d.RetryOnStatusCodes) > 0 {
		t.problem(origin, "retry_on_status_codes is not carried out: an answer of a peer is passed on with any status")
	}
	attempts := 1 + int(min(max(d.NumRetries, 1), 100)) // Envoy's default is 1 retry
	if attempts > maxAttempts {
		t.problem(origin, "num_retries %d: sluice tries at most %d times again", d.NumRetries, maxAttempts-1)
		attempts = maxAttempts
	}
	return &config.RouteRetry{Attempts: &attempts}
}

// edits sets the header edits of a route or a split.
func (t *translation) edits(origin string, a *config.Actions, request, response *api.HTTPHeaderModifiers) {
	a.RequestHeaders = t.headerEdits(origin, "request_headers", request)
	a.ResponseHeaders = t.headerEdits(origin, "response_headers", response)
}

// headerEdits returns those of the edits that sluice can do; nil: none. As Envoy does, it removes
// first, and what is set replaces what is added.
func (t *translation) headerEdits(origin, key string, from *api.HTTPHeaderModifiers) *config.HeaderEdits {
	if from == nil {
		return nil
	}
	to := config.HeaderEdits{Set: make(map[string]config.Secret), Add: make(map[string]config.Secret)}
	done := make(map[string]bool) // names in lower case that are set or removed
	accept := func(kind, name string, value any) bool {
		_, err := config.DecodeRoute(tags.Keys{key: map[string]any{kind: value}}, config.ByDocument, nil)
		if err != nil {
			t.problem(origin, "%v", err)
		}
		return err == nil
	}
	put := func(kind string, values map[string]string, in map[string]config.Secret) {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			lower := strings.ToLower(name)
			value, err := headerValue(values[name])
			switch {
			case err != nil:
				t.problem(origin, "%s.%s.%s: %v", key, kind, tags.Shorten(name), err)
			case done[lower] && kind == "set":
				t.problem(origin, "%s.set.%s: given twice", key, tags.Shorten(name))
			case done[lower]: // it is replaced
			case accept(kind, name, map[string]any{name: value}):
				in[name] = units.NewSecret(value)
				done[lower] = kind == "set"
			}
		}
	}
	put("set", from.Set, to.Set)
	put("add", from.Add, to.Add)
	for _, name := range from.Remove {
		if lower := strings.ToLower(name); !done[lower] && accept("remove", name, []string{name}) {
			to.Remove = append(to.Remove, name)
			done[lower] = true
		}
	}
	if len(to.Set)+len(to.Add)+len(to.Remove) == 0 {
		return nil
	}
	return &to
}

// headerValue returns a value of Envoy's as a template. Envoy replaces what is between percent
// signs.
func headerValue(value string) (string, error) {
	parts := strings.Split(value, "%%")
	for _, part := range parts {
		if strings.Contains(part, "%") {
			return "", fmt.Errorf("%q is not carried out: sluice has no variables of Envoy", tags.Shorten(value))
		}
	}
	return strings.ReplaceAll(strings.Join(parts, "%"), "$", "$$"), nil
}
