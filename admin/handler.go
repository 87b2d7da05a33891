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
)

// handler answers the requests. It is safe for concurrent use.
type handler struct {
	Options
}

// New returns the handler of the admin listener.
func New(o Options) http.Handler {
	h := &handler{o.withDefaults()}
	mux := http.NewServeMux()
	open := func(path string, f http.HandlerFunc) { mux.Handle(path, readOnly(f)) }
	guarded := func(path string, f http.HandlerFunc) { mux.Handle(path, readOnly(h.authorized(f))) }

	open("/healthz", h.healthz)
	open("/readyz", h.readyz)
	open("/{$}", dashboard)

	guarded("/api", h.peers)
	guarded("/api/peers", h.peers)
	guarded("/api/services", h.services)
	guarded("/api/catalog", h.catalog)
	guarded("/api/replica", h.replica)
	guarded("/api/replicas", h.replicas)
	guarded("/api/routes", h.routes)
	guarded("/api/config", h.config)
	guarded("/api/config/history", h.configHistory)
	guarded("/api/config/history/{number}", h.configRevision)
	guarded("/consul", h.consulAll)
	guarded("/consul/{service}", h.consulOne)
	order := func(path string, f http.HandlerFunc) { mux.Handle(path, h.order(h.authorized(f))) }
	order("/api/peers/{service}/{id}/drain", h.drain)
	order("/api/peers/{service}/{id}/enable", h.enable)
	guarded("/metrics", h.newMetrics().ServeHTTP)
	guarded("/debug/pprof/", pprof.Index)
	guarded("/debug/pprof/profile", pprof.Profile)
	guarded("/debug/pprof/trace", pprof.Trace)

	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, "no such path: "+r.URL.Path)
	})
	return mux
}

// readOnly refuses every method but GET and HEAD.
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

// authorized asks for the token if there is one (RFC 6750, section 2.1). Without one
// it lets everybody on this machine through, but no page of another site that a
// browser on this machine shows.
func (h *handler) authorized(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token := h.Token()
		switch {
		case token != "" && !carries(r, token):
			w.Header().Set("WWW-Authenticate", `Bearer realm="sluice"`)
			writeError(w, http.StatusUnauthorized, "a valid token is needed: Authorization: Bearer …")
		case token == "" && !isLiteral(r.Host):
			// A name that leads here may be one that another site's owner has made
			// lead here (DNS rebinding).
			writeError(w, http.StatusForbidden, fmt.Sprintf("host %q: without a token, use an IP address or localhost", r.Host))
		case token == "" && isEmbedded(r):
			writeError(w, http.StatusForbidden, "without a token, no page of another site may ask for this")
		default:
			next(w, r)
		}
	}
}

// isLiteral reports whether a Host field is an IP address or localhost, with or
// without a port.
func isLiteral(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	_, err = netip.ParseAddr(name)
	return err == nil || strings.EqualFold(name, "localhost")
}

// isEmbedded reports whether a browser asks on behalf of a page of another origin,
// which may link here and nothing else. That page could not read the answer, but
// have profiles taken all day.
func isEmbedded(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return r.Header.Get("Sec-Fetch-Dest") != "document"
}

// carries reports whether r has the token. The time it takes tells nothing of
// the token, not even its length.
func carries(r *http.Request, token string) bool {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	a, b := sha256.Sum256([]byte(strings.TrimSpace(given))), sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// writeJSON answers with v, indented for people.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
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

// failure is the body of every answer that is not a success.
type failure struct {
	Error string `json:"error"`
}

func writeError(w http.ResponseWriter, status int, reason string) {
	writeJSON(w, status, failure{reason})
}
