package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"sync/atomic"

	"sluice/observe/panics"
	"sluice/release"
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
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer panics.Contain(panics.Admin, func() { writeError(w, http.StatusInternalServerError, panics.Err.Error()) })
		mux.ServeHTTP(w, r)
	})
}

// endpoints returns the handlers by path. openapi.yaml describes each of them.
func (h *handler) endpoints() map[string]http.HandlerFunc {
	all := make(map[string]http.HandlerFunc)
	open := func(path string, f http.HandlerFunc) { all[path] = readOnly(f) }
	guarded := func(path string, f http.HandlerFunc) { all[path] = readOnly(h.authorized(scopeLook, f)) }

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
	guarded("/api/orders", h.orders)
	guarded("/api/log", h.logLevel)
	guarded("/api/ready", h.ready)
	guarded("/api/tags", h.tags)
	guarded("/api/certificates", h.certificates)
	guarded("/api/config", h.config)
	guarded("/api/config/history", h.configHistory)
	guarded("/api/config/history/{number}", h.configRevision)
	guarded("/api/config/diff/{from}/{to}", h.configDiff)
	guarded("/consul", h.consulAll)
	guarded("/consul/{service}", h.consulOne)
	order := func(path string, f http.HandlerFunc) { all[path] = h.order(h.authorized(scopeOperate, f)) }
	order("/api/peers/{service}/{id}/drain", h.drain)
	order("/api/peers/{service}/{id}/enable", h.enable)
	order("/api/peers/{service}/{id}/weight", h.setWeight)
	order("/api/peers/{service}/{id}/weight/release", h.releaseWeight)
	order("/api/nodes/{node}/drain", h.drainNode)
	order("/api/nodes/{node}/enable", h.enableNode)
	order("/api/ready/off", h.readyOff)
	order("/api/ready/on", h.readyOn)
	order("/api/log/{level}", h.setLogLevel)
	order("/api/shares/{service}", h.setShare)
	for _, verb := range []release.Verb{release.Pause, release.Resume, release.Release} {
		order("/api/shares/{service}/"+string(verb), h.changeShare(verb))
	}
	order("/api/config/rollback", h.rollback)
	guarded("/metrics", h.serveMetrics())
	profile := func(path string, f http.HandlerFunc) { all[path] = readOnly(h.authorized(scopeOperate, f)) }
	profile("/debug/pprof/", pprof.Index) // they cost time and show memory
	profile("/debug/pprof/profile", pprof.Profile)
	profile("/debug/pprof/trace", pprof.Trace)
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
