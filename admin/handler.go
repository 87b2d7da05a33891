package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	"sluice/observe/panics"
	"sluice/operator"
	"sluice/release"
)

// bodyTimeout is how long the body of a request may take.
const bodyTimeout = 10 * time.Second

// New returns the handler of the admin listener.
func New(o Options) http.Handler {
	mux := http.NewServeMux()
	for path, f := range endpoints(o) {
		mux.Handle(path, f)
	}
	return contained(mux)
}

// NewReader returns the handler of routes to what the API answers below /api and /consul to
// requests that read. Without a token the route alone says who may ask. There are no streams: of
// events it has those that are kept.
func NewReader(o Options) http.Handler {
	tokens := o.Tokens
	o.Tokens = func() Tokens {
		t := tokens()
		t.routed = true
		return t
	}
	mux := http.NewServeMux()
	for path, f := range endpoints(o) {
		if first, _, _ := strings.Cut(path[1:], "/"); first == "api" || first == "consul" {
			mux.Handle(path, only(f, http.MethodGet, http.MethodHead))
		}
	}
	return contained(mux)
}

// contained returns the handler of mux and of all other paths. A panic ends one request.
func contained(mux *http.ServeMux) http.Handler {
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, "no such path: "+r.URL.Path)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer panics.Contain(panics.Admin, func() { writeError(w, http.StatusInternalServerError, panics.Err.Error()) })
		if r.ContentLength != 0 { // also if no handler reads the body: the server does
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		mux.ServeHTTP(w, r)
	})
}

// endpoints returns the handlers by path. openapi.yaml describes each of them.
func endpoints(o Options) map[string]http.HandlerFunc {
	all := make(map[string]http.HandlerFunc)
	open := func(path string, f http.HandlerFunc) { all[path] = only(f, http.MethodGet, http.MethodHead) }
	look := func(path string, f http.HandlerFunc) { open(path, authorized(o.Tokens, scopeLook, f)) }
	profile := func(path string, f http.HandlerFunc) { open(path, authorized(o.Tokens, scopeOperate, f)) }
	proven := func(path string, f http.HandlerFunc) {
		open(path, ofReplica(o.Proofs, f, authorized(o.Tokens, scopeLook, f)))
	}
	order := func(path string, f http.HandlerFunc) {
		all[path] = only(sameOrigin(authorized(o.Tokens, scopeOperate, f)), http.MethodPost)
	}

	program := programHandler{o}
	open("/healthz", healthz)
	open("/readyz", program.readyz)
	open("/{$}", dashboard)
	open("/docs/{page}", documentation)
	look("/api/ready", value(program.readiness))
	look("/api/log", value(o.Ordered.LogLevel))
	look("/api/certificates", answer(program.certificates))
	look("/api/openapi.json", answer(program.openAPI))
	order("/api/ready/off", lasting(program.turnReady(true)))
	order("/api/ready/on", lasting(program.turnReady(false)))
	order("/api/log/{level}", lasting(program.setLogLevel))

	services := serviceHandler{o}
	look("/api", answer(services.peers))
	look("/api/peers", answer(services.peers))
	look("/api/services", answer(services.services))
	look("/api/catalog", answer(services.catalog))
	look("/api/series", services.series)
	look("/consul", answer(services.consulAll))
	look("/consul/{service}", services.consulOne)

	orders := orderHandler{o}
	look("/api/orders", answer(orders.orders))
	order("/api/peers/{service}/{id}/drain", ordered(orders.drain))
	order("/api/peers/{service}/{id}/enable", lasting(orders.end(operator.Drain)))
	order("/api/peers/{service}/{id}/weight", ordered(orders.setWeight))
	order("/api/peers/{service}/{id}/weight/release", lasting(orders.end(operator.Weight)))
	order("/api/services/{service}/maintenance/on", ordered(orders.maintain))
	order("/api/services/{service}/maintenance/off", lasting(orders.endMaintenance))
	order("/api/nodes/{node}/drain", ordered(orders.drainNode))
	order("/api/nodes/{node}/enable", lasting(orders.enableNode))

	shares := shareHandler{o}
	look("/api/shares", value(o.Splits))
	order("/api/shares/{service}", answer(shares.set))
	for _, verb := range []release.Verb{release.Pause, release.Resume, release.Release} {
		order("/api/shares/{service}/"+string(verb), answer(shares.change(verb)))
	}

	routes := routeHandler{o}
	look("/api/route", answer(routes.route))
	order("/api/route/against", answer((&foresight{Options: o}).foresee))
	look("/api/routes", answer(routes.routes))
	look("/api/tags", answer(routes.tags))
	look("/api/mesh", answer(routes.mesh))
	look("/api/keys", answer(routes.keys))

	configuration := configHandler{o}
	look("/api/config", configuration.config)
	look("/api/config/values", answer(configuration.values))
	look("/api/config/history", answer(configuration.history))
	look("/api/config/history/{number}", answer(configuration.numbered))
	look("/api/config/diff/{from}/{to}", answer(configuration.diff))
	order("/api/config/rollback", configuration.rollback)

	replicas := replicaHandler{o}
	proven("/api/replica", value(o.Replica))
	look("/api/replicas", answer(replicas.replicas))
	look("/api/limits", value(o.Limits.Report))
	proven("/api/limits/counts", replicas.counts)

	look("/api/events", (&eventHandler{feed: o.Events, tokens: o.Tokens}).events)
	look("/metrics", serveMetrics(o))
	profile("/debug/pprof/", pprof.Index) // they cost time and show memory
	profile("/debug/pprof/profile", pprof.Profile)
	profile("/debug/pprof/trace", pprof.Trace)
	return all
}

// answer returns a handler that answers with what f returns, as JSON, or with its error.
func answer(f func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			writeFailure(w, err)
			return
		}
		writeJSON(w, http.StatusOK, v)
	}
}

// value returns a handler that answers with what f returns, as JSON.
func value[T any](f func() T) http.HandlerFunc {
	return answer(func(*http.Request) (any, error) { return f(), nil })
}

// A refusal is an error with the status of the answer.
type refusal struct {
	error
	status int
}

func refuse(status int, format string, args ...any) error {
	return refusal{fmt.Errorf(format, args...), status}
}

// writeFailure answers with a refusal, or with the error of an order that was not accepted.
func writeFailure(w http.ResponseWriter, err error) {
	status := http.StatusBadRequest
	var refused refusal
	switch {
	case errors.As(err, &refused):
		status = refused.status
	case errors.Is(err, operator.ErrTakeover):
		w.Header().Set("Retry-After", "5")
		status = http.StatusServiceUnavailable
	case errors.Is(err, operator.ErrTooMany):
		status = http.StatusConflict
	}
	writeError(w, status, err.Error())
}

// only lets requests with one of the methods pass.
func only(next http.HandlerFunc, methods ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(methods, r.Method) {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			writeError(w, http.StatusMethodNotAllowed, "method "+r.Method+" is not allowed here")
			return
		}
		next(w, r)
	}
}

// sameOrigin refuses requests that pages of other origins send.
func sameOrigin(next http.HandlerFunc) http.HandlerFunc {
	origins := http.NewCrossOriginProtection()
	return func(w http.ResponseWriter, r *http.Request) {
		if err := origins.Check(r); err != nil {
			writeError(w, http.StatusForbidden, err.Error())
			return
		}
		next(w, r)
	}
}

// writeJSON answers with v, indented for people.
func writeJSON(w http.ResponseWriter, status int, v any) { encodeJSON(w, status, v, "  ") }

// encodeJSON answers with v; indent "": on one line.
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
