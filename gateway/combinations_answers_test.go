package gateway

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// unknownClient is the address of a client at a unix socket.
const unknownClient = "unknown"

// declined reports whether the rate limit of its route, or the maintenance of its service, has
// refused a request.
func (c *combinations) declined(response *http.Response, route *combinedRoute) bool {
	switch response.StatusCode {
	case http.StatusTooManyRequests:
		return route.rated && response.Header.Get("Retry-After") != ""
	case http.StatusServiceUnavailable:
		return c.closing && !route.streamed && response.Header.Get("X-Sluice-Reason") == "maintenance"
	}
	return false
}

// behindProxy reports whether the clients of a listener have the address in combinedHeader, which
// is no trusted proxy's.
func behindProxy(listener string) bool { return listener == "proxied" || listener == "relayed" }

// client returns the address of a client of a listener, who sends a value of X-Forwarded-For.
func (c *combinations) client(listener, forwarded string) string {
	switch {
	case behindProxy(listener):
		return "127.0.0.9"
	case c.trusting && forwarded != "":
		return forwarded
	case listener == "local":
		return unknownClient
	}
	return "127.0.0.1"
}

// denies reports whether a route denies requests of a client's address.
func (c *combinations) denies(r *combinedRoute, address string) bool {
	return r.denied && address == "127.0.0.9" || address == unknownClient && (r.denied || r.keys["allow"] != nil)
}

// restricted looks at an answer to a client of a route that may be denied, and reports whether it
// is of sluice's own about who may use the route, or of another one, or leads to HTTPS; then there
// is nothing more to check. Else standings are what the client may be.
func (c *combinedRun) restricted(response *http.Response, e *entrance, route *combinedRoute, denied bool, method, target string) (done bool, standings []string, err error) {
	outcome := outcomeOf(response)
	standings, err = e.settle(route, denied, outcome)
	switch {
	case err != nil:
		response.Body.Close()
		return true, nil, err
	case outcome == "":
		return false, standings, nil
	case strings.HasPrefix(outcome, toHTTPS):
		defer response.Body.Close()
		if to := response.Header.Get("Location"); response.StatusCode != http.StatusPermanentRedirect || to != outcome+target {
			return true, nil, fmt.Errorf("redirected to %s instead of %s%s, %s", to, outcome, target, response.Status)
		}
		return true, nil, nil
	case outcome != otherRoute:
		return true, nil, c.refused(response, route, method, http.StatusForbidden)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); method != http.MethodHead && string(body) != otherRoute {
		return true, nil, fmt.Errorf("the body of the other route is %.50q: %w", body, err)
	}
	return true, nil, nil
}

// refused reads an answer of sluice's own, and compares it with what must come.
func (c *combinedRun) refused(response *http.Response, route *combinedRoute, method string, status int) error {
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	page := string(body) == "a page"
	switch {
	case err != nil || response.StatusCode != status || response.Header.Get("X-Sluice-Reason") == "":
	case method == http.MethodHead || page == route.page:
		return nil
	case string(body) == "not allowed" && route.keys["forward_auth"] != nil && status == route.without: // by the server that was asked
		return nil
	}
	return fmt.Errorf("got %s instead of %d, header %v, body %.50q: %w", response.Status, status, response.Header, body, err)
}

// check reads an answer to a client who has one of the standings, and compares it with what must
// come. sum is of the body of the request.
func (c *combinedRun) check(response *http.Response, e *entrance, standings []string, route *combinedRoute, a combinedAsk, method, client, sum string) error {
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	got := response.Header
	if err != nil {
		return fmt.Errorf("the body ends after %d bytes, header %v: %w", len(body), got, err)
	}
	status, want, fields := a.status, combinedBody(a.key, a.length), maps.Clone(route.fields)
	switch {
	case route.status != 0:
		status, want = route.status, route.body
	default:
		fields["X-Path"], fields["X-Method"], fields["Got-X-Real-Ip"] = route.got+a.path, method, client
		fields["Got-Host"] = route.host
		if sum != "" && a.how != early {
			fields["Got-Body"] = sum
		}
		if fields["Got-X-Extra"] == "?" {
			fields["Got-X-Extra"] = method + " " + cmp.Or(e.forwarded, e.scheme())
		}
		if a.how == empty {
			status, want = http.StatusNoContent, ""
		}
		if route.page && status == http.StatusNotFound {
			want = "a page"
		}
	}
	if method == http.MethodHead {
		want = ""
	} else if status == http.StatusTemporaryRedirect {
		want = string(body)
	}
	if response.StatusCode != status {
		return fmt.Errorf("got %s instead of %d, header %v, body %.200q", response.Status, status, got, body)
	}
	if route.status == 0 && route.removed == (got.Get("X-Removed") != "") {
		return fmt.Errorf("X-Removed is %q", got.Get("X-Removed"))
	}
	if route.status == 0 && !slices.Contains(got.Values("Set-Cookie"), "own=1") {
		return fmt.Errorf("the cookie of the peer is lost, header %v", got)
	}
	if told := got.Get("Got-X-Forwarded-Client-Cert"); route.status == 0 && !identified(told, standings) {
		return trespass{fmt.Errorf("the peer was told the identity %q, and the client is one of %q", told, standings)}
	}
	for name, value := range fields {
		if got.Get(name) != value {
			return fmt.Errorf("%s is %q instead of %q, header %v", name, got.Get(name), value, got)
		}
	}
	if body, err = unzipped(response, body); err != nil || !bytes.Equal(body, []byte(want)) {
		return fmt.Errorf("got a body of %d bytes instead of %d, %.50q instead of %.50q, header %v: %w", len(body), len(want), body, want, got, err)
	}
	return nil
}

func unzipped(response *http.Response, body []byte) ([]byte, error) {
	switch encoding := response.Header.Get("Content-Encoding"); {
	case encoding == "" || len(body) == 0:
		return body, nil
	case encoding == "zstd":
		from, err := zstd.NewReader(bytes.NewReader(body), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		defer from.Close()
		return io.ReadAll(from)
	case encoding != "gzip":
		return nil, fmt.Errorf("an encoding that the client does not know: %s", encoding)
	}
	from, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(from)
}
