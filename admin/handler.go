package admin

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"sync/atomic"
)

type handler struct {
	Options
	eventStreams atomic.Int32 // open streams of events
}

// New returns the handler of the admin listener.
func New(o Options) http.Handler {
	mux := http.NewServeMux()
	for path, f := range (&handler{Options: o}).endpoints() {
		mux.Handle(path, f)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, "no such path: "+r.URL.Path)
	})
	return mux
}

// endpoints returns the handlers by path. openapi.yaml describes each of them.
func (h *handler) endpoints() map[string]http.HandlerFunc {
	all := make(map[string]http.HandlerFunc)
	open := func(path string, f http.HandlerFunc) { all[path] = readOnly(f) }
	guarded := func(path string, f http.HandlerFunc) { all[path] = readOnly(h.authorized(f)) }

	open("/healthz", h.healthz)
	open("/readyz", h.readyz)
	open("/{$}", dashboard)

	guarded("/api", h.peers)
	guarded("/api/peers", h.peers)
	guarded("/api/services", h.services)
	guarded("/api/catalog", h.catalog)
	guarded("/api/replica", h.replica)
	guarded("/api/replicas", h.replicas)
	guarded("/api/events", h.events)
	guarded("/api/series", h.series)
	guarded("/api/route", h.route)
	guarded("/api/routes", h.routes)
	guarded("/api/shares", h.shares)
	guarded("/api/tags", h.tags)
	guarded("/api/certificates", h.certificates)
	guarded("/api/config", h.config)
	guarded("/api/config/history", h.configHistory)
	guarded("/api/config/history/{number}", h.configRevision)
	guarded("/api/config/diff/{from}/{to}", h.configDiff)
	guarded("/consul", h.consulAll)
	guarded("/consul/{service}", h.consulOne)
	order := func(path string, f http.HandlerFunc) { all[path] = h.order(h.authorized(f)) }
	order("/api/peers/{service}/{id}/drain", h.drain)
	order("/api/peers/{service}/{id}/enable", h.enable)
	order("/api/shares/{service}", h.setShare)
	for _, verb := range []ShareVerb{SharePause, ShareResume, ShareRelease} {
		order("/api/shares/{service}/"+string(verb), h.changeShare(verb))
	}
	order("/api/config/rollback", h.rollback)
	guarded("/metrics", h.newMetrics().ServeHTTP)
	guarded("/debug/pprof/", pprof.Index)
	guarded("/debug/pprof/profile", pprof.Profile)
	guarded("/debug/pprof/trace", pprof.Trace)
	guarded("/api/openapi.json", h.openAPI)
	return all
}

// readOnly rejects all methods except GET and HEAD.
func readOnly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			writeError(w, http.StatusMethodNotAllowed, "method "+r.Method+" is not allowed here")
			return
		}
		next(w, r)
	}
}

// authorized requires the token if there is one (RFC 6750, section 2.1). Without one it
// accepts any request except those that a browser sends for a page of another site.
func (h *handler) authorized(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token := h.Token()
		switch {
		case token != "" && !carries(r, token):
			w.Header().Set("WWW-Authenticate", `Bearer realm="sluice"`)
			writeError(w, http.StatusUnauthorized, "a valid token is required: Authorization: Bearer …")
		case token == "" && !isLiteral(r.Host):
			// The name may belong to another site (DNS rebinding).
			writeError(w, http.StatusForbidden, fmt.Sprintf("host %q: without a token, use an IP address or localhost", r.Host))
		case token == "" && isEmbedded(r):
			writeError(w, http.StatusForbidden, "without a token, requests from pages of other sites are refused")
		default:
			next(w, r)
		}
	}
}

// isLiteral reports whether a Host field is an IP address or localhost, with or without
// a port.
func isLiteral(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	_, err = netip.ParseAddr(name)
	return err == nil || strings.EqualFold(name, "localhost")
}

// isEmbedded reports whether a browser sends the request for a page of another origin,
// other than by following a link. The page cannot read the answer, but could start
// profiles.
func isEmbedded(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return r.Header.Get("Sec-Fetch-Dest") != "document"
}

// carries reports whether r has the token, in constant time.
func carries(r *http.Request, token string) bool {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	a, b := sha256.Sum256([]byte(strings.TrimSpace(given))), sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// writeJSON answers with v, indented for people.
func writeJSON(w http.ResponseWriter, status int, v any) { encodeJSON(w, status, v, "  ") }

// writeCompactJSON answers with v, for long lists of numbers.
func writeCompactJSON(w http.ResponseWriter, status int, v any) { encodeJSON(w, status, v, "") }

func encodeJSON(w http.ResponseWriter, status int, v any, indent string) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		writeError(w, http.StatusInternalServerError, fmt.Sprintf("encode the answer: %v", err))
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(body.Bytes()) // an error means that the client has gone
}

func writeError(w http.ResponseWriter, status int, reason string) {
	writeJSON(w, status, map[string]string{"error": reason})
}
