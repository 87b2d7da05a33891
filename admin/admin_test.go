package admin

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sluice/admin/fleet"
	"sluice/admin/series"
	"sluice/balancer"
	"sluice/certificates"
	"sluice/config"
	"sluice/config/live"
	"sluice/config/routes"
	"sluice/consul/mesh"
	"sluice/consul/registration"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/healthcheck"
	"sluice/observe/events"
	"sluice/observe/logs"
	"sluice/operator"
	"sluice/proxy"
	"sluice/release"
	"sluice/route"
	"sluice/route/auth"
	"sluice/tags/claim"
	"sluice/test/balancertest"
	"sluice/test/configtest"
	"sluice/test/operatortest"
	"sluice/test/verify"
)

// get sends a request for path to h, and returns the status and the body.
func get(t testing.TB, h http.Handler, path string, header ...string) (int, string) {
	t.Helper()
	return ask(t, h, http.MethodGet, path, header...)
}

// ask sends a request with header fields as alternating names and values, and checks the answer
// against openapi.yaml. The request is from this machine if path is not a URL.
func ask(t testing.TB, h http.Handler, method, path string, header ...string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	if strings.HasPrefix(path, "/") {
		r.Host = "127.0.0.1:8081"
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := answerOf(h, r)
	checkAnswer(t, method, path, w.Code, w.Header(), w.Body.Bytes())
	return w.Code, w.Body.String()
}

// answerOf returns the answer of h to a request; of a stream, which has no end, what it begins
// with.
func answerOf(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	ctx, leave := context.WithCancel(r.Context())
	defer leave()
	w := flushRecorder{httptest.NewRecorder(), leave}
	h.ServeHTTP(w, r.WithContext(ctx))
	return w.ResponseRecorder
}

// A flushRecorder calls flushed for each flush.
type flushRecorder struct {
	*httptest.ResponseRecorder
	flushed func()
}

func (w flushRecorder) Flush() {
	w.ResponseRecorder.Flush()
	w.flushed()
}

// getJSON decodes the response to a request, which must succeed.
func getJSON[T any](t testing.TB, h http.Handler, path string) T {
	t.Helper()
	status, body := get(t, h, path)
	verify.Require(t, status == http.StatusOK, "%s: status %d: %s", path, status, body)
	return decode[T](t, body)
}

func decode[T any](t testing.TB, body string) T {
	t.Helper()
	var v T
	err := json.Unmarshal([]byte(body), &v)
	verify.Require(t, err == nil, "%v in %s", err, body)
	return v
}

// errorOf returns the reason in the body of an error.
func errorOf(t testing.TB, body string) string {
	t.Helper()
	return decode[map[string]string](t, body)["error"]
}

// instance returns a passing instance with weight 1 and port 80 on the node n.
func instance(service, id, address string) discovery.Instance {
	return discovery.Instance{Service: service, ID: id, Node: "n", Address: address, Port: 80, Weight: 1}
}

func newPool(t testing.TB, name string, set ...discovery.Instance) *balancer.Pool {
	t.Helper()
	p := balancer.NewPool(name, balancertest.Complete(balancer.Options{DrainTimeout: time.Minute}))
	t.Cleanup(p.Close)
	p.Apply(set)
	return p
}

// divide makes the instance a of a pool the group canary.
func divide(t testing.TB, p *balancer.Pool) {
	t.Helper()
	tags := []string{"canary"}
	p.Reconfigure(balancertest.Complete(balancer.Options{
		Limits: balancer.Limits{Adaptive: true},
		Groups: []balancer.GroupSelector{{Name: "canary", Selector: balancer.Selector{Tags: tags}}},
	}))
	var set []discovery.Instance
	for _, peer := range p.Snapshot().All {
		i := peer.Instance()
		if i.ID == "a" {
			i.Tags = tags
		}
		set = append(set, i)
	}
	p.Apply(set)
}

// pick starts an attempt.
func pick(t testing.TB, p *balancer.Pool) balancer.Token {
	t.Helper()
	return verify.Result(p.Pick(nil)).Must(t)
}

// explaining returns the routes of a proxy with a table, listeners for http and https by these
// names, and one for tcp.
func explaining(t testing.TB, table *route.Table, effective *config.Config, o proxy.Switches, names ...string) Routes {
	t.Helper()
	s := proxy.NewServer(proxy.Options{
		Timeouts: proxy.Timeouts{Head: time.Second, Body: time.Second, Write: time.Second, Idle: time.Second},
		Limits:   proxy.Limits{Connections: 1, ConnectionsPerAddress: 1, TargetBytes: 8 << 10, HeadBytes: 16 << 10, Fields: 100}, Switches: o,
	}, zerolog.Nop())
	t.Cleanup(func() { verify.Succeeds(t, s.Shutdown(context.WithoutCancel(t.Context()), 0)) })
	s.SetTable(table, nil)
	listeners := func() (all []Listener) {
		for i, name := range names {
			port := fmt.Sprint(8000 + i)
			all = append(all, Listener{proxy.ListenerOptions{Name: name}, port}, Listener{proxy.ListenerOptions{Name: name + "-secure", TLS: new(tls.Config)}, port + "9"})
		}
		return append(all, Listener{proxy.ListenerOptions{Name: "db", Streams: func() *proxy.Streams { return nil }}, "80"})
	}
	return Routes{
		Table: func() *route.Table { return table }, Effective: func() *config.Config { return effective },
		Listeners: listeners, Explain: s.Explain,
	}
}

func poolsOf(pools ...*balancer.Pool) func() []*balancer.Pool {
	return func() []*balancer.Pool { return pools }
}

// history returns a history with a revision for each text.
func history(t testing.TB, texts ...string) *config.History {
	t.Helper()
	h := new(config.History)
	for _, text := range texts {
		c := configtest.Must(t, text)
		h.Applied(config.Revision{Source: "sluice.yaml", Hash: "0123", Config: c})
	}
	return h
}

// documents are a history's, without sources.
type documents struct{ history *config.History }

func (d documents) History() *config.History { return d.history }
func (d documents) Statuses() []live.Status  { return nil }

func (d documents) Rebuild(config.Revision) (*config.Built, error) {
	return nil, errors.New("it has no documents")
}

func (d documents) RollBack(context.Context, uint64, string, string) (config.Revision, error) {
	return config.Revision{}, errors.New("it has no documents")
}

func handlerOf(o Options) http.Handler { return New(complete(o)) }

// complete sets the views that a test does not use to empty ones.
func complete(o Options) Options {
	setMissing(reflect.ValueOf(&o).Elem(), reflect.ValueOf(Options{
		Process: Process{
			Ordered:      operator.NewProcess(new(operator.Ownership), logs.New(io.Discard, zerolog.InfoLevel, "json"), nil),
			Ready:        func() (bool, []string) { return true, nil },
			Certificates: func() []certificates.Usage { return nil },
		},
		Services: Services{
			Pools:   poolsOf(),
			Former:  func() ([]Peer, error) { return nil, nil },
			Watches: func() []discovery.WatchStatus { return nil },
			Health:  func() map[string]healthcheck.Stats { return nil },
			Consul: func(context.Context, string) (consulsource.Answer, error) {
				return consulsource.Answer{}, ErrNotInConsul
			},
			Raw:     func(context.Context, string) (json.RawMessage, error) { return nil, ErrNotInConsul },
			Named:   func(string) []string { return nil },
			Catalog: func() (consulsource.CatalogStatus, bool) { return consulsource.CatalogStatus{}, false },
		},
		Routes: Routes{
			Table:  func() *route.Table { return new(route.Table) },
			Tags:   func() claim.Result { return claim.Result{} },
			Chains: func() []Chain { return nil }, Intentions: func() []mesh.IntentionState { return nil }, DeniedBy: func(string) string { return "" },
			Effective: func() *config.Config { return nil },
			Listeners: func() []Listener { return nil }, Explain: func(proxy.Question) proxy.Explanation { return proxy.Explanation{} },
			Keys: func() []auth.KeySetStatus { return nil },
		},
		Fleet: Fleet{
			Registration: func() registration.Status { return registration.Status{} },
			Replica:      func() fleet.Replica { return fleet.Replica{Pending: []string{}, Parts: map[string]string{}} },
			Replicas:     func(context.Context) fleet.Report { return fleet.Report{} },
			Limits: fleet.NewLimits(fleet.LimitsOptions{
				Limits: func() []routes.FleetLimit { return nil }, Name: func() string { return "a" }, Survey: func() (fleet.Survey, bool) { return fleet.Survey{}, false },
			}),
		},
		Documents: documents{new(config.History)},
		Shares:    Shares{Splits: func() []release.State { return []release.State{} }},
		Events:    events.New(),
		Metrics:   prometheus.NewRegistry(),
		Tokens:    func() Tokens { return Tokens{} },
	}))
	if o.Series == nil {
		o.Series = series.NewRecorder(o.Pools)
	}
	if o.Orders == nil {
		o.Orders = operatortest.Obey(o.Pools)
	}
	return o
}

// setMissing sets the fields of a struct that have no value, also those of embedded ones, to the
// values of others.
func setMissing(v, others reflect.Value) {
	for i := range v.NumField() {
		switch f := v.Field(i); {
		case f.Kind() == reflect.Struct && v.Type().Field(i).Anonymous:
			setMissing(f, others.Field(i))
		case f.IsZero():
			f.Set(others.Field(i))
		}
	}
}
